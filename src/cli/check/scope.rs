//! What the scope means for the topics that are there.

use super::report::{Report, count};
use crate::config::{Config, Scope};
use crate::kafka::describe::TopicDescription;
use crate::topics::prepare::left_behind;
use crate::topics::survey::Survey;

/// Partitions of one scope beyond which it is said what that costs.
const MANY: i32 = 64;

/// Of one input.
pub fn report(out: &mut Report, config: &Config, survey: &Survey) {
    let input = &survey.input;
    let name = &input.name;
    if let Some((by_id, waiting)) = &survey.left_behind {
        out.fail(&left_behind(config, by_id, *waiting));
    }
    match config.scope {
        Scope::Partition if input.partitions > 1 => out.ok(&format!(
            "scope partition: an id is looked for in its own partition. Where producers may send it to \
             another one, it is not found: kafka-dedup scan {name} counts such ids, and scope: topic or \
             repartition finds them"
        )),
        Scope::Partition => {}
        Scope::Copartition => out.ok(
            "scope copartition: an id is looked for in the partitions of the same number of all inputs, \
             which one member reads",
        ),
        Scope::Topic => {
            out.ok(&format!(
                "scope topic: an id is looked for in all partitions. One member reads all {}, others stand \
                 by; which of two partitions comes first is as they are read",
                count(input.partitions, "partition")
            ));
            if input.partitions > MANY {
                out.warn(&format!(
                    "each record would be looked for in {} windows by one thread: where producers can send \
                     an id always to the same partition, scope: partition costs far less",
                    input.partitions
                ));
            }
        }
        Scope::Repartition => {
            let (by_id, partitions) = survey.judged();
            out.ok(&format!(
                "scope repartition: an id is looked for in all partitions. A first hop passes records on to \
                 {by_id}, of {}, by their ids, and a second judges them there; members share the \
                 partitions of both",
                count(partitions, "partition")
            ));
            out.text(
                "order: of one id it is kept; records of different ids may change places, within a partition \
                 and a key too. Records that must keep their order need scope: partition or topic",
            );
        }
    }
}

/// Of all inputs together.
pub fn report_kin(out: &mut Report, config: &Config, surveys: &[Survey]) {
    if config.scope != Scope::Copartition {
        return;
    }
    let inputs: Vec<&TopicDescription> = surveys.iter().map(|survey| &survey.input).collect();
    let sizes = || inputs.iter().map(|input| input.partitions);
    out.heading("scope");
    if sizes().min() != sizes().max() {
        let each = inputs.iter().map(|input| {
            format!(
                "{} has {}",
                input.name,
                count(input.partitions, "partition")
            )
        });
        out.fail(&format!(
            "scope: copartition joins the partitions of one number, and the inputs have not as many: {}. \
             Those without a counterpart would not be read. Grow the smaller ones (kafka-topics --alter \
             --partitions)",
            each.collect::<Vec<_>>().join(", ")
        ));
    } else if inputs.len() < 2 {
        out.warn("scope: copartition with one input is the same as scope: partition");
    } else {
        out.ok(&format!(
            "partitions of one number of {} inputs share what they have seen",
            inputs.len()
        ));
    }
}

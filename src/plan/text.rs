//! The plan for a person.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::model::{Instance, Plan};
use crate::config::{Config, Mode};

pub(super) fn write(plan: &Plan, config: &Config) -> String {
    let (load, partition, traffic) = (&plan.load, &plan.partition, &plan.traffic);
    let mut out = String::new();
    let mut line = |name: &str, value: String, note: String| {
        let row = format!("  {name:<26}{value:>12}  {note}");
        let _ = writeln!(out, "{}", row.trim_end());
    };
    let all = f64::from(load.partitions);
    line(
        "ids remembered",
        count(all * partition.ids_remembered),
        format!(
            "{} a partition, in {} slices of {}",
            count(partition.ids_remembered),
            partition.slices,
            count(partition.ids_a_slice)
        ),
    );
    line(
        "memory",
        bytes(plan.instance.memory_bytes),
        each(&plan.instance, load.instances),
    );
    line(
        "memory, at most",
        bytes(plan.instance.memory_peak_bytes),
        "while filters grow, slices are sealed and a partition is restored".to_owned(),
    );
    line(
        "disk",
        bytes(plan.instance.disk_bytes),
        format!(
            "{:.1} bytes an id; a cache, which may be lost",
            partition.disk_bytes / partition.ids_remembered.max(1.0)
        ),
    );
    line(
        "journal topic",
        bytes(plan.journal_bytes),
        format!(
            "{} with {} replicas; {:.1} bytes an id",
            bytes(plan.journal_bytes * f64::from(load.replication)),
            load.replication,
            partition.journal_bytes / partition.ids_held.max(1.0)
        ),
    );
    line("read from Kafka", per_s(traffic.read), String::new());
    let output = match config.mode {
        Mode::Filter => "what producers send, without its duplicates",
        Mode::Mark => "all that producers send: mode mark",
        Mode::Observe => "mode observe",
    };
    line("written: output", per_s(traffic.output), output.to_owned());
    if traffic.duplicates_topic > 0.0 {
        line(
            "written: duplicates",
            per_s(traffic.duplicates_topic),
            String::new(),
        );
    }
    if traffic.repartition > 0.0 {
        line(
            "written: repartition topic",
            per_s(traffic.repartition),
            "every record once more, trimmed when it is judged".to_owned(),
        );
    }
    line("written: journal", per_s(traffic.journal), String::new());
    line(
        "written: transactions",
        per_s(traffic.transactions),
        format!(
            "markers and offsets of {:.1} transactions a second and partition",
            partition.transactions_per_s
        ),
    );
    line(
        "written with replicas",
        per_s(traffic.written_with_replicas),
        String::new(),
    );
    let recommended = &plan.recommended;
    let share = match load.instances {
        1 => String::new(),
        of => format!(
            ", each of {} ({} of {} partitions when one is gone)",
            instances(of),
            plan.instance_without_one.partitions,
            load.partitions
        ),
    };
    format!(
        "{} records/s, {:.1} % duplicates, {} partitions, {}\n\n{out}\n\
         Kubernetes{}:\n  \
         resources:\n    requests: {{memory: {}}}\n    limits: {{memory: {}}}\n  \
         volume: {}\n\
         CPU is not planned: give it none as a limit, and look at what it takes.\n",
        count(load.rate),
        100.0 * load.duplicates,
        count(all),
        window(config),
        share,
        quantity(recommended.memory_request_bytes),
        quantity(recommended.memory_limit_bytes),
        quantity(recommended.volume_bytes),
    )
}

fn each(instance: &Instance, of: u32) -> String {
    let each = if of == 1 { "" } else { "each of " };
    format!(
        "{each}{}, with {} partitions",
        instances(of),
        instance.partitions
    )
}

fn instances(count: u32) -> String {
    match count {
        1 => "1 instance".to_owned(),
        _ => format!("{count} instances"),
    }
}

fn window(config: &Config) -> String {
    let time = config.window.time_ms.map(|ms| {
        let time = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        format!("a window of {}", humantime::format_duration(time))
    });
    let ids = config
        .window
        .ids
        .map(|ids| format!("{} ids a partition", HumanCount(ids)));
    let both: Vec<String> = time.into_iter().chain(ids).collect();
    both.join(" or ")
}

fn count(number: f64) -> String {
    HumanCount(number.round() as u64).to_string()
}

fn bytes(number: f64) -> String {
    HumanBytes(number.round() as u64).to_string()
}

fn per_s(number: f64) -> String {
    format!("{}/s", bytes(number))
}

/// As Kubernetes writes it.
fn quantity(number: f64) -> String {
    format!("{:.0}Mi", number / (1024.0 * 1024.0))
}

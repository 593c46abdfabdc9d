//! What the ACLs let this user do, each permission by its name.
//!
//! Nothing is changed: topics that would be made or grown are asked for with "validate only". The
//! transactional id asked for is not the real one, as that would fence a running instance.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::producer::{BaseProducer, Producer};

use super::report::Report;
use crate::config::Config;
use crate::exit::Stop;
use crate::kafka::clients;
use crate::kafka::describe::Permission;
use crate::topics::admin::is_forbidden;
use crate::topics::plan::{Decision, decide};
use crate::topics::prepare::new_topic;
use crate::topics::settings;
use crate::topics::survey::{Own, Role, Survey};
use crate::topics::{Admin, PrepareError};

/// The coordinator of a transactional id may have to be elected first.
const TRANSACTIONS: Duration = Duration::from_secs(20);

/// What the broker says of one resource; `None` where it does not tell.
type Permitted = Option<BTreeSet<Permission>>;

/// Permissions on one input topic and on ours around it.
pub fn report_topics(
    out: &mut Report,
    admin: &Admin,
    config: &Config,
    survey: &Survey,
) -> Result<(), PrepareError> {
    let input = &survey.input;
    let needed = [Permission::Read, Permission::Describe];
    report(
        out,
        &format!("topic {}", input.name),
        &input.permitted,
        &needed,
    );
    let makes_some = survey.own.iter().any(|own| own.found.is_none());
    let may_read_settings = may(&input.permitted, Permission::DescribeConfigs);
    if makes_some && !may_read_settings {
        out.warn(&format!(
            "DescribeConfigs on topic {0} is missing: its new topics would get the broker's \
             defaults, which may delete or refuse old records. Grant it",
            input.name
        ));
    }
    let input_settings = if makes_some {
        admin.settings(&input.name)?
    } else {
        None
    };
    for own in &survey.own {
        match decide(config, survey, own) {
            Decision::Create(partitions) => {
                let wanted = settings::initial(config, own.role, input_settings.as_ref());
                let answer = admin.create(&new_topic(survey, own, partitions, &wanted), true)?;
                report_change(out, &format!("Create on topic {}", own.name), answer);
            }
            Decision::Grow(partitions) => {
                let answer = admin.grow(&own.name, partitions, true)?;
                report_change(out, &format!("Alter on topic {}", own.name), answer);
            }
            Decision::Fits | Decision::Contradiction(_) => {}
        }
        report_own(out, config, own);
    }
    Ok(())
}

/// What is needed on one of our topics that exists.
fn report_own(out: &mut Report, config: &Config, own: &Own) {
    let Some(found) = &own.found else { return };
    let needed: &[Permission] = match own.role {
        Role::Journal | Role::Repartition => {
            &[Permission::Read, Permission::Write, Permission::Describe]
        }
        Role::Output | Role::Duplicates | Role::Rejected => {
            &[Permission::Write, Permission::Describe]
        }
    };
    report(
        out,
        &format!("topic {}", own.name),
        &found.permitted,
        needed,
    );
    if !may(&found.permitted, Permission::DescribeConfigs) {
        out.warn(&format!(
            "DescribeConfigs on topic {} is missing: whether its settings fit (retention, compaction, sizes) cannot be \
             told. Grant it",
            own.name
        ));
    }
    let may_trim = may(&found.permitted, Permission::Delete);
    if own.role == Role::Repartition && !may_trim {
        out.warn(&format!(
            "Delete on topic {} is missing: what was judged cannot be deleted, and it grows. Grant it",
            own.name
        ));
    }
    if own.role == Role::Repartition && may_trim && found.permitted.is_some() {
        out.ok(&format!("Delete on topic {}", own.name));
    }
    if own.role != Role::Journal {
        return;
    }
    match (may_trim, config.journal.retention) {
        (true, _) if found.permitted.is_some() => out.ok(&format!("Delete on topic {}", own.name)),
        (true, _) | (false, Some(_)) => {}
        (false, None) => out.warn(&format!(
            "Delete on topic {} is missing: the journal cannot be trimmed and grows. Grant it, or \
             set journal.retention longer than the window",
            own.name
        )),
    }
}

/// Permissions on topics that do not exist yet cannot be asked for one by one.
pub fn report_absent(out: &mut Report, surveys: &[Survey], cluster: &Permitted) {
    let all = [
        Permission::Create,
        Permission::Alter,
        Permission::DescribeConfigs,
    ];
    // A user who may do all of this to the cluster has no ACLs in the way.
    if all.iter().all(|permission| may(cluster, *permission)) {
        return;
    }
    let own = surveys.iter().flat_map(|survey| &survey.own);
    let absent: Vec<&str> = own
        .filter(|own| own.found.is_none())
        .map(|own| own.name.as_str())
        .collect();
    if !absent.is_empty() {
        out.warn(&format!(
            "Write on topics that do not exist yet, and Read and Delete on journals, cannot be \
             asked for: {}. Check again once they exist",
            absent.join(", ")
        ));
    }
}

/// Read on the consumer group.
pub fn report_group(out: &mut Report, admin: &Admin, config: &Config) {
    let group = &config.kafka.group_id;
    match admin.group_permissions() {
        Ok(permitted) => report(
            out,
            &format!("group {group}"),
            &permitted,
            &[Permission::Read],
        ),
        Err(error) if is_forbidden(error.code) => {
            out.fail(&format!("Read on group {group} is missing: grant it"));
        }
        Err(error) => out.warn(&format!(
            "Read on group {group} cannot be asked for: {error}"
        )),
    }
}

/// Write on transactional ids, tried with one that is like those of `run` and that none of them has.
pub fn report_transactions(out: &mut Report, config: &Config) -> Result<(), Stop> {
    let id = format!("{}-check", clients::transactional_id(config, 0));
    let mut client = clients::producer_config(config, 0);
    client.set("transactional.id", id.as_str());
    let producer: BaseProducer = client.create().map_err(|error| {
        Stop::usage(format!(
            "librdkafka refuses the producer's configuration: {error}. Correct kafka.properties or \
             kafka.producer_properties"
        ))
    })?;
    let group = &config.kafka.group_id;
    match producer.init_transactions(TRANSACTIONS) {
        Ok(()) => out.ok(&format!("Write on transactional id {id}")),
        Err(error) if code(&error).is_some_and(is_forbidden) => out.fail(&format!(
            "Write on transactional id {id} is missing: grant it on transactional ids that begin with \
             {group}-"
        )),
        Err(error) if code(&error) == Some(Code::InvalidTransactionTimeout) => out.fail(&format!(
            "the broker refuses transaction.timeout: {error}. Set it below the broker's \
             transaction.max.timeout.ms"
        )),
        Err(error) => out.fail(&format!(
            "transactions do not begin with transactional id {id}: {error}. Look at the brokers' \
             __transaction_state topic (replication factor, min.insync.replicas, live brokers)"
        )),
    }
    Ok(())
}

fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::Transaction(error) => Some(error.code()),
        other => other.rdkafka_error_code(),
    }
}

fn report(out: &mut Report, resource: &str, permitted: &Permitted, needed: &[Permission]) {
    let words: Vec<String> = needed
        .iter()
        .map(|permission| format!("{permission:?}"))
        .collect();
    let missing: Vec<String> = needed
        .iter()
        .filter(|permission| !may(permitted, **permission))
        .map(|permission| format!("{permission:?}"))
        .collect();
    if permitted.is_none() {
        out.warn(&format!(
            "{} on {resource}: the broker does not tell",
            words.join(", ")
        ));
    } else if missing.is_empty() {
        out.ok(&format!("{} on {resource}", words.join(", ")));
    }
    for permission in missing {
        out.fail(&format!("{permission} on {resource} is missing: grant it"));
    }
}

fn report_change(out: &mut Report, permission: &str, answer: Result<(), Code>) {
    match answer {
        Ok(()) | Err(Code::TopicAlreadyExists) => out.ok(permission),
        Err(code) if is_forbidden(code) => out.fail(&format!("{permission} is missing: grant it")),
        Err(code) => out.fail(&format!("{permission}: the broker would refuse: {code}")),
    }
}

/// Not told counts as permitted: the broker will say when it is not.
fn may(permitted: &Permitted, permission: Permission) -> bool {
    permitted
        .as_ref()
        .is_none_or(|permitted| permitted.contains(&permission))
}

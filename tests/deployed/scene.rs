//! What the groups of the manifests are there for: their topics, what comes in, and what has to come out.

use std::time::Duration;

use crate::kit::expected::{Limits, expect_forwarded};
use crate::kit::{Deployment, Kafka, Rec, kin, now_ms};

const PARTITIONS: i32 = 3;
/// Records of each partition at a time; half of them come again the next time.
const RECORDS: i64 = 400;

pub struct Scene {
    pub group: &'static str,
    pub inputs: Vec<Deployment>,
    pub assert_outputs: fn(&[Deployment]),
    rejects: bool,
    /// Records that each partition has got.
    pub sent: i64,
}

pub fn scenes(kafka: &Kafka) -> [Scene; 3] {
    let input = |group: &str, input: &str, output: &str| {
        kafka.create_topic(input, PARTITIONS, &[]);
        let mut it = Deployment::of(kafka, input.to_owned(), PARTITIONS, "");
        (it.group, it.output) = (group.to_owned(), output.to_owned());
        it
    };
    let scene =
        |group: &'static str, topics: &[(&str, &str)], assert_outputs: fn(&[Deployment])| Scene {
            group,
            inputs: (topics.iter())
                .map(|(from, to)| input(group, from, to))
                .collect(),
            assert_outputs,
            rejects: false,
            sent: 0,
        };
    let trucks = [("truck_position", "truck_position_dedup")];
    let fleet = [
        ("fleet_position", "fleet_position_clean"),
        ("fleet_event", "fleet_event_clean"),
    ];
    let orders = [("us.orders", "orders"), ("eu.orders", "orders")];
    [
        scene("trucks-dedup", &trucks, assert_each_id_once),
        Scene {
            rejects: true,
            ..scene("fleet-dedup", &fleet, assert_each_id_once_or_rejected)
        },
        scene("orders-dedup", &orders, assert_each_id_once_in_all),
    ]
}

impl Scene {
    pub fn send(&mut self) {
        let from = self.sent / 2;
        for it in &self.inputs {
            for partition in 0..it.partitions {
                let records: Vec<Rec> = (from..from + RECORDS).map(record).collect();
                it.kafka.produce(&it.input, partition, &records);
            }
        }
        self.sent += RECORDS;
    }

    pub fn wait_until_caught_up(&self, patience: Duration) {
        for it in &self.inputs {
            it.wait_until_caught_up(patience);
        }
    }

    /// The topic that is written beside the output.
    pub fn beside(&self, it: &Deployment) -> Option<String> {
        self.rejects.then(|| rejected(it))
    }
}

fn rejected(it: &Deployment) -> String {
    format!("{}_rejected", it.input)
}

/// A record with its id wherever the configs look for it; one in four has that of the one before it, and some are of no tenant.
fn record(number: i64) -> Rec {
    let id = number - i64::from(number % 4 == 3);
    let mut record = Rec::with_id(format!("{id}"), now_ms());
    record.value = Some(format!(r#"{{"event": {{"id": "{id}"}}, "number": {number}}}"#).into());
    let mut add = |name: &str, value: &str| {
        let header = (name.to_owned(), Some(value.as_bytes().to_vec()));
        record.headers.push(header);
    };
    add("ce_specversion", "1.0");
    add("ce_type", "test");
    add("ce_source", "/trucks");
    add("ce_id", &format!("{id}"));
    if id % 10 != 0 {
        add("tenant", "acme");
    }
    record
}

fn assert_each_id_once(inputs: &[Deployment]) {
    for it in inputs {
        it.assert_output(|_, input| {
            expect_forwarded(Limits::time(86_400_000), input, |record| {
                Some(kin::id_of(record))
            })
        });
    }
}

/// What is of no tenant has no id.
fn assert_each_id_once_or_rejected(inputs: &[Deployment]) {
    for it in inputs {
        it.assert_output(|partition, input| {
            let (with, without): (Vec<_>, Vec<_>) =
                (input.iter().cloned()).partition(|(_, record)| record.header("tenant").is_some());
            let values = |records: Vec<(i64, Rec)>| -> Vec<_> {
                records
                    .into_iter()
                    .map(|(_, record)| record.value)
                    .collect()
            };
            let rejected = it.kafka.read_partition(&rejected(it), partition);
            assert!(!rejected.is_empty());
            assert_eq!(values(rejected), values(without));
            expect_forwarded(Limits::unlimited(), &with, |record| {
                Some(kin::id_of(record))
            })
        });
    }
}

/// All inputs and partitions have the same ids, and partitions with the same number share what they have seen.
fn assert_each_id_once_in_all(inputs: &[Deployment]) {
    let names: Vec<&str> = inputs.iter().map(|it| it.input.as_str()).collect();
    let count = kin::let_through(&inputs[0], &names, &inputs[0].output);
    kin::assert_each(&count, usize::try_from(PARTITIONS).expect("small"));
}

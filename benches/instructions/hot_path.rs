//! What the worker does with a record and with a transaction, without Kafka: as much of each stretch as its mean settles
//! within a part of the tolerance, and no more, as all of it is emulated. The same ids in every run.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use kafka_dedup::config::{IdSource, Window};
use kafka_dedup::http::health::Health;
use kafka_dedup::identify::{Identifier, Identity, fingerprint};
use kafka_dedup::journal::{MAX_IDS_PER_RUN, Run, Terms};
use kafka_dedup::metrics::Metrics;
use kafka_dedup::schemas::Schemas;
use kafka_dedup::store::{Anchor, Lineage, Store};
use kafka_dedup::window::{Fingerprint, SeenWindow, Sizing, Verdict};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};

use crate::stream::{WINDOW_MS, id};

const SEED: u64 = 1;
const HEADER: &str = "message-id";
/// Records whose ids are looked for in a header.
const IDENTIFIED: u64 = 2_000;
/// Records of a transaction.
const RECORDS: u64 = 4_000;
/// Transactions before the first that is counted: so many that most of their ids are in slices on the disk.
const BEFORE: u64 = 50;
/// Transactions of which all is counted.
const WHOLE: u64 = 5;
/// Ids of a slice, fewer than by default, so that there are some.
const ACTIVE_IDS: u64 = 32_768;
/// Transactions that are restored.
const RESTORED: u64 = 5;
/// Transactions of a single record.
const SMALL: u64 = 200;

/// The function below.
pub const COUNTED: &str = "counted_by_valgrind";

/// Runs a stretch. By the name of this function valgrind knows where to begin and to end.
#[unsafe(no_mangle)]
#[inline(never)]
fn counted_by_valgrind(work: &mut dyn FnMut()) {
    work();
}

/// `times`: how many records, ids or transactions the stretch deals with. A stretch may come in several parts. What is
/// printed says of which stretch a count is.
fn count(stretch: &str, times: u64, mut work: impl FnMut()) {
    counted_by_valgrind(&mut work);
    println!("{times} {stretch}");
}

/// `dir` is empty.
pub fn walk(dir: &Path) {
    identify(IDENTIFIED);
    let mut seen = Seen::new(&dir.join("seen"));
    for number in 0..BEFORE {
        seen.transaction(number * RECORDS..(number + 1) * RECORDS);
    }
    let mut hashed = Vec::new();
    for number in BEFORE..BEFORE + WHOLE {
        hashed = seen.counted_transaction(number * RECORDS..(number + 1) * RECORDS);
    }
    seen.judge_again("a duplicate of an id that is in memory", &hashed);
    let oldest: Vec<_> = (0..RECORDS).map(hash).collect();
    seen.judge_again("a duplicate of an id that is on the disk", &oldest);
    seen.small_transactions();
    let last = (BEFORE - RESTORED) as usize..BEFORE as usize;
    restore(&dir.join("restored"), &seen.journal[last]);
}

/// The first stretch of [`walk`], with a tenth more work than it says.
pub fn begin_with_a_loss() {
    identify(IDENTIFIED + IDENTIFIED / 10);
}

/// Of a message as librdkafka holds it, headers and all. It gives one away where it could not be sent.
fn identify(times: u64) {
    struct Sender(u64);
    impl ClientContext for Sender {}
    impl ProducerContext for Sender {
        type DeliveryOpaque = ();

        fn delivery(&self, unsent: &DeliveryResult<'_>, (): ()) {
            let (Ok(message) | Err((_, message))) = unsent;
            let source = IdSource::Header(HEADER.to_owned());
            let mut identifier = Identifier::new(&source, SEED, &Schemas::default());
            let mut found = None;
            count("the id of a record, from a header", IDENTIFIED, || {
                for _ in 0..self.0 {
                    found = identifier.identify(message).ok();
                }
            });
            assert_eq!(found, Some(Identity::Id(hash(0))));
        }
    }
    let mut headers = OwnedHeaders::new();
    let id = id(0);
    for (key, value) in [
        ("content-type", b"application/json".as_slice()),
        (HEADER, id.as_slice()),
        (
            "trace",
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00".as_slice(),
        ),
    ] {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    let producer: BaseProducer<Sender> = ClientConfig::new()
        .create_with_context(Sender(times))
        .expect("a producer without a broker");
    let record = BaseRecord::<(), [u8]>::to("orders").payload(b"{}".as_slice());
    let sent = producer.send(record.headers(headers));
    sent.map_err(|(error, _)| error).expect("room for a record");
    producer.purge(PurgeConfig::default().queue());
    producer.poll(Duration::from_secs(10));
}

fn hash(number: u64) -> Fingerprint {
    fingerprint(&id(number), SEED)
}

fn offset(number: u64) -> i64 {
    i64::try_from(number).expect("an offset")
}

/// Where a run is in the journal.
fn anchor(number: usize) -> Anchor {
    Anchor {
        offset: offset(number as u64),
        checksum: number as u64,
    }
}

fn restore(dir: &Path, journal: &[Vec<u8>]) {
    let mut restored = Seen::new(dir);
    count(
        "an id of a run that is read back",
        RESTORED * RECORDS,
        || {
            for (number, bytes) in journal.iter().enumerate() {
                let run = Run::decode(bytes).expect("a run");
                let applied = restored.window.apply(&run, anchor(number));
                applied.expect("a run that follows");
            }
        },
    );
    assert_eq!(restored.window.ids(), RESTORED * RECORDS);
}

/// The window of a partition, and its journal.
struct Seen {
    window: SeenWindow,
    journal: Vec<Vec<u8>>,
    /// Offset of the next record.
    next: u64,
}

impl Seen {
    fn new(dir: &Path) -> Self {
        let store = Store::open(dir, 96 << 20, Metrics::new(), Health::new()).expect("a store");
        let limits = Window {
            time_ms: Some(WINDOW_MS),
            ids: None,
            refresh: false,
            max_ahead_ms: WINDOW_MS,
        };
        let sizing = Sizing {
            active_ids: ACTIVE_IDS,
            ..Sizing::default()
        };
        Self {
            window: SeenWindow::new(limits, sizing, store.shelf(Lineage::default())),
            journal: Vec::new(),
            next: 0,
        }
    }

    /// Records with new ids, uncounted, until what comes of them is on the disk.
    fn transaction(&mut self, numbers: Range<u64>) {
        let hashed: Vec<_> = numbers.map(hash).collect();
        self.judge(&hashed, Seen::is_new);
        self.write_run();
        self.merge();
        self.settle();
    }

    /// Records with new ids, and once more with the same. Gives these.
    fn counted_transaction(&mut self, numbers: Range<u64>) -> Vec<Fingerprint> {
        let hashed: Vec<_> = numbers.map(hash).collect();
        count("a new id", RECORDS, || self.judge(&hashed, Seen::is_new));
        count("a duplicate within its transaction", RECORDS, || {
            self.judge(&hashed, Seen::is_duplicate);
        });
        count("an id in a run for the journal", RECORDS, || {
            self.write_run();
        });
        count("an id that was committed, into the window", RECORDS, || {
            self.merge();
        });
        self.settle();
        hashed
    }

    fn judge_again(&mut self, stretch: &str, hashed: &[Fingerprint]) {
        count(stretch, hashed.len() as u64, || {
            self.judge(hashed, Seen::is_duplicate);
        });
        self.window.discard();
    }

    /// What is paid by transaction shows where each has a single record.
    fn small_transactions(&mut self) {
        let from = (BEFORE + WHOLE) * RECORDS;
        let hashed: Vec<_> = (from..from + SMALL).map(hash).collect();
        count("a transaction of one new id", SMALL, || {
            for one in hashed.chunks(1) {
                self.judge(one, Seen::is_new);
                self.write_run();
                self.merge();
            }
        });
    }

    fn is_new(verdict: Verdict) -> bool {
        verdict == Verdict::Forward
    }

    fn is_duplicate(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Duplicate { .. })
    }

    fn judge(&mut self, hashed: &[Fingerprint], is_right: impl Fn(Verdict) -> bool) {
        for &fingerprint in hashed {
            // Ten a second: all of them are within the window.
            let time_ms = offset(self.next) * 100;
            self.window.observe(Some(time_ms), time_ms);
            let verdict = self.window.judge(fingerprint, offset(self.next));
            assert!(verdict.is_ok_and(&is_right));
            self.next += 1;
        }
    }

    fn write_run(&mut self) {
        assert!(self.window.is_dirty());
        let mut run = self.window.pending_run(SEED, offset(self.next));
        run.terms = Some(Terms::default());
        self.journal.extend(run.encode(MAX_IDS_PER_RUN));
    }

    fn merge(&mut self) {
        let run = anchor(self.journal.len() - 1);
        self.window.merge(run.offset, run, offset(self.next));
    }

    fn settle(&mut self) {
        const STEPS: usize = 4;
        loop {
            while self.window.tend(STEPS).expect("sound slices") == STEPS {}
            if !self.window.is_sealing() {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

//! Ctrl-C while a command is at work: it ends with 130 and says what is left to do, and no file is there that
//! is not whole. A second one ends it at once. (`scan`, `verify` and `demo` have tests of their own.)

#[path = "kit/mod.rs"]
mod kit;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use kit::{BINARY, Deployment, Rec, flush, now_ms, send, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// Their rows are more than a pipe holds.
const IDS: usize = 4000;

/// A deployment that remembers [`IDS`].
fn deployment() -> &'static Deployment {
    static IT: OnceLock<Deployment> = OnceLock::new();
    IT.get_or_init(|| {
        let it = Deployment::new("interrupt", 1, "transaction: {records: 200}\n");
        let records: Vec<Rec> = (0..IDS)
            .map(|number| Rec::with_id(number.to_string(), now_ms()))
            .collect();
        it.kafka.produce(&it.input, 0, &records);
        let mut service = it.start("one");
        it.wait_until_caught_up(PATIENCE);
        assert!(service.terminate().success(), "{}", service.log_tail());
        it
    })
}

fn begin(it: &Deployment, arguments: &[&str]) -> Child {
    Command::new(BINARY)
        .args([arguments[0], "-c"])
        .arg(it.config_file())
        .args(&arguments[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command runs")
}

fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
    unsafe { libc::kill(pid, libc::SIGINT) };
}

/// Waits until it has written all that a pipe holds, and is held up.
fn wait_until_held_up(child: &mut Child) {
    let wchan = format!("/proc/{}/wchan", child.id());
    wait_for("it to be held up", PATIENCE, || {
        assert!(child.try_wait().expect("its state").is_none(), "it ended");
        fs::read_to_string(&wchan).is_ok_and(|place| place.contains("pipe_write"))
    });
}

/// Reads to the end; the last line on standard error and the status go with it.
fn ended(mut child: Child, mut rows: impl Read) -> (Option<i32>, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    rows.read_to_string(&mut out).expect("text");
    let mut stderr = child.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut err).expect("text");
    (child.wait().expect("its end").code(), out, err)
}

fn stdout(child: &mut Child) -> ChildStdout {
    child.stdout.take().expect("it is piped")
}

#[test]
fn an_export_that_is_interrupted_ends_with_130_and_a_second_time_at_once() {
    let mut child = begin(deployment(), &["export"]);
    let rows = stdout(&mut child);
    wait_until_held_up(&mut child);
    interrupt(&child);
    // It listens in a thread of its own: what it has heard is seen when it goes on.
    std::thread::sleep(Duration::from_millis(300));
    let (status, out, err) = ended(child, rows);
    assert_eq!(status, Some(130), "{err}");
    assert!(out.lines().count() < IDS, "it wrote all");
    assert!(err.contains("stopped before the answer was there"), "{err}");

    let mut child = begin(deployment(), &["export"]);
    let rows = stdout(&mut child);
    wait_until_held_up(&mut child);
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().expect("its state").is_none(), "it ended");
    interrupt(&child);
    // Nobody reads.
    assert_eq!(child.wait().expect("its end").code(), Some(130));
    drop(rows);
}

#[test]
fn an_export_to_a_file_that_is_interrupted_leaves_none() {
    let it = deployment();
    let whole = it.dir.path().join("seen.csv");
    let partial = it.dir.path().join("seen.csv.partial");
    // What is written under that name goes to us, and is held up when we do not read.
    let mut name = partial.as_os_str().as_bytes().to_vec();
    name.push(0);
    // SAFETY: the name ends in a zero byte and outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr().cast(), 0o600) }, 0);
    let path = whole.to_str().expect("a path");
    let mut child = begin(it, &["export", "--output", path]);
    let rows = File::open(&partial).expect("a pipe");
    wait_until_held_up(&mut child);
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(300));
    let (status, _, err) = ended(child, rows);
    assert_eq!(status, Some(130), "{err}");
    assert!(!whole.exists() && !partial.exists());
}

#[test]
fn an_export_whose_reader_goes_away_ends_quietly() {
    let mut child = begin(deployment(), &["export"]);
    let mut rows = stdout(&mut child);
    let mut first = [0; 100];
    rows.read_exact(&mut first).expect("rows");
    drop(rows);
    let (status, _, err) = ended(child, std::io::empty());
    assert_eq!((status, err.as_str()), (Some(0), ""));
}

#[test]
fn a_preload_that_is_interrupted_says_that_it_has_to_be_run_again() {
    let mut it = Deployment::new("preload", 1, "");
    it.kafka.create_topic(&it.output, 1, &[]);
    // One record a batch and one batch a fetch: slow enough to be caught.
    let producer = it.kafka.producer(&[("batch.num.messages", "1")]);
    for number in 0..10_000 {
        let record = Rec::with_id(number.to_string(), now_ms());
        send(&producer, &it.output, 0, &record);
    }
    flush(&producer);
    for (name, value) in [
        ("fetch.message.max.bytes", "1"),
        ("queued.min.messages", "1"),
    ] {
        it.consumer_properties
            .push((name.to_owned(), value.to_owned()));
    }
    let arguments = ["preload", "--from-topic", "--start-at", "latest"];
    let mut child = begin(&it, &arguments);
    let journal = it.journal();
    let has_begun = || {
        it.kafka.partitions_of(&journal).is_some()
            && it.kafka.watermarks(&journal, 0, "read_uncommitted").1 > 0
    };
    wait_for("it to begin", PATIENCE, has_begun);
    interrupt(&child);
    let rows = stdout(&mut child);
    let (status, out, err) = ended(child, rows);
    assert_eq!((status, out.as_str()), (Some(130), ""), "{err}");
    assert!(
        err.contains("Run preload again before the service is started"),
        "{err}"
    );
    // Until then the service does not start.
    let mut service = it.start("early");
    assert_eq!(
        service.wait(PATIENCE).code(),
        Some(78),
        "{}",
        service.log_tail()
    );
    it.consumer_properties.truncate(3);
    let again = begin(&it, &arguments).wait_with_output().expect("its end");
    assert!(again.status.success(), "{again:?}");
}

//! How workers end, acted out by threads.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::*;
use crate::exit::Status;
use crate::worker::Pulse;

type Part = Box<dyn FnOnce(usize, Sender<Ended>, Arc<AtomicBool>) + Send>;

fn leaves_when_asked() -> Part {
    Box::new(|worker, ended, shutdown| {
        while !shutdown.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        ended.send((worker, Ok(()))).unwrap();
    })
}

fn ends_with(result: Result<(), Stop>) -> Part {
    Box::new(move |worker, ended, _| ended.send((worker, result)).unwrap())
}

fn play(parts: Vec<Part>, asked_to_leave: bool, leave_timeout: Duration) -> Result<(), Stop> {
    watched(parts, asked_to_leave, leave_timeout, AMPLE)
}

/// The parts have no pulse at all.
fn watched(
    parts: Vec<Part>,
    asked_to_leave: bool,
    leave_timeout: Duration,
    step_limit: Duration,
) -> Result<(), Stop> {
    let (sender, ended) = channel();
    let count = parts.len();
    let shutdown = Arc::new(AtomicBool::new(asked_to_leave));
    let workers = parts
        .into_iter()
        .enumerate()
        .map(|(worker, part)| {
            let (sender, shutdown) = (sender.clone(), Arc::clone(&shutdown));
            thread::spawn(move || part(worker, sender, shutdown))
        })
        .collect();
    drop(sender);
    let pulses = (0..count).map(|_| Pulse::default()).collect();
    let watchdog = Watchdog::new(pulses, LOOK, step_limit);
    supervise(workers, &ended, &shutdown, leave_timeout, watchdog)
}

const AMPLE: Duration = Duration::from_secs(20);

#[test]
fn workers_asked_to_leave_end_in_success() {
    play(vec![leaves_when_asked(), leaves_when_asked()], true, AMPLE).unwrap();
}

#[test]
fn the_first_failure_takes_the_others_along_and_is_the_reason() {
    let parts = vec![
        leaves_when_asked(),
        ends_with(Err(Stop::contradiction("two partitions"))),
        leaves_when_asked(),
    ];
    let stop = play(parts, false, AMPLE).unwrap_err();
    assert_eq!(stop.status, Status::Contradiction);
    assert_eq!(stop.sentence, "two partitions");
}

#[test]
fn a_failure_while_leaving_is_the_reason() {
    let parts = vec![leaves_when_asked(), ends_with(Err(Stop::restart("fenced")))];
    assert_eq!(
        play(parts, true, AMPLE).unwrap_err().status,
        Status::Restart
    );
}

#[test]
fn a_worker_that_does_not_leave_is_left_behind() {
    let stuck: Part = Box::new(|_, ended, _| {
        thread::sleep(Duration::from_secs(5));
        drop(ended);
    });
    let begun = Instant::now();
    let stop = play(
        vec![leaves_when_asked(), stuck],
        true,
        Duration::from_millis(300),
    )
    .unwrap_err();
    assert_eq!(stop.status, Status::Restart);
    assert!(
        stop.sentence
            .starts_with("worker 1 did not leave within 300ms"),
        "{stop}"
    );
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_panic_that_reaches_the_thread_is_a_defect() {
    let panics: Part = Box::new(|_, _, _| panic!("slice {} is missing", 3));
    let stop = play(vec![panics, leaves_when_asked()], false, AMPLE).unwrap_err();
    assert_eq!(stop.status, Status::Internal);
    assert!(
        stop.sentence
            .contains("worker 0 ended in a panic (slice 3 is missing)"),
        "{stop}"
    );
}

#[test]
fn a_worker_that_leaves_unasked_or_without_a_word_is_a_defect() {
    let stop = play(vec![ends_with(Ok(()))], false, AMPLE).unwrap_err();
    assert!(
        stop.status == Status::Internal && stop.sentence.contains("nobody asked"),
        "{stop}"
    );
    let stop = play(vec![Box::new(|_, _, _| ())], false, AMPLE).unwrap_err();
    assert!(
        stop.status == Status::Internal && stop.sentence.contains("without a reason"),
        "{stop}"
    );
}

#[test]
fn a_worker_that_does_not_go_on_ends_the_process_without_waiting_for_it() {
    let hangs: Part = Box::new(|_, ended, _| {
        thread::sleep(AMPLE * 10);
        drop(ended);
    });
    let stop = watched(vec![hangs], false, AMPLE, 3 * LOOK).unwrap_err();
    assert_eq!(stop.status, Status::Restart);
    assert!(stop.sentence.contains("does not come back"), "{stop}");
}

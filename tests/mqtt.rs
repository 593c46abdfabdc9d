//! The example `examples/mqtt` keeps its promise, and its comparison can fail.
//!
//! This binary is the example too: with [`AS_EXAMPLE`] set it is what `cargo run --example mqtt` runs.

#[path = "../examples/mqtt/main.rs"]
mod example;

use std::env;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kafka_dedup::demo::Record;
use libtest_mimic::{Arguments, Failed, Trial};

use example::comparison::{Comparison, compare};
use example::trucks::Plan;

const AS_EXAMPLE: &str = "KAFKA_DEDUP_TEST_AS_EXAMPLE";

fn main() -> ExitCode {
    if env::var_os(AS_EXAMPLE).is_some() {
        return example::main();
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial(
            "positions_sent_again_and_delivered_again_come_out_once",
            played,
        ),
        trial("ctrl_c_leaves_nothing_running", interrupted),
        trial("what_came_out_as_it_must_passes", all_is_well),
        trial("a_missing_position_is_found", missing),
        trial("a_position_that_never_arrived_is_found", never_arrived),
        trial("a_position_that_came_out_twice_is_found", twice),
        trial("a_position_out_of_its_trucks_order_is_found", out_of_order),
        trial("a_changed_position_is_found", changed),
        trial("a_position_that_nobody_reported_is_found", invented),
        trial(
            "a_scene_without_duplicates_has_shown_nothing",
            no_duplicates,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn scene(arguments: &[&str]) -> Command {
    let mut scene = Command::new(env::current_exe().expect("this program"));
    scene
        .arg("run")
        .args(arguments)
        .env(AS_EXAMPLE, "1")
        // A shell's settings must not lead the scene's service anywhere else.
        .env("KAFKA_DEDUP__KAFKA__GROUP_ID", "production")
        .stdin(Stdio::null());
    scene
}

fn played() {
    let ended = scene(&["--trucks", "30", "--positions", "120", "--seconds", "8"])
        .output()
        .expect("the scene");
    let table = String::from_utf8_lossy(&ended.stdout);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{}\n{table}\n{said}", ended.status);
    let row = |name: &str| {
        let line = table.lines().find(|line| line.trim().starts_with(name));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or_else(|| panic!("no {name} in\n{table}"))
    };
    let count = |name| row(name).parse::<u64>().expect("a number");
    assert_eq!(count("positions that the trucks reported"), 3600);
    assert_eq!(count("records in truck_position "), 3600);
    assert_eq!(row("each position once"), "passed");
    assert_eq!(row("kafka-dedup verify"), "passed");
    assert_eq!(count("bridge killed with -9"), 1);
    assert_eq!(count("connections of the bridge cut"), 1);
    assert!(count("acknowledgements to trucks lost") > 0, "{table}");
    assert!(count("connections of trucks cut") > 0, "{table}");
    // What is removed was really there: of both kinds, and no record is in neither.
    let by_truck = count("duplicates: sent again by the truck");
    let by_mosquitto = count("duplicates: delivered again to the bridge");
    assert!(by_truck > 0 && by_mosquitto > 0, "{table}");
    assert_eq!(
        count("records in truck_position_raw"),
        3600 + by_truck + by_mosquitto,
        "{table}"
    );
    // A repetition reaches the raw topic only where a truck has sent again.
    assert!(by_truck <= count("sent again by trucks"), "{table}");
}

fn interrupted() {
    let mut scene = scene(&["--seconds", "60"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the scene");
    let said = BufReader::new(scene.stderr.take().expect("its words"));
    let mut said = said.lines().map(|line| line.expect("a line"));
    let set_out = said
        .by_ref()
        .find(|line| line.contains("trucks set out"))
        .expect("trucks that set out");
    let addresses: Vec<&str> = set_out
        .split([' ', ','])
        .filter(|word| word.starts_with("127.0.0.1:"))
        .collect();
    assert_eq!(addresses.len(), 2, "{set_out}");
    for address in &addresses {
        TcpStream::connect(address).expect("a broker");
    }
    let pid = i32::try_from(scene.id()).expect("a process id");
    // SAFETY: kill takes two plain integers; the child has not been waited for, so the id is its.
    unsafe { libc::kill(pid, libc::SIGINT) };
    assert_eq!(scene.wait().expect("its end").code(), Some(130));
    assert!(said.any(|line| line.contains("nothing is left running")));
    let deadline = Instant::now() + Duration::from_secs(10);
    for address in addresses {
        while TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < deadline, "{address} outlives the scene");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Two trucks with three positions each.
const PLAN: Plan = Plan {
    trucks: 2,
    positions: 3,
    drive: Duration::ZERO,
    seed: 0,
};

/// A record of truck 0 or 1, which is also its partition.
fn record(truck: u64, sequence: u64, dup: &str) -> Record {
    let id = format!("truck-{truck:03}-{sequence:06}");
    let header = |name: &str, value: &str| (name.to_owned(), Some(value.as_bytes().to_vec()));
    let value = format!(
        r#"{{"id":"{id}","truck":{truck},"sequence":{sequence},"at":1,"latitude":40.1,"longitude":-90.2}}"#
    );
    Record {
        offset: 0,
        key: Some(truck.to_string().into_bytes()),
        value: Some(value.into_bytes()),
        headers: vec![header("message-id", &id), header("mqtt-dup", dup)],
        timestamp_ms: Some(1),
    }
}

fn topic(sequences: [&[(u64, &str)]; 2]) -> Vec<Vec<Record>> {
    let partition = |truck: u64, records: &[(u64, &str)]| {
        let records = records.iter().zip(0..);
        records
            .map(|(&(sequence, dup), offset)| Record {
                offset,
                ..record(truck, sequence, dup)
            })
            .collect()
    };
    vec![partition(0, sequences[0]), partition(1, sequences[1])]
}

/// Position 1 of truck 0 was sent again, position 2 of truck 1 was delivered again, and position 0 of
/// truck 1 was marked, but is the first of its id.
fn raw() -> Vec<Vec<Record>> {
    let (new, again) = ("false", "true");
    topic([
        &[(0, new), (1, new), (1, new), (2, new)],
        &[(0, again), (1, new), (2, new), (2, again)],
    ])
}

fn once() -> Vec<Vec<Record>> {
    topic([
        &[(0, "false"), (1, "false"), (2, "false")],
        &[(0, "true"), (1, "false"), (2, "false")],
    ])
}

fn compared(output: &[Vec<Record>]) -> Comparison {
    compare(PLAN.ids(), &raw(), output)
}

fn all_is_well() {
    let mut found = compared(&once());
    found.must_have_had_duplicates();
    assert_eq!(found.described, Vec::<String>::new());
    assert_eq!((found.reported, found.raw, found.output), (6, 8, 6));
    assert_eq!(
        (found.sent_again, found.delivered_again, found.marked_first),
        (1, 1, 1)
    );
}

fn found_in(output: &[Vec<Record>], difference: &str) {
    let found = compared(output);
    let described = [difference.to_owned()];
    assert_eq!(
        (found.differences, &found.described[..]),
        (1, &described[..])
    );
}

fn missing() {
    let mut output = once();
    output[1].remove(1);
    found_in(&output, "truck-001-000001 arrived, but never came out");
}

fn never_arrived() {
    let plan = Plan {
        positions: 4,
        ..PLAN
    };
    let found = compare(plan.ids(), &raw(), &once());
    let described = [
        "truck-000-000003 was reported, but never arrived",
        "truck-001-000003 was reported, but never arrived",
    ];
    assert_eq!(found.described, described);
}

fn twice() {
    let found = compared(&raw());
    let described = [
        "truck-000-000001, partition 0, offset 2: came out twice",
        "truck-000-000001, partition 0, offset 2: came out behind a later one of its truck",
        "truck-001-000002, partition 1, offset 3: came out twice",
        "truck-001-000002, partition 1, offset 3: came out behind a later one of its truck",
    ];
    assert_eq!(found.described, described);
}

fn out_of_order() {
    let mut output = once();
    output[0].swap(0, 1);
    found_in(
        &output,
        "truck-000-000000, partition 0, offset 0: came out behind a later one of its truck",
    );
}

fn changed() {
    let changes: [fn(&mut Record); 4] = [
        |record| record.key = None,
        |record| record.timestamp_ms = Some(2),
        |record| record.headers.push(("further".to_owned(), None)),
        |record| record.value = record.value.take().map(|value| value[1..].to_vec()),
    ];
    for change in changes {
        let mut output = once();
        change(&mut output[0][1]);
        found_in(
            &output,
            "truck-000-000001, partition 0, offset 1: came out changed",
        );
    }
}

fn invented() {
    let mut output = once();
    output[1].push(record(1, 9, "false"));
    found_in(
        &output,
        "truck-001-000009, partition 1, offset 0: came out, but never arrived",
    );
}

fn no_duplicates() {
    let mut found = compare(PLAN.ids(), &once(), &once());
    assert_eq!(found.differences, 0);
    found.must_have_had_duplicates();
    assert_eq!(found.differences, 2, "{:?}", found.described);
}

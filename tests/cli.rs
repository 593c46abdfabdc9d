//! The manners of the command line, of the real binary: what goes where, in which colours, what a shell and
//! `man` make of it. No broker.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_kafka-dedup");
const COMMANDS: [&str; 12] = [
    "run",
    "check",
    "scan",
    "plan",
    "preload",
    "inspect",
    "export",
    "verify",
    "admin",
    "demo",
    "completions",
    "man",
];

struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

fn said(output: Output) -> Said {
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said {
        status: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn kafka_dedup(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE")
        .env("TERM", "xterm")
        .stdin(Stdio::null());
    command
}

fn says(arguments: &[&str]) -> Said {
    said(kafka_dedup(arguments).output().expect("it runs"))
}

/// A config of a broker that is not there, with this beside `kafka`'s own keys.
fn config(dir: &Path, kafka: &str, rest: &str) -> String {
    let store = dir.join("store").display().to_string();
    let file = dir.join("dedup.yaml");
    let text = format!(
        "kafka: {{bootstrap_servers: \"127.0.0.1:1\", group_id: g{kafka}}}\n\
         input: {{topics: [t]}}\nid: {{from: key}}\nstore: {{path: {store}}}\n\
         http: {{listen: \"127.0.0.1:0\", admin: \"127.0.0.1:0\"}}\n{rest}"
    );
    fs::write(&file, text).expect("written");
    file.display().to_string()
}

/// What it says with standard output and error on a terminal.
fn on_a_terminal(arguments: &[&str], no_color: bool) -> String {
    let quoted: Vec<String> = arguments.iter().map(|it| format!("'{it}'")).collect();
    let mut script = Command::new("script");
    script
        .args([
            "-qec",
            &format!("{BINARY} {}", quoted.join(" ")),
            "/dev/null",
        ])
        .env("TERM", "xterm")
        .env_remove("CLICOLOR_FORCE")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    if no_color {
        script.env("NO_COLOR", "1");
    }
    said(script.output().expect("script, of util-linux")).out
}

#[test]
fn colours_are_for_terminals_unless_told_otherwise() {
    let dir = TempDir::new().unwrap();
    let file = config(dir.path(), "", "");
    let check = ["check", "-c", &file, "--offline"];
    let unknown = ["check", "--frobnicate"];
    // The port of the admin listener cannot be had: the run ends in a line of its log.
    let run_file = dir.path().join("run.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &run_file,
        text.replace("listen: \"127.0.0.1:0\"", "listen: \"192.0.2.1:1\""),
    )
    .unwrap();
    let run_file = run_file.display().to_string();
    let run = ["run", "-c", &run_file];
    for arguments in [&check[..], &unknown, &run] {
        let all = |it: &Said| format!("{}{}", it.out, it.err);
        let piped = says(arguments);
        assert!(
            !all(&piped).contains('\x1b'),
            "{arguments:?}: {}",
            all(&piped)
        );
        let forced = kafka_dedup(arguments)
            .env("CLICOLOR_FORCE", "1")
            .output()
            .expect("it runs");
        let forced = said(forced);
        assert!(
            all(&forced).contains("\x1b["),
            "{arguments:?}: {}",
            all(&forced)
        );
        let shown = on_a_terminal(arguments, false);
        assert!(shown.contains("\x1b["), "{arguments:?}: {shown}");
        let plain = on_a_terminal(arguments, true);
        let colour = |text: &str| {
            let colours = [31, 32, 33].map(|colour| format!("\x1b[{colour}m"));
            colours.iter().any(|colour| text.contains(colour))
        };
        assert!(!colour(&plain), "{arguments:?}: {plain}");
    }
}

#[test]
fn a_log_in_json_is_json_to_its_last_line_whatever_its_level() {
    for level in ["info", "off"] {
        let dir = TempDir::new().unwrap();
        let rest = format!("log: {{format: json, level: {level}}}\n");
        let file = config(dir.path(), "", &rest);
        let mut run = kafka_dedup(&["run", "-c", &file]);
        // An address that no machine has.
        run.env("KAFKA_DEDUP__HTTP__LISTEN", "192.0.2.1:1");
        let end = said(run.output().expect("it runs"));
        assert_ne!(end.status, Some(0));
        let lines: Vec<Value> = end
            .err
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect();
        for line in &lines {
            for field in ["timestamp", "level", "target", "message"] {
                assert!(line[field].is_string(), "no {field} in {line}");
            }
        }
        let last = lines.last().expect("a last line");
        assert_eq!(last["level"], "ERROR");
        assert_eq!(last["status"].as_i64(), end.status.map(i64::from), "{last}");
        if level == "off" {
            assert_eq!(lines.len(), 1, "{}", end.err);
        }
    }
}

#[test]
fn check_says_all_in_one_document_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    let file = config(dir.path(), "", "");
    let good = says(&["check", "-c", &file, "--offline", "--json"]);
    assert_eq!((good.status, good.err.as_str()), (Some(0), ""));
    let document: Value = serde_json::from_str(&good.out).expect("JSON");
    assert_eq!(document["works"], true);
    assert_eq!(document["failures"], 0);
    assert!(document["config"].as_str().unwrap().contains("group_id: g"));
    let findings = document["findings"].as_array().unwrap();
    let subjects: Vec<&str> = findings
        .iter()
        .map(|it| it["subject"].as_str().unwrap())
        .collect();
    assert!(subjects.contains(&"store"), "{subjects:?}");
    // Nobody answers there: what was found until then, and why there is no more.
    let away = says(&["check", "-c", &file, "--json"]);
    assert_eq!(away.status, Some(69));
    let document: Value = serde_json::from_str(&away.out).expect("JSON");
    assert_eq!(document["works"], Value::Null);
    let error = document["error"].as_str().unwrap();
    assert!(
        error.contains("Kafka cannot be reached at 127.0.0.1:1"),
        "{error}"
    );
    assert!(away.err.trim_end().ends_with(error), "{}", away.err);
}

#[test]
fn check_asks_the_client_library_whether_it_takes_the_properties() {
    for (kafka, words) in [
        (", properties: {no.such.property: 1}", "no.such.property"),
        (
            ", properties: {security.protocol: SASL_PLAINTEXT, sasl.mechanism: FOO}",
            "FOO",
        ),
        (
            ", consumer_properties: {fetch.min.bytes: 0}",
            "fetch.min.bytes",
        ),
        (", producer_properties: {linger.ms: soon}", "linger.ms"),
        (
            ", consumer_properties: {session.timeout.ms: 5000, heartbeat.interval.ms: 9000, max.poll.interval.ms: 1000}",
            "max.poll.interval.ms",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let file = config(dir.path(), kafka, "");
        let end = says(&["check", "-c", &file, "--offline"]);
        assert_eq!(end.status, Some(64), "{kafka}: {}{}", end.out, end.err);
        assert!(end.err.contains(words), "{kafka}: {}", end.err);
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let dir = TempDir::new().unwrap();
    let file = config(dir.path(), "", "");
    for arguments in [
        &["--help"][..],
        &["scan", "--help"],
        &["completions", "bash"],
        &["man"],
        &["plan", "--rate", "5000"],
        &["plan", "--rate", "5000", "--json"],
        &["check", "-c", &file, "--offline"],
        &["check", "-c", &file, "--offline", "--json"],
    ] {
        let mut child = kafka_dedup(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        // Before a word of it is read.
        drop(child.stdout.take());
        let mut err = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        let status = child.wait().expect("its end");
        assert_eq!(
            (status.code(), err.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn slips_are_told_with_what_was_meant() {
    let dir = TempDir::new().unwrap();
    let file = config(dir.path(), "", "wokers: 2\n");
    for (arguments, meant) in [
        (&["rnu"][..], "a similar subcommand exists: 'run'"),
        (
            &["check", "--ofline"],
            "a similar argument exists: '--offline'",
        ),
        (
            &["check", "-c", &file, "--offline"],
            "did you mean workers?",
        ),
    ] {
        let end = says(arguments);
        assert_eq!(
            (end.status, end.out.as_str()),
            (Some(64), ""),
            "{arguments:?}"
        );
        assert!(end.err.contains(meant), "{arguments:?}: {}", end.err);
    }
}

#[test]
fn bash_completes_a_command_and_a_flag() {
    let script = says(&["completions", "bash"]);
    assert_eq!(script.status, Some(0), "{}", script.err);
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("kafka-dedup.bash");
    fs::write(&file, &script.out).unwrap();
    for (words, wanted) in [
        ("kafka-dedup ver", "verify"),
        ("kafka-dedup admin byp", "bypass"),
        ("kafka-dedup scan --part", "--partitions"),
        ("kafka-dedup completions z", "zsh"),
    ] {
        let asked = format!(
            "source '{}'\nCOMP_WORDS=({words})\nCOMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             _kafka__dedup kafka-dedup \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let bash = Command::new("bash").args(["--norc", "-c", &asked]).output();
        let end = said(bash.expect("bash"));
        assert_eq!((end.out.trim(), end.err.as_str()), (wanted, ""), "{words}");
    }
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = says(&["completions", shell]);
        assert_eq!(script.status, Some(0));
        assert!(script.out.contains("bypass"), "{shell}");
    }
}

#[test]
fn man_shows_a_page_of_each_command() {
    let one = says(&["man"]);
    assert!(one.status == Some(0) && one.out.contains(".TH kafka-dedup 1"));
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("man1");
    let end = says(&["man", "--dir", &path.display().to_string()]);
    assert_eq!((end.status, end.err.as_str()), (Some(0), ""));
    for command in COMMANDS {
        let page = path.join(format!("kafka-dedup-{command}.1"));
        let groff = Command::new("groff")
            .args(["-man", "-ww", "-Tascii", "-rLL=120n", "-P-cbou"])
            .arg(&page)
            .output();
        let shown = said(groff.expect("groff"));
        assert_eq!(
            (shown.status, shown.err.as_str()),
            (Some(0), ""),
            "{command}"
        );
        let help = says(&[command, "--help"]).out;
        let first = help.lines().next().expect("a sentence");
        let text: Vec<&str> = shown.out.split_whitespace().collect();
        let text = text.join(" ");
        assert!(
            text.contains(&format!("kafka-dedup-{command} - ")),
            "{command}: {text}"
        );
        assert!(
            text.contains(first) || text.contains(&first[..30]),
            "{command}: {text}"
        );
        assert!(text.contains("Examples:"), "{command}: {text}");
    }
    // A place where nothing can be written.
    let end = says(&["man", "--dir", "/proc/nowhere"]);
    assert_eq!(end.status, Some(70));
    assert!(
        end.err.contains("/proc/nowhere cannot be written"),
        "{}",
        end.err
    );
}

use std::sync::Arc;

use super::*;

/// Lines as they come out, of events sent within `log`.
fn written(format: LogFormat, lines: &'static Lines, log: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Sheet(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sheet {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sheet = Sheet::default();
    let writer = sheet.clone();
    let builder = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone());
    match format {
        LogFormat::Text => {
            let all = builder.map_event_format(|inner| OnceAMinute {
                inner: inner.with_ansi(false).without_time(),
                format,
                coloured: false,
                lines,
            });
            tracing::subscriber::with_default(all.finish(), log);
        }
        LogFormat::Json => {
            let all = builder
                .json()
                .flatten_event(true)
                .map_event_format(|inner| OnceAMinute {
                    inner,
                    format,
                    coloured: false,
                    lines,
                });
            tracing::subscriber::with_default(all.finish(), log);
        }
    }
    let bytes = sheet.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn fresh() -> &'static Lines {
    Box::leak(Box::default())
}

/// As if a minute had passed for every line so far.
fn let_a_minute_pass(lines: &Lines) {
    let mut seen = lines.lock();
    seen.looked = None;
    for kind in seen.kinds.values_mut() {
        kind.written -= QUIET;
    }
}

fn away(topic: &str, partition: i32, millis: u64) {
    tracing::warn!(topic, partition, millis, "broker 1 is away for {millis} ms");
}

#[test]
fn a_line_that_repeats_is_written_once_a_minute_with_the_count_of_the_others() {
    let lines = fresh();
    let first = written(LogFormat::Text, lines, || {
        (0..500).for_each(|millis| away("t", 0, millis));
    });
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].contains("broker 1 is away for 0 ms topic=\"t\" partition=0 millis=0"));
    assert!(!first[0].contains("left_out"));
    let_a_minute_pass(lines);
    let second = written(LogFormat::Text, lines, || away("t", 0, 900));
    assert_eq!(second.len(), 1, "{second:?}");
    assert!(second[0].contains("for 900 ms") && second[0].ends_with("left_out=499"));
}

#[test]
fn what_does_not_come_again_is_told_when_its_minute_is_over() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let lines = fresh();
        written(format, lines, || {
            (0..3).for_each(|millis| away("t", 0, millis))
        });
        let_a_minute_pass(lines);
        let told = written(format, lines, || tracing::info!("something else"));
        assert_eq!(told.len(), 2, "{told:?}");
        // The first of those that were left out: the text of a second one is made a second later.
        assert!(told[0].contains("away for 1 ms"), "{told:?}");
        let count = match format {
            LogFormat::Text => "left_out=1",
            LogFormat::Json => "\"left_out\":1}",
        };
        assert!(told[0].ends_with(count), "{told:?}");
        assert!(told[1].contains("something else"));
        // It was written now: a minute from here on.
        assert!(written(format, lines, || away("t", 0, 4)).is_empty());
    }
}

#[test]
fn other_places_and_other_topics_and_partitions_are_not_alike() {
    let lines = fresh();
    let all = written(LogFormat::Text, lines, || {
        for _ in 0..2 {
            away("t1", 0, 0);
            away("t2", 0, 0);
            away("t1", 1, 0);
            tracing::warn!(topic = "t1", partition = 0, "broker 1 is away for 0 ms");
        }
    });
    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn what_is_asked_for_at_debug_is_not_left_out() {
    let all = written(LogFormat::Text, fresh(), || {
        (0..9).for_each(|_| tracing::debug!("each"));
    });
    assert_eq!(all.len(), 9);
}

#[test]
fn different_lines_do_not_pile_up_and_none_stays_untold() {
    let lines = fresh();
    let name = |i: u64| format!("topic-{i}");
    let count = KINDS as u64 + 10;
    let all = written(LogFormat::Text, lines, || {
        for i in 0..count {
            away(&name(i), 0, i);
            away(&name(i), 0, i);
        }
    });
    assert_eq!(lines.lock().kinds.len(), KINDS);
    // Those that had to go were told.
    assert_eq!(all.len() as u64, count + 10, "{:?}", all.last());
}

#[test]
fn an_event_is_one_line_and_a_json_line_is_an_object() {
    let hostile = "two\nlines\r\x1b[31mred\u{0}\"{}";
    let text = written(LogFormat::Text, fresh(), || {
        tracing::warn!(topic = hostile, error = %hostile, "{hostile}");
    });
    assert_eq!(text.len(), 1, "{text:?}");
    assert!(!text[0].contains(char::is_control), "{text:?}");
    assert_eq!(
        one_line("\x1b[31mred\x1b[0m\x1b[2J", true),
        "\x1b[31mred\x1b[0m\\u{1b}[2J\n"
    );
    let lines = fresh();
    let log = || {
        tracing::warn!(topic = hostile, error = %hostile, partition = 1, "{hostile}");
    };
    written(LogFormat::Json, lines, || (0..4).for_each(|_| log()));
    let_a_minute_pass(lines);
    let json = written(LogFormat::Json, lines, log);
    assert_eq!(json.len(), 1, "{json:?}");
    let object: serde_json::Value = serde_json::from_str(&json[0]).unwrap();
    for (field, value) in [("message", hostile), ("topic", hostile), ("level", "WARN")] {
        assert_eq!(object[field], value);
    }
    assert_eq!(object["left_out"], 3);
    assert!(object["timestamp"].is_string() && object["target"].is_string());
}

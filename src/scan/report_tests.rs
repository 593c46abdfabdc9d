use super::super::ages::Ages;
use super::super::exact::Repeated;
use super::super::passes::Counts;
use super::*;

struct Case {
    ranges: Vec<Range>,
    findings: Findings,
    edges: Edges,
    ids: Vec<Option<Vec<u8>>>,
    window_ms: Option<i64>,
}

impl Case {
    /// Two partitions of 1000 records, 10 of them without an id; 97 duplicates younger than a
    /// second, two of 30 minutes, one of 8 days.
    fn new() -> Self {
        let edges = Edges::with(None);
        let mut ages = Ages::new(&edges);
        (0..97).for_each(|_| ages.add(&edges, 500, 500));
        (0..2).for_each(|_| ages.add(&edges, 1_800_000, 1_800_000));
        ages.add(&edges, 8 * 86_400_000, 8 * 86_400_000);
        let counts = |duplicates| Counts {
            records: 1000,
            no_id: 5,
            unparsable: 0,
            duplicates,
        };
        let range = |partition| Range {
            partition,
            start: 10,
            end: 1012,
            open: 0,
        };
        Self {
            ranges: vec![range(0), range(3)],
            findings: Findings {
                partitions: vec![counts(100), counts(0)],
                ids: 1990,
                elsewhere: 7,
                ages,
                most: vec![Repeated {
                    count: 12,
                    partition: 1,
                    offset: 77,
                    partitions: 2,
                    fingerprint: 1,
                }],
                share: 1.0,
                reads: 2,
                mistaken: 3,
                vanished: 0,
                outcome: Outcome::Complete,
            },
            edges,
            ids: vec![Some(b"truck-7\x1b[31m".to_vec())],
            window_ms: None,
        }
    }

    fn report(&self) -> Report<'_> {
        Report {
            topic: "truck_position",
            ranges: &self.ranges,
            findings: &self.findings,
            edges: &self.edges,
            window_ms: self.window_ms,
            ids: &self.ids,
            memory_bytes: 256_000_000,
            elapsed: Duration::from_millis(1234),
            cut: false,
        }
    }

    /// The line, or the folded paragraph, that starts so.
    fn line(&self, start: &str) -> String {
        let text = self.report().text();
        if let Some(at) = text.find(&format!("\n{start}")) {
            let paragraph = text[at..]
                .trim_start()
                .split("\n\n")
                .next()
                .unwrap_or_default();
            return paragraph.replace('\n', " ").trim_end().to_owned();
        }
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no {start:?} in\n{text}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_person_reads_counts_ages_and_the_window_that_suffices() {
    let case = Case::new();
    assert_eq!(
        case.line("truck_position"),
        "truck_position: 2 partitions, 2 reads in 1.2 s"
    );
    assert_eq!(case.line("records"), "records 2,000");
    assert_eq!(case.line("distinct"), "distinct ids 1,883");
    assert_eq!(
        case.line("duplicates within"),
        "duplicates within a partition 100 5.0 % of the records with an id"
    );
    assert_eq!(
        case.line("the same id"),
        "the same id in another partition 7 0.3 % of the records with an id"
    );
    assert_eq!(
        case.line("1s"),
        "1s 97 97.0 % ████████████████████████ 97.0 %"
    );
    assert_eq!(case.line("1h"), "1h 2 2.0 % █ 99.0 %");
    assert_eq!(case.line("more"), "more 1 1.0 % █ 100.0 %");
    assert_eq!(
        case.line("A window"),
        "A window of 1h would catch 99.0 % of them."
    );
    assert_eq!(
        case.line("12"),
        "12 3 77 truck-7\\u{1b}[31m (in 2 partitions)"
    );
    assert_eq!(case.line("0  "), "0 10-1012 1,000 5 100 10.0 %");
    assert!(
        case.line("Note: what has the same id")
            .contains("not seen by scope: partition")
    );
}

#[test]
fn ids_that_come_again_and_again_give_a_window_two_shares() {
    let mut case = Case::new();
    case.edges = Edges::with(Some(36 * 3_600_000));
    case.window_ms = Some(36 * 3_600_000);
    case.findings.ages = Ages::new(&case.edges);
    case.findings.ages.add(&case.edges, 500, 8 * 86_400_000);
    case.findings.ages.add(&case.edges, 500, 500);
    assert_eq!(
        case.line("No window"),
        "No window up to 7d would catch 99 % of them; a window of 7d would catch at least 50.0 % of \
         them (100.0 % with window.refresh). The configured window of 36h would catch at least 50.0 % \
         of them (100.0 % with window.refresh)."
    );
}

#[test]
fn without_duplicates_that_is_what_is_said() {
    let mut case = Case::new();
    case.findings.ages = Ages::new(&case.edges);
    case.findings.most.clear();
    case.findings.elsewhere = 0;
    case.findings.partitions[0].duplicates = 0;
    assert_eq!(
        case.line("No id"),
        "No id occurs twice in one partition: there is nothing to remove."
    );
    assert!(!case.report().text().contains("Note"));
    case.findings.ids = 0;
    assert!(
        case.line("No record has an id")
            .ends_with("than --id or id.from says?")
    );
}

#[test]
fn what_is_partial_says_so_first() {
    let mut case = Case::new();
    case.findings.outcome = Outcome::ReadsUsedUp;
    case.findings.share = 0.12345;
    assert!(
        case.line("PARTIAL")
            .contains("enough for 12.3 % of the ids")
    );
    case.findings.outcome = Outcome::InterruptedInCount;
    assert!(case.line("PARTIAL").contains("stopped while counting"));
    case.findings.outcome = Outcome::InterruptedInFilter { suspects: 1234 };
    case.findings.ids = 0;
    case.findings.ages = Ages::new(&case.edges);
    assert!(case.line("PARTIAL").contains("at most 1,234 repeat an id"));
    let text = case.report().text();
    assert!(
        !text.contains("distinct ids") && !text.contains("No id occurs"),
        "{text}"
    );
}

#[test]
fn a_program_reads_the_same() {
    let case = Case::new();
    let json: serde_json::Value = serde_json::from_str(&case.report().json()).unwrap();
    assert_eq!(json["records"], 2000);
    assert_eq!(json["duplicates"], 100);
    assert_eq!(json["across_partitions"], 7);
    assert_eq!(json["ages"][0]["up_to_ms"], 1000);
    assert_eq!(json["ages"][8]["up_to_ms"], serde_json::Value::Null);
    assert_eq!(json["ages"][8]["duplicates"], 1);
    assert_eq!(json["most_repeated"][0]["partition"], 3);
    assert_eq!(json["partitions"][1]["partition"], 3);
    assert_eq!(json["complete"], true);
    assert_eq!(json["false_candidates"], 3);
}

#[test]
fn shares_are_rounded_down_and_never_vanish() {
    for (part, whole, shown) in [
        (0, 0, "0.0 %"),
        (1, 3, "33.3 %"),
        (999_999, 1_000_000, "99.9 %"),
        (7, 7, "100.0 %"),
        (1, 1_000_000, "<0.1 %"),
        (29, 100, "29.0 %"),
    ] {
        assert_eq!(percent(part, whole), shown, "{part} of {whole}");
    }
}

#[test]
fn ids_are_shown_bounded_and_harmless() {
    assert_eq!(printable("id \"ü\"".as_bytes()), "id \"ü\"");
    assert_eq!(printable(b"a\nb\x1b"), "a\\nb\\u{1b}");
    assert_eq!(printable("\u{202e}".as_bytes()), "\\u{202e}");
    assert_eq!(printable(&[0xff, b'a']), "\\xffa");
    let long = printable(&[b'x'; 500]);
    assert_eq!(long, format!("{}... (500 bytes)", "x".repeat(60)));
}

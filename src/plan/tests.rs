use super::*;
use clap::Parser;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    plan: PlanArgs,
}

fn plan(arguments: &[&str]) -> (Plan, String) {
    let arguments = Program::try_parse_from([&["plan"], arguments].concat())
        .expect("good usage")
        .plan;
    let config = arguments.config().expect("a config");
    let plan = Plan::of(arguments.load(), &config);
    (plan, text::write(&plan, &config))
}

#[test]
fn a_hundred_million_ids_take_what_the_benchmarks_measured() {
    let (plan, _) = plan(&["--rate", "10000", "--window", "10000s", "--partitions", "1"]);
    let near = |planned: f64, measured: f64| {
        let ratio = planned / measured;
        assert!((0.8..=1.25).contains(&ratio), "{planned} for {measured}");
    };
    assert!((plan.partition.ids_remembered - 1e8).abs() < 1.0);
    // docs/benchmarks.md: 697 MiB resident, without Kafka's clients; 2366 MB for 98.96 M ids.
    near(plan.instance.memory_bytes / 1048576.0, 697.0 + 30.0);
    near(plan.partition.disk_bytes / 1e8, 2366e6 / 98.96e6);
    assert!(plan.partition.slices < 120);
}

#[test]
fn windows_by_time_by_count_and_of_refresh() {
    let base = ["--rate", "1000", "--partitions", "10", "--window", "1000s"];
    let ids = |more: &[&str]| {
        let (plan, _) = plan(&[&base[..], more].concat());
        plan.partition.ids_remembered.round() as u64
    };
    assert_eq!(ids(&[]), 100_000);
    assert_eq!(ids(&["--duplicates", "25%"]), 75_000);
    assert_eq!(ids(&["--ids", "60000"]), 60_000);
    assert_eq!(ids(&["--ids", "600000"]), 100_000);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dedup.yaml");
    let yaml = "kafka: {bootstrap_servers: 'f:1', group_id: g}\ninput: {topics: [t]}\n\
                id: {from: key}\nwindow: {time: 10s, refresh: true}\nduplicates: {topic: d}\n";
    std::fs::write(&file, yaml).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        ids(&["--duplicates", "50", "-c", file]),
        100_000,
        "all renew"
    );
    let (plan, text) = plan(&["--rate", "10", "--duplicates", "50", "-c", file]);
    assert!((plan.traffic.duplicates_topic - 5_000.0).abs() < 1.0);
    assert!(text.contains("a window of 10s"), "{text}");
}

#[test]
fn more_instances_share_and_the_limit_allows_for_one_that_is_gone() {
    let base = ["--rate", "50000", "--partitions", "12", "--instances"];
    let (three, text) = plan(&[&base[..], &["3"]].concat());
    let (one, _) = plan(&[&base[..], &["1"]].concat());
    assert_eq!(
        (
            three.instance.partitions,
            three.instance_without_one.partitions
        ),
        (4, 6)
    );
    assert_eq!(one.instance_without_one.partitions, 12);
    assert!(three.instance.memory_bytes < one.instance.memory_bytes);
    assert!(three.recommended.memory_limit_bytes > three.instance.memory_peak_bytes);
    for words in [
        "50,000 records/s",
        "each of 3 instances, with 4 partitions",
        "6 of 12 partitions",
    ] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

/// One member reads all of a topic, and the others stand by.
#[test]
fn a_topic_that_is_one_scope_is_not_shared() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dedup.yaml");
    let shares = |topics: &str| {
        let yaml = format!(
            "kafka: {{bootstrap_servers: 'f:1', group_id: g}}\ninput: {{topics: {topics}}}\nid: {{from: key}}\nscope: topic\n"
        );
        std::fs::write(&file, yaml).unwrap();
        let file = file.to_str().unwrap();
        let (plan, _) = plan(&[
            "--rate",
            "50000",
            "--partitions",
            "12",
            "--instances",
            "3",
            "-c",
            file,
        ]);
        (
            plan.instance.partitions,
            plan.instance_without_one.partitions,
        )
    };
    assert_eq!(shares("[t]"), (12, 12));
    assert_eq!(shares("[t, u, v, w]"), (6, 6));
}

#[test]
fn the_smallest_and_the_largest_are_finite() {
    for arguments in [
        &[
            "--rate",
            "0.001",
            "--window",
            "1s",
            "--partitions",
            "1000000",
        ][..],
        &[
            "--rate",
            "1e9",
            "--window",
            "3650d",
            "--duplicates",
            "99.9%",
            "--instances",
            "100000",
        ],
    ] {
        let (plan, text) = plan(arguments);
        let json = serde_json::to_string(&plan).unwrap();
        assert!(!json.contains("null") && !json.contains(":-"), "{json}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
}

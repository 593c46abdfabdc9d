//! The status page in a real browser, of a real process on a real broker. Pictures are kept in `target/page`.

#[allow(dead_code, reason = "it is another test's browser too")]
mod browser;
#[path = "../kit/mod.rs"]
mod kit;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use browser::Browser;
use kit::{BINARY, Deployment, Rec, now_ms};

const PATIENCE: Duration = Duration::from_secs(60);
/// Not all that a group may be called goes into the name of a topic.
const GROUP: &str = "<img src=x onerror=alert(1)>";
const ID: &str = "<script>document.title='taken'</script>\"'&";

/// Ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn records(from: i64) -> Vec<Rec> {
    let old = now_ms() - 3_600_000;
    let numbers = from..from + 200;
    let record = |n: i64| Rec::with_id(format!("{}", n - n % 5 / 4), old + n * 100);
    let mut records: Vec<Rec> = numbers.map(record).collect();
    records.push(Rec::with_id(ID, old + from));
    records
}

fn keep(browser: &Browser, name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/page");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join(name), browser.picture()).expect("a picture");
}

#[test]
fn it_shows_what_is_while_it_is() {
    if !browser::is_here() {
        return;
    }
    let mut it = Deployment::new(
        "page.of-orders_1",
        3,
        "journal: {topic: \"{topic}-seen\"}\ntransaction: {interval: 30ms, timeout: 10s}\n",
    );
    GROUP.clone_into(&mut it.group);
    for partition in 0..3 {
        it.kafka.produce(&it.input, partition, &records(0));
    }
    let instance = it.start("one");
    let url = format!("http://127.0.0.1:{}/", instance.admin);
    it.wait_until_caught_up(PATIENCE);
    let browser = Browser::open(true);
    browser.look(1280, 1000, "light");
    browser.go(&url);
    browser.wait_for(".state", "Ready.");
    browser.wait_for("header", GROUP);
    browser.wait_for("#told", "Live.");

    // It changes without being loaded again.
    browser.run("window.kept = 1; document.querySelector('input').value = 'typed';");
    let ids = "#partitions ~ .wide tbody tr:nth-child(1)";
    browser.wait_for(ids, "161");
    it.kafka.produce(&it.input, 0, &records(1000));
    browser.wait_for(ids, "321");
    browser.wait_for("#throughput ~ p", "records a second");
    let kept = browser.run("return [window.kept, document.querySelector('input').value];");
    assert_eq!(kept, serde_json::json!([1, "typed"]));

    // Whatever an id is.
    let look_up = |id: &str| {
        browser.run(&format!(
            "document.querySelector('input').value = {}; document.querySelector('form').submit();",
            serde_json::json!(id)
        ));
    };
    look_up(ID);
    browser.wait_for(".found", "Remembered");
    let long = "x".repeat(4000);
    for id in ["<b>nobody</b>", "\u{202e}\u{1}", long.as_str()] {
        look_up(id);
        browser.wait_for(".found", "Not remembered in any of the 3 partitions");
    }
    browser.go(&format!("{url}?topic={}&id=zz&as=hex", it.input));
    browser.wait_for(".found", "an even number of digits");
    let title = browser.run("return document.title;");
    assert_eq!(title, "kafka-dedup one");
    assert!(browser.console().is_empty(), "{:?}", browser.console());

    // What an operator does, and what happens.
    browser.go(&url);
    let admin = |command: &str| {
        let ended = Command::new(BINARY)
            .args(["admin", "-c"])
            .arg(&instance.config)
            .arg(command)
            .output();
        assert!(ended.expect("it runs").status.success());
    };
    admin("pause");
    browser.wait_for(".state", "Not ready.");
    browser.wait_for(".state", "paused by an operator");
    keep(&browser, "paused.png");
    admin("resume");
    browser.wait_for(".state", "Ready.");
    browser.run("document.querySelectorAll('details').forEach((it) => { it.open = false; });");
    // The chart begins with the second sample.
    std::thread::sleep(Duration::from_secs(12));
    keep(&browser, "light.png");
    browser.look(360, 740, "dark");
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth;";
    assert_eq!(browser.run(fits), true);
    keep(&browser, "dark-phone.png");
    browser.look(1280, 1000, "light");

    // Killed, and back on the same address.
    let config = instance.config.clone();
    instance.kill();
    browser.wait_for("#told", "Not live: nothing was heard");
    let again = Command::new(BINARY)
        .args(["run", "-c"])
        .arg(&config)
        .stderr(Stdio::null())
        .spawn();
    let _again = Running(again.expect("it starts"));
    browser.wait_for("#told", "Live.");
    browser.wait_for(".state", "Ready.");
    browser.wait_for(ids, "321");

    // Without scripts all of it is there too.
    let plain = Browser::open(false);
    plain.go(&url);
    plain.wait_for(".state", "Ready.");
    plain.wait_for(ids, "321");
    plain.wait_for("#told", "not live");
    plain.go(&format!("{url}?topic={}&id=1000", it.input));
    plain.wait_for(".found", "Remembered");
}

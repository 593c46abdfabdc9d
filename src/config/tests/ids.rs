//! `id.from`: every choice, and every way to get it wrong.

use super::*;

#[test]
fn every_way_to_name_an_id() {
    let from = |more: &str| {
        let text = LEAST.replace("id: {from: key}", &format!("id: {{from: {more}}}"));
        from_str(&text, "c.yaml", &env(&[])).map(|config| config.id.from)
    };
    assert_eq!(from("value").unwrap(), IdSource::Value);
    assert_eq!(from("cloudevents").unwrap(), IdSource::CloudEvents);
    assert_eq!(from("{json: ''}").unwrap(), IdSource::Json(String::new()));
    assert_eq!(
        from("{json: /event/id}").unwrap(),
        IdSource::Json("/event/id".to_owned())
    );
    assert_eq!(
        from("{csv: {column: 8}}").unwrap(),
        IdSource::Csv {
            column: 8,
            delimiter: b','
        }
    );
    assert_eq!(
        from("{csv: {column: 1, delimiter: \"\\t\"}}").unwrap(),
        IdSource::Csv {
            column: 1,
            delimiter: b'\t'
        }
    );
    assert_eq!(
        from("{all: [key, {header: ce-id}]}").unwrap(),
        IdSource::All(vec![IdSource::Key, IdSource::Header("ce-id".to_owned())])
    );
    for (wrong, part) in [
        ("null", "id.from: missing"),
        (
            "keys",
            "found \"keys\", expected key, value, cloudevents, {header",
        ),
        ("{heder: a}", "did you mean header?"),
        ("{header: a, json: /b}", "found header and json together"),
        ("{}", "an empty mapping"),
        ("{header: ''}", "the name of a header"),
        ("{header: \"a\\0b\"}", "NUL"),
        ("{json: event/id}", "a JSON pointer"),
        ("{json: /a~2}", "a JSON pointer"),
        ("{csv: 8}", "expected a mapping"),
        ("{csv: {}}", "column: missing"),
        ("{csv: null}", "column: missing"),
        ("{all: null}", "at least one source"),
        ("{header: null}", "expected one value"),
        (
            "{csv: {column: 1, delimiter: ';;'}}",
            "one character of ASCII",
        ),
        (
            "{csv: {column: 1, delimiter: '§'}}",
            "one character of ASCII",
        ),
        ("{csv: {column: 1, delimiter: '\"'}}", "other than a quote"),
        (
            "{csv: {column: 1, delimeter: ';'}}",
            "did you mean delimiter?",
        ),
        ("{all: []}", "at least one source"),
        ("{all: [{all: [key]}]}", "an all inside of all"),
        ("{all: [cloudevents, key]}", "cloudevents inside of all"),
        ("[key, value]", "found a list"),
    ] {
        let faults = from(wrong).expect_err(wrong);
        let found: Vec<String> = faults.lines().collect();
        assert_eq!(found.len(), 1, "{wrong}: {found:#?}");
        assert!(found[0].starts_with("c.yaml:3: id.from"), "{found:?}");
        assert!(found[0].contains(part), "{wrong}: {found:?}");
    }
    assert_eq!(
        from("{all: [{header: ''}, {json: x}]}")
            .unwrap_err()
            .lines()
            .count(),
        2
    );
}

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
        ("{avro: event.id}", "a JSON pointer"),
        ("{avr: /a}", "did you mean avro?"),
        (
            "{avro: /a, protobuf: /a}",
            "found avro and protobuf together",
        ),
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

#[test]
fn an_id_that_only_a_schema_can_find_needs_a_registry() {
    let of = |from: &str, more: &str| {
        let text = LEAST.replace("{from: key}", &format!("{{from: {from}}}"));
        from_str(&format!("{text}{more}"), "c.yaml", &env(&[]))
    };
    for from in [
        "{avro: /id}",
        "{protobuf: /id}",
        "{all: [key, {avro: /id}]}",
    ] {
        let faults = of(from, "").unwrap_err().to_string();
        assert!(faults.contains("schemas.registry: missing"), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    let config = of("{avro: /id}", "schemas: {registry: 'http://r:8081/api'}\n").unwrap();
    assert_eq!(config.id.from, IdSource::Avro("/id".to_owned()));
    let schemas = config.schemas.unwrap();
    assert_eq!(schemas.registry, "http://r:8081/api");
    assert_eq!(schemas.timeout, Duration::from_secs(5));
    assert_eq!(schemas.unknown, UnknownSchema::Fail);
    // The schema of JSON is not needed to find anything in it.
    let json = of("{json_schema: /id}", "").unwrap();
    assert_eq!(json.id.from, IdSource::JsonSchema("/id".to_owned()));
    assert_eq!(json.schemas, None);
}

#[test]
fn a_registry_is_a_url_and_who_we_are_there_is_whole() {
    let rich = "schemas: {registry: 'https://r/api/', username: me, password: hunter2, \
                ca: /etc/ca.pem, timeout: 1s, unknown: wait}";
    let config = with(rich);
    let yaml = config.to_yaml_redacted();
    assert!(yaml.contains("\n  password: \"<redacted>\"\n"), "{yaml}");
    assert!(!format!("{yaml}{config:?}").contains("hunter2"));
    let mut again = from_str(&yaml, "c.yaml", &env(&[])).unwrap();
    again.schemas.as_mut().unwrap().password = Some("hunter2".to_owned());
    assert_eq!(again, config);
    for (wrong, part) in [
        ("{registry: 'r:8081'}", "the URL of a schema registry"),
        ("{registry: 'ftp://r'}", "the URL of a schema registry"),
        ("{registry: 'http://'}", "the URL of a schema registry"),
        ("{registry: 'http://r/a b'}", "the URL of a schema registry"),
        ("{registry: 'http://r/?a=b'}", "without user, query"),
        ("{registry: 'http://me:hunter2@r/'}", "not shown"),
        ("{registry: 'http://r', username: me}", "password: missing"),
        (
            "{registry: 'http://r', password: hunter2}",
            "username: missing",
        ),
        (
            "{registry: 'http://r', username: 'a:b', password: x}",
            "without a colon",
        ),
        (
            "{registry: 'http://r', password: [hunter2], username: me}",
            "one value",
        ),
        ("{registry: 'http://r', ca: /x}", "not asked over https"),
        ("{registry: 'http://r', timeout: 5}", "bare number"),
        ("{registry: 'http://r', timeout: 2h}", "100ms to 1m"),
        (
            "{registry: 'http://r', unknown: guess}",
            "fail, missing or wait",
        ),
        (
            "{registry: 'http://r', pasword: hunter2}",
            "did you mean password?",
        ),
        ("{timeout: 1s}", "registry: missing"),
        ("hunter2", "expected a mapping"),
    ] {
        let text = format!("{LEAST}schemas: {wrong}\n");
        let found = faults_of(&text, &[]).join("|");
        assert!(found.contains(part), "{wrong}: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
    let password = [("KAFKA_DEDUP__SCHEMAS__PASSWORD", "hunter2")];
    let config = with_env("schemas: {registry: 'http://r', username: me}", &password).unwrap();
    assert_eq!(config.schemas.unwrap().password.as_deref(), Some("hunter2"));
    for (name, value) in [
        ("KAFKA_DEDUP__SCHEMAS", "hunter2"),
        ("KAFKA_DEDUP__SCHEMAS", "{password: [hunter2"),
        ("KAFKA_DEDUP__SCHEMAS__PASSWORD", "hunter2\0"),
    ] {
        let faults = faults_of(LEAST, &[(name, value)]).join("|");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

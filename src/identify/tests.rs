use std::ffi::CStr;

use proptest::prelude::*;

use super::*;
use crate::schemas::Schema;

#[derive(Default)]
struct Record<'a> {
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a CStr, Option<&'a [u8]>)>,
}

impl Fields for Record<'_> {
    fn key(&self) -> Option<&[u8]> {
        self.key
    }
    fn value(&self) -> Option<&[u8]> {
        self.value
    }
    fn last_header(&self, name: &CStr) -> Option<&[u8]> {
        let last = self.headers.iter().rev().find(|(found, _)| *found == name);
        last.and_then(|(_, value)| *value)
    }
}

const SEED: u64 = 11;
const NO_ID: Identity = Identity::Missing(MissingReason::NoId);
const UNPARSABLE: Identity = Identity::Missing(MissingReason::Unparsable);

/// An id that needs no schema.
fn identify(source: &IdSource, seed: u64, record: &Record<'_>) -> Identity {
    let mut identifier = Identifier::new(source, seed, &Schemas::default());
    identifier.identify(record).expect("no schema is needed")
}

fn id(bytes: &[u8]) -> Identity {
    Identity::Id(xxh3_128_with_seed(bytes, SEED))
}

fn of_value(source: IdSource, value: &[u8]) -> Identity {
    let record = Record {
        value: Some(value),
        ..Record::default()
    };
    identify(&source, SEED, &record)
}

fn json(pointer: &str, value: &str) -> Identity {
    of_value(IdSource::Json(pointer.into()), value.as_bytes())
}

fn csv(column: usize, value: &str) -> Identity {
    let delimiter = b',';
    of_value(IdSource::Csv { column, delimiter }, value.as_bytes())
}

#[test]
fn null_and_empty_are_missing_everywhere() {
    let header = IdSource::Header("id".into());
    let column = IdSource::Csv {
        column: 1,
        delimiter: b',',
    };
    let pointer = IdSource::Json(String::new());
    for source in [IdSource::Key, IdSource::Value, header, column, pointer] {
        let mut identifier = Identifier::new(&source, SEED, &Schemas::default());
        for bytes in [None, Some(b"".as_slice())] {
            let record = Record {
                key: bytes,
                value: bytes,
                headers: vec![(c"id", bytes)],
            };
            assert_eq!(identifier.identify(&record), Ok(NO_ID), "{source:?}");
        }
        assert_eq!(
            identifier.identify(&Record::default()),
            Ok(NO_ID),
            "{source:?}"
        );
    }
    assert_eq!(json("/id", r#"{"id":""}"#), NO_ID);
    assert_eq!(csv(2, "a,,c"), NO_ID);
    assert_eq!(csv(2, "a,\"\",c"), NO_ID);
}

#[test]
fn key_value_and_the_last_header_of_the_name() {
    let record = Record {
        key: Some(b"k"),
        value: Some(b"\0v"),
        headers: vec![
            (c"id", Some(b"1")),
            (c"id", Some(b"2")),
            (c"ID", Some(b"3")),
            (c"gone", Some(b"4")),
            (c"gone", None),
        ],
    };
    let of = |source| identify(&source, SEED, &record);
    assert_eq!(of(IdSource::Key), id(b"k"));
    assert_eq!(of(IdSource::Value), id(b"\0v"));
    assert_eq!(of(IdSource::Header("id".into())), id(b"2"));
    assert_eq!(of(IdSource::Header("gone".into())), NO_ID);
    assert_eq!(of(IdSource::Header("other".into())), NO_ID);
    assert_eq!(of(IdSource::Header("i\0d".into())), NO_ID);
}

#[test]
fn a_json_scalar_counts_as_its_text() {
    let event =
        r#" {"a": {"b~/ü": "x\u0041\n"}, "n": [10, -1.50e+2, true, null, {}, "s"], "": 7} "#;
    assert_eq!(json("/a/b~0~1ü", event), id(b"xA\n"));
    assert_eq!(json("/n/0", event), id(b"10"));
    assert_eq!(json("/n/1", event), id(b"-1.50e+2"));
    assert_eq!(json("/n/2", event), id(b"true"));
    assert_eq!(json("/n/5", event), id(b"s"));
    assert_eq!(json("/", event), id(b"7"));
    assert_eq!(json("", "\"whole\""), id(b"whole"));
    let long = "123456789012345678901234567890.12345678901234567890";
    assert_eq!(json("", long), id(long.as_bytes()));
    assert_eq!(json("/id", r#"{"\u0069d":1}"#), id(b"1"));
}

#[test]
fn a_json_place_that_is_absent_is_no_id() {
    let event = r#"{"a": {"b": 1}, "n": [10, 11], "null": null, "f": 1.5, "t": true, "s": "x"}"#;
    for pointer in [
        "/x",
        "/a/x",
        "/a/b/c",
        "/n/2",
        "/n/-",
        "/n/01",
        "/n/x",
        "/n/99999999999999999999999",
        "/null",
        "/null/a",
        "/f/a",
        "/t/a",
        "/s/0",
        "/A",
    ] {
        assert_eq!(json(pointer, event), NO_ID, "{pointer}");
    }
}

#[test]
fn of_json_members_with_one_name_the_last_counts() {
    assert_eq!(json("/a", r#"{"a":1,"a":2}"#), id(b"2"));
    assert_eq!(json("/a/b", r#"{"a":{"b":1},"a":5}"#), NO_ID);
    assert_eq!(json("/a/b", r#"{"a":5,"a":{"b":1}}"#), id(b"1"));
}

#[test]
fn what_is_no_json_or_no_scalar_is_unparsable() {
    for event in [
        "x",
        "{",
        r#"{"id":1"#,
        r#"{"id":1}}"#,
        r#"{"id":1} 2"#,
        r#"{"id":1,}"#,
        r#"{"id":{}}"#,
        r#"{"id":[1]}"#,
        r#"{"id":01}"#,
        r#"{"id":1,"b":tru}"#,
        r#"{"id":"\ud800"}"#,
        r#"{"id":"\x"}"#,
        " ",
        "\u{feff}{\"id\":1}",
    ] {
        assert_eq!(json("/id", event), UNPARSABLE, "{event}");
    }
    let source = IdSource::Json("/id".into());
    assert_eq!(of_value(source, b"{\"id\":1,\"b\":\"\xff\"}"), UNPARSABLE);
}

#[test]
fn deep_json_does_not_exhaust_the_stack() {
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    assert_eq!(json("/id", &format!("{{\"b\":{deep},\"id\":1}}")), id(b"1"));
    assert_eq!(json("/id", &format!("{{\"id\":{deep}}}")), UNPARSABLE);
    assert_eq!(json(&"/0".repeat(500), &deep), UNPARSABLE);
}

#[test]
fn a_csv_column_of_the_first_line() {
    let lines = "a,b,c\nd,e,f\n";
    assert_eq!(csv(1, lines), id(b"a"));
    assert_eq!(csv(3, lines), id(b"c"));
    assert_eq!(csv(4, lines), NO_ID);
    assert_eq!(csv(3, "a,b,c"), id(b"c"));
    assert_eq!(csv(3, "a,b,c\r\nd"), id(b"c"));
    assert_eq!(csv(2, "a\nb,c"), NO_ID);
    assert_eq!(csv(1, "\na"), NO_ID);
    assert_eq!(csv(1, "\u{feff}a,b"), id(b"a"));
    let delimiter = b';';
    let source = IdSource::Csv {
        column: 2,
        delimiter,
    };
    assert_eq!(of_value(source, b"a,b;c"), id(b"c"));
}

#[test]
fn a_quoted_csv_column() {
    assert_eq!(csv(2, r#""a,1","b ""x"" ",c"#), id(br#"b "x" "#));
    assert_eq!(csv(2, "\"a\r\n1\",b\r\nc"), id(b"b"));
    assert_eq!(csv(3, "\"a\",b\nc"), NO_ID);
    assert_eq!(csv(1, "\u{feff}\"a\",b"), id(b"a"));
    assert_eq!(csv(1, "\"never closed,b"), id(b"never closed,b"));
    assert_eq!(csv(1, "a,\"b"), id(b"a"));
}

#[test]
fn parts_of_an_id_do_not_run_into_each_other() {
    let source = IdSource::All(vec![IdSource::Key, IdSource::Header("h".into())]);
    let mut identifier = Identifier::new(&source, SEED, &Schemas::default());
    let mut of = |key, header| {
        let identity = identifier.identify(&Record {
            key: Some(key),
            value: None,
            headers: vec![(c"h", header)],
        });
        identity.expect("no schema is needed")
    };
    let first = of(b"a".as_slice(), Some(b"bc".as_slice()));
    assert_eq!(first, id(b"\x01\0\0\0a\x02\0\0\0bc"));
    assert_ne!(first, of(b"ab", Some(b"c")));
    assert_eq!(first, of(b"a", Some(b"bc")));
    assert_eq!(of(b"a", None), NO_ID);
    assert_eq!(of(b"", Some(b"bc")), NO_ID);
}

#[test]
fn a_cloud_event_is_known_by_source_and_id_in_both_modes() {
    let expected = id(b"\x05\0\0\0/cart\x03\0\0\0A-1");
    let mut identifier = Identifier::new(&IdSource::CloudEvents, SEED, &Schemas::default());
    let mut of = |headers: &[(&'static CStr, Option<&'static [u8]>)], value: Option<&[u8]>| {
        let identity = identifier.identify(&Record {
            key: None,
            value,
            headers: headers.to_vec(),
        });
        identity.expect("no schema is needed")
    };
    let source = (c"ce_source", Some(b"/cart".as_slice()));
    let number = (c"ce_id", Some(b"A-1".as_slice()));
    let json = |media: &'static str| (c"content-type", Some(media.as_bytes()));
    assert_eq!(of(&[source, number], None), expected);
    let plain = json("application/json");
    assert_eq!(of(&[source, number, plain], Some(b"{}")), expected);

    let whole = br#"{"specversion":"1.0","id":"A-1","source":"/cart","data":{"id":"x"}}"#;
    for media in [
        "application/cloudevents+json",
        "application/cloudevents+json; charset=UTF-8",
        " Application/CloudEvents+JSON;charset=utf-8",
    ] {
        assert_eq!(of(&[json(media)], Some(whole)), expected, "{media}");
    }
    // The mode is what the content type says, whatever else is there.
    let structured = json("application/cloudevents+json");
    assert_eq!(of(&[source, number, structured], Some(b"{}")), NO_ID);
    assert_eq!(of(&[source, number, structured], None), NO_ID);
    assert_eq!(of(&[plain], Some(whole)), NO_ID);
    assert_eq!(of(&[structured], Some(b"{")), UNPARSABLE);
    assert_eq!(of(&[structured], Some(br#"{"id":"A-1"}"#)), NO_ID);
    assert_eq!(
        of(&[structured], Some(br#"{"id":"","source":"/cart"}"#)),
        NO_ID
    );
    assert_eq!(of(&[source], None), NO_ID);
    assert_eq!(of(&[number, (c"ce_source", None)], None), NO_ID);
    for media in [
        "application/cloudevents",
        "application/cloudevents+avro",
        "application/cloudevents-batch+json",
    ] {
        let headers = [source, number, json(media)];
        assert_eq!(of(&headers, Some(whole)), UNPARSABLE, "{media}");
    }
}

#[test]
fn a_cloud_event_in_binary_mode_has_the_id_of_its_two_headers() {
    let headers = ["ce_source", "ce_id"].map(|name| IdSource::Header(name.into()));
    let record = Record {
        headers: vec![(c"ce_source", Some(b"s")), (c"ce_id", Some(b"i"))],
        ..Record::default()
    };
    let of = |source| identify(&source, SEED, &record);
    assert_eq!(
        of(IdSource::CloudEvents),
        of(IdSource::All(headers.to_vec()))
    );
}

fn avro(id: u32, fields: &str) -> (u32, Schema) {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let schema = Schema {
        format: "AVRO".to_owned(),
        text,
        references: Vec::new(),
    };
    (id, schema)
}

#[test]
fn an_avro_field_is_found_by_the_schema_that_its_value_names() {
    let source = IdSource::Avro("/id".into());
    let schemas = [
        avro(1, r#"{"name":"id","type":["null","string"]}"#),
        avro(
            0x0102_0304,
            r#"{"name":"n","type":"long"},{"name":"id","type":"string"}"#,
        ),
        avro(7, r#"{"name":"id","type":"float"}"#),
        avro(8, r#"{"name":"di","type":"int"}"#),
    ];
    let schemas = Schemas::given(&source, schemas);
    let mut identifier = Identifier::new(&source, SEED, &schemas);
    let mut of = |value: Option<&[u8]>| {
        identifier.identify(&Record {
            value,
            ..Record::default()
        })
    };
    assert_eq!(of(Some(b"\0\0\0\0\x01\x02\x04ab")), Ok(id(b"ab")));
    // Another version of it, where the field is elsewhere, and back.
    assert_eq!(of(Some(b"\0\x01\x02\x03\x04\x7e\x04ab")), Ok(id(b"ab")));
    assert_eq!(of(Some(b"\0\0\0\0\x01\x02\x04ab")), Ok(id(b"ab")));
    for nothing in [
        None,
        Some(b"".as_slice()),
        Some(b"\0\0\0\0\x01\0"),
        Some(b"\0\0\0\0\x01\x02\0"),
        Some(b"\0\0\0\0\x08\x02"),
    ] {
        assert_eq!(of(nothing), Ok(NO_ID), "{nothing:?}");
    }
    // No frame, another magic byte, cut off, not of the schema, a schema without ids.
    for wrong in [
        b"\0".as_slice(),
        b"\0\0\0\0",
        b"\x01\0\0\0\x01\x02\x04ab",
        b"{\"id\":\"ab\"}",
        b"\0\0\0\0\x01",
        b"\0\0\0\0\x01\x02\x04a",
        b"\0\0\0\0\x01\x04\x04ab",
        b"\0\0\0\0\x07\0\0\0\0",
    ] {
        assert_eq!(of(Some(wrong)), Ok(UNPARSABLE), "{wrong:?}");
    }
    assert_eq!(of(Some(b"\0\0\0\0\x63a")), Err(Unresolved::Unknown(0x63)));
}

#[test]
fn a_schema_that_nobody_has_fetched_yet_is_no_reason_to_guess() {
    let source = IdSource::All(vec![IdSource::Key, IdSource::Avro("/id".into())]);
    let mut identifier = Identifier::new(&source, SEED, &Schemas::default());
    let record = Record {
        key: Some(b"k"),
        value: Some(b"\0\0\0\0\x01\x02a"),
        ..Record::default()
    };
    assert_eq!(identifier.identify(&record), Err(Unresolved::Unknown(1)));
    assert_eq!(
        identifier.id(&record),
        Err(Without::Schema(Unresolved::Unknown(1)))
    );
}

#[test]
fn framed_json_needs_no_schema() {
    let of = |value: &[u8]| of_value(IdSource::JsonSchema("/id".into()), value);
    assert_eq!(of(b"\0\0\0\0\x07{\"id\":\"a\"}"), id(b"a"));
    assert_eq!(of(b"\0\0\0\0\x08{\"id\":\"a\",\"b\":1}"), id(b"a"));
    assert_eq!(of(b"\0\0\0\0\x07{}"), NO_ID);
    assert_eq!(of(b""), NO_ID);
    for wrong in [
        b"{\"id\":\"a\"}".as_slice(),
        b"\0\0\0\0",
        b"\0\0\0\0\x07",
        b"\x01\0\0\0\x07{\"id\":1}",
    ] {
        assert_eq!(of(wrong), UNPARSABLE, "{wrong:?}");
    }
}

#[test]
fn a_deployment_has_a_seed_of_its_own() {
    assert_eq!(deployment_seed("g"), xxh3_64(b"kafka-dedup/g"));
    assert_ne!(deployment_seed("g"), deployment_seed("h"));
    let record = Record {
        key: Some(b"k"),
        ..Record::default()
    };
    let of = |seed| identify(&IdSource::Key, seed, &record);
    assert_ne!(of(1), of(2));
}

proptest! {
    /// The short cut for plain lines against the full rules.
    #[test]
    fn csv_with_and_without_the_short_cut_agree(line in "[a-c,;\" \r\n]{0,30}", column in 1_usize..5) {
        prop_assume!(!line.starts_with(['\r', '\n']));
        let mut csv = csv::CsvColumn::new(column, b',');
        let short = csv.find(line.as_bytes()).map(<[u8]>::to_vec).unwrap_or_default();
        let full = csv.find_quoted(line.as_bytes()).map(<[u8]>::to_vec).unwrap_or_default();
        prop_assert_eq!(short, full);
    }

    /// One pass against serde_json's own tree.
    #[test]
    fn json_agrees_with_a_tree(
        text in r#"\{"a":(1|"x"|null|\[\]|true|\{"b":(2|"y"|\[3,\{"b":4\}\])\}),"b":\[("z"|5|null),[0-9]{1,3}\](,"a":6)?\}?"#,
        pointer in "(/(a|b|0|1)){0,3}",
    ) {
        let expected = match serde_json::from_str::<serde_json::Value>(&text) {
            Err(_) => UNPARSABLE,
            Ok(tree) => match tree.pointer(&pointer) {
                None | Some(serde_json::Value::Null) => NO_ID,
                Some(serde_json::Value::String(text)) => id(text.as_bytes()),
                Some(serde_json::Value::Object(_) | serde_json::Value::Array(_)) => UNPARSABLE,
                Some(scalar) => id(scalar.to_string().as_bytes()),
            },
        };
        prop_assert_eq!(json(&pointer, &text), expected);
    }

    #[test]
    fn arbitrary_values_do_no_harm(value in prop::collection::vec(any::<u8>(), 0..100)) {
        for column in 1..4 {
            of_value(IdSource::Csv { column, delimiter: b',' }, &value);
        }
        of_value(IdSource::Json("/a/0".into()), &value);
    }
}

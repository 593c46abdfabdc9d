use proptest::prelude::*;
use serde_json::json;

use super::*;

fn compiled(schema: &str, pointer: &str) -> Result<(Plan, Outlook), String> {
    compile(schema, std::iter::empty(), &Pointer::new(pointer))
}

fn plan(schema: &str, pointer: &str) -> Plan {
    let (plan, outlook) = compiled(schema, pointer).unwrap_or_else(|why| panic!("{schema}: {why}"));
    assert_ne!(outlook.found, [""; 0], "{schema}");
    plan
}

/// What an id there would be, as bytes.
fn id(plan: &Plan, value: &[u8]) -> Result<Option<Vec<u8>>, MissingReason> {
    let mut text = Vec::new();
    Ok(plan
        .find(value)?
        .map(|found| found.bytes(&mut text).to_vec()))
}

fn some(bytes: &[u8]) -> Result<Option<Vec<u8>>, MissingReason> {
    Ok(Some(bytes.to_vec()))
}

const EVENT: &str = r#"{"type":"record","name":"a.b.Order","fields":[
    {"name":"count","type":"int"},
    {"name":"event","type":{"type":"record","name":"Event","fields":[
        {"name":"weight","type":"double"},
        {"name":"id","type":"string"},
        {"name":"rest","type":"string"}]}},
    {"name":"last","type":"long"}]}"#;

#[test]
fn a_nested_field_is_found_behind_what_comes_before_it() {
    let plan = plan(EVENT, "/event/id");
    let value = b"\x02\0\0\0\0\0\0\0\0\x06abc\x02x\x04";
    assert_eq!(id(&plan, value), some(b"abc"));
    // What comes after the id is not read.
    assert_eq!(id(&plan, &value[..13]), some(b"abc"));
    for cut in 0..13 {
        assert_eq!(id(&plan, &value[..cut]), Err(UNPARSABLE), "cut at {cut}");
    }
}

#[test]
fn what_an_id_is_as_bytes() {
    for (schema, value, expected) in [
        (r#""string""#, b"\x04ab".as_slice(), b"ab".as_slice()),
        (r#""bytes""#, b"\x04\0\xff", b"\0\xff"),
        (r#""string""#, b"\0", b""),
        (r#""int""#, b"\x01", b"-1"),
        (
            r#""long""#,
            b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"9223372036854775807",
        ),
        (
            r#""long""#,
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"-9223372036854775808",
        ),
        (r#"{"type":"fixed","name":"F","size":3}"#, b"abcd", b"abc"),
        (
            r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
            b"\x02",
            b"B",
        ),
        (
            r#"{"type":"string","logicalType":"uuid"}"#,
            b"\x06ABC",
            b"ABC",
        ),
        (
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef",
            b"01234567-89ab-cdef-0123-456789abcdef",
        ),
        (r#"["null","string"]"#, b"\x02\x02a", b"a"),
        (r#"["long","null","string"]"#, b"\0\x0e", b"7"),
        (
            r#"{"type":{"type":"long","logicalType":"timestamp-millis"}}"#,
            b"\x0e",
            b"7",
        ),
    ] {
        assert_eq!(id(&plan(schema, ""), value), some(expected), "{schema}");
    }
}

#[test]
fn null_is_no_id_and_neither_is_a_branch_without_the_field() {
    assert_eq!(id(&plan(r#"["null","string"]"#, ""), b"\0"), Ok(None));
    let either = plan(
        r#"["null","string",{"type":"record","name":"A","fields":[{"name":"id","type":"int"}]},
            {"type":"record","name":"B","fields":[{"name":"x","type":"A"}]}]"#,
        "/id",
    );
    assert_eq!(id(&either, b"\0"), Ok(None));
    assert_eq!(id(&either, b"\x02\x02a"), Ok(None));
    assert_eq!(id(&either, b"\x04\x0e"), some(b"7"));
    assert_eq!(id(&either, b"\x06\x0e"), Ok(None));
    for wrong in [b"\x08".as_slice(), b"\x01", b""] {
        assert_eq!(id(&either, wrong), Err(UNPARSABLE));
    }
    let (nothing, outlook) = compiled(EVENT, "/event/di").unwrap();
    assert_eq!((outlook.found, id(&nothing, b"")), (vec![], Ok(None)));
    let (_, outlook) = compiled(EVENT, "/event/id/x").unwrap();
    assert_eq!(outlook.found, [""; 0]);
}

#[test]
fn what_cannot_be_an_id_is_refused_by_its_schema() {
    let field = |schema: &str| {
        format!(r#"{{"type":"record","name":"R","fields":[{{"name":"id","type":{schema}}}]}}"#)
    };
    for (schema, part) in [
        (r#""boolean""#, "a boolean there"),
        (r#""float""#, "a float there"),
        (r#"["null","double"]"#, "a double there"),
        (r#"{"type":"array","items":"string"}"#, "an array there"),
        (r#"{"type":"map","values":"string"}"#, "a map there"),
        (
            r#"{"type":"record","name":"I","fields":[]}"#,
            "a record there",
        ),
        (r#""R""#, "a record there"),
    ] {
        let why = compiled(&field(schema), "/id").unwrap_err();
        assert!(why.contains(part), "{schema}: {why}");
    }
    let list = field(r#"{"type":"array","items":"string"}"#);
    let why = compiled(&list, "/id/0").unwrap_err();
    assert!(why.contains("only fields of records"), "{why}");
}

#[test]
fn a_schema_that_is_none_is_refused_and_says_why() {
    for (schema, part) in [
        ("", "no JSON"),
        ("{", "no JSON"),
        ("7", "no name, list or mapping"),
        ("{}", "without \"type\""),
        (r#""Strin""#, "\"Strin\" that it does not have"),
        (r#"{"type":"record","name":"R"}"#, "without fields"),
        (r#"{"type":"record","fields":[]}"#, "without a name"),
        (
            r#"{"type":"record","name":"R","fields":[{"type":"int"}]}"#,
            "without a name",
        ),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a"}]}"#,
            "\"a\" without a type",
        ),
        (r#"{"type":"enum","name":"E","symbols":[1]}"#, "no text"),
        (r#"{"type":"fixed","name":"F","size":-1}"#, "without a size"),
        (r#"{"type":"array"}"#, "without items"),
        (r#"{"type":"map"}"#, "without values"),
        (r#"[["int"]]"#, "inside of a union"),
        (
            r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":2}]"#,
            "twice",
        ),
    ] {
        let why = compiled(schema, "").map(drop).unwrap_err();
        assert!(why.contains(part), "{schema}: {why}");
    }
    let deep = format!("{}\"int\"{}", r#"{"type":"#.repeat(500), "}".repeat(500));
    assert!(compiled(&deep, "").is_err());
}

#[test]
fn types_are_known_by_their_full_names_also_from_references() {
    let address = r#"{"type":"record","name":"Address","namespace":"x.y",
        "fields":[{"name":"id","type":"string"}]}"#;
    for name in ["x.y.Address", "Address"] {
        let space = if name == "Address" { "x.y" } else { "z" };
        let person = format!(
            r#"{{"type":"record","name":"Person","namespace":"{space}","fields":[
                {{"name":"n","type":"int"}},{{"name":"home","type":"{name}"}}]}}"#
        );
        let pointer = Pointer::new("/home/id");
        let (plan, _) = compile(&person, [address].into_iter(), &pointer).unwrap();
        assert_eq!(id(&plan, b"\x02\x04ab"), some(b"ab"));
    }
}

#[test]
fn counts_and_nesting_of_a_value_cannot_exhaust_time_or_stack() {
    let before = |schema: &str| {
        let text = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"b","type":{schema}}},
                {{"name":"id","type":"int"}}]}}"#
        );
        plan(&text, "/id")
    };
    // 2^62 nulls are no bytes, and 2^62 integers are more than there are.
    let many = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f";
    let nulls = before(r#"{"type":"array","items":"null"}"#);
    assert_eq!(
        id(&nulls, &[many.as_slice(), b"\0\x0e"].concat()),
        some(b"7")
    );
    for items in ["int", "double", "string"] {
        let plan = before(&format!(r#"{{"type":"array","items":"{items}"}}"#));
        assert_eq!(
            id(&plan, &[many.as_slice(), &[2; 20]].concat()),
            Err(UNPARSABLE)
        );
    }
    // A block that tells its size is passed over whole; one that lies is no block.
    let strings = before(r#"{"type":"array","items":"string"}"#);
    assert_eq!(id(&strings, b"\x03\x08\x02a\x02b\0\x0e"), some(b"7"));
    assert_eq!(id(&strings, b"\x03\x7f\x02a\0\x0e"), Err(UNPARSABLE));
    assert_eq!(id(&strings, b"\x03\x01\0\x0e"), Err(UNPARSABLE));
    assert_eq!(id(&strings, &[0xff; 30]), Err(UNPARSABLE));

    let list = before(
        r#"{"type":"record","name":"List","fields":[{"name":"next","type":["null","List"]}]}"#,
    );
    let nested = |depth: usize| [vec![2; depth], b"\0\x0e".to_vec()].concat();
    assert_eq!(id(&list, &nested(100)), some(b"7"));
    assert_eq!(id(&list, &nested(1_000_000)), Err(UNPARSABLE));
    let endless = before(r#"{"type":"record","name":"E","fields":[{"name":"e","type":"E"}]}"#);
    assert_eq!(id(&endless, b"\0\0"), Err(UNPARSABLE));
    // Records of records of nothing, doubled each time: no work at all.
    let doubling = (1..60).map(|n| {
        json!({"type":"record","name":format!("D{n}"),"fields":[
            {"name":"a","type":format!("D{}", n - 1)},{"name":"b","type":format!("D{}", n - 1)}]})
    });
    let first = json!({"type":"record","name":"D0","fields":[]});
    let doubling: Vec<_> = [first].into_iter().chain(doubling).collect();
    let (plan, _) = compile(
        r#"{"type":"record","name":"R","fields":[{"name":"d","type":"D59"},{"name":"id","type":"int"}]}"#,
        [json!(doubling).to_string().as_str()].into_iter(),
        &Pointer::new("/id"),
    )
    .unwrap();
    assert_eq!(id(&plan, b"\x0e"), some(b"7"));
    // Ways that unions double at each step are counted.
    let ab = r#"[{"type":"record","name":"A","fields":[{"name":"x","type":["int",
        {"type":"record","name":"B","fields":[{"name":"x","type":["int","A","B"]}]},"A"]}]},"B"]"#;
    let why = compiled(ab, &("/x".repeat(29) + "/y")).unwrap_err();
    assert!(why.contains("ways"), "{why}");
}

/// 300 values of random schemas, written by another library: tests/data/avro.py.
#[test]
fn ids_are_found_in_what_fastavro_writes() {
    let bytes = |hex: &str| -> Vec<u8> {
        let (pairs, _) = hex.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| {
            str::from_utf8(pair)
                .ok()
                .map(|it| u8::from_str_radix(it, 16))
        };
        let bytes = pairs
            .iter()
            .map(|pair| byte(pair).expect("text").expect("digits"));
        bytes.collect()
    };
    for line in include_str!("../../../tests/data/avro.tsv").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [schema, pointer, value, expected] = columns.as_slice() else {
            panic!("{line}");
        };
        let plan = plan(schema, pointer);
        let found = id(&plan, &bytes(value)).expect(line);
        assert_eq!(found.unwrap_or_default(), bytes(expected), "{line}");
        // Cut off anywhere it is the same id, or no value.
        let value = bytes(value);
        for cut in 0..value.len() {
            match id(&plan, &value[..cut]) {
                Err(reason) => assert_eq!(reason, UNPARSABLE),
                Ok(found) => assert_eq!(found.unwrap_or_default(), bytes(expected), "{line}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_values_do_no_harm(value in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = id(&plan(EVENT, "/event/id"), &value);
        let _ = id(&plan(r#"{"type":"record","name":"R","fields":[
            {"name":"m","type":{"type":"map","values":{"type":"array","items":["null","string","R"]}}},
            {"name":"id","type":["null","long"]}]}"#, "/id"), &value);
    }
}

use proptest::prelude::*;
use protox::prost_reflect::{DynamicMessage, Value};

use super::*;

const ORDER: &str = r#"syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Order {
  google.protobuf.Timestamp at = 1;
  Event event = 2;
  repeated string tags = 3;
  message Event { double weight = 1; string id = 16; int64 number = 3; Kind kind = 4; }
  enum Kind { NONE = 0; SOME = 7; }
  map<string, string> labels = 4;
  bool flag = 5;
}
message Other { string id = 1; message Inner { message Innermost { string id = 1; } } }
"#;

fn compiled(pointer: &str) -> Result<(Plan, Outlook), String> {
    compile(ORDER, &[], &Pointer::new(pointer))
}

fn plan(pointer: &str) -> Plan {
    compiled(pointer).unwrap_or_else(|why| panic!("{why}")).0
}

fn id(plan: &Plan, value: &[u8]) -> Result<Option<Vec<u8>>, MissingReason> {
    let mut text = Vec::new();
    Ok(plan
        .find(value)?
        .map(|found| found.bytes(&mut text).to_vec()))
}

fn some(bytes: &[u8]) -> Result<Option<Vec<u8>>, MissingReason> {
    Ok(Some(bytes.to_vec()))
}

/// A field that holds bytes.
fn prefixed(number: u8, bytes: &[u8]) -> Vec<u8> {
    let tag = u32::from(number) << 3 | 2;
    let tag = if tag < 128 {
        vec![tag as u8]
    } else {
        vec![(tag & 127) as u8 | 128, (tag >> 7) as u8]
    };
    let length = u8::try_from(bytes.len()).expect("short");
    [tag.as_slice(), &[length], bytes].concat()
}

#[test]
fn a_field_of_a_nested_message_is_found_by_its_numbers() {
    let plan = plan("/event/id");
    let event = [b"\x09\0\0\0\0\0\0\0\0".as_slice(), &prefixed(16, b"abc")].concat();
    let message = [prefixed(3, b"t"), prefixed(2, &event), prefixed(3, b"u")].concat();
    let value = [b"\0".as_slice(), &message].concat();
    assert_eq!(id(&plan, &value), some(b"abc"));
    for cut in 1..value.len() {
        let cut = &value[..cut];
        // Between two fields a message that was cut off is a message.
        if !matches!(cut.len(), 1 | 4) && cut.len() != value.len() - 3 {
            assert_eq!(id(&plan, cut), Err(UNPARSABLE), "cut at {}", cut.len());
        }
    }
    assert_eq!(id(&plan, b""), Err(UNPARSABLE));
    assert_eq!(id(&plan, b"\0"), Ok(None));
}

#[test]
fn the_last_of_a_field_counts_and_messages_that_come_twice_are_one() {
    let plan = plan("/event/id");
    let twice = prefixed(2, &[prefixed(16, b"a"), prefixed(16, b"b")].concat());
    assert_eq!(id(&plan, &[b"\0", twice.as_slice()].concat()), some(b"b"));
    let split = [twice, prefixed(2, b"\x18\x05")].concat();
    assert_eq!(id(&plan, &[b"\0", split.as_slice()].concat()), some(b"b"));
}

#[test]
fn message_indexes_say_which_message_a_value_is() {
    let plan = plan("/id");
    let body = prefixed(1, b"x");
    let value = |indexes: &[u8]| [indexes, &body].concat();
    assert_eq!(id(&plan, &value(b"\x02\x02")), some(b"x"));
    assert_eq!(id(&plan, &value(b"\x06\x02\0\0")), some(b"x"));
    // Order, its Event (which has such a field elsewhere), and Inner.
    assert_eq!(id(&plan, &value(b"\0")), Ok(None));
    assert_eq!(id(&plan, &value(b"\x02\0")), Ok(None));
    assert_eq!(id(&plan, &value(b"\x04\x02\0")), Ok(None));
    for wrong in [
        b"\x02\x08".as_slice(),
        b"\x01",
        b"\x02\x01",
        b"\x7e",
        b"\xff",
    ] {
        assert_eq!(id(&plan, &value(wrong)), Err(UNPARSABLE), "{wrong:?}");
    }
}

#[test]
fn whole_numbers_are_decimal_text_and_an_unwritten_one_is_no_id() {
    let of = |pointer: &str, event: &[u8]| {
        id(
            &plan(pointer),
            &[b"\0", prefixed(2, event).as_slice()].concat(),
        )
    };
    assert_eq!(of("/event/number", b"\x18\x96\x01"), some(b"150"));
    let minus_one = b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(of("/event/number", minus_one), some(b"-1"));
    assert_eq!(of("/event/number", b""), Ok(None));
    assert_eq!(of("/event/kind", b"\x20\x07"), some(b"7"));
    let kinds = r#"syntax = "proto3"; message M {
        int32 a = 1; uint32 b = 2; sint32 c = 3; fixed32 d = 4; sfixed32 e = 5;
        uint64 f = 6; sint64 g = 7; fixed64 h = 8; sfixed64 i = 9; bytes j = 10; }"#;
    for (name, bytes, expected) in [
        (
            "a",
            b"\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01".as_slice(),
            b"-2".as_slice(),
        ),
        ("b", b"\x10\xff\xff\xff\xff\x0f", b"4294967295"),
        ("c", b"\x18\x03", b"-2"),
        ("d", b"\x25\x01\0\0\0", b"1"),
        ("e", b"\x2d\xff\xff\xff\xff", b"-1"),
        (
            "f",
            b"\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"18446744073709551615",
        ),
        ("g", b"\x38\x01", b"-1"),
        ("h", b"\x41\x02\0\0\0\0\0\0\0", b"2"),
        ("i", b"\x49\xff\xff\xff\xff\xff\xff\xff\xff", b"-1"),
        ("j", b"\x52\x02\0\xff", b"\0\xff"),
    ] {
        let (plan, _) = compile(kinds, &[], &Pointer::new(&format!("/{name}"))).unwrap();
        assert_eq!(
            id(&plan, &[b"\0", bytes].concat()),
            some(expected),
            "{name}"
        );
    }
}

#[test]
fn what_cannot_be_an_id_is_refused_by_its_schema() {
    for (pointer, part) in [
        ("/event", "event is a message"),
        ("/tags", "tags is repeated"),
        ("/labels", "labels is repeated"),
        ("/flag", "flag is a bool"),
        ("/event/weight", "weight is a floating number"),
        ("", "the whole message"),
    ] {
        let why = compiled(pointer).map(drop).unwrap_err();
        assert!(why.contains(part), "{pointer}: {why}");
    }
    let (_, outlook) = compiled("/event/di").unwrap();
    assert_eq!(outlook.found, [""; 0]);
    let (_, outlook) = compiled("/id").unwrap();
    let found = [
        "string of shop.Order.Event",
        "string of shop.Other",
        "string of shop.Other.Inner.Innermost",
    ];
    assert_eq!(outlook.found, found);
}

#[test]
fn what_a_schema_imports_comes_with_it_or_is_named() {
    let text =
        r#"syntax = "proto3"; import "shop/event.proto"; message M { shop.Event event = 1; }"#;
    let event = r#"syntax = "proto3"; package shop; message Event { string id = 1; }"#;
    let references = [("shop/event.proto".to_owned(), event.to_owned())];
    let (plan, _) = compile(text, &references, &Pointer::new("/event/id")).unwrap();
    let value = [b"\0", prefixed(1, &prefixed(1, b"a")).as_slice()].concat();
    assert_eq!(id(&plan, &value), some(b"a"));
    let why = compile(text, &[], &Pointer::new("/event/id"))
        .map(drop)
        .unwrap_err();
    assert!(why.contains("shop/event.proto"), "{why}");
    for text in [
        "message",
        "syntax = \"proto3\"; message M { Nowhere a = 1; }",
        "\0",
    ] {
        let why = compile(text, &[], &Pointer::new("/a"))
            .map(drop)
            .unwrap_err();
        assert!(!why.contains('\n'), "{why:?}");
    }
    let deep = format!("{}{}", "message M {".repeat(50_000), "}".repeat(50_000));
    let why = compile(&deep, &[], &Pointer::new("/a"))
        .map(drop)
        .unwrap_err();
    assert!(why.contains("nests deeper"), "{why}");
}

#[test]
fn groups_and_lengths_of_a_value_cannot_exhaust_anything() {
    let plan = plan("/event/id");
    let value = |body: &[u8]| id(&plan, &[b"\0", body].concat());
    assert_eq!(value(b"\x33\x34"), Ok(None));
    assert_eq!(value(b"\x33"), Err(UNPARSABLE));
    assert_eq!(value(b"\x34"), Err(UNPARSABLE));
    assert_eq!(value(&[0x33; 100_000]), Err(UNPARSABLE));
    assert_eq!(
        value(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        Err(UNPARSABLE)
    );
    assert_eq!(value(b"\x02\x00"), Err(UNPARSABLE));
    assert_eq!(value(&[0xff; 20]), Err(UNPARSABLE));
}

/// Fields that a message may have, and some that it has not, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        "[a-z]{0,5}".prop_map(|it| prefixed(2, &prefixed(16, it.as_bytes()))),
        "[a-z]{0,5}".prop_map(|it| prefixed(3, it.as_bytes())),
        Just(prefixed(2, b"\x18\x05\x20\x07")),
        Just(b"\x28\x01".to_vec()),
        Just(b"\x7d\0\0\0\0".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever another reader of Protobuf takes for a message has the id that it says.
    #[test]
    fn ids_are_those_that_prost_reads(body in pieces()) {
        let mut compiler = protox::Compiler::with_file_resolver(Texts(HashMap::from([
            ("order.proto".to_owned(), ORDER.to_owned()),
        ])));
        let pool = compiler.open_file("order.proto").expect("a schema").descriptor_pool();
        let order = pool.get_message_by_name("shop.Order").expect("a message");
        let ours = id(&plan("/event/id"), &[b"\0", body.as_slice()].concat());
        if let Ok(message) = DynamicMessage::decode(order, body.as_slice()) {
            let event = message.get_field_by_name("event").expect("a field").into_owned();
            let theirs = match event {
                Value::Message(event) => event.get_field_by_name("id").expect("a field").into_owned(),
                other => panic!("{other:?}"),
            };
            // To this reader what is absent is empty, which is no id either.
            let ours = ours.expect("a message").unwrap_or_default();
            prop_assert_eq!(Some(ours.as_slice()), theirs.as_str().map(str::as_bytes));
        }
    }
}

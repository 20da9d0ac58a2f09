//! Examples of texts, and of ids that are the same.

#![cfg(test)]

use bson::{Bson, Decimal128, doc, oid::ObjectId};

use super::{NoBson, bytes_of, fingerprint, id_text, id_value, push_text, text_of};

fn bytes(document: &bson::Document) -> Vec<u8> {
    let mut bytes = Vec::new();
    document.to_writer(&mut bytes).unwrap();
    bytes
}

fn text(document: &bson::Document) -> String {
    let bytes = bytes(document);
    let text = text_of(&bytes).unwrap();
    assert_eq!(bytes_of(&text).unwrap(), bytes);
    text
}

fn id(value: impl Into<Bson>) -> String {
    let value = value.into();
    let raw = bson::RawDocumentBuf::try_from(&doc! {"_id": value.clone()}).unwrap();
    let text = id_text(raw.get("_id").unwrap().unwrap());
    // The value that the text is read as is the same id, and a document with it has the same text.
    let again = id_value(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let raw = bson::RawDocumentBuf::try_from(&doc! {"_id": again}).unwrap();
    assert_eq!(id_text(raw.get("_id").unwrap().unwrap()), text);
    text
}

fn decimal(text: &str) -> Decimal128 {
    text.parse().unwrap()
}

#[test]
fn a_document_is_its_id_and_its_members_with_their_types() {
    let id = ObjectId::parse_str("0123456789abcdef01234567").unwrap();
    let document = doc! {
        "_id": id,
        "n": 5, "l": 5_i64, "d": 1.0, "z": -0.0, "m": decimal("1.50"), "t": "a\"\n", "b": true, "x": Bson::Null,
        "at": bson::DateTime::from_millis(-1), "in": {"id": [1, {"ttl": ""}]},
        "id": 1, "~id": 2, "ttl": 3, "_ts": 4, "restored_at": 5,
        "ref": {"$ref": "c", "$id": 1}, "like": {"$oid": "no id"},
    };
    insta::assert_snapshot!(text(&document).replace(",\"", ",\n\""), @r#"
    {"id":"0123456789abcdef01234567",
    "_id":{"$oid":"0123456789abcdef01234567"},
    "n":{"$numberInt":"5"},
    "l":{"$numberLong":"5"},
    "d":{"$numberDouble":"1.0"},
    "z":{"$numberDouble":"-0.0"},
    "m":{"$numberDecimal":"1.50"},
    "t":"a\"\n",
    "b":true,
    "x":null,
    "at":{"$date":{"$numberLong":"-1"}},
    "in":{"id":[{"$numberInt":"1"},{"ttl":""}]},
    "~id":{"$numberInt":"1"},
    "~~id":{"$numberInt":"2"},
    "~ttl":{"$numberInt":"3"},
    "~_ts":{"$numberInt":"4"},
    "restored_at":{"$numberInt":"5"},
    "ref":{"$ref":"c",
    "$id":{"$numberInt":"1"}},
    "like":{"$bson":{"type":"03",
    "base64":"FQAAAAIkb2lkAAYAAABubyBpZAAA"}}}
    "#);
}

#[test]
fn rare_types_have_their_names() {
    let document = doc! {
        "_id": "x",
        "s": Bson::Symbol("s".into()), "j": Bson::JavaScriptCode("j".into()),
        "js": Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope { code: "j".into(), scope: doc! {"a": 1} }),
        "r": Bson::RegularExpression(bson::Regex {
            pattern: bson::raw::cstr!("^a").into(),
            options: bson::raw::cstr!("i").into(),
        }),
        "ts": Bson::Timestamp(bson::Timestamp { time: 1, increment: 2 }),
        "u": Bson::Undefined, "min": Bson::MinKey, "max": Bson::MaxKey,
        "b": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::BinaryOld, bytes: vec![1, 2] }),
    };
    insta::assert_snapshot!(text(&document).replace(",\"", ",\n\""), @r#"
    {"id":"x",
    "_id":"x",
    "s":{"$symbol":"s"},
    "j":{"$code":"j"},
    "js":{"$code":"j",
    "$scope":{"a":{"$numberInt":"1"}}},
    "r":{"$regularExpression":{"pattern":"^a",
    "options":"i"}},
    "ts":{"$timestamp":{"t":1,
    "i":2}},
    "u":{"$undefined":true},
    "min":{"$minKey":1},
    "max":{"$maxKey":1},
    "b":{"$binary":{"base64":"AQI=",
    "subType":"02"}}}
    "#);
}

#[test]
fn what_json_cannot_give_back_is_written_as_its_bytes() {
    let mut deep = doc! {};
    for _ in 0..150 {
        deep = doc! {"d": deep};
    }
    let document = doc! {"_id": 1, "n": f64::from_bits(0x7FF8_0000_0000_0001), "deep": deep};
    let written = text(&document);
    assert!(
        written
            .starts_with(r#"{"id":"1","_id":{"$numberInt":"1"},"n":{"$bson":{"type":"01","base64":"AQAAAAAA+H8="}}"#)
    );
    assert!(crate::change::raw::depth(&written) <= 104 && written.contains(r#"{"$bson":{"type":"03","#));
    // Two members of one name.
    let mut twice = [b"\0\0\0\0\x10_id\0\x01\0\0\0".as_slice(), b"\x0Aa\0\x0Aa\0", b"\0"].concat();
    super::elements::set_length(&mut twice, 0);
    let whole = text_of(&twice).unwrap();
    assert!(whole.starts_with(r#"{"id":"1","_id":{"$numberInt":"1"},"$bson":{"type":"03","base64":""#), "{whole}");
    assert_eq!(bytes_of(&whole).unwrap(), twice);
    let other = whole.replace("\"$numberInt\":\"1\"", "\"$numberInt\":\"2\"").replace("\"id\":\"1\"", "\"id\":\"2\"");
    assert_eq!(bytes_of(&other).unwrap_err().to_string(), "/_id: is not the one in $bson");
    let more = whole.replace("\"$bson\"", "\"more\":1,\"$bson\"");
    let error = bytes_of(&more).unwrap_err().to_string();
    assert_eq!(error, "the document: is written whole in $bson, and has other members beside it");
}

#[test]
fn what_is_no_document_is_none() {
    let mut out = "before".to_owned();
    for bytes in [&b""[..], &[5, 0, 0, 0, 0], &[5, 0, 0, 0, 1], &[6, 0, 0, 0, 0], &bytes(&doc! {"id": 1}), &[0xFF; 40]]
    {
        assert!(push_text(&mut out, bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(out, "before");
}

#[test]
fn an_edited_text_is_read_and_what_is_wrong_is_named_with_its_place() {
    let read = |text: &str| bson::Document::from_reader(bytes_of(text).unwrap().as_slice()).unwrap();
    let edited = read(
        r#" {"_rid":"r", "_id": 1, "_ts":5, "n":3000000000, "m":-7, "f":1.5, "e":1e3, "big":9223372036854775808,
            "~id":{"a":[1,{"$oid":"0123456789ABCDEF01234567"}]}, "restored_at":1700000000,
            "at":{"$date":"2023-11-14T23:13:20+01:00"}} "#,
    );
    let expected = doc! {
        "_id": 1, "n": 3_000_000_000_i64, "m": -7, "f": 1.5, "e": 1000.0, "big": 9_223_372_036_854_775_808.0,
        "id": {"a": [1, ObjectId::parse_str("0123456789abcdef01234567").unwrap()]}, "restored_at": 1_700_000_000,
        "at": bson::DateTime::from_millis(1_700_000_000_000),
    };
    assert_eq!(edited, expected);
    for (text, error) in [
        ("{}", "the document: has no _id"),
        (r#"{"id":"2","_id":1}"#, "/id: does not belong to the _id"),
        (r#"{"id":2,"_id":1}"#, "/id: is not written as a value is"),
        (r#"{"_id":1,"ttl":5}"#, "/ttl: is a name with a meaning here: the document's own is written ~ttl"),
        (r#"{"_id":1,"~id":{"a/b":[1,{"$numberInt":"x"}]}}"#, "/~0id/a~1b/1: is no 32-bit integer"),
        (r#"{"_id":1,"a":{"$numberInt":5}}"#, "/a: is not written as a value is"),
        (r#"{"_id":1,"a":{"$numberInt":"5","$numberDouble":"7"}}"#, "/a: has more members than a value has"),
        (r#"{"_id":1,"a":{"$bson":{"type":"10","base64":"AA=="}}}"#, "/a: has bytes that are no value of this type"),
        (r#"{"_id":1,"a":{"$date":{"$numberLong":"1","b":2}}}"#, "/a: is not written as a value is"),
        (r#"{"_id":1,"a":{"$date":"yesterday"}}"#, "/a: is not a date"),
        (r#"{"_id":1,"a\u0000":1}"#, "the document: has a zero in a name or an expression"),
        (r#"{"_id":1,"a":SECRET}"#, "/a: expected value at line 1 column 14"),
    ] {
        assert_eq!(bytes_of(text).unwrap_err().to_string(), error, "{text}");
    }
    let deep = format!("{{\"_id\":1,\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let too_deep = bytes_of(&deep).unwrap_err().problem;
    assert_eq!(too_deep.split(" at ").next(), Some("recursion limit exceeded"));
}

#[test]
fn ids_that_mongodb_takes_for_one_have_one_text() {
    let ids: [(&str, Vec<Bson>); 16] = [
        (
            "5",
            vec![
                5.into(),
                5_i64.into(),
                5.0.into(),
                decimal("5").into(),
                decimal("5.00").into(),
                decimal("0.5E1").into(),
            ],
        ),
        ("0", vec![0.into(), (-0.0).into(), 0.0.into(), decimal("-0E+3").into(), decimal("0").into()]),
        ("1.5", vec![1.5.into(), decimal("1.50").into()]),
        ("-0.25", vec![(-0.25).into(), decimal("-0.25").into()]),
        (r#"{"$numberDecimal":"0.1"}"#, vec![decimal("0.1").into(), decimal("0.100").into()]),
        ("0.1", vec![0.1.into()]),
        ("9007199254740993", vec![9_007_199_254_740_993_i64.into(), decimal("9007199254740993").into()]),
        ("9007199254740992", vec![9_007_199_254_740_992.0.into(), decimal("9007199254740992").into()]),
        ("9223372036854775807", vec![i64::MAX.into()]),
        ("9.223372036854776e18", vec![9_223_372_036_854_775_808.0.into()]),
        ("-9223372036854775808", vec![i64::MIN.into(), (-9_223_372_036_854_775_808.0).into()]),
        ("1e22", vec![1e22.into(), decimal("1E+22").into()]),
        (r#"{"$numberDecimal":"1E+6144"}"#, vec![decimal("1E+6144").into()]),
        (r#"{"$numberDouble":"NaN"}"#, vec![f64::NAN.into(), (-f64::NAN).into(), decimal("NaN").into()]),
        (r#"{"$numberDouble":"Infinity"}"#, vec![f64::INFINITY.into(), decimal("Infinity").into()]),
        (r#"{"a":1,"b":[2]}"#, vec![doc! {"a": 1, "b": [2.0]}.into(), doc! {"a": decimal("1.0"), "b": [2_i64]}.into()]),
    ];
    for (text, values) in ids {
        for value in values {
            assert_eq!(id(value.clone()), text, "{value:?}");
        }
    }
    assert_ne!(id(9_223_372_036_854_775_808.0), id(i64::MAX));
}

#[test]
fn a_string_is_its_own_id_unless_another_value_has_its_text() {
    for plain in ["a", "O'Neill", "[1]", "05", "+5", "1.", " 5", "-", "True", "nullx", "a/b#?\\", "0x1", "NaN"] {
        assert_eq!(id(plain), plain);
    }
    for other in [
        "",
        "{",
        "{}x",
        "\"a\"",
        "0123456789abcdef01234567",
        "0123456789ABCDEF01234567",
        "5",
        "-0",
        "1e5",
        "1.50",
        "true",
        "false",
        "null",
    ] {
        assert_eq!(id(other), serde_json::Value::from(other).to_string());
    }
    assert_eq!(id(ObjectId::parse_str("0123456789ABCDEF01234567").unwrap()), "0123456789abcdef01234567");
    for digits in ["000000000000000000000005", "123456789012345678901234", "2e3100000000000000000000"] {
        assert_eq!(id(ObjectId::parse_str(digits).unwrap()), digits);
        assert_eq!(id(digits), format!("{digits:?}"));
    }
    assert_eq!((id(true), id(Bson::Null)), ("true".into(), "null".into()));
    assert_eq!(id(bson::DateTime::from_millis(7)), r#"{"$date":{"$numberLong":"7"}}"#);
    assert_eq!(id(Bson::Symbol("s".into())), "s");
    let no_value: Result<Bson, NoBson> = id_value("{\"$oid\":");
    assert!(no_value.is_err() && id_value("\"").is_err());
    let deep = (0..5000).fold(vec![5, 0, 0, 0, 0], |inner, _| super::elements::alone(3, &inner));
    let mut text = String::new();
    super::write::push_bson(&mut text, 3, &deep);
    assert_eq!(id_value(&text).unwrap_err().problem, "is nested too deeply");
}

#[test]
fn a_fingerprint_is_an_etag() {
    assert_eq!(fingerprint(b""), "\"e3b0c44298fc1c149afbf4c8996fb924\"");
}

#[test]
fn a_document_of_almost_16_megabytes_comes_back() {
    let long: Vec<i32> = (0..600_000).collect();
    let many: bson::Document = (0..300_000).map(|n| (format!("m{n}"), Bson::Double(f64::from(n) / 3.0))).collect();
    let document = doc! {"_id": 1, "long": long, "many": many, "text": "é\"".repeat(1_000_000)};
    let size = bytes(&document).len();
    assert!((14_000_000..16_777_216).contains(&size), "{size}");
    text(&document);
}

/// Measures a document of 1 KB: `cargo test --release --lib bson_text -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn a_document_of_a_kilobyte_takes_microseconds() {
    let order = doc! {
        "_id": ObjectId::parse_str("0123456789abcdef01234567").unwrap(),
        "customer": {"name": "Ada Lovelace", "email": "ada@example.org", "since": bson::DateTime::from_millis(1_700_000_000_000)},
        "items": (0..6).map(|n| doc! {"sku": format!("sku-{n}"), "n": n, "price": f64::from(n) * 1.1, "tags": ["a", "b"]}).collect::<Vec<_>>(),
        "balance": decimal("12.50"), "version": 7_i64, "paid": true, "note": "x".repeat(400),
    };
    let bytes = bytes(&order);
    let text = text_of(&bytes).unwrap();
    // The best of many batches, so that other work on the machine does not count.
    let time = |what: &dyn Fn() -> usize| {
        let batch = || {
            let start = std::time::Instant::now();
            assert!((0..500).map(|_| what()).sum::<usize>() > 0);
            start.elapsed().as_nanos() / 500
        };
        (0..400).map(|_| batch()).min().unwrap()
    };
    let mut out = std::cell::RefCell::new(String::new());
    let write = time(&|| {
        let mut out = out.borrow_mut();
        out.clear();
        push_text(&mut out, &bytes).unwrap();
        out.len()
    });
    let read = time(&|| bytes_of(&text).unwrap().len());
    println!("{} bytes, a text of {}: written in {write} ns, read in {read} ns", bytes.len(), out.get_mut().len());
}

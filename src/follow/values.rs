//! The values of a document in an expression. For a MongoDB document these are plain values under its own names,
//! instead of Extended JSON.

use std::collections::HashMap;

use cel::Value;
use serde::Deserialize as _;
#[cfg(feature = "mongodb")]
use serde_json::value::RawValue;

use super::members::UsedMembers;
use crate::change::{
    diff,
    extended::{self, BSON},
    raw::{RawDocument, depth},
};

/// How many levels of a document are parsed: more than the service's 128, and few enough for any thread's stack.
pub(super) const MAX_DEPTH: usize = 200;

/// A document as a value of the library, with the members that are used.
pub(super) fn value_of(text: &str, asked: &UsedMembers) -> Option<Value> {
    if depth(text) > MAX_DEPTH {
        return None;
    }
    let whole = |text: &str| parse(text).and_then(|value| cel::to_value(value).ok());
    let UsedMembers::These(names) = asked else { return whole(text) };
    let Ok(document) = RawDocument::parse(text) else { return whole(text) };
    let members = names.iter().filter_map(|name| Some((name.as_str(), document.get(name)?)));
    let members: Option<HashMap<&str, Value>> = members.map(|(name, raw)| Some((name, whole(raw.get())?))).collect();
    Some(Value::from(members?))
}

fn parse(text: &str) -> Option<serde_json::Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let value = serde_json::Value::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok().map(|()| value)
}

/// The same for a MongoDB document.
#[cfg(feature = "mongodb")]
pub(super) fn extended_of(text: &str, asked: &UsedMembers) -> Option<Value> {
    let document = RawDocument::parse(text).ok()?;
    match asked {
        UsedMembers::These(names) if document.get(BSON).is_none() => {
            let members = names.iter().filter_map(|name| Some((name, document.get(&extended::escaped(name))?)));
            let member = |(name, raw): (&String, &RawValue)| Some((name.clone(), plain::of_text(raw.get())?));
            let members: Option<HashMap<String, Value>> = members.map(member).collect();
            Some(Value::from(members?))
        }
        _ => plain::of_document(text),
    }
}

/// The same for a MongoDB document, which a program without that feature cannot read.
#[cfg(not(feature = "mongodb"))]
pub(super) fn extended_of(_text: &str, _asked: &UsedMembers) -> Option<Value> {
    None
}

/// The text at a path of a MongoDB document; the path begins with one of the document's own names. A value that has no
/// parts is the text at every path into it.
pub(super) fn extended_at<'a>(text: &'a str, path: &[String]) -> Option<&'a str> {
    let document = RawDocument::parse(text).ok()?;
    if let Some(whole) = document.get(BSON) {
        return Some(whole.get());
    }
    let Some((first, rest)) = path.split_first() else { return Some(text) };
    let mut value = document.get(&extended::escaped(first))?.get();
    for segment in rest {
        if extended::is_value(value) {
            break;
        }
        value = diff::value_at(value, std::slice::from_ref(segment))?;
    }
    Some(value)
}

/// Converts values of MongoDB to those of an expression.
#[cfg(feature = "mongodb")]
mod plain {
    use std::{collections::HashMap, sync::Arc};

    use bson::raw::{RawBsonRef, RawDocument};
    use cel::Value;
    use chrono::{DateTime, Utc};

    use super::MAX_DEPTH;
    use crate::bson_text;

    /// The value of a text.
    pub(super) fn of_text(text: &str) -> Option<Value> {
        let element = bson_text::value_of(text).ok()?;
        of_value(element.iter().next()?.ok()?.1, MAX_DEPTH)
    }

    /// All that is in a document.
    pub(super) fn of_document(text: &str) -> Option<Value> {
        let bytes = bson_text::bytes_of(text).ok()?;
        of_members(RawDocument::from_bytes(&bytes).ok()?, MAX_DEPTH)
    }

    fn of_members(document: &RawDocument, levels: usize) -> Option<Value> {
        let member = |element: bson::error::Result<(&bson::raw::CStr, RawBsonRef<'_>)>| {
            let (name, value) = element.ok()?;
            Some((name.as_str().to_owned(), of_value(value, levels.checked_sub(1)?)?))
        };
        let members: Option<HashMap<String, Value>> = document.iter().map(member).collect();
        Some(Value::from(members?))
    }

    /// `None` when its bytes are damaged, or it is nested too deeply.
    fn of_value(value: RawBsonRef<'_>, levels: usize) -> Option<Value> {
        Some(match value {
            RawBsonRef::Double(number) => Value::Float(number),
            RawBsonRef::Int32(number) => Value::Int(number.into()),
            RawBsonRef::Int64(number) => Value::Int(number),
            // The nearest double. Every decimal becomes one, so that an expression means the same for 1 and for 1.5.
            RawBsonRef::Decimal128(number) => Value::Float(number.to_string().parse().ok()?),
            RawBsonRef::Boolean(flag) => Value::Bool(flag),
            RawBsonRef::Null | RawBsonRef::Undefined => Value::Null,
            RawBsonRef::DateTime(at) => time(at.timestamp_millis()),
            RawBsonRef::Timestamp(at) => time(i64::from(at.time) * 1000),
            RawBsonRef::ObjectId(id) => Value::from(id.to_hex()),
            RawBsonRef::Binary(binary) => Value::Bytes(Arc::new(binary.bytes.to_vec())),
            RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => Value::from(text),
            RawBsonRef::JavaScriptCodeWithScope(code) => Value::from(code.code),
            RawBsonRef::RegularExpression(regex) => {
                Value::from(format!("/{}/{}", regex.pattern.as_str(), regex.options.as_str()))
            }
            RawBsonRef::MinKey => Value::from("MinKey"),
            RawBsonRef::MaxKey => Value::from("MaxKey"),
            RawBsonRef::DbPointer(_) => Value::from(bson_text::id_text(value)),
            RawBsonRef::Document(document) => of_members(document, levels)?,
            RawBsonRef::Array(array) => {
                let element =
                    |element: bson::error::Result<RawBsonRef<'_>>| of_value(element.ok()?, levels.checked_sub(1)?);
                Value::List(Arc::new(array.into_iter().map(element).collect::<Option<_>>()?))
            }
        })
    }

    /// About 200,000 years. The library looks whether a result is a time only after it has calculated, and panics beyond
    /// the calendar, which ends after 262,000 years. What is added at once is at most 292 years.
    const FARTHEST: i64 = 6_300_000_000_000_000;

    /// A time; one that is farther away from 1970 counts as that far.
    fn time(milliseconds: i64) -> Value {
        let at = DateTime::<Utc>::from_timestamp_millis(milliseconds.clamp(-FARTHEST, FARTHEST));
        at.map_or(Value::Null, |at| Value::Timestamp(at.fixed_offset()))
    }
}

#[cfg(test)]
#[cfg(feature = "mongodb")]
mod tests {
    use bson::{Bson, doc};

    use crate::{
        bson_text,
        change::{Op, key::PartitionKey},
        follow::{Filter, NoAnswer, Subject},
    };

    fn text(document: &bson::Document) -> String {
        let mut bytes = Vec::new();
        document.to_writer(&mut bytes).unwrap();
        bson_text::text_of(&bytes).unwrap()
    }

    fn answer(filter: &str, previous: Option<&str>, doc: Option<&str>) -> Result<bool, NoAnswer> {
        let pk = PartitionKey::parse("x").unwrap();
        let (ts, lsn) = (None, None);
        let subject = Subject {
            op: Op::Replace,
            id: "known",
            pk: &pk,
            ts,
            lsn,
            doc,
            previous,
            changed: None,
            before_unknown: false,
            extended: true,
        };
        Filter::compile(filter).unwrap().answer(&subject)
    }

    #[test]
    fn every_type_is_a_plain_value() {
        let balances = [(-5).into(), (-5_i64).into(), (-5.5).into(), Bson::Decimal128("-5.5".parse().unwrap())];
        for balance in balances {
            let text = text(&doc! {"_id": 1, "balance": balance.clone()});
            for filter in ["doc.balance < 0", "doc.balance < 0.5", "doc.balance < -4", "doc.balance != 1"] {
                assert_eq!(answer(filter, None, Some(&text)), Ok(true), "{filter} {balance:?}");
            }
        }
        let code = bson::JavaScriptCodeWithScope { code: "f".into(), scope: doc! {} };
        let text = text(&doc! {
            "_id": bson::oid::ObjectId::parse_str("0123456789abcdef01234567").unwrap(), "id": "own", "ttl": 7, "~x": 8,
            "at": bson::DateTime::from_millis(1_700_000_000_000), "far": bson::DateTime::from_millis(i64::MAX),
            "past": bson::DateTime::from_millis(i64::MIN),
            "stamp": Bson::Timestamp(bson::Timestamp { time: 1_700_000_000, increment: 9 }),
            "bytes": Bson::Binary(bson::Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: b"ab".to_vec() }),
            "symbol": Bson::Symbol("s".into()), "code": Bson::JavaScriptCode("c".into()),
            "scoped": Bson::JavaScriptCodeWithScope(code), "none": Bson::Undefined, "null": Bson::Null,
            "min": Bson::MinKey, "max": Bson::MaxKey, "flag": true, "five": Bson::Decimal128("5.0".parse().unwrap()),
            "regex": Bson::RegularExpression(bson::Regex {
                pattern: bson::raw::cstr!("^a").into(), options: bson::raw::cstr!("i").into(),
            }),
            "in": {"list": [1, {"id": 2}], "odd": {"$oid": "plain"}, "nan": f64::from_bits(0x7FF8_0000_0000_0001)},
        });
        for filter in [
            r#"doc.at < timestamp("2026-01-01T00:00:00Z") && doc.at == timestamp(1700000000)"#,
            r#"doc.at + duration("1h") > doc.at && doc.at.getFullYear() == 2023 && doc.stamp == doc.at"#,
            "doc.past < doc.at && doc.at < doc.far",
            r#"doc._id == "0123456789abcdef01234567" && doc.id == "own" && id == "known""#,
            r#"doc["~x"] == 8 && doc.ttl == 7 && !has(doc._ts)"#,
            r#"doc.bytes == b"ab" && doc.symbol == "s" && doc.code == "c" && doc.scoped == "f""#,
            r#"doc.none == null && doc["null"] == null && doc.min == "MinKey" && doc.max == "MaxKey" && doc.flag"#,
            r#"doc.regex == "/^a/i" && doc.five == 5.0 && doc.five == 5"#,
            r#"doc["in"].list[0] == 1 && doc["in"].list[1].id == 2 && doc["in"].odd["$oid"] == "plain""#,
            r#"size(doc) == 20 && "id" in doc && !("~id" in doc) && !("_etag" in doc)"#,
            r#"type(doc.five) == double && type(doc.ttl) == int"#,
        ] {
            assert_eq!(answer(filter, None, Some(&text)), Ok(true), "{filter}");
        }
    }

    #[test]
    fn a_path_begins_with_the_documents_own_name_and_ends_at_a_value() {
        let before = text(&doc! {"_id": 1, "id": 1, "n": 5, "a": [{"x": 1}], "odd": {"$oid": 1}});
        let after = text(&doc! {"_id": 1, "id": 2, "n": 5_i64, "a": [{"x": 1}, 2], "odd": {"$oid": 2}});
        for (filter, expected) in [
            (r#"changed("/id")"#, true),
            (r#"changed("/_id") || changed("/~id") || changed("/a/0/x") || changed("/nothing/x")"#, false),
            (r#"changed("/n") && changed("/a") && changed("/a/1")"#, true),
            (r#"changed("/odd/$oid")"#, true),
            ("previous.id == 1 && doc.id == 2", true),
        ] {
            assert_eq!(answer(filter, Some(&before), Some(&after)), Ok(expected), "{filter}");
        }
        assert_eq!(answer(r#"changed("/id")"#, Some(&before), None), Ok(true));
    }

    #[test]
    fn a_document_that_is_written_whole_is_decoded_and_a_damaged_one_is_not_understood() {
        let twice = b"\x1C\0\0\0\x10_id\0\x01\0\0\0\x10a\0\x01\0\0\0\x10a\0\x02\0\0\0\0";
        let whole = bson_text::text_of(twice).unwrap();
        assert!(whole.contains("\"$bson\""));
        assert_eq!(answer("doc.a == 2 && doc._id == 1", None, Some(&whole)), Ok(true));
        assert_eq!(answer(r#"changed("/a")"#, Some(&whole), Some(&whole)), Ok(false));
        for text in ["[]", "{", r#"{"a":{"$oid":"SECRET"}}"#, r#"{"a":{"$bson":{"type":"03","base64":"BQAAAAE="}}}"#] {
            let error = answer("doc.a == 1", None, Some(text)).unwrap_err();
            assert_eq!(error.to_string(), "the document is not understood", "{text}");
        }
    }
}

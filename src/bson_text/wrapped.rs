//! Reads values of Extended JSON: what follows the first name of an object that stands for one value.

use std::{borrow::Cow, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::DateTime;
use serde::{
    Deserialize,
    de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::{
    elements::{
        BINARY, CODE, CODE_WITH_SCOPE, DATE, DB_POINTER, DECIMAL, DOCUMENT, DOUBLE, INT32, INT64, MAX_KEY, MIN_KEY,
        OBJECT_ID, OLD_BINARY, REGEX, SYMBOL, TIMESTAMP, UNDEFINED, length_of, set_length,
    },
    id::object_id,
    read::{ReadState, Value},
    write::NAN,
};

/// A string, borrowed where possible.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binary<'a> {
    #[serde(borrow)]
    base64: Text<'a>,
    #[serde(borrow, rename = "subType")]
    subtype: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bson<'a> {
    #[serde(borrow, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow)]
    base64: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Timestamp {
    t: u32,
    i: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Regex<'a> {
    #[serde(borrow)]
    pattern: Text<'a>,
    #[serde(borrow)]
    options: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Oid<'a> {
    #[serde(borrow, rename = "$oid")]
    oid: Text<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DbPointer<'a> {
    #[serde(borrow, rename = "$ref")]
    namespace: Text<'a>,
    #[serde(borrow, rename = "$id")]
    id: Oid<'a>,
}

/// Milliseconds since 1970; in relaxed Extended JSON, a time as people write it.
struct Date(Option<i64>);

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DateVisitor)
    }
}

struct DateVisitor;

impl<'de> Visitor<'de> for DateVisitor {
    type Value = Date;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a date")
    }

    fn visit_str<E>(self, text: &str) -> Result<Date, E> {
        Ok(Date(DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Date, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Milliseconds<'a> {
            #[serde(borrow, rename = "$numberLong")]
            milliseconds: Text<'a>,
        }
        let Milliseconds { milliseconds } = Milliseconds::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Date(milliseconds.0.parse().ok()))
    }
}

/// Reads the value that follows `name` and the members that belong to it; writes its bytes and returns its type.
pub(super) fn value<'de, A: MapAccess<'de>>(name: &str, state: &mut ReadState, map: &mut A) -> Result<u8, A::Error> {
    let kind = match name {
        "$numberInt" => {
            number::<i32, A>(state, map, "is no 32-bit integer").map(|n| write(state, INT32, &n.to_le_bytes()))
        }
        "$numberLong" => {
            number::<i64, A>(state, map, "is no 64-bit integer").map(|n| write(state, INT64, &n.to_le_bytes()))
        }
        "$numberDouble" => {
            let text: Text<'de> = map.next_value()?;
            let number = double(&text.0).ok_or_else(|| state.wrong::<A::Error>("is not a floating point number"))?;
            Ok(write(state, DOUBLE, &number.to_le_bytes()))
        }
        "$numberDecimal" => {
            let text: Text<'de> = map.next_value()?;
            let number =
                decimal(&text.0).ok_or_else(|| state.wrong::<A::Error>("is not a decimal number of 34 digits"))?;
            Ok(write(state, DECIMAL, &number.bytes()))
        }
        "$oid" => {
            let text: Text<'de> = map.next_value()?;
            let id = object_id(&text.0).ok_or_else(|| state.wrong::<A::Error>("is not 24 hex digits"))?;
            Ok(write(state, OBJECT_ID, &id))
        }
        "$date" => {
            let date = map.next_value::<Date>()?.0.ok_or_else(|| state.wrong::<A::Error>("is not a date"))?;
            Ok(write(state, DATE, &date.to_le_bytes()))
        }
        "$symbol" => {
            let text: Text<'de> = map.next_value()?;
            state.string(&text.0);
            Ok(SYMBOL)
        }
        "$code" => return code(state, map),
        "$bson" => bson(state, map).map(|(kind, value)| write(state, kind, &value)),
        _ => rare(name, state, map),
    }?;
    nothing_else(state, map).map(|()| kind)
}

fn rare<'de, A: MapAccess<'de>>(name: &str, state: &mut ReadState, map: &mut A) -> Result<u8, A::Error> {
    match name {
        "$binary" => {
            let binary: Binary<'de> = map.next_value()?;
            let subtype = hex(&binary.subtype.0).ok_or_else(|| state.wrong::<A::Error>("has no such subtype"))?;
            let bytes = base64::<A>(state, &binary.base64.0)?;
            // The old subtype carries its length twice.
            let inner = if subtype == OLD_BINARY {
                i32::try_from(bytes.len()).unwrap_or(-1).to_le_bytes().to_vec()
            } else {
                vec![]
            };
            let length = i32::try_from(bytes.len() + inner.len()).unwrap_or(-1);
            write(state, BINARY, &length.to_le_bytes());
            state.out.push(subtype);
            write(state, BINARY, &inner);
            Ok(write(state, BINARY, &bytes))
        }
        "$timestamp" => {
            let Timestamp { t, i } = map.next_value()?;
            write(state, TIMESTAMP, &i.to_le_bytes());
            Ok(write(state, TIMESTAMP, &t.to_le_bytes()))
        }
        "$regularExpression" => {
            let regex: Regex<'de> = map.next_value()?;
            state.ended(&regex.pattern.0)?;
            state.ended(&regex.options.0)?;
            Ok(REGEX)
        }
        "$dbPointer" => {
            let pointer: DbPointer<'de> = map.next_value()?;
            let id = object_id(&pointer.id.oid.0).ok_or_else(|| state.wrong::<A::Error>("is not 24 hex digits"))?;
            state.string(&pointer.namespace.0);
            Ok(write(state, DB_POINTER, &id))
        }
        "$undefined" => match map.next_value::<bool>()? {
            true => Ok(UNDEFINED),
            false => Err(state.wrong("can only be true")),
        },
        "$minKey" | "$maxKey" => match map.next_value::<i64>()? {
            1 => Ok(if name == "$minKey" { MIN_KEY } else { MAX_KEY }),
            _ => Err(state.wrong("can only be 1")),
        },
        _ => Err(state.wrong("is not a value")),
    }
}

/// Code, with its scope if it has one.
fn code<'de, A: MapAccess<'de>>(state: &mut ReadState, map: &mut A) -> Result<u8, A::Error> {
    let text: Text<'de> = map.next_value()?;
    let start = state.out.len();
    match map.next_key::<Text<'de>>()?.as_ref().map(|key| key.0.as_ref()) {
        None => {
            state.string(&text.0);
            return Ok(CODE);
        }
        Some("$scope") => {}
        Some(_) => return Err(state.wrong("has more members than a value has")),
    }
    state.out.extend_from_slice(&[0; 4]);
    state.string(&text.0);
    if map.next_value_seed(Value(state))? != DOCUMENT {
        return Err(state.wrong("has a scope that is not a document"));
    }
    set_length(&mut state.out, start);
    nothing_else(state, map).map(|()| CODE_WITH_SCOPE)
}

/// A value that is written as its type and bytes.
pub(super) fn bson<'de, A: MapAccess<'de>>(state: &mut ReadState, map: &mut A) -> Result<(u8, Vec<u8>), A::Error> {
    let bson: Bson<'de> = map.next_value()?;
    let bytes = base64::<A>(state, &bson.base64.0)?;
    match hex(&bson.kind.0) {
        Some(kind) if length_of(kind, &bytes) == Some(bytes.len()) => Ok((kind, bytes)),
        _ => Err(state.wrong("has bytes that are no value of this type")),
    }
}

fn nothing_else<'de, A: MapAccess<'de>>(state: &mut ReadState, map: &mut A) -> Result<(), A::Error> {
    match map.next_key::<Text<'de>>()? {
        None => Ok(()),
        Some(_) => Err(state.wrong("has more members than a value has")),
    }
}

fn write(state: &mut ReadState, kind: u8, bytes: &[u8]) -> u8 {
    state.out.extend_from_slice(bytes);
    kind
}

fn number<'de, N: FromStr, A: MapAccess<'de>>(
    state: &mut ReadState,
    map: &mut A,
    problem: &str,
) -> Result<N, A::Error> {
    let text: Text<'de> = map.next_value()?;
    text.0.parse().map_err(|_| state.wrong(problem))
}

fn base64<'de, A: MapAccess<'de>>(state: &mut ReadState, text: &str) -> Result<Vec<u8>, A::Error> {
    STANDARD.decode(text).map_err(|_| state.wrong("is not base64"))
}

fn hex(text: &str) -> Option<u8> {
    let is_hex = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { u8::from_str_radix(text, 16).ok() } else { None }
}

fn is_numeric(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
}

fn double(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::from_bits(NAN)),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if is_numeric(text) => text.parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

fn decimal(text: &str) -> Option<bson::Decimal128> {
    let is_number = is_numeric(text) && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_number || matches!(text, "NaN" | "Infinity" | "-Infinity") { text.parse().ok() } else { None }
}

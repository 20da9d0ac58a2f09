//! The text that identifies a document. MongoDB takes 5, 5.0 and a decimal 5 for the same `_id`, so they share one
//! text. An `_id` that cannot be written as JSON is identified by its bytes: MongoDB refuses those that begin with a
//! `$`.

use super::{
    NoBson,
    decimal::DecimalValue,
    elements::{
        ARRAY, BOOLEAN, DECIMAL, DOUBLE, INT32, INT64, NULL, OBJECT_ID, STRING, SYMBOL, push_hex, push_integer, string,
    },
    read,
    write::{BsonTextWriter, Numbers, push_bson, push_double, push_string},
};

/// The text that identifies a value.
pub(super) fn text_of(kind: u8, value: &[u8]) -> String {
    let mut out = String::with_capacity(32);
    push_text(&mut out, kind, value);
    out
}

/// Appends that text.
pub(super) fn push_text(out: &mut String, kind: u8, value: &[u8]) {
    match kind {
        // Symbols compare as strings.
        STRING | SYMBOL if let Some(text) = string(value) => match is_plain(text) {
            true => out.push_str(text),
            false => push_string(out, text),
        },
        OBJECT_ID => push_hex(out, value),
        // These types cannot be an `_id`. If one were, a string could have the same text.
        ARRAY => push_bson(out, kind, value),
        _ => BsonTextWriter::new(out, Numbers::Compared).element(kind, value, 1),
    }
}

/// The type and the bytes of a value that has this text.
pub(super) fn value_of(text: &str) -> Result<(u8, Vec<u8>), NoBson> {
    // Must come before numbers: some of these look like one, but no number has as many digits.
    if let Some(id) = object_id(text) {
        return Ok((OBJECT_ID, id));
    }
    Ok(match text {
        "true" => (BOOLEAN, vec![1]),
        "false" => (BOOLEAN, vec![0]),
        "null" => (NULL, vec![]),
        _ if text.starts_with(['{', '"']) || is_number(text) => return read::value(text),
        _ => (STRING, read::string(text)),
    })
}

/// Whether a string can be its own text: no value of another type has that text.
fn is_plain(text: &str) -> bool {
    let is_other = match text.as_bytes().first() {
        None | Some(b'{' | b'"') => true,
        Some(b'-' | b'0'..=b'9') if is_number(text) => true,
        Some(b't' | b'f' | b'n') => matches!(text, "true" | "false" | "null"),
        _ => false,
    };
    !is_other && object_id(text).is_none()
}

/// Whether a text is a JSON number.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let rest = text.strip_prefix('-').unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || whole > 1 && rest.starts_with('0') {
        return false;
    }
    let mut rest = rest.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        return !exponent.is_empty() && digits(exponent) == exponent.len();
    }
    rest.is_empty()
}

/// The bytes of an ObjectId from its 24 hex digits.
pub(super) fn object_id(text: &str) -> Option<Vec<u8>> {
    if text.len() != 24 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..24).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// A number as MongoDB compares it: an integer with all its digits, otherwise the floating point number that equals it,
/// otherwise a decimal without redundant zeros.
pub(super) fn push_number(out: &mut String, kind: u8, value: &[u8]) -> Option<()> {
    match kind {
        INT32 => push_integer(out, i32::from_le_bytes(*value.first_chunk()?).into()),
        INT64 => push_integer(out, i64::from_le_bytes(*value.first_chunk()?)),
        DOUBLE => push_compared(out, f64::from_le_bytes(*value.first_chunk()?)),
        DECIMAL => match DecimalValue::of(value)?.0.shortest() {
            DecimalValue::NaN => push_compared(out, f64::NAN),
            DecimalValue::Infinity { negative } => {
                push_compared(out, if negative { f64::NEG_INFINITY } else { f64::INFINITY })
            }
            decimal => match (decimal.as_i64(), decimal.as_f64()) {
                (Some(integer), _) => push_integer(out, integer),
                (None, Some(number)) => push_compared(out, number),
                (None, None) => {
                    out.push_str("{\"$numberDecimal\":\"");
                    decimal.push(out);
                    out.push_str("\"}");
                }
            },
        },
        _ => return None,
    }
    Some(())
}

fn push_compared(out: &mut String, number: f64) {
    /// 2 to the power of 63, the first value that is too large for an integer.
    const END: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() == 0.0 && (-END..END).contains(&number) {
        // In this range the conversion is exact, and 0 has no sign.
        push_integer(out, number as i64);
    } else if number.is_finite() {
        push_double(out, number);
    } else {
        out.push_str("{\"$numberDouble\":\"");
        push_double(out, number);
        out.push_str("\"}");
    }
}

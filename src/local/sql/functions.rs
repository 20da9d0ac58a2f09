//! The built-in scalar functions. An argument of the wrong type makes the result undefined.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::SqlError;
use super::eval::{Evaluated, compare_numbers, equal, number};

/// Calls a function by its upper-case name.
pub(super) fn call(name: &str, arguments: &[Evaluated<'_>]) -> Result<Option<Value>, SqlError> {
    let at = |index: usize| arguments.get(index).and_then(|value| value.as_deref());
    let text = |index: usize| at(index).and_then(Value::as_str);
    let float = |index: usize| at(index).and_then(Value::as_f64);
    let is_true = |index: usize| at(index).and_then(Value::as_bool) == Some(true);
    Ok(match name {
        "IS_DEFINED" => Some(at(0).is_some().into()),
        "IS_NULL" => Some(at(0).is_some_and(Value::is_null).into()),
        "IS_BOOL" => Some(at(0).is_some_and(Value::is_boolean).into()),
        "IS_NUMBER" | "IS_FINITE_NUMBER" => Some(at(0).is_some_and(Value::is_number).into()),
        "IS_INTEGER" => Some(float(0).is_some_and(|value| value.fract() == 0.0).into()),
        "IS_STRING" => Some(at(0).is_some_and(Value::is_string).into()),
        "IS_ARRAY" => Some(at(0).is_some_and(Value::is_array).into()),
        "IS_OBJECT" => Some(at(0).is_some_and(Value::is_object).into()),
        "IS_PRIMITIVE" => Some(at(0).is_some_and(|value| !value.is_array() && !value.is_object()).into()),

        "CONTAINS" => two_texts(text(0), text(1), is_true(2), |text, part| text.contains(part)),
        "STARTSWITH" => two_texts(text(0), text(1), is_true(2), |text, part| text.starts_with(part)),
        "ENDSWITH" => two_texts(text(0), text(1), is_true(2), |text, part| text.ends_with(part)),
        "STRINGEQUALS" => two_texts(text(0), text(1), is_true(2), |text, other| text == other),
        "UPPER" => text(0).map(|text| text.to_uppercase().into()),
        "LOWER" => text(0).map(|text| text.to_lowercase().into()),
        "LTRIM" => text(0).map(|text| text.trim_start().into()),
        "RTRIM" => text(0).map(|text| text.trim_end().into()),
        "TRIM" => text(0).map(|text| text.trim().into()),
        "REVERSE" => text(0).map(|text| text.chars().rev().collect::<String>().into()),
        "LENGTH" => text(0).map(|text| text.chars().count().into()),
        "CONCAT" => {
            let parts: Option<Vec<&str>> = (0..arguments.len()).map(text).collect();
            parts.map(|parts| parts.concat().into())
        }
        "LEFT" => text(0).zip(count(float(1))).map(|(text, count)| text.chars().take(count).collect::<String>().into()),
        "RIGHT" => text(0).zip(count(float(1))).map(|(text, count)| {
            let skipped = text.chars().count().saturating_sub(count);
            text.chars().skip(skipped).collect::<String>().into()
        }),
        "SUBSTRING" => text(0)
            .zip(count(float(1)).zip(count(float(2))))
            .map(|(text, (from, count))| text.chars().skip(from).take(count).collect::<String>().into()),
        "REPLACE" => text(0)
            .zip(text(1).zip(text(2)))
            .map(|(text, (from, to))| if from.is_empty() { text.into() } else { text.replace(from, to).into() }),
        "REPLICATE" => {
            // Limits the count, because the service limits the size of a result.
            text(0).zip(count(float(1)).filter(|count| *count <= 10_000)).map(|(text, count)| text.repeat(count).into())
        }
        "INDEX_OF" => text(0).zip(text(1)).map(|(text, part)| {
            let from = text.char_indices().nth(count(float(2)).unwrap_or(0)).map_or(text.len(), |(at, _)| at);
            match text[from..].find(part) {
                Some(found) => text[..from + found].chars().count().into(),
                None => (-1).into(),
            }
        }),
        "TOSTRING" => at(0).map(|value| match value {
            Value::String(text) => text.as_str().into(),
            other => as_written(other).to_string().into(),
        }),
        "STRINGTONUMBER" => text(0).and_then(parsed).filter(Value::is_number),
        "STRINGTOBOOLEAN" => text(0).and_then(parsed).filter(Value::is_boolean),
        "STRINGTONULL" => text(0).and_then(parsed).filter(Value::is_null),
        "STRINGTOARRAY" => text(0).and_then(parsed).filter(Value::is_array),
        "STRINGTOOBJECT" => text(0).and_then(parsed).filter(Value::is_object),

        "ABS" => math(float(0), f64::abs),
        "CEILING" => math(float(0), f64::ceil),
        "FLOOR" => math(float(0), f64::floor),
        "TRUNC" => math(float(0), f64::trunc),
        "ROUND" => math(float(0), f64::round),
        "SQRT" => math(float(0), f64::sqrt),
        "SQUARE" => math(float(0), |value| value * value),
        "EXP" => math(float(0), f64::exp),
        "LOG" if arguments.len() == 2 => {
            float(0).zip(float(1)).and_then(|(value, base)| number(value.ln() / base.ln()))
        }
        "LOG" => math(float(0), f64::ln),
        "LOG10" => math(float(0), f64::log10),
        "SIN" => math(float(0), f64::sin),
        "COS" => math(float(0), f64::cos),
        "TAN" => math(float(0), f64::tan),
        "COT" => math(float(0), |value| value.tan().recip()),
        "ASIN" => math(float(0), f64::asin),
        "ACOS" => math(float(0), f64::acos),
        "ATAN" => math(float(0), f64::atan),
        "ATN2" => float(0).zip(float(1)).and_then(|(y, x)| number(y.atan2(x))),
        "DEGREES" => math(float(0), f64::to_degrees),
        "RADIANS" => math(float(0), f64::to_radians),
        "PI" => number(std::f64::consts::PI),
        "POWER" => float(0).zip(float(1)).and_then(|(value, exponent)| number(value.powf(exponent))),
        "SIGN" => math(float(0), |value| if value == 0.0 { 0.0 } else { value.signum() }),

        "ARRAY_LENGTH" => at(0).and_then(Value::as_array).map(|array| array.len().into()),
        "ARRAY_CONTAINS" => at(0).and_then(Value::as_array).zip(at(1)).map(|(array, wanted)| {
            let partial = is_true(2);
            array.iter().any(|item| if partial { has_all(item, wanted) } else { equal(item, wanted) }).into()
        }),
        "ARRAY_CONTAINS_ANY" | "ARRAY_CONTAINS_ALL" => at(0).and_then(Value::as_array).map(|array| {
            let has = |wanted: &Evaluated<'_>| {
                wanted.as_deref().is_some_and(|wanted| array.iter().any(|item| equal(item, wanted)))
            };
            let wanted = &arguments[1..];
            (if name == "ARRAY_CONTAINS_ANY" { wanted.iter().any(has) } else { wanted.iter().all(has) }).into()
        }),
        "ARRAY_CONCAT" => {
            let parts: Option<Vec<&Vec<Value>>> =
                (0..arguments.len()).map(|index| at(index).and_then(Value::as_array)).collect();
            parts.map(|parts| parts.into_iter().flatten().cloned().collect::<Vec<_>>().into())
        }
        "ARRAY_SLICE" => at(0).and_then(Value::as_array).zip(float(1)).map(|(array, start)| {
            let from = if start < 0.0 { array.len().saturating_sub((-start) as usize) } else { start as usize };
            let count = if arguments.len() > 2 { count(float(2)).unwrap_or(0) } else { usize::MAX };
            array.iter().skip(from).take(count).cloned().collect::<Vec<_>>().into()
        }),
        "SETINTERSECT" => at(0).and_then(Value::as_array).zip(at(1).and_then(Value::as_array)).map(|(left, right)| {
            distinct(left.iter().filter(|item| right.iter().any(|other| equal(item, other)))).into()
        }),
        "SETUNION" => at(0)
            .and_then(Value::as_array)
            .zip(at(1).and_then(Value::as_array))
            .map(|(left, right)| distinct(left.iter().chain(right)).into()),
        "OBJECTTOARRAY" => at(0).and_then(Value::as_object).map(|object| {
            let pairs = object.iter().map(|(name, value)| {
                let mut pair = Map::new();
                pair.insert("k".into(), name.as_str().into());
                pair.insert("v".into(), value.clone());
                Value::Object(pair)
            });
            pairs.collect::<Vec<_>>().into()
        }),
        "IIF" => at(if is_true(0) { 1 } else { 2 }).cloned(),
        // `check` has already refused every other name.
        _ => None,
    })
}

/// Refuses an unknown function or a wrong number of arguments when the query is parsed, even if the query matches no
/// document.
pub(super) fn check(name: &str, arguments: usize) -> Result<(), SqlError> {
    if takes(name, arguments)? {
        return Ok(());
    }
    Err(SqlError::Invalid(format!("{name} does not take {arguments} arguments")))
}

fn takes(name: &str, arguments: usize) -> Result<bool, SqlError> {
    let (least, most) = match name {
        "PI" => (0, 0),
        "IS_DEFINED" | "IS_NULL" | "IS_BOOL" | "IS_NUMBER" | "IS_FINITE_NUMBER" | "IS_INTEGER" | "IS_STRING"
        | "IS_ARRAY" | "IS_OBJECT" | "IS_PRIMITIVE" | "UPPER" | "LOWER" | "LTRIM" | "RTRIM" | "TRIM" | "REVERSE"
        | "LENGTH" | "TOSTRING" | "STRINGTONUMBER" | "STRINGTOBOOLEAN" | "STRINGTONULL" | "STRINGTOARRAY"
        | "STRINGTOOBJECT" | "ABS" | "CEILING" | "FLOOR" | "TRUNC" | "ROUND" | "SQRT" | "SQUARE" | "EXP" | "LOG10"
        | "SIN" | "COS" | "TAN" | "COT" | "ASIN" | "ACOS" | "ATAN" | "DEGREES" | "RADIANS" | "SIGN"
        | "ARRAY_LENGTH" | "OBJECTTOARRAY" => (1, 1),
        "COUNT" | "COUNTIF" | "SUM" | "AVG" | "MIN" | "MAX" => (1, 1),
        "LOG" => (1, 2),
        "LEFT" | "RIGHT" | "REPLICATE" | "ATN2" | "POWER" | "SETINTERSECT" | "SETUNION" => (2, 2),
        "CONTAINS" | "STARTSWITH" | "ENDSWITH" | "STRINGEQUALS" | "INDEX_OF" | "ARRAY_CONTAINS" | "ARRAY_SLICE" => {
            (2, 3)
        }
        "SUBSTRING" | "REPLACE" | "IIF" => (3, 3),
        "CONCAT" | "ARRAY_CONCAT" | "ARRAY_CONTAINS_ANY" | "ARRAY_CONTAINS_ALL" => (2, usize::MAX),
        _ => return Err(SqlError::Unsupported(format!("the function {name}"))),
    };
    Ok((least..=most).contains(&arguments))
}

fn two_texts(
    left: Option<&str>,
    right: Option<&str>,
    ignore_case: bool,
    test: fn(&str, &str) -> bool,
) -> Option<Value> {
    let (left, right) = (left?, right?);
    let found = if ignore_case { test(&left.to_lowercase(), &right.to_lowercase()) } else { test(left, right) };
    Some(found.into())
}

/// A number of characters or elements; negative numbers count as 0.
fn count(value: Option<f64>) -> Option<usize> {
    value.map(|value| value.max(0.0) as usize)
}

fn math(value: Option<f64>, function: fn(f64) -> f64) -> Option<Value> {
    number(function(value?))
}

/// Normalizes numbers to the service's format: 1.0 becomes 1.
fn as_written(value: &Value) -> Value {
    match value {
        Value::Number(whole) if whole.is_f64() => whole.as_f64().and_then(number).unwrap_or_else(|| value.clone()),
        Value::Array(items) => items.iter().map(as_written).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), as_written(value))).collect())
        }
        other => other.clone(),
    }
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text.trim()).ok()
}

/// Whether `item` contains everything in `wanted`.
fn has_all(item: &Value, wanted: &Value) -> bool {
    match (item, wanted) {
        (Value::Object(item), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| item.get(name).is_some_and(|own| has_all(own, value)))
        }
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right) == Ordering::Equal,
        _ => equal(item, wanted),
    }
}

fn distinct<'a>(items: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for item in items {
        if !found.iter().any(|known| equal(known, item)) {
            found.push(item.clone());
        }
    }
    found
}

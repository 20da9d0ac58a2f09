//! Plain values in place of Extended JSON, for comparisons: numbers as numbers, times as text.

use serde_json::{Map, Number, Value};

use super::extended::{is_wrapper, unescaped};

/// A MongoDB document with plain values and its members under their own names: numbers of all types become numbers,
/// dates RFC 3339 in UTC, object ids their digits, bytes base64. `None` when the text is not a document.
pub fn plain(text: &str) -> Option<Value> {
    let Ok(Value::Object(members)) = serde_json::from_str(text) else { return None };
    // Ours, unless the document has a member of that name.
    let own = members.into_iter().filter(|(name, _)| name != "id");
    Some(Value::Object(own.map(|(name, value)| (unescaped(&name).to_owned(), value_of(value))).collect()))
}

fn value_of(value: Value) -> Value {
    match value {
        Value::Array(elements) => elements.into_iter().map(value_of).collect(),
        Value::Object(members) => match wrapped(&members) {
            Some(plain) => plain,
            None => Value::Object(members.into_iter().map(|(name, value)| (name, value_of(value))).collect()),
        },
        other => other,
    }
}

fn wrapped(members: &Map<String, Value>) -> Option<Value> {
    let (name, value) = members.iter().next().filter(|(name, _)| is_wrapper(name))?;
    let text = value.as_str();
    Some(match name.as_str() {
        "$numberInt" | "$numberLong" | "$numberDouble" | "$numberDecimal" => number(text?),
        "$oid" | "$symbol" | "$code" => value.clone(),
        "$date" => {
            let millis = value.get("$numberLong").and_then(Value::as_str)?.parse().ok()?;
            let date = chrono::DateTime::from_timestamp_millis(millis)?;
            date.to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into()
        }
        "$timestamp" => value.get("t")?.clone(),
        "$binary" => value.get("base64")?.clone(),
        "$undefined" => Value::Null,
        _ => Value::Object(members.clone()),
    })
}

/// A number; one that JSON cannot represent keeps its text.
fn number(text: &str) -> Value {
    let whole = text.parse::<i64>().ok().map(Number::from);
    let any = || text.parse::<f64>().ok().and_then(Number::from_f64);
    whole.or_else(any).map_or_else(|| text.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_what_they_mean() {
        let text = r#"{"id":"5","_id":{"$numberInt":"5"},"~id":"own","n":[{"$numberLong":"-7"},{"$numberDouble":"1.5"},{"$numberDecimal":"1E2"},{"$numberDouble":"NaN"}],"at":{"$date":{"$numberLong":"0"}},"o":{"$oid":"00112233445566778899aabb"},"in":{"$ref":"x","v":{"$numberInt":"1"}}}"#;
        assert_eq!(
            plain(text).unwrap(),
            json!({"_id": 5, "id": "own", "n": [-7, 1.5, 100.0, "NaN"], "at": "1970-01-01T00:00:00.000Z",
                "o": "00112233445566778899aabb", "in": {"$ref": "x", "v": 1}})
        );
        assert_eq!(plain("[]"), None);
    }
}

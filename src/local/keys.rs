//! A document's position in the key space: its effective partition key, and ranges of such keys.

use std::borrow::Cow;

use serde_json::Value;

/// An effective partition key: upper-case hex, without the trailing zero bytes that the service may or may not send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Epk(String);

impl Epk {
    /// Parses hex from headers and partition key ranges; `None` when it is malformed.
    pub fn parse(hex: &str) -> Option<Self> {
        if !hex.len().is_multiple_of(2) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut canonical = hex.to_ascii_uppercase();
        while canonical.ends_with("00") {
            canonical.truncate(canonical.len() - 2);
        }
        Some(Self(canonical))
    }

    pub fn min() -> Self {
        Self(String::new())
    }

    pub fn max() -> Self {
        Self("FF".to_owned())
    }

    pub fn as_hex(&self) -> &str {
        &self.0
    }

    /// The service's spelling of a range's bound: 16 bytes, except for the first and the last.
    pub fn padded(&self) -> String {
        if self.0.is_empty() || self.0 == "FF" { self.0.clone() } else { format!("{:0<32}", self.0) }
    }
}

/// From `min` (included) to `max` (excluded); equal bounds mean exactly that key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EpkRange {
    pub min: Epk,
    pub max: Epk,
}

impl EpkRange {
    pub fn full() -> Self {
        Self { min: Epk::min(), max: Epk::max() }
    }

    /// Whether a key may lie in both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(&other.min) || other.contains(&self.min)
    }

    pub fn contains(&self, key: &Epk) -> bool {
        if self.min == self.max { *key == self.min } else { *key >= self.min && *key < self.max }
    }
}

/// The document's address within its container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DocumentKey {
    pub epk: Epk,
    pub id: String,
}

/// Splits `/a/b` or `/"a/b"/c` into property names.
fn segments(path: &str) -> Vec<Cow<'_, str>> {
    let mut found = Vec::new();
    let mut rest = path;
    while let Some(after) = rest.strip_prefix('/') {
        let quote = after.chars().next().filter(|first| matches!(first, '"' | '\''));
        let quoted = quote.and_then(|quote| after[1..].split_once(quote));
        if let Some((name, tail)) = quoted {
            found.push(Cow::Borrowed(name));
            rest = tail;
        } else {
            let end = after.find('/').unwrap_or(after.len());
            if !after[..end].is_empty() {
                found.push(Cow::Borrowed(&after[..end]));
            }
            rest = &after[end..];
        }
    }
    found
}

/// Returns the value at a partition key path; `None` when the document has none (an undefined component).
pub(super) fn value_at<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    segments(path).iter().try_fold(document, |value, name| value.get(name.as_ref()))
}

/// Returns a document's partition key in the format of the request header: `["a",1,null,{}]`. Objects and arrays cannot
/// be keys; the service treats them as undefined.
pub(super) fn partition_key_of(document: &Value, paths: &[String]) -> Vec<Value> {
    let undefined = || Value::Object(serde_json::Map::new());
    let scalar = |value: &&Value| !value.is_object() && !value.is_array();
    paths.iter().map(|path| value_at(document, path).filter(scalar).cloned().unwrap_or_else(undefined)).collect()
}

/// Whether all components of a document's partition key are scalars or missing. The emulator refuses any others.
pub(super) fn has_only_scalars(document: &Value, paths: &[String]) -> bool {
    paths.iter().filter_map(|path| value_at(document, path)).all(|value| !value.is_object() && !value.is_array())
}

/// Whether a value of a partition key has more bytes than the service accepts.
pub(super) fn is_too_long(key: &[Value]) -> bool {
    const MOST: usize = 2048;
    key.iter().any(|value| value.as_str().is_some_and(|text| text.len() > MOST))
}

/// Whether two partition keys are equal; numbers are compared as doubles, which is how the service stores them.
pub(super) fn same_partition_key(left: &[Value], right: &[Value]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|pair| match pair {
            (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
            (a, b) => a == b,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_with_and_without_zero_padding_are_equal() {
        assert_eq!(Epk::parse("80"), Epk::parse("8000"));
        assert!(Epk::parse("80") < Epk::parse("8001"));
        assert!(Epk::parse("8001") < Epk::parse("ff"));
        assert_eq!(Epk::parse("8"), None);
        assert_eq!(Epk::parse("xy"), None);
    }

    #[test]
    fn a_range_with_equal_bounds_is_one_key() {
        let key = Epk::parse("1234").unwrap();
        let range = EpkRange { min: key.clone(), max: key.clone() };
        assert!(range.contains(&key));
        assert!(!range.contains(&Epk::parse("1235").unwrap()));
        assert!(EpkRange::full().contains(&key));
    }

    #[test]
    fn partition_key_paths_may_be_nested_and_quoted() {
        let document = json!({"a": {"b": 1}, "x/y": "z", "n": null});
        let paths = ["/a/b", "/\"x/y\"", "/n", "/missing"].map(String::from);
        assert_eq!(json!(partition_key_of(&document, &paths)), json!([1, "z", null, {}]));
    }
}

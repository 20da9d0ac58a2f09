//! Identifies items: partition key paths, partition key values, and the pair of id and partition key.

use std::{
    fmt,
    hash::{Hash, Hasher},
};

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{
    raw::{RawDocument, unescape},
    record::hex,
};

/// One component of a partition key. All JSON scalars are valid, and so is a missing property.
#[derive(Debug, Clone)]
pub enum KeyValue {
    /// The document has no such property (or an array or object there, which the service treats the same).
    Undefined,
    /// JSON null, a value of its own.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number; the service hashes all numbers as doubles.
    Number(f64),
    /// A string.
    String(String),
}

impl KeyValue {
    /// The key component that a JSON value stands for.
    pub fn from_raw(raw: &RawValue) -> Self {
        match raw.get() {
            "null" => Self::Null,
            "true" => Self::Bool(true),
            "false" => Self::Bool(false),
            // As everywhere else: half a surrogate pair must not make two keys out of one.
            text if text.starts_with('"') => Self::String(unescape(text).into_owned()),
            text => match serde_json::from_str::<serde_json::Number>(text) {
                Ok(number) => number.as_f64().map_or(Self::Undefined, Self::Number),
                Err(_) => Self::Undefined,
            },
        }
    }

    /// The component that a person types. A document with an array, an object or too large a number there has no key;
    /// but nobody who types one of these means such documents.
    fn parse_component(raw: &RawValue) -> Result<Self, String> {
        let text = raw.get();
        // An empty array would be read as an object without members.
        let is_missing = || text.starts_with('{') && serde_json::from_str::<Empty>(text).is_ok();
        match Self::from_raw(raw) {
            Self::Undefined if !is_missing() => Err(format!(
                "{text} is not a component: write text, a number, true, false, null, or {{}} where there is none"
            )),
            value => Ok(value),
        }
    }

    /// The JSON form used in headers, records and reports; undefined is `{}`, as on the wire.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Undefined => serde_json::Value::Object(serde_json::Map::new()),
            Self::Null => serde_json::Value::Null,
            Self::Bool(b) => (*b).into(),
            // Whole numbers without ".0", as the service shows them.
            Self::Number(n) if n.fract() == 0.0 && n.abs() < 9e15 => (*n as i64).into(),
            Self::Number(n) => (*n).into(),
            Self::String(s) => s.as_str().into(),
        }
    }

    fn bits(&self) -> u64 {
        match self {
            // -0.0 and 0.0 are the same key value.
            Self::Number(n) if *n == 0.0 => 0,
            Self::Number(n) => n.to_bits(),
            Self::Bool(b) => u64::from(*b),
            _ => 0,
        }
    }
}

/// `{}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

impl PartialEq for KeyValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::String(a), Self::String(b)) => a == b,
            (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b) && a.bits() == b.bits(),
        }
    }
}

impl Eq for KeyValue {}

impl Hash for KeyValue {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::String(s) => s.hash(state),
            other => other.bits().hash(state),
        }
    }
}

/// A full partition key: one value per path of the container's definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PartitionKey(pub Vec<KeyValue>);

impl PartitionKey {
    /// Parses what a person types: a JSON array of components (`["t1",42,null,{}]`, where `{}` is undefined), a JSON
    /// string, or anything else as a plain string (so `--pk 28036` is the string "28036").
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |e: serde_json::Error| format!("partition key {text:?} is not valid JSON: {e}");
        match text.trim_start().as_bytes().first() {
            Some(b'[') => {
                let parts: Vec<Box<RawValue>> = serde_json::from_str(text).map_err(wrong)?;
                if parts.is_empty() || parts.len() > 3 {
                    return Err(format!(
                        "partition key {text:?} has {} components; the service allows 1 to 3",
                        parts.len()
                    ));
                }
                let parts: Result<_, String> = parts.iter().map(|part| KeyValue::parse_component(part)).collect();
                parts.map(Self).map_err(|problem| format!("partition key {text:?}: {problem}"))
            }
            Some(b'"') => Ok(Self(vec![KeyValue::String(serde_json::from_str(text).map_err(wrong)?)])),
            _ => Ok(Self(vec![KeyValue::String(text.to_owned())])),
        }
    }

    /// Reads the array of the components, as [`Self::to_json`] writes it, or the string of a key that is one.
    ///
    /// # Errors
    /// When it is neither, or not of one to three components.
    pub fn parse_json(key: &serde_json::Value) -> Result<Self, String> {
        let is_key = key.is_array() || key.is_string();
        if is_key { Self::parse(&key.to_string()) } else { Err(format!("partition key {key} is no array")) }
    }

    /// The JSON array of the components.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::Value::Array(self.0.iter().map(KeyValue::to_json).collect())
    }
}

/// Displays as a person would type it: a single string plainly, anything else as the JSON array.
impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [KeyValue::String(s)] if !s.trim_start().starts_with(['[', '"']) => f.write_str(s),
            _ => write!(f, "{}", self.to_json()),
        }
    }
}

/// One item of the source container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ItemKey {
    /// The document's id.
    pub id: String,
    /// Its full partition key.
    pub partition_key: PartitionKey,
}

impl ItemKey {
    /// The item with this id and the array of its key's components.
    ///
    /// # Errors
    /// When the key is malformed.
    pub fn parse_json(id: &str, key: &serde_json::Value) -> Result<Self, String> {
        Ok(Self { id: id.to_owned(), partition_key: PartitionKey::parse_json(key)? })
    }

    /// By id, then by the key's JSON: the order of items in plans, journals and files.
    pub fn sort_key(&self) -> (String, String) {
        (self.id.clone(), self.partition_key.to_json().to_string())
    }

    /// Stands for it where it must not be named: the SHA-256 of `["<id>",[<key components>]]`.
    pub fn digest(&self) -> String {
        hex(&Sha256::digest(serde_json::json!([self.id, self.partition_key.to_json()]).to_string().as_bytes()))
    }

    /// Whether a text that is cut off, and therefore cannot be parsed, contains the id as a JSON string.
    pub fn is_named_in(&self, text: &[u8]) -> bool {
        let name = serde_json::Value::from(self.id.as_str()).to_string();
        memchr::memmem::find(text, name.as_bytes()).is_some()
    }
}

/// The partition key paths of a container, such as `/pk` or `/tenant/id`, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyPaths(Vec<Vec<String>>);

impl KeyPaths {
    /// The paths of documents that are identified by their id alone.
    pub fn id() -> Self {
        Self(vec![vec!["id".to_owned()]])
    }

    /// Parses paths as a container definition writes them; a segment may be quoted: `/"a/b"/c`.
    pub fn parse<S: AsRef<str>>(paths: &[S]) -> Result<Self, String> {
        paths.iter().map(|p| parse_path(p.as_ref())).collect::<Result<Vec<_>, _>>().map(Self)
    }

    /// The segments of each path.
    pub fn segments(&self) -> &[Vec<String>] {
        &self.0
    }

    /// How many components a key has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no path at all, which no real container has.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The requested paths, in order.
    pub fn retain(&self, wanted: impl Fn(&[String]) -> bool) -> Self {
        Self(self.0.iter().filter(|path| wanted(path)).cloned().collect())
    }

    /// The key of an item, in which a component that is the id is the item's own: a document cannot have another one.
    pub fn key_with_id(&self, item: &ItemKey) -> PartitionKey {
        let is_id = |path: &Vec<String>| matches!(path.as_slice(), [name] if name == "id");
        let own = |(path, given): (&Vec<String>, &KeyValue)| {
            if is_id(path) { KeyValue::String(item.id.clone()) } else { given.clone() }
        };
        PartitionKey(self.0.iter().zip(&item.partition_key.0).map(own).collect())
    }

    /// The key of a document under these paths.
    pub fn extract(&self, document: &RawDocument<'_>) -> PartitionKey {
        PartitionKey(self.0.iter().map(|path| Self::extract_one(path, document)).collect())
    }

    /// The value at one path.
    pub fn extract_one(path: &[String], document: &RawDocument<'_>) -> KeyValue {
        let Some((first, rest)) = path.split_first() else { return KeyValue::Undefined };
        let Some(value) = document.get(first) else { return KeyValue::Undefined };
        if rest.is_empty() {
            return KeyValue::from_raw(value);
        }
        match RawDocument::parse(value.get()) {
            Ok(inner) => Self::extract_one(rest, &inner),
            Err(_) => KeyValue::Undefined,
        }
    }
}

impl fmt::Display for KeyPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(&render_path(path))?;
        }
        Ok(())
    }
}

/// Parses one path into its segments.
pub fn parse_path(path: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| format!("path {path:?} {why}; write it like /pk or /address/zip");
    let mut rest = path.strip_prefix('/').ok_or_else(|| wrong("does not start with /"))?;
    let mut segments = Vec::new();
    loop {
        let (segment, after) = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').ok_or_else(|| wrong("has an open quote"))?;
            (&quoted[..end], &quoted[end + 1..])
        } else {
            let end = rest.find('/').unwrap_or(rest.len());
            (&rest[..end], &rest[end..])
        };
        if segment.is_empty() {
            return Err(wrong("has an empty segment"));
        }
        segments.push(segment.to_owned());
        match after.strip_prefix('/') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(segments),
            None => return Err(wrong("has text after a closing quote")),
        }
    }
}

/// Writes segments as a path, quoted where needed.
pub fn render_path(segments: &[String]) -> String {
    segments.iter().fold(String::new(), |mut path, segment| {
        path.push('/');
        if segment.contains('/') {
            path.extend(['"'].into_iter().chain(segment.chars()).chain(['"']))
        } else {
            path.push_str(segment)
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed_with_quotes_and_refused_with_the_fix() {
        assert_eq!(parse_path("/a/b").unwrap(), ["a", "b"]);
        assert_eq!(parse_path("/\"a/b\"/c").unwrap(), ["a/b", "c"]);
        assert_eq!(render_path(&parse_path("/\"a/b\"/c").unwrap()), "/\"a/b\"/c");
        for bad in ["", "pk", "/", "/a//b", "/\"a", "/\"a\"b"] {
            assert!(parse_path(bad).unwrap_err().contains("/pk"), "{bad}");
        }
    }

    #[test]
    fn every_scalar_is_a_key_and_everything_else_is_undefined() {
        let doc = RawDocument::parse(r#"{"s":"x","n":1.5,"b":true,"z":null,"o":{"i":7},"a":[1]}"#).unwrap();
        let paths = KeyPaths::parse(&["/s", "/n", "/b", "/z", "/o/i", "/a", "/missing", "/o/none", "/s/deep"]).unwrap();
        let expected = serde_json::json!(["x", 1.5, true, null, 7, {}, {}, {}, {}]);
        assert_eq!(paths.extract(&doc).to_json(), expected);
        // Half a surrogate pair is a key as it is an id: another spelling of it would be another key.
        let half = RawDocument::parse(r#"{"s":"\ud800x"}"#).unwrap();
        assert_eq!(KeyPaths::parse(&["/s"]).unwrap().extract(&half).0, [KeyValue::String("\u{FFFD}x".into())]);
    }

    #[test]
    fn a_typed_key_is_a_string_unless_it_is_json() {
        assert_eq!(PartitionKey::parse("28036").unwrap().0, [KeyValue::String("28036".into())]);
        assert_eq!(PartitionKey::parse("\"[x\"").unwrap().0, [KeyValue::String("[x".into())]);
        let key = PartitionKey::parse(r#"["t1",42,{}]"#).unwrap();
        assert_eq!(key.0, [KeyValue::String("t1".into()), KeyValue::Number(42.0), KeyValue::Undefined]);
        assert_eq!(key.to_string(), r#"["t1",42,{}]"#);
        assert!(PartitionKey::parse("[1,2,3,4]").is_err());
        assert!(PartitionKey::parse("[1,").is_err());
        assert_eq!(PartitionKey::parse_json(&key.to_json()), Ok(key));
        assert_eq!(PartitionKey::parse_json(&"42".into()), PartitionKey::parse("42"));
        assert!(PartitionKey::parse_json(&42.into()).is_err(), "of a number, the text is no key");
    }

    #[test]
    fn what_can_be_no_key_is_not_the_key_of_documents_without_one() {
        for wrong in [r#"[["q"]]"#, r#"[{"a":1}]"#, "[[]]", "[1e400]", r#"["t1",{"a":null}]"#] {
            assert!(PartitionKey::parse(wrong).unwrap_err().contains("is not a component"), "{wrong}");
        }
        assert_eq!(PartitionKey::parse("[ { } ]").unwrap().0, [KeyValue::Undefined]);
    }

    #[test]
    fn a_key_that_is_shown_is_that_key_when_it_is_typed() {
        for text in ["p", "", "5", "[x", " [x", "\t\"y", "\"", "{}", "-x", "null"] {
            let key = PartitionKey(vec![KeyValue::String(text.into())]);
            assert_eq!(PartitionKey::parse(&key.to_string()).unwrap(), key, "{text:?}");
        }
    }

    #[test]
    fn zero_and_minus_zero_are_one_key() {
        assert_eq!(KeyValue::Number(0.0), KeyValue::Number(-0.0));
        assert_ne!(KeyValue::Null, KeyValue::Undefined);
    }
}

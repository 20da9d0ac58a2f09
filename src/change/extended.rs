//! Values that JSON has no type for, written as objects with one member: canonical Extended JSON, such as
//! `{"$numberInt":"5"}`. Everything that compares, merges or changes fields treats such an object as a single value.
//! Documents of MongoDB are full of them; a document of Cosmos DB may have them from a migration.

use std::borrow::Cow;

use super::raw::{RawDocument, unescape};

/// The wrapper for values that Extended JSON cannot represent exactly: the type and the bytes, `{"$bson":{...}}`.
pub const BSON: &str = "$bson";

/// The first names of objects that stand for one value.
pub const WRAPPERS: [&str; 16] = [
    "$numberInt",
    "$numberLong",
    "$numberDouble",
    "$numberDecimal",
    "$oid",
    "$date",
    "$binary",
    "$timestamp",
    "$regularExpression",
    "$symbol",
    "$code",
    "$dbPointer",
    "$minKey",
    "$maxKey",
    "$undefined",
    BSON,
];

/// Top-level names that mean something to this program. A MongoDB document's own member of such a name gets a `~` in
/// front.
const MEANT: [&str; 11] =
    ["id", "ttl", "_rid", "_self", "_etag", "_attachments", "_ts", "_lsn", "_change", "_originalId", BSON];

/// Whether an object that begins with this name stands for one value.
pub fn is_wrapper(name: &str) -> bool {
    name.starts_with('$') && WRAPPERS.contains(&name)
}

/// Whether a JSON text is an object that stands for one value.
pub fn is_value(text: &str) -> bool {
    // Hardly any object does: its first name decides, and the others are usually not read.
    let Some(inner) = text.trim_start().strip_prefix('{') else { return false };
    let may_be = ["\"$", "\"\\"].iter().any(|start| inner.trim_start().starts_with(start));
    may_be && RawDocument::parse(text).is_ok_and(|document| is_value_of(&document))
}

/// Whether an object stands for one value, judged by its members: the first has the name of a wrapper, and the only
/// other one allowed is the scope of a piece of code.
pub fn is_value_of(document: &RawDocument<'_>) -> bool {
    let name = |at: usize| document.members().get(at).map(|member| unescape(member.key.get()));
    match (name(0).as_deref(), name(1).as_deref(), document.members().len()) {
        (Some(first), None, 1) => is_wrapper(first),
        (Some("$code"), Some("$scope"), 2) => true,
        _ => false,
    }
}

/// Whether a JSON text is a single value whose inner members no path can reach: the bytes of a document or an array, or
/// a piece of code with its scope.
pub fn is_closed(text: &str) -> bool {
    if !is_value(text) {
        return false;
    }
    let Ok(value) = RawDocument::parse(text) else { return false };
    let bytes = value.get(BSON).and_then(|bytes| RawDocument::parse(bytes.get()).ok());
    let has_members = |bytes: &RawDocument<'_>| {
        bytes.get_str("type").is_some_and(|kind| ["03", "04", "0f"].contains(&kind.to_ascii_lowercase().as_str()))
    };
    value.get("$scope").is_some() || bytes.as_ref().is_some_and(has_members)
}

/// The name that a member of a MongoDB document has at the top of its text.
pub fn escaped(name: &str) -> Cow<'_, str> {
    if is_escaped(name) { Cow::Owned(format!("~{name}")) } else { Cow::Borrowed(name) }
}

/// Whether a member of a MongoDB document has another name at the top of its text.
pub fn is_escaped(name: &str) -> bool {
    match name.as_bytes().first() {
        Some(b'~') => true,
        Some(b'i' | b't' | b'_' | b'$') => MEANT.contains(&name),
        _ => false,
    }
}

/// A path as people write it, and as it is in the text of a MongoDB document that has another name for its first member.
pub fn in_texts(path: &[String]) -> Vec<Vec<String>> {
    let other = path.split_first().filter(|(first, _)| is_escaped(first));
    let other = other.map(|(first, rest)| [std::slice::from_ref(&escaped(first).into_owned()), rest].concat());
    [path.to_vec()].into_iter().chain(other).collect()
}

/// The name that a top-level member of a text has in the MongoDB document.
pub fn unescaped(name: &str) -> &str {
    name.strip_prefix('~').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_value_when_it_begins_with_a_known_name_and_has_no_other() {
        for one in [
            r#"{"$numberInt":"5"}"#,
            r#" { "$date" : {"$numberLong":"1"}}"#,
            r#"{"\u0024oid":"x"}"#,
            r#"{"$code":"x","$scope":{}}"#,
            r#"{"$bson":{}}"#,
        ] {
            assert!(is_value(one), "{one}");
        }
        for other in [
            "{}",
            "[]",
            "",
            "{",
            "\"$oid\"",
            r#"{"a":1}"#,
            r#"{"$ref":"c","$id":1}"#,
            r#"{"$numberInt":"5","a":1}"#,
            r#"{"$scope":{},"$code":"x"}"#,
            r#"{"$oid":"x","$oid":"y"}"#,
            r#"{"$oid":"#,
        ] {
            assert!(!is_value(other), "{other}");
        }
    }

    #[test]
    fn names_that_are_meant_have_another_one_and_come_back() {
        for (name, text) in [
            ("id", "~id"),
            ("~", "~~"),
            ("~x", "~~x"),
            ("_ts", "~_ts"),
            ("$bson", "~$bson"),
            ("$oid", "$oid"),
            ("", ""),
        ] {
            assert_eq!(escaped(name), text);
            assert_eq!(unescaped(text), name);
        }
        assert_eq!(escaped("restored_at"), "restored_at");
    }
}

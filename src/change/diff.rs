//! Finds the fields in which two documents differ. Values keep their text and are compared by meaning.

use std::{borrow::Cow, collections::HashMap};

use serde_json::value::RawValue;

use super::{
    decimal::Decimal,
    edit::quote,
    extended,
    key::render_path,
    pointer::{self, escaped},
    raw::{RawDocument, unescape},
};

/// How deep fields are told apart; below, values are compared as a whole. The service allows 128 levels.
const MAX_DEPTH: usize = 128;

/// One field that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The names of members and indexes of elements that lead to it.
    pub path: Vec<String>,
    /// Its JSON text before; `None` when it did not exist.
    pub before: Option<&'a str>,
    /// Its JSON text after; `None` when it no longer exists.
    pub after: Option<&'a str>,
}

impl Difference<'_> {
    /// The operation of JSON Patch (RFC 6902) that makes it.
    pub fn operation(&self) -> &'static str {
        match (self.before, self.after) {
            (None, _) => "add",
            (_, None) => "remove",
            _ => "replace",
        }
    }

    /// That operation as JSON; values as they are written.
    pub fn to_patch(&self) -> String {
        let value = self.after.map_or_else(String::new, |value| format!(",\"value\":{value}"));
        format!("{{\"op\":{},\"path\":{}{value}}}", quote(self.operation()), quote(&self.pointer()))
    }

    /// The path as flags take it, such as `/address/zip`.
    pub fn path_text(&self) -> String {
        render_path(&self.path)
    }

    /// The path as JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        self.path.iter().fold(String::new(), |pointer, segment| pointer + "/" + &escaped(segment))
    }
}

/// The fields in which two JSON texts differ, in an order in which they can be applied as a JSON Patch. Numbers are
/// compared as decimal numbers of any size (1.10 equals 1.1), strings by their meaning. The order of members does not
/// matter, that of elements does; of duplicate names the last one counts. A value of Extended JSON is a single value:
/// nothing inside it is a field.
pub fn between<'a>(before: &'a str, after: &'a str) -> Vec<Difference<'a>> {
    let mut found = Vec::new();
    compare(&ValueNode::parse(before, 0), &ValueNode::parse(after, 0), &mut Vec::new(), &mut found);
    found
}

/// Whether two JSON texts mean the same.
pub fn same(a: &str, b: &str) -> bool {
    a == b || ValueNode::parse(a, 0).equals(&ValueNode::parse(b, 0))
}

/// Whether two values mean the same; `None` is a missing value.
pub fn same_value(a: Option<&str>, b: Option<&str>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b),
        (a, b) => a.is_none() && b.is_none(),
    }
}

/// The JSON text at a path; numeric segments index arrays. A path may lead into a value of Extended JSON, to read a
/// part of it.
pub fn value_at<'a>(text: &'a str, path: &[String]) -> Option<&'a str> {
    let Some((first, rest)) = path.split_first() else { return Some(text) };
    let inner = if text.trim_start().starts_with('[') {
        let elements: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
        *elements.get(pointer::index(first)?)?
    } else {
        RawDocument::parse(text).ok()?.get(first)?
    };
    value_at(inner.get(), rest)
}

/// A value: its text, and its meaning.
pub(super) struct ValueNode<'a> {
    pub(super) text: &'a str,
    pub(super) meaning: Meaning<'a>,
}

pub(super) enum Meaning<'a> {
    Object(Members<'a>),
    /// A value of Extended JSON, which is compared by its members and not searched for fields.
    Extended(Members<'a>),
    Array(Vec<ValueNode<'a>>),
    String(Cow<'a, str>),
    Number(Decimal),
    /// A literal, or a value that is not searched any deeper.
    Text,
}

/// Members in order, each name once.
pub(super) struct Members<'a> {
    pub(super) list: Vec<(Cow<'a, str>, ValueNode<'a>)>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Members<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&ValueNode<'a>> {
        self.list.get(*self.places.get(name)?).map(|(_, node)| node)
    }
}

impl<'a> ValueNode<'a> {
    pub(super) fn parse(text: &'a str, depth: usize) -> Self {
        let text = text.trim();
        let meaning = match text.as_bytes().first() {
            Some(b'{') if depth < MAX_DEPTH => match RawDocument::parse(text) {
                Ok(document) if extended::is_value_of(&document) => Meaning::Extended(Self::members(&document, depth)),
                Ok(document) => Meaning::Object(Self::members(&document, depth)),
                Err(_) => Meaning::Text,
            },
            Some(b'[') if depth < MAX_DEPTH => match serde_json::from_str::<Vec<&'a RawValue>>(text) {
                Ok(elements) => Meaning::Array(elements.iter().map(|e| Self::parse(e.get(), depth + 1)).collect()),
                Err(_) => Meaning::Text,
            },
            Some(b'"') => match unescape(text) {
                // Half a surrogate pair has no meaning beyond its text.
                meaning if meaning.contains('\u{FFFD}') => Meaning::Text,
                meaning => Meaning::String(meaning),
            },
            Some(b'-' | b'0'..=b'9') => Decimal::parse(text).map_or(Meaning::Text, Meaning::Number),
            _ => Meaning::Text,
        };
        Self { text, meaning }
    }

    fn members(document: &RawDocument<'a>, depth: usize) -> Members<'a> {
        let mut members = Members { list: Vec::new(), places: HashMap::new() };
        for member in document.members() {
            let value: &'a RawValue = member.value;
            let key: &'a RawValue = member.key;
            let (name, node) = (unescape(key.get()), Self::parse(value.get(), depth + 1));
            match members.places.get(&name).and_then(|place| members.list.get_mut(*place)) {
                Some(slot) => slot.1 = node,
                None => {
                    members.places.insert(name.clone(), members.list.len());
                    members.list.push((name, node));
                }
            }
        }
        members
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        if self.text == other.text {
            return true;
        }
        match (&self.meaning, &other.meaning) {
            (Meaning::Object(a), Meaning::Object(b)) | (Meaning::Extended(a), Meaning::Extended(b)) => {
                a.list.len() == b.list.len() && a.list.iter().all(|(name, a)| b.get(name).is_some_and(|b| a.equals(b)))
            }
            (Meaning::Array(a), Meaning::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.equals(b)),
            (Meaning::String(a), Meaning::String(b)) => a == b,
            (Meaning::Number(a), Meaning::Number(b)) => a == b,
            _ => false,
        }
    }
}

fn compare<'a>(before: &ValueNode<'a>, after: &ValueNode<'a>, path: &mut Vec<String>, found: &mut Vec<Difference<'a>>) {
    let mut at =
        |path: &mut Vec<String>, segment: String, before: Option<&ValueNode<'a>>, after: Option<&ValueNode<'a>>| {
            path.push(segment);
            match (before, after) {
                (Some(before), Some(after)) => compare(before, after, path, found),
                _ => found.push(Difference {
                    path: path.clone(),
                    before: before.map(|n| n.text),
                    after: after.map(|n| n.text),
                }),
            }
            path.pop();
        };
    match (&before.meaning, &after.meaning) {
        (Meaning::Object(old), Meaning::Object(new)) => {
            for (name, node) in &old.list {
                at(path, name.to_string(), Some(node), new.get(name));
            }
            for (name, node) in new.list.iter().filter(|(name, _)| old.get(name).is_none()) {
                at(path, name.to_string(), None, Some(node));
            }
        }
        (Meaning::Array(old), Meaning::Array(new)) => {
            // Equal elements at both ends are skipped, so that one additional element is one difference.
            let head = old.iter().zip(new).take_while(|(a, b)| a.equals(b)).count();
            let tail = |list: &'_ [ValueNode<'a>]| list.len() - head;
            let common = tail(old).min(tail(new));
            let foot = old.iter().rev().zip(new.iter().rev()).take(common).take_while(|(a, b)| a.equals(b)).count();
            let (old_end, new_end) = (old.len() - foot, new.len() - foot);
            let both = old_end.min(new_end);
            for i in head..both {
                at(path, i.to_string(), old.get(i), new.get(i));
            }
            for i in (both..old_end).rev() {
                at(path, i.to_string(), old.get(i), None);
            }
            for i in both..new_end {
                at(path, i.to_string(), None, new.get(i));
            }
        }
        _ if before.equals(after) => {}
        _ => found.push(Difference { path: path.clone(), before: Some(before.text), after: Some(after.text) }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn shown(before: &str, after: &str) -> Vec<String> {
        between(before, after)
            .iter()
            .map(|d| {
                format!("{} {} {} -> {}", d.operation(), d.path_text(), d.before.unwrap_or("."), d.after.unwrap_or("."))
            })
            .collect()
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_none_is_rounded() {
        for (a, b) in [
            ("1.10", "1.1"),
            ("100", "1e2"),
            ("1E+2", "100.0"),
            ("-0", "0.0e9"),
            ("0.001", "1e-3"),
            ("12345678901234567890123456789.0", "12345678901234567890123456789"),
            ("1e99999999999999999999", "1e99999999999999999999"),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("9007199254740993", "9007199254740992"),
            ("1", "-1"),
            ("1", "10"),
            ("1", "\"1\""),
            ("0", "null"),
            ("0", "false"),
            ("1e99999999999999999999", "1e99999999999999999998"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn fields_are_told_apart_down_to_the_leaf() {
        let before = r#"{"id":"a","n":1.10,"o":{"x":1,"y":[1,2,3]},"gone":null,"a/b":1,"s":"\u0041","dup":1,"dup":2}"#;
        let after = r#"{"s":"A","n":1.1,"o":{"y":[1,5,3,4],"x":2},"id":"a","a/b":"1","new":{"z":[]},"dup":2}"#;
        assert_eq!(
            shown(before, after),
            [
                "replace /o/x 1 -> 2",
                "replace /o/y/1 2 -> 5",
                "add /o/y/3 . -> 4",
                "remove /gone null -> .",
                "replace /\"a/b\" 1 -> \"1\"",
                "add /new . -> {\"z\":[]}",
            ]
        );
        assert_eq!(between(before, after)[4].pointer(), "/a~1b");
    }

    #[test]
    fn a_value_of_extended_json_is_one_value() {
        let before =
            r#"{"a":{"$numberInt":"5"},"b":[{"$oid":"x"}],"c":{"$date":{"$numberLong":"1"}},"d":{"$numberInt":"5"}}"#;
        let after = r#"{"a":{"$numberDouble":"7"},"b":[{"$oid":"y"}],"c":{"$date":{"$numberLong":"2"}},"d":{"$numberInt":"\u0035"}}"#;
        assert_eq!(
            shown(before, after),
            [
                r#"replace /a {"$numberInt":"5"} -> {"$numberDouble":"7"}"#,
                r#"replace /b/0 {"$oid":"x"} -> {"$oid":"y"}"#,
                r#"replace /c {"$date":{"$numberLong":"1"}} -> {"$date":{"$numberLong":"2"}}"#,
            ]
        );
        assert_eq!(shown(r#"{"a":{"b":1}}"#, r#"{"a":{"$oid":"x"}}"#), [r#"replace /a {"b":1} -> {"$oid":"x"}"#]);
        assert_eq!(value_at(before, &["a".into(), "$numberInt".into()]), Some("\"5\""));
    }

    #[test]
    fn one_element_more_or_less_is_one_difference() {
        assert_eq!(shown("[1,2,3]", "[0,1,2,3]"), ["add /0 . -> 0"]);
        assert_eq!(shown("[1,2,3]", "[1,3]"), ["remove /1 2 -> ."]);
        assert_eq!(shown("[1,1,1]", "[1]"), ["remove /2 1 -> .", "remove /1 1 -> ."]);
        assert_eq!(shown("[[1],2]", "[[1,4],2]"), ["add /0/1 . -> 4"]);
    }

    #[test]
    fn what_is_not_the_same_kind_is_replaced_whole() {
        assert_eq!(shown(r#"{"a":{"b":1}}"#, r#"{"a":[1]}"#), [r#"replace /a {"b":1} -> [1]"#]);
        assert_eq!(shown(r#""\ud800""#, r#""\ud801""#).len(), 1);
        assert_eq!(shown("", "{}").len(), 1);
    }

    #[test]
    fn deep_values_neither_overflow_the_stack_nor_take_for_ever() {
        let nested = |depth, leaf| format!("{}{leaf}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(between(&nested(100, 1), &nested(100, 2))[0].path.len(), 100);
        assert_eq!(between(&nested(100_000, 1), &nested(100_000, 2))[0].path.len(), MAX_DEPTH);
    }

    #[test]
    fn a_value_is_found_at_its_path() {
        let text = r#"{"a":{"b":[1,{"c":1.10}]},"a/b":null}"#;
        let at = |path: &str| value_at(text, &crate::change::key::parse_path(path).unwrap());
        assert_eq!(at("/a/b/1/c"), Some("1.10"));
        assert_eq!(at("/\"a/b\""), Some("null"));
        for none in ["/a/c", "/a/b/2", "/a/b/x", "/a/b/0/c"] {
            assert_eq!(at(none), None, "{none}");
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from),
            "[ab/~\"é]{0,2}".prop_map(Value::from),
            (0..3u8).prop_map(|n| json!({"$numberInt": n.to_string()})),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::hash_map("[ab/~]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// The json-patch crate gives a second opinion.
        #[test]
        fn the_differences_are_a_patch_that_leads_from_one_to_the_other(before in any_json(), after in any_json()) {
            let (old, new) = (before.to_string(), after.to_string());
            let differences = between(&old, &new);
            prop_assert_eq!(differences.is_empty(), before == after);
            prop_assert_eq!(same(&old, &new), before == after);
            let operations: Vec<Value> = differences
                .iter()
                .map(|d| {
                    let mut operation = json!({"op": d.operation(), "path": d.pointer()});
                    if let Some(value) = d.after {
                        operation["value"] = serde_json::from_str(value).unwrap();
                    }
                    operation
                })
                .collect();
            let patch: json_patch::Patch = serde_json::from_value(operations.into()).unwrap();
            let mut patched = before;
            json_patch::patch(&mut patched, &patch).unwrap();
            prop_assert_eq!(patched, after);
        }

        #[test]
        fn integers_of_any_length_are_what_their_digits_say(a in "[1-9][0-9]{0,40}", b in "[1-9][0-9]{0,40}") {
            prop_assert_eq!(same(&a, &b), a == b);
            let spelling = format!("{a}.000e0");
            prop_assert!(same(&a, &spelling));
        }
    }
}

//! Locates a value in a document by the names of members and by what identifies an element of an array.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::change::{
    diff::{Meaning, Members, ValueNode, value_at},
    edit::{elements, quote},
    extended,
    key::{parse_path, render_path},
    raw::RawDocument,
};

/// One step towards a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Segment {
    /// The member of an object with this name.
    Member(String),
    /// The element of an array whose value at `key` is `is`.
    Element {
        /// The path of that value within the element.
        key: Vec<String>,
        /// The value in one spelling: strings quoted, numbers as digits and a power of ten.
        is: String,
    },
}

/// The path from the document to a value; empty for the document itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Place(pub Vec<Segment>);

impl Place {
    /// Whether this is the other place, or leads to it.
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }

    /// The rest of the path, from a place that contains this one.
    pub fn below(&self, above: &Self) -> &[Segment] {
        self.0.get(above.0.len()..).unwrap_or_default()
    }

    /// Whether it lies at a path of members or below; with `above`, also whether it lies on the way there.
    pub fn is_at(&self, path: &[String], above: bool) -> bool {
        let enough = self.0.len() >= path.len() || above;
        let names = self.0.iter().zip(path);
        enough && names.into_iter().all(|(segment, name)| matches!(segment, Segment::Member(own) if own == name))
    }
}

/// As flags write paths: `/address/zip`; an element as `/items/[/sku="a"]/price`; the document as `/`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("/");
        }
        for segment in &self.0 {
            match segment {
                Segment::Member(name) => f.write_str(&render_path(std::slice::from_ref(name)))?,
                Segment::Element { key, is } => write!(f, "/[{}={is}]", render_path(key))?,
            }
        }
        Ok(())
    }
}

/// The key that identifies the elements of an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayKey {
    /// The path of the array; `*` stands for any element of an array above it.
    pub array: Vec<String>,
    /// The path of the identifying value within an element.
    pub key: Vec<String>,
}

impl std::str::FromStr for ArrayKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (array, key) =
            text.split_once('=').ok_or_else(|| format!("{text:?} names no key: write it as /items=/sku"))?;
        let key = Self { array: parse_path(array)?, key: parse_path(key)? };
        if key.array.is_empty() || key.key.is_empty() { Err(format!("{text:?} names no array")) } else { Ok(key) }
    }
}

impl ArrayKey {
    /// Whether this concerns the array at a place.
    pub fn is_of(&self, place: &Place) -> bool {
        self.array.len() == place.0.len()
            && self.array.iter().zip(&place.0).all(|(name, segment)| match segment {
                Segment::Member(own) => name == own,
                Segment::Element { .. } => name == "*",
            })
    }
}

/// The meaning of a scalar in one spelling: 1.0 and 1 are the same identity, "1" is another; `None` for objects and
/// arrays. A value of Extended JSON is a scalar, too.
pub(super) fn identity_of(node: &ValueNode<'_>) -> Option<String> {
    match &node.meaning {
        Meaning::String(text) => Some(quote(text)),
        Meaning::Number(number) => Some(number.to_string()),
        Meaning::Extended(members) => spelled(members),
        Meaning::Text if !node.text.starts_with(['{', '[']) => Some(node.text.to_owned()),
        _ => None,
    }
}

/// The members of a value of Extended JSON, sorted by name: their order does not matter.
fn spelled(members: &Members<'_>) -> Option<String> {
    let member = |(name, node): &(std::borrow::Cow<'_, str>, ValueNode<'_>)| {
        let value = match &node.meaning {
            Meaning::Object(inner) => spelled(inner),
            _ => identity_of(node),
        };
        Some(format!("{}:{}", quote(name), value?))
    };
    let mut all = members.list.iter().map(member).collect::<Option<Vec<_>>>()?;
    all.sort_unstable();
    Some(format!("{{{}}}", all.join(",")))
}

/// The identity of an array's element, if it has one.
pub(super) fn identity(element: &str, key: &[String]) -> Option<String> {
    if !element.trim_start().starts_with('{') || extended::is_value(element) {
        return None;
    }
    identity_of(&ValueNode::parse(value_at(element, key)?, 0))
}

/// The JSON text at a place. No place lies inside a value of Extended JSON.
pub fn get<'a>(text: &'a str, way: &[Segment]) -> Option<&'a str> {
    let Some((first, rest)) = way.split_first() else { return Some(text) };
    let inner = match first {
        Segment::Member(_) if extended::is_value(text) => return None,
        Segment::Member(name) => RawDocument::parse(text).ok()?.get(name)?.get(),
        Segment::Element { key, is } => elements(text)?.into_iter().find(|e| identity(e, key).as_ref() == Some(is))?,
    };
    get(inner, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(is: &str) -> Segment {
        Segment::Element { key: vec!["sku".into()], is: is.into() }
    }

    #[test]
    fn a_place_reads_as_flags_write_it_and_survives_a_file() {
        let place = Place(vec![Segment::Member("items".into()), element("\"a\""), Segment::Member("a/b".into())]);
        assert_eq!(place.to_string(), r#"/items/[/sku="a"]/"a/b""#);
        let json = serde_json::to_string(&place).unwrap();
        assert_eq!(json, r#"["items",{"key":["sku"],"is":"\"a\""},"a/b"]"#);
        assert_eq!(serde_json::from_str::<Place>(&json).unwrap(), place);
        assert_eq!(Place::default().to_string(), "/");
    }

    #[test]
    fn an_element_is_found_by_what_its_key_means() {
        let text = r#"{"items":[{"sku":"b"},{"sku":1.0,"n":1},{"sku":"1","n":2},{"sku":{"x":1}},7]}"#;
        let at = |is: &str| get(text, &[Segment::Member("items".into()), element(is), Segment::Member("n".into())]);
        assert_eq!((at("1e0"), at("\"1\""), at("\"b\""), at("\"c\"")), (Some("1"), Some("2"), None, None));
        assert_eq!(identity(r#"{"sku":"\u0031"}"#, &["sku".into()]).as_deref(), Some("\"1\""));
        for none in [r#"{"sku":[1]}"#, r#"{"k":1}"#, "7", "[1]"] {
            assert_eq!(identity(none, &["sku".into()]), None, "{none}");
        }
    }

    #[test]
    fn a_value_of_extended_json_identifies_an_element_and_has_no_places_in_it() {
        let text = r#"{"items":[{"sku":{"$oid":"a"},"n":1},{"sku":{"$binary":{"subType":"00","base64":"x"}},"n":2}]}"#;
        let at = |is: &str| get(text, &[Segment::Member("items".into()), element(is), Segment::Member("n".into())]);
        assert_eq!(at(r#"{"$oid":"a"}"#), Some("1"));
        assert_eq!(at(r#"{"$binary":{"base64":"x","subType":"00"}}"#), Some("2"));
        assert_eq!(identity(r#"{"$oid":"a"}"#, &["$oid".into()]), None);
        let inside = [Segment::Member("a".into()), Segment::Member("$oid".into())];
        assert_eq!(get(r#"{"a":{"$oid":"a"}}"#, &inside), None);
        assert_eq!(get(r#"{"a":{"$oid":"a","b":1}}"#, &inside), Some("\"a\""));
    }

    #[test]
    fn an_array_key_is_a_path_and_a_path() {
        let key: ArrayKey = "/orders/*/items=/product/sku".parse().unwrap();
        assert_eq!(key.key, ["product", "sku"]);
        let place = Place(vec![Segment::Member("orders".into()), element("1e0"), Segment::Member("items".into())]);
        assert!(key.is_of(&place) && !key.is_of(&Place(vec![Segment::Member("orders".into())])));
        for bad in ["/items", "items=/sku", "/items=sku", "=", "/items="] {
            assert!(bad.parse::<ArrayKey>().is_err(), "{bad}");
        }
    }
}

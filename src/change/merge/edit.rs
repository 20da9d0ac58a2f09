//! Puts values of earlier versions back into a document. An edit names the version that a value comes from, not the
//! value itself, so a plan holds no content.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::place::{Place, Segment, get, identity};
use crate::change::{
    edit::{elements, quote},
    extended,
    raw::RawDocument,
};

/// Stands for a document of a fork in an edit, in place of a record of the history.
pub const FORK: &str = "~fork";
/// Stands for what that document was when the fork began.
pub const BASE: &str = "~base";

/// Whether an edit takes its value from a text that comes with the plan: no record of the history has such an id.
pub fn is_own_version(record: &str) -> bool {
    matches!(record, FORK | BASE)
}

/// A value that is set back to what it was in a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Edit {
    /// Where.
    pub place: Place,
    /// The record of the version with the value; when that version has none there, the value is removed. `None` when
    /// there was no document.
    pub record: Option<String>,
    /// Parts of that value that are set back further.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Edit>,
}

/// Why an edit cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The object or array that contained the value is gone.
    #[error("{0} cannot be put back: what it was in is not there")]
    NoParent(Place),
    /// The text of a version is missing.
    #[error("the text of version {0} is not known")]
    NoText(String),
    /// A text is not a document.
    #[error("a document is not a JSON object")]
    NoObject,
}

impl Edit {
    /// The value to put there; `None` when there was none.
    ///
    /// # Errors
    /// When the text of a version is missing, or a part does not fit.
    pub fn value(&self, texts: &impl VersionTexts) -> Result<Option<String>, EditError> {
        let Some(record) = &self.record else { return Ok(None) };
        let Some(value) = get(text_of(texts, record)?, &self.place.0) else { return Ok(None) };
        let mut value = value.to_owned();
        for part in &self.parts {
            let order = part.record.as_deref().map(|record| text_of(texts, record)).transpose()?;
            let order = order.and_then(|text| get(text, &self.place.0));
            let inner = part.value(texts)?;
            value = put(&value, part.place.below(&self.place), inner.as_deref(), order, &part.place)?;
        }
        Ok(Some(value))
    }

    /// The part of it that concerns a place within its own.
    pub(super) fn narrowed(&self, place: &Place) -> Self {
        match self.parts.iter().find(|part| part.place.covers(place)) {
            Some(part) => part.narrowed(place),
            None => Self {
                place: place.clone(),
                record: self.record.clone(),
                parts: self.parts.iter().filter(|part| place.covers(&part.place)).cloned().collect(),
            },
        }
    }

    /// The records whose texts it needs.
    pub fn records(&self) -> Vec<&str> {
        let inner = self.parts.iter().flat_map(Self::records);
        self.record.as_deref().into_iter().chain(inner).collect()
    }
}

/// Texts of versions, by the ids of their records.
pub trait VersionTexts {
    /// The text of a version that is a document.
    fn text(&self, record: &str) -> Option<&str>;
}

impl VersionTexts for HashMap<String, String> {
    fn text(&self, record: &str) -> Option<&str> {
        self.get(record).map(String::as_str)
    }
}

fn text_of<'t>(texts: &'t impl VersionTexts, record: &str) -> Result<&'t str, EditError> {
    texts.text(record).ok_or_else(|| EditError::NoText(record.to_owned()))
}

/// A document with edits applied, outer ones first; `None` when none is left.
///
/// # Errors
/// When an edit does not fit the document.
pub fn edited(document: Option<&str>, edits: &[Edit], texts: &impl VersionTexts) -> Result<Option<String>, EditError> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| edit.place.0.len());
    let mut text = document.map(str::to_owned);
    for edit in edits {
        let value = edit.value(texts)?;
        if edit.place.0.is_empty() {
            text = value;
            continue;
        }
        let into = text.ok_or_else(|| EditError::NoParent(edit.place.clone()))?;
        let order = edit.record.as_deref().map(|record| text_of(texts, record)).transpose()?;
        text = Some(put(&into, &edit.place.0, value.as_deref(), order, &edit.place)?);
    }
    Ok(text)
}

/// A text with the value at a place set or removed. What is added comes after what it came after in `order`, the text
/// that it is from; everything else keeps its text and its order.
pub(super) fn put(
    text: &str,
    way: &[Segment],
    value: Option<&str>,
    order: Option<&str>,
    whole: &Place,
) -> Result<String, EditError> {
    let no_parent = || EditError::NoParent(whole.clone());
    let Some((first, rest)) = way.split_first() else { return value.map(str::to_owned).ok_or_else(no_parent) };
    let (mut items, brackets) = match first {
        Segment::Member(_) => (members(text).ok_or_else(no_parent)?, ('{', '}')),
        Segment::Element { key, .. } => (identified(text, key).ok_or_else(no_parent)?, ('[', ']')),
    };
    let name = match first {
        Segment::Member(name) => name,
        Segment::Element { is, .. } => is,
    };
    let is_it = |item: &Item| item.name.as_ref() == Some(name);
    // Of duplicate names the last one counts; an edit leaves only one.
    if let Some(last) = items.iter().rposition(is_it) {
        let mut place = 0;
        items.retain(|item| {
            place += 1;
            place > last || !is_it(item)
        });
    }
    let ordered = order.and_then(|order| match first {
        Segment::Member(_) => members(order),
        Segment::Element { key, .. } => identified(order, key),
    });
    if !items.iter().any(is_it) {
        let (true, Some(value)) = (rest.is_empty(), value) else {
            return if value.is_none() { Ok(text.to_owned()) } else { Err(no_parent()) };
        };
        let item = match first {
            Segment::Member(name) => Item { name: None, lead: quote(name) + ":", value: value.to_owned() },
            Segment::Element { .. } => Item { name: None, lead: String::new(), value: value.to_owned() },
        };
        items.insert(place_for(name, &items, &ordered.unwrap_or_default()), item);
    } else if rest.is_empty() && value.is_none() {
        items.retain(|item| !is_it(item));
    } else {
        let inner_order = ordered.as_ref().and_then(|all| all.iter().rev().find(|item| is_it(item)));
        if let Some(item) = items.iter_mut().find(|item| is_it(item)) {
            item.value = match value {
                Some(value) if rest.is_empty() => value.to_owned(),
                _ => put(&item.value, rest, value, inner_order.map(|item| item.value.as_str()), whole)?,
            };
        }
    }
    let inner: Vec<String> = items.into_iter().map(|item| item.lead + &item.value).collect();
    Ok(format!("{}{}{}", brackets.0, inner.join(","), brackets.1))
}

/// A member or an element.
struct Item {
    /// The name to find it by.
    name: Option<String>,
    /// The member's name as written, with the colon.
    lead: String,
    value: String,
}

fn members(text: &str) -> Option<Vec<Item>> {
    let document = RawDocument::parse(text).ok()?;
    if extended::is_value_of(&document) {
        return None;
    }
    let item = |m: &crate::change::raw::Member<'_>| Item {
        name: Some(m.name().into_owned()),
        lead: format!("{}:", m.key.get()),
        value: m.value.get().to_owned(),
    };
    Some(document.members().iter().map(item).collect())
}

fn identified(text: &str, key: &[String]) -> Option<Vec<Item>> {
    let item = |e: &str| Item { name: identity(e, key), lead: String::new(), value: e.to_owned() };
    Some(elements(text)?.into_iter().map(item).collect())
}

/// Placed after the nearest member that it followed before, or at the front.
fn place_for(name: &String, items: &[Item], ordered: &[Item]) -> usize {
    let Some(own) = ordered.iter().position(|item| item.name.as_ref() == Some(name)) else { return items.len() };
    let is_here = |before: &Item| items.iter().rposition(|item| item.name.is_some() && item.name == before.name);
    ordered[..own].iter().rev().find_map(is_here).map_or(0, |place| place + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[(&str, &str)]) -> HashMap<String, String> {
        list.iter().map(|(record, text)| ((*record).to_owned(), (*text).to_owned())).collect()
    }

    fn edit(names: &[&str], record: Option<&str>, parts: Vec<Edit>) -> Edit {
        let place = Place(names.iter().map(|name| Segment::Member((*name).to_owned())).collect());
        Edit { place, record: record.map(str::to_owned), parts }
    }

    #[test]
    fn what_comes_back_comes_back_to_its_place_with_its_text() {
        let texts = texts(&[("1", r#"{"id":"x","a":1.10,"b":{"p":1,"q":2},"c":3}"#)]);
        let made = |live: &str, names: &[&str]| edited(Some(live), &[edit(names, Some("1"), vec![])], &texts).unwrap();
        assert_eq!(made(r#"{"id":"x","c":3}"#, &["a"]).unwrap(), r#"{"id":"x","a":1.10,"c":3}"#);
        assert_eq!(made(r#"{"c":3,"id":"x"}"#, &["a"]).unwrap(), r#"{"c":3,"id":"x","a":1.10}"#);
        assert_eq!(made(r#"{"c":3}"#, &["a"]).unwrap(), r#"{"a":1.10,"c":3}"#);
        assert_eq!(made(r#"{"b":{"q":9},"c":3}"#, &["b", "p"]).unwrap(), r#"{"b":{"p":1,"q":9},"c":3}"#);
        assert_eq!(made(r#"{"a":2,"a":3}"#, &["a"]).unwrap(), r#"{"a":1.10}"#);
        // What did not exist is removed.
        assert_eq!(made(r#"{"id":"x","n":7,"c":3}"#, &["n"]).unwrap(), r#"{"id":"x","c":3}"#);
        assert_eq!(made(r#"{"id":"x"}"#, &["n"]).unwrap(), r#"{"id":"x"}"#);
        // What contained it is gone, or has become something else.
        for live in [r#"{"id":"x"}"#, r#"{"b":7}"#, r#"{"b":{"$numberInt":"7"}}"#] {
            let error = edited(Some(live), &[edit(&["b", "p"], Some("1"), vec![])], &texts).unwrap_err();
            assert_eq!(error.to_string(), "/b/p cannot be put back: what it was in is not there");
        }
    }

    #[test]
    fn parts_go_further_back_than_what_they_are_in() {
        let texts = texts(&[("1", r#"{"b":{"p":1,"q":1}}"#), ("2", r#"{"b":{"p":2,"q":2,"r":2}}"#)]);
        let parts = vec![edit(&["b", "p"], Some("1"), vec![]), edit(&["b", "r"], Some("1"), vec![])];
        let whole = edit(&["b"], Some("2"), parts.clone());
        assert_eq!(whole.records(), ["2", "1", "1"]);
        assert_eq!(edited(Some(r#"{"b":"x"}"#), &[whole], &texts).unwrap().unwrap(), r#"{"b":{"p":1,"q":2}}"#);
        // A whole document is recreated.
        let again = edit(&[], Some("2"), parts);
        assert_eq!(edited(None, &[again], &texts).unwrap().unwrap(), r#"{"b":{"p":1,"q":2}}"#);
        assert_eq!(edited(Some("{}"), &[edit(&[], None, vec![])], &texts).unwrap(), None);
    }

    #[test]
    fn an_element_comes_back_behind_the_one_it_followed() {
        let texts = texts(&[("1", r#"{"items":[{"sku":"a"},{"sku":"b","n":1},{"sku":"c"}]}"#)]);
        let element = Segment::Element { key: vec!["sku".into()], is: "\"b\"".into() };
        let place = Place(vec![Segment::Member("items".into()), element]);
        let edits = [Edit { place, record: Some("1".into()), parts: vec![] }];
        let made = |live: &str| edited(Some(live), &edits, &texts).unwrap().unwrap();
        assert_eq!(
            made(r#"{"items":[{"sku":"z"},{"sku":"a"},{"sku":"c"}]}"#),
            r#"{"items":[{"sku":"z"},{"sku":"a"},{"sku":"b","n":1},{"sku":"c"}]}"#
        );
        assert_eq!(made(r#"{"items":[]}"#), r#"{"items":[{"sku":"b","n":1}]}"#);
        assert_eq!(made(r#"{"items":[{"n":2,"sku":"b"}]}"#), r#"{"items":[{"sku":"b","n":1}]}"#);
        assert!(edited(Some(r#"{"items":{}}"#), &edits, &texts).is_err());
    }
}

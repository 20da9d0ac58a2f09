//! Lists what a write changed, field by field, for a merge. An array is one value, unless its elements are identified
//! by a key.

use std::{borrow::Cow, collections::HashMap};

use super::place::{ArrayKey, Place, Segment, identity};
use crate::change::diff::{Meaning, ValueNode};

/// One value that a write changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Changed<'a> {
    /// Where.
    pub place: Place,
    /// Its text before; `None` when it did not exist.
    pub before: Option<&'a str>,
    /// Its text after; `None` when it is gone.
    pub after: Option<&'a str>,
}

/// The differences between two texts; `None` is a missing document. The order of members does not matter, nor does the
/// order of elements with a key.
pub(super) fn changes<'a>(before: Option<&'a str>, after: Option<&'a str>, keys: &[ArrayKey]) -> Vec<Changed<'a>> {
    changes_at(&Place::default(), before, after, keys)
}

/// The same for two values at a place.
pub(super) fn changes_at<'a>(
    place: &Place,
    before: Option<&'a str>,
    after: Option<&'a str>,
    keys: &[ArrayKey],
) -> Vec<Changed<'a>> {
    let (mut found, mut place) = (Vec::new(), place.clone());
    match (before, after) {
        (Some(old), Some(new)) => {
            compare(&ValueNode::parse(old, 0), &ValueNode::parse(new, 0), &mut place, keys, &mut found)
        }
        (None, None) => {}
        (before, after) => found.push(Changed { place, before, after }),
    }
    found
}

fn compare<'a>(
    before: &ValueNode<'a>,
    after: &ValueNode<'a>,
    place: &mut Place,
    keys: &[ArrayKey],
    found: &mut Vec<Changed<'a>>,
) {
    let at = |segment: Segment,
              old: Option<&ValueNode<'a>>,
              new: Option<&ValueNode<'a>>,
              place: &mut Place,
              found: &mut Vec<_>| {
        place.0.push(segment);
        match (old, new) {
            (Some(old), Some(new)) => compare(old, new, place, keys, found),
            _ => found.push(Changed { place: place.clone(), before: old.map(|n| n.text), after: new.map(|n| n.text) }),
        }
        place.0.pop();
    };
    match (&before.meaning, &after.meaning) {
        (Meaning::Object(old), Meaning::Object(new)) => {
            for (name, node) in &old.list {
                at(Segment::Member(name.to_string()), Some(node), new.get(name), place, found);
            }
            for (name, node) in new.list.iter().filter(|(name, _)| old.get(name).is_none()) {
                at(Segment::Member(name.to_string()), None, Some(node), place, found);
            }
        }
        (Meaning::Array(old), Meaning::Array(new)) => {
            let key = keys.iter().find(|key| key.is_of(place)).map(|key| key.key.as_slice());
            let by_key = key.and_then(|key| Some((key, Keyed::of(old, key)?, Keyed::of(new, key)?)));
            match by_key {
                Some((key, old, new)) => {
                    let segment = |is: &str| Segment::Element { key: key.to_vec(), is: is.to_owned() };
                    for (is, node) in &old.list {
                        at(segment(is), Some(node), new.get(is), place, found);
                    }
                    for (is, node) in new.list.iter().filter(|(is, _)| old.get(is).is_none()) {
                        at(segment(is), None, Some(node), place, found);
                    }
                }
                None if before.equals(after) => {}
                None => found.push(whole(before, after, place)),
            }
        }
        _ if before.equals(after) => {}
        _ => found.push(whole(before, after, place)),
    }
}

fn whole<'a>(before: &ValueNode<'a>, after: &ValueNode<'a>, place: &Place) -> Changed<'a> {
    Changed { place: place.clone(), before: Some(before.text), after: Some(after.text) }
}

/// The elements of an array by what identifies them.
struct Keyed<'n, 'a> {
    list: Vec<(Cow<'n, str>, &'n ValueNode<'a>)>,
    places: HashMap<String, usize>,
}

impl<'n, 'a> Keyed<'n, 'a> {
    /// `None` when one has no identity, or two have the same: then the array is one value.
    fn of(elements: &'n [ValueNode<'a>], key: &[String]) -> Option<Self> {
        let mut keyed = Self { list: Vec::with_capacity(elements.len()), places: HashMap::new() };
        for (place, node) in elements.iter().enumerate() {
            let is = identity(node.text, key)?;
            if keyed.places.insert(is.clone(), place).is_some() {
                return None;
            }
            keyed.list.push((is.into(), node));
        }
        Some(keyed)
    }

    fn get(&self, is: &str) -> Option<&'n ValueNode<'a>> {
        self.list.get(*self.places.get(is)?).map(|(_, node)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(before: &str, after: &str, keys: &[&str]) -> Vec<String> {
        let keys: Vec<ArrayKey> = keys.iter().map(|key| key.parse().unwrap()).collect();
        let text = |text: &str| (text != "-").then(|| text.to_owned());
        let (before, after) = (text(before), text(after));
        changes(before.as_deref(), after.as_deref(), &keys)
            .iter()
            .map(|c| format!("{} {} -> {}", c.place, c.before.unwrap_or("."), c.after.unwrap_or(".")))
            .collect()
    }

    #[test]
    fn objects_are_looked_into_and_arrays_are_one_value() {
        assert_eq!(
            shown(r#"{"a":{"x":1.10,"y":[1,2]},"b":1}"#, r#"{"a":{"y":[1,3],"x":1.1},"c":{}}"#, &[]),
            ["/a/y [1,2] -> [1,3]", "/b 1 -> .", "/c . -> {}"]
        );
        assert_eq!(shown("-", "{}", &[]), ["/ . -> {}"]);
        assert_eq!(shown(r#"{"a":{}}"#, r#"{"a":1}"#, &[]), ["/a {} -> 1"]);
    }

    #[test]
    fn elements_with_a_key_are_told_apart_and_their_order_does_not_count() {
        let before = r#"{"items":[{"sku":"a","n":1},{"sku":"b","n":1}]}"#;
        let after = r#"{"items":[{"sku":"c"},{"n":2,"sku":"b"}]}"#;
        assert_eq!(
            shown(before, after, &["/items=/sku"]),
            [
                r#"/items/[/sku="a"] {"sku":"a","n":1} -> ."#,
                r#"/items/[/sku="b"]/n 1 -> 2"#,
                r#"/items/[/sku="c"] . -> {"sku":"c"}"#
            ]
        );
        // One without the key, or two with the same: one value.
        for odd in [r#"{"items":[{"sku":"a"},{"sku":"a"}]}"#, r#"{"items":[{"n":1}]}"#, r#"{"items":[1]}"#] {
            assert_eq!(shown(before, odd, &["/items=/sku"]).len(), 1, "{odd}");
            assert!(shown(before, odd, &["/items=/sku"])[0].starts_with("/items ["), "{odd}");
        }
    }
}

//! Lists the top-level fields that differ between two versions of a document.

use super::{diff, raw::RawDocument};

/// The names of the top-level fields in which two documents differ; fields with the same meaning do not differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ChangedFields {
    /// Fields with another value.
    pub changed: Vec<String>,
    /// Fields that were not there before.
    pub added: Vec<String>,
    /// Fields that are not there any more.
    pub removed: Vec<String>,
}

impl ChangedFields {
    /// Compares two texts; a text that is not a JSON object has no fields.
    pub fn between(before: &str, now: &str) -> Self {
        let (before, now) =
            (RawDocument::parse(before).unwrap_or_default(), RawDocument::parse(now).unwrap_or_default());
        let mut all = Self::default();
        let push = |list: &mut Vec<String>, name: &str| {
            if !list.iter().any(|n| n == name) {
                list.push(name.to_owned());
            }
        };
        for member in now.members() {
            let name = member.name();
            match (before.get(&name), now.get(&name)) {
                (None, _) => push(&mut all.added, &name),
                (Some(a), Some(b)) if !diff::same(a.get(), b.get()) => push(&mut all.changed, &name),
                _ => {}
            }
        }
        for member in before.members() {
            let name = member.name();
            if now.get(&name).is_none() {
                push(&mut all.removed, &name);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_fields_are_those_that_mean_something_else() {
        let found = ChangedFields::between(
            r#"{"id":"a","n":1,"list":[1,{"x":2.0}],"gone":1,"seq":1}"#,
            r#"{"seq":2,"id":"a","n":1.0,"list":[1.0,{"x":2}],"new":null}"#,
        );
        let [changed, added, removed] = ["seq", "new", "gone"].map(|name| vec![name.to_owned()]);
        assert_eq!(found, ChangedFields { changed, added, removed });
        assert_eq!(ChangedFields::between("{}", "no object"), ChangedFields::default());
    }
}

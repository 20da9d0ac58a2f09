//! Merges one document: as it was when the fork began, as it is in the fork, and as it is live.

use crate::{
    change::merge::{BASE, EditError, FORK, MergeRules, MergeWalk, Merged, VersionAuthor, get},
    restore::{Fate, Field},
};

/// The three texts of a document, as its users wrote them; `None` means that there is no document.
pub(super) struct ThreeTexts<'a> {
    /// When the fork began.
    pub base: Option<&'a str>,
    /// In the fork.
    pub fork: Option<&'a str>,
    /// In the live container.
    pub live: Option<&'a str>,
}

impl ThreeTexts<'_> {
    /// Today's document with the fork's changes. It is the result of reverting a write that led from the fork's
    /// document to the one at the beginning, whatever was written afterwards.
    pub(super) fn merged(&self, rules: &MergeRules) -> Result<Merged, EditError> {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let fork = own(self.fork).map(|text| (FORK.to_owned(), text));
        let mut walk = MergeWalk::from(fork, rules);
        walk.step(VersionAuthor::Undone, BASE.to_owned(), own(self.base))?;
        walk.today(own(self.live))?;
        walk.finish()
    }

    /// Whether the fork changed anything that was asked for.
    pub(super) fn has_wish(&self, rules: &MergeRules) -> Result<bool, EditError> {
        let alone = Self { live: self.base, ..*self }.merged(rules)?;
        Ok(!alone.taken.is_empty() || !alone.above.is_empty())
    }

    /// The fields that a merge concerns, each with its three values.
    pub(super) fn fields(&self, pk: &serde_json::Value, id: &str, merged: &Merged, is_kept: bool) -> Vec<Field> {
        let taken = merged.taken.iter().filter(|_| !is_kept).map(|taken| (&taken.place, Fate::Fork));
        let conflicts = merged.conflicts.iter().map(|conflict| (&conflict.place, Fate::Conflict));
        let each = taken.chain(conflicts).map(|(place, fate)| {
            let value = |text: Option<&str>| {
                let value = text.and_then(|text| get(text, &place.0))?;
                serde_json::value::RawValue::from_string(value.to_owned()).ok()
            };
            let (base, theirs, ours) = (value(self.base), value(self.fork), value(self.live));
            Field { id: id.to_owned(), pk: pk.clone(), path: place.to_string(), fate, base, theirs, ours }
        });
        each.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The merged text, what changes, and what is in conflict; `-` is a missing document.
    fn merged(base: &str, fork: &str, live: &str) -> (String, Vec<String>, Vec<String>) {
        let text = |text: &'static str| (text != "-").then_some(text);
        let [base, fork, live] = [base, fork, live].map(|t| text(Box::leak(t.to_owned().into_boxed_str())));
        let three = ThreeTexts { base, fork, live };
        let merged = three.merged(&MergeRules::default()).unwrap();
        let places = |fate| {
            let fields = three.fields(&serde_json::json!([1]), "a", &merged, false);
            fields.into_iter().filter(|field| field.fate == fate).map(|field| field.path).collect()
        };
        (merged.text.clone().unwrap_or("-".into()), places(Fate::Fork), places(Fate::Conflict))
    }

    #[test]
    fn what_only_the_fork_changed_goes_in_and_what_both_changed_is_a_conflict() {
        const BASE: &str = r#"{"id":"a","price":-1,"city":"D","tags":[1]}"#;
        const REPAIRED: &str = r#"{"id":"a","price":9.50,"city":"D","tags":[1]}"#;
        for (base, fork, live, text, taken, conflicts) in [
            (BASE, REPAIRED, BASE, REPAIRED, vec!["/price"], vec![]),
            // An honest edit of another field stays.
            (
                BASE,
                REPAIRED,
                r#"{"id":"a","price":-1,"city":"C","tags":[1]}"#,
                r#"{"id":"a","price":9.50,"city":"C","tags":[1]}"#,
                vec!["/price"],
                vec![],
            ),
            // The same field, to another value: it stays as it is. To the same value: nothing is to be done.
            (
                BASE,
                REPAIRED,
                r#"{"id":"a","price":7,"city":"D","tags":[1]}"#,
                r#"{"id":"a","price":7,"city":"D","tags":[1]}"#,
                vec![],
                vec!["/price"],
            ),
            (BASE, REPAIRED, REPAIRED, REPAIRED, vec![], vec![]),
            // Deleted in the fork, made in the fork.
            (BASE, "-", BASE, "-", vec!["/"], vec![]),
            (BASE, "-", REPAIRED, REPAIRED, vec![], vec!["/"]),
            (BASE, "-", "-", "-", vec![], vec![]),
            ("-", BASE, "-", BASE, vec!["/"], vec![]),
            ("-", BASE, BASE, BASE, vec![], vec![]),
            ("-", BASE, REPAIRED, REPAIRED, vec![], vec!["/"]),
            // Somebody deleted it since.
            (BASE, REPAIRED, "-", "-", vec![], vec!["/"]),
            // Written, but unchanged.
            (BASE, BASE, REPAIRED, REPAIRED, vec![], vec![]),
        ] {
            let told = format!("{base} {fork} {live}");
            let found = merged(base, fork, live);
            assert_eq!(found.0, text, "{told}");
            assert_eq!(
                (found.1, found.2),
                (taken.iter().map(|t| (*t).to_owned()).collect(), conflicts.iter().map(|t| (*t).to_owned()).collect()),
                "{told}"
            );
        }
    }
}

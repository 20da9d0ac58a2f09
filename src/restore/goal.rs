//! Goals of single documents, when a list has them: a version, a moment, or non-existence.

use std::collections::HashMap;

use super::plan::{Action, Chosen, Step, StepRules, decide};
use crate::{
    change::{Op, key::ItemKey, time::PointInTime, version::Version},
    history::{
        as_of::{Caveat, as_of},
        known::Facts,
        timeline::Timeline,
        version::named,
    },
};

/// The goal of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Its state at a moment.
    At(PointInTime),
    /// A version: a record's id, an LSN or an etag. With a delete, no document.
    Version(String),
    /// Before its first version, when there was no document.
    NoDocument,
}

/// The goals of the documents: common rules, or a list.
#[derive(Debug, Clone, Copy)]
pub struct Goals<'a> {
    /// The rules for all documents.
    pub rules: StepRules,
    /// The goal of each document.
    pub each: Option<&'a HashMap<ItemKey, Goal>>,
}

impl Goals<'_> {
    /// The rules for a document that goes back to a moment; `None` when it goes back to something else.
    pub(super) fn moment_of(&self, item: &ItemKey) -> Option<StepRules> {
        match self.each {
            None => Some(self.rules),
            Some(each) => match each.get(item)? {
                Goal::At(at) => Some(StepRules { at: *at, ..self.rules }),
                Goal::Version(_) | Goal::NoDocument => None,
            },
        }
    }

    /// Decides about a document that goes back to a version. Pure: no I/O, no clock.
    pub fn decide_back(&self, item: &ItemKey, facts: Facts<'_>) -> Step {
        match self.each.and_then(|each| each.get(item)) {
            Some(Goal::At(at)) => decide(item, facts, StepRules { at: *at, ..self.rules }),
            Some(Goal::Version(wanted)) => to_version(item, &facts, wanted, self.rules),
            Some(Goal::NoDocument) => {
                let first = Timeline::of(facts.versions).versions().next().map_or(i64::MIN, |first| first.ts);
                let before = PointInTime::from_epoch(first.saturating_sub(1));
                decide(item, facts, StepRules { at: before, ..self.rules })
            }
            None => step(item, &facts, None, Action::Unknown, "the list does not say what it goes back to"),
        }
    }
}

fn to_version(item: &ItemKey, facts: &Facts<'_>, wanted: &str, rules: StepRules) -> Step {
    let version = match named(facts.versions, wanted) {
        Ok(version) => version,
        Err(problem) => return step(item, facts, None, Action::Unknown, &problem.to_string()),
    };
    let told = |action, note: &str| step(item, facts, Some(version), action, note);
    let live = facts.target.map(|live| live.etag.as_str());
    if version.op.is_some_and(Op::is_tombstone) {
        return match live {
            None => told(Action::Keep, ""),
            Some(_) if rules.delete_newer => told(Action::Delete, ""),
            Some(_) => {
                let when = PointInTime::from_epoch(version.ts);
                told(Action::Keep, &format!("did not exist then, deleted at {when}; --delete-newer deletes it again"))
            }
        };
    }
    if version.is_partial() {
        return told(Action::Unknown, version.why_partial());
    }
    if live.is_some() && version.etag.as_deref() == live {
        return told(Action::Keep, "");
    }
    if version.identity_unsure && !rules.named {
        return told(Action::Unknown, &format!("{}; --id with --pk restores it", Caveat::Identity));
    }
    // Doubts about the version itself; that it was in force at some time follows from the list.
    let known = as_of(std::slice::from_ref(version), PointInTime::END).today(rules.container);
    let is_of_version = |caveat: &&Caveat| !matches!(caveat, Caveat::LatestMode | Caveat::NextUncaptured);
    let caveats = known.caveats.iter().filter(is_of_version);
    let notes: Vec<String> = caveats.map(ToString::to_string).collect();
    let action = if live.is_some() { Action::Restore } else { Action::Recreate };
    Step { notes, ..told(action, "") }
}

fn step(item: &ItemKey, facts: &Facts<'_>, version: Option<&Version>, action: Action, note: &str) -> Step {
    let notes = if note.is_empty() { Vec::new() } else { vec![note.to_owned()] };
    Step { notes, ..Step::about(item, facts, version.map(Chosen::from), action) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::key::{KeyValue, PartitionKey},
        history::{frontier::Reach, live::Live},
    };

    fn version(ts: i64, op: &str, etag: &str, fidelity: &str) -> Version {
        let record = serde_json::json!({
            "id": format!("a~{etag}"), "_originalId": "a",
            "_change": {"v": 1, "op": op, "ts": ts, "lsn": ts, "etag": etag, "fidelity": fidelity},
        });
        Version::parse(&record.to_string()).unwrap()
    }

    fn decided(versions: &[Version], live: Option<&str>, back: Option<Goal>, delete_newer: bool) -> (Action, String) {
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::Null]) };
        let each = back.map(|back| (item.clone(), back)).into_iter().collect();
        let rules = StepRules { delete_newer, ..StepRules::at(PointInTime::END) };
        let live = live.map(|etag| Live { etag: etag.into(), ts: None, text: None });
        let facts = Facts {
            versions,
            unkeyed: &[],
            target: live.as_ref(),
            source: live.as_ref(),
            reach: Reach::ALL,
            lost: None,
        };
        let step = Goals { rules, each: Some(&each) }.decide_back(&item, facts);
        (step.action, step.notes.join("; "))
    }

    #[test]
    fn a_version_a_delete_and_no_document_each_have_their_action() {
        let life = [
            version(10, "create", "1", "exact"),
            version(20, "replace", "2", "partial"),
            version(30, "delete", "3", "exact"),
            version(40, "create", "4", "exact"),
        ];
        let to = |record: &str| Some(Goal::Version(record.to_owned()));
        for (live, back, delete_newer, action, note) in [
            (Some("4"), to("a~1"), false, Action::Restore, ""),
            (None, to("a~1"), false, Action::Recreate, ""),
            (Some("1"), to("a~1"), false, Action::Keep, ""),
            (Some("4"), to("4"), true, Action::Keep, ""),
            (Some("4"), to("a~2"), true, Action::Unknown, "only a part"),
            (Some("4"), to("a~9"), true, Action::Unknown, "no version a~9"),
            (Some("4"), to("a~3"), false, Action::Keep, "--delete-newer"),
            (Some("4"), to("a~3"), true, Action::Delete, ""),
            (None, to("a~3"), true, Action::Keep, ""),
            (Some("4"), Some(Goal::NoDocument), false, Action::Keep, "--delete-newer"),
            (Some("4"), Some(Goal::NoDocument), true, Action::Delete, ""),
            (None, Some(Goal::NoDocument), true, Action::Keep, ""),
            (Some("4"), Some(Goal::At(PointInTime::from_epoch(15))), false, Action::Restore, ""),
            (Some("4"), None, true, Action::Unknown, "does not say"),
        ] {
            let (found, notes) = decided(&life, live, back.clone(), delete_newer);
            assert_eq!(found, action, "{live:?} {back:?}: {notes}");
            assert!(notes.contains(note), "{live:?} {back:?}: {notes}");
        }
        // What began before the history did may have existed: it is never deleted for that reason.
        let (action, notes) = decided(&life[1..], Some("4"), Some(Goal::NoDocument), true);
        assert_eq!(action, Action::Unknown);
        assert!(notes.contains("earliest known"), "{notes}");
        assert_eq!(decided(&[], Some("4"), Some(Goal::NoDocument), true).0, Action::Unknown);
    }
}

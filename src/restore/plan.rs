//! The plan: one step for each item, decided by a pure function and shown before anything is written.

use serde::{Deserialize, Serialize};

pub use super::step::{Action, Chosen, Step};
use crate::{
    change::{
        key::ItemKey,
        record::id_of_version,
        time::{PointInTime, span_text},
        version::Version,
    },
    history::{
        as_of::{AsOf, Caveat, State, as_of},
        known::{Facts, with_live},
    },
};

/// Version of the plan's file format.
pub const PLAN_VERSION: u32 = 2;
/// The member that marks a restored document, as in the original demo: epoch seconds of the plan.
pub const STAMP: &str = "restored_at";

/// The containers that a plan was made for; it is refused elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanTarget {
    /// The account's endpoint.
    pub account: String,
    /// The database.
    pub database: String,
    /// The history's source container.
    pub source: String,
    /// The history.
    pub changes: String,
    /// The container that documents are written to.
    pub target: String,
}

/// The part of a request that decides about a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRules {
    /// The point in time.
    pub at: PointInTime,
    /// Whether items that did not exist then are deleted.
    pub delete_newer: bool,
    /// Whether documents are recreated when latest-version mode cannot tell whether they were deleted before.
    pub recreate_deleted: bool,
    /// Whether the caller named each document: then doubts are reported, and it is restored all the same.
    pub named: bool,
    /// The source container of today.
    pub container: Option<u64>,
    /// Whether the history has versions of another container of its name: then a creation in today's does not prove
    /// that the document did not exist before.
    pub recreated: bool,
}

impl StepRules {
    /// Rules for a moment without special requests.
    pub fn at(at: PointInTime) -> Self {
        Self { at, delete_newer: false, recreate_deleted: false, named: false, container: None, recreated: false }
    }

    fn is_earlier(&self, version: &Version) -> bool {
        version.is_of_another(self.container)
    }
}

/// The result of a decision.
struct Decided {
    action: Action,
    notes: Vec<String>,
}

impl Decided {
    fn new(action: Action) -> Self {
        Self { action, notes: Vec::new() }
    }

    fn unknown(note: impl Into<String>) -> Self {
        Self { action: Action::Unknown, notes: vec![note.into()] }
    }

    fn keep(note: impl Into<String>) -> Self {
        Self { action: Action::Keep, notes: vec![note.into()] }
    }
}

/// Decides about one item from everything that is known about it. Pure: no I/O, no clock.
pub fn decide(item: &ItemKey, facts: Facts<'_>, rules: StepRules) -> Step {
    let all = with_live(&item.id, facts.versions, facts.source);
    let known = as_of(&all, rules.at).today(rules.container);
    let Decided { action, mut notes } = judged(item, &facts, &all, &known, rules);
    if let Some(distance) = known.distance().filter(|d| action.writes() && *d > 0) {
        notes.push(format!("{} before the point in time", span_text(distance)));
    }
    // The etag of a MongoDB document comes back with its bytes: what lies between two of them may not be known. The etag
    // of any other one proves that it is that version still.
    let came_back = known.next.is_some_and(|next| next.is_native) && matches!(known.state, State::Document(_));
    let may_differ = came_back || matches!(known.state, State::Deleted(_));
    if action.writes() || (action == Action::Keep && may_differ) {
        notes.extend(known.caveats.iter().map(ToString::to_string));
    }
    Step { notes, ..Step::about(item, &facts, known.version().map(Chosen::from), action) }
}

impl Step {
    /// The action for an item, before it is known what it changes.
    pub fn about(item: &ItemKey, facts: &Facts<'_>, version: Option<Chosen>, action: Action) -> Self {
        let live = facts.target.map(|live| live.etag.as_str());
        let saved = facts.versions.iter().find(|v| live.is_some() && v.etag.as_deref() == live && is_exact(v));
        let by_etag = live.map(|etag| id_of_version(&item.id, etag));
        let record = saved.map(|saved| &saved.record_id).filter(|record| Some(*record) != by_etag.as_ref());
        Self {
            version,
            live: live.map(String::from),
            saved: saved.is_some(),
            record: record.cloned(),
            ..Self::new(&item.id, item.partition_key.to_json(), action)
        }
    }

    /// The record of the version that was live while planning, if the history has it or will have it.
    pub fn live_record(&self) -> Option<String> {
        self.record.clone().or_else(|| Some(id_of_version(&self.id, self.live.as_deref()?)))
    }
}

fn judged(item: &ItemKey, facts: &Facts<'_>, all: &[Version], known: &AsOf<'_>, rules: StepRules) -> Decided {
    let beyond = facts.is_beyond(rules.at);
    let live = facts.target.map(|live| live.etag.as_str());
    if let Some(doubt) = facts.doubt_of_feed(item, known, live) {
        return Decided::unknown(doubt);
    }
    match (&known.state, live) {
        (State::Empty, _) => Decided::unknown("no version in the history"),
        (State::NotYet { earliest }, live) if known.created_later() => match (live, facts.dropped(known)) {
            (_, Some(doubt)) => Decided::unknown(doubt),
            (None, None) => Decided::new(Action::Keep),
            (Some(_), None) if !rules.delete_newer => Decided::keep(format!(
                "was created later, at {}; --delete-newer deletes it",
                PointInTime::from_epoch(earliest.ts)
            )),
            (Some(_), None) if rules.recreated => Decided::unknown(
                "was created later, but the container was made again since: whether it was in the one before is not known",
            ),
            (Some(_), None) => Decided::new(Action::Delete),
        },
        (State::NotYet { earliest }, _) if earliest.is_live() => Decided::unknown("no version in the history"),
        (State::NotYet { earliest }, _) => Decided::unknown(format!(
            "no version at or before the point in time; the earliest known is of {}",
            PointInTime::from_epoch(earliest.ts)
        )),
        (State::Deleted(_), None) => Decided::new(Action::Keep),
        (State::Deleted(_), Some(_)) if rules.delete_newer && beyond => Decided::unknown(format!(
            "{}: whether it was made again before the point in time is not known",
            facts.ends()
        )),
        (State::Deleted(v), Some(_)) if rules.delete_newer && rules.is_earlier(v) => Decided::unknown(
            "was deleted, but the container was made again since: whether it was made again in the one before is not known",
        ),
        (State::Deleted(_), Some(_)) if rules.delete_newer => Decided::new(Action::Delete),
        (State::Deleted(v), Some(_)) => Decided::keep(format!(
            "did not exist then, deleted at {}; --delete-newer deletes it again",
            PointInTime::from_epoch(v.ts)
        )),
        (State::Document(v), Some(etag)) if v.etag.as_deref() == Some(etag) => {
            match facts.dropped(known) {
                _ if v.is_live() => Decided::keep(Caveat::Uncaptured.to_string()),
                // It is the same today, and may have been another one then.
                Some(doubt) if !rules.named => Decided::unknown(doubt),
                Some(doubt) => Decided::keep(doubt),
                None => Decided::new(Action::Keep),
            }
        }
        (State::Document(v), _) if v.is_live() => Decided::unknown(
            "the version in force is the live document of the source, which the history does not have yet; --wait waits for it",
        ),
        (State::Document(v), live) => {
            // Fields that were left out on purpose would be lost in the live document as well.
            if v.is_partial() {
                return Decided::unknown(v.why_partial());
            }
            if v.identity_unsure && !rules.named {
                return Decided::unknown(format!("{}; --id with --pk restores it", Caveat::Identity));
            }
            let dropped = facts.dropped(known);
            let unseen = facts.unseen_delete(known, all, rules.is_earlier(v));
            match (live, unseen) {
                (None, Some(unseen)) if !rules.recreate_deleted && !rules.named => {
                    Decided::unknown(format!("{unseen}; --recreate-deleted restores it anyway"))
                }
                _ if dropped.is_some() && !rules.recreate_deleted && !rules.named => {
                    Decided::unknown(format!("{}; --recreate-deleted restores it anyway", dropped.unwrap_or_default()))
                }
                (None, _) => Decided { action: Action::Recreate, notes: Vec::from_iter(dropped) },
                (Some(_), _) => {
                    let notes = dropped.into_iter().chain(beyond.then(|| facts.ends())).collect();
                    Decided { action: Action::Restore, notes }
                }
            }
        }
    }
}

/// Whether the record holds the document exactly; dates that the host may have rewritten could not be restored.
pub fn is_exact(version: &Version) -> bool {
    version.op.is_some_and(|op| !op.is_tombstone()) && !version.is_normalized() && !version.is_partial()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        change::{
            VersionFidelity,
            key::{KeyValue, PartitionKey},
            record::RecordFidelity,
        },
        history::{frontier::Reach, live::Live},
    };

    fn version(ts: i64, op: &str, etag: &str) -> Version {
        let record = serde_json::json!({
            "id": format!("a~{etag}"), "_originalId": "a",
            "_change": {"v": 1, "op": op, "ts": ts, "lsn": ts, "etag": etag},
        });
        Version::parse(&record.to_string()).unwrap()
    }

    fn decided(item: &ItemKey, versions: &[Version], live: Option<&str>, rules: StepRules) -> Step {
        let live = live.map(|etag| Live { etag: etag.into(), ts: None, text: None });
        let (live, reach) = (live.as_ref(), Reach::ALL);
        decide(item, Facts { versions, unkeyed: &[], target: live, source: live, reach, lost: None }, rules)
    }

    fn action(versions: &[Version], live: Option<&str>, at: i64, delete_newer: bool) -> (Action, String) {
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::String("p".into())]) };
        let step =
            decided(&item, versions, live, StepRules { delete_newer, ..StepRules::at(PointInTime::from_epoch(at)) });
        assert_eq!(step.item().unwrap(), item);
        (step.action, step.notes.join("; "))
    }

    #[test]
    fn each_situation_has_its_action_and_says_why() {
        let life = [
            version(10, "create", "1"),
            version(20, "replace", "2"),
            version(30, "delete", "3"),
            version(40, "create", "4"),
        ];
        for (live, at, delete_newer, expected, note) in [
            // It existed then ...
            (Some("4"), 25, false, Action::Restore, "5s before"),
            (Some("2"), 25, false, Action::Keep, ""),
            (None, 25, false, Action::Recreate, ""),
            (Some("4"), 20, false, Action::Restore, ""),
            (Some("4"), 19, false, Action::Restore, "9s before"),
            // ... or had been deleted ...
            (None, 35, false, Action::Keep, ""),
            (Some("4"), 35, false, Action::Keep, "--delete-newer"),
            (Some("4"), 35, true, Action::Delete, ""),
            // ... or had not been created yet.
            (None, 5, false, Action::Keep, ""),
            (Some("4"), 5, false, Action::Keep, "created later"),
            (Some("4"), 5, true, Action::Delete, ""),
        ] {
            let (action, notes) = action(&life, live, at, delete_newer);
            assert_eq!(action, expected, "{live:?} at {at}: {notes}");
            assert!(notes.contains(note), "{live:?} at {at}: {notes}");
        }
    }

    #[test]
    fn a_delete_before_a_gap_does_not_say_that_there_was_no_document() {
        let mut life = vec![version(10, "create", "1"), version(20, "delete", "2"), version(40, "replace", "4")];
        // It was recreated in between, and that version was pruned.
        life[2].prev_lsn = Some(30);
        for (live, delete_newer) in [(Some("4"), true), (Some("4"), false), (None, true)] {
            let (action, notes) = action(&life, live, 35, delete_newer);
            assert_eq!(action, Action::Unknown, "{notes}");
            assert!(notes.contains("made again") && notes.contains("LSN 30"), "{notes}");
        }
        // The one before is there: it was the creation.
        life.push(version(30, "create", "3"));
        assert_eq!(action(&life, Some("4"), 25, true).0, Action::Delete);
    }

    #[test]
    fn a_part_of_a_document_is_never_put_back_for_the_whole() {
        let part =
            Version { fidelity: Some(VersionFidelity::Known(RecordFidelity::Partial)), ..version(20, "replace", "2") };
        let life = [version(10, "create", "1"), part, version(30, "replace", "3")];
        for live in [Some("3"), None] {
            let (action, notes) = action(&life, live, 25, false);
            assert_eq!(action, Action::Unknown);
            assert!(notes.contains("only a part"), "{notes}");
        }
        // An older, complete version can be; the partial one does not count as a copy of the live document.
        assert_eq!(action(&life, Some("2"), 15, false).0, Action::Restore);
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::Null]) };
        let rules = StepRules::at(PointInTime::from_epoch(15));
        assert!(!decided(&item, &life, Some("2"), rules).saved);
        assert!(decided(&item, &life, Some("3"), rules).saved);
    }

    #[test]
    fn what_cannot_be_known_is_never_guessed() {
        // The first version is not a creation: the document may have existed before.
        let history = [version(20, "upsert", "2")];
        for delete_newer in [false, true] {
            let (action, notes) = action(&history, Some("2"), 10, delete_newer);
            assert_eq!(action, Action::Unknown);
            assert!(notes.contains("earliest known"), "{notes}");
        }
        assert_eq!(action(&[], Some("2"), 10, true).0, Action::Unknown);
    }

    /// An executable model: what one document was after each operation of a random life. Whatever the point in time,
    /// with ties within a second, deletes and re-creations, records in any order and delivered twice, the step leads to
    /// what the document was then.
    mod model {
        use proptest::prelude::*;

        use super::*;

        #[derive(Debug, Clone, Copy)]
        enum Did {
            Write,
            Delete,
        }

        proptest! {
            #[test]
            fn a_step_leads_to_what_the_document_was(
                life in proptest::collection::vec((prop_oneof![3 => Just(Did::Write), 1 => Just(Did::Delete)], 0..3i64), 1..12),
                at in 0..40i64,
                order in any::<u64>(),
            ) {
                let (mut ts, mut exists) = (10, None::<String>);
                let mut versions: Vec<Version> = Vec::new();
                let mut states: Vec<(i64, Option<String>)> = Vec::new();
                for (lsn, (did, pause)) in life.into_iter().enumerate() {
                    ts += pause;
                    let op = match (did, &exists) {
                        (Did::Write, None) => "create",
                        (Did::Write, Some(_)) => "replace",
                        (Did::Delete, Some(_)) => "delete",
                        (Did::Delete, None) => continue,
                    };
                    let etag = format!("e{lsn}");
                    exists = (op != "delete").then(|| etag.clone());
                    let record = serde_json::json!({
                        "id": format!("a~{op}{lsn}"), "_originalId": "a",
                        "_change": {"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": etag},
                    });
                    versions.push(Version::parse(&record.to_string()).unwrap());
                    states.push((ts, exists.clone()));
                }
                prop_assume!(!versions.is_empty());
                let then = states.iter().rev().find(|(t, _)| *t <= at).and_then(|(_, state)| state.clone());
                let doubled = versions.clone();
                versions.extend(doubled);
                let rotate = (order % versions.len() as u64) as usize;
                versions.rotate_left(rotate);
                if order % 2 == 0 {
                    versions.reverse();
                }

                let item = ItemKey { id: "a".into(), partition_key: PartitionKey(vec![KeyValue::Null]) };
                let rules = StepRules { delete_newer: true, ..StepRules::at(PointInTime::from_epoch(at)) };
                let step = decided(&item, &versions, exists.as_deref(), rules);
                let leads_to = match step.action {
                    Action::Keep => exists.clone(),
                    Action::Delete => None,
                    Action::Restore | Action::Recreate => {
                        let chosen = step.version.clone().unwrap();
                        versions.iter().find(|v| v.record_id == chosen.record_id).unwrap().etag.clone()
                    }
                    Action::Unknown => panic!("everything is known here: {step:?}"),
                };
                prop_assert_eq!(leads_to, then);
                prop_assert_eq!(step.action == Action::Recreate, exists.is_none() && step.action.writes());
            }
        }
    }
}

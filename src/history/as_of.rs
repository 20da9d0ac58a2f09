//! As of T: which version of one document was in force, and what cannot be known about that.

pub use super::caveat::Caveat;
use super::timeline::Timeline;
use crate::change::{Op, time::PointInTime, version::Version};

/// The state of a document at a moment.
#[derive(Debug, Clone, PartialEq)]
pub enum State<'a> {
    /// It existed: this version was in force.
    Document(&'a Version),
    /// It did not exist: since this tombstone.
    Deleted(&'a Version),
    /// There is no version at or before the moment; `earliest` is the first one known.
    NotYet {
        /// The first known version, later than the moment.
        earliest: &'a Version,
    },
    /// There is no version at all.
    Empty,
}

/// The answer to "as of T" for one document.
#[derive(Debug, Clone, PartialEq)]
pub struct AsOf<'a> {
    /// The requested moment.
    pub at: PointInTime,
    /// The state of the document.
    pub state: State<'a>,
    /// The version after the one in force, if one is known.
    pub next: Option<&'a Version>,
    /// The caveats, most serious first.
    pub caveats: Vec<Caveat>,
}

impl<'a> AsOf<'a> {
    /// The version that decided: the document, or the tombstone.
    pub fn version(&self) -> Option<&'a Version> {
        match self.state {
            State::Document(version) | State::Deleted(version) => Some(version),
            State::NotYet { .. } | State::Empty => None,
        }
    }

    /// Seconds from the version's time to the requested moment; `None` without a version or without a moment.
    pub fn distance(&self) -> Option<i64> {
        let version = self.version().filter(|_| self.at != PointInTime::END)?;
        self.at.seconds().checked_sub(version.ts)
    }

    /// The same, knowing which container there is today ([`container_of`]): what is of another one ended with that.
    ///
    /// [`container_of`]: crate::change::version::container_of
    pub fn today(mut self, container: Option<u64>) -> Self {
        let other = match &self.state {
            State::Document(version) => version.is_of_another(container),
            _ => false,
        };
        if other && !self.caveats.iter().any(|c| matches!(c, Caveat::Recreated { .. })) {
            self.caveats.insert(0, Caveat::Recreated { until: None });
        }
        self
    }

    /// Why the version in force may have ended before the moment, though a later one is known: the later one belongs to
    /// a recreated document, so there was a delete in between that nobody captured.
    pub fn remade(&self) -> Option<String> {
        let (State::Document(version), Some(next)) = (&self.state, self.next) else { return None };
        let is_another = version.is_of_another_life(next);
        let is_unseen = self.caveats.iter().any(|caveat| matches!(caveat, Caveat::Gap { .. } | Caveat::LatestMode));
        (is_unseen && (is_another || next.op == Some(Op::Create))).then(|| {
            format!(
                "was deleted and made again by {}, and its delete was not captured: it may have been deleted before the point in time",
                PointInTime::from_epoch(next.ts)
            )
        })
    }

    /// Whether the history proves that the document was created after the moment: the first known version is its
    /// creation. Otherwise nothing is known about the moment.
    pub fn created_later(&self) -> bool {
        matches!(self.state, State::NotYet { earliest } if earliest.op == Some(Op::Create))
    }
}

/// The version in force at a moment: the last one with `ts` <= `at`, in the order of [`Timeline`]. With [`as_of`], the
/// one place where a point in time meets a history.
pub fn boundary(versions: &[Version], at: PointInTime) -> Option<&Version> {
    Timeline::of(versions).at(at).0
}

/// The state at a moment of the document with these versions, in any order. [`PointInTime::END`] asks for the newest.
pub fn as_of(versions: &[Version], at: PointInTime) -> AsOf<'_> {
    let line = Timeline::of(versions);
    let (chosen, next) = line.at(at);
    let Some(chosen) = chosen else {
        let state = next.map_or(State::Empty, |earliest| State::NotYet { earliest });
        return AsOf { at, state, next, caveats: Vec::new() };
    };
    let state = if chosen.op.is_some_and(Op::is_tombstone) { State::Deleted(chosen) } else { State::Document(chosen) };
    let mut caveats = caveats(versions, chosen, next);
    if line.is_unordered(chosen.ts) {
        caveats.insert(0, Caveat::Unordered { ts: chosen.ts });
    }
    AsOf { at, state, next, caveats }
}

fn caveats(versions: &[Version], chosen: &Version, next: Option<&Version>) -> Vec<Caveat> {
    let mut caveats = Vec::new();
    if chosen.is_live() {
        return vec![Caveat::Uncaptured];
    }
    if chosen.identity_unsure {
        caveats.push(Caveat::Identity);
    }
    caveats.extend(unseen(versions, chosen, next));
    if chosen.op.is_none() {
        caveats.push(Caveat::LegacyTime);
    }
    // Of two versions, the later time is the one that may be too late.
    if chosen.ts_from_capture || next.is_some_and(|next| next.ts_from_capture) {
        caveats.push(Caveat::CaptureTime);
    }
    if chosen.is_normalized() {
        caveats.push(Caveat::Normalized);
    }
    if chosen.is_looked_up() {
        caveats.push(Caveat::LookedUp);
    }
    if chosen.is_partial() {
        caveats.push(if chosen.is_absent() { Caveat::Absent } else { Caveat::Partial });
    }
    if chosen.op == Some(Op::Baseline) {
        caveats.push(Caveat::Baseline);
    }
    caveats
}

/// Returns the caveat about versions that may lie unseen before the next one, or after the newest.
pub fn unseen(versions: &[Version], chosen: &Version, next: Option<&Version>) -> Option<Caveat> {
    let gone = chosen.op.is_some_and(Op::is_tombstone);
    let Some(next) = next else {
        // The newest version: in latest-version mode the document may have been deleted since.
        return (chosen.op == Some(Op::Upsert)).then_some(Caveat::LatestMode);
    };
    if !gone && chosen.is_of_another(next.container) {
        return Some(Caveat::Recreated { until: Some(next.ts) });
    }
    match (next.op, next.prev_lsn, chosen.lsn) {
        (Some(Op::Create), _, _) if gone => None,
        (Some(Op::Create), None, _) => Some(Caveat::Gap { lsn: None, until: next.ts }),
        (_, Some(previous), Some(lsn)) if previous != lsn => {
            let seen = versions.iter().any(|v| v.lsn == Some(previous));
            (!seen).then_some(Caveat::Gap { lsn: Some(previous), until: next.ts })
        }
        // A version that was read outside the feed names no predecessor in any mode; its own origin tells the mode.
        (Some(Op::Upsert), None, _) if next.is_live() && chosen.is_of_every_version() => Some(Caveat::NextUncaptured),
        (Some(Op::Upsert | Op::Baseline), None, _) => Some(Caveat::LatestMode),
        // A delete is followed by a creation.
        (Some(Op::Replace | Op::Update), None, _) if gone => Some(Caveat::Gap { lsn: None, until: next.ts }),
        // What was deleted twice was made in between. Other deletes name no predecessor in some histories.
        (Some(Op::Delete), None, _) if gone && chosen.is_native && next.is_native => {
            Some(Caveat::Gap { lsn: None, until: next.ts })
        }
        _ if !gone && next.is_native && (chosen.is_filtered() || next.is_filtered()) => Some(Caveat::Filtered),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::change::version::container_of;

    fn version(ts: i64, lsn: Option<i64>, prev: Option<i64>, op: &str, more: serde_json::Value) -> Version {
        let mut change = json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "prevLsn": prev});
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let record = json!({"id": format!("a~{ts}-{}", lsn.unwrap_or(0)), "_originalId": "a", "_change": change});
        Version::parse(&record.to_string()).unwrap()
    }

    fn plain(ts: i64, lsn: i64, prev: Option<i64>, op: &str) -> Version {
        version(ts, Some(lsn), prev, op, json!({}))
    }

    fn at(seconds: i64) -> PointInTime {
        PointInTime::from_epoch(seconds)
    }

    #[test]
    fn what_is_of_a_container_before_says_so_and_is_no_gap() {
        let of = |ts, lsn, prev, op, rid| version(ts, Some(lsn), prev, op, json!({"rid": rid}));
        let (one, other) = ("47UeAPmUTk0GEQAAAAAAAA==", "47UeAPmUTk4GEQAAAAAAAA==");
        let versions = [
            of(10, 90, None, "create", one),
            of(20, 95, Some(90), "replace", one),
            of(30, 2, None, "create", other),
            of(40, 5, Some(2), "replace", other),
        ];
        let found = |seconds: i64, today| as_of(&versions, at(seconds)).today(today).caveats;
        let (before, now) = (container_of(one), container_of(other));
        assert_eq!(found(15, now), [Caveat::Recreated { until: None }]);
        assert_eq!(found(25, now), [Caveat::Recreated { until: Some(30) }]);
        assert_eq!(found(25, None), [Caveat::Recreated { until: Some(30) }]);
        assert_eq!(found(35, now), []);
        assert_eq!(found(45, before), [Caveat::Recreated { until: None }]);
        // A document that was deleted before has ended anyway.
        let gone =
            [of(10, 90, None, "create", one), of(20, 95, Some(90), "delete", one), of(30, 2, None, "create", other)];
        assert_eq!(as_of(&gone, at(25)).today(now).caveats, []);
    }

    #[test]
    fn a_document_is_followed_through_its_life() {
        let versions = [
            plain(10, 1, None, "create"),
            plain(20, 2, Some(1), "replace"),
            plain(20, 3, Some(2), "replace"),
            plain(30, 4, Some(3), "delete"),
            plain(40, 5, None, "create"),
        ];
        let state = |t| as_of(&versions, at(t)).state;
        assert_eq!(state(9), State::NotYet { earliest: &versions[0] });
        assert!(as_of(&versions, at(9)).created_later());
        assert_eq!(state(10), State::Document(&versions[0]));
        assert_eq!(state(19), State::Document(&versions[0]));
        assert_eq!(state(20), State::Document(&versions[2]), "the last version of the second");
        assert_eq!(state(30), State::Deleted(&versions[3]));
        assert_eq!(state(40), State::Document(&versions[4]));
        assert_eq!(as_of(&versions, PointInTime::END).state, State::Document(&versions[4]));
        assert_eq!(as_of(&versions, PointInTime::END).distance(), None);
        assert_eq!(as_of(&versions, at(25)).distance(), Some(5));
        assert_eq!(as_of(&versions, at(25)).next, Some(&versions[3]));
        assert_eq!(as_of(&[], at(25)).state, State::Empty);
        for t in 0..50 {
            assert_eq!(as_of(&versions, at(t)).caveats, [], "{t}");
        }
    }

    #[test]
    fn what_cannot_be_known_is_said() {
        let caveats = |versions: &[Version], t| as_of(versions, at(t)).caveats;
        let broken = [plain(10, 1, None, "create"), plain(30, 9, Some(5), "replace")];
        assert_eq!(caveats(&broken, 20), [Caveat::Gap { lsn: Some(5), until: 30 }]);
        assert_eq!(caveats(&broken, 30), [], "what is missing is older than the version in force");
        let unseen_delete = [plain(10, 1, None, "create"), plain(30, 9, None, "create")];
        assert_eq!(caveats(&unseen_delete, 20), [Caveat::Gap { lsn: None, until: 30 }]);
        let unseen_create = [plain(10, 1, None, "delete"), plain(30, 9, Some(5), "delete")];
        assert_eq!(caveats(&unseen_create, 20), [Caveat::Gap { lsn: Some(5), until: 30 }]);
        let latest = [plain(10, 1, None, "upsert"), plain(30, 9, None, "upsert")];
        assert_eq!(caveats(&latest, 20), [Caveat::LatestMode]);
        assert_eq!(caveats(&latest, 30), [Caveat::LatestMode]);
        let healed = [plain(10, 1, None, "upsert"), plain(30, 9, Some(1), "replace")];
        assert_eq!(caveats(&healed, 20), [], "the chain closes");
        // What was listed names no predecessor in any mode; and a delete is followed by a creation.
        for op in ["create", "delete"] {
            let listed = [plain(10, 1, None, op), version(30, None, None, "baseline", json!({}))];
            assert_eq!(caveats(&listed, 20), [Caveat::LatestMode], "{op}");
        }
        let unseen_creation = [plain(10, 1, None, "delete"), plain(30, 9, None, "replace")];
        assert_eq!(caveats(&unseen_creation, 20), [Caveat::Gap { lsn: None, until: 30 }]);
        // MongoDB names no predecessor, but nothing is deleted twice.
        let native = |version: Version| Version { is_native: true, ..version };
        let deleted_twice = [plain(10, 1, None, "delete"), plain(30, 9, None, "delete")].map(native);
        assert_eq!(caveats(&deleted_twice, 20), [Caveat::Gap { lsn: None, until: 30 }]);
        // Nor does it say what a filter left out.
        for vias in [["follow", "follow"], ["filter", "follow"], ["follow", "filter"]] {
            let of = |ts, via| native(version(ts, Some(ts), None, "replace", json!({"via": via})));
            let expected = if vias.contains(&"filter") { vec![Caveat::Filtered] } else { Vec::new() };
            assert_eq!(caveats(&[of(10, vias[0]), of(30, vias[1])], 20), expected, "{vias:?}");
        }
        let others = [
            version(10, None, None, "baseline", json!({})),
            version(20, Some(2), None, "create", json!({"fidelity": "normalized", "tsFrom": "capture"})),
        ];
        assert_eq!(caveats(&others[..1], 10), [Caveat::Baseline]);
        assert_eq!(caveats(&others[1..], 20), [Caveat::CaptureTime, Caveat::Normalized]);
        let late =
            [plain(10, 1, None, "create"), version(20, Some(2), Some(1), "replace", json!({"tsFrom": "capture"}))];
        assert_eq!(caveats(&late, 15), [Caveat::CaptureTime], "the later one may have been in force already");
        let legacy = [Version::parse(r#"{"id":"x","_originalId":"a","_lsn":9,"_ts":50}"#).unwrap()];
        assert_eq!(caveats(&legacy, 50), [Caveat::LegacyTime]);
        assert!(!as_of(&legacy, at(49)).created_later());
    }

    fn any_version() -> impl Strategy<Value = Version> {
        // Narrow ranges, so that ties happen all the time.
        let op = prop_oneof![Just("create"), Just("replace"), Just("delete"), Just("upsert"), Just("baseline")];
        (0..6i64, proptest::option::of(0..4i64), proptest::option::of(0..4i64), op, "[ab]{1,2}")
            .prop_map(|(ts, lsn, prev, op, id)| Version { record_id: id, ..version(ts, lsn, prev, op, json!({})) })
    }

    proptest! {
        /// Compared with the simplest model: play the versions in order, stop at T.
        #[test]
        fn the_state_is_what_playing_the_versions_up_to_then_leaves(
            versions in proptest::collection::vec(any_version(), 0..12),
            t in -1..7i64,
        ) {
            let known: Vec<Version> = versions.iter().filter(|v| v.lsn.is_some()).cloned().collect();
            // When all have an LSN, the order is that of time and LSN; otherwise at least the second is certain.
            let second = as_of(&versions, at(t)).version().map(|v| v.ts);
            prop_assert_eq!(second, versions.iter().map(|v| v.ts).filter(|ts| *ts <= t).max());
            let versions = known;
            let mut ordered: Vec<&Version> = versions.iter().collect();
            ordered.sort_by(|a, b| a.position().cmp(&b.position()));
            let mut in_force = None;
            for version in ordered.iter().filter(|v| v.ts <= t) {
                in_force = Some(version.position());
            }
            let answer = as_of(&versions, at(t));
            prop_assert_eq!(answer.version().map(Version::position), in_force.clone());
            match answer.state {
                State::Document(v) => prop_assert!(v.document.is_some()),
                State::Deleted(v) => prop_assert!(v.document.is_none()),
                State::NotYet { earliest } => {
                    prop_assert!(earliest.ts > t);
                    prop_assert_eq!(earliest.position(), ordered[0].position());
                }
                State::Empty => prop_assert!(versions.is_empty()),
            }
            let next = ordered.iter().find(|v| in_force.as_ref().is_none_or(|p| v.position() > *p));
            prop_assert_eq!(answer.next.map(Version::position), next.map(|v| v.position()));
        }

        /// The order in which records are read, or reading them twice, changes nothing.
        #[test]
        fn neither_order_nor_doubles_matter(
            (versions, shuffled) in proptest::collection::vec(any_version(), 0..10).prop_flat_map(|versions| {
                let doubled = [versions.clone(), versions.clone()].concat();
                (Just(versions), Just(doubled).prop_shuffle())
            }),
            t in -1..7i64,
        ) {
            // Two records with the same id are one record: random versions may include such pairs with different
            // content.
            let mut ids = std::collections::HashSet::new();
            prop_assume!(versions.iter().all(|v| ids.insert((v.ts, v.lsn, v.record_id.clone()))));
            prop_assert_eq!(as_of(&versions, at(t)), as_of(&shuffled, at(t)));
        }
    }
}

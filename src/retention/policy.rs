//! Decides which versions are kept. Pure: versions, a policy and the time go in, a choice comes out.
//!
//! The promise: whatever `as_of` answers for an instant that the policy keeps, it answers alike afterwards; for every
//! other instant it may know less, but never says that a document did not exist when it did.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, Days, Months, NaiveTime};
use serde::Serialize;

use crate::change::{Op, version::Version};
use crate::history::timeline::Timeline;

/// How many rounds a removal takes; see [`RetentionPlan::rounds`].
pub const ROUNDS: usize = 3;

/// How long what is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Every instant of the last seconds, this many.
    pub within: i64,
    /// The ends of the days (UTC) of the last seconds, this many.
    pub daily: Option<i64>,
    /// The ends of the months (UTC) of the last seconds, this many.
    pub monthly: Option<i64>,
    /// Documents that were deleted before all of that are forgotten altogether.
    pub drop_deleted: bool,
}

/// Why a version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepReason {
    /// It is of the window.
    Window,
    /// It was in force when the window began.
    InForce,
    /// It was in force at the end of a day that is kept.
    Day,
    /// It was in force at the end of a month that is kept.
    Month,
    /// It is the newest.
    Newest,
    /// It tells whether there was something before the next one that is kept.
    Marker,
}

impl KeepReason {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 6] = [Self::Window, Self::InForce, Self::Day, Self::Month, Self::Newest, Self::Marker];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Window => "window",
            Self::InForce => "in-force",
            Self::Day => "day",
            Self::Month => "month",
            Self::Newest => "newest",
            Self::Marker => "marker",
        }
    }
}

/// The instants that a policy keeps, for one moment of running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPlan {
    /// From here on every second is kept.
    pub window: i64,
    /// Single seconds before that, with their reason; the one with the longest view wins.
    points: BTreeMap<i64, KeepReason>,
    drop_deleted: bool,
}

impl Policy {
    /// The instants that are kept when it is `now`, in epoch seconds.
    pub fn at(&self, now: i64) -> RetentionPlan {
        let window = now.saturating_sub(self.within.max(0));
        let mut points = BTreeMap::new();
        for (span, reason) in [(self.daily, KeepReason::Day), (self.monthly, KeepReason::Month)] {
            let Some(from) = span.map(|span| now.saturating_sub(span.max(0))) else { continue };
            points.extend(ends(from, window, reason).map(|end| (end, reason)));
        }
        RetentionPlan { window, points, drop_deleted: self.drop_deleted }
    }
}

/// The last seconds of days or months, from a moment up to another one.
fn ends(from: i64, until: i64, reason: KeepReason) -> impl Iterator<Item = i64> {
    let first = DateTime::from_timestamp(from, 0).map(|t| t.date_naive());
    let first = if reason == KeepReason::Month { first.and_then(|day| day.with_day(1)) } else { first };
    let step = move |day: chrono::NaiveDate| {
        if reason == KeepReason::Month {
            day.checked_add_months(Months::new(1))
        } else {
            day.checked_add_days(Days::new(1))
        }
    };
    std::iter::successors(first.and_then(step), move |day| step(*day))
        .map(|next| next.and_time(NaiveTime::MIN).and_utc().timestamp() - 1)
        .skip_while(move |end| *end < from)
        .take_while(move |end| *end < until)
}

impl RetentionPlan {
    /// The single instants before the window, oldest first.
    pub fn points(&self) -> impl Iterator<Item = i64> + '_ {
        self.points.keys().copied()
    }

    /// The earliest instant that is kept.
    pub fn earliest(&self) -> i64 {
        self.points.keys().next().copied().unwrap_or(self.window).min(self.window)
    }

    /// Why each version of one item, in any order, stays; `None` for those that go.
    pub fn decide(&self, versions: &[Version]) -> Vec<Option<KeepReason>> {
        let line = Timeline::of(versions);
        let order: Vec<usize> = line.order().collect();
        let ordered: Vec<&Version> = order.iter().map(|i| &versions[*i]).collect();
        let mut kept = self.decide_ordered(&ordered);
        // Where nothing tells which version of a second was its last, all of them may be.
        for place in 0..kept.len() {
            let second = ordered[place].ts;
            if kept[place].is_some() && line.is_unordered(second) {
                let same: Vec<usize> = (0..kept.len()).filter(|other| ordered[*other].ts == second).collect();
                same.into_iter().for_each(|other| kept[other] = kept[other].or(kept[place]));
            }
        }
        let mut decided = vec![None; versions.len()];
        for (place, reason) in kept.into_iter().enumerate() {
            decided[order[place]] = reason;
        }
        // A copy of the original demo of which there is a record is needed by nobody, once it is old.
        for copy in line.copies() {
            decided[*copy] = (versions[*copy].ts >= self.window).then_some(KeepReason::Window);
        }
        decided
    }

    /// In which round each version of one item that goes is removed, for what `decide` said of them. A round begins when
    /// the one before it is through, so that what an interrupted prune leaves behind says nothing that is not so:
    /// creations go before what precedes them (without it they say that there was no document before), and of a
    /// document that is forgotten altogether the tombstones go last (they hide what is older).
    pub fn rounds(versions: &[Version], decided: &[Option<KeepReason>]) -> Vec<Option<usize>> {
        let forgotten = decided.iter().all(Option::is_none);
        let oldest = versions.iter().map(Version::position).min();
        let round = |version: &Version| match version.op {
            Some(Op::Create) if Some(version.position()) != oldest => 0,
            Some(op) if forgotten && op.is_tombstone() => ROUNDS - 1,
            _ => 1,
        };
        versions.iter().zip(decided).map(|(v, reason)| reason.is_none().then(|| round(v))).collect()
    }

    fn decide_ordered(&self, versions: &[&Version]) -> Vec<Option<KeepReason>> {
        let mut kept: Vec<Option<KeepReason>> = vec![None; versions.len()];
        let Some(newest) = versions.len().checked_sub(1) else { return kept };
        let in_force = |at: i64| versions.partition_point(|v| v.ts <= at).checked_sub(1);
        if self.drop_deleted
            && in_force(self.earliest()) == Some(newest)
            && versions[newest].op.is_some_and(Op::is_tombstone)
        {
            return kept;
        }
        kept[newest] = Some(KeepReason::Newest);
        for (at, reason) in &self.points {
            if let Some(place) = in_force(*at) {
                kept[place] = Some(*reason);
            }
        }
        if let Some(place) = in_force(self.window) {
            kept[place] = Some(KeepReason::InForce);
        }
        for (place, version) in versions.iter().enumerate() {
            if version.ts >= self.window {
                kept[place] = Some(KeepReason::Window);
            }
        }
        // A creation that comes first says that there was no document before. When there was, what preceded it stays.
        let creates = |place: usize| versions[place].op == Some(Op::Create);
        let mut first = kept.iter().position(Option::is_some).unwrap_or(newest);
        while first > 0 && creates(first) {
            first -= 1;
            kept[first] = Some(KeepReason::Marker);
        }
        // And of an instant before the very first one, nothing but its creation tells that there was none.
        if creates(0) && self.earliest() < versions[0].ts {
            kept[0].get_or_insert(KeepReason::Marker);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        change::time::PointInTime,
        history::as_of::{State, as_of},
    };

    const DAY: i64 = 86_400;
    /// 2026-11-20T15:00:00Z.
    const NOW: i64 = 1_795_186_800;

    fn version(op: &str, ts: i64, lsn: i64) -> Version {
        let record =
            json!({"id": format!("a~{lsn}"), "_originalId": "a", "_change": {"v": 1, "op": op, "ts": ts, "lsn": lsn}});
        Version::parse(&record.to_string()).unwrap()
    }

    fn reasons(policy: Policy, versions: &[Version]) -> Vec<&'static str> {
        policy.at(NOW).decide(versions).into_iter().map(|r| r.map_or("-", KeepReason::name)).collect()
    }

    #[test]
    fn a_window_keeps_what_was_in_force_when_it_began() {
        let week = Policy { within: 7 * DAY, ..Policy::default() };
        let life = [
            version("create", NOW - 30 * DAY, 1),
            version("replace", NOW - 20 * DAY, 2),
            version("replace", NOW - 10 * DAY, 3),
            version("replace", NOW - 7 * DAY, 4),
            version("replace", NOW - DAY, 5),
        ];
        assert_eq!(reasons(week, &life), ["-", "-", "-", "window", "window"], "it began with a version");
        assert_eq!(reasons(week, &life[..3]), ["-", "-", "in-force"]);
        assert_eq!(reasons(week, &[life[0].clone(), life[1].clone(), life[4].clone()]), ["-", "in-force", "window"]);
        assert_eq!(reasons(week, &[]), [""; 0]);
    }

    #[test]
    fn days_and_months_end_in_utc() {
        let policy = Policy { within: DAY, daily: Some(3 * DAY), monthly: Some(70 * DAY), drop_deleted: false };
        let points: Vec<String> = policy.at(NOW).points().map(|t| PointInTime::from_epoch(t).to_string()).collect();
        assert_eq!(
            points,
            ["2026-09-30T23:59:59Z", "2026-10-31T23:59:59Z", "2026-11-17T23:59:59Z", "2026-11-18T23:59:59Z",]
        );
        assert_eq!(policy.at(NOW).earliest(), policy.at(NOW).points().next().unwrap());
        // A span without end is no reason to panic.
        let endless = Policy { within: i64::MAX, daily: Some(i64::MAX), monthly: Some(i64::MIN), drop_deleted: true };
        assert_eq!(endless.at(NOW).points().count(), 0);
    }

    #[test]
    fn a_creation_never_pretends_that_there_was_nothing_before() {
        let week = Policy { within: 7 * DAY, ..Policy::default() };
        let reborn = [
            version("create", NOW - 30 * DAY, 1),
            version("delete", NOW - 20 * DAY, 2),
            version("create", NOW - 10 * DAY, 3),
        ];
        assert_eq!(reasons(week, &reborn), ["-", "marker", "in-force"]);
        assert_eq!(reasons(week, &reborn[1..]), ["marker", "in-force"]);
        assert_eq!(reasons(week, &reborn[2..]), ["in-force"]);
    }

    #[test]
    fn a_document_that_is_long_gone_is_forgotten_only_on_demand() {
        let gone = [version("create", NOW - 30 * DAY, 1), version("delete", NOW - 20 * DAY, 2)];
        let week = Policy { within: 7 * DAY, ..Policy::default() };
        assert_eq!(reasons(week, &gone), ["-", "in-force"]);
        assert_eq!(reasons(Policy { drop_deleted: true, ..week }, &gone), ["-", "-"]);
        let month = Policy { within: 7 * DAY, daily: Some(25 * DAY), drop_deleted: true, ..week };
        assert_eq!(reasons(month, &gone), ["day", "in-force"], "the last days of its life are kept");
    }

    /// What a restore would do: the plainest model, which plays the versions in order and stops.
    #[derive(Debug, PartialEq)]
    enum Answer {
        Document(String),
        Nothing,
        Unknown,
    }

    fn played(versions: &[Version], at: i64) -> Answer {
        let mut ordered: Vec<&Version> = versions.iter().collect();
        ordered.sort_by(|a, b| a.position().cmp(&b.position()));
        let first_is_creation = ordered.first().is_some_and(|v| v.op == Some(Op::Create));
        let mut answer = if first_is_creation { Answer::Nothing } else { Answer::Unknown };
        for version in ordered.into_iter().filter(|v| v.ts <= at) {
            let gone = version.op.is_some_and(Op::is_tombstone);
            answer = if gone { Answer::Nothing } else { Answer::Document(version.record_id.clone()) };
        }
        answer
    }

    fn answered(versions: &[Version], at: i64) -> Answer {
        let found = as_of(versions, PointInTime::from_epoch(at));
        match found.state {
            State::Document(v) => Answer::Document(v.record_id.clone()),
            State::Deleted(_) => Answer::Nothing,
            _ if found.created_later() => Answer::Nothing,
            State::NotYet { .. } | State::Empty => Answer::Unknown,
        }
    }

    fn life() -> impl Strategy<Value = Vec<Version>> {
        let op = prop_oneof![Just("create"), Just("replace"), Just("delete"), Just("upsert"), Just("baseline")];
        // Within a hundred days, often in the same second, often at the edge of a day.
        let ago =
            prop_oneof![0..100 * DAY, (0..100i64).prop_map(|d| d * DAY), (0..100i64).prop_map(|d| d * DAY + 54_001)];
        proptest::collection::vec((ago, op), 0..14)
            .prop_map(|all| (0..).zip(all).map(|(lsn, (ago, op))| version(op, NOW - ago, lsn)).collect())
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let span = |most: i64| proptest::option::of(0..most * DAY);
        (0..60 * DAY, span(80), span(120), any::<bool>()).prop_map(|(within, daily, monthly, drop_deleted)| Policy {
            within,
            daily,
            monthly,
            drop_deleted,
        })
    }

    proptest! {
        #[test]
        fn every_kept_instant_has_the_same_answer_afterwards(
            versions in life(), policy in policy(), more in proptest::collection::vec(0..100 * DAY, 20),
        ) {
            let kept = policy.at(NOW);
            let decided = kept.decide(&versions);
            let left: Vec<Version> =
                versions.iter().zip(&decided).filter(|(_, r)| r.is_some()).map(|(v, _)| v.clone()).collect();
            let forgotten = left.is_empty();
            if forgotten && !versions.is_empty() {
                prop_assert!(policy.drop_deleted);
                prop_assert_eq!(played(&versions, kept.earliest()), Answer::Nothing);
                prop_assert_eq!(played(&versions, NOW), Answer::Nothing);
                return Ok(());
            }
            // Each second of the window in which anything happened, the ones beside it, and the kept points.
            let edges = versions.iter().flat_map(|v| [v.ts - 1, v.ts, v.ts + 1]);
            let window: Vec<i64> = edges.clone()
                .chain([kept.window, NOW]).chain(more.iter().map(|ago| NOW - ago))
                .filter(|t| *t >= kept.window).collect();
            for at in window.into_iter().chain(kept.points()) {
                // What was unknown may not become known; nor anything else but what it was.
                prop_assert_eq!(answered(&left, at), played(&versions, at), "{} of {:?}", at, decided);
            }
            // Before: never `nothing` where there was something.
            for at in edges.chain(more.iter().map(|ago| NOW - ago)) {
                let existed = matches!(played(&versions, at), Answer::Document(_));
                let first = left.iter().map(|v| v.ts).min().unwrap_or(i64::MAX);
                if existed && at < first {
                    prop_assert_eq!(answered(&left, at), Answer::Unknown);
                }
            }
        }

        /// Pruning twice removes nothing more, a prune that was interrupted anywhere can be finished by the next, and
        /// what it left behind until then denies nothing.
        #[test]
        fn running_it_again_finishes_it(
            versions in life(), policy in policy(), reached in 0..ROUNDS, done in any::<u16>(),
        ) {
            let kept = policy.at(NOW);
            let decided = kept.decide(&versions);
            let rounds = RetentionPlan::rounds(&versions, &decided);
            let gone = |n: usize| rounds[n].is_some_and(|r| r < reached || (r == reached && done & (1 << n) != 0));
            let half: Vec<Version> = (0..versions.len()).filter(|n| !gone(*n)).map(|n| versions[n].clone()).collect();
            let first = half.iter().map(|v| v.ts).min().unwrap_or(i64::MIN);
            for at in versions.iter().flat_map(|v| [v.ts - 1, v.ts]).filter(|at| *at < first) {
                if matches!(played(&versions, at), Answer::Document(_)) {
                    prop_assert_eq!(answered(&half, at), Answer::Unknown, "{} of {:?}", at, rounds);
                }
            }
            let again = kept.decide(&half);
            let left: Vec<&str> =
                half.iter().zip(&again).filter(|(_, r)| r.is_some()).map(|(v, _)| v.record_id.as_str()).collect();
            let expected: Vec<&str> =
                versions.iter().zip(&decided).filter(|(_, r)| r.is_some()).map(|(v, _)| v.record_id.as_str()).collect();
            prop_assert_eq!(left, expected);
        }
    }
}

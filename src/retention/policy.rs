//! Decides which versions are kept. Pure: versions, a policy and the time go in, a choice comes out.
//!
//! The promise: whatever `as_of` answers for an instant that the policy keeps, it answers alike afterwards; for every
//! other instant it may know less, but never says that a document did not exist when it did.

mod tests;

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike as _, Days, Months, NaiveTime};
use serde::Serialize;

use crate::change::{Op, version::Version};
use crate::history::timeline::Timeline;

/// The number of rounds in a removal; see [`RetentionPlan::rounds`].
pub const ROUNDS: usize = 3;

/// How long what is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Every instant within this many seconds.
    pub within: i64,
    /// The ends of the days (UTC) within this many seconds.
    pub daily: Option<i64>,
    /// The ends of the months (UTC) within this many seconds.
    pub monthly: Option<i64>,
    /// Whether documents that were deleted before all of that are forgotten completely.
    pub drop_deleted: bool,
}

/// Why a version stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeepReason {
    /// It lies in the window.
    Window,
    /// It was in force when the window began.
    InForce,
    /// It was in force at the end of a kept day.
    Day,
    /// It was in force at the end of a kept month.
    Month,
    /// It is the newest.
    Newest,
    /// It shows whether something existed before the next one that is kept.
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

/// The instants that a policy keeps when it is run at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionPlan {
    /// From here on every second is kept.
    pub window: i64,
    /// Single seconds before that, with their reasons; the longest span wins.
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

/// The last seconds of days or months, between two moments.
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

    /// Why each version of one item, in any order, stays; `None` for those that are removed.
    pub fn decide(&self, versions: &[Version]) -> Vec<Option<KeepReason>> {
        let line = Timeline::of(versions);
        let order: Vec<usize> = line.order().collect();
        let ordered: Vec<&Version> = order.iter().map(|i| &versions[*i]).collect();
        let mut kept = self.decide_ordered(&ordered);
        // When nothing tells which version of a second was its last, all of them may be.
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
        // Nobody needs an old copy of the original demo that also has a record.
        for copy in line.copies() {
            decided[*copy] = (versions[*copy].ts >= self.window).then_some(KeepReason::Window);
        }
        decided
    }

    /// The round in which each version of an item is removed, given what `decide` said. A round begins when the one
    /// before it is complete, so that nothing that an interrupted prune leaves behind is untrue: creations are removed
    /// before what precedes them (otherwise the history would deny it), and when a document is forgotten completely its
    /// tombstones go last (they hide what is older).
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
        let creates = |place: usize| versions[place].op == Some(Op::Create);
        let is_gone = |place: usize| versions[place].op.is_some_and(Op::is_tombstone);
        // When the next version that stays is of another document with this id, only what follows directly shows that
        // the one in force had not been deleted yet at the instant.
        let mut later = newest;
        for place in (0..newest).rev().filter(|place| kept[*place].is_some()).collect::<Vec<_>>() {
            if !is_gone(place) && (creates(later) || versions[place].is_of_another_life(versions[later])) {
                kept[place + 1].get_or_insert(KeepReason::Marker);
            }
            later = place;
        }
        // A creation says that there was no document before it, back to the version that precedes it. A tombstone says
        // that there was none after it, up to the creation that follows. So neither is removed without the other: what
        // lies between them and what else is kept becomes a gap that the chain of versions shows.
        for place in 1..=newest {
            if kept[place - 1].is_some() && is_gone(place - 1) && creates(place) {
                kept[place].get_or_insert(KeepReason::Marker);
            }
        }
        for place in (1..=newest).rev() {
            if kept[place].is_some() && creates(place) {
                kept[place - 1].get_or_insert(KeepReason::Marker);
            }
        }
        // And for an instant before the very first one, only its creation shows that there was none.
        if creates(0) && self.earliest() < versions[0].ts {
            kept[0].get_or_insert(KeepReason::Marker);
        }
        kept
    }
}

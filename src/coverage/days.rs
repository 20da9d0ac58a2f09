//! Counts versions by day and by the feed they came from. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};
use serde::Serialize;

use crate::history::timeline::Timeline;
use crate::{
    change::{Op, VersionVia, Via, version::Version},
    history::as_of::{Caveat, unseen},
};

/// Counts of one day (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Versions of that day.
    pub versions: u64,
    /// Of these: from the all-versions feed, which leaves nothing out.
    pub all_versions: u64,
    /// Of these: from the latest-version feed, or saved because a version was missing.
    pub latest: u64,
    /// Of these: passed on by a reader with a filter, in either mode: the changes around them may be missing.
    pub filtered: u64,
    /// Of these: found by a baseline run.
    pub baseline: u64,
    /// Of these: copies of the original demo.
    pub legacy: u64,
    /// Of these: the Functions host may have altered them.
    pub normalized: u64,
    /// Of these: captured late, when capture was down or behind.
    pub late: u64,
    /// Chains of versions that do not close, counted on the day of the version after the gap.
    pub gaps: u64,
}

/// How much of a day is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DayMode {
    /// Every version and every delete.
    AllVersions,
    /// The newest version of each document at some moments, and no deletes.
    Latest,
    /// Only the changes that passed a filter.
    Filtered,
    /// Some of one of these, and some of another.
    Mixed,
    /// Only what a baseline run found.
    Baseline,
}

impl DayMode {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllVersions => "all-versions",
            Self::Latest => "latest",
            Self::Filtered => "filtered",
            Self::Mixed => "mixed",
            Self::Baseline => "baseline",
        }
    }
}

impl Day {
    /// How much of it is known. A baseline says nothing about how its day was captured.
    pub fn mode(&self) -> DayMode {
        match (self.all_versions, self.latest + self.legacy, self.filtered) {
            (0, 0, 0) => DayMode::Baseline,
            (_, 0, 0) => DayMode::AllVersions,
            (0, _, 0) => DayMode::Latest,
            (0, 0, _) => DayMode::Filtered,
            _ => DayMode::Mixed,
        }
    }

    fn add(&mut self, version: &Version) {
        self.versions += 1;
        self.normalized += u64::from(version.is_normalized());
        *match version.op {
            Some(Op::Baseline) => &mut self.baseline,
            _ if version.is_filtered() => &mut self.filtered,
            Some(Op::Create | Op::Replace | Op::Update | Op::Delete | Op::Expire) => &mut self.all_versions,
            // No record has an operation of a collection.
            Some(Op::Upsert | Op::Drop | Op::Rename | Op::DropDatabase | Op::Invalidate) => &mut self.latest,
            None => &mut self.legacy,
        } += 1;
    }
}

/// A run of days in one mode, and the gaps in their chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Period {
    /// First day.
    pub from: NaiveDate,
    /// Last day.
    pub to: NaiveDate,
    /// How much of them is known.
    pub mode: DayMode,
    /// Chains that do not close in them.
    pub gaps: u64,
}

/// A period during which capture was down or behind, in epoch seconds: from the first change that had to wait until it
/// was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Outage {
    /// When the first change was made that had to wait.
    pub from: i64,
    /// When the last of them was captured.
    pub to: i64,
    /// Versions that had to wait.
    pub versions: u64,
}

/// The days of a history.
#[derive(Debug)]
pub struct Coverage {
    days: BTreeMap<NaiveDate, Day>,
    /// Seconds after which a version is late.
    late: i64,
    /// Disjoint, sorted by their beginning.
    outages: BTreeMap<i64, Outage>,
}

impl Coverage {
    /// Begins empty. A version that was captured more than `late` seconds after its change is late.
    pub fn new(late: i64) -> Self {
        Self { days: BTreeMap::new(), late, outages: BTreeMap::new() }
    }

    /// When capture was down or behind, oldest first. Nothing waits in a quiet period, so nothing is known about it.
    pub fn outages(&self) -> impl Iterator<Item = Outage> + '_ {
        self.outages.values().copied()
    }

    /// Whether a version had to wait. What restores and repairs saved, and baselines, say nothing about that.
    fn is_late(&self, version: &Version) -> Option<i64> {
        let is_of_feed = matches!(version.via, Some(VersionVia::Known(Via::Trigger | Via::Follow | Via::Filter)));
        let captured = version.captured.filter(|_| is_of_feed)?;
        let baseline = version.op.is_none_or(|op| op == Op::Baseline) || version.ts_from_capture;
        (!baseline && captured - version.ts > self.late).then_some(captured)
    }

    fn waited(&mut self, from: i64, to: i64) {
        let mut own = Outage { from, to, versions: 1 };
        // Periods that touch are merged.
        while let Some((&key, other)) = self.outages.range(..=own.to).next_back().filter(|(_, o)| o.to >= own.from) {
            own = Outage {
                from: own.from.min(other.from),
                to: own.to.max(other.to),
                versions: own.versions + other.versions,
            };
            self.outages.remove(&key);
        }
        self.outages.insert(own.from, own);
    }

    /// Adds the versions of one item, in any order.
    pub fn add(&mut self, versions: &[Version]) {
        let ordered: Vec<&Version> = Timeline::of(versions).versions().collect();
        for version in &ordered {
            let late = self.is_late(version);
            if let Some(captured) = late {
                self.waited(version.ts, captured);
            }
            if let Some(day) = day_of(version.ts) {
                let day = self.days.entry(day).or_default();
                day.add(version);
                day.late += u64::from(late.is_some());
            }
        }
        for pair in ordered.windows(2) {
            let [chosen, next] = pair else { continue };
            if matches!(unseen(versions, chosen, Some(next)), Some(Caveat::Gap { .. }))
                && let Some(day) = day_of(next.ts)
            {
                self.days.entry(day).or_default().gaps += 1;
            }
        }
    }

    /// The days on which anything happened, oldest first.
    pub fn days(&self) -> impl Iterator<Item = (NaiveDate, Day)> + '_ {
        self.days.iter().map(|(day, known)| (*day, *known))
    }

    /// Consecutive days of one mode, including quiet days between them: a day without versions shows neither that
    /// capture ran nor that it did not.
    pub fn periods(&self) -> Vec<Period> {
        let mut periods: Vec<Period> = Vec::new();
        for (day, known) in self.days() {
            match periods.last_mut() {
                Some(last) if last.mode == known.mode() => {
                    last.to = day;
                    last.gaps += known.gaps;
                }
                _ => periods.push(Period { from: day, to: day, mode: known.mode(), gaps: known.gaps }),
            }
        }
        periods
    }
}

fn day_of(ts: i64) -> Option<NaiveDate> {
    DateTime::from_timestamp(ts, 0).map(|t| t.date_naive())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const DAY: i64 = 86_400;

    fn version(op: &str, day: i64, lsn: i64, prev: Option<i64>) -> Version {
        let change = json!({"v": 1, "op": op, "ts": day * DAY + lsn, "lsn": lsn, "prevLsn": prev});
        let record = json!({"id": format!("a~{lsn}"), "_originalId": "a", "_change": change});
        Version::parse(&record.to_string()).unwrap()
    }

    #[test]
    fn days_say_in_which_mode_they_were_captured() {
        let mut coverage = Coverage::new(300);
        coverage.add(&[
            version("baseline", 10, 1, None),
            version("upsert", 11, 2, None),
            version("upsert", 12, 3, None),
            version("replace", 12, 4, Some(3)),
            version("replace", 14, 9, Some(7)),
            version("delete", 15, 10, Some(9)),
        ]);
        let days: Vec<(u64, &str, u64)> = coverage.days().map(|(_, d)| (d.versions, d.mode().name(), d.gaps)).collect();
        assert_eq!(
            days,
            [(1, "baseline", 0), (1, "latest", 0), (2, "mixed", 0), (1, "all-versions", 1), (1, "all-versions", 0)]
        );
        let periods: Vec<(String, String, DayMode, u64)> =
            coverage.periods().into_iter().map(|p| (p.from.to_string(), p.to.to_string(), p.mode, p.gaps)).collect();
        assert_eq!(periods.len(), 4);
        assert_eq!(periods[3], ("1970-01-15".into(), "1970-01-16".into(), DayMode::AllVersions, 1));
    }

    #[test]
    fn what_passed_a_filter_makes_no_day_complete() {
        let filtered = |op, day, lsn| Version {
            via: Some(VersionVia::Known(Via::Filter)),
            captured: Some(day * DAY + lsn + 1000),
            ..version(op, day, lsn, None)
        };
        let mut coverage = Coverage::new(300);
        coverage.add(&[
            filtered("baseline", 9, 1),
            filtered("create", 10, 2),
            filtered("upsert", 11, 3),
            filtered("replace", 12, 4),
            version("replace", 12, 5, Some(4)),
            filtered("replace", 13, 6),
            version("upsert", 13, 7, None),
            version("replace", 14, 8, None),
        ]);
        let modes: Vec<&str> = coverage.days().map(|(_, day)| day.mode().name()).collect();
        assert_eq!(modes, ["baseline", "filtered", "filtered", "mixed", "mixed", "all-versions"]);
        let [filtered, late] = [|day: Day| day.filtered, |day: Day| day.late];
        assert_eq!(coverage.days().map(|(_, day)| filtered(day)).sum::<u64>(), 4);
        // That one of them waited is known all the same.
        assert_eq!(coverage.days().map(|(_, day)| late(day)).sum::<u64>(), 4);
    }

    #[test]
    fn what_waited_says_when_capture_was_down() {
        let captured = |ts: i64, after: i64, via: &str, op: &str| {
            let at = DateTime::from_timestamp(ts + after, 0).unwrap().to_rfc3339();
            let change = json!({"v": 1, "op": op, "ts": ts, "lsn": ts, "via": via, "at": at});
            Version::parse(&json!({"id": format!("a~{ts}"), "_originalId": "a", "_change": change}).to_string())
                .unwrap()
        };
        let mut coverage = Coverage::new(300);
        coverage.add(&[
            captured(1000, 2, "trigger", "create"),
            captured(2000, 1500, "trigger", "replace"),
            captured(9000, 400, "follow", "replace"),
            // A baseline is as old as its document, and what a restore saved says nothing.
            captured(10, 90_000, "backfill", "baseline"),
            captured(20, 90_000, "restore", "upsert"),
        ]);
        coverage.add(&[captured(3400, 301, "trigger", "delete"), captured(3000, 300, "trigger", "replace")]);
        let outages: Vec<(i64, i64, u64)> = coverage.outages().map(|o| (o.from, o.to, o.versions)).collect();
        assert_eq!(outages, [(2000, 3701, 2), (9000, 9400, 1)]);
        assert_eq!(coverage.days().map(|(_, day)| day.late).sum::<u64>(), 3);
    }

    proptest! {
        #[test]
        fn outages_are_disjoint_and_cover_what_waited(
            all in proptest::collection::vec((0..5000i64, 0..900i64), 0..40),
        ) {
            let mut coverage = Coverage::new(0);
            all.iter().for_each(|(from, span)| coverage.waited(*from, from + span));
            let outages: Vec<Outage> = coverage.outages().collect();
            prop_assert!(outages.windows(2).all(|w| w[0].to < w[1].from));
            prop_assert_eq!(outages.iter().map(|o| o.versions).sum::<u64>(), all.len() as u64);
            for (from, span) in all {
                prop_assert!(outages.iter().any(|o| o.from <= from && from + span <= o.to));
            }
        }

        #[test]
        fn every_version_is_counted_once(
            all in proptest::collection::vec((0..20i64, 0..5usize, any::<bool>()), 0..30),
            cut in any::<prop::sample::Index>(),
        ) {
            let ops = ["create", "replace", "delete", "upsert", "baseline"];
            let versions: Vec<Version> =
                (1..).zip(&all).map(|(lsn, (day, op, filter))| {
                    let via = filter.then_some(VersionVia::Known(Via::Filter));
                    Version { via, ..version(ops[*op], *day, lsn, None) }
                }).collect();
            let mut coverage = Coverage::new(300);
            let cut = if versions.is_empty() { 0 } else { cut.index(versions.len()) };
            coverage.add(&versions[..cut]);
            coverage.add(&versions[cut..]);
            let sum: u64 = coverage.days().map(|(_, d)| d.versions).sum();
            prop_assert_eq!(sum, all.len() as u64);
            for (_, day) in coverage.days() {
                prop_assert_eq!(day.versions, day.all_versions + day.latest + day.filtered + day.baseline + day.legacy);
            }
            let periods = coverage.periods();
            prop_assert!(periods.windows(2).all(|w| w[0].to < w[1].from && w[0].mode != w[1].mode));
        }
    }
}

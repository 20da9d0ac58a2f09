//! Which periods a history knows, and how well: versions by day and by what the feed said of them. Pure.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate};

use crate::{
    change::{Op, version::Version},
    history::as_of::{Caveat, unseen},
};

/// What is known of one day (UTC).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Day {
    /// Versions of that day.
    pub versions: u64,
    /// Of these: from the all-versions feed, which leaves nothing out.
    pub all_versions: u64,
    /// Of these: from the latest-version feed, or saved where a version was missing.
    pub latest: u64,
    /// Of these: found by a baseline run.
    pub baseline: u64,
    /// Of these: copies of the original demo.
    pub legacy: u64,
    /// Of these: the Functions host may have altered them.
    pub normalized: u64,
    /// Chains of versions that do not close, by the day of the version after the missing one.
    pub gaps: u64,
}

/// How much of a day is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every version and every delete.
    AllVersions,
    /// The newest version of each document at some moments, no deletes.
    Latest,
    /// Some of both.
    Mixed,
    /// Only what a baseline run found.
    Baseline,
}

impl Mode {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::AllVersions => "all-versions",
            Self::Latest => "latest",
            Self::Mixed => "mixed",
            Self::Baseline => "baseline",
        }
    }
}

impl Day {
    /// How much of it is known. A baseline says nothing of how its day was captured.
    pub fn mode(&self) -> Mode {
        match (self.all_versions, self.latest + self.legacy) {
            (0, 0) => Mode::Baseline,
            (_, 0) => Mode::AllVersions,
            (0, _) => Mode::Latest,
            _ => Mode::Mixed,
        }
    }

    fn add(&mut self, version: &Version) {
        self.versions += 1;
        self.normalized += u64::from(version.is_normalized());
        *match version.op {
            Some(Op::Create | Op::Replace | Op::Delete | Op::Expire) => &mut self.all_versions,
            Some(Op::Upsert) => &mut self.latest,
            Some(Op::Baseline) => &mut self.baseline,
            None => &mut self.legacy,
        } += 1;
    }
}

/// A run of days of one mode without gaps in their chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// First day.
    pub from: NaiveDate,
    /// Last day.
    pub to: NaiveDate,
    /// How much of them is known.
    pub mode: Mode,
    /// Chains that do not close in them.
    pub gaps: u64,
}

/// The days of a history.
#[derive(Debug, Default)]
pub struct Coverage {
    days: BTreeMap<NaiveDate, Day>,
}

impl Coverage {
    /// Adds the versions of one item, in any order.
    pub fn add(&mut self, versions: &[Version]) {
        let mut ordered: Vec<&Version> = versions.iter().collect();
        ordered.sort_by(|a, b| a.position().cmp(&b.position()));
        for version in &ordered {
            if let Some(day) = day_of(version.ts) {
                self.days.entry(day).or_default().add(version);
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

    /// Days of one mode that follow each other, quiet days between them included: nothing says that capture ran on a
    /// day without versions, nor that it did not.
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
        let mut coverage = Coverage::default();
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
        let periods: Vec<(String, String, Mode, u64)> =
            coverage.periods().into_iter().map(|p| (p.from.to_string(), p.to.to_string(), p.mode, p.gaps)).collect();
        assert_eq!(periods.len(), 4);
        assert_eq!(periods[3], ("1970-01-15".into(), "1970-01-16".into(), Mode::AllVersions, 1));
    }

    proptest! {
        #[test]
        fn every_version_is_counted_once(
            all in proptest::collection::vec((0..20i64, 0..5usize), 0..30), cut in any::<prop::sample::Index>(),
        ) {
            let ops = ["create", "replace", "delete", "upsert", "baseline"];
            let versions: Vec<Version> =
                (1..).zip(&all).map(|(lsn, (day, op))| version(ops[*op], *day, lsn, None)).collect();
            let mut coverage = Coverage::default();
            let cut = if versions.is_empty() { 0 } else { cut.index(versions.len()) };
            coverage.add(&versions[..cut]);
            coverage.add(&versions[cut..]);
            let sum: u64 = coverage.days().map(|(_, d)| d.versions).sum();
            prop_assert_eq!(sum, all.len() as u64);
            for (_, day) in coverage.days() {
                prop_assert_eq!(day.versions, day.all_versions + day.latest + day.baseline + day.legacy);
            }
            let periods = coverage.periods();
            prop_assert!(periods.windows(2).all(|w| w[0].to < w[1].from && w[0].mode != w[1].mode));
        }
    }
}

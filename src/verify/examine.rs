//! Finds the faults in the history of one item. Pure: no I/O, no clock.

use super::check::{Check, Finding};
use crate::{
    change::{time::PointInTime, version::Version},
    history::{
        as_of::{Caveat, unseen},
        baseline::{is_missing, version_of_live},
        scan::ScannedItem,
        timeline::Timeline,
    },
};

/// The result for an item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// The faults of its history.
    pub findings: Vec<Finding>,
    /// Whether the live document is so young that it may not be captured yet.
    pub pending: bool,
    /// Versions that the Functions host may have altered.
    pub normalized: u64,
}

/// The limits between young and old.
#[derive(Debug, Clone, Copy)]
pub struct AgeLimits {
    /// The current time, epoch seconds.
    pub now: i64,
    /// Documents younger than this many seconds may not be captured yet.
    pub grace: i64,
    /// Before this moment, missing and absent versions do not count: what was there may have been pruned.
    pub since: Option<PointInTime>,
    /// Today's source container: documents of an earlier one went with it.
    pub container: Option<u64>,
}

impl AgeLimits {
    fn is_recent(&self, version: &Version) -> bool {
        self.since.is_none_or(|since| version.ts >= since.seconds())
    }

    fn is_young(&self, ts: Option<i64>) -> bool {
        ts.is_some_and(|ts| ts > self.now.saturating_sub(self.grace))
    }
}

/// Examines one item. The texts of versions are not needed.
pub fn examine(found: &ScannedItem, times: AgeLimits) -> Examined {
    let ordered: Vec<&Version> = Timeline::of(&found.versions).versions().collect();
    let mut examined = Examined {
        normalized: ordered.iter().filter(|v| v.is_normalized()).count() as u64,
        findings: chain(&found.versions, &ordered, times).chain(absent(&ordered, times)).collect(),
        pending: false,
    };
    let newest = ordered.last().copied();
    match &found.live {
        Some(_) if newest.is_some_and(is_unnamed_part) => {
            let detail = "fields were left out or hashed when it was captured: whether it is the version that is live cannot be told";
            examined.findings.push(Finding { check: Check::Partial, detail: detail.to_owned(), span: None });
        }
        Some(live) if is_missing(found) => {
            if times.is_young(live.ts) {
                examined.pending = true;
            } else {
                let written =
                    live.ts.map_or_else(String::new, |ts| format!("written {}, ", PointInTime::from_epoch(ts)));
                let newest = match newest {
                    Some(v) => format!("the newest version is of {}", PointInTime::from_epoch(v.ts)),
                    None => "it has no version at all".to_owned(),
                };
                examined.findings.push(Finding {
                    check: Check::Missing,
                    detail: format!("{written}{newest}"),
                    span: live.ts.map(|ts| (ts, ts)),
                });
            }
        }
        Some(live) => {
            let own = version_of_live(found);
            if own.is_some_and(Version::is_partial) {
                let detail = "fields were left out or hashed when it was captured: it cannot be restored".to_owned();
                examined.findings.push(Finding { check: Check::Partial, detail, span: live.ts.map(|ts| (ts, ts)) });
            }
            if let Some(newest) = newest.filter(|newest| is_behind(own, newest)) {
                // A write between the two reads is newer in the history, and young.
                if times.is_young(Some(newest.ts)) {
                    examined.pending = true;
                } else {
                    let at = PointInTime::from_epoch(newest.ts);
                    let op = newest.op.map_or("copy of the original demo", crate::change::Op::as_str);
                    let detail = format!("behind its version there is one of {at} ({op})");
                    examined.findings.push(Finding {
                        check: Check::Newest,
                        detail,
                        span: Some((newest.ts, newest.ts)),
                    });
                }
            }
        }
        None => {
            let of_today = |v: &&Version| v.container.zip(times.container).is_none_or(|(then, now)| then == now);
            let is_document = |v: &&Version| !v.op.is_some_and(crate::change::Op::is_tombstone);
            if let Some(newest) = newest.filter(is_document).filter(of_today) {
                if times.is_young(Some(newest.ts)) {
                    examined.pending = true;
                } else {
                    let detail = format!("its newest version is of {}", PointInTime::from_epoch(newest.ts));
                    examined.findings.push(Finding { check: Check::Gone, detail, span: Some((newest.ts, newest.ts)) });
                }
            }
        }
    }
    examined
}

/// Whether a version is a part that does not say of which whole: nothing is derived from a MongoDB document of which
/// fields are left out, and it has no other etag.
fn is_unnamed_part(version: &Version) -> bool {
    version.etag.is_none() && version.is_partial() && !version.is_absent()
}

/// Whether the newest version is later than the live one. When one of two in the same second has no LSN, nobody knows
/// which was later.
fn is_behind(own: Option<&Version>, newest: &Version) -> bool {
    own.is_some_and(|own| {
        let decided = own.ts < newest.ts || (own.lsn.is_some() && newest.lsn.is_some());
        decided && own.record_id != newest.record_id
    })
}

/// Versions of which the history has nothing: no moment at which one was in force can be shown.
fn absent(ordered: &[&Version], times: AgeLimits) -> impl Iterator<Item = Finding> {
    ordered.iter().filter(move |v| v.is_absent() && times.is_recent(v)).map(|version| {
        let at = PointInTime::from_epoch(version.ts);
        let detail = format!(
            "the version of {at} was too large (a dead letter may have it), or gone when MongoDB was asked for it"
        );
        Finding { check: Check::Absent, detail, span: Some((version.ts, version.ts)) }
    })
}

fn chain(versions: &[Version], ordered: &[&Version], times: AgeLimits) -> impl Iterator<Item = Finding> {
    let pairs = ordered.windows(2).filter_map(move |pair| match pair {
        [chosen, next] if times.is_recent(next) => match unseen(versions, chosen, Some(next)) {
            Some(Caveat::Gap { lsn, until }) => Some((chosen.ts, lsn, until)),
            _ => None,
        },
        _ => None,
    });
    pairs.map(|(from, lsn, until)| {
        let what = lsn.map_or_else(|| "a delete".to_owned(), |lsn| format!("LSN {lsn}"));
        let [first, last] = [from, until].map(PointInTime::from_epoch);
        let detail = format!("{what} is missing, between {first} and {last}");
        Finding { check: Check::Chain, detail, span: Some((from, until)) }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{
        change::{
            VersionFidelity,
            key::{ItemKey, PartitionKey},
            record::RecordFidelity,
        },
        history::live::Live,
    };

    const TIMES: AgeLimits = AgeLimits { now: 10_000, grace: 60, since: None, container: None };

    fn version(op: &str, ts: i64, lsn: Option<i64>, prev: Option<i64>) -> Version {
        let name = lsn.map_or_else(|| format!("t{ts}"), |l| l.to_string());
        let mut change = json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "prevLsn": prev});
        if op != "delete" {
            change["etag"] = format!("\"e{name}\"").into();
        }
        let record = json!({"id": format!("a~e{name}"), "_originalId": "a", "_change": change});
        Version::parse(&record.to_string()).unwrap()
    }

    fn found(versions: Vec<Version>, live: Option<(&str, i64)>) -> ScannedItem {
        let item = ItemKey { id: "a".into(), partition_key: PartitionKey::parse("p").unwrap() };
        let live = live.map(|(etag, ts)| Live { etag: format!("\"{etag}\""), ts: Some(ts), text: None });
        ScannedItem { versions, live, ..ScannedItem::new(item) }
    }

    fn checks(found: &ScannedItem, times: AgeLimits) -> (Vec<Check>, bool) {
        let examined = examine(found, times);
        (examined.findings.iter().map(|f| f.check).collect(), examined.pending)
    }

    #[test]
    fn a_whole_history_has_nothing_against_it() {
        let life = vec![
            version("create", 10, Some(1), None),
            version("replace", 10, Some(2), Some(1)),
            version("delete", 20, Some(3), Some(2)),
            version("create", 30, Some(4), None),
        ];
        assert_eq!(checks(&found(life.clone(), Some(("e4", 30))), TIMES), (vec![], false));
        assert_eq!(checks(&found(life[..3].to_vec(), None), TIMES), (vec![], false));
        // Nobody knows which of the two was later: one has no known LSN.
        let tie = vec![version("upsert", 10, Some(1), None), version("baseline", 10, None, None)];
        assert_eq!(checks(&found(tie, Some(("et10", 10))), TIMES), (vec![], false));
    }

    #[test]
    fn each_fault_is_found_and_what_is_young_is_pending() {
        let one = || vec![version("create", 10, Some(1), None)];
        assert_eq!(checks(&found(one(), Some(("e2", 9000))), TIMES), (vec![Check::Missing], false));
        assert_eq!(checks(&found(vec![], Some(("e2", 9000))), TIMES), (vec![Check::Missing], false));
        assert_eq!(checks(&found(one(), Some(("e2", 9941))), TIMES), (vec![], true));
        assert_eq!(checks(&found(one(), Some(("e2", 9940))), TIMES), (vec![Check::Missing], false));
        assert_eq!(checks(&found(one(), None), TIMES), (vec![Check::Gone], false));
        assert_eq!(checks(&found(vec![version("create", 9990, Some(1), None)], None), TIMES), (vec![], true));
        let later = vec![version("create", 10, Some(1), None), version("delete", 20, Some(2), Some(1))];
        assert_eq!(checks(&found(later, Some(("e1", 10))), TIMES), (vec![Check::Newest], false));
        let gap = vec![version("create", 10, Some(1), None), version("replace", 20, Some(5), Some(3))];
        assert_eq!(checks(&found(gap.clone(), Some(("e5", 20))), TIMES), (vec![Check::Chain], false));
        let since = AgeLimits { since: Some(PointInTime::from_epoch(21)), ..TIMES };
        assert_eq!(checks(&found(gap, Some(("e5", 20))), since), (vec![], false));
        let mut part = one();
        part[0].fidelity = Some(VersionFidelity::Known(RecordFidelity::Partial));
        assert_eq!(checks(&found(part, Some(("e1", 10))), TIMES), (vec![Check::Partial], false));
        let mut unnamed = one();
        unnamed[0].fidelity = Some(VersionFidelity::Known(RecordFidelity::Partial));
        unnamed[0].etag = None;
        assert_eq!(checks(&found(unnamed, Some(("e1", 10))), TIMES), (vec![Check::Partial], false));
        let unseen_delete = vec![version("create", 10, Some(1), None), version("create", 20, Some(5), None)];
        assert_eq!(checks(&found(unseen_delete, Some(("e5", 20))), TIMES), (vec![Check::Chain], false));
    }

    proptest! {
        /// In a faultless life, a missing version is always noticed, unless it was the first.
        #[test]
        fn a_version_that_is_left_out_is_noticed(
            ops in proptest::collection::vec((0..3i64, any::<bool>()), 1..12),
            out in any::<prop::sample::Index>(),
        ) {
            let (mut versions, mut ts, mut before): (Vec<Version>, i64, Option<i64>) = (Vec::new(), 100, None);
            for (lsn, (step, gone)) in (1..).zip(ops) {
                ts += step;
                let (op, prev) = match before {
                    None => ("create", None),
                    Some(_) if gone => ("delete", before),
                    Some(_) => ("replace", before),
                };
                versions.push(version(op, ts, Some(lsn), prev));
                before = (op != "delete").then_some(lsn);
            }
            let newest = versions[versions.len() - 1].clone();
            let etag = newest.etag.as_deref().map(|e| e.trim_matches('"').to_owned());
            let live = etag.as_deref().map(|etag| (etag, newest.ts));
            prop_assert_eq!(checks(&found(versions.clone(), live), TIMES), (vec![], false));
            let out = out.index(versions.len());
            let gone = versions.remove(out);
            let (faults, _) = checks(&found(versions.clone(), live), TIMES);
            // Nobody can tell what came before the first version, nor that a document was deleted twice.
            let unknowable = out == 0 || (gone.op == Some(crate::change::Op::Create) && out < versions.len()
                && versions[out].prev_lsn.is_none());
            prop_assert!(unknowable || !faults.is_empty(), "{out} of {versions:?}");
        }
    }
}

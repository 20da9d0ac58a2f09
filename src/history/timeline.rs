//! The versions of one item in the order in which they came into being.
//!
//! `_ts` has whole seconds. Within one, the LSN decides; a version without an LSN (saved by a restore or a repair, or
//! delivered by hand) is placed by what is known of it: the chain of previous LSNs, the resource ids of a document's
//! lives, and that a document which was still live after its second was the last one of it. Where that leaves more than
//! one place, the second is said to be unordered. Copies of the original demo have the copy's time: one that has the
//! LSN of a record is that record, and none is later than a record with a higher LSN.

use std::collections::HashMap;

use crate::change::{Op, VersionVia, Via, time::PointInTime, version::Version};

/// The versions of one item, oldest first.
#[derive(Debug, Clone)]
pub struct Timeline<'a> {
    entries: Vec<Entry<'a>>,
    /// Copies of the original demo that also have a record.
    copies: Vec<usize>,
    /// Seconds whose last version is unknown.
    unordered: Vec<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    version: &'a Version,
    /// Its position in the slice that the timeline was made from.
    index: usize,
    /// Not later than this second: the version's own, except for copies of the original demo.
    ts: i64,
}

impl<'a> Timeline<'a> {
    /// Orders versions, given in any order.
    pub fn of(versions: &'a [Version]) -> Self {
        let mut entries: Vec<Entry<'a>> =
            versions.iter().enumerate().map(|(index, version)| Entry { version, index, ts: version.ts }).collect();
        let copies = if versions.iter().any(is_copy) { settle_copies(&mut entries) } else { Vec::new() };
        entries.sort_by(|a, b| {
            let order = |e: &Entry<'a>| (e.ts, e.version.lsn);
            order(a).cmp(&order(b)).then_with(|| a.version.record_id.cmp(&b.version.record_id))
        });
        entries.dedup_by(|a, b| a.version.position() == b.version.position());
        if versions.iter().any(|v| v.is_native && v.lsn.is_none()) {
            settle_repeated(&mut entries);
        }
        let mut line = Self { entries, copies, unordered: Vec::new() };
        if versions.iter().any(|v| v.lsn.is_none()) {
            line.order_seconds();
        }
        line
    }

    /// The versions, oldest first.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &'a Version> + ExactSizeIterator + '_ {
        self.entries.iter().map(|entry| entry.version)
    }

    /// The positions of the versions in the original slice, oldest version first.
    pub fn order(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().map(|entry| entry.index)
    }

    /// The positions of copies of the original demo that also have a record.
    pub fn copies(&self) -> &[usize] {
        &self.copies
    }

    /// The version in force at a moment, and the one after it.
    pub fn at(&self, at: PointInTime) -> (Option<&'a Version>, Option<&'a Version>) {
        let after = self.entries.partition_point(|entry| entry.ts <= at.seconds());
        let version = |place: usize| self.entries.get(place).map(|entry| entry.version);
        (after.checked_sub(1).and_then(version), version(after))
    }

    /// Whether the last version of this second is unknown.
    pub fn is_unordered(&self, ts: i64) -> bool {
        self.unordered.contains(&ts)
    }

    fn order_seconds(&mut self) {
        let mut first = 0;
        while first < self.entries.len() {
            let ts = self.entries[first].ts;
            let end = first + self.entries[first..].partition_point(|entry| entry.ts == ts);
            if end - first > 1 && self.entries[first..end].iter().any(|e| e.version.lsn.is_none()) {
                let before = self.entries[..first].iter().rev().find(|e| e.version.lsn.is_some()).map(|e| e.version);
                let after = self.entries[end..].iter().map(|e| e.version).next();
                let (group, known) = order_second(&self.entries[first..end], before, after);
                self.entries[first..end].copy_from_slice(&group);
                if !known {
                    self.unordered.push(ts);
                }
            }
            first = end;
        }
    }
}

/// Drops versions of MongoDB documents that stand for another one with the same bytes. Their ids differ, because a
/// document does not say when it was written.
///
/// - One that was saved by a restore, when capture delivered it as well: it is the one that was in force then, or one of
///   the same second.
/// - One that was delivered again and has no place in the stream either (RU), when nothing else was seen since. Beside
///   others of its second it may be a text that came back.
fn settle_repeated(entries: &mut Vec<Entry<'_>>) {
    let mut kept: Vec<Entry<'_>> = Vec::with_capacity(entries.len());
    let mut is_before_sure = true;
    for second in entries.chunk_by(|a, b| a.ts == b.ts) {
        let before = kept.last().map(|entry| entry.version);
        let first = kept.len();
        let is_same = |one: &Version, other: &Version| one.etag.is_some() && one.etag == other.etag;
        let is_again = is_before_sure && before.is_some_and(|b| second.iter().all(|e| is_same(e.version, b)));
        for entry in second {
            let mut captured = second.iter().map(|e| e.version).filter(|v| !is_saved(v)).chain(before);
            let is_dropped = if is_saved(entry.version) {
                captured.any(|v| is_same(v, entry.version))
            } else {
                is_again && entry.version.is_native && entry.version.lsn.is_none()
            };
            if !is_dropped {
                kept.push(*entry);
            }
        }
        is_before_sure = match kept.len() - first {
            0 => is_before_sure,
            more => more == 1,
        };
    }
    *entries = kept;
}

/// Whether a restore saved it, or it is the live document: no stream delivered it.
fn is_saved(version: &Version) -> bool {
    version.is_native
        && version.lsn.is_none()
        && matches!(version.via, Some(VersionVia::Live | VersionVia::Known(Via::Restore | Via::Backfill)))
}

fn is_copy(version: &Version) -> bool {
    version.op.is_none()
}

/// Drops copies that also have a record (or an earlier copy), and moves the others to where their LSN belongs.
fn settle_copies(entries: &mut Vec<Entry<'_>>) -> Vec<usize> {
    let exact: HashMap<i64, i64> =
        entries.iter().filter(|e| !is_copy(e.version)).filter_map(|e| Some((e.version.lsn?, e.ts))).collect();
    let containers: std::collections::HashSet<u64> = entries.iter().filter_map(|e| e.version.container).collect();
    let mut earliest: HashMap<i64, (i64, usize)> = HashMap::new();
    for entry in entries.iter().filter(|e| is_copy(e.version)) {
        if let Some(lsn) = entry.version.lsn {
            let best = earliest.entry(lsn).or_insert((entry.ts, entry.index));
            *best = (*best).min((entry.ts, entry.index));
        }
    }
    let mut copies = Vec::new();
    entries.retain(|entry| {
        let twin = is_copy(entry.version)
            && entry.version.lsn.is_some_and(|lsn| {
                exact.get(&lsn).is_some_and(|ts| *ts <= entry.ts)
                    || earliest.get(&lsn).is_some_and(|(_, index)| *index != entry.index)
            });
        if twin {
            copies.push(entry.index);
        }
        !twin
    });
    // LSNs of two containers cannot be compared.
    if containers.len() < 2 {
        // By LSN, the earliest time from each on.
        let mut bounds: Vec<(i64, i64)> = exact.into_iter().collect();
        bounds.sort_unstable();
        for i in (1..bounds.len()).rev() {
            bounds[i - 1].1 = bounds[i - 1].1.min(bounds[i].1);
        }
        for entry in entries.iter_mut().filter(|e| is_copy(e.version)) {
            let Some(own) = entry.version.lsn else { continue };
            let bound = bounds.get(bounds.partition_point(|(lsn, _)| *lsn <= own));
            entry.ts = bound.map_or(entry.ts, |(_, ts)| entry.ts.min(*ts));
        }
    }
    copies
}

/// Orders the versions of one second; `false` when the last of them is uncertain.
fn order_second<'a>(group: &[Entry<'a>], before: Option<&Version>, after: Option<&Version>) -> (Vec<Entry<'a>>, bool) {
    let (mut ordered, mut others): (Vec<Entry<'a>>, Vec<Entry<'a>>) =
        group.iter().copied().partition(|entry| entry.version.lsn.is_some());
    others.sort_by(|a, b| {
        seen_live(a.version).cmp(&seen_live(b.version)).then_with(|| a.version.record_id.cmp(&b.version.record_id))
    });
    let lsns: Vec<i64> = group.iter().map(|e| e.version).chain(before).filter_map(|v| v.lsn).collect();
    let mut known = true;
    let mut floor = 0;
    let mut last_seen: Option<Option<i64>> = None;
    for entry in others {
        // Of two that were seen live, the one that was seen later is later; otherwise their order is unknown.
        let seen = seen_live(entry.version);
        let in_order = last_seen.is_none_or(|earlier| earlier < seen);
        last_seen = Some(seen);
        let places = places_for(entry.version, &ordered, before, after, &lsns);
        let allowed: Vec<usize> = places.into_iter().filter(|place| *place >= floor).collect();
        let end = ordered.len();
        let place = allowed.last().copied().unwrap_or(end);
        let may_be_last = allowed.is_empty() || allowed.contains(&end);
        known &= !may_be_last || (allowed.len() == 1 && in_order);
        ordered.insert(place, entry);
        floor = place + 1;
    }
    (ordered, known)
}

/// When a saved version was seen to be live, if it was; the live document itself is later than everything.
fn seen_live(version: &Version) -> Option<i64> {
    match version.via {
        Some(VersionVia::Live) => Some(i64::MAX),
        Some(VersionVia::Known(Via::Restore | Via::Backfill)) => version.captured,
        _ => None,
    }
}

/// Before which of the ordered versions of its second a version without an LSN may stand.
fn places_for(
    version: &Version,
    ordered: &[Entry<'_>],
    before: Option<&Version>,
    after: Option<&Version>,
    lsns: &[i64],
) -> Vec<usize> {
    let end = ordered.len();
    let at = |place: usize| ordered.get(place).map(|e| e.version);
    let fits = |place: &usize| {
        let previous = place.checked_sub(1).and_then(at).or(before);
        let next = at(*place).or(if *place == end { after } else { None });
        !(closes(previous, next) || another_life(version, ordered, *place))
    };
    // It was still live when its second was over: nothing of that second came after it.
    if seen_live(version).is_some_and(|seen| seen > version.ts) {
        return vec![end];
    }
    let fitting: Vec<usize> = (0..=end).filter(fits).collect();
    // The next version names a predecessor that is missing: this is it.
    let gaps: Vec<usize> = fitting
        .iter()
        .copied()
        .filter(|place| at(*place).and_then(|next| next.prev_lsn).is_some_and(|previous| !lsns.contains(&previous)))
        .collect();
    if gaps.len() == 1 { gaps } else { fitting }
}

/// Whether one follows the other directly, so that nothing lies between.
fn closes(previous: Option<&Version>, next: Option<&Version>) -> bool {
    match (previous.and_then(|v| v.lsn), next.and_then(|v| v.prev_lsn)) {
        (Some(lsn), Some(previous)) => lsn == previous,
        _ => false,
    }
}

/// Whether a version cannot stand there, because its document did not exist.
fn another_life(version: &Version, ordered: &[Entry<'_>], place: usize) -> bool {
    let differs = |other: &Version| version.life.zip(other.life).map(|(one, other)| one != other);
    // Before a creation lies another life of the document, or none.
    let before_creation = ordered[place..].iter().any(|e| {
        e.version.op == Some(Op::Create) && differs(e.version) != Some(true) && version.op != Some(Op::Delete)
    });
    // After a deletion as well.
    let after_deletion = ordered[..place].iter().enumerate().any(|(i, e)| {
        e.version.op.is_some_and(Op::is_tombstone) && ordered[..i].iter().any(|e| differs(e.version) == Some(false))
    });
    before_creation || after_deletion
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(id: &str, ts: i64, lsn: Option<i64>, op: &str, more: serde_json::Value) -> Version {
        let mut change = json!({"v": 1, "op": op, "ts": ts});
        if let Some(lsn) = lsn {
            change["lsn"] = lsn.into();
        }
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let record = json!({"id": format!("a~{id}"), "_originalId": "a", "_change": change});
        Version::parse(&record.to_string()).unwrap()
    }

    fn saved(id: &str, ts: i64, at: &str, more: serde_json::Value) -> Version {
        let mut all = json!({"via": "restore", "at": at});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        version(id, ts, None, "upsert", all)
    }

    fn copy(ts: i64, lsn: i64) -> Version {
        let record = json!({"id": format!("copy{ts}"), "_originalId": "a", "_ts": ts, "_lsn": lsn, "n": ts});
        Version::parse(&record.to_string()).unwrap()
    }

    fn order(versions: &[Version]) -> (Vec<&str>, bool) {
        let line = Timeline::of(versions);
        let ids = line.versions().map(|v| v.record_id.as_str()).collect();
        (ids, line.unordered.is_empty())
    }

    // 1970-01-01T00:01:40Z is second 100.
    const IN_IT: &str = "1970-01-01T00:01:40.500Z";
    const LATER: &str = "1970-01-01T00:01:42.000Z";

    #[test]
    fn a_saved_version_comes_after_the_creation_of_its_second() {
        let create = version("c", 100, Some(5), "create", json!({}));
        assert_eq!(order(&[saved("s", 100, IN_IT, json!({})), create.clone()]), (vec!["a~c", "a~s"], true));
        // And before a version that names another predecessor than the creation.
        let replace = version("r", 100, Some(9), "replace", json!({"prevLsn": 7}));
        let all = [replace, saved("s", 100, IN_IT, json!({})), create];
        assert_eq!(order(&all), (vec!["a~c", "a~s", "a~r"], true));
    }

    #[test]
    fn a_chain_that_closes_leaves_one_place() {
        let one = version("1", 100, Some(5), "replace", json!({"prevLsn": 3}));
        let two = version("2", 100, Some(6), "replace", json!({"prevLsn": 5}));
        let earlier = version("0", 90, Some(3), "create", json!({}));
        let all = [saved("s", 100, IN_IT, json!({})), two.clone(), one.clone(), earlier];
        assert_eq!(order(&all), (vec!["a~0", "a~1", "a~2", "a~s"], true));
        // The next second names what preceded it: nothing came after `2`.
        let after = version("3", 101, Some(8), "replace", json!({"prevLsn": 6}));
        let (_, known) = order(&[saved("s", 100, IN_IT, json!({})), two, one, after]);
        assert!(known, "the last one of the second is known, whatever the order before it");
    }

    #[test]
    fn what_was_live_when_its_second_was_over_was_its_last() {
        let upsert = version("u", 100, Some(5), "upsert", json!({}));
        assert_eq!(order(&[saved("s", 100, LATER, json!({})), upsert.clone()]), (vec!["a~u", "a~s"], true));
        // Saved within its second, in latest-version mode: nobody knows.
        assert!(!order(&[saved("s", 100, IN_IT, json!({})), upsert]).1);
    }

    #[test]
    fn a_copy_of_a_record_is_that_record_and_none_hides_a_later_one() {
        let one = version("1", 100, Some(5), "upsert", json!({}));
        let two = version("2", 110, Some(8), "upsert", json!({}));
        let all = [copy(115, 5), one.clone(), two.clone(), copy(116, 8), copy(117, 7), copy(118, 7)];
        let (ids, known) = order(&all);
        assert_eq!((ids, known), (vec!["a~1", "copy117", "a~2"], true));
        assert_eq!(Timeline::of(&all).at(PointInTime::from_epoch(200)).0.unwrap().record_id, "a~2");
        assert_eq!(Timeline::of(&all).copies(), [0, 3, 5]);
    }

    #[test]
    fn a_text_that_came_back_within_a_second_is_not_one_that_was_delivered_again() {
        let native = |id: &str, ts: i64, via: &str, etag: &str| {
            version(id, ts, None, "upsert", json!({"via": via, "etag": etag, "ns": "d.c"}))
        };
        let follow = |id: &str, ts: i64, etag: &str| native(id, ts, "follow", etag);
        let one = follow("1", 100, "A");
        let back = [one.clone(), follow("2", 102, "B"), follow("3", 102, "A")];
        assert_eq!(order(&back), (vec!["a~1", "a~2", "a~3"], false));
        // Nor is it after a second of which the last version is unknown.
        let later = [back.to_vec(), vec![follow("4", 103, "A")]].concat();
        assert_eq!(order(&later).0.last(), Some(&"a~4"));
        assert_eq!(order(&[one.clone(), follow("2", 102, "A")]).0, ["a~1"]);
        // What a restore saved is a captured version, also when other versions are of that second.
        let saved = native("s", 102, "restore", "A");
        assert_eq!(order(&[one, saved, follow("2", 102, "B")]).0, ["a~1", "a~2"]);
    }
}

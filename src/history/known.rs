//! One document, as its history and the live containers tell it, and the doubts about it.

use std::borrow::Cow;

use super::{
    as_of::{AsOf, Caveat, State, boundary},
    frontier::Reach,
    gone::UnknownDelete,
    live::Live,
    removals::{self, BlindSpots},
};
use crate::change::{Op, VersionVia, Via, key::ItemKey, record::id_of_version, time::PointInTime, version::Version};

/// Everything that is known about an item.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its versions in the history, in any order.
    pub versions: &'a [Version],
    /// Deletes of its id that may or may not be its own.
    pub unkeyed: &'a [Version],
    /// The document in the target container.
    pub target: Option<&'a Live>,
    /// The document in the source container: the same, unless documents are written elsewhere.
    pub source: Option<&'a Live>,
    /// How far the history of its part is complete.
    pub reach: Reach<'a>,
    /// Why no delete says when it went: see [`super::gone`].
    pub lost: Option<UnknownDelete>,
}

impl Facts<'_> {
    /// Whether the history may lack something from before a moment: it is not complete up to there, and no later
    /// version proves that everything before was delivered. While a reader of every version is behind, only such a
    /// version does.
    pub fn is_beyond(&self, at: PointInTime) -> bool {
        let in_force = boundary(self.versions, at);
        let proves = |v: &Version| v.ts > at.seconds() && is_followed(in_force, v, self.reach.sees_deletes);
        !self.reach.covers(at) && !self.versions.iter().any(proves)
    }

    /// Where the history ends, in words.
    pub fn ends(&self) -> String {
        match self.reach.until {
            Some(until) => format!("the history ends at {until}"),
            None => "nothing tells how far the history reaches".to_owned(),
        }
    }

    /// Why the version in force may differ from what the history says; `None` when it is certain, or proved by the live
    /// document with the etag `live`.
    pub fn doubt(&self, item: &ItemKey, known: &AsOf<'_>, live: Option<&str>) -> Option<String> {
        self.doubt_of_feed(item, known, live).or_else(|| self.dropped(known))
    }

    /// Why the version in force may not be the document that existed, because its delete was not captured or may have
    /// been removed from the history; or why a creation does not prove that there was none before.
    pub fn dropped(&self, known: &AsOf<'_>) -> Option<String> {
        let is_live = |version: &Version| version.etag.as_ref().is_some_and(|etag| self.is_proved_by_live(etag, known));
        let removed = removals::doubt(known, self.reach.blind_spots, self.reach.made_again)
            .filter(|_| !known.version().is_some_and(is_live));
        let is_newest = known.next.is_none_or(Version::is_live) && matches!(known.state, State::Document(_));
        removed.or_else(|| known.remade()).or_else(|| self.lost.filter(|_| is_newest).map(|lost| lost.to_string()))
    }

    /// Whether a live document with the etag of the version in force proves that nobody wrote after that version. When
    /// the etag returns with the bytes, that takes a history which has everything from the moment on: then what is live
    /// now was live at the moment.
    fn is_proved_by_live(&self, etag: &str, known: &AsOf<'_>) -> bool {
        let at = known.at.seconds();
        let is_told = || {
            let BlindSpots { holes, begins, .. } = self.reach.blind_spots;
            let is_filtered = known.version().is_some_and(Version::is_filtered);
            known.next.is_none()
                && self.reach.covers(known.at)
                && holes.iter().all(|hole| hole.before <= at)
                && (!is_filtered || begins.is_some_and(|begins| begins <= at))
        };
        let mut live = [self.target, self.source].into_iter().flatten().filter(|live| live.etag == etag);
        live.any(|live| live.is_proof(known.at) || is_told())
    }

    /// The same for what the feed delivered: an unknown order, deletes without a key, and uncaptured changes.
    pub fn doubt_of_feed(&self, item: &ItemKey, known: &AsOf<'_>, live: Option<&str>) -> Option<String> {
        let version = known.version()?;
        if let Some(etag) = live
            && version.etag.as_deref() == Some(etag)
            && self.is_proved_by_live(etag, known)
        {
            return None;
        }
        if let Some(unordered) = known.caveats.iter().find(|caveat| matches!(caveat, Caveat::Unordered { .. })) {
            return Some(unordered.to_string());
        }
        if let State::Deleted(tombstone) = known.state {
            return self.came_back(item, tombstone, known);
        }
        let doubtful = |u: &&Version| (version.ts..=known.at.seconds()).contains(&u.ts);
        if let Some(delete) = self.unkeyed.iter().find(doubtful) {
            return Some(format!(
                "a document with this id was deleted at {}, and the history does not say under which partition key",
                PointInTime::from_epoch(delete.ts)
            ));
        }
        if version.is_live() || !self.is_beyond(known.at) {
            return None;
        }
        let lacks = self.reach.may_lack_since(item, self.versions, version.ts);
        // With the changes that wait, and those that another follower delivered, the history has every version of it.
        if version.is_native && self.reach.sees_deletes && !lacks {
            return None;
        }
        if self.source.is_none() {
            return Some(format!(
                "{}: whether it was changed or deleted before the point in time is not known",
                self.ends()
            ));
        }
        // In latest-version mode only the live version can be waiting, and its own time says whether it was in force.
        let is_dated = self.source.is_some_and(|live| live.ts.is_some());
        (lacks && !(self.reach.is_latest && is_dated)).then(|| {
            let what = match (self.reach.may_lack_any(), self.reach.is_latest) {
                (true, _) => "whether it was changed before the point in time is not known",
                (false, true) => "a change of it is not captured yet, and does not tell its time",
                (false, false) => "a change of it from before the point in time is not captured yet",
            };
            format!("{}, and {what}", self.ends())
        })
    }

    /// Whether the history would have a delete of the document after the version in force. `is_earlier` says that this
    /// version belongs to an earlier container, for which only its own captured changes count.
    fn knows_deletes(&self, known: &AsOf<'_>, all: &[Version], is_earlier: bool) -> bool {
        let container = known.version().and_then(|version| version.container);
        let counts = |other: &Version| !is_earlier || other.container == container;
        // It existed later; or its own versions come from a feed with deletes, and no later one from a feed without.
        known.next.is_some_and(counts)
            || (self.reach.sees_deletes && !is_earlier)
            || (!self.reach.is_latest || is_earlier) && all.iter().any(|v| counts(v) && is_of_feed_with_deletes(v))
    }

    /// Why a document that is gone may have been deleted before the moment, unless the history would have its delete.
    pub fn unseen_delete(&self, known: &AsOf<'_>, all: &[Version], is_earlier: bool) -> Option<&'static str> {
        let is_gone = self.target.is_none() && matches!(known.state, State::Document(_));
        (is_gone && !self.knows_deletes(known, all, is_earlier))
            .then_some("latest-version mode does not see deletes: it may have been deleted before the point in time")
    }

    /// Why a tombstone does not prove that there was no document: a creation follows a delete, and when it is missing,
    /// nobody knows on which side of the moment it was.
    fn came_back(&self, item: &ItemKey, tombstone: &Version, known: &AsOf<'_>) -> Option<String> {
        let hides = |caveat: &&Caveat| match caveat {
            Caveat::Gap { .. } => true,
            // Up to where the history is complete there was no creation.
            Caveat::NextUncaptured => self.is_beyond(known.at),
            // What a restore or a repair saved did not come from the feed: that it names no previous version means
            // nothing.
            Caveat::LatestMode => known.next.is_some_and(|next| next.lsn.is_some()) || self.is_beyond(known.at),
            _ => false,
        };
        let lost = self.lost.filter(|_| known.next.is_none_or(Version::is_live)).map(|lost| lost.why().to_owned());
        let hidden = || known.caveats.iter().find(hides).map(ToString::to_string);
        // What a restore or a repair saved existed by then, and does not say since when.
        let is_saved = known.next.is_some_and(|next| next.lsn.is_none() && !next.is_live());
        let missed = || {
            let between = || is_saved.then(|| self.reach.blind_spots.hole_between(tombstone.ts, known.at)).flatten();
            let life = self.reach.blind_spots.life_after(tombstone, known);
            let filtered = || self.reach.blind_spots.only_filtered(tombstone, known.at);
            life.map(|life| life.to_string()).or_else(|| between().map(ToString::to_string)).or_else(filtered)
        };
        // A whole life may have come after it, which this reader will never deliver, or never delivered.
        let is_unseen = self.reach.is_latest && self.is_beyond(known.at);
        let latest = || is_unseen.then(|| format!("{}, and latest-version mode does not see deletes", self.ends()));
        let waits = || {
            let waits = !self.reach.is_latest && self.is_beyond(known.at) && self.reach.may_lack(item, self.versions);
            waits.then(|| self.ends())
        };
        let unread = || {
            let ends = self.reach.blind_spots.ends.filter(|_| !self.reach.sees_deletes);
            let ends = ends.filter(|ends| *ends <= known.at.seconds()).map(PointInTime::from_epoch)?;
            Some(format!("{ends} is the last change from a feed that has deletes"))
        };
        let unseen = lost.or_else(hidden).or_else(missed).or_else(latest).or_else(waits).or_else(unread)?;
        Some(format!(
            "was deleted at {}, and whether it was made again before the point in time is not known: {unseen}",
            PointInTime::from_epoch(tombstone.ts)
        ))
    }
}

/// Whether a later version proves that the history lacks none between it and the one in force. A feed is delivered in
/// order, so one from the feed does, unless it is `of_every` version that something may be missing: then it must be of
/// the feed that delivers those. One that passed a filter only proves that the version which it names as its
/// predecessor was in force until then. What a restore or a repair saved did not come from the feed.
pub fn is_followed(in_force: Option<&Version>, later: &Version, of_every: bool) -> bool {
    match (later.lsn, later.is_filtered()) {
        (None, _) => false,
        (Some(_), true) => later.prev_lsn.is_some() && later.prev_lsn == in_force.and_then(|version| version.lsn),
        // One of MongoDB names no predecessor, and the follower that delivered it may have begun after a missing one.
        (Some(_), false) => !later.is_native && (!of_every || later.is_of_every_version()),
    }
}

/// Whether it came from a feed with deletes. In an archive, a baseline only comes from such a feed, which has
/// everything that happened since.
fn is_of_feed_with_deletes(version: &Version) -> bool {
    match version.op {
        Some(Op::Baseline) => version.via == Some(VersionVia::Archive),
        // The delete need not have passed the filter.
        _ => version.is_of_every_version() && !version.is_filtered(),
    }
}

/// The position of the version that the live document with this etag corresponds to. A MongoDB document whose earlier
/// bytes return has its earlier etag again: then it is the newest of those versions.
pub fn place_of_live(id: &str, versions: &[Version], etag: &str) -> Option<usize> {
    let own_id = id_of_version(id, etag);
    let own = versions.iter().enumerate().filter(|(_, v)| v.etag.as_deref() == Some(etag) || v.record_id == own_id);
    own.max_by(|(_, one), (_, other)| one.position().cmp(&other.position())).map(|(place, _)| place)
}

/// The versions of an item together with the live document, which is the newest version.
pub fn with_live<'a>(id: &str, versions: &'a [Version], live: Option<&Live>) -> Cow<'a, [Version]> {
    let Some(live) = live else { return Cow::Borrowed(versions) };
    match place_of_live(id, versions, &live.etag) {
        Some(known) if versions[known].lsn.is_some() => Cow::Borrowed(versions),
        // It has no LSN: being live proves that it is the last of its second.
        Some(known) => {
            let mut all = versions.to_vec();
            all[known].captured = Some(i64::MAX);
            all[known].via = all[known].via.take().or(Some(VersionVia::Known(Via::Restore)));
            Cow::Owned(all)
        }
        None => match live.ts {
            Some(ts) => {
                let mut all = versions.to_vec();
                all.push(Version::live(id, &live.etag, ts, live.text.clone()));
                Cow::Owned(all)
            }
            None => Cow::Borrowed(versions),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_later_version_proves_what_its_feed_delivers() {
        let version = |op: &str, lsn: Option<i64>, prev: Option<i64>, via: &str| {
            let change = json!({"v": 1, "op": op, "ts": 5, "lsn": lsn, "prevLsn": prev, "via": via});
            Version::parse(&json!({"id": "a~1", "_originalId": "a", "_change": change}).to_string()).unwrap()
        };
        let in_force = version("create", Some(3), None, "trigger");
        let is_proof = |later: &Version| [true, false].map(|of_every| is_followed(Some(&in_force), later, of_every));
        assert_eq!(is_proof(&version("replace", Some(9), Some(7), "trigger")), [true, true]);
        assert_eq!(is_proof(&version("upsert", Some(9), None, "trigger")), [false, true]);
        // It proves only that the version which it names was in force until then.
        assert_eq!(is_proof(&version("replace", Some(9), Some(3), "filter")), [true, true]);
        assert_eq!(is_proof(&version("replace", Some(9), Some(7), "filter")), [false, false]);
        assert_eq!(is_proof(&version("upsert", Some(9), None, "filter")), [false, false]);
        assert!(!is_followed(None, &version("create", Some(9), None, "filter"), false));
        // It did not come from the feed.
        assert_eq!(is_proof(&version("upsert", None, None, "restore")), [false, false]);
        // It names no predecessor in any case.
        let native = Version { is_native: true, ..version("replace", Some(9), None, "follow") };
        assert_eq!(is_proof(&native), [false, false]);
    }

    #[test]
    fn a_live_document_proves_what_its_etag_stands_for() {
        let version = |ts: i64, n: i64| {
            let change = json!({"v": 1, "op": "replace", "ts": ts, "lsn": n, "etag": "e", "via": "follow"});
            let version =
                Version::parse(&json!({"id": format!("a~{n}"), "_originalId": "a", "_change": change}).to_string());
            Version { is_native: true, ..version.unwrap() }
        };
        let item = ItemKey { id: "a".into(), partition_key: crate::change::key::PartitionKey::parse("a").unwrap() };
        let doubt = |ts: Option<i64>, reach: Reach<'_>, at: PointInTime| {
            let (versions, live) = ([version(5, 1)], Live { etag: "e".into(), ts, text: None });
            let source = Some(&live);
            let facts = Facts { versions: &versions, unkeyed: &[], target: source, source, reach, lost: None };
            facts.doubt(&item, &super::super::as_of::as_of(&versions, at), Some("e")).is_some()
        };
        let holes = vec![removals::Hole { after: Some(4), before: 20 }];
        let blind_spots = removals::BlindSpots { holes, ..removals::BlindSpots::NOTHING };
        let reach = Reach::of_all_but(&blind_spots);
        let at = PointInTime::from_epoch;
        // An etag of one write proves it in the hole and after it; one that comes back with the bytes only from its end
        // on.
        assert_eq!([at(10), at(20), PointInTime::END].map(|at| doubt(Some(5), reach, at)), [false; 3]);
        assert_eq!([at(10), at(20), PointInTime::END].map(|at| doubt(None, reach, at)), [true, false, false]);
        assert!(!doubt(None, Reach::ALL, at(10)));
    }

    #[test]
    fn what_was_saved_after_a_hole_may_have_been_made_in_it() {
        let version = |op: &str, ts: i64, lsn: Option<i64>, via: &str| {
            let change = json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "via": via});
            let record = json!({"id": format!("a~{ts}"), "_originalId": "a", "_change": change});
            Version::parse(&record.to_string()).unwrap()
        };
        let item = ItemKey { id: "a".into(), partition_key: crate::change::key::PartitionKey::parse("a").unwrap() };
        let blind_spots = |after| removals::BlindSpots {
            holes: vec![removals::Hole { after: Some(after), before: after + 10 }],
            ..removals::BlindSpots::NOTHING
        };
        let doubt = |next: Version, native: bool, hole: i64| {
            let versions = [version("delete", 10, Some(7), "follow"), next].map(|v| Version { is_native: native, ..v });
            let blind_spots = blind_spots(hole);
            let reach = Reach::of_all_but(&blind_spots);
            let facts = Facts { versions: &versions, unkeyed: &[], target: None, source: None, reach, lost: None };
            facts.doubt(&item, &super::super::as_of::as_of(&versions, PointInTime::from_epoch(40)), None).is_some()
        };
        for native in [false, true] {
            assert!(doubt(version("upsert", 60, None, "restore"), native, 20), "{native}");
            assert!(!doubt(version("upsert", 60, None, "restore"), native, 45), "the hole came later: {native}");
            // A creation that was captured says since when it was there.
            assert!(!doubt(version("create", 60, Some(9), "follow"), native, 20), "{native}");
        }
    }
}

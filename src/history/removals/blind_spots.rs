//! The times about which a history proves nothing, and the doubt that they cast on what it says of a document.

use std::fmt;

use super::{Hole, Removals, read};
use crate::{
    change::{
        Op,
        time::PointInTime,
        version::{Version, container_of},
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry},
    history::{
        as_of::{AsOf, State},
        frontier::{Evidence, Part},
        reading::{AxisEnd, HistoryReader, WhichEnd},
    },
};

/// The times about which a history proves nothing, though nothing in it looks missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlindSpots {
    /// Documents that had been deleted before this second may have been removed with all their versions.
    pub dropped_before: Option<i64>,
    /// The times in which nobody captured every version of all documents.
    pub holes: Vec<Hole>,
    /// The first change that came from a feed of every version. What was deleted before may be in no version at all.
    pub begins: Option<i64>,
    /// Whether there is no such change, though such a feed is read: nothing has changed since, and nothing shows since
    /// when that is.
    pub awaits_first: bool,
    /// The last change that came from such a feed, where none is read any more: what was made and deleted since is in
    /// no version at all.
    pub ends: Option<i64>,
}

/// Where nobody saw that a document began to exist, and that it ceased to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenLife {
    /// Where it may have begun.
    pub begins: Hole,
    /// Where it may have ended: the same hole, or a later one.
    pub ends: Hole,
}

impl fmt::Display for HiddenLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.begins == self.ends { self.begins.fmt(f) } else { write!(f, "{}, and {}", self.begins, self.ends) }
    }
}

/// One of the containers with a common name that a history has versions of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeAgain {
    /// Its identity.
    pub container: u64,
    /// Its first version, epoch seconds: the container before had been deleted by then.
    pub since: i64,
}

impl BlindSpots {
    /// The hole that a moment lies in.
    pub fn hole_at(&self, at: PointInTime) -> Option<&Hole> {
        self.holes.iter().find(|hole| hole.has(at.seconds()))
    }

    /// The holes that may hide that a document existed at a moment: it began to exist in one from before it, and ceased
    /// to in the same or in a later one. `deleted` is the second of its last known delete before the moment, and `made`
    /// that of the creation known after it. Without a delete, it may also have begun before the history did: nobody
    /// knows whether all documents of that time are in it.
    pub fn life_around(&self, at: PointInTime, deleted: Option<i64>, made: Option<i64>) -> Option<HiddenLife> {
        if let Some(hole) = self.hole_at(at) {
            return Some(HiddenLife { begins: *hole, ends: *hole });
        }
        let may_begin = |hole: &&Hole| match deleted {
            Some(deleted) => hole.may_follow(deleted, at),
            None => hole.after.is_none_or(|after| after < at.seconds()),
        };
        let may_end = |hole: &&Hole| {
            at.seconds() < hole.before && hole.after.is_none_or(|after| made.is_none_or(|made| after < made))
        };
        let before_all = || {
            let begins = self.begins.filter(|_| deleted.is_none())?;
            Some(Hole { after: None, before: begins })
        };
        let ends = self.holes.iter().find(may_end)?;
        let begins = self.holes.iter().rfind(may_begin).copied().or_else(before_all)?;
        Some(HiddenLife { begins, ends: *ends })
    }

    /// The same for a document whose last known version before the moment is its delete.
    pub fn life_after(&self, tombstone: &Version, known: &AsOf<'_>) -> Option<HiddenLife> {
        let made = known.next.filter(|next| next.op == Some(Op::Create)).map(|next| next.ts);
        self.life_around(known.at, Some(tombstone.ts), made)
    }

    /// The hole in which a change may be missing between a version of a second and a moment.
    pub fn hole_between(&self, second: i64, at: PointInTime) -> Option<&Hole> {
        self.holes.iter().find(|hole| hole.may_follow(second, at))
    }

    /// Why changes may be missing after a version that came through a filter: what did not pass is in the history only
    /// from its beginning on. A delete is asked about the moment, since one that ended later is in the history; a
    /// document of MongoDB, which names no predecessor, about itself.
    pub fn only_filtered(&self, version: &Version, at: PointInTime) -> Option<String> {
        let second = if version.op.is_some_and(Op::is_tombstone) { at.seconds().saturating_add(1) } else { version.ts };
        match self.begins {
            _ if !version.is_filtered() => None,
            None => Some("only what passed a filter is in the history".to_owned()),
            Some(begins) => (second <= begins).then(|| {
                let begins = PointInTime::from_epoch(begins);
                format!("only what passed a filter is in the history from before {begins}")
            }),
        }
    }

    /// For a store of versions that has everything there is.
    pub const NOTHING: Self =
        Self { dropped_before: None, holes: Vec::new(), begins: None, awaits_first: false, ends: None };
}

/// Reads the times about which a history proves nothing.
///
/// # Errors
/// When the service refuses.
pub async fn blind_spots(changes: &dyn HistoryReader) -> Result<BlindSpots, Failure> {
    blind_spots_of(&read(changes).await?, &[], changes).await
}

/// The same, when what was removed was read already, and it is known who reads each part of the feed.
///
/// # Errors
/// When the service refuses.
pub async fn blind_spots_of(
    removed: &Removals,
    parts: &[Part],
    changes: &dyn HistoryReader,
) -> Result<BlindSpots, Failure> {
    let end = async |which| Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(which)).await;
    let begins = end(WhichEnd::OldestOfAll).await?;
    let ends = match begins.is_some() && parts.iter().any(|part| !part.sees_deletes) {
        true => end(WhichEnd::NewestOfAllBefore(i64::MAX)).await?,
        false => None,
    };
    let [begins, ends] = [begins, ends].map(|end| end.map(|end| end.ts));
    let is_read = |part: &Part| part.sees_deletes && matches!(part.evidence, Evidence::Reader(_));
    let awaits_first = begins.is_none() && parts.iter().any(is_read);
    Ok(BlindSpots { begins, awaits_first, ends, ..removed.blind_spots() })
}

/// Reads which containers a history has versions of, newest first; none when it only has those of `source`, today's, or
/// its id is malformed. Without a source, because it is gone, none when there is only one. Each container was created
/// after the one before was gone. So, starting from the newest version of all, the first version of each leads to the
/// newest of the one before.
///
/// # Errors
/// When the service refuses.
pub async fn made_again(changes: &dyn HistoryReader, source: Option<&str>) -> Result<Vec<MadeAgain>, Failure> {
    let end = async |which| Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(which)).await;
    let of = |end: Option<AxisEnd>| container_of(&end?.rid?);
    let mut all: Vec<MadeAgain> = Vec::new();
    let mut next = end(WhichEnd::Newest).await?;
    let Some(last) = source.map_or_else(|| of(next.clone()), container_of) else { return Ok(all) };
    if of(end(WhichEnd::Oldest).await?) == Some(last) {
        return Ok(all);
    }
    while let Some(container) = of(next) {
        let Some(first) = end(WhichEnd::OldestOf(container)).await? else { break };
        // Two containers that write at the same time do not follow each other.
        if all.iter().any(|known| known.container == container) {
            break;
        }
        all.push(MadeAgain { container, since: first.ts });
        next = end(WhichEnd::NewestBefore(first.ts)).await?;
    }
    Ok(all)
}

/// Why a document may have been different at a moment than its versions say: it may have been deleted and removed
/// together with its delete; or its delete was never captured; or its container was gone by then. Whether it is live
/// does not matter here.
pub fn doubt(known: &AsOf<'_>, blind_spots: &BlindSpots, made_again: &[MadeAgain]) -> Option<String> {
    const DROPPED: &str = "deleted documents of that time were dropped from the history (prune --drop-deleted)";
    if let Some(begins) = blind_spots.begins.filter(|begins| known.created_later() && known.at.seconds() < *begins) {
        return Some(format!(
            "was created later, but every version is in the history only from {} on: whether it existed before is not known",
            PointInTime::from_epoch(begins)
        ));
    }
    if let State::NotYet { earliest } = known.state
        && known.created_later()
        && blind_spots.begins.is_none()
        && earliest.is_filtered()
    {
        return Some(
            "was created later, but only what passed a filter is in the history: whether it existed before is not known"
                .into(),
        );
    }
    if let State::Document(version) = &known.state
        && let Some(later) = made_again.iter().find(|other| {
            version.is_of_another(Some(other.container)) && (version.ts..=known.at.seconds()).contains(&other.since)
        })
    {
        return Some(format!(
            "its container was deleted, and made again before {}: it was not there any more",
            PointInTime::from_epoch(later.since)
        ));
    }
    // A life may be missing with its beginning and its end.
    let life = match known.state {
        State::NotYet { earliest } if known.created_later() => {
            blind_spots.life_around(known.at, None, Some(earliest.ts)).map(|life| ("was created later", life))
        }
        State::Deleted(tombstone) => blind_spots.life_after(tombstone, known).map(|life| ("was deleted by then", life)),
        _ => None,
    };
    if let Some((was, life)) = life {
        return Some(format!("{was}, but {life}: whether it existed in between is not known"));
    }
    if let State::Deleted(tombstone) = known.state
        && let Some(only) = blind_spots.only_filtered(tombstone, known.at)
    {
        return Some(format!("was deleted by then, but {only}: whether it existed in between is not known"));
    }
    if let State::Document(version) = known.state
        && (version.is_native || known.next.is_some_and(|next| !tells_life(version, next, made_again)))
    {
        let hole = blind_spots.hole_between(version.ts, known.at).map(ToString::to_string);
        if let Some(unseen) = hole.or_else(|| blind_spots.only_filtered(version, known.at)) {
            return Some(format!("{unseen}: whether it was changed or deleted before the point in time is not known"));
        }
    }
    let before = blind_spots.dropped_before?;
    match known.state {
        // It arrived late: what had followed it was gone by then.
        State::Document(version) if known.next.is_none() && !version.is_live() && version.ts < before => {
            Some(format!("{DROPPED}: it may have been deleted before the point in time"))
        }
        State::NotYet { .. } if known.created_later() && known.at.seconds() < before => {
            Some(format!("was created later, but {DROPPED}: whether it existed before is not known"))
        }
        _ => None,
    }
}

/// Whether the next version tells by itself if the document existed all the time until then: it names this one as its
/// predecessor, or both have identities, which a new document has anew. One of a container that was made later says
/// nothing about it.
fn tells_life(version: &Version, next: &Version, made_again: &[MadeAgain]) -> bool {
    let today = made_again.first().map(|made| made.container);
    let is_named = next.prev_lsn.is_some() && next.prev_lsn == version.lsn;
    is_named || version.life.zip(next.life).is_some() || version.is_of_another(next.container.or(today))
}

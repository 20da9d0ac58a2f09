//! When records were last removed from the history, when changes were passed over, and which answers that took away.
//! One small item beside the journals says so. Without it, a creation that remains as the first version would prove
//! that there was no document before, a plan would rely on a saved version that was pruned, and a version that arrives
//! late would prove that its document is alive.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    as_of::{AsOf, State},
    reading::{AxisEnd, HistoryReader, WhichEnd},
};
use crate::{
    change::{
        record::{ORIGINAL_ID, layout::key_of_other},
        time::PointInTime,
        version::container_of,
    },
    cosmos::{Disposition, Failure, Items, RETRY_TIMEOUT, Retry, Status},
};

/// Takes the place of a document's id; begins like a journal's, so that it is not taken for a record.
const GROUP: &str = "restore~removals";
const ID: &str = "restore~removals~mark";

/// Versions that were removed from a history, or never written to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removals {
    /// When records were last removed, epoch seconds.
    #[serde(default)]
    pub at: Option<i64>,
    /// Documents that had been deleted before this second may have been removed with all their versions.
    #[serde(default)]
    pub dropped_before: Option<i64>,
    /// Versions from before this second may have been removed: from here on every instant is answered as if none had
    /// been.
    #[serde(default)]
    pub pruned_before: Option<i64>,
    /// The times in which nobody captured every version of all documents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Hole>,
    /// When the trigger began, with leases that were made anew, in order: what was written before, and was not captured
    /// by then, was passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<Begun>,
}

/// A beginning of the trigger in all-versions mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// When its leases were made, epoch seconds.
    pub at: i64,
    /// A second by which each of them had a position, from which the trigger goes on whatever happens.
    pub until: Option<i64>,
}

/// A time in which changes were missed: no reader of every version was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    /// Up to and including this second, epoch seconds, the history has everything; `None` when that is unknown.
    pub after: Option<i64>,
    /// From this second on it has everything again.
    pub before: i64,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = PointInTime::from_epoch(self.before);
        match self.after {
            None => write!(f, "changes from before {before} may be missing from the history"),
            Some(after) => {
                let after = PointInTime::from_epoch(after);
                write!(f, "changes from between {after} and {before} may be missing from the history")
            }
        }
    }
}

impl Hole {
    /// Whether a document may have begun to exist unseen by the end of a second, and ceased to exist unseen after it.
    pub fn has(&self, second: i64) -> bool {
        self.after.is_none_or(|after| after < second) && second < self.before
    }

    /// Whether a change may be missing between a version of this second and a moment. What is from after the newest
    /// version at the time, and from the last second or later, came from the reader that began then.
    fn may_follow(&self, second: i64, at: PointInTime) -> bool {
        let is_before = self.after.is_some_and(|after| second <= after.saturating_add(1)) || second < self.before - 1;
        is_before && self.after.is_none_or(|after| after < at.seconds())
    }
}

impl Removals {
    /// The times about which such a history proves nothing, but for when it begins.
    pub fn blind_spots(&self) -> BlindSpots {
        BlindSpots { dropped_before: self.dropped_before, holes: self.holes.clone(), begins: None }
    }

    /// Combines both.
    fn and(mut self, more: Self) -> Self {
        self.holes.extend(more.holes);
        for new in more.begun {
            match self.begun.iter_mut().find(|known| known.at == new.at) {
                Some(known) => known.until = known.until.or(new.until),
                None => self.begun.push(new),
            }
        }
        self.begun.sort_unstable_by_key(|begun| begun.at);
        Self {
            at: self.at.max(more.at),
            dropped_before: self.dropped_before.max(more.dropped_before),
            pruned_before: self.pruned_before.max(more.pruned_before),
            holes: joined(self.holes),
            begun: self.begun,
        }
    }
}

/// Reads the notes of removals.
///
/// # Errors
/// When the service refuses.
pub async fn read(changes: &dyn Items) -> Result<Removals, Failure> {
    Ok(stored(changes).await?.map(|item| item.mark).unwrap_or_default())
}

/// The item, as it is stored.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "_restore")]
    mark: Removals,
    #[serde(rename = "_etag")]
    etag: String,
}

async fn stored(changes: &dyn Items) -> Result<Option<Item>, Failure> {
    let key = key_of_other(changes.key_paths(), GROUP, ID);
    let text = Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.read(&key, ID)).await?;
    let item = text.map(|text| serde_json::from_str(&text)).transpose();
    item.map_err(|e| Failure::invalid("read history".into(), format!("the item {ID} is not understood: {e}")))
}

/// The times about which a history proves nothing, though nothing in it looks missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlindSpots {
    /// Documents that had been deleted before this second may have been removed with all their versions.
    pub dropped_before: Option<i64>,
    /// The times in which nobody captured every version of all documents.
    pub holes: Vec<Hole>,
    /// The first change that came from a feed of every version. What was deleted before may be in no version at all.
    pub begins: Option<i64>,
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

    /// For a store of versions that has everything there is.
    pub const NOTHING: Self = Self { dropped_before: None, holes: Vec::new(), begins: None };
}

/// Reads the times about which a history proves nothing.
///
/// # Errors
/// When the service refuses.
pub async fn blind_spots(changes: &dyn HistoryReader) -> Result<BlindSpots, Failure> {
    blind_spots_of(&read(changes).await?, changes).await
}

/// The same, when what was removed was read already.
///
/// # Errors
/// When the service refuses.
pub async fn blind_spots_of(removed: &Removals, changes: &dyn HistoryReader) -> Result<BlindSpots, Failure> {
    let begins = Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(WhichEnd::OldestOfAll)).await?;
    Ok(BlindSpots { begins: begins.map(|end| end.ts), ..removed.blind_spots() })
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

/// Notes that records from before a second are about to be removed, and whole documents from before another, by the
/// account's time. Called first: what is removed without a note would be missed.
///
/// # Errors
/// When the service refuses: then nothing may be removed.
pub async fn note(
    changes: &dyn HistoryReader,
    pruned_before: i64,
    dropped_before: Option<i64>,
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let (at, pruned_before) = (Some(now.timestamp()), Some(pruned_before));
    add(changes, Removals { at, dropped_before, pruned_before, ..Removals::default() }).await
}

/// Notes times, by the account's clock, in which changes may be missing from the history, though nothing in it looks
/// missing.
///
/// # Errors
/// When the service refuses.
pub async fn note_holes(changes: &dyn Items, holes: Vec<Hole>) -> Result<(), Failure> {
    add(changes, Removals { holes, ..Removals::default() }).await
}

/// Notes when the trigger that writes this history began. The handler does that, which may not ask the history whether
/// anything is missing: whoever reads it does.
///
/// # Errors
/// When the service refuses.
pub async fn note_begun(changes: &dyn Items, begun: Begun) -> Result<(), Failure> {
    add(changes, Removals { begun: vec![begun], ..Removals::default() }).await
}

/// Adds to the item what it does not say yet, if anything; somebody else may be doing so at the same time.
async fn add(changes: &dyn Items, more: Removals) -> Result<(), Failure> {
    let key = key_of_other(changes.key_paths(), GROUP, ID);
    let retry = Retry::for_at_most(RETRY_TIMEOUT);
    loop {
        let known = stored(changes).await?;
        let before = known.as_ref().map(|item| item.mark.clone()).unwrap_or_default();
        let mark = before.clone().and(more.clone());
        if mark == before {
            return Ok(());
        }
        let mut entry = serde_json::to_value(mark).unwrap_or_default();
        entry["kind"] = "removals".into();
        let body = serde_json::json!({"id": ID, ORIGINAL_ID: GROUP, "_restore": entry}).to_string().into_bytes();
        let written = match &known {
            Some(item) => retry.run(|| changes.replace(&key, ID, body.clone(), &item.etag)).await,
            None => retry.run(|| changes.create(&key, ID, body.clone())).await,
        };
        match written {
            Ok(_) => return Ok(()),
            Err(f) if matches!(f.disposition, Disposition::Conflict | Disposition::PreconditionFailed) => {}
            Err(f) if f.status == Status::NO_ITEM => {}
            Err(f) => return Err(f),
        }
    }
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
    if let Some(hole) = blind_spots.hole_at(known.at) {
        // A life may be missing with its beginning and its end.
        let was = match known.state {
            State::NotYet { .. } if known.created_later() => Some("was created later"),
            State::Deleted(_) => Some("was deleted by then"),
            _ => None,
        };
        if let Some(was) = was {
            return Some(format!("{was}, but {hole}: whether it existed in between is not known"));
        }
    }
    if let State::Document(version) = known.state
        && version.is_native
        && let Some(hole) = blind_spots.holes.iter().find(|hole| hole.may_follow(version.ts, known.at))
    {
        return Some(format!("{hole}: whether it was changed or deleted before the point in time is not known"));
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

/// The same times, in order, with those that touch as one. Of too many for a small item, the first are one.
fn joined(mut holes: Vec<Hole>) -> Vec<Hole> {
    const MOST: usize = 100;
    holes.retain(|hole| hole.after < Some(hole.before));
    holes.sort_unstable_by_key(|hole| hole.after);
    let mut joined: Vec<Hole> = Vec::new();
    let more_than = holes.len().saturating_sub(MOST);
    for (place, hole) in holes.into_iter().enumerate() {
        match joined.last_mut() {
            Some(last) if hole.after <= Some(last.before) || place <= more_than => {
                last.before = last.before.max(hole.before)
            }
            _ => joined.push(hole),
        }
    }
    joined
}

/// Whether an item of the history is this one.
pub fn is_mark(group: &str) -> bool {
    group == GROUP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_that_touch_are_one_and_none_is_forgotten() {
        let hole = |after, before| Hole { after, before };
        let holes = vec![hole(Some(50), 60), hole(None, 10), hole(Some(5), 20), hole(Some(60), 70), hole(Some(9), 9)];
        assert_eq!(joined(holes), [hole(None, 20), hole(Some(50), 70)]);
        let many: Vec<Hole> = (0..150).map(|n| hole(Some(n * 10), n * 10 + 5)).collect();
        let fewer = joined(many.clone());
        assert!(fewer.len() <= 100, "{}", fewer.len());
        for second in many.iter().map(|hole| hole.before - 1) {
            assert!(fewer.iter().any(|hole| hole.has(second)), "{second}");
        }
    }

    #[test]
    fn a_beginning_is_noted_once_and_keeps_its_first_end() {
        let mark = |at, until| Removals { begun: vec![Begun { at, until }], ..Removals::default() };
        let all = [(9, None), (5, Some(6)), (9, Some(12)), (5, None), (9, Some(20))];
        let all = all.into_iter().fold(Removals::default(), |all, (at, until)| all.and(mark(at, until)));
        assert_eq!(all.begun, [Begun { at: 5, until: Some(6) }, Begun { at: 9, until: Some(12) }]);
    }

    #[test]
    fn a_hole_with_an_unknown_beginning_is_stored_without_a_number_that_the_service_could_round() {
        let mark = Removals { holes: vec![Hole { after: None, before: 7 }], ..Removals::default() };
        let text = serde_json::to_string(&mark).unwrap();
        assert!(text.contains(r#""holes":[{"after":null,"before":7}]"#), "{text}");
        assert_eq!(serde_json::from_str::<Removals>(&text).unwrap(), mark);
        assert!(mark.holes[0].has(i64::MIN) && !mark.holes[0].has(7));
    }
}

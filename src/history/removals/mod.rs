//! When records were last removed from the history, when changes were passed over, and which answers that took away.
//! One small item beside the journals says so. Without it, a creation that remains as the first version would prove
//! that there was no document before, a plan would rely on a saved version that was pruned, and a version that arrives
//! late would prove that its document is alive.

mod blind_spots;

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::blind_spots::{BlindSpots, MadeAgain, blind_spots, blind_spots_of, doubt, made_again};
use super::reading::HistoryReader;
use crate::{
    change::{
        record::{ORIGINAL_ID, layout::key_of_other},
        time::PointInTime,
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
    /// The times before followers began, in which others captured, and may not have delivered everything yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
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

/// The time before a follower began: readers that stood there were to deliver its changes. Nothing looks missing when
/// they never do, since the history goes on with what the follower delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Up to and including this second, epoch seconds, the history has everything.
    pub after: i64,
    /// From this second on the follower delivers everything.
    pub before: i64,
    /// When the trigger began that stood there, epoch seconds; `None` when none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<i64>,
}

impl Gap {
    /// The time in which changes are missing when nobody delivers them.
    pub fn hole(&self) -> Hole {
        Hole { after: Some(self.after), before: self.before }
    }
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
    /// The times about which such a history proves nothing, but for when it begins; as long as no reader was asked what
    /// it still delivers.
    pub fn blind_spots(&self) -> BlindSpots {
        let gaps = self.gaps.iter().map(Gap::hole);
        let holes = joined(self.holes.iter().copied().chain(gaps).collect());
        BlindSpots { dropped_before: self.dropped_before, holes, ..BlindSpots::NOTHING }
    }

    /// The same for those who ask the readers what becomes of the gaps.
    #[must_use]
    pub fn without_gaps(&self) -> Self {
        Self { gaps: Vec::new(), ..self.clone() }
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
        let new = more.gaps.into_iter().filter(|gap| !self.gaps.contains(gap));
        let new: Vec<Gap> = new.collect();
        self.gaps.extend(new);
        // Of too many for a small item, nobody looks any more what becomes of the first ones.
        let too_many = self.gaps.len().saturating_sub(MOST);
        self.holes.extend(self.gaps.drain(..too_many).map(|gap| gap.hole()));
        Self {
            at: self.at.max(more.at),
            dropped_before: self.dropped_before.max(more.dropped_before),
            pruned_before: self.pruned_before.max(more.pruned_before),
            holes: joined(self.holes),
            gaps: self.gaps,
            begun: self.begun,
        }
    }

    /// The same once it is known what has become of some gaps: all changes of the first were delivered, and those of the
    /// others never will be.
    fn settled(mut self, delivered: &[Gap], lost: &[Gap]) -> Self {
        let holes = lost.iter().filter(|gap| self.gaps.contains(gap)).map(Gap::hole);
        self.holes = joined(self.holes.iter().copied().chain(holes).collect());
        self.gaps.retain(|gap| !delivered.contains(gap) && !lost.contains(gap));
        self
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

/// Notes the time before a follower began, by the account's clock.
///
/// # Errors
/// When the service refuses.
pub async fn note_gap(changes: &dyn Items, gap: Gap) -> Result<(), Failure> {
    add(changes, Removals { gaps: vec![gap], ..Removals::default() }).await
}

/// Notes what has become of gaps: all changes of the first were delivered, and those of the others never will be.
///
/// # Errors
/// When the service refuses.
pub async fn settle(changes: &dyn Items, delivered: &[Gap], lost: &[Gap]) -> Result<(), Failure> {
    edit(changes, |known| known.settled(delivered, lost)).await
}

/// Adds to the item what it does not say yet, if anything.
async fn add(changes: &dyn Items, more: Removals) -> Result<(), Failure> {
    edit(changes, |known| known.and(more.clone())).await
}

/// Edits the item, if that changes anything; somebody else may be doing so at the same time.
async fn edit(changes: &dyn Items, edited: impl Fn(Removals) -> Removals) -> Result<(), Failure> {
    let key = key_of_other(changes.key_paths(), GROUP, ID);
    let retry = Retry::for_at_most(RETRY_TIMEOUT);
    loop {
        let known = stored(changes).await?;
        let before = known.as_ref().map(|item| item.mark.clone()).unwrap_or_default();
        let mark = edited(before.clone());
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

/// The most holes and gaps in the item, which is small.
const MOST: usize = 100;

/// The same times, in order, with those that touch as one. Of too many, the first are one.
fn joined(mut holes: Vec<Hole>) -> Vec<Hole> {
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
    fn a_gap_counts_as_a_hole_until_its_changes_were_delivered() {
        let gap = |after, trigger| Gap { after, before: after + 5, trigger };
        let (one, other) = (gap(10, None), gap(30, Some(4)));
        let noted = [one, other, one]
            .into_iter()
            .fold(Removals::default(), |all, gap| all.and(Removals { gaps: vec![gap], ..Removals::default() }));
        assert_eq!(noted.gaps, [one, other]);
        assert_eq!(noted.blind_spots().holes, [one.hole(), other.hole()]);
        let settled = noted.clone().settled(&[one], &[]);
        assert_eq!((settled.blind_spots().holes, settled.holes.as_slice()), (vec![other.hole()], &[][..]));
        let lost = noted.settled(&[one], &[other, other]);
        assert_eq!((lost.holes.as_slice(), lost.gaps.as_slice()), (&[other.hole()][..], &[][..]));
        // Whoever comes late has nothing to say.
        assert_eq!(lost.clone().settled(&[other], &[one]), lost);
        let many = (0..150).fold(Removals::default(), |all, n| {
            all.and(Removals { gaps: vec![gap(n * 10, None)], ..Removals::default() })
        });
        assert_eq!((many.gaps.len(), many.holes.len()), (MOST, 50));
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

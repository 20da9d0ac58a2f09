//! How far a history is known to be complete, for each part of the source's key space.
//!
//! The feed of a part is delivered in order. So where a reader (a lease of the trigger, a follower) stands, everything
//! before it is in the history, and nothing is known of what comes after. Beyond that the absence of a version proves
//! nothing.

use std::collections::HashMap;

use super::{
    as_of::boundary,
    reading::LiveContainer,
    removals::{BlindSpots, Gap, MadeAgain},
};
use crate::{
    change::{
        Op,
        key::{ItemKey, PartitionKey},
        time::PointInTime,
        version::Version,
    },
    cosmos::FeedRange,
    progress::Progress,
};

/// How the end of a part is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// From a reader's position: nothing is waiting, or what is waiting is newer. The reader's name.
    Reader(String),
    /// Only from the newest captured version: there is no reader, or it cannot be asked.
    NewestVersion,
    /// Not at all.
    None,
}

/// One part of the key space.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which part.
    pub range: FeedRange,
    /// The last second up to which everything is in the history; `None` when unknown.
    pub until: Option<PointInTime>,
    /// How that is known.
    pub evidence: Evidence,
    /// Whether deletes are captured (all-versions mode).
    pub sees_deletes: bool,
    /// Documents with an uncaptured change from before the requested moment.
    pub waiting: Waiting,
    /// The next change that the reader will deliver.
    pub next: Option<Next>,
}

impl Part {
    /// Whether the position comes from a reader in latest-version mode.
    fn is_latest(&self) -> bool {
        matches!(self.evidence, Evidence::Reader(_)) && !self.sees_deletes
    }
}

/// A change that is waiting to be captured.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// The document that changed; `None` when that cannot be parsed.
    pub item: Option<ItemKey>,
    /// The record that it will become, or has become by another reader.
    pub record: Option<String>,
    /// When it was written.
    pub ts: PointInTime,
    /// How many levels of objects and arrays the document has.
    pub depth: usize,
}

/// A document with this many levels is never delivered: the trigger's JSON reader gives up at 64, which includes the
/// array around the document, and retries for ever.
pub const TOO_DEEP: usize = 64;

/// Which documents have uncaptured changes.
#[derive(Debug, Clone, Default)]
pub enum Waiting {
    /// Unknown, because nobody looked or there are too many: it may be any document.
    #[default]
    Any,
    /// Exactly these, with their changes.
    These(HashMap<ItemKey, Vec<PendingChange>>),
}

impl Waiting {
    /// The changes of an item that are known to wait and are none of these versions.
    fn lacking<'w>(&'w self, item: &ItemKey, versions: &'w [Version]) -> impl Iterator<Item = &'w PendingChange> {
        let changes = match self {
            Self::Any => None,
            Self::These(items) => items.get(item),
        };
        let has = |record: &str| versions.iter().any(|v| v.record_id == record);
        changes.into_iter().flatten().filter(move |one| !has(&one.record))
    }
}

/// A change from before the requested moment that a reader has not reached yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingChange {
    /// The record that it becomes.
    pub record: String,
    /// When it was written, epoch seconds.
    pub ts: i64,
    /// The LSN of the version that it replaced or deleted, where the feed says so.
    pub prev_lsn: Option<i64>,
    /// Whether it made the document.
    pub creates: bool,
}

/// What has become of the changes of a [`Gap`]. Ordered: of the parts of the key space, the worst decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// A reader that stood there has delivered all of them.
    Delivered,
    /// A reader stands before them, and can go on.
    Awaited,
    /// The readers cannot be asked now.
    Unknown,
    /// No reader has delivered them, or can.
    Lost,
}

/// How far a history is known to be complete; by default, nothing is known.
#[derive(Debug, Clone, Default)]
pub struct Frontier {
    /// The parts, in order.
    pub parts: Vec<Part>,
    /// Leases, checkpoints and feeds that could not be read, and why.
    pub problems: Vec<String>,
    /// The times about which the history proves nothing, though nothing in it looks missing.
    pub blind_spots: BlindSpots,
    /// The containers so far, when there was one before today's.
    pub made_again: Vec<MadeAgain>,
    /// The times before followers began. Those whose changes are not known to arrive are blind spots, too.
    pub gaps: Vec<(Gap, Fate)>,
    /// When the trigger began that delivers every version of all documents, epoch seconds; `None` when there is none.
    pub trigger: Option<i64>,
}

/// How far the history reaches for one document.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'f> {
    /// The last second up to which everything is in the history; `None` when unknown.
    pub until: Option<PointInTime>,
    /// Whether the history would have a delete.
    pub sees_deletes: bool,
    /// Whether the position comes from a reader in latest-version mode: a recent delete would be in no version.
    pub is_latest: bool,
    /// The times about which the history proves nothing, though nothing in it looks missing.
    pub blind_spots: &'f BlindSpots,
    /// The containers so far, when there was one before today's.
    pub made_again: &'f [MadeAgain],
    waiting: Option<&'f Waiting>,
}

impl<'f> Reach<'f> {
    /// For a store of versions without a frontier: it has everything there is.
    pub const ALL: Self = Self {
        until: Some(PointInTime::END),
        sees_deletes: false,
        is_latest: false,
        blind_spots: &BlindSpots::NOTHING,
        made_again: &[],
        waiting: None,
    };

    /// The same for a store that has everything but what it proves nothing about.
    pub fn of_all_but(blind_spots: &'f BlindSpots) -> Self {
        Self { blind_spots, ..Reach::ALL }
    }

    /// Whether everything up to a moment is in the history.
    pub fn covers(&self, at: PointInTime) -> bool {
        self.until.is_some_and(|until| until >= at)
    }

    /// Whether the document is known to have a change that the reader has not reached yet.
    pub fn is_waited_for(&self, item: &ItemKey) -> bool {
        matches!(self.waiting, Some(Waiting::These(items)) if items.contains_key(item))
    }

    /// Whether it is unknown which documents have changes that the history lacks.
    pub fn may_lack_any(&self) -> bool {
        matches!(self.waiting, Some(Waiting::Any))
    }

    /// Whether a change that waits tells that nothing came between it and the newest of these versions: it names that
    /// as its predecessor, or it makes again what that deleted.
    pub fn is_followed(&self, item: &ItemKey, versions: &[Version]) -> bool {
        let first = self.waiting.and_then(|waiting| waiting.lacking(item, versions).next());
        let (Some(first), Some(newest)) = (first, boundary(versions, PointInTime::END)) else { return false };
        match newest.op.is_some_and(Op::is_tombstone) {
            true => first.creates,
            false => first.prev_lsn.is_some() && first.prev_lsn == newest.lsn,
        }
    }

    /// Whether the history may lack a change up to the moment for a document with these versions.
    pub fn may_lack(&self, item: &ItemKey, versions: &[Version]) -> bool {
        self.may_lack_since(item, versions, i64::MIN)
    }

    /// The same for changes from this second or later. What came before a version that is there does not matter to what
    /// followed it.
    pub fn may_lack_since(&self, item: &ItemKey, versions: &[Version], second: i64) -> bool {
        self.may_lack_any()
            || self.waiting.is_some_and(|waiting| waiting.lacking(item, versions).any(|one| one.ts >= second))
    }
}

impl Frontier {
    /// Reports what could not be asked: what it would have told is missing from this answer.
    pub fn report_problems(&self, progress: &dyn Progress) {
        self.problems.iter().for_each(|problem| progress.note(&format!("warning: {problem}")));
    }

    /// The earliest second at which a part ends; `None` when nothing is known about some part.
    pub fn until(&self) -> Option<PointInTime> {
        self.parts.iter().map(|part| part.until).min().flatten()
    }

    /// Whether everything up to a moment is in the history.
    pub fn covers(&self, at: PointInTime) -> bool {
        self.until().is_some_and(|until| until >= at)
    }

    /// The part that ends first.
    pub fn first_end(&self) -> Option<&Part> {
        self.parts.iter().min_by_key(|part| part.until)
    }

    /// How far the history reaches for a document of this container.
    pub fn reach(&self, source: &dyn LiveContainer, key: &PartitionKey) -> Reach<'_> {
        let part = match self.parts.as_slice() {
            [one] => Some(one),
            parts => {
                let place = source.range_of(key).ok();
                place.and_then(|place| parts.iter().find(|part| part.range.intersection(&place).is_some()))
            }
        };
        let (blind_spots, made_again) = (&self.blind_spots, self.made_again.as_slice());
        match part {
            Some(part) => Reach {
                until: part.until,
                sees_deletes: part.sees_deletes,
                is_latest: part.is_latest(),
                blind_spots,
                made_again,
                waiting: Some(&part.waiting),
            },
            // A key that lies nowhere: the facts about all parts.
            None => Reach {
                until: self.until(),
                sees_deletes: self.parts.iter().all(|part| part.sees_deletes),
                is_latest: self.parts.iter().any(Part::is_latest),
                blind_spots,
                made_again,
                waiting: Some(&Waiting::Any),
            },
        }
    }

    /// Where the history ends, in words.
    pub fn describe(&self) -> String {
        let Some(part) = self.first_end() else { return "nothing tells how far the history reaches".into() };
        let of = if self.parts.len() > 1 { format!(" in feed range {}", part.range) } else { String::new() };
        match (part.until, &part.evidence) {
            (Some(PointInTime::END), _) => "the history is complete".into(),
            (Some(until), Evidence::Reader(name)) => format!("the history ends at {until}{of} ({name} is behind)"),
            (Some(until), _) => {
                format!("the history ends at {until}{of} (its newest version; no lease or checkpoint tells more)")
            }
            (None, _) => format!(
                "nothing tells how far the history reaches{of}: it has no captured version, and there is no lease or checkpoint"
            ),
        }
    }
}

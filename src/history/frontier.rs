//! How far a history is known to be complete, part by part of the source's key space.
//!
//! The feed of a part is delivered in order. So where a reader (a lease of the trigger, a follower) stands, everything
//! before it is in the history, and nothing is known of what comes after. Beyond that the absence of a version proves
//! nothing.

use std::collections::HashMap;

use super::{
    reading::LiveContainer,
    removals::{MadeAgain, Untold},
};
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        time::PointInTime,
        version::Version,
    },
    cosmos::FeedRange,
};

/// What tells how far a part is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// Where a reader stands: nothing waits, or what waits is newer. The reader's name.
    Reader(String),
    /// Only what was captured last: there is no reader, or it cannot be asked.
    NewestVersion,
    /// Nothing at all.
    None,
}

/// One part of the key space.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which part.
    pub range: FeedRange,
    /// The last second of which everything is in the history; `None` when nothing is known.
    pub until: Option<PointInTime>,
    /// What tells.
    pub evidence: Evidence,
    /// Whether deletes are captured (all-versions mode).
    pub sees_deletes: bool,
    /// Documents that have a change of before the moment asked for that is not captured.
    pub waiting: Waiting,
    /// The change that the reader comes to next.
    pub next: Option<Next>,
}

impl Part {
    /// Whether a reader in latest-version mode tells how far it is.
    fn is_latest(&self) -> bool {
        matches!(self.evidence, Evidence::Reader(_)) && !self.sees_deletes
    }
}

/// A change that waits to be captured.
#[derive(Debug, Clone, PartialEq)]
pub struct Next {
    /// Whose change it is; `None` when that is not understood.
    pub item: Option<ItemKey>,
    /// The record that it becomes, or has become by another reader.
    pub record: Option<String>,
    /// When it was written.
    pub ts: PointInTime,
    /// Levels of objects and arrays in the document.
    pub depth: usize,
}

/// A document of this many levels is never delivered: the trigger's JSON reader gives up at 64, the array around the
/// document being one, and tries again for ever.
pub const TOO_DEEP: usize = 64;

/// Which documents have changes that are not captured.
#[derive(Debug, Clone, Default)]
pub enum Waiting {
    /// It was not looked at, or they are too many: it may be any.
    #[default]
    Any,
    /// These and no others, with the records that their changes become.
    These(HashMap<ItemKey, Vec<String>>),
}

/// How far a history is known to be complete.
#[derive(Debug, Clone)]
pub struct Frontier {
    /// The parts, in order.
    pub parts: Vec<Part>,
    /// What could not be asked, and why.
    pub problems: Vec<String>,
    /// Of which times it tells nothing, though nothing in it looks missing.
    pub untold: Untold,
    /// The containers that there were, where there was one before today's.
    pub made_again: Vec<MadeAgain>,
}

/// What is known of one document's part.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'f> {
    /// The last second of which everything is in the history; `None` when nothing is known.
    pub until: Option<PointInTime>,
    /// Whether a delete would be in the history.
    pub sees_deletes: bool,
    /// Whether a reader in latest-version mode tells how far it is: what was deleted lately would be in no version.
    pub is_latest: bool,
    /// Of which times it tells nothing, though nothing in it looks missing.
    pub untold: Untold,
    /// The containers that there were, where there was one before today's.
    pub made_again: &'f [MadeAgain],
    waiting: Option<&'f Waiting>,
}

impl Reach<'_> {
    /// Of a place for versions that has no frontier: what it has is all there is.
    pub const ALL: Self = Self {
        until: Some(PointInTime::END),
        sees_deletes: false,
        is_latest: false,
        untold: Untold::NOTHING,
        made_again: &[],
        waiting: None,
    };

    /// The same of one that has all there is since its first change from a feed of every version.
    pub fn since(begins: Option<i64>) -> Self {
        Self { untold: Untold { begins, ..Untold::NOTHING }, ..Self::ALL }
    }

    /// Whether everything up to a moment is in the history.
    pub fn covers(&self, at: PointInTime) -> bool {
        self.until.is_some_and(|until| until >= at)
    }

    /// Whether it is known that the document has a change that the reader comes to later.
    pub fn is_waited_for(&self, item: &ItemKey) -> bool {
        matches!(self.waiting, Some(Waiting::These(items)) if items.contains_key(item))
    }

    /// Whether it is not known which documents have changes that the history lacks.
    pub fn may_lack_any(&self) -> bool {
        matches!(self.waiting, Some(Waiting::Any))
    }

    /// Whether a document with these versions may have a change up to the moment that the history lacks.
    pub fn may_lack(&self, item: &ItemKey, versions: &[Version]) -> bool {
        match self.waiting {
            None => false,
            Some(Waiting::Any) => true,
            Some(Waiting::These(items)) => items
                .get(item)
                .is_some_and(|records| records.iter().any(|id| !versions.iter().any(|v| v.record_id == *id))),
        }
    }
}

impl Frontier {
    /// The earliest second at which a part ends; `None` when there is a part of which nothing is known.
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

    /// What is known of the part of a document of this container.
    pub fn reach(&self, source: &dyn LiveContainer, key: &PartitionKey) -> Reach<'_> {
        let part = match self.parts.as_slice() {
            [one] => Some(one),
            parts => {
                let place = source.range_of(key).ok();
                place.and_then(|place| parts.iter().find(|part| part.range.intersection(&place).is_some()))
            }
        };
        let (untold, made_again) = (self.untold, self.made_again.as_slice());
        match part {
            Some(part) => Reach {
                until: part.until,
                sees_deletes: part.sees_deletes,
                is_latest: part.is_latest(),
                untold,
                made_again,
                waiting: Some(&part.waiting),
            },
            // A key that lies nowhere: what is known of all parts.
            None => Reach {
                until: self.until(),
                sees_deletes: self.parts.iter().all(|part| part.sees_deletes),
                is_latest: self.parts.iter().any(Part::is_latest),
                untold,
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

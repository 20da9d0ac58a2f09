//! The result of a search: figures, and what cannot be known.

use std::collections::HashSet;

use super::{
    FindError,
    figures::{Histogram, NameCounts},
    look::{FoundWrite, SearchTally, Still},
};
use crate::{
    change::{time::PointInTime, version::BadRecord},
    history::{
        frontier::{Evidence, Frontier},
        removals::Hole,
    },
};

/// Figures of a search. The writes themselves were passed on already.
#[derive(Debug, Clone)]
pub struct Report {
    /// Documents for which the condition became true.
    pub found: u64,
    /// Of these: it is true for the live document.
    pub still: u64,
    /// Of these: it is no longer true.
    pub healed: u64,
    /// Of these: the document no longer exists.
    pub gone: u64,
    /// Of these: something about the write is not known.
    pub doubtful: u64,
    /// The earliest and the latest of the writes, epoch seconds.
    pub span: Option<(i64, i64)>,
    /// The writes by time.
    pub histogram: Histogram,
    /// The fields that changed in them.
    pub fields: NameCounts,
    /// Who wrote them, if a field names that.
    pub actors: NameCounts,
    /// Counts of the examined versions.
    pub tally: SearchTally,
    /// Records that cannot be read.
    pub bad: Vec<BadRecord>,
    /// How far the history is complete.
    pub frontier: Frontier,
    /// Whether the history ends before the end of the requested time.
    pub ends_before: bool,
    /// The times within the requested one in which changes may be missing, though nothing in the history looks missing.
    pub missed: Vec<Hole>,
    /// Whether writes are waiting to be captured, when the request has no end.
    pub behind: bool,
    /// Whether the search was told to stop before its end.
    pub interrupted: bool,
}

/// Whether a reader has not delivered everything in the feed.
fn is_behind(frontier: &Frontier) -> bool {
    let first = frontier.first_end().filter(|part| part.until != Some(PointInTime::END));
    first.is_some_and(|part| matches!(part.evidence, Evidence::Reader(_)))
}

impl Report {
    pub(super) fn new(frontier: Frontier, from: Option<PointInTime>, to: Option<PointInTime>) -> Self {
        let is_asked = |hole: &Hole| {
            from.is_none_or(|from| from.seconds() <= hole.before)
                && to.zip(hole.after).is_none_or(|(to, after)| after < to.seconds())
        };
        Self {
            missed: frontier.blind_spots.holes.iter().copied().filter(is_asked).collect(),
            found: 0,
            still: 0,
            healed: 0,
            gone: 0,
            doubtful: 0,
            span: None,
            histogram: Histogram::default(),
            fields: NameCounts::default(),
            actors: NameCounts::default(),
            tally: SearchTally::default(),
            bad: Vec::new(),
            behind: to.is_none() && is_behind(&frontier),
            ends_before: to.is_some_and(|to| !frontier.covers(to)),
            frontier,
            interrupted: false,
        }
    }

    /// Whether everything is known that was asked for.
    pub fn is_complete(&self) -> bool {
        !self.ends_before
            && !self.interrupted
            && self.bad.is_empty()
            && self.tally.unreadable.is_empty()
            && self.tally.partial == 0
            && self.tally.not_at_end == 0
    }

    pub(super) fn count(&mut self, write: &FoundWrite) {
        self.found += 1;
        match write.still {
            Still::Yes => self.still += 1,
            Still::No => self.healed += 1,
            Still::Gone => self.gone += 1,
            Still::Unknown => {}
        }
        self.doubtful += u64::from(!write.notes.is_empty());
        let ts = write.version.ts;
        self.span = Some(self.span.map_or((ts, ts), |(first, last)| (first.min(ts), last.max(ts))));
        self.histogram.add(ts);
        write.changed.iter().for_each(|path| self.fields.add(path));
        if let Some(actor) = &write.actor {
            self.actors.add(actor);
        }
    }

    /// The report, unless the expression uses an unknown name.
    pub(super) fn checked(mut self) -> Result<Self, FindError> {
        // An item that was set aside is already named.
        let bad: HashSet<&str> = self.bad.iter().map(|bad| bad.record_id.as_str()).collect();
        self.tally.unreadable.retain(|unreadable| !bad.contains(unreadable.record_id.as_str()));
        match self.tally.undeclared.take() {
            Some(why) => Err(FindError::Undeclared(why)),
            None => Ok(self),
        }
    }
}

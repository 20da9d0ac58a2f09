//! The state of a history when a follower begins to deliver to it: whether anything is missing in between.

use serde::Deserialize;

use super::{Checkpoint, UnnotedHole};
use crate::{
    config::Names,
    cosmos::{
        Container, Cosmos, Disposition, Failure, FeedMode, FeedRange, FeedSource, FeedStart, Param, RETRY_TIMEOUT,
        Retry, RuLimiter,
    },
    history::{
        Account as _,
        frontier::Evidence,
        reading::Which,
        removals::{self, Hole},
    },
};

/// A history that a follower does not begin: it has versions already.
#[derive(Debug)]
pub struct Earlier {
    /// Where the history is.
    pub account: Cosmos,
    /// Its names.
    pub names: Names,
    /// Whether what is followed is not in this account, so that the readers of the history are not known there.
    pub is_elsewhere: bool,
}

/// The checkpoint of a follower that writes a history from another source.
#[derive(Debug, Deserialize)]
pub(super) struct Other {
    /// The id of its checkpoint.
    pub(super) id: String,
    pub(super) follower: String,
    pub(super) source: String,
}

/// A follower that writes this history from another source than this one, if there is one. Documents of two sources
/// with one id and one partition key would be one document there.
///
/// # Errors
/// When the lease container cannot be read.
pub(super) async fn other_source(leases: &Container, history: &str, source: &str) -> Result<Option<Other>, Failure> {
    const SQL: &str = "SELECT TOP 1 c.id, c.follower, c.source FROM c \
                       WHERE STARTSWITH(c.id, 'follow.') AND c.history = @history AND c.source != @source";
    let params = [Param::new("history", history), Param::new("source", source)];
    let found = leases.query_all(SQL, &params, None).await?;
    Ok(found.first().and_then(|row| serde_json::from_str(row.get()).ok()))
}

impl Earlier {
    /// Returns the hole that begins when a follower begins to write the history: every version was captured once, and
    /// no reader goes on with that. `None` when nothing is.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub(super) async fn lacks(
        &self,
        source: &dyn FeedSource,
        own: &Checkpoint,
    ) -> Result<Option<UnnotedHole>, Failure> {
        let history = self.account.history(&self.names).await?;
        let newest = Retry::for_at_most(RETRY_TIMEOUT).run(|| history.end(Which::NewestOfAll)).await?;
        // Nobody takes a history for complete that has no change from a feed of every version.
        let Some(newest) = newest else { return Ok(None) };
        // Others of that second may be missing.
        let newest = newest.ts.saturating_sub(1);
        if self.is_elsewhere {
            let goes_on = self.goes_on(source, own).await?;
            return Ok((!goes_on).then_some(UnnotedHole::After(Some(newest))));
        }
        let pace = RuLimiter::new(self.account.meter(), None);
        let frontier = self.account.frontier(&self.names, None, &pace).await?;
        // Once there is a follower that has read so far, what the trigger passed over before it began is not looked
        // for.
        if !frontier.blind_spots.holes.is_empty() {
            removals::note_holes(&*history, frontier.blind_spots.holes).await?;
        }
        // The least of them decides, and least is a part about which nothing is known.
        let until = frontier.parts.iter().filter_map(|part| match part.evidence {
            Evidence::Reader(_) if part.sees_deletes => None,
            Evidence::Reader(_) => Some(Some(newest)),
            Evidence::NewestVersion | Evidence::None => Some(part.until.map(|until| until.seconds().min(newest))),
        });
        Ok(until.min().map(UnnotedHole::After))
    }

    /// Whether another follower of documents elsewhere, in whose positions every range can still be read, goes on with
    /// every version.
    async fn goes_on(&self, source: &dyn FeedSource, own: &Checkpoint) -> Result<bool, Failure> {
        const SQL: &str = "SELECT * FROM c WHERE STARTSWITH(c.id, 'follow.') AND c.id != @own";
        let leases = match self.account.container(&self.names.database, &self.names.leases).await {
            Err(f) if f.disposition == Disposition::NotFound => return Ok(false),
            leases => leases?,
        };
        let (place, history) = (source.place(), self.names.history());
        let found = leases.query_all(SQL, &[Param::new("own", own.id.as_str())], None).await?;
        let others = found.iter().filter_map(|row| serde_json::from_str::<Checkpoint>(row.get()).ok());
        for other in others.filter(|other| other.covers(&place, &history) && other.mode == FeedMode::AllVersions) {
            let ranges = other.ranges.iter().map(|range| FeedRange::parse(&range.min, &range.max));
            let Ok(ranges) = ranges.collect::<Result<Vec<_>, _>>() else { continue };
            let mut is_readable = FeedRange::full().is_covered_by(ranges.iter());
            for (range, position) in ranges.iter().zip(&other.ranges) {
                let read = async || {
                    let mut feed = source.open(range, other.mode, FeedStart::Now, Some(&position.token)).await?;
                    feed.next().await
                };
                is_readable &= match Retry::for_at_most(RETRY_TIMEOUT).run(read).await {
                    Err(f) if f.disposition == Disposition::Transient => return Err(f),
                    read => read.is_ok(),
                };
            }
            if is_readable {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes in the history that changes from after a second and from before the follower's start may be missing;
    /// without a start, because it goes on from a checkpoint, those from before now.
    ///
    /// # Errors
    /// When the history cannot be read or written, or nobody says what time it is.
    pub(super) async fn note(
        &self,
        source: &dyn FeedSource,
        after: Option<i64>,
        start: Option<FeedStart>,
    ) -> Result<Hole, Failure> {
        let now = match source.now().await? {
            Some(now) => now,
            None => self.account.time().await?,
        };
        // What was written in this second before the first poll is missing as well.
        let now = now.timestamp().saturating_add(1);
        let before = match start {
            Some(FeedStart::At(start)) => start.seconds().min(now),
            _ => now,
        };
        let hole = Hole { after, before };
        removals::note_holes(&*self.account.history(&self.names).await?, vec![hole]).await?;
        Ok(hole)
    }
}

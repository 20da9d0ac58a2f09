//! The state of a history when a follower begins to deliver to it: whether anything is missing in between.

use serde::Deserialize;
use tracing::warn;

use super::{Checkpoint, UnnotedHole};
use crate::{
    change::time::PointInTime,
    config::Names,
    cosmos::{
        Container, Cosmos, Disposition, Failure, FeedMode, FeedRange, FeedSource, FeedStart, Param, RETRY_TIMEOUT,
        Retry, RuLimiter,
    },
    history::{
        Account as _,
        frontier::Evidence,
        reading::WhichEnd,
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

/// What is said of a hole.
pub(super) const NOBODY: &str =
    "in this time nobody captured every version of all documents; commands that ask about a moment in it say so";

/// What the other followers of a history say of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Others {
    /// One has delivered everything of it.
    Told,
    /// One stands before its end, and can go on.
    GoOn,
    /// None has, or can.
    Gone,
}

/// The second of the last change that a follower at a position elsewhere delivered, as far as the position says.
#[cfg(feature = "mongodb")]
fn last_of(token: &str) -> Option<i64> {
    crate::mongo::last_of(token)
}

#[cfg(not(feature = "mongodb"))]
fn last_of(_: &str) -> Option<i64> {
    None
}

/// The second of the last change that a follower of documents elsewhere has delivered from each of its ranges, as far as
/// its positions say: all from before it were delivered as well.
pub fn delivered_until(follower: &Checkpoint) -> Option<i64> {
    follower.ranges.iter().map(|position| last_of(&position.token)).min().flatten()
}

/// Whether a follower has delivered everything from before a second.
fn has_told(other: &Checkpoint, before: i64) -> bool {
    delivered_until(other).is_some_and(|last| last >= before)
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
        let newest = Retry::for_at_most(RETRY_TIMEOUT).run(|| history.end(WhichEnd::NewestOfAll)).await?;
        // Nobody takes a history for complete that has no change from a feed of every version.
        let Some(newest) = newest else { return Ok(None) };
        // Others of that second may be missing.
        let newest = newest.ts.saturating_sub(1);
        if self.is_elsewhere {
            return Ok(Some(match self.others(source, own, Hole { after: Some(newest), before: i64::MAX }).await? {
                Others::GoOn => UnnotedHole::Unless { after: newest, before: None },
                Others::Told | Others::Gone => UnnotedHole::After(Some(newest)),
            }));
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

    /// What has become of a time of which another follower was to deliver the changes, up to a second.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub(super) async fn told(
        &self,
        source: &dyn FeedSource,
        own: &Checkpoint,
        gap: Hole,
    ) -> Result<Option<UnnotedHole>, Failure> {
        Ok(match self.others(source, own, gap).await? {
            Others::Told => None,
            Others::GoOn => own.lacking,
            Others::Gone => {
                let start = FeedStart::At(PointInTime::from_epoch(gap.before));
                let hole = self.note(source, gap.after, Some(start)).await?;
                warn!(follower = own.follower, %hole, "{NOBODY}");
                None
            }
        })
    }

    /// Whether another follower has delivered everything from before a second. Reads nothing of the source.
    ///
    /// # Errors
    /// When the checkpoints cannot be read.
    pub(super) async fn is_told(&self, place: &str, own: &Checkpoint, gap: Hole) -> Result<bool, Failure> {
        Ok(self.beside(place, own, gap).await?.iter().any(|(other, _)| has_told(other, gap.before)))
    }

    /// What the other followers of documents elsewhere say of the changes from before a second.
    async fn others(&self, source: &dyn FeedSource, own: &Checkpoint, gap: Hole) -> Result<Others, Failure> {
        let mut said = Others::Gone;
        for (other, ranges) in self.beside(&source.place(), own, gap).await? {
            if has_told(&other, gap.before) {
                return Ok(Others::Told);
            }
            let mut is_readable = true;
            for (range, position) in ranges.iter().zip(&other.ranges) {
                let read = async || {
                    let mut feed = source.open(range, other.mode, FeedStart::Now, Some(&position.token)).await?;
                    feed.next().await.map(drop)
                };
                is_readable &= match Retry::for_at_most(RETRY_TIMEOUT).run(read).await {
                    Err(f) if f.disposition == Disposition::Transient => return Err(f),
                    read => read.is_ok(),
                };
            }
            if is_readable {
                said = Others::GoOn;
            }
        }
        Ok(said)
    }

    /// The other followers that deliver every version of all documents of a source from a time, with what they read.
    async fn beside(
        &self,
        place: &str,
        own: &Checkpoint,
        gap: Hole,
    ) -> Result<Vec<(Checkpoint, Vec<FeedRange>)>, Failure> {
        const SQL: &str = "SELECT * FROM c WHERE STARTSWITH(c.id, 'follow.') AND c.id != @own";
        let leases = match self.account.container(&self.names.database, &self.names.leases).await {
            Err(f) if f.disposition == Disposition::NotFound => return Ok(Vec::new()),
            leases => leases?,
        };
        let history = self.names.history();
        let found = leases.query_all(SQL, &[Param::new("own", own.id.as_str())], None).await?;
        let others = found.iter().filter_map(|row| serde_json::from_str::<Checkpoint>(row.get()).ok());
        let covering = others.filter(|other| {
            other.covers(place, &history) && other.mode == FeedMode::AllVersions && other.was_there_in(gap)
        });
        let with_ranges = covering.filter_map(|other| {
            let ranges = other.ranges.iter().map(|range| FeedRange::parse(&range.min, &range.max));
            let ranges: Vec<FeedRange> = ranges.collect::<Result<_, _>>().ok()?;
            FeedRange::full().is_covered_by(ranges.iter()).then_some((other, ranges))
        });
        Ok(with_ranges.collect())
    }

    /// The second from which on a follower that starts now reads everything.
    ///
    /// # Errors
    /// When nobody says what time it is.
    pub(super) async fn start_of(&self, source: &dyn FeedSource, start: Option<FeedStart>) -> Result<i64, Failure> {
        let now = match source.now().await? {
            Some(now) => now,
            None => self.account.time().await?,
        };
        // What was written in this second before the first poll is missing as well.
        let now = now.timestamp().saturating_add(1);
        Ok(match start {
            Some(FeedStart::At(start)) => start.seconds().min(now),
            _ => now,
        })
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
        let hole = Hole { after, before: self.start_of(source, start).await? };
        removals::note_holes(&*self.account.history(&self.names).await?, vec![hole]).await?;
        Ok(hole)
    }
}

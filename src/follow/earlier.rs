//! The state of a history when a follower begins to deliver to it: whether anything is missing in between.

use serde::Deserialize;
use tracing::{debug, warn};

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
        frontier::{Evidence, Fate, Frontier},
        reading::WhichEnd,
        removals::{self, Gap, Hole},
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
const NOBODY: &str =
    "in this time nobody captured every version of all documents; commands that ask about a moment in it say so";

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

/// Whether a follower of documents elsewhere has delivered all changes of a gap.
fn has_delivered(follower: &Checkpoint, gap: &Gap) -> bool {
    delivered_until(follower).is_some_and(|last| last >= gap.before)
}

/// A follower, with what it reads.
type Reader = (Checkpoint, Vec<FeedRange>);

/// Those of followers that capture the changes of a gap themselves.
fn those_there<'o>(others: &'o [Reader], gap: &Gap) -> impl Iterator<Item = &'o Reader> {
    let after = gap.after;
    others.iter().filter(move |(other, _)| other.was_there_after(after))
}

/// What has become of a gap, as the followers of documents elsewhere say that stood there.
async fn fate(source: &dyn FeedSource, others: &[Reader], gap: &Gap) -> Result<Fate, Failure> {
    let mut fate = Fate::Lost;
    for (follower, ranges) in those_there(others, gap) {
        if has_delivered(follower, gap) {
            return Ok(Fate::Delivered);
        }
        let mut is_readable = true;
        for (range, position) in ranges.iter().zip(&follower.ranges) {
            let read = async || {
                let mut feed = source.open(range, follower.mode, FeedStart::Now, Some(&position.token)).await?;
                feed.next().await.map(drop)
            };
            is_readable &= match Retry::for_at_most(RETRY_TIMEOUT).run(read).await {
                Err(f) if !f.loses_position() => return Err(f),
                read => read.is_ok(),
            };
        }
        if is_readable {
            fate = Fate::Awaited;
        }
    }
    Ok(fate)
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
    /// Returns what the history may lack when a follower begins to write it: every version was captured once, and no
    /// reader goes on with that, or others are to deliver what is from before its start. `None` when nothing is.
    ///
    /// # Errors
    /// When source or history cannot be read.
    pub(super) async fn lacks(&self, source: &dyn FeedSource) -> Result<Option<UnnotedHole>, Failure> {
        let history = self.account.history(&self.names).await?;
        let newest = Retry::for_at_most(RETRY_TIMEOUT).run(|| history.end(WhichEnd::NewestOfAll)).await?;
        // Nobody takes a history for complete that has no change from a feed of every version.
        let Some(newest) = newest else { return Ok(None) };
        // Others of that second may be missing.
        let newest = newest.ts.saturating_sub(1);
        if self.is_elsewhere {
            let gap = Gap { after: newest, before: i64::MAX, trigger: None };
            let others = self.beside(&source.place()).await?;
            return Ok(Some(match fate(source, &others, &gap).await? {
                Fate::Awaited => UnnotedHole::Unless { after: newest, trigger: None },
                Fate::Delivered | Fate::Unknown | Fate::Lost => UnnotedHole::After(Some(newest)),
            }));
        }
        // A reader that waits for nothing has delivered what was written by then, in whole seconds.
        let now = self.account.time().await?.timestamp().saturating_sub(1);
        let frontier = self.frontier().await?;
        // The least of them decides, and least is a part about which nothing is known.
        let until = frontier.parts.iter().filter_map(|part| match part.evidence {
            Evidence::Reader(_) if part.sees_deletes => None,
            Evidence::Reader(_) => Some(Some(newest)),
            Evidence::NewestVersion | Evidence::None => Some(part.until.map(|until| until.seconds().min(newest))),
        });
        let lacking = match until.min() {
            Some(until) => UnnotedHole::After(until),
            // Readers of every version are there: what is from before its start is theirs.
            None => {
                let until = frontier.until().map_or(newest, PointInTime::seconds);
                UnnotedHole::Unless { after: until.min(now), trigger: frontier.trigger }
            }
        };
        // Once there is a follower that has read so far, what the trigger passed over before it began is not looked
        // for.
        let is_gap = |hole: &Hole| frontier.gaps.iter().any(|(gap, _)| gap.hole() == *hole);
        let passed_over: Vec<Hole> = frontier.blind_spots.holes.iter().filter(|hole| !is_gap(hole)).copied().collect();
        if !passed_over.is_empty() {
            removals::note_holes(&*history, passed_over).await?;
        }
        Ok(Some(lacking))
    }

    /// Notes what has become of the times before followers of this history began: another reader has delivered their
    /// changes, or none can. A source elsewhere is only read when that is asked for: no change is lost unseen without.
    ///
    /// # Errors
    /// When source or history cannot be read, or the history cannot be written.
    pub(super) async fn settle(
        &self,
        source: &dyn FeedSource,
        follower: &str,
        reads_elsewhere: bool,
    ) -> Result<(), Failure> {
        let history = self.account.history(&self.names).await?;
        let gaps = removals::read(&*history).await?.gaps;
        if gaps.is_empty() {
            return Ok(());
        }
        let mut fates = Vec::new();
        if self.is_elsewhere {
            let others = self.beside(&source.place()).await?;
            for gap in gaps {
                let fate = match reads_elsewhere {
                    true => fate(source, &others, &gap).await?,
                    false if those_there(&others, &gap).any(|(other, _)| has_delivered(other, &gap)) => Fate::Delivered,
                    false => Fate::Awaited,
                };
                fates.push((gap, fate));
            }
        } else {
            fates = self.frontier().await?.gaps;
        }
        let of =
            |wanted| fates.iter().filter(move |(_, fate)| *fate == wanted).map(|(gap, _)| *gap).collect::<Vec<_>>();
        let (delivered, lost) = (of(Fate::Delivered), of(Fate::Lost));
        removals::settle(&*history, &delivered, &lost).await?;
        for gap in lost {
            warn!(follower, hole = %gap.hole(), "{NOBODY}");
        }
        Ok(())
    }

    /// The same while it follows: when nobody answers, there is another time.
    pub(super) async fn try_to_settle(&self, source: &dyn FeedSource, follower: &str) {
        if let Err(e) = self.settle(source, follower, false).await {
            debug!(follower, reason = %e, "cannot tell yet what has become of the time before followers began");
        }
    }

    /// How far the history of a container in this account is complete.
    async fn frontier(&self) -> Result<Frontier, Failure> {
        let pace = RuLimiter::new(self.account.meter(), None);
        self.account.frontier(&self.names, None, &pace).await
    }

    /// The followers that deliver every version of all documents of a source, with what they read.
    async fn beside(&self, place: &str) -> Result<Vec<Reader>, Failure> {
        const SQL: &str = "SELECT * FROM c WHERE STARTSWITH(c.id, 'follow.')";
        let leases = match self.account.container(&self.names.database, &self.names.leases).await {
            Err(f) if f.disposition == Disposition::NotFound => return Ok(Vec::new()),
            leases => leases?,
        };
        let history = self.names.history();
        let found = leases.query_all(SQL, &[], None).await?;
        let others = found.iter().filter_map(|row| serde_json::from_str::<Checkpoint>(row.get()).ok());
        let covering = others.filter(|other| other.covers(place, &history) && other.mode == FeedMode::AllVersions);
        let with_ranges = covering.filter_map(|other| {
            let ranges = other.ranges.iter().map(|range| FeedRange::parse(&range.min, &range.max));
            let ranges: Vec<FeedRange> = ranges.collect::<Result<_, _>>().ok()?;
            FeedRange::full().is_covered_by(ranges.iter()).then_some((other, ranges))
        });
        Ok(with_ranges.collect())
    }

    /// The second from which on a follower that starts now reads everything; without a start, because it goes on from a
    /// checkpoint, that is now.
    ///
    /// # Errors
    /// When nobody says what time it is.
    async fn start_of(&self, source: &dyn FeedSource, start: Option<FeedStart>) -> Result<i64, Failure> {
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

    /// Says with a checkpoint from when on its follower captures every change itself, unless nobody was before it, and
    /// notes in the history what may be missing from before that. Nothing of the checkpoint is saved yet.
    ///
    /// # Errors
    /// When the history cannot be read or written, or nobody says what time it is.
    pub(super) async fn note_began(
        &self,
        source: &dyn FeedSource,
        own: &mut Checkpoint,
        start: Option<FeedStart>,
    ) -> Result<(), Failure> {
        let Some(lacking) = own.lacking else { return Ok(()) };
        let began = match own.began {
            Some(began) => began,
            None => self.start_of(source, start).await?,
        };
        own.began = Some(began);
        let history = self.account.history(&self.names).await?;
        match lacking {
            UnnotedHole::After(after) => {
                let hole = Hole { after, before: began };
                removals::note_holes(&*history, vec![hole]).await?;
                warn!(follower = own.follower, %hole, "{NOBODY}");
            }
            UnnotedHole::Unless { after, trigger } if !own.was_there_after(after) => {
                removals::note_gap(&*history, Gap { after, before: began, trigger }).await?;
            }
            UnnotedHole::Unless { .. } | UnnotedHole::Perhaps => {}
        }
        own.lacking = None;
        Ok(())
    }
}

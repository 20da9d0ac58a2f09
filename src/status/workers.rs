//! Lists who captures: the trigger's leases and the ranges of followers, with the backlog of each.

use serde::Serialize;

use super::lag::{Backlog, not_captured, not_followed};
use crate::{
    change::time::PointInTime,
    context::Context,
    cosmos::{Failure, FeedRange},
    follow::Checkpoint,
    frontier::leases::Lease,
    history::CosmosContainers,
};

/// How many waiting items are counted, unless everything is: a page of the feed.
const MOST: u64 = 1000;

/// A lease of the trigger, or a range of a follower.
#[derive(Debug, Serialize)]
pub struct Worker {
    /// Its document's id.
    pub lease: String,
    /// The lease's token, or the follower's name.
    pub token: String,
    /// Who works on it.
    pub owner: Option<String>,
    /// When it was last renewed or advanced, RFC 3339.
    pub checkpoint: Option<String>,
    /// Seconds since then.
    pub age: Option<i64>,
    /// Its part of the feed.
    pub range: Option<String>,
    /// Waiting items, if they could be counted.
    pub items: Option<u64>,
    /// Whether there are more than that.
    pub more: bool,
    /// Seconds since the first of them was written.
    pub lag: Option<i64>,
}

/// Reads the backlog of each lease and follower. Notes what cannot be counted.
pub(super) async fn workers(
    containers: &CosmosContainers,
    leases: Vec<Lease>,
    followers: Vec<Checkpoint>,
    count: bool,
    cx: &Context<'_>,
) -> Vec<Worker> {
    let now = cx.clock.now().timestamp();
    let most = if count { u64::MAX } else { MOST };
    let uncounted = |what: &str, e: Failure| cx.progress.note(&format!("items      of {what} cannot be counted: {e}"));
    let mut workers = Vec::new();
    for lease in leases {
        // A history that is partitioned differently cannot be asked for this part; nor can another container's lease be
        // used.
        let range = lease.range.as_ref().filter(|_| containers.is_aligned() && lease.is_of(containers.source.rid()));
        let waiting = match range {
            Some(range) => not_captured(containers, range, most).await.map_err(|e| uncounted(&lease.token, e)).ok(),
            None => None,
        };
        workers.push(Worker {
            lease: lease.id,
            token: lease.token,
            owner: lease.owner,
            checkpoint: lease.at.map(|at| PointInTime::from_epoch(at).to_string()),
            age: lease.at.map(|at| (now - at).max(0)),
            range: lease.range.map(|range| range.to_string()),
            items: waiting.map(|w| w.items),
            more: waiting.is_some_and(|w| w.more),
            lag: waiting.map(|w| lag(w, now)),
        });
    }
    let source = format!("{}/{}", cx.names.database, cx.names.source);
    for follower in followers.iter().filter(|follower| follower.source == source) {
        let counted = match follower.rid == containers.source.rid() {
            true => not_followed(&containers.source, follower, most).await.map_err(|e| uncounted(&follower.id, e)).ok(),
            false => {
                let name = &follower.follower;
                cx.progress.note(&format!("follower   {name} read a container of this name that was deleted since"));
                None
            }
        };
        workers.extend(follower.ranges.iter().enumerate().map(|(number, position)| {
            let waiting = counted.as_ref().and_then(|counted| counted.get(number)).map(|(_, waiting)| *waiting);
            Worker {
                lease: follower.id.clone(),
                token: follower.follower.clone(),
                owner: follower.holder.clone(),
                checkpoint: Some(PointInTime::from_epoch(follower.saved.timestamp()).to_string()),
                age: Some((now - follower.saved.timestamp()).max(0)),
                range: FeedRange::parse(&position.min, &position.max).map(|range| range.to_string()).ok(),
                items: waiting.map(|w| w.items),
                more: waiting.is_some_and(|w| w.more),
                lag: waiting.map(|w| lag(w, now)),
            }
        }));
    }
    workers
}

/// Seconds since the first of the waiting items was written.
fn lag(waiting: Backlog, now: i64) -> i64 {
    waiting.since.map_or(0, |since| (now - since).max(0))
}

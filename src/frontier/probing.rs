//! Looks at what follows a reader's position in the feed, and at what a point in time has to wait for.

use std::{collections::HashMap, fmt};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{joined, newest};
use crate::{
    change::{
        Change, Op,
        decode::decode,
        key::{ItemKey, KeyPaths},
        raw::depth,
        record::{source_key, version_id},
        time::PointInTime,
    },
    cosmos::{Failure, FeedMode, FeedRange, FeedStart, RETRY_TIMEOUT, Retry},
    history::{
        CosmosContainers,
        frontier::{Evidence, Next, Part, PendingChange, Waiting},
    },
};

/// Up to this many documents with waiting changes are listed individually.
pub(super) const MOST_WAITING: usize = 10_000;

/// Identifies readers that belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Group {
    /// The ranges of a follower, by its name.
    Follower(String),
    /// The leases of a function, by what their ids begin with.
    Lease(String),
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Follower(name) => write!(f, "follower {name}"),
            Self::Lease(name) => write!(f, "lease {name}"),
        }
    }
}

/// Something that brings the feed into this history.
pub(super) struct FeedReader {
    pub(super) group: Group,
    pub(super) range: FeedRange,
    pub(super) mode: FeedMode,
    /// The client library's token; `None` when it has not begun.
    pub(super) token: Option<String>,
}

/// The feed behind a position.
enum Behind<T> {
    /// One part of the source.
    One(T),
    /// Several parts, which are read in turn.
    InTurn(Vec<FeedRange>),
}

/// Looks at what follows a reader's position.
pub(super) async fn probe(
    containers: &CosmosContainers,
    reader: &FeedReader,
    range: &FeedRange,
    at: Option<PointInTime>,
) -> Result<Option<Part>, Failure> {
    // A lease that was created and has delivered nothing proves nothing, unless there is nothing to deliver.
    let Some(token) = &reader.token else { return nothing_there(containers, reader, range).await };
    // What it reads in turn is looked at part by part: behind one that has nothing, or only what is newer, another one
    // may have something that is older.
    let (mut spans, mut known) = (vec![range.clone()], None);
    while let Some(span) = spans.pop() {
        match look(containers, reader, &span, token, at).await? {
            Behind::One(part) if known.is_none() => known = Some(part),
            Behind::One(part) => known = joined(known, Some(part)),
            Behind::InTurn(parts) => spans.extend(parts),
        }
    }
    Ok(known.map(|part| Part { range: range.clone(), ..part }))
}

async fn look(
    containers: &CosmosContainers,
    reader: &FeedReader,
    range: &FeedRange,
    token: &str,
    at: Option<PointInTime>,
) -> Result<Behind<Part>, Failure> {
    let read = || async {
        let mut feed = containers.source.change_feed(range, reader.mode, FeedStart::Beginning, Some(token)).await?;
        let mut first: Option<i64> = None;
        let mut next: Option<Next> = None;
        let mut waiting: HashMap<ItemKey, Vec<PendingChange>> = HashMap::new();
        loop {
            let page = feed.next().await?;
            let items = page.items()?;
            // A part that was never read has no position.
            if !feed.is_round(usize::MAX)? {
                continue;
            }
            let parts = feed.parts()?;
            if parts.len() > 1 {
                return Ok(Behind::InTurn(parts));
            }
            let Some(newest) = items.iter().filter_map(|item| time_of(item.get())).max() else {
                return Ok(Behind::One((first, next, Waiting::These(waiting))));
            };
            if let (None, Some(item)) = (&next, items.first()) {
                next = Some(next_of(item, containers.source.key_paths()));
            }
            for item in &items {
                let ts = time_of(item.get()).unwrap_or(newest);
                first = Some(first.map_or(ts, |first| first.min(ts)));
                if at.is_some_and(|at| ts <= at.seconds()) {
                    match change_of(item, containers.source.key_paths(), ts) {
                        Some((item, change)) if waiting.len() < MOST_WAITING => {
                            waiting.entry(item).or_default().push(change);
                        }
                        _ => return Ok(Behind::One((first, next, Waiting::Any))),
                    };
                }
            }
            // What follows is newer than the requested moment; by at least a second, since many changes may share one.
            if at.is_none_or(|at| newest > at.seconds()) {
                return Ok(Behind::One((first, next, Waiting::These(waiting))));
            }
        }
    };
    let (first, next, waiting) = match Retry::for_at_most(RETRY_TIMEOUT).run(read).await? {
        Behind::One(found) => found,
        Behind::InTurn(parts) => return Ok(Behind::InTurn(parts)),
    };
    let until = match first {
        None => PointInTime::END,
        Some(first) => {
            let before = PointInTime::from_epoch(first - 1);
            match reader.mode {
                FeedMode::AllVersions => before,
                // Only the newest version of a waiting document is left in the feed. So nothing is known about the time
                // since this part was last seen to be captured.
                FeedMode::Latest => newest(containers, Some(range)).await?.map_or(before, |newest| before.min(newest)),
            }
        }
    };
    Ok(Behind::One(Part {
        range: range.clone(),
        until: Some(until),
        evidence: Evidence::Reader(reader.group.to_string()),
        sees_deletes: reader.mode == FeedMode::AllVersions,
        waiting,
        next,
    }))
}

/// The part of a lease that has no position yet, when its part of the source is empty: then nothing waits. The
/// all-versions feed may still have deletes, and the lease does not say from where on they count.
async fn nothing_there(
    containers: &CosmosContainers,
    reader: &FeedReader,
    range: &FeedRange,
) -> Result<Option<Part>, Failure> {
    if reader.mode == FeedMode::AllVersions {
        return Ok(None);
    }
    let look = || async {
        let mut feed = containers.source.change_feed(range, reader.mode, FeedStart::Beginning, None).await?;
        let mut empty = 0;
        while !feed.is_round(empty)? {
            if !feed.next().await?.items()?.is_empty() {
                return Ok(false);
            }
            empty += 1;
        }
        Ok(true)
    };
    let is_empty = Retry::for_at_most(RETRY_TIMEOUT).run(look).await?;
    Ok(is_empty.then(|| Part {
        range: range.clone(),
        until: Some(PointInTime::END),
        evidence: Evidence::Reader(reader.group.to_string()),
        sees_deletes: false,
        waiting: Waiting::These(HashMap::new()),
        next: None,
    }))
}

fn next_of(item: &RawValue, paths: &KeyPaths) -> Next {
    #[derive(Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        current: Option<&'a RawValue>,
    }
    let document = serde_json::from_str::<Envelope<'_>>(item.get()).ok().and_then(|envelope| envelope.current);
    let ts = time_of(item.get()).unwrap_or_default();
    let (item_key, change) = change_of(item, paths, ts).unzip();
    Next {
        item: item_key,
        record: change.map(|change| change.record),
        ts: PointInTime::from_epoch(ts),
        depth: depth(document.unwrap_or(item).get()),
    }
}

/// The time of an item of the feed.
pub fn time_of(item: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Item {
        metadata: Option<Metadata>,
        current: Option<Current>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        // A float, as the service sends it.
        crts: Option<f64>,
    }
    #[derive(Deserialize)]
    struct Current {
        #[serde(rename = "_ts")]
        ts: Option<i64>,
    }
    let item: Item = serde_json::from_str(item).ok()?;
    item.current.and_then(|c| c.ts).or_else(|| item.metadata?.crts.map(|ts| ts as i64))
}

/// The document of a feed item, and its change.
pub(super) fn change_of(item: &RawValue, paths: &KeyPaths, ts: i64) -> Option<(ItemKey, PendingChange)> {
    let mut changes = Vec::new();
    decode(item, &mut changes).ok()?;
    change_in(&changes, paths, ts)
}

/// The same for what an item of a second was decoded to.
pub(super) fn change_in(changes: &[Change<'_>], paths: &KeyPaths, ts: i64) -> Option<(ItemKey, PendingChange)> {
    let change = changes.iter().find(|change| !change.healed)?;
    let item = ItemKey { id: change.id.to_string(), partition_key: source_key(change, paths).ok()? };
    let creates = change.op == Op::Create;
    Some((item, PendingChange { record: version_id(change), ts, prev_lsn: change.prev_lsn, creates }))
}

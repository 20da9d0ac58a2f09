//! Determines how far the history is known to be complete: from the leases of the trigger and the checkpoints of
//! followers, by looking at what follows them in the feed; and, without any of these, from the newest version.

mod account;
mod gaps;
pub mod leases;
#[cfg(feature = "mongodb")]
mod mongo;
mod passed_over;
mod probing;
pub mod waiting;

use std::collections::BTreeMap;

#[cfg(feature = "mongodb")]
pub use self::mongo::MongoAccount;
use self::{
    gaps::{Gaps, Standing},
    leases::{Lease, leases},
    probing::{FeedReader, Group, probe},
};
pub use self::{passed_over::note_begun, probing::time_of};
use crate::{
    change::{
        raw::RawDocument,
        time::{PointInTime, span_text},
    },
    config::Names,
    cosmos::{Container, Cosmos, Failure, FeedRange, Param, RETRY_TIMEOUT, Retry, RuLimiter},
    follow::Checkpoint,
    history::{
        CosmosContainers,
        frontier::{Evidence, Frontier, Next, Part, TOO_DEEP, Waiting},
        reading::HistoryReader,
        removals,
    },
};

/// Determines the frontier. `at` is the moment that will be asked about: documents with uncaptured changes from before
/// it are listed individually. Whether there was a container of this name before is not looked for.
///
/// # Errors
/// When source or history cannot be read. Leases that cannot be read are named in the answer.
pub async fn read(
    cosmos: &Cosmos,
    names: &Names,
    containers: &CosmosContainers,
    at: Option<PointInTime>,
    pace: &RuLimiter,
) -> Result<Frontier, Failure> {
    let source = &containers.source;
    let mut problems = Vec::new();
    let Readers { readers, leases, followers, ranges } =
        readers_and_ranges(cosmos, names, source, &mut problems).await?;
    let begun = passed_over::begun(&leases, source.rid());
    let changes = containers.containers().changes;
    // Read after the checkpoints: a follower's gap is noted before it counts.
    let noted = removals::read(&*changes).await?;
    let (mut gaps, mut has_trigger) = (Gaps::of(&noted.gaps, &followers, begun), true);
    let mut parts = Vec::with_capacity(ranges.len());
    // How far each follower of every version has read, and how many parts.
    let mut followed: BTreeMap<&Group, (PointInTime, usize)> = BTreeMap::new();
    let mut newest_anywhere = None;
    for range in ranges.iter().flat_map(|range| pieces(range, &readers)) {
        let mut standing = Standing::default();
        for reader in &readers {
            let Some(common) = reader.range.intersection(&range) else { continue };
            pace.wait().await;
            let probed = match probe(containers, reader, &common, at).await {
                Ok(part) => part,
                Err(e) => {
                    problems.push(format!("where {} stands in feed range {common} is not known: {e}", reader.group));
                    if !e.loses_position() {
                        standing.unasked.insert(&reader.group, None);
                    }
                    None
                }
            };
            standing
                .groups
                .entry(&reader.group)
                .and_modify(|known| *known = joined(known.take(), probed.clone()))
                .or_insert(probed);
        }
        for (group, part) in &standing.groups {
            if let (Group::Follower(_), Some(Part { sees_deletes: true, until: Some(until), .. })) = (group, part) {
                let (least, count) = followed.entry(group).or_insert((*until, 0));
                (*least, *count) = ((*until).min(*least), *count + 1);
            }
        }
        // Readers work on other parts and nobody on this one: what they captured says nothing about this part.
        let is_left_out = standing.groups.is_empty() && !readers.is_empty();
        has_trigger &= standing.has_trigger();
        let fates = gaps.fates(&standing);
        let part = match best(&*changes, standing.groups, &range).await? {
            Some(part) => part,
            None if is_left_out => by_newest(range.clone(), newest(containers, Some(&range)).await?),
            None => by_newest(range.clone(), anywhere(containers, &mut newest_anywhere).await?),
        };
        gaps.add(fates, &part);
        parts.push(part);
    }
    let whole = followed.into_values().filter(|(_, count)| *count == parts.len()).map(|(until, _)| until).max();
    let ranges: Vec<FeedRange> = parts.iter().map(|part| part.range.clone()).collect();
    let mut blind_spots = removals::blind_spots_of(&noted.without_gaps(), &parts, &*changes).await?;
    blind_spots.holes.extend(
        passed_over::holes(cosmos, containers, (&leases, &noted.begun), (&ranges, whole), blind_spots.begins).await?,
    );
    let (gaps, blind) = gaps.end();
    blind_spots.holes.extend(blind);
    let trigger = begun.filter(|_| has_trigger);
    Ok(Frontier { parts, problems, blind_spots, made_again: Vec::new(), gaps, trigger })
}

/// Those who bring a container's feed into a history.
struct Readers {
    readers: Vec<FeedReader>,
    /// The leases of the trigger.
    leases: Vec<Lease>,
    /// The checkpoints of the followers that cover the history.
    followers: Vec<Checkpoint>,
    /// The physical partitions of the container.
    ranges: Vec<FeedRange>,
}

/// Reads the readers of the feed, the leases of the trigger, and the physical partitions of the source.
///
/// A query over several partitions of the lease container is not of one moment. When a partition of the source is
/// split, the leases of its children are written before that of the parent is deleted, and such a query can miss them
/// all. So leases with a gap are read again: what the gap stood for was there by the end of the first reading.
async fn readers_and_ranges(
    cosmos: &Cosmos,
    names: &Names,
    source: &Container,
    problems: &mut Vec<String>,
) -> Result<Readers, Failure> {
    // More than one split at a time is rare.
    const MOST_READINGS: u32 = 3;
    let mut readings = 0;
    loop {
        readings += 1;
        let (leases, mut followers) = match leases(cosmos.container(&names.database, &names.leases).await).await {
            Ok(found) => found.unwrap_or_default(),
            Err(e) => {
                problems.push(format!("the leases in {}/{} cannot be read: {e}", names.database, names.leases));
                Default::default()
            }
        };
        let (place, history) = (format!("{}/{}", names.database, names.source), names.history());
        followers.retain(|follower| follower.covers(&place, &history) && follower.rid == source.rid());
        let readers = readers(source, &leases, &followers);
        let is_whole = readers
            .iter()
            .filter(|reader| matches!(reader.group, Group::Lease(_)))
            .all(|reader| FeedRange::full().is_covered_by(of_group(&readers, &reader.group)));
        if is_whole || readings == MOST_READINGS {
            let retry = Retry::for_at_most(RETRY_TIMEOUT);
            let ranges = retry.run(|| source.feed_ranges(true)).await?;
            return Ok(Readers { readers, leases, followers, ranges });
        }
    }
}

/// The ranges of readers that belong together.
fn of_group<'r>(readers: &'r [FeedReader], group: &'r Group) -> impl Iterator<Item = &'r FeedRange> {
    readers.iter().filter(move |reader| reader.group == *group).map(|reader| &reader.range)
}

/// The parts of a physical partition about which different things are known: all of it, unless readers that belong
/// together have only some of it. A lease may be gone, or a follower have a share.
fn pieces(range: &FeedRange, readers: &[FeedReader]) -> Vec<FeedRange> {
    let here = || readers.iter().filter(|reader| reader.range.intersection(range).is_some());
    if here().all(|reader| range.is_covered_by(of_group(readers, &reader.group))) {
        return vec![range.clone()];
    }
    range.cut_at(here().map(|reader| &reader.range))
}

fn readers(source: &Container, leases: &[Lease], followers: &[Checkpoint]) -> Vec<FeedReader> {
    let of_source = |lease: &&Lease| lease.is_of(source.rid());
    let mut readers: Vec<FeedReader> = leases
        .iter()
        .filter(of_source)
        .filter_map(|lease| {
            let (range, mode) = (lease.range.clone()?, lease.mode?);
            let token = lease.continuation.as_ref().map(|etag| source.feed_token(&range, mode, etag));
            Some(FeedReader { group: Group::Lease(lease.group().to_owned()), range, mode, token })
        })
        .collect();
    for follower in followers {
        readers.extend(follower.ranges.iter().filter_map(|position| {
            Some(FeedReader {
                group: Group::Follower(follower.follower.clone()),
                range: FeedRange::parse(&position.min, &position.max).ok()?,
                mode: follower.mode,
                token: Some(position.token.clone()),
            })
        }));
    }
    readers
}

/// Combines two parts of one range: the result ends where the first of them does, and what waits for either waits for
/// it.
fn joined(one: Option<Part>, other: Option<Part>) -> Option<Part> {
    let (one, other) = (one?, other?);
    let (mut first, mut second) = if other.until < one.until { (other, one) } else { (one, other) };
    let waiting = match (std::mem::take(&mut first.waiting), std::mem::take(&mut second.waiting)) {
        (Waiting::These(mut all), Waiting::These(more)) => {
            for (item, records) in more {
                all.entry(item).or_default().extend(records);
            }
            Waiting::These(all)
        }
        _ => Waiting::Any,
    };
    let next = match (first.next.take(), second.next.take()) {
        (Some(one), Some(other)) => Some(if other.ts < one.ts { other } else { one }),
        (one, other) => one.or(other),
    };
    Some(Part { waiting, next, sees_deletes: first.sees_deletes && second.sees_deletes, ..first })
}

/// Picks the reader that says most. All leases count as one: the lease container does not say which functions write
/// this history, so the lease that is furthest behind decides. A follower's checkpoint says which history it writes.
/// However far a reader in latest-version mode is, it has delivered no delete and no version that was replaced: when a
/// reader of every version has a position, that one decides.
///
/// A reader that began after a change that is not in the history says nothing about the time before it began. So when
/// the reader that says most reads every version, the one that stands before such a change decides.
async fn best(
    changes: &dyn HistoryReader,
    groups: BTreeMap<&Group, Option<Part>>,
    range: &FeedRange,
) -> Result<Option<Part>, Failure> {
    let missing = match groups.len() {
        0 | 1 => None,
        _ => earliest_missing(changes, groups.values().flatten()).await?,
    };
    let (mut lease, mut has_lease) = (None, false);
    let mut follower: Option<Part> = None;
    let tells_more = |one: &Part, other: &Part| (one.sees_deletes, one.until) > (other.sees_deletes, other.until);
    for (group, part) in groups {
        match (group, part) {
            (Group::Lease(_), part) => {
                lease = if has_lease { joined(lease, part) } else { part };
                has_lease = true;
            }
            (Group::Follower(_), Some(part)) if follower.as_ref().is_none_or(|best| tells_more(&part, best)) => {
                follower = Some(part);
            }
            (Group::Follower(_), _) => {}
        }
    }
    let part = match (lease, follower) {
        (Some(one), Some(other)) => Some(if tells_more(&other, &one) { other } else { one }),
        (one, other) => one.or(other),
    };
    let part = match (part, missing) {
        (Some(part), Some(missing)) if part.sees_deletes && missing.until < part.until => Some(missing),
        (part, _) => part,
    };
    Ok(part.filter(|part| part.until.is_some()).map(|part| Part { range: range.clone(), ..part }))
}

/// Of the readers of every version, the one that stands first before a change that is not in the history: none has
/// delivered that change, however far another one is. Pruned versions are not looked for.
async fn earliest_missing<'a>(
    changes: &dyn HistoryReader,
    parts: impl Iterator<Item = &'a Part>,
) -> Result<Option<Part>, Failure> {
    let mut waiting: Vec<&Part> = parts.filter(|part| part.sees_deletes && part.next.is_some()).collect();
    waiting.sort_by_key(|part| part.until);
    for part in waiting {
        let Some(Next { item: Some(item), record: Some(record), ts, .. }) = &part.next else { continue };
        if Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.record(item, record)).await?.is_none()
            && removals::read(changes).await?.pruned_before.is_none_or(|before| ts.seconds() >= before)
        {
            return Ok(Some(part.clone()));
        }
    }
    Ok(None)
}

/// The time of the newest version of the whole history, read once.
async fn anywhere(
    containers: &CosmosContainers,
    known: &mut Option<Option<PointInTime>>,
) -> Result<Option<PointInTime>, Failure> {
    if known.is_none() {
        *known = Some(newest(containers, None).await?);
    }
    Ok(known.flatten())
}

/// Without a reader: the time of the version that was captured last, in any part. Capture was working then, and a feed
/// is delivered in order; nothing more is known.
fn by_newest(range: FeedRange, newest: Option<PointInTime>) -> Part {
    Part {
        range,
        // Others of that second may be missing.
        until: newest.map(|newest| PointInTime::from_epoch(newest.seconds() - 1)),
        evidence: if newest.is_some() { Evidence::NewestVersion } else { Evidence::None },
        sees_deletes: false,
        waiting: Waiting::Any,
        next: None,
    }
}

/// The time of the newest version that was captured in a part of the history; in all of it without a part, or when the
/// history is partitioned differently.
async fn newest(containers: &CosmosContainers, range: Option<&FeedRange>) -> Result<Option<PointInTime>, Failure> {
    newest_of(&containers.changes, range.filter(|_| containers.is_aligned())).await
}

/// The same for the history in a container, or for a range of it.
async fn newest_of(changes: &Container, range: Option<&FeedRange>) -> Result<Option<PointInTime>, Failure> {
    let sql = format!(
        "SELECT TOP 1 c._change.ts AS t FROM c WHERE IS_NUMBER(c._change.ts) AND {CAPTURED} ORDER BY c._change.ts DESC"
    );
    Ok(seconds(changes, &sql, &[], range).await?.into_iter().max().map(PointInTime::from_epoch))
}

/// Excludes what a restore or a repair saved, which did not come from the feed, and what passed a filter, which says
/// nothing about other changes.
const CAPTURED: &str = "(NOT IS_DEFINED(c._change.via) OR c._change.via IN ('trigger', 'follow'))";

/// Only what the feed of every version delivered.
const OF_EVERY_VERSION: &str = "c._change.op IN ('create', 'replace', 'delete', 'expire')";

/// The times `t` that a query finds in a range of the history, or in all of it.
async fn seconds(
    changes: &Container,
    sql: &str,
    params: &[Param],
    range: Option<&FeedRange>,
) -> Result<Vec<i64>, Failure> {
    let query = async || {
        let mut pages = match range {
            Some(range) => changes.query_range(sql, params, range).await?,
            None => changes.query(sql, params, None, None).await?,
        };
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            for row in page?.documents {
                let row = RawDocument::parse(row.get())
                    .map_err(|e| Failure::invalid("read history".into(), e.to_string()))?;
                let text = row.get_str("t").and_then(|at| crate::change::version::seconds_of(&at));
                found.extend(row.get_i64("t").or(text));
            }
        }
        Ok(found)
    };
    Retry::for_at_most(RETRY_TIMEOUT).run(query).await
}

/// The second from which on the history has everything of a part: the first that a reader delivered. In latest-version
/// mode that is the time of the first capture, since what was overwritten before was never delivered; in all-versions
/// mode the time of the first change, since nothing is delivered from before a reader's first poll.
///
/// # Errors
/// When the history cannot be read.
pub async fn begins(containers: &CosmosContainers, range: &FeedRange) -> Result<Option<PointInTime>, Failure> {
    let change = format!(
        "SELECT TOP 1 c._change.ts AS t FROM c WHERE IS_NUMBER(c._change.ts) AND {CAPTURED} AND {OF_EVERY_VERSION} ORDER BY c._change.ts ASC"
    );
    let capture = format!(
        "SELECT TOP 1 c._change.at AS t FROM c WHERE IS_STRING(c._change.at) AND {CAPTURED} AND c._change.op = 'upsert' ORDER BY c._change.at ASC"
    );
    let range = Some(range).filter(|_| containers.is_aligned());
    let mut first = seconds(&containers.changes, &change, &[], range).await?;
    first.extend(seconds(&containers.changes, &capture, &[], range).await?);
    Ok(first.into_iter().min().map(PointInTime::from_epoch))
}

/// Names the readers that hold capture up: those that stand before a change that has been waiting for long.
pub fn stalled(frontier: &Frontier, now: i64, after: i64) -> Vec<String> {
    let of_part = |part: &Part| {
        let next = part.next.as_ref().filter(|next| now - next.ts.seconds() > after)?;
        let Evidence::Reader(reader) = &part.evidence else { return None };
        let whose = next
            .item
            .as_ref()
            .map_or_else(|| "a change".to_owned(), |item| format!("document {:?} ({})", item.id, item.partition_key));
        let since = span_text(now - next.ts.seconds());
        Some(if next.depth >= TOO_DEEP {
            format!(
                "{reader} has stood still for {since} before {whose}: it is nested {} levels deep, and the trigger's reader gives up at {TOO_DEEP} and tries again for ever. In latest-version mode, write the document with fewer levels; in any mode, capture with `cosmos-rewind follow`, which takes all levels that Cosmos allows",
                next.depth
            )
        } else {
            format!(
                "{reader} is {since} behind; next is {whose}, of {}. The log of the function or the follower says why",
                next.ts
            )
        })
    };
    frontier.parts.iter().filter_map(of_part).collect()
}

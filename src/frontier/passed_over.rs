//! Holes that a history has because the trigger began again without its leases. It then goes on from now, and nothing
//! in what it delivers shows that something was passed over.
//!
//! The change feed processor writes one document when it has made the leases of a function, and never again. When that
//! was, tells when this trigger began. The handler notes it in the history, because leases can be lost more than once.

use std::collections::BTreeMap;

use super::{
    CAPTURED, OF_EVERY_VERSION,
    leases::{Lease, leases},
    seconds,
};
use crate::{
    change::time::PointInTime,
    config::Names,
    cosmos::{Cosmos, Disposition, Failure, FeedMode, FeedRange, Param, RETRY_TIMEOUT, Retry},
    history::{
        CosmosContainers,
        reading::WhichEnd,
        removals::{self, Begun, Hole},
    },
};

/// When the leases in all-versions mode of a container were made, by its id; `None` when there are none, or no document
/// says so. Nobody knows which functions write this history, and the first of them may: then nothing was passed over
/// when the others began.
pub(super) fn begun(leases: &[Lease], source: &str) -> Option<i64> {
    let groups: BTreeMap<&str, Option<i64>> =
        of_source(leases, source).map(|lease| (lease.group(), lease.begun)).collect();
    groups.into_values().min().flatten()
}

/// The leases in all-versions mode of a container.
fn of_source<'l>(leases: &'l [Lease], source: &str) -> impl Iterator<Item = &'l Lease> {
    leases.iter().filter(move |lease| lease.is_of(source) && lease.mode == Some(FeedMode::AllVersions))
}

/// The times that were passed over whenever the trigger began: as today's leases tell, and those that were noted. A
/// follower of every version that has `read` all ranges up to some moment delivered what the trigger passed over before
/// that. `first` is the first version in the history from a feed of every version.
///
/// # Errors
/// When the history cannot be read, or the account does not say what time it is.
pub(super) async fn holes(
    cosmos: &Cosmos,
    containers: &CosmosContainers,
    (leases, noted): (&[Lease], &[Begun]),
    (ranges, read): (&[FeedRange], Option<PointInTime>),
    first: Option<i64>,
) -> Result<Vec<Hole>, Failure> {
    let changes = containers.containers().changes;
    let now = begun(leases, containers.source.rid());
    let mut all = noted.to_vec();
    all.extend(now.filter(|now| !all.iter().any(|known| known.at == *now)).map(|at| Begun { at, until: None }));
    let mut holes = Vec::new();
    // Nothing was captured before the first of them began, as a rule.
    all.retain(|begun| first.is_some_and(|first| first < begun.at));
    for Begun { at: begun, until: settled } in all {
        let before = Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(WhichEnd::NewestOfAllBefore(begun))).await?;
        let Some(newest) = before else { continue };
        let (mut until, now) = (begun, cosmos.time().await?.timestamp().saturating_add(1));
        for range in ranges {
            let from = delivered_from(containers, leases, range, begun).await?;
            // Nothing is proved as long as nothing was delivered. What was delivered first may have been pruned since.
            until = until.max(from.unwrap_or(now).min(settled.unwrap_or(now)));
        }
        // Others of the newest second may be missing.
        let hole = Hole { after: Some(newest.ts.saturating_sub(1)), before: until };
        if read.is_none_or(|read| read.seconds() < hole.before) {
            holes.push(hole);
        }
    }
    Ok(holes)
}

/// From which second on the trigger that began then has delivered everything of a part: that of its first change. As
/// long as it has delivered nothing, the client library starts from now whenever it is started.
async fn delivered_from(
    containers: &CosmosContainers,
    leases: &[Lease],
    range: &FeedRange,
    begun: i64,
) -> Result<Option<i64>, Failure> {
    let sql = format!(
        "SELECT TOP 1 c._change.ts AS t FROM c WHERE c._change.ts >= @begun AND {CAPTURED} AND {OF_EVERY_VERSION} ORDER BY c._change.ts ASC"
    );
    let begun = [Param::new("begun", begun)];
    let first = seconds(&containers.changes, &sql, &begun, Some(range).filter(|_| containers.is_aligned())).await?;
    let position = || {
        let here = of_source(leases, containers.source.rid()).filter(|lease| lease.continuation.is_some());
        here.filter(|lease| lease.range.as_ref().is_some_and(|own| own.intersection(range).is_some()))
            .filter_map(|lease| lease.at)
            .max()
    };
    // With a position, but without a change that the history still has, it had begun when that was saved.
    Ok(first.into_iter().min().or_else(|| position().map(|at| at.saturating_add(1))))
}

/// Notes in the history when the trigger began that writes it; without leases, nothing. Returns the last note.
///
/// # Errors
/// When leases or history cannot be read or written, or the account does not say what time it is.
pub async fn note_begun(cosmos: &Cosmos, names: &Names, noted: Option<Begun>) -> Result<Option<Begun>, Failure> {
    let source = match cosmos.container(&names.database, &names.source).await {
        Err(f) if f.disposition == Disposition::NotFound => return Ok(noted),
        source => source?,
    };
    let found = leases(cosmos.container(&names.database, &names.leases).await).await?;
    let leases = found.map(|(leases, _)| leases).unwrap_or_default();
    let Some(at) = begun(&leases, source.rid()) else { return Ok(noted) };
    let is_settled = of_source(&leases, source.rid()).all(|lease| lease.continuation.is_some());
    if noted.is_some_and(|noted| noted.at == at && (noted.until.is_some() || !is_settled)) {
        return Ok(noted);
    }
    let until = if is_settled { Some(cosmos.time().await?.timestamp().saturating_add(1)) } else { None };
    let begun = Begun { at, until };
    removals::note_begun(&cosmos.container(&names.database, &names.changes).await?, begun).await?;
    Ok(Some(begun))
}

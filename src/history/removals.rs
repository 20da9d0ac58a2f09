//! When records were last removed from the history, and which answers that took away. One small item beside the
//! journals says so. Without it, a creation that remains as the first version would prove that there was no document
//! before, a plan would rely on a saved version that was pruned, and a version that arrives late would prove that its
//! document is alive.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    as_of::{AsOf, State},
    reading::{End, HistoryReader, Which},
};
use crate::{
    change::{
        VersionVia, Via,
        record::{ORIGINAL_ID, layout::key_of_other},
        time::PointInTime,
        version::container_of,
    },
    cosmos::{Failure, RETRY_TIMEOUT, Retry},
};

/// Takes the place of a document's id; begins like a journal's, so that it is not taken for a record.
const GROUP: &str = "restore~removals";
const ID: &str = "restore~removals~mark";

/// What was removed from a history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removals {
    /// When records were last removed, epoch seconds.
    #[serde(default)]
    pub at: Option<i64>,
    /// Documents that had been deleted before this second may have been removed with all their versions.
    #[serde(default)]
    pub dropped_before: Option<i64>,
    /// Versions from before this second may have been removed: from here on every instant is answered as if none had
    /// been.
    #[serde(default)]
    pub pruned_before: Option<i64>,
}

/// Reads what was removed.
///
/// # Errors
/// When the service refuses.
pub async fn read(changes: &dyn HistoryReader) -> Result<Removals, Failure> {
    #[derive(Deserialize)]
    struct Item {
        #[serde(rename = "_restore")]
        mark: Removals,
    }
    let key = key_of_other(changes.key_paths(), GROUP, ID);
    let Some(text) = Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.read(&key, ID)).await? else {
        return Ok(Removals::default());
    };
    let item: Item = serde_json::from_str(&text)
        .map_err(|e| Failure::invalid("read history".into(), format!("the item {ID} is not understood: {e}")))?;
    Ok(item.mark)
}

/// The times about which a history proves nothing, though nothing in it looks missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untold {
    /// Documents that had been deleted before this second may have been removed with all their versions.
    pub dropped_before: Option<i64>,
    /// The first change that came from a feed of every version. What was deleted before may be in no version at all.
    pub begins: Option<i64>,
}

/// One of the containers with a common name that a history has versions of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeAgain {
    /// Its identity.
    pub container: u64,
    /// Its first version, epoch seconds: the container before had been deleted by then.
    pub since: i64,
}

impl Untold {
    /// For a store of versions that has everything there is.
    pub const NOTHING: Self = Self { dropped_before: None, begins: None };
}

/// Reads the times about which a history proves nothing.
///
/// # Errors
/// When the service refuses.
pub async fn untold(changes: &dyn HistoryReader) -> Result<Untold, Failure> {
    let dropped_before = read(changes).await?.dropped_before;
    let begins = Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(Which::OldestOfAll)).await?;
    Ok(Untold { dropped_before, begins: begins.map(|end| end.ts) })
}

/// Reads which containers a history has versions of, newest first; none when it only has those of `source`, today's, or
/// its id is malformed. Without a source, because it is gone, none when there is only one. Each container was created
/// after the one before was gone. So, starting from the newest version of all, the first version of each leads to the
/// newest of the one before.
///
/// # Errors
/// When the service refuses.
pub async fn made_again(changes: &dyn HistoryReader, source: Option<&str>) -> Result<Vec<MadeAgain>, Failure> {
    let end = async |which| Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.end(which)).await;
    let of = |end: Option<End>| container_of(&end?.rid?);
    let mut all: Vec<MadeAgain> = Vec::new();
    let mut next = end(Which::Newest).await?;
    let Some(last) = source.map_or_else(|| of(next.clone()), container_of) else { return Ok(all) };
    if of(end(Which::Oldest).await?) == Some(last) {
        return Ok(all);
    }
    while let Some(container) = of(next) {
        let Some(first) = end(Which::OldestOf(container)).await? else { break };
        // Two containers that write at the same time do not follow each other.
        if all.iter().any(|known| known.container == container) {
            break;
        }
        all.push(MadeAgain { container, since: first.ts });
        next = end(Which::NewestBefore(first.ts)).await?;
    }
    Ok(all)
}

/// Notes that records from before a second are about to be removed, and whole documents from before another, by the
/// account's time. Called first: what is removed without a note would be missed.
///
/// # Errors
/// When the service refuses: then nothing may be removed.
pub async fn note(
    changes: &dyn HistoryReader,
    pruned_before: i64,
    dropped_before: Option<i64>,
    now: DateTime<Utc>,
) -> Result<(), Failure> {
    let known = read(changes).await?;
    let mark = Removals {
        at: Some(now.timestamp().max(known.at.unwrap_or(i64::MIN))),
        dropped_before: known.dropped_before.max(dropped_before),
        pruned_before: known.pruned_before.max(Some(pruned_before)),
    };
    let mut entry = serde_json::to_value(mark).unwrap_or_default();
    entry["kind"] = "removals".into();
    let body = serde_json::json!({"id": ID, ORIGINAL_ID: GROUP, "_restore": entry}).to_string().into_bytes();
    let key = key_of_other(changes.key_paths(), GROUP, ID);
    Retry::for_at_most(RETRY_TIMEOUT).run(|| changes.upsert(&key, ID, body.clone())).await.map(drop)
}

/// Why a document may have been different at a moment than its versions say: it may have been deleted and removed
/// together with its delete; or its delete was never captured; or its container was gone by then. Whether it is live
/// does not matter here.
pub fn doubt(known: &AsOf<'_>, untold: Untold, made_again: &[MadeAgain]) -> Option<String> {
    const DROPPED: &str = "deleted documents of that time were dropped from the history (prune --drop-deleted)";
    if let Some(begins) = untold.begins.filter(|begins| known.created_later() && known.at.seconds() < *begins) {
        return Some(format!(
            "was created later, but every version is in the history only from {} on: whether it existed before is not known",
            PointInTime::from_epoch(begins)
        ));
    }
    if let State::NotYet { earliest } = known.state
        && known.created_later()
        && untold.begins.is_none()
        && earliest.via == Some(VersionVia::Known(Via::Filter))
    {
        return Some(
            "was created later, but only what passed a filter is in the history: whether it existed before is not known"
                .into(),
        );
    }
    if let State::Document(version) = &known.state
        && let Some(later) = made_again.iter().find(|other| {
            version.is_of_another(Some(other.container)) && (version.ts..=known.at.seconds()).contains(&other.since)
        })
    {
        return Some(format!(
            "its container was deleted, and made again before {}: it was not there any more",
            PointInTime::from_epoch(later.since)
        ));
    }
    let before = untold.dropped_before?;
    match known.state {
        // It arrived late: what had followed it was gone by then.
        State::Document(version) if known.next.is_none() && !version.is_live() && version.ts < before => {
            Some(format!("{DROPPED}: it may have been deleted before the point in time"))
        }
        State::NotYet { .. } if known.created_later() && known.at.seconds() < before => {
            Some(format!("was created later, but {DROPPED}: whether it existed before is not known"))
        }
        _ => None,
    }
}

/// Whether an item of the history is this one.
pub fn is_mark(group: &str) -> bool {
    group == GROUP
}

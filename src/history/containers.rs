//! The containers that a use case on the history works on, and the account that holds them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};

use super::{
    frontier::Frontier,
    reading::{HistoryReader, LiveContainer},
};
use crate::{
    causes::chain,
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        time::PointInTime,
        version::Version,
    },
    clock::{Clock as _, SystemClock},
    config::Names,
    context::Context,
    cosmos::{
        Answer, Failure, HashRange, HashSpace, PageStream, RETRY_TIMEOUT, Retry, RuLimiter, RuMeter, Shard,
        require_time,
    },
};

/// How many parts of the hash space are read concurrently.
pub(super) const RANGES: u32 = 4;

/// An account as the use cases see it that read histories: it opens containers, and knows what time it is.
pub trait Account: Send + Sync {
    /// The account's address, without any secret.
    fn endpoint(&self) -> &str;
    /// The database that the documents are in.
    fn database<'a>(&'a self, names: &'a Names) -> &'a str {
        &names.database
    }
    /// Request units used so far.
    fn meter(&self) -> &RuMeter;
    /// The time of the service that dates the versions, by which `_ts` is set; `None` when it does not tell.
    fn service_time(&self) -> BoxFuture<'_, Option<DateTime<Utc>>>;
    /// The same, for what decides about documents.
    fn time(&self) -> Answer<'_, DateTime<Utc>> {
        self.service_time().map(require_time).boxed()
    }
    /// The same for values that are only shown, or compared with room to spare: the time of this machine will do.
    fn now(&self) -> BoxFuture<'_, DateTime<Utc>> {
        self.service_time().map(|require_time| require_time.unwrap_or_else(|| SystemClock.now())).boxed()
    }
    /// Opens the history and its source, which is also the target unless another container is named.
    fn containers<'a>(&'a self, names: &'a Names, into: Option<&'a str>) -> Answer<'a, Containers>;
    /// Opens the source alone, which stands in for its history: for commands that only read live documents.
    fn live<'a>(&'a self, names: &'a Names) -> Answer<'a, Containers> {
        self.containers(names, None)
    }
    /// Opens the history alone, when its source is gone: its own key tells how the source was keyed.
    fn history<'a>(&'a self, names: &'a Names) -> Answer<'a, Arc<dyn HistoryReader>>;
    /// Determines how far the history is known to be complete. Documents with uncaptured changes from before `at` are
    /// listed individually.
    fn frontier<'a>(&'a self, names: &'a Names, at: Option<PointInTime>, pace: &'a RuLimiter) -> Answer<'a, Frontier>;
}

/// A context for use cases that need no more of an account than [`Account`] has.
pub type AnyContext<'a> = Context<'a, dyn Account + 'a>;

impl<'a, A: Account> Context<'a, A> {
    /// The same, for use cases that need no more than [`Account`] has.
    pub fn any(&self) -> AnyContext<'a> {
        Context {
            account: self.account,
            names: self.names,
            clock: self.clock.clone(),
            progress: self.progress,
            stop: self.stop.clone(),
        }
    }
}

/// The containers that a restore works on.
#[derive(Clone)]
pub struct Containers {
    /// The history.
    pub changes: Arc<dyn HistoryReader>,
    /// The live container that the history belongs to: its key paths tell items apart.
    pub source: Arc<dyn LiveContainer>,
    /// Where documents are written: the source, or another container with the same key.
    pub target: Arc<dyn LiveContainer>,
}

impl std::fmt::Debug for Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [self.changes.name(), self.source.name(), self.target.name()];
        f.debug_tuple("Containers").field(&names).finish()
    }
}

impl Containers {
    /// Whether documents are written to another container than the history's source.
    pub fn is_elsewhere(&self) -> bool {
        self.target.rid() != self.source.rid()
    }

    /// Whether all versions of an item share one place in the history's hash space.
    pub(super) fn is_cut_by_item(&self) -> bool {
        self.changes.hash_space().is_some() && self.changes.layout().is_cut_by_item()
    }

    /// The key of one record of an item in the history; `None` when it does not follow from the item's.
    pub fn record_key(&self, item: &ItemKey, record_id: &str) -> Option<PartitionKey> {
        self.changes.layout().record_key(item, record_id)
    }

    /// A record's text as stored; `None` when the history does not have it (any more).
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn record_text(&self, item: &ItemKey, record_id: &str) -> Result<Option<String>, Failure> {
        record_text(&*self.changes, item, record_id).await
    }

    /// A record of an item; `None` when the history does not have it (any more).
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub async fn record(&self, item: &ItemKey, record_id: &str) -> Result<Option<Version>, Failure> {
        record(&*self.changes, item, record_id).await
    }

    /// The document of a record.
    ///
    /// # Errors
    /// When it cannot be read, or the record holds no document.
    pub async fn document(&self, item: &ItemKey, record_id: &str) -> Result<String, Failure> {
        self.version(item, record_id).await.map(|(_, text)| text)
    }

    /// The version of a record, and its document.
    ///
    /// # Errors
    /// When it cannot be read, or the record holds no document.
    pub async fn version(&self, item: &ItemKey, record_id: &str) -> Result<(Version, String), Failure> {
        let wrong = |problem: &str| Failure::invalid("read version".into(), format!("record {record_id} {problem}"));
        let mut version = self.record(item, record_id).await?.ok_or_else(|| wrong("is not in the history any more"))?;
        let why = if version.is_absent() {
            "has nothing of its document, which was too large, or gone when MongoDB was asked for it"
        } else {
            "is a tombstone"
        };
        let text = version.document.take().ok_or_else(|| wrong(why))?;
        Ok((version, text))
    }

    /// Whether an item has the same place in the target as its versions have in the history, so that the same piece of
    /// both can be read. The first component of a key determines the place.
    pub fn is_aligned(&self) -> bool {
        self.is_cut_by_item()
            && self.changes.layout().begins_as(self.target.key_paths())
            && self.changes.hash_space() == self.target.hash_space()
    }

    /// The hash ranges that are read concurrently, of the whole or of a part.
    ///
    /// # Errors
    /// When the items of these containers cannot be divided between machines.
    pub fn hash_ranges(&self, share: Option<Shard>) -> Result<Vec<HashRange>, NotShared> {
        let Some(share) = share else {
            return Ok(if self.is_cut_by_item() { HashRange::WHOLE.cut(RANGES) } else { vec![HashRange::WHOLE] });
        };
        if self.is_aligned() {
            return Ok(share.span().cut(RANGES));
        }
        let shown =
            |name: &str, paths: &KeyPaths, space: Option<HashSpace>| format!("{name} ({paths}, hash {space:?})");
        let (changes, target) = (&self.changes, &self.target);
        Err(NotShared {
            changes: shown(changes.name(), changes.key_paths(), changes.hash_space()),
            target: shown(target.name(), target.key_paths(), target.hash_space()),
        })
    }
}

/// The items of a history and its source cannot be divided between machines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{changes} and {target} are partitioned in different ways, so a part of one is not a part of the other")]
pub struct NotShared {
    /// The history and its key.
    changes: String,
    /// The target and its key.
    target: String,
}

async fn record_text(history: &dyn HistoryReader, item: &ItemKey, record_id: &str) -> Result<Option<String>, Failure> {
    Retry::for_at_most(RETRY_TIMEOUT).run(|| history.record(item, record_id)).await
}

/// A record of an item, as [`Containers::record`].
pub(super) async fn record(
    history: &dyn HistoryReader,
    item: &ItemKey,
    record_id: &str,
) -> Result<Option<Version>, Failure> {
    let Some(text) = record_text(history, item, record_id).await? else { return Ok(None) };
    Version::parse(&text).map(Some).map_err(|e| Failure::invalid("read version".into(), chain(&e)))
}

/// The next page of a stream, as soon as the limit on request units allows it.
pub(super) async fn page<T>(pace: &RuLimiter, pages: &mut PageStream<'_, T>) -> Result<Option<Vec<T>>, Failure> {
    pace.wait().await;
    pages.next().await.transpose()
}

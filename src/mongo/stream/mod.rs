//! Change streams as a source of this program's follower.
//!
//! A page is what the server sends in one answer, or a part of it. Its text is made from the raw bytes; no tree of
//! values is built on the way.

mod baseline;
mod batch;
mod event;
mod feed;
mod position;
mod ru;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

pub use self::event::delete_item;
use self::{
    event::EventOptions,
    feed::{StreamFeed, WatchedScope},
    position::{StreamPosition, time},
};
use super::{Dialect, Mongo, kind};
use crate::{
    change::{key::KeyPaths, time::PointInTime},
    clock::Clock,
    cosmos::{Failure, Feed, FeedMode, FeedRange, FeedSource, FeedStart, Shard},
};

/// How long the server waits for news before it sends an empty page, and how long when a caller waits for that page.
const WAIT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);

/// The watched part of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamScope {
    /// One collection.
    Collection {
        /// Its database.
        database: String,
        /// Its name.
        collection: String,
    },
    /// All collections of a database.
    Database(String),
    /// All databases except the server's own.
    Deployment,
}

/// Why names do not form a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadScope {
    /// The database's name is empty.
    #[error("the database's name is empty")]
    EmptyDatabase,
    /// The collection's name is empty.
    #[error("the collection's name is empty")]
    EmptyCollection,
    /// A collection without its database.
    #[error("a collection without its database")]
    NoDatabase,
}

impl StreamScope {
    /// The scope of these names. An empty name, such as an unset variable of a script, must not widen that.
    ///
    /// # Errors
    /// When a name is empty, or the collection's database is not named.
    pub fn of(database: Option<String>, collection: Option<String>) -> Result<Self, BadScope> {
        let is_empty = |name: &Option<String>| name.as_ref().is_some_and(|name| name.trim().is_empty());
        match (database, collection) {
            (database, _) if is_empty(&database) => Err(BadScope::EmptyDatabase),
            (_, collection) if is_empty(&collection) => Err(BadScope::EmptyCollection),
            (Some(database), Some(collection)) => Ok(Self::Collection { database, collection }),
            (Some(database), None) => Ok(Self::Database(database)),
            (None, None) => Ok(Self::Deployment),
            (None, Some(_)) => Err(BadScope::NoDatabase),
        }
    }
}

/// A deployment's changes.
#[derive(Debug)]
pub struct ChangeStream {
    mongo: Mongo,
    scope: StreamScope,
    key_paths: KeyPaths,
    with_bytes: bool,
    /// Whether the collection keeps what documents were after each change, so that they need not be looked up.
    keeps_images: bool,
    clock: Arc<dyn Clock>,
    wait: Duration,
}

impl ChangeStream {
    /// Asks the server how the collection keeps its documents. With `with_bytes`, the documents' own bytes are
    /// included.
    ///
    /// # Errors
    /// When the server does not answer, or the scope cannot be watched.
    pub async fn open(
        mongo: Mongo,
        scope: StreamScope,
        with_bytes: bool,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Failure> {
        if mongo.dialect == Dialect::CosmosRu && !matches!(scope, StreamScope::Collection { .. }) {
            return Err(Failure::invalid(
                "watch".into(),
                "Azure Cosmos DB for MongoDB (RU) has change streams of collections alone: name one with --collection"
                    .into(),
            ));
        }
        let keeps_images = match &scope {
            StreamScope::Collection { database, collection } if mongo.keeps_images() => {
                keeps_images(&mongo, database, collection).await?
            }
            _ => false,
        };
        Ok(Self { mongo, scope, key_paths: KeyPaths::id(), with_bytes, keeps_images, clock, wait: WAIT })
    }

    /// The same, for callers that only check whether there is news.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { wait: LOOK, ..self }
    }

    /// Which changes it delivers.
    pub fn mode(&self) -> FeedMode {
        self.mongo.dialect.mode()
    }

    /// The deployment.
    pub fn mongo(&self) -> &Mongo {
        &self.mongo
    }

    /// Whether texts of updates are looked up after the change.
    pub fn looks_up(&self) -> bool {
        !self.keeps_images && self.mongo.dialect != Dialect::CosmosRu
    }

    /// Where a stream without a position begins.
    async fn beginning(&self, range: &FeedRange, start: FeedStart) -> Result<StreamPosition, Failure> {
        // A position that is neither before nor after what exists now.
        let now = async || {
            let now = self.mongo.operation_time().await?.map(time);
            // Azure has no time of its own: whole seconds of this machine, minus what it may be ahead.
            let clock = || (seconds(PointInTime::from_epoch(self.clock.now().timestamp() - 2)), 0);
            Ok::<_, Failure>(now.map_or_else(clock, |(seconds, increment)| (seconds, increment + 1)))
        };
        if let (StreamScope::Collection { database, collection }, Dialect::CosmosRu) = (&self.scope, self.mongo.dialect)
        {
            // The big bang, and now, which needs no clock.
            let from = match start {
                FeedStart::Beginning => Some((0, 0)),
                FeedStart::Now => None,
                FeedStart::At(at) => Some((seconds(at), 0)),
            };
            let streams = ru::streams(&self.mongo, database, collection, from).await?;
            if let Some((_, token)) = streams.into_iter().find(|(own, _)| own == range) {
                let mut position = StreamPosition::default();
                position.pass(&ru::raw(&token));
                return Ok(position);
            }
            let from = match from {
                Some(from) => from,
                None => now().await?,
            };
            return Ok(StreamPosition::at(from));
        }
        let start = match start {
            FeedStart::Beginning => return Ok(StreamPosition { baseline: true, ..StreamPosition::at(now().await?) }),
            FeedStart::Now => now().await?,
            FeedStart::At(at) => (seconds(at), 0),
        };
        Ok(StreamPosition::at(start))
    }
}

/// The second at which a stream with a token began, while the documents from before it have not all been read: these
/// get the time at which they are read.
///
/// # Errors
/// When the token is not one of a stream.
pub fn still_reads_since(token: &str) -> Result<Option<i64>, Failure> {
    let position = StreamPosition::read(token)?;
    Ok(position.start.filter(|_| position.baseline).map(|(seconds, _)| seconds.into()))
}

/// The second of the last change that a stream with a token has delivered: all from before it were delivered as well.
/// `None` when there was none, or documents from before it have not all been read.
pub fn last_of(token: &str) -> Option<i64> {
    let position = StreamPosition::read(token).ok()?;
    position.last.filter(|_| !position.baseline).map(|(seconds, _)| seconds.into())
}

fn seconds(at: PointInTime) -> u32 {
    u32::try_from(at.seconds()).unwrap_or_default()
}

/// A collection as a checkpoint names it.
pub fn place_of(mongo: &Mongo, database: &str, collection: &str) -> String {
    format!("{}/{database}/{collection}", mongo.shown())
}

/// Whether a collection keeps what documents were before and after each change. One that does not exist keeps nothing.
async fn keeps_images(mongo: &Mongo, database: &str, collection: &str) -> Result<bool, Failure> {
    let found = kind::listed(mongo, database, collection).await?;
    Ok(found.is_some_and(|found| found.options.change_stream_pre_and_post_images.is_some_and(|images| images.enabled)))
}

#[async_trait]
impl FeedSource for ChangeStream {
    fn place(&self) -> String {
        match &self.scope {
            StreamScope::Collection { database, collection } => place_of(&self.mongo, database, collection),
            StreamScope::Database(database) => format!("{}/{database}", self.mongo.shown()),
            StreamScope::Deployment => self.mongo.shown().to_owned(),
        }
    }

    /// A collection that is dropped and recreated is the same to a stream.
    fn rid(&self) -> &str {
        "mongodb"
    }

    fn key_paths(&self) -> &KeyPaths {
        &self.key_paths
    }

    fn share(&self, _: Shard) -> Result<FeedRange, Failure> {
        Err(Failure::invalid("feed range".into(), "a MongoDB change stream cannot be shared with --feed-range".into()))
    }

    async fn ranges(&self) -> Result<Vec<FeedRange>, Failure> {
        if let (StreamScope::Collection { database, collection }, Dialect::CosmosRu) = (&self.scope, self.mongo.dialect)
        {
            let streams = ru::streams(&self.mongo, database, collection, Some((0, 0))).await?;
            if !streams.is_empty() {
                return Ok(streams.into_iter().map(|(range, _)| range).collect());
            }
        }
        Ok(vec![FeedRange::full()])
    }

    async fn open(
        &self,
        range: &FeedRange,
        _: FeedMode,
        start: FeedStart,
        position: Option<&str>,
    ) -> Result<Box<dyn Feed>, Failure> {
        let position = match position {
            Some(text) => StreamPosition::read(text)?,
            None => self.beginning(range, start).await?,
        };
        let watched = WatchedScope {
            mongo: self.mongo.clone(),
            scope: self.scope.clone(),
            manner: EventOptions { with_bytes: self.with_bytes, looks_up: self.looks_up() },
            keeps_images: self.keeps_images,
            wait: self.wait,
        };
        Ok(Box::new(StreamFeed::new(watched, position)))
    }

    async fn now(&self) -> Result<Option<DateTime<Utc>>, Failure> {
        self.mongo.now().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_empty_does_not_widen_what_is_watched() {
        let of = |database: Option<&str>, collection: Option<&str>| {
            StreamScope::of(database.map(String::from), collection.map(String::from))
        };
        assert_eq!(of(None, None), Ok(StreamScope::Deployment));
        assert_eq!(of(Some("shop"), None), Ok(StreamScope::Database("shop".into())));
        let (database, collection) = ("shop".into(), "orders".into());
        assert_eq!(of(Some("shop"), Some("orders")), Ok(StreamScope::Collection { database, collection }));
        assert_eq!(of(Some(" "), Some("orders")), Err(BadScope::EmptyDatabase));
        assert_eq!(of(Some("shop"), Some("")), Err(BadScope::EmptyCollection));
        assert_eq!(of(None, Some("orders")), Err(BadScope::NoDatabase));
    }
}

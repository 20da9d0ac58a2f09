//! The seam for following: what a follower needs from a source of changes, whatever the source is.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{ChangeFeed, Container, Failure, FeedMode, FeedPage, FeedRange, FeedStart, Shard};
use crate::change::key::KeyPaths;

/// A source of changes.
///
/// Contract:
/// - The feeds of all ranges together deliver every change, each at least once, those of one document in order.
/// - A position is a text that is valid in another process.
/// - Nothing is retried here.
#[async_trait]
pub trait FeedSource: Debug + Send + Sync {
    /// Database and container, as a checkpoint names them.
    fn place(&self) -> String;
    /// Distinguishes the container from another one that was created under its name.
    fn rid(&self) -> &str;
    /// The partition key paths of the documents.
    fn key_paths(&self) -> &KeyPaths;
    /// The range of a static share.
    ///
    /// # Errors
    /// When the source cannot be divided like that.
    fn share(&self, share: Shard) -> Result<FeedRange, Failure>;
    /// The ranges that can be read in parallel now, in order.
    ///
    /// # Errors
    /// When the source cannot be asked.
    async fn ranges(&self) -> Result<Vec<FeedRange>, Failure>;
    /// A reader of a range: from a position, or from the start when there is none yet.
    ///
    /// # Errors
    /// When the position is malformed, or belongs to another source or mode.
    async fn open(
        &self,
        range: &FeedRange,
        mode: FeedMode,
        start: FeedStart,
        position: Option<&str>,
    ) -> Result<Box<dyn Feed>, Failure>;
    /// The current time at a source that dates its changes by a clock of its own; `None` when that is the account's.
    ///
    /// # Errors
    /// When the source does not answer.
    async fn now(&self) -> Result<Option<DateTime<Utc>>, Failure> {
        Ok(None)
    }
}

/// A reader of one range. It never ends; after an error it must be opened again with the last position.
#[async_trait]
pub trait Feed: Send {
    /// The next page; an empty one when there is nothing new.
    ///
    /// # Errors
    /// When the source fails or refuses.
    async fn next(&mut self) -> Result<FeedPage, Failure>;
    /// Where the reader stands: everything returned so far is before it.
    ///
    /// # Errors
    /// When the last page failed.
    fn position(&self) -> Result<String, Failure>;
    /// Whether nothing is left, after an empty page: for sources that send one for other reasons, too.
    ///
    /// # Errors
    /// When the source cannot be asked.
    async fn is_caught_up(&mut self) -> Result<bool, Failure> {
        Ok(true)
    }
    /// Whether everything was read when this many pages in a row were empty, for sources that read several parts of a
    /// range in turn.
    ///
    /// # Errors
    /// When the last page failed.
    fn is_round(&self, _empty: usize) -> Result<bool, Failure> {
        Ok(true)
    }
    /// Whether `next` itself waits for news, so that the caller need not pause before asking again.
    fn waits(&self) -> bool {
        false
    }
}

#[async_trait]
impl FeedSource for Container {
    fn place(&self) -> String {
        format!("{}/{}", self.database(), self.name())
    }

    fn rid(&self) -> &str {
        Self::rid(self)
    }

    fn key_paths(&self) -> &KeyPaths {
        Self::key_paths(self)
    }

    fn share(&self, share: Shard) -> Result<FeedRange, Failure> {
        self.key_range(share.span())
    }

    async fn ranges(&self) -> Result<Vec<FeedRange>, Failure> {
        self.feed_ranges(true).await
    }

    async fn open(
        &self,
        range: &FeedRange,
        mode: FeedMode,
        start: FeedStart,
        position: Option<&str>,
    ) -> Result<Box<dyn Feed>, Failure> {
        Ok(Box::new(self.change_feed(range, mode, start, position).await?))
    }
}

#[async_trait]
impl Feed for ChangeFeed {
    async fn next(&mut self) -> Result<FeedPage, Failure> {
        Self::next(self).await
    }

    fn position(&self) -> Result<String, Failure> {
        self.token()
    }

    fn is_round(&self, empty: usize) -> Result<bool, Failure> {
        Self::is_round(self, empty)
    }
}

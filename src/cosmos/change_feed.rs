//! The change feed of one container, read range by range as raw JSON.
//!
//! Through the driver, not the official client: that one builds a value tree of every item, in which the spelling of
//! numbers is lost. What the service and the driver promise is said at each item below.

use std::fmt;

use azure_core::time::OffsetDateTime;
use azure_data_cosmos_driver::{
    OperationPlan,
    models::{
        ChangeFeedStartFrom, ContinuationToken, CosmosOperation, FeedRange as DriverFeedRange, MaxItemCountHint,
        PartitionKeyDefinition, partition_key_range::PartitionKeyRange,
    },
    options::{OperationOptions, PlanOptions},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{Container, Failure, FeedPage, FeedRange, HashRange, Status, container::is_the_services, own_task};
use crate::change::{
    key::{KeyPaths, PartitionKey, render_path},
    time::PointInTime,
};

/// The operation that a failure names when the partitions are asked for.
const RANGES: &str = "read feed ranges";

/// The largest number of items on a page. The service also ends a page at 4 MB, so a page is small whatever the
/// backlog.
const PAGE_ITEMS: std::num::NonZeroU32 = std::num::NonZeroU32::new(1000).expect("it is not zero");

/// Which change feed is read. A token is bound to its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeedMode {
    /// The newest version of each document; versions in between and deletes are not seen.
    Latest,
    /// Every version and every delete, within the retention of continuous backup.
    AllVersions,
}

impl fmt::Display for FeedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Latest => "latest",
            Self::AllVersions => "all-versions",
        })
    }
}

/// Where reading starts when there is no token yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedStart {
    /// At the oldest change that the service still has.
    Beginning,
    /// At the moment of the **first poll** of each range: a range is only pinned once it has been polled.
    Now,
    /// At a moment, in whole seconds.
    At(PointInTime),
}

/// The definition of a key with these paths.
pub(super) fn definition_of(paths: &KeyPaths) -> PartitionKeyDefinition {
    let paths = paths.segments().iter().map(|path| render_path(path).into());
    PartitionKeyDefinition::new(paths.collect::<Vec<_>>())
}

/// A reader of one span. It never ends: an empty page only means that there is nothing new in **one** of the parts that
/// it reads in turn. These are the physical partitions below it, until some of them are merged: each part keeps its own
/// position. After an error it must be opened again with the last token.
pub struct ChangeFeed {
    container: Container,
    span: FeedRange,
    plan: OperationPlan,
}

impl fmt::Debug for ChangeFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeFeed").field("container", &self.container).finish_non_exhaustive()
    }
}

impl Container {
    /// The keys of a part of the hash space.
    ///
    /// # Errors
    /// When the container is not cut by a hash.
    pub fn key_range(&self, span: HashRange) -> Result<FeedRange, Failure> {
        let space = self.hash_space().ok_or_else(|| {
            Failure::invalid("feed range".into(), format!("{} is not partitioned by a hash", self.name()))
        })?;
        span.feed_range(space).map(FeedRange::from)
    }

    /// The spans of the physical partitions, in order; `refresh` asks the service instead of the driver's cache.
    ///
    /// # Errors
    /// When the service cannot be asked.
    pub async fn feed_ranges(&self, refresh: bool) -> Result<Vec<FeedRange>, Failure> {
        let found = self.partition_key_ranges(refresh).await?;
        let of = |range| DriverFeedRange::try_from(range).map(FeedRange::from);
        found.iter().map(|range| of(range).map_err(|e| Failure::from_driver(&e, RANGES.into()))).collect()
    }

    /// The physical partitions, in order.
    pub(super) async fn partition_key_ranges(&self, refresh: bool) -> Result<Vec<PartitionKeyRange>, Failure> {
        let this = self.clone();
        let resolve = async move { this.driver().resolve_all_partition_key_ranges(this.reference(), refresh).await };
        let found =
            own_task::run(resolve).await?.map_err(|e| Failure::from_driver(&e, RANGES.into()))?.unwrap_or_default();
        if found.is_empty() {
            // What the driver returns for a service that did not answer.
            let problem = "the service named no feed range";
            return Err(Failure::from_status(RANGES.into(), Status::new(503, 0), problem, None));
        }
        Ok(found)
    }

    /// Where the items of a partition key lie.
    ///
    /// # Errors
    /// When the key does not fit this container.
    pub fn range_of(&self, key: &PartitionKey) -> Result<FeedRange, Failure> {
        FeedRange::of_key(key, self.reference().partition_key_definition())
    }

    /// The token of a range at the position in a lease of Microsoft's change feed processor: the etag of the last page.
    /// In the client library's own format (version 1, as of azure_data_cosmos_driver 1.0).
    pub fn feed_token(&self, range: &FeedRange, mode: FeedMode, etag: &str) -> String {
        let ranged = serde_json::json!({
            "min_epk": range.min(), "max_epk": range.max(), "server_continuation": etag,
        });
        let mut state = serde_json::json!({
            "op": "ChangeFeed",
            "rid": self.rid(),
            "root": {"kind": "unordered_merge", "active_tokens": [ranged]},
        });
        if mode == FeedMode::AllVersions {
            state["cfm"] = true.into();
        }
        format!("c1.{}", URL_SAFE_NO_PAD.encode(state.to_string()))
    }

    /// Opens a reader of a span, at a token or else at a start. The token may belong to a wider span: only what lies in
    /// `span` is read, from where that token stood.
    ///
    /// # Errors
    /// When the token is malformed, or belongs to another container or mode.
    pub async fn change_feed(
        &self,
        span: &FeedRange,
        mode: FeedMode,
        start: FeedStart,
        token: Option<&str>,
    ) -> Result<ChangeFeed, Failure> {
        let (container, target) = (self.reference().clone(), Some(span.feed_range()));
        let operation = match mode {
            FeedMode::Latest => CosmosOperation::change_feed(container, target),
            FeedMode::AllVersions => CosmosOperation::change_feed_all_versions_and_deletes(container, target),
        };
        let mut operation = operation.with_max_item_count(MaxItemCountHint::Limit(PAGE_ITEMS));
        if token.is_none() {
            // Only without a token: a token carries its own start, but the driver would send this header beside it, and
            // a range that was never polled would begin there.
            operation = operation.with_change_feed_start(match start {
                FeedStart::Beginning => ChangeFeedStartFrom::Beginning,
                FeedStart::Now => ChangeFeedStartFrom::Now,
                FeedStart::At(time) => ChangeFeedStartFrom::PointInTime(
                    OffsetDateTime::from_unix_timestamp(time.seconds())
                        .map_err(|e| Failure::invalid("open change feed".into(), format!("the start time: {e}")))?,
                ),
            });
        }
        let token = token.map(|text| ContinuationToken::from_string(text.to_owned()));
        let plan = self
            .driver()
            .plan_operation(operation, &OperationOptions::default(), token.as_ref(), &PlanOptions::default())
            .await
            .map_err(|e| Failure::from_driver(&e, "open change feed".into()))?;
        Ok(ChangeFeed { container: self.clone(), span: span.clone(), plan })
    }
}

impl ChangeFeed {
    /// Reads the next page; an empty one when there is nothing new.
    ///
    /// # Errors
    /// When the service fails or refuses.
    pub async fn next(&mut self) -> Result<FeedPage, Failure> {
        let context = || "read change feed".to_owned();
        let fail = |e| Failure::from_driver(&e, context());
        let reference = self.container.reference().clone();
        let response = self
            .container
            .driver()
            .execute_plan(&mut self.plan, Some(reference), OperationOptions::default())
            .await
            .map_err(fail)?
            .ok_or_else(|| {
                Failure::from_status(context(), Status::new(503, 0), "the change feed ended, which it never does", None)
            })?;
        let charge = response.headers().request_charge.map_or(0.0, |c| c.value());
        self.container.cosmos().meter().add(charge);
        let partition_lsn = response.headers().lsn.and_then(|lsn| i64::try_from(lsn).ok());
        if u16::from(response.status().status_code()) == 304 {
            return Ok(FeedPage::of_body(String::new(), charge, partition_lsn));
        }
        if !is_the_services(response.headers()) {
            return Err(Failure::of_another(context()));
        }
        let bytes = response.into_body().single().map_err(fail)?;
        let body = String::from_utf8(bytes.into())
            .map_err(|_| Failure::invalid(context(), "the service sent text that is not UTF-8".into()))?;
        Ok(FeedPage::of_body(body, charge, partition_lsn))
    }

    /// The parts that are read in turn and have a position, in order.
    ///
    /// # Errors
    /// When the last page failed.
    pub fn parts(&self) -> Result<Vec<FeedRange>, Failure> {
        parts_of(&self.token()?)
    }

    /// Whether each part was read when this many pages in a row were empty. One that was never read has no position.
    ///
    /// # Errors
    /// When the last page failed.
    pub fn is_round(&self, empty: usize) -> Result<bool, Failure> {
        let parts = self.parts()?;
        Ok(empty >= parts.len() && self.span.is_covered_by(parts.iter()))
    }

    /// Where the reader stands: everything returned so far is before it. Valid in another process, and after splits
    /// and merges of the partitions.
    ///
    /// # Errors
    /// When the last page failed.
    pub fn token(&self) -> Result<String, Failure> {
        self.plan
            .to_continuation_token()
            .map(|token| token.as_str().to_owned())
            .map_err(|e| Failure::from_driver(&e, "read change feed".into()))
    }
}

/// The parts of a token, in the client library's own format (as in [`Container::feed_token`]).
fn parts_of(token: &str) -> Result<Vec<FeedRange>, Failure> {
    #[derive(Deserialize)]
    struct Token {
        root: Root,
    }
    #[derive(Deserialize)]
    struct Root {
        #[serde(default)]
        active_tokens: Vec<Part>,
    }
    #[derive(Deserialize)]
    struct Part {
        min_epk: String,
        max_epk: String,
    }
    let invalid = |problem: String| {
        Failure::invalid("read change feed".into(), format!("the position is not understood: {problem}"))
    };
    let text = token.split_once('.').map_or(token, |(_, text)| text);
    let state = URL_SAFE_NO_PAD.decode(text).map_err(|e| invalid(e.to_string()))?;
    let token: Token = serde_json::from_slice(&state).map_err(|e| invalid(e.to_string()))?;
    let parts = token.root.active_tokens.iter().map(|part| FeedRange::parse(&part.min_epk, &part.max_epk));
    parts.collect::<Result<_, _>>().map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_the_parts_that_have_a_position() {
        let token = |state: &str| format!("c1.{}", URL_SAFE_NO_PAD.encode(state));
        let parts =
            |token: &str| parts_of(token).map(|parts| parts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let two = r#"{"op":"ChangeFeed","root":{"kind":"unordered_merge","active_tokens":[
            {"min_epk":"","max_epk":"10","server_continuation":"1"},{"min_epk":"10","max_epk":"FF"}]}}"#;
        assert_eq!(parts(&token(two)).unwrap(), ["00-10", "10-FF"]);
        assert_eq!(parts(&token(r#"{"root":{"start_from":{"kind":"now"}}}"#)).unwrap(), [""; 0]);
        for other in ["", "c1.%", &token("{}")] {
            assert!(parts(other).unwrap_err().message.contains("is not understood"), "{other}");
        }
    }
}

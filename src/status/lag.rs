//! Counts how much of the feed is still to be captured, part by part.

use serde::Deserialize;

use crate::{
    cosmos::{Container, Failure, FeedRange, FeedStart, Param, RETRY_TIMEOUT, Retry},
    follow::Checkpoint,
    frontier::time_of,
    history::CosmosContainers,
};

/// The changes that wait in a part of the feed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Items.
    pub items: u64,
    /// Whether there are more than were counted.
    pub more: bool,
    /// Time of the first of them, epoch seconds.
    pub since: Option<i64>,
}

/// Counts the live documents of a range that were written after the newest version in the history: those that the
/// trigger has not delivered yet. It ignores those of the same second, and sees only the newest version of each
/// document.
///
/// # Errors
/// When source or history cannot be read.
pub async fn not_captured(containers: &CosmosContainers, range: &FeedRange, most: u64) -> Result<Backlog, Failure> {
    const NEWEST: &str =
        "SELECT TOP 1 VALUE c._change.ts FROM c WHERE IS_NUMBER(c._change.ts) ORDER BY c._change.ts DESC";
    #[derive(Deserialize)]
    struct Row {
        ts: i64,
    }
    let wrong =
        |e: serde_json::Error| Failure::invalid("count what waits".into(), format!("a row is not understood: {e}"));
    let newest = async || {
        let mut pages = containers.changes.query_range(NEWEST, &[], range).await?;
        while let Some(page) = pages.next().await {
            if let Some(row) = page?.documents.first() {
                return serde_json::from_str::<i64>(row.get()).map_err(wrong);
            }
        }
        Ok(-1)
    };
    let newest = Retry::for_at_most(RETRY_TIMEOUT).run(newest).await?;
    let count = async || {
        let sql = "SELECT c._ts AS ts FROM c WHERE c._ts > @newest";
        let mut pages = containers.source.query_range(sql, &[Param::new("newest", newest)], range).await?;
        let mut waiting = Backlog::default();
        while let Some(page) = pages.next().await {
            for row in page?.documents {
                let Row { ts } = serde_json::from_str(row.get()).map_err(wrong)?;
                waiting.items += 1;
                waiting.since = Some(waiting.since.map_or(ts, |since| since.min(ts)));
            }
            if waiting.items >= most {
                return Ok(Backlog { more: true, ..waiting });
            }
        }
        Ok(waiting)
    };
    Retry::for_at_most(RETRY_TIMEOUT).run(count).await
}

/// Counts what a follower still has to read, range by range, by reading the feed from its tokens on.
///
/// # Errors
/// When the feed cannot be read, or a token is malformed.
pub async fn not_followed(
    source: &Container,
    checkpoint: &Checkpoint,
    most: u64,
) -> Result<Vec<(FeedRange, Backlog)>, Failure> {
    let mut all = Vec::new();
    for position in &checkpoint.ranges {
        let range = FeedRange::parse(&position.min, &position.max)
            .map_err(|e| Failure::invalid("read checkpoint".into(), e))?;
        let read = async || {
            let start = FeedStart::Beginning;
            let mut feed = source.change_feed(&range, checkpoint.mode, start, Some(&position.token)).await?;
            let (mut waiting, mut empty) = (Backlog::default(), 0);
            // An empty page says that there is nothing new in one of the parts.
            while !feed.is_round(empty)? {
                let page = feed.next().await?;
                let items = page.items()?;
                empty = if items.is_empty() { empty + 1 } else { 0 };
                waiting.items += items.len() as u64;
                let first = items.first().and_then(|first| time_of(first.get()));
                waiting.since = [waiting.since, first].into_iter().flatten().min();
                if waiting.items >= most {
                    return Ok(Backlog { more: true, ..waiting });
                }
            }
            Ok(waiting)
        };
        all.push((range.clone(), Retry::for_at_most(RETRY_TIMEOUT).run(read).await?));
    }
    Ok(all)
}

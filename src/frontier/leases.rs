//! Reads who captures, from the leases of the trigger and the checkpoints of followers.

use std::collections::HashMap;

use chrono::DateTime;
use serde::Deserialize;

use crate::{
    cosmos::{Container, Disposition, Failure, FeedMode, FeedRange, RETRY_TIMEOUT, Retry},
    follow::Checkpoint,
};

/// A lease of the Functions host's trigger: who works on a part of the feed, and when that was last confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its document's id.
    pub id: String,
    /// The part of the feed.
    pub token: String,
    /// Who works on it; `None` when nobody does.
    pub owner: Option<String>,
    /// When it was last renewed or advanced, epoch seconds.
    pub at: Option<i64>,
    /// The keys of that part, if it says so.
    pub range: Option<FeedRange>,
    /// Its position in the feed: the etag of the last page that was delivered.
    pub continuation: Option<String>,
    /// Which feed it reads; older leases do not say.
    pub mode: Option<FeedMode>,
    /// When the leases of its function were first made, epoch seconds; `None` when no document says so.
    pub begun: Option<i64>,
}

impl Lease {
    /// Reads a document of the lease container; `None` for those that are not leases (the host keeps others there,
    /// too).
    pub fn parse(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            id: String,
            #[serde(rename = "LeaseToken")]
            token: String,
            #[serde(rename = "Owner")]
            owner: Option<String>,
            #[serde(rename = "ContinuationToken")]
            continuation: Option<String>,
            #[serde(rename = "Mode")]
            mode: Option<String>,
            timestamp: Option<String>,
            #[serde(rename = "FeedRange")]
            feed_range: Option<RangeOfLease>,
        }
        #[derive(Deserialize)]
        struct RangeOfLease {
            #[serde(rename = "Range")]
            range: Option<Bounds>,
        }
        #[derive(Deserialize)]
        struct Bounds {
            min: String,
            max: String,
        }
        let document: Document = serde_json::from_str(text).ok()?;
        let at = document.timestamp.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok());
        let owner = document.owner.filter(|owner| !owner.is_empty());
        let range = document.feed_range.and_then(|r| r.range).and_then(|b| FeedRange::parse(&b.min, &b.max).ok());
        let mode = match document.mode.as_deref() {
            Some("Full-Fidelity Feed") => Some(FeedMode::AllVersions),
            Some("Incremental Feed") => Some(FeedMode::Latest),
            _ => None,
        };
        let continuation = document.continuation.filter(|text| !text.is_empty());
        let at = at.map(|t| t.timestamp());
        Some(Self { id: document.id, token: document.token, owner, at, range, continuation, mode, begun: None })
    }

    /// The group of a function's leases: the id without the part.
    pub fn group(&self) -> &str {
        self.id.rsplit_once("..").map_or(self.id.as_str(), |(group, _)| group)
    }

    /// Whether it belongs to the container with this resource id, which is part of its document's id.
    pub fn is_of(&self, rid: &str) -> bool {
        let plain = |text: &str| text.replace(['/', '-', '='], "");
        plain(&self.id).contains(&plain(rid))
    }
}

/// Reads the document that the change feed processor writes once it has made a function's leases, and never changes:
/// what their ids begin with, and when it was written.
fn begun(text: &str) -> Option<(String, i64)> {
    #[derive(Deserialize)]
    struct Document {
        id: String,
        #[serde(rename = "_ts")]
        ts: i64,
    }
    let document: Document = serde_json::from_str(text).ok()?;
    Some((document.id.strip_suffix(".info")?.to_owned(), document.ts))
}

/// The leases of the trigger, and the checkpoints of followers; `None` when there is no lease container.
///
/// # Errors
/// When it cannot be read.
pub async fn leases(container: Result<Container, Failure>) -> Result<Option<(Vec<Lease>, Vec<Checkpoint>)>, Failure> {
    let container = match container {
        Err(f) if f.disposition == Disposition::NotFound => return Ok(None),
        other => other?,
    };
    let rows = Retry::for_at_most(RETRY_TIMEOUT).run(|| container.query_all("SELECT * FROM c", &[], None)).await?;
    let mut leases: Vec<Lease> = rows.iter().filter_map(|row| Lease::parse(row.get())).collect();
    leases.sort_by(|a, b| a.id.cmp(&b.id));
    let all_begun: HashMap<String, i64> = rows.iter().filter_map(|row| begun(row.get())).collect();
    leases.iter_mut().for_each(|lease| lease.begun = all_begun.get(lease.group()).copied());
    let mut followers: Vec<Checkpoint> =
        rows.iter().filter_map(|row| serde_json::from_str::<Checkpoint>(row.get()).ok()).collect();
    followers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Some((leases, followers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_told_from_what_else_is_there() {
        let lease = r#"{"id":"a..0","LeaseToken":"0","ContinuationToken":"\"7\"","Owner":"me","timestamp":"2026-11-20T15:00:00.123456Z"}"#;
        let read = Lease::parse(lease).unwrap();
        assert_eq!((read.token.as_str(), read.owner.as_deref(), read.at), ("0", Some("me"), Some(1_795_186_800)));
        let ranged = lease.replacen('{', r#"{"FeedRange":{"Range":{"min":"","max":"20"}},"#, 1);
        assert_eq!(Lease::parse(&ranged).unwrap().range.unwrap().to_string(), "00-20");
        assert!(read.is_of("a==") && !read.is_of("bc=="));
        let free = Lease::parse(r#"{"id":"a..1","LeaseToken":"1","Owner":"","timestamp":"never"}"#).unwrap();
        assert_eq!((free.owner, free.at), (None, None));
        assert_eq!(Lease::parse(r#"{"id":"a.info"}"#), None);
        let marker = r#"{"id":"a.info","_ts":7}"#;
        assert_eq!((begun(marker), begun(lease)), (Some((read.group().to_owned(), 7)), None));
        assert_eq!(Lease::parse("nonsense"), None);
    }
}

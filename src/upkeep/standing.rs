//! What there is to say about capture and history without reading them through: newest and oldest, leases, sizes.

use chrono::DateTime;
use serde::Deserialize;

use crate::{
    change::version::container_of,
    cosmos::{Container, Disposition, Failure, FeedMode, FeedRange, HashRange, Page, RETRY_TIMEOUT, Retry},
    follow::Checkpoint,
};

/// An end of a container's time axis.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct End {
    /// Epoch seconds.
    pub ts: i64,
    /// Resource id of the document it is of.
    pub rid: Option<String>,
}

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The earliest version of a history.
    OldestVersion,
    /// The latest version of a history.
    NewestVersion,
    /// The live document that was written last.
    NewestDocument,
}

impl Which {
    fn sql(self) -> &'static str {
        match self {
            Self::OldestVersion => {
                "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) ORDER BY c._change.ts ASC"
            }
            Self::NewestVersion => {
                "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) ORDER BY c._change.ts DESC"
            }
            Self::NewestDocument => "SELECT TOP 1 c._ts AS ts, c._rid AS rid FROM c ORDER BY c._ts DESC",
        }
    }
}

/// Reads an end; `None` when there is nothing.
///
/// # Errors
/// When the service refuses.
pub async fn end(container: &Container, which: Which) -> Result<Option<End>, Failure> {
    let rows = Retry::for_at_most(RETRY_TIMEOUT).run(|| container.query_all(which.sql(), &[], None)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    serde_json::from_str(row.get())
        .map(Some)
        .map_err(|e| Failure::invalid("read newest".into(), format!("a row is not understood: {e}")))
}

/// Whether a document with this resource id was of another container than the one with this id: one of the same name
/// that was deleted since. `None` when an id is not understood.
pub fn is_of_another(document: &str, container: &str) -> Option<bool> {
    Some(container_of(document)? != container_of(container)?)
}

/// Whether a history's end is of another container of the source's name, one that was deleted since.
///
/// # Errors
/// When the service refuses.
pub async fn from_previous_container(changes: &Container, source: &Container, which: Which) -> Result<bool, Failure> {
    let rid = end(changes, which).await?.and_then(|end| end.rid);
    Ok(rid.and_then(|rid| is_of_another(&rid, source.rid())).unwrap_or(false))
}

/// A lease of the Functions host's trigger: who works on a part of the feed, and since when it has not said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its document's id.
    pub id: String,
    /// The part of the feed.
    pub token: String,
    /// Who works on it; `None`: nobody.
    pub owner: Option<String>,
    /// When it was last renewed or moved on, epoch seconds.
    pub at: Option<i64>,
    /// The keys of that part, when it says so.
    pub range: Option<FeedRange>,
    /// Where in the feed it stands: the etag of the last page that was delivered.
    pub continuation: Option<String>,
    /// Which feed it reads; older leases do not say.
    pub mode: Option<FeedMode>,
}

impl Lease {
    /// Reads a document of the lease container; `None` for those that are no leases (the host keeps others there).
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
        Some(Self { id: document.id, token: document.token, owner, at, range, continuation, mode })
    }

    /// What the leases of one function share: all of the id but its part.
    pub fn group(&self) -> &str {
        self.id.rsplit_once("..").map_or(self.id.as_str(), |(group, _)| group)
    }

    /// Whether it is of the container with this resource id, which is part of its document's id.
    pub fn is_of(&self, rid: &str) -> bool {
        let plain = |text: &str| text.replace(['/', '-', '='], "");
        plain(&self.id).contains(&plain(rid))
    }
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
    let mut followers: Vec<Checkpoint> =
        rows.iter().filter_map(|row| serde_json::from_str::<Checkpoint>(row.get()).ok()).collect();
    followers.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(Some((leases, followers)))
}

/// How much a container has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    /// Items.
    pub items: u64,
    /// Of these: read in full, to learn how long they are.
    pub weighed: u64,
    /// Their bytes of JSON text.
    pub bytes: u64,
}

impl Size {
    /// Bytes of all items, as far as the weighed ones are like the others.
    pub fn estimate(&self) -> u64 {
        let average = if self.weighed == 0 { 0.0 } else { self.bytes as f64 / self.weighed as f64 };
        (average * self.items as f64).round() as u64
    }
}

/// Items that are weighed at a time, and parts of the container in which that is done.
const WEIGHED: u32 = 100;
const PARTS: u32 = 4;

/// Counts a container page by page, and weighs some items of several containers; `each` hears of every page.
///
/// # Errors
/// When it cannot be read.
pub async fn size(container: &Container, mut each: impl AsyncFnMut(u64)) -> Result<Size, Failure> {
    let mut size = Size::default();
    let mut pages = container.query("SELECT VALUE 1 FROM c", &[], None, None).await?;
    while let Some(page) = pages.next().await {
        let count = page?.documents.len() as u64;
        size.items += count;
        each(count).await;
    }
    let parts = if container.hash_space().is_some() { HashRange::WHOLE.cut(PARTS) } else { vec![HashRange::WHOLE] };
    for part in parts {
        let sql = format!("SELECT TOP {WEIGHED} * FROM c");
        let mut pages = container.query_hash_range(&sql, &[], part).await?;
        if let Some(Page { documents, .. }) = pages.next().await.transpose()? {
            size.weighed += documents.len() as u64;
            size.bytes += documents.iter().map(|d| d.get().len() as u64).sum::<u64>();
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_container_that_was_made_again_is_told_apart() {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes).replace('/', "-");
        let container = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4e]);
        let document = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4e, 9, 0, 0, 0, 0, 0, 0, 0]);
        let other = encode(&[0xe3, 0xb5, 0x1e, 0, 0xff, 0xff, 0xff, 0x4f, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(is_of_another(&document, &container), Some(false));
        assert_eq!(is_of_another(&other, &container), Some(true));
        for bad in ["", "rid-a", "AAAA"] {
            assert_eq!(is_of_another(bad, &container), None, "{bad}");
        }
        assert_eq!(is_of_another(&document, "x"), None);
    }

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
        assert_eq!(Lease::parse("nonsense"), None);
    }

    #[test]
    fn a_size_is_estimated_from_what_was_weighed() {
        assert_eq!(Size { items: 1000, weighed: 10, bytes: 2500 }.estimate(), 250_000);
        assert_eq!(Size::default().estimate(), 0);
    }
}

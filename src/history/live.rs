//! Reads live documents: what the source or the target has now.

use std::collections::HashMap;

use super::{containers::page, reading::LiveContainer};
pub use crate::change::raw::etag_of;
use crate::{
    change::{key::ItemKey, raw::RawDocument, time::PointInTime, version::Version},
    cosmos::{Failure, HashRange, RETRY_TIMEOUT, Retry, RuLimiter},
};

/// A live document.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Its etag.
    pub etag: String,
    /// Its `_ts`, epoch seconds; `None` when the service did not send one.
    pub ts: Option<i64>,
    /// Its text with system properties, when it was read along.
    pub text: Option<String>,
}

impl Live {
    /// Whether it proves by its etag that nobody wrote after that version, as far as a moment is concerned. The etag of
    /// a MongoDB document, which has no time, is a fingerprint of its bytes and comes back with them: it says nothing
    /// about the time before now.
    pub fn is_proof(&self, at: PointInTime) -> bool {
        self.ts.is_some() || at == PointInTime::END
    }
}

/// How much of the live documents is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveDetail {
    /// Nothing.
    No,
    /// Their etags.
    Etag,
    /// Their texts, too, where it pays to read them along.
    Text,
}

/// Live documents by item.
pub type LiveIndex = HashMap<ItemKey, Live>;

/// Reads a live document's text; `None` when there is none. Many that have the assumed etag are read together.
///
/// # Errors
/// When the service refuses.
pub async fn read_live(
    container: &dyn LiveContainer,
    pace: &RuLimiter,
    item: &ItemKey,
    assumed: Option<&str>,
) -> Result<Option<String>, Failure> {
    pace.wait().await;
    read_now(container, item, assumed).await
}

/// The same, without a limit of request units.
///
/// # Errors
/// When the service refuses.
pub async fn read_now(
    container: &dyn LiveContainer,
    item: &ItemKey,
    assumed: Option<&str>,
) -> Result<Option<String>, Failure> {
    let (key, id) = (&item.partition_key, item.id.as_str());
    let read = || match assumed {
        Some(etag) => container.read_assumed(key, id, etag),
        None => container.read(key, id),
    };
    Retry::for_at_most(RETRY_TIMEOUT).run(read).await
}

/// The etag that a document has, unless it was written since the newest of these versions, which are in order.
pub fn assumed(versions: &[Version]) -> Option<&str> {
    versions.last().and_then(|newest| newest.etag.as_deref())
}

/// Reads what a container has of one item, as [`read_live`] does.
///
/// # Errors
/// When the service refuses.
pub async fn look_at(
    container: &dyn LiveContainer,
    pace: &RuLimiter,
    item: &ItemKey,
    assumed: Option<&str>,
    with_text: bool,
) -> Result<Option<Live>, Failure> {
    let live = read_live(container, pace, item, assumed).await?;
    Ok(live.as_deref().and_then(of_text).map(|found| Live { text: live.filter(|_| with_text), ..found }))
}

/// Reads the system properties of a live document's text, without keeping the text; `None` when it has no etag.
pub(super) fn of_text(text: &str) -> Option<Live> {
    let document = RawDocument::parse(text).ok()?;
    Some(Live { etag: document.get_str("_etag")?.into_owned(), ts: document.get_i64("_ts"), text: None })
}

/// Every document of a container by item, with its etag.
///
/// # Errors
/// When the container cannot be read.
pub async fn live_index(container: &dyn LiveContainer, pace: &RuLimiter) -> Result<LiveIndex, Failure> {
    let read = || async {
        let mut pages = container.documents_in(HashRange::WHOLE, false, None);
        let mut index = HashMap::new();
        while let Some(page) = page(pace, &mut pages).await? {
            index.extend(page);
        }
        Ok(index)
    };
    Retry::for_at_most(RETRY_TIMEOUT).run(read).await
}

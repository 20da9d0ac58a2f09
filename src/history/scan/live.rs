//! Live documents: what the source or the target has now.

use std::collections::HashMap;

use super::{super::row::Row, containers::Containers, page};
use crate::{
    change::{
        key::{ItemKey, KeyPaths},
        raw::{RawDocument, string_of},
    },
    cosmos::{Container, Failure, RETRY_TIMEOUT, Retry, RuLimiter, sql_path},
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

/// What of the live documents is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveDetail {
    /// Nothing.
    No,
    /// That they exist.
    Etag,
    /// Their text too, where it pays to read it along.
    Text,
}

/// Live documents by item.
pub type LiveIndex = HashMap<ItemKey, Live>;

/// What the target has of one item.
///
/// # Errors
/// When the service refuses to say.
pub async fn look(
    containers: &Containers,
    pace: &RuLimiter,
    item: &ItemKey,
    with_text: bool,
) -> Result<Option<Live>, Failure> {
    look_at(&containers.target, pace, item, with_text).await
}

/// That the source has an item, and since when.
///
/// # Errors
/// When the service refuses to say.
pub async fn look_at_source(
    containers: &Containers,
    pace: &RuLimiter,
    item: &ItemKey,
) -> Result<Option<Live>, Failure> {
    look_at(&containers.source, pace, item, false).await
}

/// What a container has of one item.
///
/// # Errors
/// When the service refuses to say.
pub async fn look_at(
    container: &Container,
    pace: &RuLimiter,
    item: &ItemKey,
    with_text: bool,
) -> Result<Option<Live>, Failure> {
    pace.wait().await;
    let live = Retry::for_at_most(RETRY_TIMEOUT).run(|| container.read(&item.partition_key, &item.id)).await?;
    Ok(live.and_then(|text| {
        let text = String::from_utf8(text.into()).ok()?;
        let ts = RawDocument::parse(&text).ok()?.get_i64("_ts");
        Some(Live { etag: etag_of(&text)?, ts, text: with_text.then_some(text) })
    }))
}

/// Every document of the target by item, with its etag.
///
/// # Errors
/// When the target cannot be read.
pub async fn live_index(containers: &Containers, pace: &RuLimiter) -> Result<LiveIndex, Failure> {
    let target = &containers.target;
    let read = || async {
        let mut pages = target.query(&select_live(target.key_paths()), &[], None, None).await?;
        let mut index = HashMap::new();
        while let Some(page) = page(pace, &mut pages).await? {
            for text in page {
                index.extend([live_row(text.get(), target.key_paths())?]);
            }
        }
        Ok(index)
    };
    Retry::for_at_most(RETRY_TIMEOUT).run(read).await
}

/// Which documents there are, with their etags.
pub(super) fn select_live(target: &KeyPaths) -> String {
    let keys: String = target
        .segments()
        .iter()
        .enumerate()
        .fold(String::new(), |sql, (i, path)| sql + &format!(", {} AS k{i}", sql_path(path)));
    format!("SELECT c.id, c._etag AS etag, c._ts AS copied{keys} FROM c")
}

pub(super) fn live_row(text: &str, paths: &KeyPaths) -> Result<(ItemKey, Live), Failure> {
    let row: Row<'_> = serde_json::from_str(text)
        .map_err(|e| Failure::invalid("read target".into(), format!("a document is not understood: {e}")))?;
    let partition_key = row.key(paths.len());
    let live = Live { etag: row.etag.and_then(string_of).unwrap_or_default(), ts: row.copied, text: None };
    Ok((ItemKey { id: row.id.and_then(string_of).unwrap_or_default(), partition_key }, live))
}

pub(super) fn live_document(text: &str, paths: &KeyPaths) -> Result<(ItemKey, Live), Failure> {
    let wrong = |e: &str| Failure::invalid("read target".into(), format!("a document is not understood: {e}"));
    let document = RawDocument::parse(text).map_err(|e| wrong(&e.to_string()))?;
    let id = document.get_str("id").ok_or_else(|| wrong("it has no id"))?.into_owned();
    let etag = document.get_str("_etag").map(std::borrow::Cow::into_owned).unwrap_or_default();
    let live = Live { etag, ts: document.get_i64("_ts"), text: None };
    Ok((ItemKey { id, partition_key: paths.extract(&document) }, live))
}

/// The etag of a document's text.
pub fn etag_of(text: &str) -> Option<String> {
    RawDocument::parse(text).ok()?.get_str("_etag").map(std::borrow::Cow::into_owned)
}

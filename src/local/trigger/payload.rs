//! The items of an invocation in the real trigger's format. The trigger parses the feed into its own objects and
//! serializes those, so order and spelling are its own. `tests/fixtures/host-payloads` contains real bodies.

use super::rewrite::{Dates, quoted, rewrite};
use crate::change::raw::depth;
use crate::local::feed::{append_lsn, partition_key_object};
use crate::local::log::{Document, Version};

/// The nesting depth that the trigger's JSON reader refuses, including the document itself. Cosmos DB allows 128
/// levels.
const TOO_DEEP: usize = 64;

/// A document that the trigger cannot read; its lease does not advance past it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    /// The document's id.
    pub id: String,
    /// Its LSN.
    pub lsn: u64,
}

/// Builds an item of latest-version mode: the document with `_lsn`.
pub(super) fn latest(document: &Document, dates: Dates) -> Result<String, TooDeep> {
    readable(&document.text).map_err(|()| too_deep(&document.text, document.lsn))?;
    let text = append_lsn(&document.text, document.lsn);
    Ok(rewrite(&String::from_utf8_lossy(&text), dates))
}

/// Builds an item of all-versions-and-deletes mode.
pub(super) fn version(version: &Version, paths: &[String], dates: Dates) -> Result<String, TooDeep> {
    let images = [&version.text, &version.previous];
    for image in images.into_iter().flatten() {
        readable(image).map_err(|()| too_deep(image, version.lsn))?;
    }
    let image = |text: &[u8]| rewrite(&String::from_utf8_lossy(text), dates);
    let mut item = String::from("{\"current\":");
    item.push_str(&version.text.as_deref().map_or_else(|| "{}".to_owned(), image));
    item.push_str(&format!(
        ",\"metadata\":{{\"crts\":{}.0,\"lsn\":{},\"operationType\":\"{}\",\"previousImageLSN\":{},\"timeToLiveExpired\":{}",
        version.ts,
        version.lsn,
        version.operation.as_str(),
        version.previous_lsn.unwrap_or(0),
        version.expired,
    ));
    if version.text.is_none() {
        // The id is a string in the envelope's type and stays unchanged. The key is JSON of any shape and is read as
        // such.
        let key = partition_key_object(&version.partition_key, paths).to_string();
        item.push_str(&format!(",\"id\":{},\"partitionKey\":{}", quoted(&version.key.id), rewrite(&key, dates)));
    }
    item.push('}');
    if let Some(previous) = version.previous.as_deref() {
        item.push_str(",\"previous\":");
        item.push_str(&image(previous));
    }
    item.push('}');
    Ok(item)
}

fn readable(text: &[u8]) -> Result<(), ()> {
    if depth(text) >= TOO_DEEP { Err(()) } else { Ok(()) }
}

fn too_deep(text: &[u8], lsn: u64) -> TooDeep {
    #[derive(serde::Deserialize)]
    struct Named {
        id: String,
    }
    // Not parsed as a value, which has its own depth limit.
    let named: Option<Named> = serde_json::from_slice(text).ok();
    TooDeep { id: named.map(|named| named.id).unwrap_or_default(), lsn }
}

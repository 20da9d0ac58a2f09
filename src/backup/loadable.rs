//! What of a file can be loaded as a document.

use crate::{
    archive::NoDocument,
    change::{
        key::{ItemKey, KeyPaths},
        raw::RawDocument,
        record,
    },
};

/// Why one document cannot be loaded; displays as what follows its place.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unloadable {
    /// There is none.
    #[error(transparent)]
    None(#[from] NoDocument),
    /// It is something else.
    #[error("is not a JSON object")]
    Json(#[from] serde_json::Error),
    /// Nobody can tell which one it is.
    #[error("has no id that is a string")]
    NoId,
}

/// The document without system properties, and which one it is.
pub(super) fn prepare(text: &str, paths: &KeyPaths) -> Result<(ItemKey, String), Unloadable> {
    let text = record::own_text(text)?;
    let document = RawDocument::parse(&text)?;
    let id = document.get_str("id").filter(|id| !id.is_empty()).ok_or(Unloadable::NoId)?.into_owned();
    let partition_key = paths.extract(&document);
    drop(document);
    Ok((ItemKey { id, partition_key }, text))
}

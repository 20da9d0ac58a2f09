//! Decides which entries of a file can be loaded as documents.

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
    /// There is no document.
    #[error(transparent)]
    None(#[from] NoDocument),
    /// It is not a JSON object.
    #[error("is not a JSON object")]
    Json(#[from] serde_json::Error),
    /// Its id is missing or not a string.
    #[error("has no id that is a string")]
    NoId,
}

/// The document without system properties, and its identity.
pub(super) fn prepare(text: &str, paths: &KeyPaths) -> Result<(ItemKey, String), Unloadable> {
    let text = record::own_text(text)?;
    let document = RawDocument::parse(&text)?;
    let id = document.get_str("id").filter(|id| !id.is_empty()).ok_or(Unloadable::NoId)?.into_owned();
    let partition_key = paths.extract(&document);
    drop(document);
    Ok((ItemKey { id, partition_key }, text))
}

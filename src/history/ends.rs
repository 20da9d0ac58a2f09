//! The oldest and the newest of a container, and whether they are of a container of this name that was deleted since.

use serde::Deserialize;

use crate::{
    change::version::container_of,
    cosmos::{Container, Failure, RETRY_TIMEOUT, Retry},
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
}

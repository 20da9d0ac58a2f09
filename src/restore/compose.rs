//! Composes the text that a step writes, and compares documents.

use sha2::{Digest, Sha256};

use super::{apply::ApplyOptions, plan::STAMP};
use crate::change::{
    canonical::canonical,
    diff, edit,
    key::{parse_path, render_path},
    raw::RawDocument,
    record,
};

/// A text to write, and how it was composed.
#[derive(Debug, Clone)]
pub struct Composed {
    /// The document.
    pub text: String,
    /// The same without the stamp; `None` when it has no stamp.
    pub stamped: Option<String>,
    /// Remarks about it.
    pub notes: Vec<String>,
    /// Whether the texts are those that the target will have, letter by letter: then it has this document only with the
    /// same text. Otherwise the target may spell it in another way.
    pub is_exact: bool,
}

/// Why there is no text to write.
#[derive(Debug, thiserror::Error)]
pub(super) enum ComposeError {
    /// The live document.
    #[error(transparent)]
    Live(#[from] NoObject),
    /// The version.
    #[error(transparent)]
    Version(serde_json::Error),
    /// A field to put back is not a valid path; the reason.
    #[error("{0}")]
    Path(String),
    /// A field cannot be put where its path leads; the reason.
    #[error("{0}")]
    Edit(String),
    /// Neither document has any of the fields.
    #[error("{}", .0.join("; "))]
    Nothing(Vec<String>),
}

/// A text that is not a document.
#[derive(Debug, thiserror::Error)]
#[error("the document is not a JSON object")]
pub(super) struct NoObject(#[from] serde_json::Error);

/// The text to write: the version, or the live document with single fields of the version; plus the stamp. A document
/// with a member of that name keeps its own, and one that the stamp would make too large goes without.
pub(super) fn compose(version: &str, live: Option<&str>, manner: &ApplyOptions) -> Result<Composed, ComposeError> {
    let mut notes = Vec::new();
    let text = match live {
        Some(live) if !manner.only.is_empty() => {
            let mut text = without_system(live)?;
            for path in &manner.only {
                let path = parse_path(path).map_err(ComposeError::Path)?;
                match diff::value_at(version, &path) {
                    Some(value) => text = edit::set(&text, &path, value).map_err(ComposeError::Edit)?,
                    None if diff::value_at(&text, &path).is_none() => {
                        notes.push(format!("neither the version nor the live document has {}", render_path(&path)));
                    }
                    None => text = edit::remove(&text, &path).map_err(ComposeError::Edit)?,
                }
            }
            if notes.len() == manner.only.len() {
                return Err(ComposeError::Nothing(notes));
            }
            text
        }
        _ => version.to_owned(),
    };
    let Some(stamp) = manner.stamp else { return Ok(Composed { text, stamped: None, notes, is_exact: false }) };
    let has_own = RawDocument::parse(&text).map_err(ComposeError::Version)?.get(STAMP).is_some();
    if has_own {
        notes.push(format!("has a member {STAMP} of its own, which stays as it is"));
        return Ok(Composed { text, stamped: None, notes, is_exact: false });
    }
    let with_stamp = edit::set(&text, &[STAMP.to_owned()], &stamp.to_string()).map_err(ComposeError::Edit)?;
    if with_stamp.len() > record::MAX_ITEM_BYTES {
        notes.push(format!("{STAMP} would make it larger than an item may be, so it is left out"));
        return Ok(Composed { text, stamped: None, notes, is_exact: false });
    }
    Ok(Composed { text: with_stamp, stamped: Some(text), notes, is_exact: false })
}

/// A document as the user wrote it.
pub(super) fn without_system(text: &str) -> Result<String, NoObject> {
    Ok(record::own_text(text)?)
}

impl Composed {
    /// Whether a live document is what this makes it.
    pub fn is(&self, live: &str) -> bool {
        self.is_text(&self.text, live, false)
    }

    /// The same; or whether it is this without the stamp of a restore, or with another one, when it has none of its
    /// own.
    pub fn is_there(&self, live: &str) -> bool {
        self.is(live) || self.stamped.as_ref().is_some_and(|plain| self.is_text(plain, live, true))
    }

    fn is_text(&self, text: &str, live: &str, ignore_stamp: bool) -> bool {
        match (self.is_exact, plain(text, ignore_stamp), plain(live, ignore_stamp)) {
            (true, Some(text), Some(live)) => text == live,
            (false, Some(text), Some(live)) => diff::same(&text, &live),
            _ => false,
        }
    }

    /// A plan's checksum for this text: SHA-256, hexadecimal. Where the service may spell the same document in
    /// different ways, it is that of its canonical form.
    pub fn checksum(&self) -> String {
        if self.is_exact { sha256(&self.text) } else { checksum(&self.text) }
    }
}

fn plain(text: &str, ignore_stamp: bool) -> Option<String> {
    let text = without_system(text).ok()?;
    if ignore_stamp { edit::remove(&text, &[STAMP.to_owned()]).ok() } else { Some(text) }
}

/// Whether two documents mean the same, ignoring system properties, and optionally the stamp.
pub fn same_document(a: &str, b: &str, ignore_stamp: bool) -> bool {
    match (plain(a, ignore_stamp), plain(b, ignore_stamp)) {
        (Some(a), Some(b)) => diff::same(&a, &b),
        _ => false,
    }
}

/// A plan's checksum for a text to write: SHA-256 of its canonical form, hexadecimal. The service may spell the same
/// document in different ways.
pub fn checksum(text: &str) -> String {
    sha256(&canonical(text))
}

/// Whether this is the text whose checksum is in a plan; plans of earlier releases used its exact spelling.
pub fn is_noted(text: &str, noted: &str) -> bool {
    checksum(text) == noted || sha256(text) == noted
}

fn sha256(text: &str) -> String {
    record::hex(&Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_targets_text_is_known_the_order_of_members_counts() {
        let composed =
            |text: &str, is_exact| Composed { text: text.into(), stamped: None, notes: Vec::new(), is_exact };
        let (one, other) = (r#"{"id":"a","in":{"a":1,"b":2}}"#, r#"{"id":"a","in":{"b":2,"a":1}}"#);
        let live = |text: &str| text.replace("}}", r#"},"_etag":"\"x\""}"#);
        assert!(composed(one, true).is(&live(one)) && composed(one, false).is(&live(one)));
        assert!(!composed(one, true).is(&live(other)) && composed(one, false).is(&live(other)));
        assert_ne!(composed(one, true).checksum(), composed(other, true).checksum());
        assert_eq!(composed(one, false).checksum(), composed(other, false).checksum());
        assert!(is_noted(one, &composed(one, true).checksum()) && is_noted(other, &composed(one, false).checksum()));
        let stamped = r#"{"id":"a","in":{"a":1,"b":2},"restored_at":7}"#;
        let restored = Composed { stamped: Some(one.into()), ..composed(stamped, true) };
        assert!(restored.is_there(&live(one)) && !restored.is(&live(one)) && !restored.is_there(&live(other)));
    }
}

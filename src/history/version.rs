//! Resolves a version that a caller names.

use crate::change::version::Version;

/// No version has this name, or several do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// The document has no such version.
    #[error("the document has no version {0}")]
    None(String),
    /// Several versions have this name; an LSN occurs twice after a container was recreated.
    #[error("{} versions match {wanted}", records.len())]
    Several {
        /// The caller's text.
        wanted: String,
        /// Their records.
        records: Vec<String>,
    },
}

/// The version that a caller names: a record's id, an LSN, or an etag with or without its quotes.
///
/// # Errors
/// When there is none, or there are several.
pub fn named<'v>(versions: &'v [Version], text: &str) -> Result<&'v Version, VersionError> {
    let etag = |v: &Version| v.etag.as_ref().is_some_and(|etag| etag.trim_matches('"') == text.trim_matches('"'));
    let by_record: Vec<&Version> = versions.iter().filter(|v| v.record_id == text || etag(v)).collect();
    let lsn = text.parse::<i64>().ok();
    let by_lsn = || versions.iter().filter(|v| lsn.is_some() && v.lsn == lsn).collect();
    let found = if by_record.is_empty() { by_lsn() } else { by_record };
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(VersionError::None(text.to_owned())),
        several => Err(VersionError::Several {
            wanted: text.to_owned(),
            records: several.iter().map(|v| v.record_id.clone()).collect(),
        }),
    }
}

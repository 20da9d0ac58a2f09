//! Asks a version whether it matches a predicate, where the service cannot: as it was, with what the service adds to a
//! document.

use serde_json::Value;

use super::evaluate::{Predicate, Unsupported};
use crate::{change::version::Version, cosmos::Failure};

/// Why it is unknown whether a document matches that the service cannot see.
#[derive(Debug, thiserror::Error)]
pub enum Undecided {
    /// The predicate has unsupported parts.
    #[error("its document is kept compressed, and in --where {0}")]
    Predicate(Unsupported),
    /// The record has a part of the document only, and the predicate is about what it lacks.
    #[error(
        "the history has only a part of its document (follow --fields or --redact), and --where asks for what was left out"
    )]
    Part,
    /// The record has no readable document.
    #[error("{}", .0.message)]
    Record(Failure),
    /// The document is no JSON.
    #[error(transparent)]
    Document(#[from] serde_json::Error),
}

impl Predicate {
    /// Whether a version with this text matches.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn matches_version(&self, version: &Version, text: &str) -> Result<bool, serde_json::Error> {
        Ok(self.matches(&document(version, text)?))
    }

    /// The same of a version of which only what is not hidden is known.
    ///
    /// # Errors
    /// When the text is not JSON, or nobody can tell.
    pub fn matches_part_of(
        &self,
        version: &Version,
        text: &str,
        is_hidden: &dyn Fn(&[String]) -> bool,
    ) -> Result<bool, Undecided> {
        self.matches_part(&document(version, text)?, is_hidden).ok_or(Undecided::Part)
    }
}

/// The document with the properties that the service had given it. A record has them as facts of the version.
fn document(version: &Version, text: &str) -> Result<Value, serde_json::Error> {
    let mut document = serde_json::from_str(text)?;
    if let Value::Object(members) = &mut document {
        members.insert("_ts".into(), version.ts.into());
        members.extend(version.etag.clone().map(|etag| ("_etag".into(), etag.into())));
        members.extend(version.rid.clone().map(|rid| ("_rid".into(), rid.into())));
    }
    Ok(document)
}

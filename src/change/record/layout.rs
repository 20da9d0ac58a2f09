//! Which layouts of source and history the records can be kept in.

use super::{CHANGE, ORIGINAL_ID, SYSTEM};
use crate::change::key::{KeyPaths, render_path};

/// Why records of a source cannot be kept in a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The source is keyed by a path that a record needs for itself: the path.
    #[error(
        "the source is keyed by {0}, which a record of the history needs for itself, so its documents cannot be captured"
    )]
    Taken(String),
    /// The history is keyed by paths that documents do not have.
    #[error("its partition key {foreign} is not part of the source's ({of_source}), so a delete could not be recorded")]
    Foreign {
        /// Those paths.
        foreign: String,
        /// The source's.
        of_source: KeyPaths,
    },
    /// The history is not keyed by all that tells documents apart.
    #[error(
        "its partition key ({of_history}) leaves out {left_out} of the source's, so two documents of one id could share a record"
    )]
    LeftOut {
        /// The history's paths.
        of_history: KeyPaths,
        /// Those of the source's that are not among them.
        left_out: String,
    },
}

/// Whether documents of a source keyed so can be records of a history: a record keeps some members elsewhere, and its key
/// would be another one than its document's.
///
/// # Errors
/// With the path that a record needs for itself.
pub fn check_source_key(source: &KeyPaths) -> Result<(), LayoutError> {
    let is_taken = |name: &str| matches!(name, "ttl" | CHANGE | ORIGINAL_ID) || SYSTEM.contains(&name);
    match source.segments().iter().find(|path| path.first().is_some_and(|name| is_taken(name))) {
        None => Ok(()),
        Some(path) => Err(LayoutError::Taken(render_path(path))),
    }
}

/// Whether a history keyed by `changes` can keep the documents of a source keyed by `source` apart: a record lies by what
/// its document's key is, and two documents of one id may have one etag under different keys.
///
/// # Errors
/// With what is wrong with the history's key.
pub fn check_layout(changes: &KeyPaths, source: &KeyPaths) -> Result<(), LayoutError> {
    let is_own = |path: &[String]| matches!(path, [name] if name == "id" || name == ORIGINAL_ID);
    let shown =
        |paths: Vec<&Vec<String>>| paths.into_iter().map(|path| render_path(path)).collect::<Vec<_>>().join(", ");
    check_source_key(source)?;
    let foreign: Vec<_> = changes.segments().iter().filter(|p| !source.segments().contains(p) && !is_own(p)).collect();
    if !foreign.is_empty() {
        return Err(LayoutError::Foreign { foreign: shown(foreign), of_source: source.clone() });
    }
    // An id is in every record's own.
    let is_left_out = |path: &&Vec<String>| !changes.segments().contains(path) && path.as_slice() != ["id"];
    let left_out: Vec<_> = source.segments().iter().filter(is_left_out).collect();
    if !left_out.is_empty() {
        return Err(LayoutError::LeftOut { of_history: changes.clone(), left_out: shown(left_out) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> KeyPaths {
        KeyPaths::parse(paths).unwrap()
    }

    #[test]
    fn a_history_whose_key_cannot_tell_documents_apart_is_refused() {
        let check = |changes: &[&str], source: &[&str]| check_layout(&paths(changes), &paths(source));
        for (changes, source) in [
            (&["/pk", "/_originalId"][..], &["/pk"][..]),
            (&["/pk"], &["/pk"]),
            (&["/_originalId", "/pk"], &["/pk"]),
            (&["/_originalId"], &["/id"]),
            (&["/id"], &["/id"]),
            (&["/tenant", "/_originalId"], &["/tenant", "/id"]),
            (&["/a", "/b/c", "/_originalId"], &["/a", "/b/c"]),
        ] {
            assert_eq!(check(changes, source), Ok(()), "{changes:?} {source:?}");
        }
        for (changes, source, problem) in [
            (&["/_originalId"][..], &["/pk"][..], "leaves out /pk"),
            (&["/id"], &["/pk"], "leaves out /pk"),
            (&["/a", "/_originalId"], &["/a", "/b"], "leaves out /b"),
            (&["/other"], &["/pk"], "/other is not part of the source's"),
            (&["/pk", "/other"], &["/pk"], "/other is not part of the source's"),
            (&["/ttl", "/_originalId"], &["/ttl"], "keyed by /ttl"),
            (&["/_originalId"], &["/_originalId"], "keyed by /_originalId"),
            (&["/pk", "/_change/x"], &["/pk", "/_change/x"], "keyed by /_change/x"),
        ] {
            assert!(check(changes, source).unwrap_err().to_string().contains(problem), "{changes:?} {source:?}");
        }
    }
}

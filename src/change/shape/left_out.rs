//! What a record lacks on purpose, as its `_change.partial` tells: the inverse of the note that a shape writes.

use serde::Deserialize;

use super::{
    super::{edit::quote, extended::in_texts, key::parse_path, pointer::index},
    KEPT, SYSTEM,
};

/// What `_change.partial` tells: paths as people write them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NamedPaths {
    /// When only some fields were kept: these.
    pub(super) fields: Option<Vec<String>>,
    pub(super) dropped: Vec<String>,
    pub(super) hashed: Vec<String>,
}

impl NamedPaths {
    /// The same of a document of which more was left out.
    pub(super) fn without(&self, paths: Vec<String>) -> Self {
        Self { dropped: [self.dropped.clone(), paths].concat(), ..self.clone() }
    }

    /// The same of a document of which nothing else is known.
    pub(super) fn with_only(&self, fields: Vec<String>) -> Self {
        Self { fields: Some(fields), ..self.clone() }
    }

    /// The JSON text.
    pub(super) fn note(&self) -> String {
        let list = |name: &str, paths: &[String]| {
            let paths: Vec<_> = paths.iter().map(|path| quote(path)).collect();
            format!("\"{name}\":[{}]", paths.join(","))
        };
        let fields = self.fields.as_deref().map(|fields| list("fields", fields));
        let others = [("dropped", &self.dropped), ("hashed", &self.hashed)];
        let others = others.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(name, paths)| list(name, paths));
        format!("{{{}}}", fields.into_iter().chain(others).collect::<Vec<_>>().join(","))
    }
}

/// The fields that a record lacks, or has only as hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// When only some fields were kept: these.
    kept: Option<Vec<Vec<String>>>,
    gone: Vec<Vec<String>>,
}

impl LeftOut {
    /// Reads the content of `_change.partial`. Of a record without one that is understood, only what every record needs
    /// counts as kept.
    pub fn parse(note: Option<&str>) -> Self {
        let paths = |texts: &[String]| {
            let paths: Result<Vec<_>, _> = texts.iter().map(|text| parse_path(text)).collect();
            Some(paths.ok()?.iter().flat_map(|path| in_texts(path)).map(|path| counted(&path)).collect())
        };
        let parsed = note.and_then(|note| {
            let NamedPaths { fields, dropped, hashed } = serde_json::from_str(note).ok()?;
            let kept = match fields {
                Some(fields) => Some(paths(&fields)?),
                None => None,
            };
            let gone: Vec<Vec<String>> = paths(&[dropped, hashed].concat())?;
            // A part lacks something.
            (kept.is_some() || !gone.is_empty()).then_some(Self { kept, gone })
        });
        parsed.unwrap_or(Self { kept: Some(Vec::new()), gone: Vec::new() })
    }

    /// Whether the value at a path of the document may differ from what the record has there. A document's key is to be
    /// asked about elsewhere: every record has it.
    pub fn hides(&self, path: &[String]) -> bool {
        if path.first().is_some_and(|name| KEPT.contains(&name.as_str()) || SYSTEM.contains(&name.as_str())) {
            return false;
        }
        let path = counted(path);
        self.gone.iter().any(|gone| gone.starts_with(&path) || path.starts_with(gone))
            || self.kept.as_ref().is_some_and(|kept| !kept.iter().any(|kept| path.starts_with(kept)))
    }
}

/// A path without the numbers that name elements: a path names all elements of an array on its way.
fn counted(path: &[String]) -> Vec<String> {
    path.iter().filter(|name| index(name).is_none()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(note: &str, path: &str) -> bool {
        let path: Vec<String> = path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        LeftOut::parse(Some(note)).hides(&path)
    }

    #[test]
    fn a_value_is_hidden_when_it_or_a_part_of_it_was_left_out() {
        let note = r#"{"dropped":["/ssn","/a/b","/tags/0"],"hashed":["/mail"]}"#;
        for path in ["ssn", "ssn/x", "a", "a/b", "a/3/b/c", "tags", "tags/1", "mail", ""] {
            assert!(hides(note, path), "{path}");
        }
        for path in ["id", "ttl", "_ts", "_etag", "city", "a/c", "ssns"] {
            assert!(!hides(note, path), "{path}");
        }
    }

    #[test]
    fn what_was_not_kept_is_hidden() {
        let note = r#"{"fields":["/name","/a/b"],"dropped":["/name/last"]}"#;
        for path in ["city", "a", "a/c", "name", "name/last", ""] {
            assert!(hides(note, path), "{path}");
        }
        for path in ["id", "name/first", "a/b", "a/2/b/c"] {
            assert!(!hides(note, path), "{path}");
        }
        // An index has no leading zero: this is a name.
        assert!(hides(r#"{"fields":["/a/01"]}"#, "a/b") && !hides(r#"{"fields":["/a/01"]}"#, "a/01"));
        assert!(LeftOut::parse(None).hides(&["x".to_owned()]) && !LeftOut::parse(None).hides(&["id".to_owned()]));
        assert!(
            hides("[]", "x") && hides("{}", "x") && hides(r#"{"dropped":["x"]}"#, "y"),
            "a note that is not understood hides all"
        );
    }
}

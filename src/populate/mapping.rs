//! Gives documents from a file the id and the partition key that a container needs.

use super::{InputError, PopulateError};
use crate::change::{
    edit,
    key::{ItemKey, KeyPaths, KeyValue, render_path},
    raw::{RawDocument, unescape},
};

/// Where the id and the partition key of a document are copied from.
#[derive(Debug, Clone, Default)]
pub struct IdMapping {
    /// The path of the value that becomes the id; without it, documents have their own.
    pub id_from: Option<Vec<String>>,
    /// The paths of the values that become the partition key, in its order; without them, documents have their own.
    pub pk_from: Vec<Vec<String>>,
}

impl IdMapping {
    /// Checks whether the mapping fits a container's key.
    ///
    /// # Errors
    /// When there are more or fewer paths than the key has.
    pub(super) fn check(&self, key_paths: &KeyPaths) -> Result<(), PopulateError> {
        let given = self.pk_from.len();
        if given == 0 || given == key_paths.len() {
            return Ok(());
        }
        Err(PopulateError::KeyCount { given, key: key_paths.to_string() })
    }

    /// The document with its id and key, or what it lacks.
    pub(super) fn prepare(&self, text: &str, key_paths: &KeyPaths) -> Result<(ItemKey, String), InputError> {
        let mut text = text.to_owned();
        if let Some(from) = &self.id_from {
            let value = copied(&text, from)?;
            text = edit::set(&text, &["id".to_owned()], &edit::quote(&value)).map_err(InputError::Set)?;
        }
        for (from, to) in self.pk_from.iter().zip(key_paths.segments()) {
            let value = copied(&text, from)?;
            text = edit::set(&text, to, &edit::quote(&value)).map_err(InputError::Set)?;
        }
        let document = RawDocument::parse(&text)?;
        let id = match document.get("id").map(|raw| raw.get()) {
            None => return Err(InputError::NoId),
            Some("\"\"") => return Err(InputError::EmptyId),
            Some(raw) if raw.starts_with('"') => unescape(raw).into_owned(),
            Some(raw) => return Err(InputError::OtherId(raw.to_owned())),
        };
        let partition_key = key_paths.extract(&document);
        if let Some(at) = partition_key.0.iter().position(|part| *part == KeyValue::Undefined) {
            let missing = key_paths.segments().get(at).map(|p| render_path(p)).unwrap_or_default();
            return Err(InputError::NoKey(missing));
        }
        drop(document);
        Ok((ItemKey { id, partition_key }, text))
    }
}

/// The scalar at a path, as a string.
fn copied(text: &str, from: &[String]) -> Result<String, InputError> {
    let document = RawDocument::parse(text)?;
    match KeyPaths::extract_one(from, &document) {
        KeyValue::String(s) if !s.is_empty() => Ok(s),
        KeyValue::Undefined | KeyValue::Null | KeyValue::String(_) => Err(InputError::NoValue(render_path(from))),
        // A number's own text, so that 1.10 stays 1.10.
        _ => Ok(raw_at(from, text).unwrap_or_default()),
    }
}

fn raw_at(path: &[String], text: &str) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let document = RawDocument::parse(text).ok()?;
    let value = document.get(first)?.get();
    if rest.is_empty() { Some(value.to_owned()) } else { raw_at(rest, value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(
        key: &[&str],
        id_from: Option<&str>,
        pk_from: &[&str],
        text: &str,
    ) -> Result<(ItemKey, String), InputError> {
        let path = |p: &str| crate::change::key::parse_path(p).unwrap();
        let mapping = IdMapping { id_from: id_from.map(path), pk_from: pk_from.iter().copied().map(path).collect() };
        mapping.prepare(text, &KeyPaths::parse(key).unwrap())
    }

    #[test]
    fn id_and_key_are_copied_and_the_rest_keeps_its_text() {
        let prepare = |text| prepared(&["/pk"], Some("/postal_cd"), &["/postal_cd"], text);
        let (item, text) = prepare("{\n  \"postal_cd\": \"28036\",  \"latitude\": 35.4833060\n}").unwrap();
        assert_eq!((item.id.as_str(), item.partition_key.to_string().as_str()), ("28036", "28036"));
        assert_eq!(text, "{\n  \"postal_cd\": \"28036\",  \"latitude\": 35.4833060,\"id\":\"28036\",\"pk\":\"28036\"}");
        let (item, text) = prepare(r#"{"postal_cd":28.10,"id":1}"#).unwrap();
        assert_eq!((item.id.as_str(), text.as_str()), ("28.10", r#"{"postal_cd":28.10,"id":"28.10","pk":"28.10"}"#));
    }

    #[test]
    fn a_hierarchical_key_is_filled_path_by_path() {
        let prepare = |text| prepared(&["/tenant", "/user/id"], None, &["/t", "/u"], text);
        let (item, text) = prepare(r#"{"id":"a","t":"x","u":true}"#).unwrap();
        assert_eq!(item.partition_key.to_string(), r#"["x","true"]"#);
        assert_eq!(text, r#"{"id":"a","t":"x","u":true,"tenant":"x","user":{"id":"true"}}"#);
    }

    #[test]
    fn what_a_document_lacks_is_said_with_the_fix() {
        let plain = |text| prepared(&["/pk"], None, &[], text);
        for (text, problem) in [
            ("{}", "--id-from"),
            (r#"{"id":7,"pk":1}"#, "--id-from /id"),
            (r#"{"id":"","pk":1}"#, "--id-from"),
            (r#"{"id":"a"}"#, "at /pk"),
            (r#"{"id":"a","pk":{}}"#, "--pk-from"),
        ] {
            let error = plain(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(plain(r#"{"id":"a","pk":null}"#).is_ok());
        assert!(
            prepared(&["/pk"], Some("/code"), &[], r#"{"pk":1,"code":null}"#)
                .unwrap_err()
                .to_string()
                .contains("/code")
        );
        let mapping = IdMapping { id_from: None, pk_from: vec![vec!["x".into()]] };
        assert!(mapping.check(&KeyPaths::parse(&["/a", "/b"]).unwrap()).is_err());
    }
}

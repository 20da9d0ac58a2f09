//! Decides what of a document is passed on: only some fields, without others, or with values hashed. The text of what
//! stays is untouched.

mod left_out;
mod told;

use std::collections::BTreeMap;

use hmac::{Hmac, Mac as _};
use serde_json::value::RawValue;
use sha2::Sha256;

pub use self::left_out::LeftOut;
use super::{
    edit::quote,
    extended::{BSON, in_texts, is_closed},
    key::{KeyPaths, parse_path, render_path},
    pointer,
    raw::RawDocument,
    record::{SYSTEM, hex},
};
use crate::secret::Secret;

/// Members that a feed or the record needs, whatever fields are asked for.
const KEPT: [&str; 3] = ["id", "ttl", "_lsn"];

/// The treatment of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redaction {
    /// It is left out.
    Drop,
    /// Its value becomes a keyed hash: equal values stay equal, and nobody without the key can guess them.
    Hash,
}

/// A `--redact`: the path, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redact {
    path: Vec<String>,
    action: Redaction,
}

impl std::str::FromStr for Redact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, action) = match text.rsplit_once('=') {
            Some((path, "hash")) => (path, Redaction::Hash),
            Some((path, "drop")) => (path, Redaction::Drop),
            Some((_, other)) => return Err(format!("{other:?} is neither hash nor drop")),
            None => (text, Redaction::Drop),
        };
        Ok(Self { path: parse_path(path)?, action })
    }
}

impl Redact {
    /// Whether it may change the value at a path: it concerns that value, something around it, or a part of it.
    pub fn touches(&self, path: &[String]) -> bool {
        self.path.starts_with(path) || path.starts_with(&self.path)
    }

    /// Whether it needs the key of the hash.
    pub fn is_hash(&self) -> bool {
        self.action == Redaction::Hash
    }
}

/// Paths as a tree; an array on the way stands for all of its elements.
#[derive(Debug, Default)]
struct Tree {
    inner: BTreeMap<String, Tree>,
    action: Option<Redaction>,
}

impl Tree {
    fn add(&mut self, path: &[String], action: Redaction) {
        let mut at = self;
        for segment in path {
            at = at.inner.entry(segment.clone()).or_default();
        }
        at.action = Some(action);
    }
}

/// Why a shape cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// A field that records need would be removed: its path.
    #[error("{0} is part of a document's identity, of its partition key or of the service's own properties")]
    Needed(String),
    /// A field is to be hashed, and there is no key.
    #[error("a hash without a key could be undone by trying all values")]
    NoKey,
}

/// The shape that is applied to every document, its previous image included.
#[derive(Debug)]
pub struct Redactor {
    fields: Option<Tree>,
    redacted: Tree,
    /// The same paths with each name cut at its dots.
    undotted: Tree,
    key: Option<Secret>,
    note: String,
    hashes: bool,
}

impl Redactor {
    /// Makes the shape that the flags describe; `None` when there are none.
    ///
    /// # Errors
    /// When a redaction would hide something that records need, or a hash has no key.
    pub fn new(
        fields: &[Vec<String>],
        redactions: &[Redact],
        paths: &KeyPaths,
        key: Option<Secret>,
    ) -> Result<Option<Self>, ShapeError> {
        if fields.is_empty() && redactions.is_empty() {
            return Ok(None);
        }
        let needed = |path: &[String]| {
            let own = path.first().is_some_and(|name| {
                KEPT.contains(&name.as_str()) || SYSTEM.contains(&name.as_str()) || name == "_change"
            });
            own || paths.segments().iter().any(|key| key.starts_with(path) || path.starts_with(key))
        };
        let (mut redacted, mut undotted) = (Tree::default(), Tree::default());
        for redact in redactions {
            if needed(&redact.path) {
                return Err(ShapeError::Needed(render_path(&redact.path)));
            }
            for path in in_texts(&redact.path) {
                redacted.add(&path, redact.action);
                let parts: Vec<String> = path.iter().flat_map(|name| name.split('.')).map(str::to_owned).collect();
                undotted.add(&parts, redact.action);
            }
        }
        if key.is_none() && redactions.iter().any(Redact::is_hash) {
            return Err(ShapeError::NoKey);
        }
        let tree = (!fields.is_empty()).then(|| {
            let mut tree = Tree::default();
            fields.iter().flat_map(|path| in_texts(path)).for_each(|path| tree.add(&path, Redaction::Drop));
            paths.segments().iter().for_each(|path| tree.add(path, Redaction::Drop));
            KEPT.iter().chain(&SYSTEM).for_each(|name| tree.add(&[(*name).to_owned()], Redaction::Drop));
            tree
        });
        let list = |paths: &mut dyn Iterator<Item = String>| {
            format!("[{}]", paths.map(|path| quote(&path)).collect::<Vec<_>>().join(","))
        };
        let mut note = Vec::new();
        if !fields.is_empty() {
            note.push(format!("\"fields\":{}", list(&mut fields.iter().map(|path| render_path(path)))));
        }
        for (name, action) in [("dropped", Redaction::Drop), ("hashed", Redaction::Hash)] {
            let of_it: Vec<&Redact> = redactions.iter().filter(|redact| redact.action == action).collect();
            if !of_it.is_empty() {
                note.push(format!("\"{name}\":{}", list(&mut of_it.iter().map(|redact| render_path(&redact.path)))));
            }
        }
        let hashes = redactions.iter().any(Redact::is_hash);
        Ok(Some(Self { fields: tree, redacted, undotted, key, note: format!("{{{}}}", note.join(",")), hashes }))
    }

    /// Whether values are hashed: then the output no longer shows how the text was spelled.
    pub fn hashes(&self) -> bool {
        self.hashes
    }

    /// The content of `_change.partial`: which fields were kept, dropped or hashed.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// A feed item with its images shaped.
    ///
    /// # Errors
    /// When it is not the kind of item that was expected.
    pub fn apply(&self, item: &RawValue) -> Result<Box<RawValue>, serde_json::Error> {
        let envelope = RawDocument::parse(item.get())?;
        let is_envelope = envelope.get("id").is_none();
        let text = if is_envelope {
            let members = envelope.members().iter().map(|member| {
                let value = member.value.get();
                let value = match member.name().as_ref() {
                    "current" | "previous" if value.starts_with('{') => self.shaped(value)?,
                    "metadata" => self.metadata(value)?,
                    _ => value.to_owned(),
                };
                Ok(format!("{}:{value}", member.key.get()))
            });
            format!("{{{}}}", members.collect::<Result<Vec<_>, serde_json::Error>>()?.join(","))
        } else {
            self.shaped(item.get())?
        };
        RawValue::from_string(text)
    }

    /// A stored document, shaped.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn shaped(&self, document: &str) -> Result<String, serde_json::Error> {
        let kept = match &self.fields {
            Some(tree) => keep(document, tree)?.unwrap_or_else(|| "{}".to_owned()),
            None => document.to_owned(),
        };
        if self.redacted.inner.is_empty() {
            return Ok(kept);
        }
        // A MongoDB document that is stored as bytes, without members here.
        let parsed = RawDocument::parse(&kept)?;
        if parsed.get(BSON).is_some_and(|bytes| is_closed(&format!("{{\"{BSON}\":{bytes}}}"))) {
            let open = parsed.members().iter().filter(|member| !member.is(BSON));
            let open = open.map(|member| format!("{}:{}", member.key.get(), member.value.get()));
            return self.redact(&format!("{{{}}}", open.collect::<Vec<_>>().join(",")), &self.redacted);
        }
        self.redact(&kept, &self.redacted)
    }

    fn redact(&self, text: &str, tree: &Tree) -> Result<String, serde_json::Error> {
        if tree.inner.is_empty() {
            return Ok(text.to_owned());
        }
        match text.as_bytes().first() {
            Some(b'[') => {
                // A number may index an array, as in the other paths that people write.
                let counted = tree.inner.iter().filter_map(|(name, inner)| Some((pointer::index(name)?, inner)));
                let counted: BTreeMap<usize, &Tree> = counted.collect();
                let mut parts = Vec::new();
                for (place, element) in elements(text)?.into_iter().enumerate() {
                    if is_closed(element.get()) {
                        continue;
                    }
                    parts.push(match counted.get(&place).map(|inner| (inner, inner.action)) {
                        Some((_, Some(Redaction::Drop))) => continue,
                        Some((_, Some(Redaction::Hash))) => self.hash(element.get()),
                        Some((inner, None)) => self.redact(&self.redact(element.get(), tree)?, inner)?,
                        None => self.redact(element.get(), tree)?,
                    });
                }
                Ok(format!("[{}]", parts.join(",")))
            }
            Some(b'{') => {
                let document = RawDocument::parse(text)?;
                let mut members = Vec::with_capacity(document.members().len());
                for member in document.members() {
                    let value = member.value.get();
                    let inner = tree.inner.get(member.name().as_ref());
                    let value = match inner.map(|inner| (inner, inner.action)) {
                        None => value.to_owned(),
                        Some((_, Some(Redaction::Drop))) => continue,
                        Some((_, Some(Redaction::Hash))) => self.hash(value),
                        // No part of it can be left out.
                        Some((_, None)) if is_closed(value) => continue,
                        Some((inner, None)) => self.redact(value, inner)?,
                    };
                    members.push(format!("{}:{value}", member.key.get()));
                }
                Ok(format!("{{{}}}", members.join(",")))
            }
            _ => Ok(text.to_owned()),
        }
    }

    /// HMAC-SHA256 of the value's JSON text, truncated to half: enough to tell values apart.
    fn hash(&self, value: &str) -> String {
        let key = self.key.as_ref().map_or(&[][..], |key| key.expose().as_bytes());
        // HMAC accepts a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return "null".to_owned() };
        mac.update(value.as_bytes());
        format!("\"hmac:{}\"", hex(&mac.finalize().into_bytes()[..16]))
    }
}

/// The part of a value that lies on these paths; `None` when nothing does.
fn keep(text: &str, tree: &Tree) -> Result<Option<String>, serde_json::Error> {
    if tree.action.is_some() {
        return Ok(Some(text.to_owned()));
    }
    match text.as_bytes().first() {
        Some(b'[') => {
            let mut kept = Vec::new();
            for element in elements(text)? {
                kept.extend(keep(element.get(), tree)?);
            }
            Ok(Some(format!("[{}]", kept.join(","))))
        }
        Some(b'{') => {
            let document = RawDocument::parse(text)?;
            let mut members = Vec::new();
            for member in document.members() {
                if let Some(inner) = tree.inner.get(member.name().as_ref())
                    && let Some(value) = keep(member.value.get(), inner)?
                {
                    members.push(format!("{}:{value}", member.key.get()));
                }
            }
            Ok(Some(format!("{{{}}}", members.join(","))))
        }
        _ => Ok(None),
    }
}

fn elements(text: &str) -> Result<Vec<&RawValue>, serde_json::Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"current":{"id":"x","pk":"p","n":1.50,"ssn":"123","people":[{"name":"a","ssn":"1"},{"ssn":2}],"a":{"b":1,"c":2},"_etag":"\"2\"","_ts":2},"previous":{"id":"x","pk":"p","ssn":"123","_etag":"\"1\""},"metadata":{"operationType":"replace"}}"#;

    fn shape(fields: &[&str], redactions: &[&str]) -> Result<Option<Redactor>, ShapeError> {
        let fields: Vec<_> = fields.iter().map(|path| parse_path(path).unwrap()).collect();
        let redactions: Vec<Redact> = redactions.iter().map(|text| text.parse().unwrap()).collect();
        Redactor::new(&fields, &redactions, &KeyPaths::parse(&["/pk"]).unwrap(), Some(Secret::new("key")))
    }

    fn shaped(fields: &[&str], redactions: &[&str]) -> String {
        let item: &RawValue = serde_json::from_str(ITEM).unwrap();
        shape(fields, redactions).unwrap().unwrap().apply(item).unwrap().get().to_owned()
    }

    #[test]
    fn fields_keep_what_they_name_and_what_a_record_needs() {
        assert_eq!(
            shaped(&["/n", "/a/b", "/people/name"], &[]),
            r#"{"current":{"id":"x","pk":"p","n":1.50,"people":[{"name":"a"},{}],"a":{"b":1},"_etag":"\"2\"","_ts":2},"previous":{"id":"x","pk":"p","_etag":"\"1\""},"metadata":{"operationType":"replace"}}"#
        );
    }

    #[test]
    fn what_is_redacted_is_in_neither_image_nor_in_any_element() {
        let dropped = shaped(&[], &["/ssn", "/people/ssn=drop", "/a/b"]);
        assert!(
            !dropped.contains("123") && !dropped.contains("ssn") && dropped.contains(r#""a":{"c":2}"#),
            "{dropped}"
        );
        let hashed = shaped(&[], &["/ssn=hash", "/people/ssn=hash"]);
        let first = hashed.split("\"ssn\":").nth(1).unwrap().split([',', '}']).next().unwrap();
        assert!(first.starts_with("\"hmac:") && first.len() == 39, "{first}");
        assert_eq!(hashed.matches(first).count(), 2, "equal values stay equal: {hashed}");
        assert!(!hashed.contains("123"));
    }

    #[test]
    fn a_number_redacts_the_element_that_it_counts() {
        let redacted = |path: &str| {
            let shape = shape(&[], &[path]).unwrap().unwrap();
            shape.shaped(r#"{"tags":["secret","b"],"people":[{"ssn":1,"n":2},{"ssn":3}],"o":{"0":"x"}}"#).unwrap()
        };
        assert!(redacted("/tags/0").starts_with(r#"{"tags":["b"],"#));
        let hashed = redacted("/tags/0=hash");
        assert!(hashed.starts_with(r#"{"tags":["hmac:"#) && !hashed.contains("secret"), "{hashed}");
        assert!(redacted("/people/1/ssn").contains(r#""people":[{"ssn":1,"n":2},{}]"#));
        assert!(redacted("/o/0").ends_with(r#""o":{}}"#));
    }

    #[test]
    fn what_cannot_be_looked_into_is_left_out_as_a_whole() {
        let bytes = r#"{"$bson":{"type":"03","base64":"c2VjcmV0"}}"#;
        let code = r#"{"$code":"f","$scope":{"ssn":"secret"}}"#;
        let shape = shape(&[], &["/a/ssn", "/b/ssn=hash"]).unwrap().unwrap();
        for closed in [bytes, code] {
            let text = format!(r#"{{"id":"x","a":{closed},"b":[{closed},{{"ssn":1,"n":2}}],"c":{closed}}}"#);
            let shaped = shape.shaped(&text).unwrap();
            assert!(shaped.starts_with(r#"{"id":"x","b":[{"ssn":"hmac:"#), "{shaped}");
            assert!(shaped.ends_with(&format!(r#","n":2}}],"c":{closed}}}"#)), "{shaped}");
        }
        // A whole MongoDB document as bytes, and one value that is not a document.
        let whole = r#"{"id":"x","_id":"x","$bson":{"type":"03","base64":"c2VjcmV0"}}"#;
        assert_eq!(shape.shaped(whole).unwrap(), r#"{"id":"x","_id":"x"}"#);
        let number = r#"{"id":"x","a":{"$bson":{"type":"01","base64":"AAAAAAAA8P8="}}}"#;
        assert_eq!(shape.shaped(number).unwrap(), number);
    }

    #[test]
    fn what_a_record_cannot_be_without_is_refused() {
        for path in ["/id", "/pk", "/pk/x", "/_etag", "/_ts=hash", "/ttl"] {
            assert!(matches!(shape(&[], &[path]), Err(ShapeError::Needed(_))), "{path}");
        }
        let without_key = Redactor::new(&[], &["/a=hash".parse().unwrap()], &KeyPaths::parse(&["/pk"]).unwrap(), None);
        assert_eq!(without_key.unwrap_err(), ShapeError::NoKey);
        assert!("/a=encrypt".parse::<Redact>().unwrap_err().contains("neither hash nor drop"));
        assert!(shape(&[], &[]).unwrap().is_none());
    }

    #[test]
    fn the_note_names_every_path() {
        let shape = shape(&["/a"], &["/b", "/c=hash", "/d/e"]).unwrap().unwrap();
        assert_eq!(shape.note(), r#"{"fields":["/a"],"dropped":["/b","/d/e"],"hashed":["/c"]}"#);
    }
}

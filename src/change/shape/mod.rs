//! Decides what of a document is passed on: only some fields, without others, or with values hashed. The text of what
//! stays is untouched.

mod cut;
mod left_out;
mod told;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use self::left_out::LeftOut;
use self::{
    cut::{Part, Tree},
    left_out::NamedPaths,
};
use super::{
    extended::in_texts,
    key::{KeyPaths, parse_path, render_path},
    raw::RawDocument,
    record::SYSTEM,
};
use crate::secret::Secret;

/// Members that a feed or the record needs, whatever fields are asked for.
const KEPT: [&str; 3] = ["id", "ttl", "_lsn"];

/// What the metadata of a shaped item call the content of `_change.partial`, when it is not the one of all documents.
pub(super) const PARTIAL: &str = "partial";
/// The same of the version before.
pub(super) const PARTIAL_BEFORE: &str = "previousPartial";

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
    names: NamedPaths,
    note: String,
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
        let of = |action: Redaction| {
            redactions.iter().filter(move |redact| redact.action == action).map(|redact| render_path(&redact.path))
        };
        let fields = fields.iter().map(|path| render_path(path)).collect::<Vec<_>>();
        let names = NamedPaths {
            fields: (!fields.is_empty()).then_some(fields),
            dropped: of(Redaction::Drop).collect(),
            hashed: of(Redaction::Hash).collect(),
        };
        Ok(Some(Self { fields: tree, redacted, undotted, key, note: names.note(), names }))
    }

    /// Whether values are hashed: then the output no longer shows how the text was spelled.
    pub fn hashes(&self) -> bool {
        !self.names.hashed.is_empty()
    }

    /// The content of `_change.partial`: which fields were kept, dropped or hashed. Of some documents more is left out;
    /// see [`Self::shaped_with_note`].
    pub fn note(&self) -> &str {
        &self.note
    }

    /// A feed item with its images shaped. Its metadata say what was left out of an image beyond what the note names.
    ///
    /// # Errors
    /// When it is not the kind of item that was expected.
    pub fn apply(&self, item: &RawValue) -> Result<Box<RawValue>, serde_json::Error> {
        let given = RawDocument::parse(item.get())?;
        if given.get("id").is_some() {
            let Part { text, note } = self.part(item.get())?;
            let Some(note) = note else { return RawValue::from_string(text) };
            // The other format of a latest-version item, which has metadata.
            let lsn = given.get("_lsn").map_or_else(String::new, |lsn| format!("\"lsn\":{lsn},"));
            return RawValue::from_string(format!("{{\"current\":{text},\"metadata\":{{{lsn}\"{PARTIAL}\":{note}}}}}"));
        }
        let (mut members, mut notes, mut metadata) = (Vec::new(), Vec::new(), None);
        for member in given.members() {
            let (name, value) = (member.name(), member.value.get());
            let value = match name.as_ref() {
                "current" | "previous" if value.starts_with('{') => {
                    let Part { text, note } = self.part(value)?;
                    let told = if name == "current" { PARTIAL } else { PARTIAL_BEFORE };
                    notes.extend(note.map(|note| format!("\"{told}\":{note}")));
                    text
                }
                "metadata" => {
                    metadata = Some(self.metadata(value)?);
                    continue;
                }
                _ => value.to_owned(),
            };
            members.push(format!("{}:{value}", member.key.get()));
        }
        // What comes later counts: members that say the same are not from here.
        let metadata = match metadata {
            Some(text) if !notes.is_empty() && text.starts_with('{') => {
                let told = RawDocument::parse(&text)?;
                let own = told.members().iter().map(|member| format!("{}:{}", member.key.get(), member.value.get()));
                Some(format!("{{{}}}", own.chain(notes).collect::<Vec<_>>().join(",")))
            }
            None if !notes.is_empty() => Some(format!("{{{}}}", notes.join(","))),
            other => other,
        };
        members.extend(metadata.map(|text| format!("\"metadata\":{text}")));
        RawValue::from_string(format!("{{{}}}", members.join(",")))
    }

    /// A stored document, shaped.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn shaped(&self, document: &str) -> Result<String, serde_json::Error> {
        Ok(self.part(document)?.text)
    }

    /// The same, and what its record is to say of it.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn shaped_with_note(&self, document: &str) -> Result<(String, Cow<'_, str>), serde_json::Error> {
        let Part { text, note } = self.part(document)?;
        Ok((text, note.map_or(Cow::Borrowed(&self.note), Cow::Owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::TextOrigin;

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
    fn the_note_says_what_else_was_left_out() {
        let bytes = r#"{"$bson":{"type":"03","base64":"c2VjcmV0"}}"#;
        let noted = |fields: &[&str], redactions: &[&str], text: &str| {
            let shape = shape(fields, redactions).unwrap().unwrap();
            let (text, note) = shape.shaped_with_note(text).unwrap();
            (text, note.into_owned())
        };
        let whole = r#"{"id":"x","_id":"x","$bson":{"type":"03","base64":"c2VjcmV0"}}"#;
        for (fields, redactions, text, part, note) in [
            (&[][..], &["/ssn"][..], whole, r#"{"id":"x","_id":"x"}"#, r#"{"fields":["/_id"],"dropped":["/ssn"]}"#),
            (&["/n"], &[], whole, r#"{"id":"x"}"#, r#"{"fields":[]}"#),
            (&["/$bson"], &[], whole, r#"{"id":"x"}"#, r#"{"fields":[]}"#),
            (
                &["/a/b"],
                &[],
                &format!(r#"{{"id":"x","a":{bytes}}}"#),
                r#"{"id":"x"}"#,
                r#"{"fields":["/a/b"],"dropped":["/a"]}"#,
            ),
            (&["/a/b"], &[], r#"{"id":"x","a":{"$numberInt":"5"}}"#, r#"{"id":"x"}"#, r#"{"fields":["/a/b"]}"#),
            (
                &[],
                &["/a/b/c=hash"],
                &format!(r#"{{"id":"x","a":[{{"b":[1,{bytes}]}},{{"b":{bytes},"n":1}}]}}"#),
                r#"{"id":"x","a":[{"b":[1]},{"n":1}]}"#,
                r#"{"dropped":["/a/b"],"hashed":["/a/b/c"]}"#,
            ),
            (&[], &["/a/b"], r#"{"id":"x","a":{"b":1}}"#, r#"{"id":"x","a":{}}"#, r#"{"dropped":["/a/b"]}"#),
        ] {
            assert_eq!(noted(fields, redactions, text), (part.to_owned(), note.to_owned()), "{text}");
        }
    }

    #[test]
    fn an_item_says_it_of_each_of_its_images() {
        let bytes = r#"{"$bson":{"type":"03","base64":"c2VjcmV0"}}"#;
        let shape = shape(&[], &["/a/b"]).unwrap().unwrap();
        let notes = |item: &str| {
            let item: &RawValue = serde_json::from_str(item).unwrap();
            let shaped = shape.apply(item).unwrap();
            let mut changes = Vec::new();
            crate::change::decode::decode(&shaped, &mut changes).unwrap();
            changes.iter().map(|c| (c.text_origin, c.lsn, c.partial.map(str::to_owned))).collect::<Vec<_>>()
        };
        let note = Some(r#"{"dropped":["/a/b","/a"]}"#.to_owned());
        let (feed, stored) = (TextOrigin::Feed, TextOrigin::Stored);
        let system = r#""_etag":"\"1\"","_ts":1,"_lsn":7"#;
        assert_eq!(notes(&format!(r#"{{"id":"x","a":{bytes},{system}}}"#)), [(feed, Some(7), note.clone())]);
        assert_eq!(notes(&format!(r#"{{"id":"x","a":{{"b":2}},{system}}}"#)), [(feed, Some(7), None)]);
        for metadata in ["", r#","metadata":{"lsn":9,"operationType":"replace"}"#] {
            let item = format!(
                r#"{{"current":{{"id":"x",{system}}},"previous":{{"id":"x","a":{bytes},{system}}}{metadata}}}"#
            );
            let notes = notes(&item);
            assert_eq!((notes.len(), &notes[0].2, &notes[1].2), (2, &note, &None), "{notes:?}");
            assert_eq!(notes[1].0, stored);
        }
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

//! A document of MongoDB as JSON text, from which its bytes come back exactly. Everything else in this program works on
//! such texts.
//!
//! The text begins with `id`, under which the document is known, and has the document's own members in their order,
//! with values in canonical Extended JSON. Names that mean something to this program get a `~` in front. What Extended
//! JSON cannot give back is written as `{"$bson":{"type":"03","base64":"..."}}`: the element's bytes.

mod decimal;
mod elements;
mod examples;
mod id;
mod read;
mod tests;
mod wrapped;
mod write;

use sha2::{Digest as _, Sha256};

/// Deeper than MongoDB nests documents, and shallow enough for any stack.
const MOST_LEVELS: usize = 200;

/// Bytes that are not a document, or a document without an `_id`, which MongoDB does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are not a MongoDB document: {0}")]
pub struct NotADocument(&'static str);

/// A text that cannot be turned into a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", if place.is_empty() { "the document" } else { place })]
pub struct NoBson {
    /// Where, as a JSON pointer into the text; empty for the document itself.
    pub place: String,
    /// The problem, without the value.
    pub problem: String,
}

/// Appends a document's text. After an error nothing is appended.
///
/// # Errors
/// When the bytes are not a document, or the document has no `_id`.
pub fn push_text(out: &mut String, bson: &[u8]) -> Result<(), NotADocument> {
    write::document(out, bson)
}

/// A document's text.
///
/// # Errors
/// As [`push_text`].
pub fn text_of(bson: &[u8]) -> Result<String, NotADocument> {
    // Canonical Extended JSON is about twice as long as the bytes.
    let mut out = String::with_capacity(bson.len() * 2 + 64);
    push_text(&mut out, bson)?;
    Ok(out)
}

/// The bytes of the document that a text stands for: exactly those that the text was made from. The text may have been
/// edited since: plain numbers get a type by their size, and members that the service adds are left out.
///
/// # Errors
/// With the place, when a value is malformed, or when `id` does not belong to `_id`.
pub fn bytes_of(text: &str) -> Result<Vec<u8>, NoBson> {
    read::document(text)
}

/// The text that identifies a document by its `_id`. Values that are the same `_id` to MongoDB, such as 5 and 5.0, have
/// the same text.
pub fn id_text(id: bson::raw::RawBsonRef<'_>) -> String {
    let mut document = bson::RawDocumentBuf::new();
    document.append(bson::raw::cstr!(""), id);
    let element = elements::Elements::of(document.as_bytes()).and_then(|mut elements| elements.next()?.ok());
    element.map_or_else(String::new, |element| id::text_of(element.kind, element.value))
}

/// Appends the text that identifies a document, or whatever has its `_id`; false when there is no `_id`.
pub fn push_id(out: &mut String, bson: &[u8]) -> bool {
    let id = elements::id_of(bson);
    if let Some(id) = &id {
        id::push_text(out, id.kind, id.value);
    }
    id.is_some()
}

/// Whether two documents have the same `_id`, byte for byte.
pub fn is_same_id(one: &[u8], other: &[u8]) -> bool {
    let id = |bson| elements::id_of(bson).map(|id| (id.kind, id.value));
    id(one) == id(other)
}

/// A value that MongoDB takes for the `_id` that a text identifies.
///
/// # Errors
/// When the text is an object or a quoted string, and neither is well-formed.
pub fn id_value(text: &str) -> Result<bson::Bson, NoBson> {
    let (kind, value) = id::value_of(text)?;
    if !elements::is_shallow(kind, &value, MOST_LEVELS) {
        return Err(NoBson::at("", "is nested too deeply"));
    }
    let element = alone(kind, &value)?;
    let first = element.iter().next().and_then(Result::ok);
    first.and_then(|(_, id)| bson::Bson::try_from(id).ok()).ok_or_else(no_value)
}

/// The text under which the document is known that another spelling means: `5` for `5.0`, small letters for the digits of
/// an ObjectId.
///
/// # Errors
/// As [`id_value`].
pub fn known_as(text: &str) -> Result<String, NoBson> {
    id::value_of(text).map(|(kind, value)| id::text_of(kind, &value))
}

/// The BSON value of a member's text, as the only element of a document, without a name.
///
/// # Errors
/// With the place, when the value is malformed.
pub fn value_of(text: &str) -> Result<bson::RawDocumentBuf, NoBson> {
    let (kind, value) = read::value(text)?;
    alone(kind, &value)
}

fn alone(kind: u8, value: &[u8]) -> Result<bson::RawDocumentBuf, NoBson> {
    bson::RawDocumentBuf::from_bytes(elements::alone(kind, value)).map_err(|_| no_value())
}

fn no_value() -> NoBson {
    NoBson::at("", "is not a value of MongoDB")
}

/// A fingerprint that stands for a document's bytes as an etag does: the first 32 hex digits of their SHA-256, in
/// double quotes.
pub fn fingerprint(bson: &[u8]) -> String {
    let mut text = String::with_capacity(34);
    push_fingerprint(&mut text, bson);
    text
}

/// Appends a [`fingerprint`].
pub fn push_fingerprint(out: &mut String, bson: &[u8]) {
    let sum = Sha256::digest(bson);
    out.push('"');
    elements::push_hex(out, sum.get(..16).unwrap_or_default());
    out.push('"');
}

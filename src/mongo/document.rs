//! Converts documents on their way into a collection and out of it: their ids, texts and bytes.

use bson::{Bson, Document, RawBson, RawDocument, RawDocumentBuf, doc, raw::cstr};

use crate::{
    bson_text::{bytes_of, fingerprint, id_text, id_value, text_of},
    change::{
        edit::quote,
        key::{KeyValue, PartitionKey},
    },
    cosmos::{Failure, Status},
};

/// The key of the document with this id.
pub(super) fn key_of(id: &str) -> PartitionKey {
    PartitionKey(vec![KeyValue::String(id.to_owned())])
}

/// The `_id` that this text and key identify. Other spellings, such as 5.0 for 5, and other keys are refused: the
/// history has nothing under them.
pub(super) fn id_of(key: &PartitionKey, id: &str) -> Option<Bson> {
    let value = id_value(id).ok()?;
    let raw = RawBson::try_from(value.clone()).ok()?;
    (*key == key_of(id) && id_text(raw.as_raw_bson_ref()) == id).then_some(value)
}

/// Whether the `_id`s of two documents have the same bytes. A replacement keeps the existing one: 5 in place of 5.0.
pub(super) fn has_same_id(one: &RawDocument, other: &RawDocument) -> bool {
    let bytes = |document: &RawDocument| {
        let mut alone = RawDocumentBuf::new();
        alone.append(cstr!("_id"), document.get("_id").ok().flatten()?);
        Some(alone.into_bytes())
    };
    bytes(one) == bytes(other)
}

/// A server accepts a document with members named `$...` when it is inserted, but not as a replacement; as the result
/// of a pipeline it accepts it. `None` for every other document, and for those that a pipeline could not reproduce.
pub(super) fn as_pipeline(document: &RawDocumentBuf) -> Option<Vec<Document>> {
    document.iter().flatten().any(|(name, _)| name.as_str().starts_with('$')).then_some(())?;
    let whole = Document::try_from(&**document).ok()?;
    // Of two members with the same name it keeps only one.
    RawDocumentBuf::try_from(&whole).is_ok_and(|again| again == *document).then_some(())?;
    Some(vec![doc! { "$replaceWith": { "$literal": whole } }])
}

/// A document's text, with its fingerprint as the etag.
pub(super) fn live_text(document: &RawDocument) -> Result<String, Failure> {
    let mut text = text_of(document.as_bytes()).map_err(|e| Failure::invalid("read document".into(), e.to_string()))?;
    text.pop();
    text.push_str(",\"_etag\":");
    text.push_str(&quote(&fingerprint(document.as_bytes())));
    text.push('}');
    Ok(text)
}

/// The bytes of a document to write, from its text.
pub(super) fn document_of(context: &str, body: &[u8]) -> Result<RawDocumentBuf, Failure> {
    let wrong = |e: String| Failure::from_status(context.into(), Status::new(400, 0), &e, None);
    let text = std::str::from_utf8(body).map_err(|e| wrong(e.to_string()))?;
    let bytes = bytes_of(text).map_err(|e| wrong(e.to_string()))?;
    RawDocumentBuf::from_bytes(bytes).map_err(|e| wrong(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_one_id_are_told_apart_by_their_bytes() {
        let ids: [Bson; 4] = [0.into(), 0_i64.into(), 0.0.into(), (-0.0).into()];
        let document = |id: &Bson, n: i32| RawDocumentBuf::try_from(&doc! { "n": n, "_id": id.clone() }).unwrap();
        for (place, id) in ids.iter().enumerate() {
            assert!(has_same_id(&document(id, 1), &document(id, 2)));
            for other in &ids[place + 1..] {
                assert!(!has_same_id(&document(id, 1), &document(other, 1)), "{id} {other}");
            }
        }
    }

    #[test]
    fn a_document_has_one_name() {
        for id in ["a", "5", "0.5", "\"5\"", "6b0c71faebcd376c4a28529d", r#"{"a":1}"#] {
            assert!(id_of(&key_of(id), id).is_some(), "{id}");
            assert_eq!(id_of(&key_of("b"), id), None, "{id}");
        }
        for id in ["5.0", "5e0", "\"a\"", "6B0C71FAEBCD376C4A28529D", r#"{"a": 1}"#, r#"{"a":{"$numberInt":"1"}}"#] {
            assert_eq!(id_of(&key_of(id), id), None, "{id}");
        }
    }
}

//! The body of an invocation: from the host's three layers of JSON to the text of the items.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{incoming::Incoming, text::BufferPool};

/// A body that cannot be parsed. Nothing of it was stored; the host delivers it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadInvocation {
    /// The bytes are not UTF-8.
    #[error("the body is not UTF-8 (first wrong byte at {0})")]
    NotUtf8(usize),
    /// The body is not the host's JSON.
    #[error("the body is not the host's JSON: {0}")]
    NotJson(String),
    /// There is no `Data`.
    #[error("the body has no Data object; the host sends {{\"Data\":{{\"{0}\":...}},\"Metadata\":...}}")]
    NoData(String),
    /// `Data` has other members than the function's binding.
    #[error("Data has no binding {expected:?} (found: {found}); function.json and the app's settings disagree")]
    UnknownBinding {
        /// The binding name of function.json.
        expected: String,
        /// The members that it has.
        found: String,
    },
    /// The payload is not an array, however often it is decoded.
    #[error("Data.{0} is not a list of documents: {1}")]
    NotAList(String, String),
}

/// The payload's text: a JSON array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload(pub(super) String);

impl Payload {
    /// Extracts the payload of `binding` from a body. The host sends the array as a string inside a string (three
    /// levels of parsing); a string that holds the array, and the plain array, are accepted, too.
    ///
    /// # Errors
    /// When the body is not what a host sends.
    pub fn from_body(body: &[u8], binding: &str) -> Result<Self, BadInvocation> {
        Self::from_pieces([body], binding)
    }

    /// The same for a body that arrives in pieces.
    ///
    /// # Errors
    /// When the body is not what a host sends.
    pub fn from_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, binding: &str) -> Result<Self, BadInvocation> {
        let spare = BufferPool::default();
        let mut incoming = Incoming::new(binding, 0, &spare);
        pieces.into_iter().for_each(|piece| incoming.push(piece));
        incoming.finish()
    }

    /// The same for a body in any format, parsing each layer separately.
    pub(super) fn of_any_form(body: &[u8], binding: &str) -> Result<Self, BadInvocation> {
        #[derive(Deserialize)]
        struct Body<'a> {
            #[serde(borrow, rename = "Data", alias = "data")]
            data: Option<&'a RawValue>,
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            Err(e) => return Err(BadInvocation::NotUtf8(e.valid_up_to())),
        };
        let parsed: Body<'_> = serde_json::from_str(text).map_err(|e| BadInvocation::NotJson(e.to_string()))?;
        let data = parsed
            .data
            .filter(|d| d.get().starts_with('{'))
            .ok_or_else(|| BadInvocation::NoData(binding.to_owned()))?;
        let data: BTreeMap<Cow<'_, str>, &RawValue> =
            serde_json::from_str(data.get()).map_err(|e| BadInvocation::NotJson(e.to_string()))?;
        let raw = data.get(binding).ok_or_else(|| BadInvocation::UnknownBinding {
            expected: binding.to_owned(),
            found: if data.is_empty() {
                "nothing".into()
            } else {
                data.keys().map(|k| k.chars().take(64).collect::<String>()).collect::<Vec<_>>().join(", ")
            },
        })?;
        let not_a_list = |what: &str| BadInvocation::NotAList(binding.to_owned(), what.to_owned());
        let mut payload = Cow::Borrowed(raw.get());
        // At most the host's two layers; each layer's text replaces the one before, so memory stays bounded.
        for _ in 0..2 {
            if !payload.starts_with('"') {
                break;
            }
            let inner: String = serde_json::from_str(&payload)
                .map_err(|e| not_a_list(&format!("a string that is not valid JSON: {e}")))?;
            payload = Cow::Owned(inner.trim().to_owned());
        }
        match payload.as_bytes().first() {
            Some(b'[') => Ok(Self(payload.into_owned())),
            // A null input: the feed had nothing, which the host writes as the string "null".
            Some(b'n') if payload.as_ref() == "null" => Ok(Self("[]".into())),
            Some(b'"') => Err(not_a_list("it is encoded more than twice")),
            Some(b'{') => Err(not_a_list("it is an object")),
            None => Err(not_a_list("it is empty")),
            Some(_) => Err(not_a_list("it is a single value")),
        }
    }

    /// Its memory, to be reused.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }

    /// The items' text.
    ///
    /// # Errors
    /// When the array itself is broken.
    pub fn items(&self, binding: &str) -> Result<Vec<&RawValue>, BadInvocation> {
        crate::change::decode::items(&self.0).map_err(|e| BadInvocation::NotAList(binding.to_owned(), e.to_string()))
    }
}

/// A body as the host writes it, for tests and for the local host: the array doubly encoded.
pub fn encode(binding: &str, array: &str, metadata: &serde_json::Value) -> String {
    let once = serde_json::Value::from(array).to_string();
    let twice = serde_json::Value::from(once).to_string();
    format!("{{\"Data\":{{{}:{twice}}},\"Metadata\":{metadata}}}", serde_json::Value::from(binding))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(body: &str) -> Result<Vec<String>, BadInvocation> {
        let payload = Payload::from_body(body.as_bytes(), "documents")?;
        Ok(payload.items("documents")?.iter().map(|i| i.get().to_owned()).collect())
    }

    #[test]
    fn the_hosts_own_body_and_both_simpler_shapes_are_read() {
        let recorded = r#"{"Data":{"documents":"\"[{\\\"id\\\":\\\"dfa2\\\",\\\"n\\\":1.10,\\\"_ts\\\":1744173970,\\\"_lsn\\\":160}]\""},"Metadata":{"sys":{"MethodName":"cosmosdbprocessor","UtcNow":"2025-04-09T04:46:10.723203Z","RandGuid":"0d00"}}}"#;
        let expected = [r#"{"id":"dfa2","n":1.10,"_ts":1744173970,"_lsn":160}"#];
        assert_eq!(items(recorded).unwrap(), expected);
        assert_eq!(
            items(r#"{"Data":{"documents":"[{\"id\":\"dfa2\",\"n\":1.10,\"_ts\":1744173970,\"_lsn\":160}]"}}"#)
                .unwrap(),
            expected
        );
        assert_eq!(
            items(r#"{"Data":{"documents":[{"id":"dfa2","n":1.10,"_ts":1744173970,"_lsn":160}]}}"#).unwrap(),
            expected
        );
        assert_eq!(items(r#"{"Data":{"documents":"null"}}"#).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_no_host_sends_is_refused_with_the_reason() {
        for (body, reason) in [
            ("", "not the host's JSON"),
            ("nonsense", "not the host's JSON"),
            ("[]", "not the host's JSON"),
            ("{}", "no Data"),
            (r#"{"Data":null}"#, "no Data"),
            (r#"{"Data":7}"#, "no Data"),
            (r#"{"Data":{}}"#, "found: nothing"),
            (r#"{"Data":{"items":[]}}"#, "found: items"),
            (r#"{"Data":{"documents":{}}}"#, "an object"),
            (r#"{"Data":{"documents":7}}"#, "a single value"),
            (r#"{"Data":{"documents":""}}"#, "empty"),
            (r#"{"Data":{"documents":"\"\\\"[]\\\"\""}}"#, "more than twice"),
            (r#"{"Data":{"documents":"[{]"}}"#, "not a list"),
            (r#"{"Data":{"documents":"\"[{\""}}"#, "not a list"),
        ] {
            let error = items(body).unwrap_err();
            assert!(error.to_string().contains(reason), "{body}: {error}");
        }
        assert_eq!(Payload::from_body(b"{\"Data\":\xff", "d").unwrap_err(), BadInvocation::NotUtf8(8));
    }

    #[test]
    fn a_document_a_thousand_levels_deep_is_only_text() {
        let deep = format!("[{{\"id\":\"x\",\"d\":{}1{}}}]", "[".repeat(1000), "]".repeat(1000));
        assert_eq!(items(&encode("documents", &deep, &serde_json::json!({}))).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn decoding_undoes_the_hosts_encoding(texts in proptest::collection::vec(any::<String>(), 0..5)) {
            let array = serde_json::Value::from(texts.clone()).to_string();
            let read = items(&encode("documents", &array, &serde_json::json!({}))).unwrap();
            let expected: Vec<String> = texts.into_iter().map(|t| serde_json::Value::from(t).to_string()).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_body_whatever_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Payload::from_body(&bytes, "documents");
        }
    }
}

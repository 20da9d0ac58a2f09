//! A request and its response, independent of the HTTP library.
//!
//! The listener builds them from the wire and the trigger builds them in process; both are handled alike.

use axum::http::Method;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize as _, de::Error as _};
use serde_json::{Value, json};

use crate::change::raw::depth;

/// Header names used in more than one file.
pub(super) mod header {
    pub const PARTITION_KEY: &str = "x-ms-documentdb-partitionkey";
    pub const RANGE_ID: &str = "x-ms-documentdb-partitionkeyrangeid";
    pub const START_EPK: &str = "x-ms-start-epk";
    pub const END_EPK: &str = "x-ms-end-epk";
    pub const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
    pub const CONTINUATION: &str = "x-ms-continuation";
    pub const IS_UPSERT: &str = "x-ms-documentdb-is-upsert";
    pub const IS_BATCH: &str = "x-ms-cosmos-is-batch-request";
    pub const BATCH_ATOMIC: &str = "x-ms-cosmos-batch-atomic";
    pub const BATCH_CONTINUE: &str = "x-ms-cosmos-batch-continue-on-error";
    pub const IS_QUERY_PLAN: &str = "x-ms-cosmos-is-query-plan-request";
    pub const CONTENT_ON_WRITE: &str = "x-ms-cosmos-populate-content-response-on-write";
    pub const FORMATS: &str = "x-ms-cosmos-supported-serialization-formats";
    pub const CHARGE: &str = "x-ms-request-charge";
    pub const ITEM_COUNT: &str = "x-ms-item-count";
    pub const SUBSTATUS: &str = "x-ms-substatus";
    pub const RETRY_AFTER: &str = "x-ms-retry-after-ms";
    pub const SESSION: &str = "x-ms-session-token";
}

/// Header values in the order of arrival; names are lower case.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers(Vec<(String, String)>);

impl Headers {
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the header is set to true, in any letter case (the SDKs differ).
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether these are the headers of a bulk request: a batch of independent operations.
    pub fn is_bulk(&self) -> bool {
        self.get(header::BATCH_ATOMIC).is_some_and(|value| value.eq_ignore_ascii_case("false"))
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), value.into()));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(known, _)| known != name);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Headers {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }
}

/// A request to the local account.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub method: Method,
    /// Percent-encoded, with a leading slash and (after normalisation) without a trailing one.
    pub path: String,
    pub headers: Headers,
    pub body: Bytes,
}

impl Ask {
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: Headers::default(), body: Bytes::new() }
    }

    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.set(name, value);
        self
    }

    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Whether it is a query.
    pub fn is_query(&self) -> bool {
        self.headers.is_true("x-ms-documentdb-isquery") || self.headers.is_true("x-ms-documentdb-query")
    }

    /// Whether it may change data.
    pub fn is_write(&self) -> bool {
        match self.method {
            Method::GET | Method::HEAD => false,
            Method::POST => !self.is_query() && !self.headers.is_true(header::IS_QUERY_PLAN),
            _ => true,
        }
    }

    /// Whether the response to a write should contain the document. The service's default is yes.
    pub fn wants_content(&self) -> bool {
        match (self.headers.get(header::CONTENT_ON_WRITE), self.headers.get("prefer")) {
            (Some(value), _) => value.eq_ignore_ascii_case("true"),
            (None, Some(prefer)) => !prefer.contains("return=minimal"),
            (None, None) => true,
        }
    }

    /// Returns `x-ms-max-item-count` if it limits anything (-1 means "as many as fit").
    pub fn max_items(&self) -> Option<usize> {
        let asked = self.headers.get(header::MAX_ITEM_COUNT)?.trim().parse::<i64>().ok()?;
        usize::try_from(asked).ok().filter(|count| *count > 0)
    }
}

/// A response.
#[derive(Clone, Debug)]
pub(super) struct GatewayAnswer {
    pub status: u16,
    pub headers: Headers,
    pub body: Bytes,
}

impl GatewayAnswer {
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        headers.set(header::CHARGE, "1.00");
        Self { status, headers, body: body.into() }
    }

    /// Builds an error in the format that every Cosmos SDK reads: `{"code","message"}`.
    pub fn error(status: u16, substatus: Option<u32>, code: &str, message: impl AsRef<str>) -> Self {
        let body = json!({ "code": code, "message": message.as_ref() }).to_string();
        let mut answer = Self::json(status, body);
        if let Some(substatus) = substatus {
            answer.headers.set(header::SUBSTATUS, substatus.to_string());
        }
        answer
    }

    pub fn bad_request(message: impl AsRef<str>) -> Self {
        Self::error(400, None, "BadRequest", message)
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// The resource that a path addresses. Only containers and documents are handled here; the rest goes to the emulator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `/dbs/{db}`
    Database(String),
    /// `/dbs/{db}/colls`
    Containers(String),
    /// `/dbs/{db}/colls/{container}`
    Container(ContainerName),
    /// `/dbs/{db}/colls/{container}/docs`
    Documents(ContainerName),
    /// `/dbs/{db}/colls/{container}/docs/{id}`
    Document(ContainerName, String),
    /// Anything else: the account, offers, partition key ranges.
    Other,
}

/// A container's full name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ContainerName {
    pub database: String,
    pub container: String,
}

impl ContainerName {
    pub fn new(database: impl Into<String>, container: impl Into<String>) -> Self {
        Self { database: database.into(), container: container.into() }
    }

    /// The container's path.
    pub fn path(&self) -> String {
        format!("/dbs/{}/colls/{}", encode_segment(&self.database), encode_segment(&self.container))
    }

    /// The path of the container's documents.
    pub fn documents(&self) -> String {
        format!("{}/docs", self.path())
    }

    /// The path of one document.
    pub fn document(&self, id: &str) -> String {
        format!("{}/docs/{}", self.path(), encode_segment(id))
    }
}

impl std::fmt::Display for ContainerName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.database, self.container)
    }
}

pub(super) fn encode_segment(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// The nesting depth of a document that the service accepts.
pub(super) const MAX_LEVELS: usize = 128;

/// Parses JSON to the depth that the service accepts; the parser's own limit is one level less.
pub(super) fn json_of(text: &[u8]) -> serde_json::Result<Value> {
    if depth(text) > MAX_LEVELS {
        return Err(serde_json::Error::custom(format!("it has more than {MAX_LEVELS} levels")));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.disable_recursion_limit();
    let value = Value::deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The decoded segments of a path.
pub(super) fn segments(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect()
}

impl Target {
    pub fn of(path: &str) -> Self {
        let parts = segments(path);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["dbs", db] => Self::Database((*db).to_owned()),
            ["dbs", db, "colls"] => Self::Containers((*db).to_owned()),
            ["dbs", db, "colls", coll] => Self::Container(ContainerName::new(*db, *coll)),
            ["dbs", db, "colls", coll, "docs"] => Self::Documents(ContainerName::new(*db, *coll)),
            ["dbs", db, "colls", coll, "docs", id] => Self::Document(ContainerName::new(*db, *coll), (*id).to_owned()),
            _ => Self::Other,
        }
    }
}

/// Escapes everything outside ASCII, so that JSON text can be sent in a header.
pub(super) fn ascii_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_means_the_same_with_and_without_a_trailing_slash() {
        let docs = Target::Documents(ContainerName::new("dev", "events"));
        assert_eq!(Target::of("/dbs/dev/colls/events/docs"), docs);
        assert_eq!(Target::of("/dbs/dev/colls/events/docs/"), docs);
    }

    #[test]
    fn names_are_decoded_after_the_path_is_split() {
        let name = ContainerName::new("d", "c");
        assert_eq!(Target::of("/dbs/d/colls/c/docs/a%2Fb%20c"), Target::Document(name, "a/b c".into()));
    }

    #[test]
    fn text_outside_ascii_is_escaped_for_headers() {
        assert_eq!(ascii_json("[\"Köln😀\"]"), "[\"K\\u00f6ln\\ud83d\\ude00\"]");
    }
}

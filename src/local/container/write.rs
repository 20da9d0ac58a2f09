//! Writes to a container: each goes to the emulator and to the log.

use std::sync::Arc;

use axum::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::{LocalContainer, document_key::with_wrong_key_told, ranges::RangeError};
use crate::change::raw::depth;
use crate::local::{
    emulator::{is_binary, text_of},
    keys::{DocumentKey, partition_key_of, same_partition_key},
    log::{Put, WriteLog},
    message::{Ask, GatewayAnswer, MAX_LEVELS, Target, ascii_json, header, json_of},
    unique::taken,
};

/// The service's limit for an item's id, in bytes.
const MAX_ID_BYTES: usize = 1023;
const ID_LENGTH: &str = "The input name is invalid: an id has 1 to 1023 bytes. Ensure to provide a unique non-empty string \
    less than '1024' characters.";

/// The system properties of a stored document.
#[derive(Deserialize)]
struct Stored {
    pub(super) id: String,
    #[serde(rename = "_etag")]
    etag: String,
    #[serde(rename = "_ts")]
    ts: u64,
    #[serde(default)]
    ttl: Option<Value>,
}

impl LocalContainer {
    pub(super) async fn expire(&self, log: &mut WriteLog) {
        let now = self.clock.now();
        if log.first_due(now).is_none() {
            return;
        }
        let Some(_shape) = self.hold_shape() else { return };
        while let Some(key) = log.first_due(now) {
            let Some(document) = log.get(&key) else { return };
            let answer = self.remove(&key.id, &document.partition_key).await;
            if !answer.is_success() && answer.status != 404 {
                tracing::warn!(container = %self.name, status = answer.status, "an expired document could not be deleted");
                return;
            }
            log.begin();
            log.delete(&key, now, true);
        }
    }

    async fn remove(&self, id: &str, partition_key: &str) -> GatewayAnswer {
        let ask = Ask::new(Method::DELETE, self.name.document(id))
            .with_header(header::PARTITION_KEY, ascii_json(partition_key));
        self.emulator.execute(&ask).await
    }

    /// Deletes expired documents; called about every second.
    pub async fn sweep(&self) {
        drop(self.read().await);
    }

    /// Applies one point write and records it. `begin` tells whether this write is a transaction of its own; otherwise
    /// the caller has already called [`WriteLog::begin`].
    pub async fn point_write(&self, log: &mut WriteLog, ask: &Ask, begin: bool) -> GatewayAnswer {
        if let Err(answer) = self.check_key(ask) {
            return *answer;
        }
        let patched;
        let ask = if ask.method == Method::PATCH {
            patched = match self.patched(log, ask) {
                Ok(ask) => ask,
                Err(answer) => return *answer,
            };
            &patched
        } else {
            ask
        };
        if let Err(message) = check_members(&ask.body) {
            return GatewayAnswer::bad_request(message);
        }
        if self.is_taken(log, ask) {
            return taken();
        }
        let mut forward = ask.clone();
        forward.headers.set(header::CONTENT_ON_WRITE, "true");
        // Any etag will do: the emulator takes the asterisk for one.
        if forward.headers.get("if-match") == Some("*") {
            forward.headers.remove("if-match");
        }
        // The emulator ignores the condition of an upsert. With `If-None-Match: *` it is a create.
        let is_new_only = ask.headers.is_true(header::IS_UPSERT) && ask.headers.get("if-none-match") == Some("*");
        if is_new_only {
            forward.headers.remove(header::IS_UPSERT);
            forward.headers.remove("if-none-match");
        }
        let mut answer = self.emulator.execute(&forward).await;
        if is_new_only && answer.status == 409 {
            return *precondition_failed("the item exists already");
        }
        if !answer.is_success() {
            return with_wrong_key_told(answer);
        }
        self.remember_session(&answer);
        if ask.method == Method::DELETE {
            match self.key_of(ask) {
                Ok(key) => {
                    if begin {
                        log.begin();
                    }
                    log.delete(&key, self.clock.now(), false);
                }
                Err(failure) => return *failure,
            }
            return answer;
        }
        let mut put = match self.stored(&answer.body) {
            Ok(put) => put,
            Err(failure) => return *failure,
        };
        if let Target::Document(_, id) = Target::of(&ask.path) {
            put.replaces(&id);
        }
        // The id is known only now, because the request may be in the SDKs' binary form of JSON.
        if put.key.id.len() > MAX_ID_BYTES {
            let key = Value::Array(put.partition_key).to_string();
            self.remove(&put.key.id, &key).await;
            return GatewayAnswer::bad_request(ID_LENGTH);
        }
        if begin {
            log.begin();
        }
        log.put(put);
        if !ask.wants_content() {
            answer.body = Bytes::new();
        }
        answer
    }

    /// Whether another document has the unique key values of a write. Writes that fail for other reasons are left to
    /// the emulator.
    fn is_taken(&self, log: &WriteLog, ask: &Ask) -> bool {
        let Some(unique) = log.unique().filter(|_| ask.method != Method::DELETE) else { return false };
        let Some(document) = text_of(&ask.body).and_then(|text| json_of(&text).ok()) else { return false };
        let key = partition_key_of(&document, &self.partitioning.paths);
        let Some(range) = self.partitioning.range_of(&key) else { return false };
        let sent = document["id"].as_str().unwrap_or_default();
        let replaced = match Target::of(&ask.path) {
            Target::Document(_, id) => id,
            _ => sent.to_owned(),
        };
        let now = log.get(&DocumentKey { epk: range.min.clone(), id: replaced.clone() });
        let is_refused = match (ask.method == Method::PUT, now) {
            (true, None) => true,
            (false, Some(_)) if !ask.headers.is_true(header::IS_UPSERT) => true,
            (_, now) => {
                let wanted = ask.headers.get("if-match").filter(|etag| *etag != "*");
                wanted.is_some_and(|etag| now.is_none_or(|now| now.etag != etag))
            }
        };
        !is_refused && unique.conflicts(&range.min, &document, &[sent, &replaced])
    }

    /// Reads the stored document from a write's response.
    pub(super) fn stored(&self, text: &Bytes) -> Result<Put, Box<GatewayAnswer>> {
        let unreadable =
            || Box::new(GatewayAnswer::error(500, None, "InternalServerError", "the stored document is unreadable"));
        let document = json_of(text).map_err(|_| unreadable())?;
        let partition_key = partition_key_of(&document, &self.partitioning.paths);
        let epk = self.partitioning.range_of(&partition_key).ok_or_else(unreadable)?.min;
        let stored = Stored::deserialize(&document).map_err(|_| unreadable())?;
        Ok(Put {
            key: DocumentKey { epk, id: stored.id },
            text: text.clone(),
            etag: stored.etag,
            ts: stored.ts,
            ttl: stored.ttl.and_then(|ttl| ttl.as_i64()),
            partition_key,
            renamed_from: None,
        })
    }

    /// Deletes every document with the partition key in the header. The service does this in the background; here it is
    /// done before the response.
    pub async fn delete_key(&self, ask: &Ask) -> GatewayAnswer {
        let range = match self.range_of(ask) {
            Ok(range) if range.min == range.max => range,
            Ok(_) | Err(RangeError::Gone) => {
                return GatewayAnswer::bad_request(
                    "A delete by partition key needs the full partition key in its header",
                );
            }
            Err(RangeError::Invalid(message)) => return GatewayAnswer::bad_request(message),
        };
        let Some(_shape) = self.hold_shape() else { return crate::local::batch::being_split() };
        let mut log = self.write().await;
        let found: Vec<_> = log
            .documents_in(&range)
            .into_iter()
            .map(|(key, document)| (Arc::clone(key), Arc::clone(&document.partition_key)))
            .collect();
        for (key, partition_key) in found {
            let answer = self.remove(&key.id, &partition_key).await;
            if !answer.is_success() && answer.status != 404 {
                return answer;
            }
            log.begin();
            log.delete(&key, self.clock.now(), false);
        }
        let mut answer = GatewayAnswer::json(200, Bytes::new());
        answer.headers.remove("content-type");
        answer
    }

    /// Applies a patch. Returns the patched document as a replacement conditional on its ETag.
    fn patched(&self, log: &WriteLog, ask: &Ask) -> Result<Ask, Box<GatewayAnswer>> {
        let key = self.key_of(ask)?;
        let document = log.get(&key).ok_or_else(|| {
            Box::new(GatewayAnswer::error(
                404,
                None,
                "NotFound",
                "Entity with the specified id does not exist in the system",
            ))
        })?;
        if ask.headers.get("if-match").is_some_and(|etag| etag != "*" && etag != document.etag) {
            return Err(precondition_failed("the item has changed: its _etag is another one"));
        }
        match crate::local::patch::meets_condition(&document.text, &ask.body) {
            Ok(true) => {}
            Ok(false) => return Err(precondition_failed("the item does not meet the patch's condition")),
            Err(message) => return Err(Box::new(GatewayAnswer::bad_request(message))),
        }
        let patched = crate::local::patch::apply(&document.text, &ask.body);
        let patched = patched.map_err(|message| Box::new(GatewayAnswer::bad_request(message)))?;
        let after = json_of(&patched).unwrap_or_default();
        let before: Vec<Value> = serde_json::from_str(&document.partition_key).unwrap_or_default();
        if !same_partition_key(&partition_key_of(&after, &self.partitioning.paths), &before)
            || after["id"] != key.id.as_str()
        {
            return Err(Box::new(GatewayAnswer::bad_request("A patch cannot change the id or the partition key")));
        }
        let mut replace = ask.clone();
        replace.method = Method::PUT;
        replace.body = patched;
        Ok(replace)
    }
}

/// Checks the fields that have a meaning: a document without an id could not be addressed, not even to delete it. Only
/// looks at text.
pub(in crate::local) fn check_members(body: &[u8]) -> Result<(), String> {
    if !is_binary(body) && depth(body) > MAX_LEVELS {
        return Err(format!("The document is nested too deeply: at most {MAX_LEVELS} levels"));
    }
    #[derive(Deserialize)]
    struct Members {
        #[serde(default)]
        id: Option<Value>,
        #[serde(default, deserialize_with = "present")]
        ttl: Option<Value>,
    }
    // An explicit null is a value here, and an invalid one.
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
    let Ok(members) = serde_json::from_slice::<Members>(body) else { return Ok(()) };
    if members.id.is_some_and(|id| id == "") {
        return Err(ID_LENGTH.to_owned());
    }
    match members.ttl {
        None => Ok(()),
        Some(ttl) if ttl.as_i64().is_some_and(|ttl| ttl == -1 || (1..=i64::from(i32::MAX)).contains(&ttl)) => Ok(()),
        Some(ttl) => {
            Err(format!("The input ttl {ttl} is invalid: a positive whole number of seconds, or -1 for never"))
        }
    }
}

fn precondition_failed(message: &str) -> Box<GatewayAnswer> {
    Box::new(GatewayAnswer::error(412, None, "PreconditionFailed", message))
}

pub(super) fn invalid(header: &str, text: &str) -> RangeError {
    RangeError::Invalid(format!("the header {header} is not understood: {text}"))
}

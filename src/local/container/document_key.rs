//! Which document a request addresses.

use axum::http::Method;
use serde_json::Value;

use super::LocalContainer;
use crate::local::{
    keys::{DocumentKey, EpkRange, is_too_long, partition_key_of, same_partition_key},
    message::{Ask, GatewayAnswer, header, json_of},
};

impl LocalContainer {
    /// Returns the document that a point request addresses by its path and its partition key header.
    pub fn key_of(&self, ask: &Ask) -> Result<DocumentKey, Box<GatewayAnswer>> {
        let crate::local::message::Target::Document(_, id) = crate::local::message::Target::of(&ask.path) else {
            return Err(Box::new(GatewayAnswer::bad_request("The path names no document")));
        };
        let text = ask.headers.get(header::PARTITION_KEY).unwrap_or_default();
        let values: Option<Vec<Value>> = serde_json::from_str(text).ok();
        let range = values.and_then(|values| self.partitioning.range_of(&values));
        let range = range.filter(|range| range.min == range.max);
        let range =
            range.ok_or_else(|| Box::new(GatewayAnswer::bad_request("The partition key header names no document")))?;
        Ok(DocumentKey { epk: range.min, id })
    }

    /// Returns the id of the document with this resource id.
    pub async fn id_of(&self, rid: &str) -> Option<String> {
        let log = self.read().await;
        let text = format!("\"_rid\":\"{rid}\"");
        let finder = memchr::memmem::Finder::new(text.as_bytes());
        let mut found = log.documents_in(&EpkRange::full()).into_iter();
        found.find(|(_, document)| finder.find(&document.text).is_some()).map(|(key, _)| key.id.clone())
    }

    /// Checks that a point request's partition key is possible for this container and is the document's.
    pub fn check_key(&self, ask: &Ask) -> Result<(), Box<GatewayAnswer>> {
        let Some(text) = ask.headers.get(header::PARTITION_KEY) else { return Ok(()) };
        let values: Vec<Value> = serde_json::from_str(text)
            .map_err(|_| Box::new(GatewayAnswer::bad_request("The partition key is no JSON array")))?;
        if is_too_long(&values) {
            return Err(too_long());
        }
        if self.partitioning.range_of(&values).is_none_or(|range| range.min != range.max) {
            return Err(wrong_key());
        }
        if matches!(ask.method, Method::POST | Method::PUT)
            && let Ok(document) = json_of(&ask.body)
            && !same_partition_key(&partition_key_of(&document, &self.partitioning.paths), &values)
        {
            return Err(wrong_key());
        }
        Ok(())
    }
}

pub(in crate::local) fn too_long() -> Box<GatewayAnswer> {
    Box::new(GatewayAnswer::bad_request("The partition key is too long: a value has at most 2048 bytes"))
}

/// Sub-status 1001 makes a client read the container's definition again.
pub(in crate::local) fn wrong_key() -> Box<GatewayAnswer> {
    Box::new(GatewayAnswer::error(
        400,
        Some(1001),
        "BadRequest",
        "Partition key provided either doesn't correspond to definition in the collection or doesn't match partition key \
         field values specified in the document. Learn more: https://aka.ms/CosmosDB/sql/errors/wrong-pk-value",
    ))
}

/// Only the emulator understands bodies in the SDKs' binary form.
pub(super) fn with_wrong_key_told(answer: GatewayAnswer) -> GatewayAnswer {
    let is_about_the_key = answer.status == 400
        && memchr::memmem::find(&answer.body, b"partition key extracted from the document does not match").is_some();
    if is_about_the_key { *wrong_key() } else { answer }
}

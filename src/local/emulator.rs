//! The only file that touches the driver's in-memory emulator.
//!
//! Its interface is internal and may change in any release. Therefore Cargo.toml pins the exact version, and only this
//! file uses it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use azure_core::http::Request;
use azure_core::http::headers::{HeaderName, HeaderValue};
use azure_data_cosmos_driver::binary_json;
use azure_data_cosmos_driver::in_memory_emulator::{
    ConsistencyLevel, ContainerConfig, Epk as DriverEpk, InMemoryEmulatorHttpClient, VirtualAccountConfig,
    VirtualRegion,
};
use azure_data_cosmos_driver::models::{FeedRange, PartitionKey, PartitionKeyDefinition, PartitionKeyValue};
use bytes::Bytes;
use serde_json::{Value, json};
use url::Url;

use super::container::Clock;
use super::keys::{Epk, EpkRange};
use super::message::{Ask, ContainerName, GatewayAnswer, Headers, Target, header, json_of};
use crate::change::raw::depth;

/// The number of physical partitions that the emulator gives a new container.
const EMULATOR_PARTITIONS: u32 = 4;
/// How long a partition stays locked while it is split or merged; clients see 410 meanwhile.
const RESHAPE_LOCK: Duration = Duration::from_millis(20);

/// The nesting depth that the emulator's parser accepts for text; it accepts more in the SDKs' binary format.
const TEXT_LEVELS: usize = 127;

/// The unique key policy is stored under another name, because the emulator would search the whole partition on each
/// write. `unique` enforces it instead.
const UNIQUE: [&str; 2] = ["uniqueKeyPolicy", "heldUniqueKeyPolicy"];

/// The region's name in the account description.
const REGION: &str = "Local";

/// Stores the documents.
#[derive(Debug)]
pub(super) struct Emulator {
    client: InMemoryEmulatorHttpClient,
    url: Url,
    clock: Arc<Clock>,
    /// With a simulated clock: the time of each version by ETag. The emulator only knows the machine's clock.
    written: Mutex<HashMap<String, u64>>,
}

/// The emulator itself failed.
#[derive(Debug, thiserror::Error)]
#[error("emulator: {0}")]
pub struct EmulatorError(String);

impl EmulatorError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl Emulator {
    /// Creates an empty account whose description directs clients to `url`.
    pub fn new(url: Url, clock: Clock) -> Result<Self, EmulatorError> {
        let config = VirtualAccountConfig::new(vec![VirtualRegion::new(REGION, url.clone())])
            .map_err(EmulatorError::new)?
            .with_consistency(ConsistencyLevel::Session)
            .with_throttling_enabled(false);
        let client = InMemoryEmulatorHttpClient::try_new(config).map_err(EmulatorError::new)?;
        Ok(Self { client, url, clock: Arc::new(clock), written: Mutex::default() })
    }

    pub fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }

    /// Replaces the write times in a response with simulated ones.
    fn date(&self, answer: &mut GatewayAnswer) {
        if memchr::memmem::find(&answer.body, b"\"_ts\"").is_none() {
            return;
        }
        let Ok(mut body) = json_of(&answer.body) else { return };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        dated(&mut body, &mut |etag| *written.entry(etag.to_owned()).or_insert_with(|| self.clock.now()));
        answer.body = body.to_string().into();
    }

    /// Runs one request. Errors of the emulator are returned as a 500 in the service's format.
    pub async fn execute(&self, ask: &Ask) -> GatewayAnswer {
        match self.try_execute(ask).await {
            Ok(mut answer) => {
                if self.clock.is_simulated() {
                    self.date(&mut answer);
                }
                answer
            }
            Err(error) => GatewayAnswer::error(500, None, "InternalServerError", error.to_string()),
        }
    }

    async fn try_execute(&self, ask: &Ask) -> Result<GatewayAnswer, EmulatorError> {
        match Target::of(&ask.path) {
            Target::Document(name, id) if is_dots(&id) => self.execute_in_batch(&name, id, ask).await,
            Target::Containers(_) | Target::Container(_) => {
                let [known, held] = UNIQUE;
                let mut answer = self.send(&Ask { body: renamed(&ask.body, known, held), ..ask.clone() }).await?;
                answer.body = renamed(&answer.body, held, known);
                Ok(answer)
            }
            Target::Documents(_) | Target::Document(..) if !is_binary(&ask.body) && depth(&ask.body) > TEXT_LEVELS => {
                let body = json_of(&ask.body).ok().and_then(|value| binary_json::to_vec(&value).ok());
                self.send(&Ask { body: body.map_or_else(|| ask.body.clone(), Bytes::from), ..ask.clone() }).await
            }
            _ => self.send(ask).await,
        }
    }

    /// Runs a request for an item whose id would be a path segment such as `..` in a URL: as a batch of one operation,
    /// with the id in the body.
    async fn execute_in_batch(
        &self,
        name: &ContainerName,
        id: String,
        ask: &Ask,
    ) -> Result<GatewayAnswer, EmulatorError> {
        let kind = match ask.method {
            Method::GET => "Read",
            Method::PUT => "Replace",
            Method::DELETE => "Delete",
            _ => return Ok(GatewayAnswer::error(405, None, "MethodNotAllowed", "this method is not known here")),
        };
        let mut operation = json!({"operationType": kind, "id": id});
        for (member, header) in [("ifMatch", "if-match"), ("ifNoneMatch", "if-none-match")] {
            if let Some(etag) = ask.headers.get(header) {
                operation[member] = etag.into();
            }
        }
        if let Some(document) = text_of(&ask.body).filter(|text| !text.is_empty()) {
            operation["resourceBody"] = json_of(&document).map_err(EmulatorError::new)?;
        }
        let mut batch = Ask::new(Method::POST, name.documents())
            .with_header(header::IS_BATCH, "true")
            .with_header(header::BATCH_ATOMIC, "true")
            .with_header(header::CONTENT_ON_WRITE, "true")
            .with_body(Value::Array(vec![operation]).to_string());
        if let Some(key) = ask.headers.get(header::PARTITION_KEY) {
            batch.headers.set(header::PARTITION_KEY, key);
        }
        let mut answer = self.send(&batch).await?;
        let results: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let result = &results[0];
        let Some(status) = result["statusCode"].as_u64().and_then(|status| u16::try_from(status).ok()) else {
            return Ok(answer);
        };
        if status >= 400 {
            let message = "The item is not there, or not as the request says";
            let code = if status == 404 { "NotFound" } else { "PreconditionFailed" };
            return Ok(GatewayAnswer::error(status, None, code, message));
        }
        answer.status = status;
        answer.body = match &result["resourceBody"] {
            Value::Null => Bytes::new(),
            document => document.to_string().into(),
        };
        if let Some(etag) = result["eTag"].as_str() {
            answer.headers.set("etag", etag);
        }
        Ok(answer)
    }

    async fn send(&self, ask: &Ask) -> Result<GatewayAnswer, EmulatorError> {
        let method = match ask.method {
            Method::GET => azure_core::http::Method::Get,
            Method::POST => azure_core::http::Method::Post,
            Method::PUT => azure_core::http::Method::Put,
            Method::PATCH => azure_core::http::Method::Patch,
            Method::DELETE => azure_core::http::Method::Delete,
            Method::HEAD => azure_core::http::Method::Head,
            _ => return Ok(GatewayAnswer::error(405, None, "MethodNotAllowed", "this method is not known here")),
        };
        let mut url = self.url.clone();
        url.set_path(&ask.path);
        let mut request = Request::new(url, method);
        for (name, value) in ask.headers.iter() {
            request.headers_mut().insert(HeaderName::from(name.to_owned()), HeaderValue::from(value.to_owned()));
        }
        request.set_body(ask.body.clone());
        let answer = self.client.execute_request(&request).await.map_err(EmulatorError::new)?;
        let answer = answer.try_into_raw_response().await.map_err(EmulatorError::new)?;
        let headers: Headers = answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned()))
            .collect();
        let body: &[u8] = answer.body().as_ref();
        Ok(GatewayAnswer { status: u16::from(answer.status()), headers, body: Bytes::copy_from_slice(body) })
    }

    /// Changes the number of physical partitions of a container that was just created.
    ///
    /// The emulator's create request has no such setting, so the container is recreated with the same properties.
    /// Nothing can have been written to it, because the caller has not received a response yet.
    pub async fn repartition(
        &self,
        name: &ContainerName,
        partitions: u32,
        throughput: Option<u64>,
    ) -> Result<(), EmulatorError> {
        if partitions == EMULATOR_PARTITIONS {
            return Ok(());
        }
        let path = name.path();
        let properties = self.execute(&Ask::new(Method::GET, &path)).await;
        let description: Value = serde_json::from_slice(&properties.body).map_err(EmulatorError::new)?;
        let key = description.get("partitionKey").cloned().unwrap_or_default();
        let key: PartitionKeyDefinition = serde_json::from_value(key).map_err(EmulatorError::new)?;
        let mut config = ContainerConfig::new().with_partition_count(partitions);
        if let Some(throughput) = throughput {
            config = config.with_throughput(throughput);
        }
        let config = config.build().map_err(EmulatorError::new)?;
        let deleted = self.execute(&Ask::new(Method::DELETE, &path)).await;
        if !deleted.is_success() {
            return Err(EmulatorError::new("could not remake the container"));
        }
        self.client.store().create_container_with_config(&name.database, &name.container, key, config);
        let replaced = self.execute(&Ask::new(Method::PUT, &path).with_body(properties.body)).await;
        if replaced.is_success() { Ok(()) } else { Err(EmulatorError::new("could not set the container's properties")) }
    }

    /// Splits a physical partition in the middle; returns the children's ids.
    pub async fn split(&self, name: &ContainerName, range: u32) -> Result<Vec<u32>, EmulatorError> {
        let store = self.client.store();
        let (db, coll) = (name.database.as_str(), name.container.as_str());
        let middle = store.midpoint_split_epk(db, coll, range).map_err(EmulatorError::new)?;
        store.split_partition_and_wait(db, coll, range, middle, RESHAPE_LOCK).await.map_err(EmulatorError::new)
    }

    /// Merges two adjacent physical partitions; returns the child's id.
    pub async fn merge(&self, name: &ContainerName, left: u32, right: u32) -> Result<u32, EmulatorError> {
        let (db, coll) = (name.database.as_str(), name.container.as_str());
        let store = self.client.store();
        store.merge_partitions_and_wait(db, coll, left, right, RESHAPE_LOCK).await.map_err(EmulatorError::new)
    }
}

/// Whether a URL would treat an id as a relative path segment, percent-encoded or not.
fn is_dots(id: &str) -> bool {
    matches!(id, "." | "..")
}

/// Renames a field in descriptions of containers.
fn renamed(body: &Bytes, from: &str, to: &str) -> Bytes {
    if memchr::memmem::find(body, from.as_bytes()).is_none() {
        return body.clone();
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let rename = |description: &mut Value| {
        if let Some(members) = description.as_object_mut() {
            let all = std::mem::take(members);
            members.extend(all.into_iter().map(|(name, value)| (if name == from { to.into() } else { name }, value)));
        }
    };
    match value.get_mut("DocumentCollections").and_then(Value::as_array_mut) {
        Some(all) => all.iter_mut().for_each(rename),
        None => rename(&mut value),
    }
    value.to_string().into()
}

/// Whether a body is in the SDKs' binary form of JSON.
pub(super) fn is_binary(body: &[u8]) -> bool {
    binary_json::is_binary(body)
}

/// Returns a body as text; `None` when it is in the binary format and malformed.
pub(super) fn text_of(body: &Bytes) -> Option<Bytes> {
    if !is_binary(body) {
        return Some(body.clone());
    }
    binary_json::transcode_to_text(body).ok().map(Bytes::from)
}

/// Sets `_ts` wherever it stands next to an `_etag`.
fn dated(value: &mut Value, time_of: &mut impl FnMut(&str) -> u64) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| dated(value, time_of)),
        Value::Object(members) => {
            if let Some(time) = members.get("_etag").and_then(Value::as_str).map(&mut *time_of)
                && let Some(ts) = members.get_mut("_ts")
            {
                *ts = time.into();
            }
            members.values_mut().for_each(|value| dated(value, time_of));
        }
        _ => {}
    }
}

/// How a container distributes its documents. This is the driver's own definition, so hashing cannot diverge from it.
#[derive(Clone, Debug)]
pub(super) struct Partitioning {
    definition: PartitionKeyDefinition,
    /// The partition key paths, `/a/b`.
    pub paths: Vec<String>,
}

impl Partitioning {
    /// Reads the `partitionKey` object of a container's description.
    pub fn parse(definition: &Value) -> Option<Self> {
        let definition: PartitionKeyDefinition = serde_json::from_value(definition.clone()).ok()?;
        let paths = definition.paths().iter().map(ToString::to_string).collect();
        Some(Self { definition, paths })
    }

    /// Returns the range of a full partition key (one key) or of the prefix of a hierarchical one. `None` when the
    /// values cannot be a partition key.
    pub fn range_of(&self, values: &[Value]) -> Option<EpkRange> {
        if values.is_empty() || values.len() > self.paths.len() {
            return None;
        }
        let values = values.iter().map(component).collect::<Option<Vec<_>>>()?;
        let range = FeedRange::for_partition(PartitionKey::try_from(values).ok()?, &self.definition);
        Some(EpkRange { min: canonical(range.min_inclusive())?, max: canonical(range.max_exclusive())? })
    }
}

fn canonical(key: &DriverEpk) -> Option<Epk> {
    Epk::parse(&key.to_hex())
}

fn component(value: &Value) -> Option<PartitionKeyValue> {
    match value {
        Value::Null => Some(PartitionKeyValue::NULL),
        Value::Bool(value) => Some((*value).into()),
        Value::Number(number) => PartitionKeyValue::try_from(number.as_f64()?).ok(),
        Value::String(text) => Some(text.clone().into()),
        Value::Object(map) if map.is_empty() => Some(PartitionKeyValue::UNDEFINED),
        Value::Object(_) | Value::Array(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_prefix_of_a_hierarchical_key_covers_its_documents() {
        let key = json!({"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2});
        let partitioning = Partitioning::parse(&key).unwrap();
        let prefix = partitioning.range_of(&[json!("x")]).unwrap();
        let full = partitioning.range_of(&[json!("x"), json!(1)]).unwrap();
        assert_eq!(full.min, full.max);
        assert!(prefix.contains(&full.min));
        assert!(!prefix.contains(&partitioning.range_of(&[json!("y"), json!(1)]).unwrap().min));
    }

    #[test]
    fn every_kind_of_partition_key_value_has_a_position() {
        let partitioning = Partitioning::parse(&json!({"paths": ["/pk"], "kind": "Hash", "version": 2})).unwrap();
        let values = [json!("x"), json!(1.5), json!(true), json!(null), json!({})];
        let mut places: Vec<_> =
            values.iter().map(|value| partitioning.range_of(std::slice::from_ref(value)).unwrap().min).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), 5);
        assert!(partitioning.range_of(&[json!([1])]).is_none());
    }
}

//! Reads, writes and deletes one container's items as raw JSON, alone or in transactional batches.

use std::sync::{Arc, atomic::AtomicBool};

use azure_data_cosmos_driver::{
    CosmosDriver, CosmosResponse,
    models::{
        ContainerReference, CosmosOperation, CosmosResponseHeaders, ItemReference, PartitionKey as WireKey,
        PartitionKeyValue, Precondition,
    },
    options::OperationOptions,
};
use bytes::Bytes;
use serde::Deserialize;

use super::{
    Cosmos, Failure, HashSpace, Opening, Param, Status,
    bulk::{Packer, Routes},
    definition::Definition,
    own_task,
};
use crate::change::{
    edit::quote,
    key::{KeyPaths, KeyValue, PartitionKey},
};

/// An open container. Cloning is cheap.
#[derive(Clone)]
pub struct Container {
    cosmos: Cosmos,
    driver: Arc<CosmosDriver>,
    reference: ContainerReference,
    key_paths: Arc<KeyPaths>,
    together: Arc<Together>,
}

/// The state that all clones of an open container share.
#[derive(Debug, Default)]
struct Together {
    routes: Routes,
    packer: Packer,
    /// Whether each read goes alone, because a request with several was refused.
    reads_alone: AtomicBool,
    /// What its definition says beyond its key, read once.
    definition: Opening<Definition>,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The result of a successful write.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Written {
    /// Request units charged.
    pub charge: f64,
    /// The item's new etag, if the service sends one.
    pub etag: Option<String>,
    /// Whether the item was created (201) rather than replaced (200).
    pub created: bool,
}

/// One page of a query: raw documents and their charge.
#[derive(Debug)]
pub struct Page {
    /// The documents' text, in order.
    pub documents: Vec<Box<serde_json::value::RawValue>>,
    /// Request units charged for the page.
    pub charge: f64,
}

impl Container {
    pub(super) fn new(
        cosmos: Cosmos,
        driver: Arc<CosmosDriver>,
        reference: ContainerReference,
        key_paths: KeyPaths,
    ) -> Self {
        Self { cosmos, driver, reference, key_paths: Arc::new(key_paths), together: Arc::default() }
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        self.reference.name()
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.reference.database_name().unwrap_or_default()
    }

    /// The resource id: another one under the same name is another container.
    pub fn rid(&self) -> &str {
        self.reference.rid()
    }

    /// The partition key paths of the definition.
    pub fn key_paths(&self) -> &KeyPaths {
        &self.key_paths
    }

    /// How partition keys are hashed; `None` for a container that is not partitioned by a hash.
    pub fn hash_space(&self) -> Option<HashSpace> {
        HashSpace::of(self.reference.partition_key_definition())
    }

    /// The connection this container was opened on.
    pub fn cosmos(&self) -> &Cosmos {
        &self.cosmos
    }

    pub(super) fn driver(&self) -> &Arc<CosmosDriver> {
        &self.driver
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.together.routes
    }

    pub(super) fn packer(&self) -> &Packer {
        &self.together.packer
    }

    pub(super) fn definition(&self) -> &Opening<Definition> {
        &self.together.definition
    }

    pub(super) fn reads_alone(&self) -> &AtomicBool {
        &self.together.reads_alone
    }

    pub(super) fn reference(&self) -> &ContainerReference {
        &self.reference
    }

    /// Creates or replaces an item; `body` is its JSON text and carries the same id and key.
    pub async fn upsert(&self, key: &PartitionKey, id: &str, body: Vec<u8>) -> Result<Written, Failure> {
        self.write("upsert item", CosmosOperation::upsert_item(self.item(key, id)?).with_body(body)).await
    }

    /// Creates an item; a [`Disposition::Conflict`](super::Disposition::Conflict) when it exists.
    pub async fn create(&self, key: &PartitionKey, id: &str, body: Vec<u8>) -> Result<Written, Failure> {
        self.write("create item", CosmosOperation::create_item(self.item(key, id)?).with_body(body)).await
    }

    /// Whether an id can appear in a URL and still name its item: `..` would name the container, and the client library
    /// turns separators, tabs and line ends into another path. Such an item is named in a body instead.
    fn is_addressable(id: &str) -> bool {
        let odd = |c: char| matches!(c, '/' | '\\' | '?' | '#') || c.is_control();
        !(id.is_empty() || id == "." || id == ".." || id.contains(odd) || id.trim() != id)
    }

    /// Runs one operation as a transactional batch of one, with the item's id in the body.
    async fn batch_of_one(&self, context: &'static str, key: &PartitionKey, body: Vec<u8>) -> Result<Written, Failure> {
        #[derive(Deserialize)]
        struct One {
            #[serde(rename = "statusCode")]
            status: u16,
            #[serde(rename = "eTag")]
            etag: Option<String>,
        }
        let operation = CosmosOperation::batch(self.reference.clone(), wire_key(key)?).with_body(body);
        let response = self.run(context, operation, OperationOptions::default()).await?;
        let charge = response.headers().request_charge.map_or(0.0, |c| c.value());
        let failed = u16::from(response.status().status_code()) == 207;
        let body = response.into_body().single().map_err(|e| Failure::from_driver(&e, context.into()))?;
        if failed {
            return Err(Failure { context: context.into(), ..batch_failure(&body) });
        }
        let results: Vec<One> = serde_json::from_slice(&body).unwrap_or_default();
        let one = results.into_iter().next();
        Ok(Written {
            charge,
            created: one.as_ref().is_some_and(|one| one.status == 201),
            etag: one.and_then(|one| one.etag),
        })
    }

    /// Replaces an item that still has `etag`; a
    /// [`Disposition::PreconditionFailed`](super::Disposition::PreconditionFailed) when it has changed.
    pub async fn replace(&self, key: &PartitionKey, id: &str, body: Vec<u8>, etag: &str) -> Result<Written, Failure> {
        if !Self::is_addressable(id) {
            let [id, etag] = [id, etag].map(quote);
            let mut batch =
                format!("[{{\"operationType\":\"Replace\",\"id\":{id},\"ifMatch\":{etag},\"resourceBody\":")
                    .into_bytes();
            batch.extend_from_slice(&body);
            batch.extend_from_slice(b"}]");
            return self.batch_of_one("replace item", key, batch).await;
        }
        let operation = CosmosOperation::replace_item(self.item(key, id)?)
            .with_body(body)
            .with_precondition(Precondition::if_match(azure_core::http::Etag::from(etag.to_owned())));
        self.write("replace item", operation).await
    }

    /// Deletes an item, only while it has `etag` when one is given.
    pub async fn delete(&self, key: &PartitionKey, id: &str, etag: Option<&str>) -> Result<Written, Failure> {
        if !Self::is_addressable(id) {
            let guard = etag.map_or_else(String::new, |etag| format!(",\"ifMatch\":{}", quote(etag)));
            let batch = format!("[{{\"operationType\":\"Delete\",\"id\":{}{guard}}}]", quote(id));
            return self.batch_of_one("delete item", key, batch.into_bytes()).await;
        }
        let mut operation = CosmosOperation::delete_item(self.item(key, id)?);
        if let Some(etag) = etag {
            operation =
                operation.with_precondition(Precondition::if_match(azure_core::http::Etag::from(etag.to_owned())));
        }
        self.write("delete item", operation).await
    }

    /// Reads an item's JSON text, system properties included; `None` when there is none.
    pub async fn read(&self, key: &PartitionKey, id: &str) -> Result<Option<Bytes>, Failure> {
        if !Self::is_addressable(id) {
            let params = [Param::new("id", id)];
            let found = self.query_all("SELECT * FROM c WHERE c.id = @id", &params, Some(key)).await?;
            return Ok(found.first().map(|text| Bytes::copy_from_slice(text.get().as_bytes())));
        }
        let operation = CosmosOperation::read_item(self.item(key, id)?);
        match self.run("read item", operation, OperationOptions::default()).await {
            Ok(response) => {
                let body = response.into_body().single();
                body.map(Some).map_err(|e| Failure::from_driver(&e, "read item".into()))
            }
            // A plain 404 is an answer; 404/1003 (no such container) is not.
            Err(f) if f.status == Status::NO_ITEM => Ok(None),
            Err(f) => Err(f),
        }
    }

    /// The same as text.
    pub async fn read_text(&self, key: &PartitionKey, id: &str) -> Result<Option<String>, Failure> {
        let Some(bytes) = self.read(key, id).await? else { return Ok(None) };
        String::from_utf8(bytes.into())
            .map(Some)
            .map_err(|_| Failure::invalid("read item".into(), "the service sent text that is not UTF-8".into()))
    }

    /// Runs a transactional batch of upserts that share one full partition key: all are stored, or none. `body` is the
    /// wire format, a JSON array of `{"operationType":"Upsert","resourceBody":{...}}`.
    ///
    /// # Errors
    /// That of the failing operation, when the service names one: a batch that fails is an HTTP success (207).
    pub async fn upsert_batch(&self, key: &PartitionKey, body: Vec<u8>) -> Result<Written, Failure> {
        let operation = CosmosOperation::batch(self.reference.clone(), wire_key(key)?).with_body(body);
        let response = self.run("upsert batch", operation, OperationOptions::default()).await?;
        let charge = response.headers().request_charge.map_or(0.0, |c| c.value());
        if u16::from(response.status().status_code()) != 207 {
            return Ok(Written { charge, etag: None, created: false });
        }
        let body = response.into_body().single().map_err(|e| Failure::from_driver(&e, "upsert batch".into()))?;
        Err(batch_failure(&body))
    }

    async fn write(&self, context: &'static str, operation: CosmosOperation) -> Result<Written, Failure> {
        let response = self.run(context, operation, OperationOptions::default()).await?;
        let headers = response.headers();
        Ok(Written {
            charge: headers.request_charge.map_or(0.0, |c| c.value()),
            etag: headers.etag.as_ref().map(|e| e.as_ref().to_owned()),
            created: u16::from(response.status().status_code()) == 201,
        })
    }

    pub(super) async fn run(
        &self,
        context: &'static str,
        operation: CosmosOperation,
        options: OperationOptions,
    ) -> Result<CosmosResponse, Failure> {
        answered(&self.cosmos, self.driver.clone(), context.into(), operation, options).await
    }

    fn item(&self, key: &PartitionKey, id: &str) -> Result<ItemReference, Failure> {
        Ok(ItemReference::from_name(&self.reference, wire_key(key)?, id.to_owned()))
    }
}

/// Carries out an operation whose answer is one response, and counts what it costs.
///
/// # Errors
/// With the service's own message when it refuses; also when something in between answers in its place.
pub(super) async fn answered(
    cosmos: &Cosmos,
    driver: Arc<CosmosDriver>,
    context: String,
    operation: CosmosOperation,
    options: OperationOptions,
) -> Result<CosmosResponse, Failure> {
    let request = async move { driver.execute_singleton_operation(operation, options).await };
    match own_task::run(request).await? {
        Ok(response) if !is_the_services(response.headers()) => Err(Failure::of_another(context)),
        Ok(response) => {
            cosmos.meter().add(response.headers().request_charge.map_or(0.0, |c| c.value()));
            Ok(response)
        }
        Err(error) => {
            let headers = error.response().map(|response| response.headers());
            if let Some(charge) = headers.and_then(|headers| headers.request_charge) {
                cosmos.meter().add(charge.value());
            }
            let failure = Failure::from_driver(&error, context);
            let is_no_item = failure.status == Status::NO_ITEM;
            let is_of_another = is_no_item && headers.is_some_and(|headers| !is_the_services(headers));
            Err(if is_of_another { Failure::of_another(failure.context) } else { failure })
        }
    }
}

/// Whether the service itself gave an answer: something in between knows of no item.
pub(super) fn is_the_services(headers: &CosmosResponseHeaders) -> bool {
    headers.request_charge.is_some() || headers.activity_id.is_some() || headers.session_token.is_some()
}

/// The key in the client library's type.
pub(super) fn wire_key(key: &PartitionKey) -> Result<WireKey, Failure> {
    let fail = |e| Failure::from_driver(&e, "partition key".into());
    let parts: Vec<PartitionKeyValue> = key
        .0
        .iter()
        .map(|part| {
            Ok(match part {
                KeyValue::Undefined => PartitionKeyValue::UNDEFINED,
                KeyValue::Null => PartitionKeyValue::NULL,
                KeyValue::Bool(b) => (*b).into(),
                KeyValue::Number(n) => PartitionKeyValue::try_from(*n).map_err(fail)?,
                KeyValue::String(s) => s.clone().into(),
            })
        })
        .collect::<Result<_, Failure>>()?;
    WireKey::try_from(parts).map_err(fail)
}

/// The first operation of a failed batch that failed for its own reason (the others say 424).
fn batch_failure(body: &[u8]) -> Failure {
    #[derive(Deserialize)]
    struct One {
        #[serde(rename = "statusCode")]
        status: u16,
        #[serde(rename = "subStatusCode", default)]
        sub: u16,
        #[serde(rename = "retryAfterMilliseconds", default)]
        retry_after: Option<u64>,
    }
    let results: Vec<One> = serde_json::from_slice(body).unwrap_or_default();
    match results.iter().enumerate().find(|(_, r)| r.status >= 300 && r.status != 424) {
        Some((index, one)) => Failure::from_status(
            "upsert batch".into(),
            Status::new(one.status, one.sub),
            &format!("operation {} of {} failed, so none was stored", index + 1, results.len()),
            one.retry_after.map(std::time::Duration::from_millis),
        ),
        None => Failure::from_status(
            "upsert batch".into(),
            Status::new(500, 0),
            "the batch failed without naming an operation",
            None,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Disposition, *};

    #[test]
    fn an_id_that_leads_elsewhere_is_put_into_no_url() {
        for id in ["..", ".", "a/b", "a\\b", "a\tb", "a\nb", "a?b", "a#b", " a", "a ", ""] {
            assert!(!Container::is_addressable(id), "{id:?}");
        }
        for id in ["a", "a b", "...", "a~b", "%2e%2e", "\u{fc}", "a:b@c"] {
            assert!(Container::is_addressable(id), "{id:?}");
        }
    }

    #[test]
    fn a_failed_batch_is_judged_by_the_operation_that_failed_for_itself() {
        let failure = batch_failure(br#"[{"statusCode":424},{"statusCode":413},{"statusCode":424}]"#);
        assert_eq!(failure.disposition, Disposition::Poison);
        assert!(failure.to_string().contains("operation 2 of 3"), "{failure}");
        let failure = batch_failure(br#"[{"statusCode":429,"retryAfterMilliseconds":7}]"#);
        assert_eq!(failure.disposition, Disposition::Transient);
        assert_eq!(failure.retry_after, Some(std::time::Duration::from_millis(7)));
        assert_eq!(batch_failure(b"nonsense").disposition, Disposition::Transient);
    }
}

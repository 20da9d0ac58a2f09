//! Sends bulk requests through the driver, which has no operation for them yet. The request pretends to create an item;
//! its headers and body turn it into a batch that is not atomic, as Microsoft's JavaScript client sends it. The driver
//! adds the partition key of the supposed item: that of the first operation, which lies in the same range.

use std::collections::HashMap;

use azure_core::http::headers::{HeaderName, HeaderValue};
use azure_data_cosmos_driver::{
    models::{CosmosOperation, FeedRange, ItemReference},
    options::OperationOptions,
};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};

use super::{
    Operation, OperationResult, Verb,
    routes::{Place, Route},
};
use crate::{
    change::key::PartitionKey,
    cosmos::{Container, Failure, Written, container::wire_key},
};

/// The answer to a bulk request as a whole.
#[derive(Debug)]
pub(in crate::cosmos) struct Carried {
    /// One result for each operation.
    pub(in crate::cosmos) body: Bytes,
    /// Whether the client library had sent the request before: an earlier attempt may have been carried out.
    pub(in crate::cosmos) sent_before: bool,
}

/// Takes operations to a container, packed or alone.
pub(in crate::cosmos) trait Carrier: Sync {
    /// Sends a bulk request to a physical partition; `key` is that of one of its operations.
    fn carry<'a>(
        &'a self,
        range: &'a str,
        key: &'a PartitionKey,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Carried, Failure>>;
    /// Carries out one operation by itself.
    fn alone<'a>(&'a self, operation: Operation<'a>) -> BoxFuture<'a, Result<OperationResult, Failure>>;
    /// The physical partitions, in order; `refresh` asks the service instead of the driver's cache.
    fn partitions(&self, refresh: bool) -> BoxFuture<'_, Result<Vec<Route>, Failure>>;
    /// Where the items of a key lie.
    fn place(&self, key: &PartitionKey) -> Result<Place, Failure>;
}

impl Carrier for Container {
    fn carry<'a>(
        &'a self,
        range: &'a str,
        key: &'a PartitionKey,
        body: Vec<u8>,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            let item = ItemReference::from_name(self.reference(), wire_key(key)?, "bulk");
            let operation = CosmosOperation::create_item(item).with_body(body);
            let mut options = OperationOptions::default();
            options.custom_headers = Some(HashMap::from([
                (HeaderName::from_static("x-ms-cosmos-is-batch-request"), HeaderValue::from_static("True")),
                (HeaderName::from_static("x-ms-cosmos-batch-atomic"), HeaderValue::from_static("False")),
                (HeaderName::from_static("x-ms-cosmos-batch-continue-on-error"), HeaderValue::from_static("True")),
                (HeaderName::from_static("x-ms-documentdb-partitionkeyrangeid"), HeaderValue::from(range.to_owned())),
            ]));
            let response = self.run("bulk request", operation, options).await?;
            let sent_before = response.diagnostics_ref().request_count() > 1;
            let body = response.into_body().single();
            body.map(|body| Carried { body, sent_before }).map_err(|e| Failure::from_driver(&e, "bulk request".into()))
        }
        .boxed()
    }

    fn alone<'a>(&'a self, operation: Operation<'a>) -> BoxFuture<'a, Result<OperationResult, Failure>> {
        async move {
            let (key, id) = (&*operation.key, &*operation.id);
            let written = match operation.verb {
                Verb::Read => {
                    let text = self.read_text(key, id).await?;
                    return Ok(OperationResult { written: Written::default(), text, packed: false });
                }
                Verb::Upsert(body) => self.upsert(key, id, body.into_owned()).await,
                Verb::Create(body) => self.create(key, id, body.into_owned()).await,
                Verb::Replace(body, etag) => self.replace(key, id, body.into_owned(), &etag).await,
                Verb::Delete(etag) => self.delete(key, id, etag.as_deref()).await,
            };
            written.map(|written| OperationResult { written, text: None, packed: false })
        }
        .boxed()
    }

    fn partitions(&self, refresh: bool) -> BoxFuture<'_, Result<Vec<Route>, Failure>> {
        async move {
            let found = self.partition_key_ranges(refresh).await?;
            Ok(found.into_iter().map(|range| Route { from: Place(range.min_inclusive), range: range.id }).collect())
        }
        .boxed()
    }

    fn place(&self, key: &PartitionKey) -> Result<Place, Failure> {
        let range = FeedRange::for_partition(wire_key(key)?, self.reference().partition_key_definition());
        Ok(Place(range.min_inclusive().clone()))
    }
}

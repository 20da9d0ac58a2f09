//! The history of documents: the seam through which capture writes, and its implementation on Cosmos DB.

pub mod as_of;
pub mod baseline;
mod caveat;
#[cfg(feature = "mongodb")]
pub mod collections;
mod containers;
mod cosmos;
pub mod ends;
pub mod entry;
pub mod failed_writes;
pub mod frontier;
pub mod gone;
pub mod histories;
pub mod known;
pub mod live;
#[cfg(feature = "local")]
pub mod memory;
pub mod moment;
pub mod odd_records;
pub mod past;
pub mod predicate;
pub mod reading;
pub mod removals;
pub mod scan;
pub mod timeline;
pub mod version;
pub mod writing;

use std::sync::Arc;

use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};

pub use self::{
    containers::{Account, AnyContext, Containers, NotShared},
    cosmos::{CosmosContainers, CosmosHistory, CosmosReader},
};
pub use crate::change::record::layout;
use crate::{
    change::{
        key::{KeyPaths, PartitionKey},
        record::Record,
    },
    cosmos::{Failure, Gate, bulk::BulkOutcomes},
};

/// Opens the two containers that capture needs. They are opened lazily, so that the handler's port is up first.
///
/// `forget` drops whatever is known of the containers, because the service said that it is out of date.
pub trait History: Send + Sync + 'static {
    /// Where records go.
    type Writer: HistoryWriter;
    /// Where documents are read again.
    type Source: SourceReader;

    /// Opens the changes container, or returns it when it is already open.
    fn writer(&self) -> impl Future<Output = Result<Arc<Self::Writer>, Failure>> + Send;
    /// Opens the source container, or returns it when it is already open.
    fn source(&self) -> impl Future<Output = Result<Arc<Self::Source>, Failure>> + Send;
    /// Database and container of the source, if it is a container.
    fn source_name(&self) -> Option<String> {
        None
    }
    /// Whether both containers are still the ones that were opened, with the same keys: asks the service.
    fn is_current(&self) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// Whether a document with this resource id came from a source container that was created after the source was
    /// opened. Asks the service when the id belongs to another container, and only once for each container that turns
    /// out to be unknown.
    fn is_of_newer_source(&self, rid: &str) -> impl Future<Output = Result<bool, Failure>> + Send {
        let _ = rid;
        std::future::ready(Ok(false))
    }
    /// Forgets both.
    fn forget(&self) -> impl Future<Output = ()> + Send;
}

/// Writes records.
///
/// Contract: `Ok` means durable. `Err` leaves unknown whether the record was stored; writing it again is harmless,
/// because a version has one id. Calls may run concurrently and in any order. A record with `create_only` that exists
/// already is left as it is, or completed by what it lacks (`completes`), and that is `Ok`. Nothing is retried here.
pub trait HistoryWriter: Send + Sync + 'static {
    /// Partition key paths of the container.
    fn key_paths(&self) -> &KeyPaths;
    /// Writes one record; returns the RU charged.
    fn write(&self, record: &Record) -> impl Future<Output = Result<f64, Failure>> + Send;
    /// Writes records that share one full partition key, all or none. At most [`BATCH_RECORDS`] records and
    /// [`BATCH_BYTES`] bytes of text. Returns the RU charged.
    ///
    /// # Errors
    /// A conflict when one that is `create_only` exists: each is to be written by itself then.
    fn write_batch(&self, records: &[&Record]) -> impl Future<Output = Result<f64, Failure>> + Send;
    /// Whether records of several keys are packed into one request.
    fn packs(&self) -> bool {
        false
    }
    /// Writes records of any keys, each for itself as [`write`](Self::write) does, packed where that is possible. Each
    /// has its own outcome, the RU charged, as soon as that is known. Nothing is retried. `gate` bounds the records on
    /// their way.
    fn write_many<'a>(&'a self, records: Vec<&'a Record>, gate: &'a Gate) -> BoxStream<'a, BulkOutcomes<f64>> {
        let one = move |(place, record): (usize, &'a Record)| async move {
            let written = async {
                let _permission = gate.enter(1, record.body.len()).await?;
                self.write(record).await
            };
            vec![(place, written.await)]
        };
        stream::iter(records).enumerate().map(one).buffer_unordered(gate.most()).boxed()
    }
}

/// The largest number of operations in a transactional batch (Azure Cosmos DB service quotas).
pub const BATCH_RECORDS: usize = 100;
/// The largest size of a transactional batch in bytes: the service's 2 MB, minus room for what wraps each operation.
pub const BATCH_BYTES: usize = 2 * 1024 * 1024 - 64 * 1024;

/// Reads live documents.
pub trait SourceReader: Send + Sync + 'static {
    /// Partition key paths of the container.
    fn key_paths(&self) -> &KeyPaths;
    /// The document's text as stored, with system properties; `None` when there is none (any more).
    fn read(&self, key: &PartitionKey, id: &str) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
    /// The same for the document with this resource id, in one partition key or wherever it lies: for a document whose
    /// id or partition key is uncertain.
    fn find(
        &self,
        rid: &str,
        key: Option<&PartitionKey>,
    ) -> impl Future<Output = Result<Option<String>, Failure>> + Send;
}

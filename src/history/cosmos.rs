//! History on Cosmos DB.

use std::sync::Arc;

use tokio::sync::RwLock;

use super::{History, HistoryWriter, SourceReader};
use crate::{
    change::{
        key::{KeyPaths, PartitionKey},
        record::Record,
    },
    config::Names,
    cosmos::{Container, Cosmos, Disposition, Failure, Param},
};

/// The source and changes containers of one function.
#[derive(Debug)]
pub struct CosmosHistory {
    cosmos: Cosmos,
    names: Names,
    changes: RwLock<Option<Arc<Container>>>,
    source: RwLock<Option<Arc<Container>>>,
}

impl CosmosHistory {
    /// Remembers the names; contacts nobody.
    pub fn new(cosmos: Cosmos, names: Names) -> Self {
        Self { cosmos, names, changes: RwLock::default(), source: RwLock::default() }
    }

    async fn open(&self, slot: &RwLock<Option<Arc<Container>>>, name: &str) -> Result<Arc<Container>, Failure> {
        if let Some(container) = slot.read().await.as_ref() {
            return Ok(container.clone());
        }
        // Held while opening, so that many first batches open it once.
        let mut slot = slot.write().await;
        if let Some(container) = slot.as_ref() {
            return Ok(container.clone());
        }
        let container = Arc::new(self.cosmos.container(&self.names.database, name).await?);
        *slot = Some(container.clone());
        Ok(container)
    }
}

impl History for CosmosHistory {
    type Writer = Container;
    type Source = Container;

    async fn writer(&self) -> Result<Arc<Container>, Failure> {
        self.open(&self.changes, &self.names.changes).await
    }

    async fn source(&self) -> Result<Arc<Container>, Failure> {
        self.open(&self.source, &self.names.source).await
    }

    async fn forget(&self) {
        *self.changes.write().await = None;
        *self.source.write().await = None;
        self.cosmos.reset().await;
    }
}

impl HistoryWriter for Container {
    fn key_paths(&self) -> &KeyPaths {
        Self::key_paths(self)
    }

    async fn write(&self, record: &Record) -> Result<f64, Failure> {
        let body = record.body.clone().into_bytes();
        if !record.create_only {
            return self.upsert(&record.key, &record.id, body).await.map(|w| w.charge);
        }
        match self.create(&record.key, &record.id, body).await {
            Ok(written) => Ok(written.charge),
            Err(f) if f.disposition == Disposition::Conflict => Ok(0.0),
            Err(f) => Err(f),
        }
    }

    async fn write_batch(&self, records: &[&Record]) -> Result<f64, Failure> {
        let Some(first) = records.first() else { return Ok(0.0) };
        let mut body = String::with_capacity(records.iter().map(|r| r.body.len() + 64).sum::<usize>() + 2);
        for record in records {
            body.push_str(if body.is_empty() { "[" } else { "," });
            body.push_str("{\"operationType\":\"Upsert\",\"resourceBody\":");
            body.push_str(&record.body);
            body.push('}');
        }
        body.push(']');
        self.upsert_batch(&first.key, body.into_bytes()).await.map(|w| w.charge)
    }
}

impl SourceReader for Container {
    fn key_paths(&self) -> &KeyPaths {
        Self::key_paths(self)
    }

    async fn read(&self, key: &PartitionKey, id: &str) -> Result<Option<String>, Failure> {
        let Some(bytes) = Self::read(self, key, id).await? else { return Ok(None) };
        String::from_utf8(bytes.into())
            .map(Some)
            .map_err(|_| Failure::invalid("read item".into(), "the service sent text that is not UTF-8".into()))
    }

    async fn find(&self, rid: &str, key: Option<&PartitionKey>) -> Result<Option<String>, Failure> {
        // A read by `_self` needs the partition key, too; a query does not.
        let params = [Param::new("rid", rid)];
        let found = self.query_all("SELECT * FROM c WHERE c._rid = @rid", &params, key).await?;
        Ok(found.into_iter().next().map(|document| document.get().to_owned()))
    }
}

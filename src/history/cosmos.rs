//! History on Cosmos DB.

use std::sync::Arc;

use futures::FutureExt as _;

use super::{History, HistoryWriter, SourceReader};
use crate::{
    causes::chain,
    change::{
        key::{KeyPaths, PartitionKey},
        knowledge,
        raw::RawDocument,
        record::Record,
    },
    config::Names,
    cosmos::{Container, Cosmos, Disposition, Failure, Opening, Param, Status},
};

/// The source and changes containers of one function.
#[derive(Debug)]
pub struct CosmosHistory {
    cosmos: Cosmos,
    names: Names,
    changes: Opening<Arc<Container>>,
    source: Opening<Arc<Container>>,
}

impl CosmosHistory {
    /// Remembers the names; contacts nobody.
    pub fn new(cosmos: Cosmos, names: Names) -> Self {
        Self { cosmos, names, changes: Opening::default(), source: Opening::default() }
    }

    /// Database and container of the history.
    pub fn name(&self) -> String {
        format!("{}/{}", self.names.database, self.names.changes)
    }

    async fn open(&self, slot: &Opening<Arc<Container>>, name: &str) -> Result<Arc<Container>, Failure> {
        let (cosmos, database, name) = (self.cosmos.clone(), self.names.database.clone(), name.to_owned());
        slot.get(|| async move { cosmos.container(&database, &name).await.map(Arc::new) }.boxed()).await
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

    async fn is_current(&self) -> Result<bool, Failure> {
        let Some(known) = self.changes.opened() else { return Ok(true) };
        // What this connection knows is what is in question.
        let now = self.cosmos.afresh().container(&self.names.database, &self.names.changes).await?;
        Ok(now.rid() == known.rid() && now.key_paths() == Container::key_paths(&known))
    }

    async fn forget(&self) {
        self.changes.forget();
        self.source.forget();
        self.cosmos.reset();
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
            Err(f) if f.disposition == Disposition::Conflict && record.completes => complete(self, record).await,
            Err(f) if f.disposition == Disposition::Conflict => Ok(0.0),
            Err(f) => Err(f),
        }
    }

    async fn write_batch(&self, records: &[&Record]) -> Result<f64, Failure> {
        let Some(first) = records.first() else { return Ok(0.0) };
        let mut body = String::with_capacity(records.iter().map(|r| r.body.len() + 64).sum::<usize>() + 2);
        for record in records {
            body.push_str(if body.is_empty() { "[" } else { "," });
            body.push_str("{\"operationType\":\"");
            body.push_str(if record.create_only { "Create" } else { "Upsert" });
            body.push_str("\",\"resourceBody\":");
            body.push_str(&record.body);
            body.push('}');
        }
        body.push(']');
        self.upsert_batch(&first.key, body.into_bytes()).await.map(|w| w.charge)
    }
}

/// Completes the record that is there by what this one knows, on the condition that nobody else did meanwhile.
async fn complete(container: &Container, record: &Record) -> Result<f64, Failure> {
    const LOOKS: u32 = 5;
    let wrong = |e: String| Failure::invalid("complete record".into(), e);
    let mut last = None;
    for _ in 0..LOOKS {
        let stored = Container::read(container, &record.key, &record.id).await?;
        let written = match stored {
            Some(stored) => {
                let stored = std::str::from_utf8(&stored).map_err(|e| wrong(e.to_string()))?;
                let Some(body) = knowledge::completed(stored, &record.body).map_err(|e| wrong(chain(&e)))? else {
                    return Ok(0.0);
                };
                let etag =
                    RawDocument::parse(stored).ok().and_then(|stored| Some(stored.get_str("_etag")?.into_owned()));
                let etag = etag.ok_or_else(|| wrong("the stored record has no _etag".into()))?;
                container.replace(&record.key, &record.id, body.into_bytes(), &etag).await
            }
            None => container.create(&record.key, &record.id, record.body.clone().into_bytes()).await,
        };
        match written {
            Ok(written) => return Ok(written.charge),
            // Somebody was quicker; or it was pruned.
            Err(f)
                if matches!(f.disposition, Disposition::PreconditionFailed | Disposition::Conflict)
                    || f.status == Status::NO_ITEM =>
            {
                last = Some(f);
            }
            Err(f) => return Err(f),
        }
    }
    // It moves too fast to be completed now: delivered again, it is.
    let reason = last.map_or_else(String::new, |f| f.to_string());
    Err(Failure::from_status("complete record".into(), Status::new(449, 0), &reason, None))
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

//! The history in Cosmos DB.

mod live;
mod pages;
mod reader;
mod row;

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt as _, StreamExt as _, stream::BoxStream};

pub use self::reader::CosmosReader;
use super::{
    Containers, History, HistoryWriter, SourceReader,
    writing::{settle, write_record},
};
use crate::{
    change::{
        key::{KeyPaths, PartitionKey},
        record::Record,
        version::container_of,
    },
    config::Names,
    cosmos::{
        Container, Cosmos, Disposition, Failure, Gate, Opening, Param,
        bulk::{BulkOutcomes, Operation, Verb},
    },
};

/// The source and changes containers of one function.
#[derive(Debug)]
pub struct CosmosHistory {
    cosmos: Cosmos,
    names: Names,
    changes: Opening<Arc<Container>>,
    source: Opening<Arc<Container>>,
    /// How the documents are keyed, when they are not in a container of this account.
    elsewhere: Option<KeyPaths>,
    /// A source container other than today's, from which something was delivered all the same.
    earlier: Mutex<Option<u64>>,
}

/// Where the changes of a history come from.
#[derive(Debug)]
pub enum CosmosSource {
    /// From a container, in which a document can be read again.
    Container(Arc<Container>),
    /// From documents elsewhere: they are captured as they are, and never read again.
    Elsewhere(KeyPaths),
}

impl CosmosHistory {
    /// Stores the names; contacts nobody.
    pub fn new(cosmos: Cosmos, names: Names) -> Self {
        let (changes, source, earlier) = Default::default();
        Self { cosmos, names, changes, source, elsewhere: None, earlier }
    }

    /// The history of documents elsewhere, keyed by these paths.
    #[must_use]
    pub fn of_documents_elsewhere(self, paths: KeyPaths) -> Self {
        Self { elsewhere: Some(paths), ..self }
    }

    /// The account, and the names of the containers in it.
    pub fn account(&self) -> (&Cosmos, &Names) {
        (&self.cosmos, &self.names)
    }

    /// Database and container of the history.
    pub fn name(&self) -> String {
        self.names.history()
    }

    async fn open(&self, slot: &Opening<Arc<Container>>, name: &str) -> Result<Arc<Container>, Failure> {
        let (cosmos, database, name) = (self.cosmos.clone(), self.names.database.clone(), name.to_owned());
        slot.get(|| async move { cosmos.container(&database, &name).await.map(Arc::new) }.boxed()).await
    }
}

impl History for CosmosHistory {
    type Writer = Container;
    type Source = CosmosSource;

    async fn writer(&self) -> Result<Arc<Container>, Failure> {
        self.open(&self.changes, &self.names.changes).await
    }

    async fn source(&self) -> Result<Arc<CosmosSource>, Failure> {
        let source = match &self.elsewhere {
            Some(paths) => CosmosSource::Elsewhere(paths.clone()),
            None => CosmosSource::Container(self.open(&self.source, &self.names.source).await?),
        };
        Ok(Arc::new(source))
    }

    fn source_name(&self) -> Option<String> {
        self.elsewhere.is_none().then(|| format!("{}/{}", self.names.database, self.names.source))
    }

    async fn is_current(&self) -> Result<bool, Failure> {
        // What this connection knows is in question.
        let cosmos = self.cosmos.afresh();
        for (opened, name) in [(&self.changes, &self.names.changes), (&self.source, &self.names.source)] {
            let Some(known) = opened.opened() else { continue };
            match cosmos.container(&self.names.database, name).await {
                Ok(now) if now.rid() == known.rid() && now.key_paths() == Container::key_paths(&known) => {}
                Ok(_) => return Ok(false),
                // What a source has delivered is stored even when the source is gone or may not be read.
                Err(f)
                    if *name == self.names.source
                        && matches!(f.disposition, Disposition::Denied | Disposition::NotFound) => {}
                Err(f) => return Err(f),
            }
        }
        Ok(true)
    }

    async fn is_of_newer_source(&self, rid: &str) -> Result<bool, Failure> {
        let known = self.source.opened().and_then(|source| container_of(source.rid()));
        let (Some(known), Some(other)) = (known, container_of(rid)) else { return Ok(false) };
        let earlier = || self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        if known == other || *earlier() == Some(other) {
            return Ok(false);
        }
        let is_current = self.is_current().await?;
        if is_current {
            *earlier() = Some(other);
        }
        Ok(!is_current)
    }

    async fn forget(&self) {
        self.changes.forget();
        self.source.forget();
        self.cosmos.reset();
    }
}

/// A history and its source, with everything that the client library can do: for code that reads feeds and leases.
#[derive(Debug, Clone)]
pub struct CosmosContainers {
    /// The history.
    pub changes: Container,
    /// The history's live container.
    pub source: Container,
}

impl CosmosContainers {
    /// Opens both.
    ///
    /// # Errors
    /// When there is no such container, or the account cannot be reached.
    pub async fn open(cosmos: &Cosmos, names: &Names) -> Result<Self, Failure> {
        let changes = cosmos.container(&names.database, &names.changes).await?;
        let source = cosmos.container(&names.database, &names.source).await?;
        Ok(Self { changes, source })
    }

    /// Whether the same part of both containers holds a document and its versions.
    pub fn is_aligned(&self) -> bool {
        self.containers().is_aligned()
    }

    /// The same, as use cases see them; the source is also the target.
    pub fn containers(&self) -> Containers {
        let source = Arc::new(self.source.clone());
        let changes = CosmosReader::new(self.changes.clone(), self.source.key_paths());
        Containers { changes: Arc::new(changes), target: source.clone(), source }
    }
}

impl HistoryWriter for Container {
    fn key_paths(&self) -> &KeyPaths {
        Self::key_paths(self)
    }

    async fn write(&self, record: &Record) -> Result<f64, Failure> {
        write_record(self, record).await
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

    fn packs(&self) -> bool {
        Self::packs(self)
    }

    fn write_many<'a>(&'a self, records: Vec<&'a Record>, gate: &'a Gate) -> BoxStream<'a, BulkOutcomes<f64>> {
        let operation = |record: &&'a Record| {
            let verb = if record.create_only { Verb::Create } else { Verb::Upsert };
            Operation::on(&record.key, &record.id, verb(record.body.as_bytes().into()))
        };
        let sent = self.run_many(records.iter().map(operation).collect(), Some(gate));
        let records: Arc<[&Record]> = records.into();
        let settled = sent.map(move |outcomes| {
            let records = records.clone();
            async move {
                let mut settled = Vec::with_capacity(outcomes.len());
                for (place, outcome) in outcomes {
                    let charge = outcome.map(|done| done.written.charge);
                    settled.push((place, settle(self, records[place], charge).await));
                }
                settled
            }
        });
        // Polled together, never one after the other: an operation in flight may hold what settling needs, such as the
        // client library's lock on the partitions, and it only makes progress while it is polled.
        settled.buffer_unordered(usize::MAX).boxed()
    }
}

impl SourceReader for CosmosSource {
    fn key_paths(&self) -> &KeyPaths {
        match self {
            Self::Container(container) => Container::key_paths(container),
            Self::Elsewhere(paths) => paths,
        }
    }

    async fn read(&self, key: &PartitionKey, id: &str) -> Result<Option<String>, Failure> {
        match self {
            Self::Container(container) => container.read_text(key, id).await,
            Self::Elsewhere(_) => Ok(None),
        }
    }

    async fn find(&self, rid: &str, key: Option<&PartitionKey>) -> Result<Option<String>, Failure> {
        let Self::Container(container) = self else { return Ok(None) };
        // A read by `_self` needs the partition key, too; a query does not.
        let params = [Param::new("rid", rid)];
        let found = container.query_all("SELECT * FROM c WHERE c._rid = @rid", &params, key).await?;
        Ok(found.into_iter().next().map(|document| document.get().to_owned()))
    }
}

//! The past as an account: containers as they were at a moment, for any SDK, filled from their histories in the background.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use serde_json::{Value, json};

use super::{
    LocalCosmos, LocalError, LocalOptions,
    container::{Container, Fetch, Import, Loading, Past},
    message::ContainerName,
};
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        shape::{Redact, Redactor, ShapeError},
        time::PointInTime,
    },
    config::{Names, Secret},
    context::Context,
    cosmos::{Failure, HashRange, Param, RuLimiter},
    frontier::waiting::{WaitError, reach},
    history::{
        Account as _, Containers,
        frontier::Frontier,
        live::{LiveDetail, look_at},
        moment::{Moment, Then},
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, facts_of_id},
    },
    progress::ProgressStep,
    status::size,
};

/// The container that says of which documents nobody knows what they were.
pub const UNKNOWN: &str = "_unknown";
/// What a document costs here beside its text, in bytes.
const OVERHEAD: u64 = 600;

/// Which moment, of which containers.
#[derive(Debug, Clone)]
pub struct PastRequest {
    /// The moment.
    pub at: PointInTime,
    /// The sources, with their histories.
    pub sources: Vec<Names>,
    /// Only documents that matched this condition on `c` at the moment.
    pub predicate: Option<String>,
    /// Values of its parameters.
    pub params: Vec<Param>,
    /// TCP port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// A copy that may be changed.
    pub writable: bool,
    /// Queries run on what is loaded, labelled, instead of waiting for all.
    pub partial: bool,
    /// Bytes of documents that may be loaded.
    pub max_memory: u64,
    /// Values that are left out or hashed.
    pub mask: Vec<Redact>,
    /// The key of hashes.
    pub mask_key: Secret,
    /// Waits until capture has passed the moment.
    pub wait: bool,
    /// Documents read at the same time.
    pub concurrency: usize,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
}

/// Why the past cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The account that is captured cannot be used.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// The account of the past does not work.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A value to mask is one that a document cannot be without.
    #[error("--mask")]
    Mask(#[source] ShapeError),
    /// The documents are too many, or too large.
    #[error("about {} MB are needed, {} MB are allowed", needed.div_ceil(1 << 20), most >> 20)]
    TooLarge {
        /// Bytes that are needed, as far as it is known.
        needed: u64,
        /// Bytes that are allowed.
        most: u64,
    },
    /// Waiting for capture was ended.
    #[error("stopped while waiting for capture")]
    Stopped,
}

impl From<WaitError> for PastError {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Cosmos(failure) => Self::Cosmos(failure),
            WaitError::Stopped => Self::Stopped,
        }
    }
}

/// What was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Documents.
    pub documents: u64,
    /// Documents and records of which nobody knows what they were; `_unknown` lists them.
    pub unknown: u64,
    /// Bytes of the documents.
    pub bytes: u64,
    /// Whether a history ends before the moment.
    pub beyond: bool,
}

/// An account that shows the past.
pub struct PastAccount {
    local: LocalCosmos,
    at: PointInTime,
    loaders: Vec<Arc<Loader>>,
    concurrency: usize,
}

impl fmt::Debug for PastAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PastAccount").field("local", &self.local).finish_non_exhaustive()
    }
}

impl PastAccount {
    /// Starts the account; nothing is loaded yet, but what is read by name is fetched.
    ///
    /// # Errors
    /// When a container or a port cannot be opened, or the documents would need too much memory.
    pub async fn start(request: &PastRequest, cx: &Context<'_>) -> Result<Self, PastError> {
        let most = request.max_memory;
        if request.predicate.is_none() {
            let mut needed = 0;
            for names in &request.sources {
                // What is live is about what was there; the history does not say how much of it that was.
                let source = cx.account.container(&names.database, &names.source).await?;
                let size = size::size(&source, async |_| ()).await?;
                needed += size.estimate() + size.items * OVERHEAD;
            }
            if needed > most {
                return Err(PastError::TooLarge { needed, most });
            }
        }
        let limiter = RuLimiter::new(cx.account.meter(), request.ru_limit);
        let retained_bytes = if request.writable { LocalOptions::default().retained_bytes } else { 0 };
        let options = LocalOptions { port: request.port, retained_bytes, ..LocalOptions::default() };
        let local = LocalCosmos::start(options).await?;
        let mut loaders = Vec::new();
        for names in &request.sources {
            let any = cx.any();
            let containers = cx.account.containers(names, None).await?;
            let frontier = reach(request.at, request.wait, &limiter, &Context { names, ..any }).await?;
            let keys = containers.source.key_paths();
            let redactor = Redactor::new(&[], &request.mask, keys, Some(request.mask_key.clone()));
            let paths: Vec<String> = keys.segments().iter().map(|path| crate::change::key::render_path(path)).collect();
            let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
            local.create_database(&names.database).await?;
            let key = json!({"paths": paths, "kind": kind, "version": 2});
            local.create_container(&names.database, json!({"id": names.source, "partitionKey": key})).await?;
            let key = json!({"paths": ["/container"], "kind": "Hash", "version": 2});
            local.create_container(&names.database, json!({"id": UNKNOWN, "partitionKey": key})).await?;
            let open = async |name: &str| {
                let name = ContainerName::new(&names.database, name);
                local
                    .gateway
                    .container(&name)
                    .await
                    .map_err(|answer| LocalError::refused(format!("open {name}"), &answer))
            };
            let loader = Arc::new(Loader {
                source: names.source.clone(),
                at: request.at,
                containers,
                beyond: !frontier.covers(request.at),
                frontier,
                limiter: limiter.clone(),
                scope: match &request.predicate {
                    Some(predicate) => Scope::Where { predicate: predicate.clone(), params: request.params.clone() },
                    None => Scope::All,
                },
                redactor: redactor.map_err(PastError::Mask)?,
                writable: request.writable,
                container: open(&names.source).await?,
                unknown: open(UNKNOWN).await?,
                most,
                documents: AtomicU64::new(0),
                bytes: AtomicU64::new(0),
                unknowns: AtomicU64::new(0),
            });
            let known = Past::new(request.at.to_string(), false, None);
            known.ended(Loading::Done);
            loader.unknown.show_past(Arc::new(known));
            let fetch =
                request.predicate.is_none().then(|| Arc::new(Fetching(Arc::downgrade(&loader))) as Arc<dyn Fetch>);
            loader.container.show_past(Arc::new(Past::new(request.at.to_string(), request.partial, fetch)));
            loaders.push(loader);
        }
        if !request.writable {
            let names: Vec<&str> = request.sources.iter().map(|names| names.source.as_str()).collect();
            local.gateway.freeze(format!(
                "This account shows {} as of {} and cannot be changed; started with --writable it is a copy that can",
                names.join(", "),
                request.at
            ));
        }
        Ok(Self { local, at: request.at, loaders, concurrency: request.concurrency })
    }

    /// The account.
    pub fn account(&self) -> &LocalCosmos {
        &self.local
    }

    /// The moment.
    pub fn at(&self) -> PointInTime {
        self.at
    }

    /// Loads all documents. What is odd is told.
    ///
    /// # Errors
    /// When the account that is captured cannot be read, or the documents need more memory than is allowed. Queries are
    /// refused then.
    pub async fn load(&self, step: &dyn ProgressStep) -> Result<Loaded, PastError> {
        let mut loaded = Loaded::default();
        for loader in &self.loaders {
            let done = loader.load(self.concurrency, step).await;
            let how = match &done {
                Ok(()) => Loading::Done,
                Err(error) => Loading::Failed(crate::causes::chain(error)),
            };
            if let Some(past) = loader.container.past() {
                past.ended(how);
            }
            done?;
            loaded.documents += loader.documents.load(Ordering::Relaxed);
            loaded.unknown += loader.unknowns.load(Ordering::Relaxed);
            loaded.bytes += loader.bytes.load(Ordering::Relaxed);
            loaded.beyond |= loader.beyond;
        }
        Ok(loaded)
    }

    /// Closes the port, within a moment.
    pub async fn shutdown(self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.local.shutdown()).await;
    }
}

/// Fills one container.
struct Loader {
    source: String,
    at: PointInTime,
    containers: Containers,
    frontier: Frontier,
    beyond: bool,
    limiter: RuLimiter,
    scope: Scope,
    redactor: Option<Redactor>,
    writable: bool,
    container: Arc<Container>,
    unknown: Arc<Container>,
    most: u64,
    documents: AtomicU64,
    bytes: AtomicU64,
    unknowns: AtomicU64,
}

impl Loader {
    async fn load(&self, concurrency: usize, step: &dyn ProgressStep) -> Result<(), PastError> {
        if self.beyond {
            step.note(&format!("warning: {}: {}, before {}", self.source, self.frontier.describe(), self.at));
        }
        let scan = Scan {
            containers: &self.containers,
            wanted: &self.scope,
            at: self.at,
            hash_ranges: &HashRange::WHOLE.cut(4),
            live: LiveDetail::Etag,
            piece_rows: PIECE_ROWS,
            pace: &self.limiter,
            texts: ScanTexts::InForce(&|found| found.document_at(self.at).is_some()),
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            for bad in &piece.bad {
                self.is_unknown(&bad.record_id, &Value::Null, &bad.to_string(), Some(step)).await;
            }
            let found = stream::iter(&piece.found)
                .map(|found| async move { self.take(found, Some(step)).await })
                .buffer_unordered(concurrency.max(1));
            found.try_for_each(|()| std::future::ready(Ok(()))).await?;
            step.advance(piece.found.len() as u64);
        }
        Ok(())
    }

    /// Takes in what a document was.
    async fn take(&self, found: &ScannedItem, step: Option<&dyn ProgressStep>) -> Result<(), PastError> {
        let all = matches!(self.scope, Scope::All);
        let moment = Moment::new(self.at, all, &self.containers, &self.frontier, &self.limiter);
        let key = found.item.partition_key.to_json();
        let mut chosen = match moment.choose(found) {
            Then::Nothing => return Ok(()),
            Then::Unknown(doubt) => {
                self.is_unknown(&found.item.id, &key, &doubt, step).await;
                return Ok(());
            }
            Then::Document(chosen) => chosen,
        };
        let text = match moment.text_of(&mut chosen).await? {
            Ok(text) => text,
            Err(problem) => {
                self.is_unknown(&found.item.id, &key, &problem.to_string(), step).await;
                return Ok(());
            }
        };
        if let Some(partial) = chosen.caveats.iter().find(|c| matches!(c, crate::history::as_of::Caveat::Partial)) {
            self.is_unknown(&found.item.id, &key, &partial.to_string(), step).await;
            return Ok(());
        }
        let text = match self.redactor.as_ref().map_or(Ok(text.clone()), |redactor| redactor.shaped(&text)) {
            Ok(text) => text,
            Err(problem) => {
                self.is_unknown(&found.item.id, &key, &problem.to_string(), step).await;
                return Ok(());
            }
        };
        let needed = self.bytes.load(Ordering::Relaxed) + text.len() as u64 + OVERHEAD;
        if needed > self.most {
            return Err(PastError::TooLarge { needed, most: self.most });
        }
        let document = Import { text, etag: chosen.etag, ts: u64::try_from(chosen.ts).unwrap_or_default() };
        match self.container.import(document, self.writable).await {
            Ok(0) => {}
            Ok(bytes) => {
                self.bytes.fetch_add(bytes as u64 + OVERHEAD, Ordering::Relaxed);
                self.documents.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => self.is_unknown(&found.item.id, &key, &problem, step).await,
        }
        Ok(())
    }

    /// Lists a document of which nobody knows what it was.
    async fn is_unknown(&self, id: &str, key: &Value, reason: &str, step: Option<&dyn ProgressStep>) {
        /// So many are named; a query finds all.
        const NAMED: u64 = 10;
        let name = format!("{id} {key}");
        let listed = json!({
            "id": crate::change::record::hex(&<sha2::Sha256 as sha2::Digest>::digest(name.as_bytes())),
            "container": self.source, "documentId": id, "pk": key, "reason": reason,
        });
        let (text, etag) = (listed.to_string(), None);
        let ts = u64::try_from(self.at.seconds()).unwrap_or_default();
        // Fetched by name and loaded, it is listed once.
        if !matches!(self.unknown.import(Import { text, etag, ts }, self.writable).await, Ok(bytes) if bytes > 0) {
            return;
        }
        let count = self.unknowns.fetch_add(1, Ordering::Relaxed);
        if let Some(step) = step.filter(|_| count < NAMED) {
            step.note(&format!("unknown    {}: {id} {key}: {reason}", self.source));
        }
    }

    async fn fetch(&self, id: &str, key: &str) -> Result<(), String> {
        let item = ItemKey { id: id.to_owned(), partition_key: PartitionKey::parse(key)? };
        let failed = |e: &dyn std::error::Error| crate::causes::chain(e);
        let found = facts_of_id(&self.containers, &self.limiter, id, Some(&item.partition_key)).await;
        let (found, _) = found.map_err(|e| failed(&e))?;
        let mut found =
            found.into_iter().find(|found| found.item == item).unwrap_or_else(|| ScannedItem::new(item.clone()));
        let live = look_at(&*self.containers.source, &self.limiter, &item, false).await;
        found.live = live.map_err(|e| failed(&e))?;
        if found.versions.is_empty() && found.live.is_none() {
            return Ok(());
        }
        self.take(&found, None).await.map_err(|e| failed(&e))
    }
}

/// Fetches by name while the account lives.
struct Fetching(std::sync::Weak<Loader>);

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetching")
    }
}

impl Fetch for Fetching {
    fn fetch<'a>(&'a self, id: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            match self.0.upgrade() {
                Some(loader) => loader.fetch(id, key).await,
                None => Err("the account is being closed".into()),
            }
        }
        .boxed()
    }
}

//! A container that shows a moment of the past. It is filled in the background. Until that is done, documents that are
//! requested by id are fetched first.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::http::Method;
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

use super::LocalContainer;
use crate::local::{
    guid,
    keys::{DocumentKey, partition_key_of},
    log::{Document, Put, WriteLog},
    message::{Ask, GatewayAnswer, Target, ascii_json, header, json_of},
    unique,
};

/// How long a request waits for the load before the client is told to retry.
const LOADING_TIMEOUT: Duration = Duration::from_secs(30);
/// Header with the moment that a response shows.
const AT: &str = "x-cosmos-rewind-at";
/// Header that marks a response as possibly incomplete, because not all documents are loaded yet.
const PARTIAL: &str = "x-cosmos-rewind-partial";

/// Fetches a document that is not loaded yet.
pub(in crate::local) trait Fetch: fmt::Debug + Send + Sync {
    /// Fetches the document, if it existed; returns the problem when that is unknown.
    fn fetch<'a>(&'a self, id: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// Brings a container up to date before it is read.
pub(in crate::local) trait Refresh: fmt::Debug + Send + Sync {
    /// Adds the new versions; returns the problem when that fails.
    fn refresh<'a>(&'a self, container: &'a LocalContainer) -> BoxFuture<'a, Result<(), String>>;
}

/// The progress of the load.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::local) enum Loading {
    Running,
    Done,
    /// The load ended early for this reason.
    Failed(String),
}

/// See the module's description.
#[derive(Debug)]
pub(in crate::local) struct Past {
    /// The moment in RFC 3339.
    pub at: String,
    /// Whether queries run on the documents loaded so far instead of waiting for all of them.
    pub partial: bool,
    /// `None` when only the load knows which documents exist.
    pub fetch: Option<Arc<dyn Fetch>>,
    /// Set for a list that this account maintains and that nobody else writes.
    pub refresh: Option<Arc<dyn Refresh>>,
    loading: watch::Sender<Loading>,
    loaded: AtomicU64,
    said: AtomicBool,
}

/// A document to load.
pub(in crate::local) struct Import {
    /// Its text as its users wrote it.
    pub text: String,
    /// Its ETag at the moment; `None` when unknown.
    pub etag: Option<String>,
    /// When it was written, in epoch seconds.
    pub ts: u64,
}

impl Past {
    pub fn new(at: String, partial: bool, fetch: Option<Arc<dyn Fetch>>) -> Self {
        let loading = watch::Sender::new(Loading::Running);
        Self { at, partial, fetch, refresh: None, loading, loaded: AtomicU64::new(0), said: AtomicBool::new(false) }
    }

    /// Creates the state of a list that is always complete, because it is refreshed before it is read.
    pub fn kept(at: String, refresh: Option<Arc<dyn Refresh>>) -> Self {
        let past = Self { refresh, ..Self::new(at, false, None) };
        past.ended(Loading::Done);
        past
    }

    /// Records that the load has ended.
    pub fn ended(&self, how: Loading) {
        self.loading.send_replace(how);
    }

    fn is_loaded(&self) -> bool {
        *self.loading.borrow() == Loading::Done
    }

    /// Waits for the load; returns an error response when it does not finish in time.
    async fn wait(&self, ask: &Ask) -> Result<(), GatewayAnswer> {
        if self.is_loaded() {
            return Ok(());
        }
        if !self.said.swap(true, Ordering::Relaxed) {
            tracing::warn!(method = %ask.method, "a request waits until all documents are loaded");
        }
        let mut loading = self.loading.subscribe();
        let ended =
            tokio::time::timeout(LOADING_TIMEOUT, loading.wait_for(|loading| *loading != Loading::Running)).await;
        match ended.ok().and_then(Result::ok).as_deref() {
            Some(Loading::Done) => Ok(()),
            Some(Loading::Failed(problem)) => {
                Err(GatewayAnswer::error(503, None, "ServiceUnavailable", format!("The load was given up: {problem}")))
            }
            _ => {
                let loaded = self.loaded.load(Ordering::Relaxed);
                let message = format!(
                    "{loaded} documents are loaded so far, and this needs all of them: ask again, or start with --partial"
                );
                let mut answer = GatewayAnswer::error(503, None, "ServiceUnavailable", message);
                answer.headers.set(header::RETRY_AFTER, "5000");
                Err(answer)
            }
        }
    }

    /// Answers point reads, and makes requests that need all documents wait. `None` means that the request is handled
    /// as for any other container.
    pub async fn answer(&self, container: &LocalContainer, target: &Target, ask: &Ask) -> Option<GatewayAnswer> {
        if let Some(refresh) = &self.refresh {
            if ask.is_write() {
                let message = "This list is kept by the account itself and cannot be changed";
                return Some(GatewayAnswer::error(403, None, "Forbidden", message));
            }
            if let Err(problem) = refresh.refresh(container).await {
                return Some(GatewayAnswer::error(503, None, "ServiceUnavailable", problem));
            }
        }
        match (target, &ask.method) {
            (Target::Document(_, id), &Method::GET) => Some(self.read(container, id, ask).await),
            (_, &Method::POST) if ask.headers.is_true(header::IS_QUERY_PLAN) => None,
            // Queries, the read feed and the change feed. A write waits as well: otherwise a document that it deletes
            // would be loaded again afterwards.
            _ if self.partial && !ask.is_write() => None,
            _ => self.wait(ask).await.err(),
        }
    }

    /// Adds headers to a response: the moment that it shows, and whether documents may be missing.
    pub fn label(&self, answer: &mut GatewayAnswer) {
        answer.headers.set(AT, self.at.as_str());
        if !self.is_loaded() {
            answer.headers.set(PARTIAL, "true");
        }
    }

    async fn read(&self, container: &LocalContainer, id: &str, ask: &Ask) -> GatewayAnswer {
        if let Err(answer) = container.check_key(ask) {
            return *answer;
        }
        let key = match container.key_of(ask) {
            Ok(key) => key,
            Err(answer) => return *answer,
        };
        // Checked before the read, so that a document that is loaded meanwhile is still found.
        let is_loaded = self.is_loaded();
        if let Some(answer) = container.read_document(&key, ask).await {
            return answer;
        }
        if !is_loaded {
            match &self.fetch {
                Some(fetch) => {
                    let values = ask.headers.get(header::PARTITION_KEY).unwrap_or("[]");
                    if let Err(problem) = fetch.fetch(id, values).await {
                        return GatewayAnswer::error(503, None, "ServiceUnavailable", problem);
                    }
                }
                None => {
                    if let Err(answer) = self.wait(ask).await {
                        return answer;
                    }
                }
            }
            if let Some(answer) = container.read_document(&key, ask).await {
                return answer;
            }
        }
        GatewayAnswer::error(404, None, "NotFound", "Entity with the specified id does not exist in the system")
    }
}

impl LocalContainer {
    /// Makes this container show the past. Nothing in it expires, whatever its description says.
    pub async fn show_past(&self, past: Arc<Past>) {
        self.write().await.set_default_ttl(None);
        // Set once: a container shows only one moment.
        let _ = self.past.set(past);
    }

    /// From now on, keeps each document's text from before its first write.
    pub async fn remember_originals(&self) {
        self.write().await.remember_originals();
    }

    pub fn past(&self) -> Option<&Arc<Past>> {
        self.past.get()
    }

    /// Returns a document from the log; `None` when it does not exist.
    async fn read_document(&self, key: &DocumentKey, ask: &Ask) -> Option<GatewayAnswer> {
        let log = self.read().await;
        let Document { text, etag, .. } = log.get(key)?;
        let mut answer = GatewayAnswer::json(200, text.clone());
        if ask.headers.get("if-none-match") == Some(etag) {
            (answer.status, answer.body) = (304, Bytes::new());
        }
        answer.headers.set("etag", etag.as_str());
        Some(answer)
    }

    /// Adds a document of the past; returns its size in bytes, or 0 when it exists already.
    ///
    /// # Errors
    /// When it is not a document, or the emulator refuses it.
    pub async fn import(&self, document: Import, writable: bool) -> Result<usize, String> {
        let value = json_of(document.text.as_bytes()).map_err(|e| format!("it cannot be read: {e}"))?;
        let id = value["id"].as_str().ok_or("it has no id")?.to_owned();
        let partition_key = partition_key_of(&value, &self.partitioning().paths);
        let range = self.partitioning().range_of(&partition_key).ok_or("its partition key is none")?;
        let key = DocumentKey { epk: range.min, id };
        let mut log = self.write().await;
        // A document that was fetched by id arrives too late when it was deleted meanwhile.
        if log.get(&key).is_some() || log.is_written(&key) {
            return Ok(0);
        }
        if writable && log.unique().is_some_and(|keys| keys.conflicts(&key.epk, &value, &[&key.id])) {
            return Err(format!("the copy refuses it: {}", unique::TAKEN));
        }
        let put = if writable {
            self.in_emulator(&document, &partition_key).await?
        } else {
            let etag = document.etag.clone().unwrap_or_else(guid);
            let text = self.with_system(&document, &etag, &log)?;
            Put { key, text: text.into(), etag, ts: document.ts, ttl: None, partition_key, renamed_from: None }
        };
        let bytes = put.text.len();
        log.begin();
        log.import(Put { ttl: None, ..put });
        if let Some(past) = self.past() {
            past.loaded.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    /// Returns the document's text with the service's system properties.
    fn with_system(&self, document: &Import, etag: &str, log: &WriteLog) -> Result<String, String> {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let mut bytes = base64.decode(self.rid().replace('-', "/")).unwrap_or_default();
        bytes.extend((log.lsn() + 1).to_le_bytes());
        let rid = base64.encode(bytes).replace('/', "-");
        let own = document.text.trim_end().strip_suffix('}').ok_or("it is not a JSON object")?;
        let comma = if own.trim_end().ends_with('{') { "" } else { "," };
        let (database, etag) = (self.database_rid(), Value::from(etag));
        Ok(format!(
            "{own}{comma}\"_rid\":\"{rid}\",\"_self\":\"dbs/{database}/colls/{}/docs/{rid}/\",\"_etag\":{etag},\"_attachments\":\"attachments/\",\"_ts\":{}}}",
            self.rid(),
            document.ts
        ))
    }

    /// Stores the document in the emulator; only the time of the write differs.
    async fn in_emulator(&self, document: &Import, partition_key: &[Value]) -> Result<Put, String> {
        let key = Value::Array(partition_key.to_vec()).to_string();
        let ask = Ask::new(Method::POST, format!("{}/docs", self.name().path()))
            .with_header(header::PARTITION_KEY, ascii_json(&key))
            .with_header(header::CONTENT_ON_WRITE, "true")
            .with_body(document.text.clone());
        let answer = self.emulator().execute(&ask).await;
        if !answer.is_success() {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let reason = body["message"].as_str().unwrap_or("no reason given");
            return Err(format!("the copy refuses it: {} {reason}", answer.status));
        }
        self.remember_session(&answer);
        let mut put = self.stored(&answer.body).map_err(|_| "the copy cannot read it")?;
        let text = String::from_utf8_lossy(&put.text)
            .replace(&format!("\"_ts\":{}", put.ts), &format!("\"_ts\":{}", document.ts));
        (put.text, put.ts) = (text.into(), document.ts);
        Ok(put)
    }
}

//! One container: its description, its physical partitions, its write log, and the lock around both.

mod clock;
mod containers;
mod document_key;
mod past;
mod ranges;
mod write;

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, PoisonError, RwLock as SyncRwLock},
};

use axum::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::{
    emulator::{Emulator, Partitioning},
    keys::EpkRange,
    log::WriteLog,
    message::{Ask, ContainerName, GatewayAnswer, Headers, header},
    sql::Computed,
    unique::UniqueKeys,
};

pub(super) use self::{
    clock::Clock,
    containers::Containers,
    document_key::{too_long, wrong_key},
    past::{Fetch, Import, Loading, Past, Refresh},
    ranges::{PhysicalRange, RangeError},
    write::check_members,
};

/// See the module's description.
#[derive(Debug)]
pub(super) struct LocalContainer {
    name: ContainerName,
    rid: String,
    partitioning: Partitioning,
    ranges: SyncRwLock<Vec<PhysicalRange>>,
    /// Writes hold it exclusively from the emulator until the log, so that a reader sees a transaction completely or
    /// not at all.
    log: Arc<RwLock<WriteLog>>,
    /// Computed properties, which only queries see.
    computed: SyncRwLock<Arc<Computed>>,
    /// The session token of the last write to each physical partition.
    sessions: SyncRwLock<BTreeMap<String, String>>,
    /// Held by a split or merge, so that work that neither may interrupt does not start meanwhile.
    reshaping: RwLock<()>,
    /// Set when the container shows a moment of the past.
    past: OnceLock<Arc<Past>>,
    emulator: Arc<Emulator>,
    clock: Arc<Clock>,
}

/// The relevant parts of a container's description.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    #[serde(rename = "_rid")]
    rid: String,
    partition_key: Value,
    #[serde(default)]
    default_ttl: Option<i64>,
    #[serde(default)]
    unique_key_policy: Option<Value>,
    #[serde(default)]
    computed_properties: Value,
}

impl LocalContainer {
    async fn open(
        name: ContainerName,
        emulator: Arc<Emulator>,
        clock: Arc<Clock>,
        retained_bytes: usize,
    ) -> Result<Self, GatewayAnswer> {
        let found = emulator.execute(&Ask::new(Method::GET, name.path())).await;
        if !found.is_success() {
            return Err(found);
        }
        let unreadable = |error: String| GatewayAnswer::error(500, None, "InternalServerError", error);
        let description: Description =
            serde_json::from_slice(&found.body).map_err(|error| unreadable(error.to_string()))?;
        let partitioning = Partitioning::parse(&description.partition_key)
            .ok_or_else(|| unreadable("the container's partition key definition is not understood".into()))?;
        let mut log = WriteLog::new(retained_bytes, description.default_ttl);
        if let Some(keys) = description.unique_key_policy.as_ref().and_then(UniqueKeys::of) {
            log.keep_unique(keys);
        }
        let container = Self {
            name,
            rid: description.rid,
            partitioning,
            ranges: SyncRwLock::default(),
            log: Arc::new(RwLock::new(log)),
            computed: SyncRwLock::new(Arc::new(Computed::read(&description.computed_properties))),
            sessions: SyncRwLock::default(),
            reshaping: RwLock::default(),
            past: OnceLock::new(),
            emulator,
            clock,
        };
        container.reload_ranges().await?;
        Ok(container)
    }

    pub fn name(&self) -> &ContainerName {
        &self.name
    }

    pub fn rid(&self) -> &str {
        &self.rid
    }

    /// Returns the database's resource id: the first four bytes of the container's.
    pub fn database_rid(&self) -> String {
        use base64::Engine as _;
        let base64 = base64::engine::general_purpose::STANDARD;
        let bytes = base64.decode(self.rid.replace('-', "/")).unwrap_or_default();
        base64.encode(bytes.get(..4).unwrap_or_default()).replace('/', "-")
    }

    pub fn partitioning(&self) -> &Partitioning {
        &self.partitioning
    }

    pub fn emulator(&self) -> &Arc<Emulator> {
        &self.emulator
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn computed(&self) -> Arc<Computed> {
        Arc::clone(&self.computed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember_session(&self, answer: &GatewayAnswer) {
        let Some(token) = answer.headers.get(header::SESSION) else { return };
        if let Some((range, _)) = token.split_once(':') {
            let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(range.to_owned(), token.to_owned());
        }
    }

    /// Returns the headers of a response about `range` that is made here: request charge and session token.
    pub fn answer_headers(&self, range: &EpkRange) -> Headers {
        let mut headers = GatewayAnswer::json(200, Bytes::new()).headers;
        let touched = self.ranges().into_iter().filter(|physical| physical.range.overlaps(range));
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let tokens: Vec<String> = touched.filter_map(|physical| sessions.get(&physical.id).cloned()).collect();
        if !tokens.is_empty() {
            headers.set(header::SESSION, tokens.join(","));
        }
        headers
    }

    /// Locks the log for reading, after removing expired documents.
    pub async fn read(&self) -> OwnedRwLockReadGuard<WriteLog> {
        let log = Arc::clone(&self.log).read_owned().await;
        if log.first_due(self.clock.now()).is_none() {
            return log;
        }
        drop(log);
        drop(self.write().await);
        Arc::clone(&self.log).read_owned().await
    }

    /// Locks the log for writing, after removing expired documents.
    pub async fn write(&self) -> OwnedRwLockWriteGuard<WriteLog> {
        let mut log = Arc::clone(&self.log).write_owned().await;
        self.expire(&mut log).await;
        log
    }

    /// Adopts the container's description after it was replaced.
    pub async fn described(&self, description: &[u8]) {
        if let Ok(description) = serde_json::from_slice::<Description>(description) {
            let computed = Computed::read(&description.computed_properties);
            *self.computed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(computed);
            // A container of the past expires nothing.
            if self.past.get().is_none() {
                self.write().await.set_default_ttl(description.default_ttl);
            }
        }
    }
}

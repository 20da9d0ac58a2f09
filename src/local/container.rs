//! One container: its description, its physical partitions, its write log and the lock around both.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock as SyncRwLock};
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::emulator::{Emulator, Partitioning};
use super::keys::{DocumentKey, Epk, EpkRange, partition_key_of};
use super::log::{Put, WriteLog};
use super::message::{Answer, Ask, ContainerName, ascii_json, header};

/// The service's limit of an item's id, in bytes.
const MAX_ID_BYTES: usize = 1023;

/// The account's clock: that of the machine, which tests may move forward for the time to live; or a simulated one.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead: AtomicU64,
    /// When the simulation began, and what its time was then.
    simulated: OnceLock<(tokio::time::Instant, u64)>,
}

impl Clock {
    /// One whose time is the runtime's, and `now` at this moment.
    pub fn simulated(now: u64) -> Self {
        Self { ahead: AtomicU64::new(0), simulated: OnceLock::from((tokio::time::Instant::now(), now)) }
    }

    pub fn is_simulated(&self) -> bool {
        self.simulated.get().is_some()
    }

    /// Seconds since the epoch.
    pub fn now(&self) -> u64 {
        let now = match self.simulated.get() {
            Some((begun, then)) => then + begun.elapsed().as_secs(),
            None => u64::try_from(chrono::Utc::now().timestamp()).unwrap_or_default(),
        };
        now + self.ahead.load(Ordering::Relaxed)
    }

    pub fn advance(&self, by: Duration) {
        self.ahead.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

/// A physical partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PhysicalRange {
    pub id: String,
    pub range: EpkRange,
}

/// A request named a range that is not there.
#[derive(Debug)]
pub(super) enum RangeError {
    /// It was split or merged away.
    Gone,
    Invalid(String),
}

/// See the module's description.
#[derive(Debug)]
pub(super) struct Container {
    name: ContainerName,
    rid: String,
    partitioning: Partitioning,
    has_unique_keys: bool,
    ranges: SyncRwLock<Vec<PhysicalRange>>,
    /// Writes hold it alone, from the emulator to the log, so that a reader sees a transaction whole or not at all.
    log: Arc<RwLock<WriteLog>>,
    /// Held by a split or merge: what must not be cut in the middle does not start meanwhile.
    reshaping: RwLock<()>,
    emulator: Arc<Emulator>,
    clock: Arc<Clock>,
}

/// The parts of a container's description that matter here.
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
}

#[derive(Deserialize)]
struct RangeList {
    #[serde(rename = "PartitionKeyRanges")]
    ranges: Vec<RangeDescription>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RangeDescription {
    id: String,
    min_inclusive: String,
    max_exclusive: String,
}

/// The system properties of a stored document.
#[derive(Deserialize)]
struct Stored {
    id: String,
    #[serde(rename = "_etag")]
    etag: String,
    #[serde(rename = "_ts")]
    ts: u64,
    #[serde(default)]
    ttl: Option<Value>,
}

impl Container {
    async fn open(
        name: ContainerName,
        emulator: Arc<Emulator>,
        clock: Arc<Clock>,
        retained_bytes: usize,
    ) -> Result<Self, Answer> {
        let found = emulator.execute(&Ask::new(Method::GET, name.path())).await;
        if !found.is_success() {
            return Err(found);
        }
        let unreadable = |error: String| Answer::error(500, None, "InternalServerError", error);
        let description: Description =
            serde_json::from_slice(&found.body).map_err(|error| unreadable(error.to_string()))?;
        let partitioning = Partitioning::parse(&description.partition_key)
            .ok_or_else(|| unreadable("the container's partition key definition is not understood".into()))?;
        let unique = description.unique_key_policy.as_ref().and_then(|policy| policy["uniqueKeys"].as_array());
        let container = Self {
            name,
            rid: description.rid,
            partitioning,
            has_unique_keys: unique.is_some_and(|keys| !keys.is_empty()),
            ranges: SyncRwLock::default(),
            log: Arc::new(RwLock::new(WriteLog::new(retained_bytes, description.default_ttl))),
            reshaping: RwLock::default(),
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

    /// The database's resource id: the first four bytes of the container's.
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

    /// Unique keys are known to the emulator only.
    pub fn has_unique_keys(&self) -> bool {
        self.has_unique_keys
    }

    /// The physical partitions, in the order of their keys.
    pub fn ranges(&self) -> Vec<PhysicalRange> {
        self.ranges.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn reload_ranges(&self) -> Result<(), Answer> {
        let answer = self.emulator.execute(&Ask::new(Method::GET, format!("{}/pkranges", self.name.path()))).await;
        let list: RangeList = serde_json::from_slice(&answer.body).map_err(|_| answer)?;
        let mut ranges: Vec<PhysicalRange> = list
            .ranges
            .into_iter()
            .filter_map(|found| {
                let range = EpkRange { min: Epk::parse(&found.min_inclusive)?, max: Epk::parse(&found.max_exclusive)? };
                Some(PhysicalRange { id: found.id, range })
            })
            .collect();
        ranges.sort_by(|left, right| left.range.min.cmp(&right.range.min));
        *self.ranges.write().unwrap_or_else(PoisonError::into_inner) = ranges;
        Ok(())
    }

    /// Runs a split or merge and reads the partitions again. Single writes go on and may see 410 meanwhile, as with
    /// the service.
    pub async fn reshape<T>(&self, work: impl Future<Output = T>) -> Result<T, Answer> {
        let _alone = self.reshaping.write().await;
        let done = work.await;
        self.reload_ranges().await?;
        Ok(done)
    }

    /// Permission to start something that a split must not interrupt; `None` while one is under way.
    pub fn hold_shape(&self) -> Option<tokio::sync::RwLockReadGuard<'_, ()>> {
        self.reshaping.try_read().ok()
    }

    /// What a request is limited to by its partition key, partition key range and EPK headers together.
    pub fn range_of(&self, ask: &Ask) -> Result<EpkRange, RangeError> {
        let mut range = EpkRange::full();
        if let Some(id) = ask.headers.get(header::RANGE_ID) {
            // Some clients send `<container rid>,<id>`.
            let id = id.rsplit(',').next().unwrap_or(id).trim();
            let found = self.ranges().into_iter().find(|range| range.id == id);
            range = found.ok_or(RangeError::Gone)?.range;
        }
        if let Some(text) = ask.headers.get(header::START_EPK) {
            let min = Epk::parse(text).ok_or_else(|| invalid(header::START_EPK, text))?;
            range.min = range.min.max(min);
        }
        if let Some(text) = ask.headers.get(header::END_EPK) {
            let max = Epk::parse(text).ok_or_else(|| invalid(header::END_EPK, text))?;
            range.max = range.max.min(max);
        }
        if let Some(text) = ask.headers.get(header::PARTITION_KEY) {
            let values: Vec<Value> = serde_json::from_str(text).map_err(|_| invalid(header::PARTITION_KEY, text))?;
            if !values.is_empty() {
                let key = self.partitioning.range_of(&values).ok_or_else(|| invalid(header::PARTITION_KEY, text))?;
                if key.min == key.max {
                    return Ok(key);
                }
                range = EpkRange { min: range.min.max(key.min), max: range.max.min(key.max) };
            }
        }
        if range.min > range.max {
            return Err(RangeError::Invalid("the requested key ranges do not overlap".into()));
        }
        Ok(range)
    }

    /// The log, to read; documents whose time has come are gone by then.
    pub async fn read(&self) -> OwnedRwLockReadGuard<WriteLog> {
        let log = Arc::clone(&self.log).read_owned().await;
        if log.first_due(self.clock.now()).is_none() {
            return log;
        }
        drop(log);
        drop(self.write().await);
        Arc::clone(&self.log).read_owned().await
    }

    /// The log, to write; documents whose time has come are gone by then.
    pub async fn write(&self) -> OwnedRwLockWriteGuard<WriteLog> {
        let mut log = Arc::clone(&self.log).write_owned().await;
        self.expire(&mut log).await;
        log
    }

    async fn expire(&self, log: &mut WriteLog) {
        let now = self.clock.now();
        if log.first_due(now).is_none() {
            return;
        }
        let Some(_shape) = self.hold_shape() else { return };
        while let Some(key) = log.first_due(now) {
            let Some(document) = log.get(&key) else { return };
            let answer = self.remove(&key.id, &document.partition_key).await;
            if !answer.is_success() && answer.status != 404 {
                tracing::warn!(container = %self.name, status = answer.status, "an expired document could not be deleted");
                return;
            }
            log.begin();
            log.delete(&key, now, true);
        }
    }

    async fn remove(&self, id: &str, partition_key: &str) -> Answer {
        let ask = Ask::new(Method::DELETE, self.name.document(id))
            .with_header(header::PARTITION_KEY, ascii_json(partition_key));
        self.emulator.execute(&ask).await
    }

    /// Deletes what is due; called about every second.
    pub async fn sweep(&self) {
        drop(self.read().await);
    }

    /// Carries out one point write and records it. The caller has called [`WriteLog::begin`] only when it succeeds:
    /// `begin` says whether this write is a transaction of its own.
    pub async fn point_write(&self, log: &mut WriteLog, ask: &Ask, begin: bool) -> Answer {
        if has_empty_id(&ask.body) {
            return Answer::bad_request(format!("An id has 1 to {MAX_ID_BYTES} bytes"));
        }
        let mut forward = ask.clone();
        forward.headers.set(header::CONTENT_ON_WRITE, "true");
        if forward.method == Method::PATCH {
            forward.body = super::patch::with_envelope(forward.body);
        }
        let mut answer = self.emulator.execute(&forward).await;
        if !answer.is_success() {
            return answer;
        }
        if ask.method == Method::DELETE {
            match self.key_of(ask) {
                Ok(key) => {
                    if begin {
                        log.begin();
                    }
                    log.delete(&key, self.clock.now(), false);
                }
                Err(failure) => return *failure,
            }
            return answer;
        }
        let put = match self.stored(&answer.body) {
            Ok(put) => put,
            Err(failure) => return *failure,
        };
        // Known only now: the request may be in the SDKs' binary form of JSON.
        if put.key.id.len() > MAX_ID_BYTES {
            let key = Value::Array(put.partition_key).to_string();
            self.remove(&put.key.id, &key).await;
            return Answer::bad_request(format!("An id has 1 to {MAX_ID_BYTES} bytes, this one {}", put.key.id.len()));
        }
        if begin {
            log.begin();
        }
        log.put(put);
        if !ask.wants_content() {
            answer.body = Bytes::new();
        }
        answer
    }

    /// Records a document that the emulator wrote as part of a batch of its own.
    pub fn record_put(&self, log: &mut WriteLog, text: &Bytes) {
        match self.stored(text) {
            Ok(put) => log.put(put),
            Err(_) => tracing::error!(container = %self.name, "a stored document is unreadable"),
        }
    }

    /// Records a deletion that the emulator made as part of a batch of its own.
    pub fn record_delete(&self, log: &mut WriteLog, key: &DocumentKey) {
        log.delete(key, self.clock.now(), false);
    }

    /// Reads a stored document out of a write's answer.
    fn stored(&self, text: &Bytes) -> Result<Put, Box<Answer>> {
        let unreadable =
            || Box::new(Answer::error(500, None, "InternalServerError", "the stored document is unreadable"));
        let document: Value = serde_json::from_slice(text).map_err(|_| unreadable())?;
        let partition_key = partition_key_of(&document, &self.partitioning.paths);
        let epk = self.partitioning.range_of(&partition_key).ok_or_else(unreadable)?.min;
        let stored = Stored::deserialize(&document).map_err(|_| unreadable())?;
        Ok(Put {
            key: DocumentKey { epk, id: stored.id },
            text: text.clone(),
            etag: stored.etag,
            ts: stored.ts,
            ttl: stored.ttl.and_then(|ttl| ttl.as_i64()),
            partition_key,
        })
    }

    /// The document that a point request names by its path and its partition key header.
    pub fn key_of(&self, ask: &Ask) -> Result<DocumentKey, Box<Answer>> {
        let super::message::Target::Document(_, id) = super::message::Target::of(&ask.path) else {
            return Err(Box::new(Answer::bad_request("The path names no document")));
        };
        let text = ask.headers.get(header::PARTITION_KEY).unwrap_or_default();
        let values: Option<Vec<Value>> = serde_json::from_str(text).ok();
        let range = values.and_then(|values| self.partitioning.range_of(&values));
        let range = range.filter(|range| range.min == range.max);
        let range = range.ok_or_else(|| Box::new(Answer::bad_request("The partition key header names no document")))?;
        Ok(DocumentKey { epk: range.min, id })
    }

    /// Takes over the container's description after it was replaced.
    pub async fn described(&self, description: &[u8]) {
        if let Ok(description) = serde_json::from_slice::<Description>(description) {
            self.write().await.set_default_ttl(description.default_ttl);
        }
    }
}

/// A document without a name could not be addressed, not even to take it back. Looks at text only.
fn has_empty_id(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    serde_json::from_slice::<Named>(body).is_ok_and(|named| named.id.is_empty())
}

fn invalid(header: &str, text: &str) -> RangeError {
    RangeError::Invalid(format!("the header {header} is not understood: {text}"))
}

/// The containers of the account that have been used so far.
#[derive(Debug)]
pub(super) struct Containers {
    emulator: Arc<Emulator>,
    clock: Arc<Clock>,
    retained_bytes: usize,
    open: SyncRwLock<HashMap<ContainerName, Arc<Container>>>,
}

impl Containers {
    pub fn new(emulator: Arc<Emulator>, clock: Arc<Clock>, retained_bytes: usize) -> Self {
        Self { emulator, clock, retained_bytes, open: SyncRwLock::default() }
    }

    /// The container of this name, or the emulator's own words about why there is none.
    pub async fn get(&self, name: &ContainerName) -> Result<Arc<Container>, Answer> {
        if let Some(found) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(found));
        }
        let opened =
            Container::open(name.clone(), Arc::clone(&self.emulator), Arc::clone(&self.clock), self.retained_bytes)
                .await?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(open.entry(name.clone()).or_insert_with(|| Arc::new(opened))))
    }

    pub fn forget(&self, gone: impl Fn(&ContainerName) -> bool) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).retain(|name, _| !gone(name));
    }

    pub fn all(&self) -> Vec<Arc<Container>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

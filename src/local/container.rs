//! One container: its description, its physical partitions, its write log and the lock around both.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock as SyncRwLock};
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::emulator::{Emulator, Partitioning};
use super::keys::{DocumentKey, Epk, EpkRange, partition_key_of, same_partition_key};
use super::log::{Put, WriteLog};
use super::message::{Answer, Ask, ContainerName, Headers, ascii_json, header};
use super::sql::Computed;

/// The service's limit of an item's id, in bytes.
const MAX_ID_BYTES: usize = 1023;
const ID_LENGTH: &str = "The input name is invalid: an id has 1 to 1023 bytes. Ensure to provide a unique non-empty string \
    less than '1024' characters.";

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
    /// Members of documents that only queries see.
    computed: SyncRwLock<Arc<Computed>>,
    /// The session token of the last write to each physical partition.
    sessions: SyncRwLock<BTreeMap<String, String>>,
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
    #[serde(default)]
    computed_properties: Value,
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
            computed: SyncRwLock::new(Arc::new(Computed::read(&description.computed_properties))),
            sessions: SyncRwLock::default(),
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

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn computed(&self) -> Arc<Computed> {
        Arc::clone(&self.computed.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn remember_session(&self, answer: &Answer) {
        let Some(token) = answer.headers.get(header::SESSION) else { return };
        if let Some((range, _)) = token.split_once(':') {
            let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
            sessions.insert(range.to_owned(), token.to_owned());
        }
    }

    /// The headers of an answer about `range` that is made here: what they cost, and the session they belong to.
    pub fn answer_headers(&self, range: &EpkRange) -> Headers {
        let mut headers = Answer::json(200, Bytes::new()).headers;
        let touched = self.ranges().into_iter().filter(|physical| physical.range.overlaps(range));
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let tokens: Vec<String> = touched.filter_map(|physical| sessions.get(&physical.id).cloned()).collect();
        if !tokens.is_empty() {
            headers.set(header::SESSION, tokens.join(","));
        }
        headers
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
            if values.is_empty() && self.partitioning.paths.len() > 1 {
                return Err(invalid(header::PARTITION_KEY, text));
            }
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
        if let Err(answer) = self.check_key(ask) {
            return *answer;
        }
        let patched;
        let ask = if ask.method == Method::PATCH {
            patched = match self.patched(log, ask) {
                Ok(ask) => ask,
                Err(answer) => return *answer,
            };
            &patched
        } else {
            ask
        };
        if let Err(message) = check_members(&ask.body) {
            return Answer::bad_request(message);
        }
        let mut forward = ask.clone();
        forward.headers.set(header::CONTENT_ON_WRITE, "true");
        // The emulator does not look at the condition of an upsert: one of what is not there yet is a creation.
        let is_new_only = ask.headers.is_true(header::IS_UPSERT) && ask.headers.get("if-none-match") == Some("*");
        if is_new_only {
            forward.headers.remove(header::IS_UPSERT);
            forward.headers.remove("if-none-match");
        }
        let mut answer = self.emulator.execute(&forward).await;
        if is_new_only && answer.status == 409 {
            return *precondition_failed("the item exists already");
        }
        if !answer.is_success() {
            return with_wrong_key_told(answer);
        }
        self.remember_session(&answer);
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
        let mut put = match self.stored(&answer.body) {
            Ok(put) => put,
            Err(failure) => return *failure,
        };
        if let super::message::Target::Document(_, id) = super::message::Target::of(&ask.path) {
            put.replaces(&id);
        }
        // Known only now: the request may be in the SDKs' binary form of JSON.
        if put.key.id.len() > MAX_ID_BYTES {
            let key = Value::Array(put.partition_key).to_string();
            self.remove(&put.key.id, &key).await;
            return Answer::bad_request(ID_LENGTH);
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
    pub fn record_put(&self, log: &mut WriteLog, text: &Bytes, replaced: Option<&str>) {
        match self.stored(text) {
            Ok(mut put) => {
                if let Some(id) = replaced {
                    put.replaces(id);
                }
                log.put(put);
            }
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
            renamed_from: None,
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

    /// The id of the document with this resource id.
    pub async fn id_of(&self, rid: &str) -> Option<String> {
        let log = self.read().await;
        let text = format!("\"_rid\":\"{rid}\"");
        let finder = memchr::memmem::Finder::new(text.as_bytes());
        let mut found = log.documents_in(&EpkRange::full()).into_iter();
        found.find(|(_, document)| finder.find(&document.text).is_some()).map(|(key, _)| key.id.clone())
    }

    /// Deletes every document of the partition key in the header. The service does it in the background; here it is
    /// done when it is answered.
    pub async fn delete_key(&self, ask: &Ask) -> Answer {
        let range = match self.range_of(ask) {
            Ok(range) if range.min == range.max => range,
            Ok(_) | Err(RangeError::Gone) => {
                return Answer::bad_request("A delete by partition key needs the full partition key in its header");
            }
            Err(RangeError::Invalid(message)) => return Answer::bad_request(message),
        };
        let Some(_shape) = self.hold_shape() else { return super::batch::being_split() };
        let mut log = self.write().await;
        let found: Vec<_> = log
            .documents_in(&range)
            .into_iter()
            .map(|(key, document)| (Arc::clone(key), Arc::clone(&document.partition_key)))
            .collect();
        for (key, partition_key) in found {
            let answer = self.remove(&key.id, &partition_key).await;
            if !answer.is_success() && answer.status != 404 {
                return answer;
            }
            log.begin();
            log.delete(&key, self.clock.now(), false);
        }
        let mut answer = Answer::json(200, Bytes::new());
        answer.headers.remove("content-type");
        answer
    }

    /// Whether a point request's partition key cannot be one of this container, or is not the document's.
    pub fn check_key(&self, ask: &Ask) -> Result<(), Box<Answer>> {
        let Some(text) = ask.headers.get(header::PARTITION_KEY) else { return Ok(()) };
        let values: Vec<Value> = serde_json::from_str(text)
            .map_err(|_| Box::new(Answer::bad_request("The partition key is no JSON array")))?;
        if self.partitioning.range_of(&values).is_none_or(|range| range.min != range.max) {
            return Err(wrong_key());
        }
        if matches!(ask.method, Method::POST | Method::PUT)
            && let Ok(document) = serde_json::from_slice::<Value>(&ask.body)
            && !same_partition_key(&partition_key_of(&document, &self.partitioning.paths), &values)
        {
            return Err(wrong_key());
        }
        Ok(())
    }

    /// Evaluates a patch here: the document after it, to be written as a replacement on the condition of its etag.
    fn patched(&self, log: &WriteLog, ask: &Ask) -> Result<Ask, Box<Answer>> {
        let key = self.key_of(ask)?;
        let document = log.get(&key).ok_or_else(|| {
            Box::new(Answer::error(404, None, "NotFound", "Entity with the specified id does not exist in the system"))
        })?;
        if ask.headers.get("if-match").is_some_and(|etag| etag != "*" && etag != document.etag) {
            return Err(precondition_failed("the item has changed: its _etag is another one"));
        }
        match super::patch::meets_condition(&document.text, &ask.body) {
            Ok(true) => {}
            Ok(false) => return Err(precondition_failed("the item does not meet the patch's condition")),
            Err(message) => return Err(Box::new(Answer::bad_request(message))),
        }
        let patched = super::patch::apply(&document.text, &ask.body);
        let patched = patched.map_err(|message| Box::new(Answer::bad_request(message)))?;
        let after: Value = serde_json::from_slice(&patched).unwrap_or_default();
        let before: Vec<Value> = serde_json::from_str(&document.partition_key).unwrap_or_default();
        if !same_partition_key(&partition_key_of(&after, &self.partitioning.paths), &before)
            || after["id"] != key.id.as_str()
        {
            return Err(Box::new(Answer::bad_request("A patch cannot change the id or the partition key")));
        }
        let mut replace = ask.clone();
        replace.method = Method::PUT;
        replace.body = patched;
        Ok(replace)
    }

    /// Takes over the container's description after it was replaced.
    pub async fn described(&self, description: &[u8]) {
        if let Ok(description) = serde_json::from_slice::<Description>(description) {
            let computed = Computed::read(&description.computed_properties);
            *self.computed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(computed);
            self.write().await.set_default_ttl(description.default_ttl);
        }
    }
}

/// Checks the members with a meaning: a document without a name could not be addressed, not even to take it back.
/// Looks at text only.
fn check_members(body: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Members {
        #[serde(default)]
        id: Option<Value>,
        #[serde(default, deserialize_with = "present")]
        ttl: Option<Value>,
    }
    // null is a value here, and a wrong one.
    fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
    let Ok(members) = serde_json::from_slice::<Members>(body) else { return Ok(()) };
    if members.id.is_some_and(|id| id == "") {
        return Err(ID_LENGTH.to_owned());
    }
    match members.ttl {
        None => Ok(()),
        Some(ttl) if ttl.as_i64().is_some_and(|ttl| ttl == -1 || (1..=i64::from(i32::MAX)).contains(&ttl)) => Ok(()),
        Some(ttl) => {
            Err(format!("The input ttl {ttl} is invalid: a positive whole number of seconds, or -1 for never"))
        }
    }
}

fn precondition_failed(message: &str) -> Box<Answer> {
    Box::new(Answer::error(412, None, "PreconditionFailed", message))
}

/// Sub-status 1001: what makes a client read the container's definition again.
pub(super) fn wrong_key() -> Box<Answer> {
    Box::new(Answer::error(
        400,
        Some(1001),
        "BadRequest",
        "Partition key provided either doesn't correspond to definition in the collection or doesn't match partition key \
         field values specified in the document. Learn more: https://aka.ms/CosmosDB/sql/errors/wrong-pk-value",
    ))
}

/// Bodies in the SDKs' binary form are understood by the emulator alone.
fn with_wrong_key_told(answer: Answer) -> Answer {
    let is_about_the_key = answer.status == 400
        && memchr::memmem::find(&answer.body, b"partition key extracted from the document does not match").is_some();
    if is_about_the_key { *wrong_key() } else { answer }
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

//! An in-memory history that enforces the contract of `HistoryWriter` and injects faults on demand.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use cosmos_rewind::{
    change::{
        key::{KeyPaths, PartitionKey},
        record::Record,
    },
    cosmos::{Failure, Status},
    history::{BATCH_BYTES, BATCH_RECORDS, History, HistoryWriter, SourceReader},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault: the record is stored.
    None,
    /// Refused with this status; nothing is stored.
    Reject(u16),
    /// Stored, but the caller gets 408.
    FailAfterWrite,
    /// The container is recreated with another key: its records are gone, and this write is refused.
    Remade,
}

/// The stored records by partition key and id.
pub type Stored = BTreeMap<(String, String), String>;

/// The writer. Clones share the stored records, but each opens the container for itself.
#[derive(Debug)]
pub struct MemoryHistory {
    inner: Arc<Inner>,
    /// The key paths when the container was opened.
    paths: KeyPaths,
    opened: Mutex<Option<Arc<MemoryHistory>>>,
}

impl Clone for MemoryHistory {
    fn clone(&self) -> Self {
        Self::of(self.inner.clone())
    }
}

#[derive(Debug)]
struct Inner {
    /// The container's current key paths.
    paths: Mutex<KeyPaths>,
    stored: Mutex<Stored>,
    faults: Mutex<VecDeque<Fault>>,
    /// The id of a record that is always refused.
    poison: Option<String>,
    /// Live documents as the service returns them. Each read sees the next of these states; the last one stays.
    source: Mutex<VecDeque<Vec<serde_json::Value>>>,
    /// Decides the outcome and the delay of each attempt of each write.
    seed: Option<u64>,
    attempts: Mutex<HashMap<String, u64>>,
    /// How often each document was read. In a seeded history, the first reads come from stale replicas.
    reads: Mutex<HashMap<String, u32>>,
}

impl MemoryHistory {
    pub fn new(paths: &[&str], faults: Vec<Fault>, poison: Option<String>) -> Self {
        Self::with(paths, faults, poison, None)
    }

    /// A quarter of all attempts fail. The outcome depends on the record and the attempt, not on scheduling.
    pub fn seeded(paths: &[&str], seed: u64, poison: Option<String>) -> Self {
        Self::with(paths, Vec::new(), poison, Some(seed))
    }

    fn with(paths: &[&str], faults: Vec<Fault>, poison: Option<String>, seed: Option<u64>) -> Self {
        let paths = KeyPaths::parse(paths).unwrap();
        let (stored, attempts) = (Mutex::default(), Mutex::default());
        let (faults, source) = (Mutex::new(faults.into()), Mutex::default());
        let (paths, reads) = (Mutex::new(paths), Mutex::default());
        Self::of(Arc::new(Inner { paths, stored, faults, poison, source, seed, attempts, reads }))
    }

    fn of(inner: Arc<Inner>) -> Self {
        let paths = inner.paths.lock().unwrap().clone();
        Self { inner, paths, opened: Mutex::default() }
    }

    /// Recreates the container with another key. Like the service, it then refuses records with the old key without a
    /// reason.
    pub fn remake(&self, paths: &[&str]) {
        self.inner.stored.lock().unwrap().clear();
        *self.inner.paths.lock().unwrap() = KeyPaths::parse(paths).unwrap();
    }

    /// Sets the live documents from now on.
    pub fn live(&self, documents: Vec<serde_json::Value>) {
        self.live_in_turn([documents]);
    }

    /// Sets what consecutive reads see, to simulate stale replicas.
    pub fn live_in_turn(&self, states: impl IntoIterator<Item = Vec<serde_json::Value>>) {
        *self.inner.source.lock().unwrap() = states.into_iter().collect();
    }

    /// Waits for a random time and draws the outcome of the next attempt to write these records.
    async fn drawn(&self, records: &[&Record]) -> Option<Fault> {
        let seed = self.inner.seed?;
        let attempt = {
            let mut attempts = self.inner.attempts.lock().unwrap();
            let attempt = attempts.entry(records[0].id.clone()).or_default();
            *attempt += 1;
            *attempt
        };
        // FNV-1a is stable across processes.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let id = records[0].id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, hash);
        let mut rng = StdRng::seed_from_u64(seed ^ id.rotate_left(17) ^ attempt.rotate_left(48));
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..15))).await;
        if rng.random_bool(0.01) {
            // Longer than any deadline of the host.
            tokio::time::sleep(Duration::from_secs(300)).await;
        }
        Some(match rng.random_range(0..20) {
            0 => Fault::Reject(429),
            1 => Fault::Reject(503),
            2 => Fault::Reject(449),
            3 => Fault::Reject(410),
            4 => Fault::FailAfterWrite,
            _ => Fault::None,
        })
    }

    /// The stored records without their capture time.
    pub fn stored(&self) -> Stored {
        let mut stored = self.inner.stored.lock().unwrap().clone();
        for body in stored.values_mut() {
            let mut record: serde_json::Value = serde_json::from_str(body).unwrap();
            record["_change"].as_object_mut().unwrap().shift_remove("at");
            *body = record.to_string();
        }
        stored
    }

    fn fault(&self, records: &[&Record]) -> Fault {
        if records.iter().any(|r| Some(&r.id) == self.inner.poison.as_ref()) {
            return Fault::Reject(400);
        }
        self.inner.faults.lock().unwrap().pop_front().unwrap_or(Fault::None)
    }

    async fn store(&self, records: &[&Record]) -> Result<f64, Failure> {
        let drawn = self.drawn(records).await;
        let fault = match self.fault(records) {
            Fault::None => drawn.unwrap_or(Fault::None),
            fault => fault,
        };
        if let Fault::Reject(status) = fault {
            return Err(Failure::from_status("write".into(), Status::new(status, 0), "injected", None));
        }
        if self.paths != *self.inner.paths.lock().unwrap() {
            return Err(Failure::from_status("write".into(), Status::new(400, 0), "it does not fit", None));
        }
        let mut stored = self.inner.stored.lock().unwrap();
        if fault == Fault::Remade {
            stored.clear();
            return Err(Failure::from_status("write".into(), Status::new(400, 1001), "injected", None));
        }
        let place = |record: &Record| (record.key.to_json().to_string(), record.id.clone());
        if records.len() > 1 && records.iter().any(|record| record.create_only && stored.contains_key(&place(record))) {
            return Err(Failure::from_status("write".into(), Status::new(409, 0), "it exists", None));
        }
        for record in records {
            let after = match stored.get(&place(record)) {
                Some(before) if record.create_only && record.completes => both(before, &record.body),
                Some(before) if record.create_only => before.clone(),
                _ => record.body.clone(),
            };
            stored.insert(place(record), after);
        }
        if fault == Fault::FailAfterWrite {
            return Err(Failure::from_status("write".into(), Status::new(408, 0), "injected", None));
        }
        Ok(records.len() as f64)
    }
}

/// Merges two records of one version: the better text, and every other field that either has. Deliberately independent
/// of the program's own merge.
fn both(before: &str, new: &str) -> String {
    let parse = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let (before, new) = (parse(before), parse(new));
    let rank = |record: &serde_json::Value| {
        ["partial", "normalized", "exact"].iter().position(|name| record["_change"]["fidelity"] == *name).unwrap()
    };
    let (mut best, other) = if rank(&new) > rank(&before) { (new, before) } else { (before, new) };
    let theirs = other["_change"].clone();
    let change = best["_change"].as_object_mut().unwrap();
    if ["upsert", "baseline"].iter().any(|op| change["op"] == *op) {
        change["op"] = theirs["op"].clone();
    }
    if change.contains_key("tsFrom") && theirs.get("tsFrom").is_none() {
        change.shift_remove("tsFrom");
        change["ts"] = theirs["ts"].clone();
    }
    for name in ["lsn", "prevLsn"] {
        if let (None, Some(value)) = (change.get(name), theirs.get(name)) {
            change.insert(name.into(), value.clone());
        }
    }
    if theirs.get("identity").is_none() {
        change.shift_remove("identity");
    }
    best.to_string()
}

impl HistoryWriter for MemoryHistory {
    fn key_paths(&self) -> &KeyPaths {
        &self.paths
    }

    async fn write(&self, record: &Record) -> Result<f64, Failure> {
        self.store(&[record]).await
    }

    async fn write_batch(&self, records: &[&Record]) -> Result<f64, Failure> {
        assert!(records.len() <= BATCH_RECORDS, "{} records in a batch", records.len());
        assert!(records.iter().map(|r| r.body.len()).sum::<usize>() <= BATCH_BYTES, "too many bytes in a batch");
        assert!(records.iter().all(|r| r.key == records[0].key), "two partition keys in a batch");
        self.store(records).await
    }
}

/// The live documents behind a history, keyed by `/pk`.
#[derive(Debug)]
pub struct MemorySource {
    paths: KeyPaths,
    history: MemoryHistory,
}

impl MemorySource {
    fn first(&self, is: impl Fn(&serde_json::Value) -> bool) -> Option<String> {
        let mut states = self.history.inner.source.lock().unwrap();
        let found = states.front()?.iter().find(|document| is(document)).map(ToString::to_string);
        if let (Some(_), Some(text)) = (self.history.inner.seed, &found) {
            let mut reads = self.history.inner.reads.lock().unwrap();
            let before = reads.entry(text.clone()).or_default();
            *before += 1;
            if *before < 4 {
                return None;
            }
        }
        if states.len() > 1 {
            states.pop_front();
        }
        found
    }
}

/// Whether the document's key equals this one in its wire format.
fn is_key(document: &serde_json::Value, key: &PartitionKey) -> bool {
    let own = document.get("pk").cloned().unwrap_or_else(|| serde_json::json!({}));
    key.to_json() == serde_json::json!([own])
}

impl SourceReader for MemorySource {
    fn key_paths(&self) -> &KeyPaths {
        &self.paths
    }

    async fn read(&self, key: &PartitionKey, id: &str) -> Result<Option<String>, Failure> {
        Ok(self.first(|document| document["id"] == id && is_key(document, key)))
    }

    async fn find(&self, rid: &str, key: Option<&PartitionKey>) -> Result<Option<String>, Failure> {
        Ok(self.first(|document| document["_rid"] == rid && key.is_none_or(|key| is_key(document, key))))
    }
}

impl History for MemoryHistory {
    type Writer = Self;
    type Source = MemorySource;

    async fn writer(&self) -> Result<Arc<Self>, Failure> {
        Ok(self.opened.lock().unwrap().get_or_insert_with(|| Arc::new(self.clone())).clone())
    }

    async fn is_current(&self) -> Result<bool, Failure> {
        let opened = self.opened.lock().unwrap();
        Ok(opened.as_ref().is_none_or(|opened| opened.paths == *self.inner.paths.lock().unwrap()))
    }

    async fn source(&self) -> Result<Arc<MemorySource>, Failure> {
        Ok(Arc::new(MemorySource { paths: KeyPaths::parse(&["/pk"]).unwrap(), history: self.clone() }))
    }

    async fn forget(&self) {
        *self.opened.lock().unwrap() = None;
    }
}

//! A history in memory: strict about the contract of `HistoryWriter`, and faulty on demand.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use cosmos_rewind::{
    change::{
        key::{KeyPaths, PartitionKey},
        record::Record,
    },
    cosmos::Failure,
    history::{BATCH_BYTES, BATCH_RECORDS, History, HistoryWriter, SourceReader},
};

/// What happens to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it is stored.
    None,
    /// Refused with this status, nothing stored.
    Reject(u16),
    /// Stored, but the caller is told 408.
    FailAfterWrite,
}

/// The stored records by partition key and id.
pub type Stored = BTreeMap<(String, String), String>;

/// The writer; clones share what is stored.
#[derive(Debug, Clone)]
pub struct MemoryHistory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    paths: KeyPaths,
    stored: Mutex<Stored>,
    faults: Mutex<VecDeque<Fault>>,
    /// A record with this id is never accepted.
    poison: Option<String>,
}

impl MemoryHistory {
    pub fn new(paths: &[&str], faults: Vec<Fault>, poison: Option<String>) -> Self {
        let paths = KeyPaths::parse(paths).unwrap();
        Self { inner: Arc::new(Inner { paths, stored: Mutex::default(), faults: Mutex::new(faults.into()), poison }) }
    }

    /// What is stored, without the time of capture.
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

    fn store(&self, records: &[&Record]) -> Result<f64, Failure> {
        let fault = self.fault(records);
        if let Fault::Reject(status) = fault {
            return Err(Failure::from_status("write".into(), status, 0, "injected", None));
        }
        let mut stored = self.inner.stored.lock().unwrap();
        for record in records {
            let place = (record.key.to_json().to_string(), record.id.clone());
            if !(record.create_only && stored.contains_key(&place)) {
                stored.insert(place, record.body.clone());
            }
        }
        if fault == Fault::FailAfterWrite {
            return Err(Failure::from_status("write".into(), 408, 0, "injected", None));
        }
        Ok(records.len() as f64)
    }
}

impl HistoryWriter for MemoryHistory {
    fn key_paths(&self) -> &KeyPaths {
        &self.inner.paths
    }

    async fn write(&self, record: &Record) -> Result<f64, Failure> {
        self.store(&[record])
    }

    async fn write_batch(&self, records: &[&Record]) -> Result<f64, Failure> {
        assert!(records.len() <= BATCH_RECORDS, "{} records in a batch", records.len());
        assert!(records.iter().map(|r| r.body.len()).sum::<usize>() <= BATCH_BYTES, "too many bytes in a batch");
        assert!(records.iter().all(|r| r.key == records[0].key), "two partition keys in a batch");
        assert!(records.iter().all(|r| !r.create_only), "a create-only record in a batch");
        self.store(records)
    }
}

/// A source without documents: nothing is read again.
#[derive(Debug)]
pub struct NoSource(KeyPaths);

impl SourceReader for NoSource {
    fn key_paths(&self) -> &KeyPaths {
        &self.0
    }

    async fn read(&self, _: &PartitionKey, _: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }
}

impl History for MemoryHistory {
    type Writer = Self;
    type Source = NoSource;

    async fn writer(&self) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(self.clone()))
    }

    async fn source(&self) -> Result<Arc<NoSource>, Failure> {
        Ok(Arc::new(NoSource(self.inner.paths.clone())))
    }

    async fn forget(&self) {}
}

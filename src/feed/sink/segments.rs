//! Many events a blob: newline-delimited JSON, compressed, named so that names sort by time.
//!
//! A segment begins where the last acknowledged one of its range ended, and its name is that of its first version. So
//! what is delivered again after a kill goes into the blob of the same name.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::DateTime;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{SinkError, blobs::joined};
use crate::{blob::BlobContainer, change::record::hex, feed::Event};

/// See the module's description.
#[derive(Debug)]
pub struct SegmentSink {
    store: BlobContainer,
    folder: String,
    follower: String,
    max_bytes: usize,
    max_age: Duration,
    open: Mutex<HashMap<String, Segment>>,
}

/// A segment that is being filled.
#[derive(Debug)]
struct Segment {
    name: String,
    begun: Instant,
    encoder: GzEncoder<Vec<u8>>,
    /// When it is done: uploaded again as it is when the upload failed.
    whole: Option<Vec<u8>>,
}

impl SegmentSink {
    /// Writes below `folder` of a container; a segment is closed when it has `max_bytes` (compressed) or is `max_age`
    /// old.
    pub fn new(store: BlobContainer, folder: String, follower: String, max_bytes: usize, max_age: Duration) -> Self {
        Self { store, folder, follower, max_bytes, max_age, open: Mutex::default() }
    }

    pub(super) fn shown(&self) -> String {
        joined(self.store.shown(), &self.folder)
    }

    /// Forgets what a term that ended had begun: it was never acknowledged, and comes again.
    pub(super) fn begin(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn add(&self, range: &str, events: &[Event]) -> Result<(), SinkError> {
        let Some(first) = events.first() else { return Ok(()) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = open.entry(range.to_owned()).or_insert_with(|| Segment {
            name: joined(&self.folder, &name_of(&self.follower, range, first)),
            begun: Instant::now(),
            encoder: GzEncoder::new(Vec::new(), Compression::default()),
            whole: None,
        });
        for event in events {
            // Writing to memory does not fail.
            let line = event.to_line();
            let written = segment.encoder.write_all(line.as_bytes()).and_then(|()| segment.encoder.write_all(b"\n"));
            written.map_err(|e| SinkError::refused(format!("cannot compress a segment: {e}"), "report this"))?;
        }
        Ok(())
    }

    /// Uploads the range's segment when it is full or old enough, or `now`; true when one stays open.
    pub(super) async fn flush(&self, range: &str, now: bool) -> Result<bool, SinkError> {
        let taken = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(segment) = open.get(range) else { return Ok(false) };
            let due = now
                || segment.whole.is_some()
                || segment.encoder.get_ref().len() >= self.max_bytes
                || segment.begun.elapsed() >= self.max_age;
            if !due {
                return Ok(true);
            }
            open.remove(range)
        };
        let Some(mut segment) = taken else { return Ok(false) };
        let whole = match segment.whole.take() {
            Some(whole) => whole,
            None => std::mem::replace(&mut segment.encoder, GzEncoder::new(Vec::new(), Compression::none()))
                .finish()
                .map_err(|e| SinkError::refused(format!("cannot compress a segment: {e}"), "report this"))?,
        };
        match self.store.put(&segment.name, whole.clone()).await {
            Ok(()) => Ok(false),
            Err(e) => {
                // The reader waits: nothing is added meanwhile.
                segment.whole = Some(whole);
                self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(range.to_owned(), segment);
                Err(e.into())
            }
        }
    }
}

/// Time of the first version, follower, range, LSN, and a digest that makes it that version's alone.
fn name_of(follower: &str, range: &str, first: &Event) -> String {
    let time = DateTime::from_timestamp(first.ts.unwrap_or(0), 0).unwrap_or_default().format("%Y%m%dT%H%M%SZ");
    let digest = hex(&Sha256::digest(first.version.as_bytes())[..4]);
    format!("{time}-{:012}-{follower}-{range}-{digest}.jsonl.gz", first.lsn.unwrap_or(0))
}

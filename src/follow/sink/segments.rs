//! Many events per blob: newline-delimited JSON, compressed, with names that sort by time.
//!
//! A segment begins where the last acknowledged one of its range ended. Its name has its first version in it, and the
//! term of the holder that wrote it: a holder that was suspended or cut off, and does not know yet that its name is
//! lost, cannot meet the segment of the one that took over. What is delivered again lies in two segments then, as the
//! same version.

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

use super::{Busy, Refused, SinkError, blobs::joined};
use crate::{
    blob::BlobContainer,
    change::record::hex,
    follow::{Event, Fence},
};

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

/// A segment of a range.
#[derive(Debug)]
struct Segment {
    name: String,
    begun: Instant,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// It accepts more events.
    Open(GzEncoder<Vec<u8>>),
    /// It is complete, and not uploaded yet.
    Closed(Vec<u8>),
}

/// How many names are tried for a segment. Each belongs to the holder, so the first one is free, or has this very
/// segment.
const NAMES: u32 = 5;

impl SegmentSink {
    /// Writes below `folder` of a container; a segment is closed when it has `max_bytes` (compressed) or is `max_age`
    /// old.
    pub fn new(store: BlobContainer, folder: String, follower: String, max_bytes: usize, max_age: Duration) -> Self {
        Self { store, folder, follower, max_bytes, max_age, open: Mutex::default() }
    }

    pub(super) fn shown(&self) -> String {
        joined(self.store.shown(), &self.folder)
    }

    /// Forgets what readers that have ended had begun: it was never acknowledged, and will be delivered again.
    pub(super) fn begin(&self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn add(&self, range: &str, events: &[Event<'_>], fence: &Fence) -> Result<(), SinkError> {
        let Some(first) = events.first() else { return Ok(()) };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = open.entry(range.to_owned()).or_insert_with(|| Segment {
            name: joined(&self.folder, &name_of(&self.follower, range, first, fence.term())),
            begun: Instant::now(),
            content: Content::Open(GzEncoder::new(Vec::new(), Compression::default())),
        });
        let Content::Open(encoder) = &mut segment.content else {
            return Err(Busy::Segment.into());
        };
        let mut line = String::new();
        for event in events {
            line.clear();
            event.push_line(&mut line);
            line.push('\n');
            // Writing to memory does not fail.
            encoder.write_all(line.as_bytes()).map_err(Refused::Compress)?;
        }
        Ok(())
    }

    /// Uploads the range's segment when it is full or old enough, or `now`; true when one stays open.
    pub(super) async fn flush(&self, range: &str, now: bool) -> Result<bool, SinkError> {
        let taken = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(segment) = open.get(range) else { return Ok(false) };
            let due = match &segment.content {
                Content::Open(encoder) => {
                    now || encoder.get_ref().len() >= self.max_bytes || segment.begun.elapsed() >= self.max_age
                }
                Content::Closed(_) => true,
            };
            if !due {
                return Ok(true);
            }
            open.remove(range)
        };
        let Some(Segment { name, begun, content }) = taken else { return Ok(false) };
        let whole = match content {
            Content::Closed(whole) => whole,
            Content::Open(encoder) => encoder.finish().map_err(Refused::Compress)?,
        };
        match self.upload(&name, &whole).await {
            Ok(()) => Ok(false),
            Err(e) => {
                // The reader waits: nothing is added meanwhile.
                let segment = Segment { name, begun, content: Content::Closed(whole) };
                self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(range.to_owned(), segment);
                Err(e)
            }
        }
    }

    /// Creates a blob, and never replaces one.
    async fn upload(&self, name: &str, whole: &[u8]) -> Result<(), SinkError> {
        for attempt in 1..=NAMES {
            let name = match attempt {
                1 => format!("{name}{ENDING}"),
                n => format!("{name}-{n}{ENDING}"),
            };
            // An existing one is this very segment, from an attempt whose answer was lost; or it belongs to somebody
            // else.
            if self.store.create(&name, whole.to_vec(), "application/gzip").await?
                || self.store.get(&name).await? == whole
            {
                return Ok(());
            }
        }
        Err(Refused::NamesTaken { names: NAMES, first: format!("{name}{ENDING}") }.into())
    }
}

const ENDING: &str = ".jsonl.gz";

/// Time of the first version, follower, range, LSN, a digest that is unique to that version, and the holder's term.
fn name_of(follower: &str, range: &str, first: &Event<'_>, term: &str) -> String {
    let time = DateTime::from_timestamp(first.ts.unwrap_or(0), 0).unwrap_or_default().format("%Y%m%dT%H%M%SZ");
    let digest = hex(&Sha256::digest(first.version.as_bytes())[..4]);
    format!("{time}-{:012}-{follower}-{range}-{digest}-{term}", first.lsn.unwrap_or(0))
}

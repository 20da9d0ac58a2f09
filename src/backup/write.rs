//! Writes a backup: the request, the progress and the report.

use std::{collections::BTreeMap, io, path::PathBuf, time::Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::BackupWriter;
use crate::{
    change::{key::ItemKey, time::PointInTime},
    cosmos::{Failure, HashRange, Param, RuLimiter, Shard},
    figures::count_of,
    frontier::waiting::WaitError,
    history::{AnyContext, Containers, NotShared},
    progress::ProgressStep,
};

/// Backups of at most this many documents are sorted by id and key.
const SORTED: usize = 10_000;
/// The same limit in bytes.
const SORTED_BYTES: usize = 4 << 20;
/// How many documents of unknown state are named; the rest is counted.
const SHOWN_UNKNOWN: u64 = 10;
/// How many ranges of the live container are read concurrently.
pub(super) const LIVE_RANGES: u32 = 4;
/// Bytes of text between two checkpoints.
const CHECKPOINT: usize = 4 << 20;

/// Which documents are saved, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// The operator's own SQL condition on `c`; without one, all documents.
    pub predicate: Option<String>,
    /// Values of the predicate's parameters.
    pub params: Vec<Param>,
    /// The moment; without one, the live documents.
    pub at: Option<PointInTime>,
    /// The moment as the operator wrote it. An interrupted backup that is started with the same words keeps its moment.
    pub at_text: Option<String>,
    /// Wait until capture has passed the moment.
    pub wait: bool,
    /// Only this part of the documents.
    pub feed_range: Option<Shard>,
    /// The file to write; compressed when its name ends in `.gz`.
    pub out: PathBuf,
    /// Versions read concurrently.
    pub concurrency: usize,
    /// At most this many RU a second, on average.
    pub ru_limit: Option<f64>,
}

/// The counts of a backup.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Database and container.
    pub container: String,
    /// The file.
    pub file: PathBuf,
    /// Documents in it.
    pub documents: u64,
    /// Documents and records that are left out because their state at the moment is not known.
    pub unknown: u64,
    /// How many of them were not named while the backup ran.
    pub unnamed: u64,
    /// The moment, RFC 3339; none when the live documents were read.
    pub at: Option<String>,
    /// SHA-256 of the documents' lines, hexadecimal.
    pub sha256: String,
    /// Whether the moment lies beyond the end of the history.
    pub beyond: bool,
    /// Documents with each caveat, by the caveat's name.
    pub caveats: BTreeMap<String, u64>,
    /// Request units.
    pub ru: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Report {
    /// Whether everything is there that was asked for.
    pub fn is_complete(&self) -> bool {
        self.unknown == 0 && !self.beyond
    }
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A container cannot be opened.
    #[error("cannot open the containers")]
    Open(#[source] Failure),
    /// Nobody says when it began.
    #[error("cannot date the backup")]
    Time(#[source] Failure),
    /// The documents of these containers cannot be divided between machines.
    #[error("cannot read a part of the containers")]
    Parts(#[source] NotShared),
    /// The file cannot be created.
    #[error("cannot begin {path}")]
    Begin {
        /// The file.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// The file cannot be written to its end.
    #[error("cannot write {path}")]
    Finish {
        /// The file.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// It ended while documents were being read.
    #[error("the backup is not complete")]
    Interrupted {
        /// Whether the same request resumes where this one ended.
        resumable: bool,
        /// The cause.
        #[source]
        by: Interruption,
    },
}

/// A reason that ends a backup early.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// The caller.
    #[error("stopped")]
    Stopped,
    /// The service.
    #[error(transparent)]
    Service(#[from] Failure),
    /// The service refuses the predicate.
    #[error("the predicate is refused")]
    Predicate(#[source] Failure),
    /// The version of one document cannot be read.
    #[error("cannot read document {:?} ({})", item.id, item.partition_key)]
    Document {
        /// The document.
        item: ItemKey,
        /// The service's answer.
        #[source]
        failure: Failure,
    },
    /// The disk.
    #[error("cannot write {path}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
}

impl From<WaitError> for Interruption {
    fn from(error: WaitError) -> Self {
        match error {
            WaitError::Cosmos(failure) => Self::Service(failure),
            WaitError::Stopped => Self::Stopped,
        }
    }
}

/// Which backup a part belongs to, and how far it is: what an interrupted one needs to resume.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct BackupState {
    account: String,
    source: String,
    changes: String,
    predicate: Option<String>,
    params: Vec<(String, Value)>,
    feed_range: Option<String>,
    /// The moment as it was written; a relative one keeps its first meaning.
    at_text: Option<String>,
    at: Option<i64>,
    /// When it began by the service's clock, RFC 3339.
    made: String,
    /// The ranges that remain to be read.
    pub(super) left: Vec<HashRange>,
    pub(super) unknown: u64,
    /// Whether the history may be incomplete up to the moment.
    #[serde(default)]
    pub(super) beyond: bool,
    pub(super) caveats: BTreeMap<String, u64>,
}

impl BackupState {
    fn new(request: &Request, cx: &AnyContext<'_>, begun: DateTime<Utc>, left: Vec<HashRange>) -> Self {
        Self {
            account: cx.account.endpoint().to_owned(),
            source: format!("{}/{}", cx.account.database(cx.names), cx.names.source),
            changes: cx.names.changes.clone(),
            predicate: request.predicate.clone(),
            params: request.params.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
            feed_range: request.feed_range.map(|share| share.to_string()),
            at_text: request.at_text.clone(),
            at: request.at.map(PointInTime::seconds),
            made: begun.to_rfc3339_opts(SecondsFormat::Secs, true),
            left,
            unknown: 0,
            beyond: false,
            caveats: BTreeMap::new(),
        }
    }

    fn is_same_backup(&self, other: &Self) -> bool {
        let facts = |s: &Self| {
            let names = (s.account.clone(), s.source.clone(), s.changes.clone());
            (names, s.predicate.clone(), s.params.clone(), s.feed_range.clone(), s.at_text.clone())
        };
        facts(self) == facts(other)
    }
}

/// Writes documents to a file. After an error or a stop there is either no file, or a part that the same request
/// resumes.
///
/// # Errors
/// When the file exists or cannot be written, or the service refuses.
pub async fn write(request: Request, cx: &AnyContext<'_>) -> Result<Report, BackupError> {
    let started = Instant::now();
    let stopped = || BackupError::Interrupted { resumable: false, by: Interruption::Stopped };
    let opened = cx.stop.run_until_cancelled(containers(cx, request.at.is_some())).await;
    let containers = opened.ok_or_else(stopped)?.map_err(BackupError::Open)?;
    let left = match request.at {
        Some(_) => containers.hash_ranges(request.feed_range).map_err(BackupError::Parts)?,
        None => live_ranges(&containers, request.feed_range),
    };
    // Taken before anything is read, by the clock that sets `_ts`: `load --mode if-newer` compares the two.
    let begun = cx.account.time().await.map_err(BackupError::Time)?;
    let first = BackupState::new(&request, cx, begun, left);
    let (writer, state, resumed) =
        BackupWriter::open(&request.out, first.clone(), |known| known.is_same_backup(&first))
            .map_err(|source| BackupError::Begin { path: request.out.clone(), source })?;
    let step = cx.progress.begin("backup", None);
    if resumed && writer.documents() > 0 {
        step.note(&format!("resumed    {} are in it already", count_of(writer.documents(), "document")));
        step.advance(writer.documents());
    }
    let limiter = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let job = BackupJob { request: &request, cx, containers: &containers, limiter, step: &*step };
    let mut sink = BackupSink { writer, held: (!resumed).then(|| (Vec::new(), 0)), state };
    let at = sink.state.at.map(PointInTime::from_epoch);
    let work = async {
        match at {
            None => job.live(&mut sink).await,
            Some(at) => job.moment(&mut sink, at).await,
        }
    };
    let done = cx.stop.run_until_cancelled(work).await.unwrap_or(Err(Interruption::Stopped));
    drop(step);
    if let Err(by) = done {
        return Err(BackupError::Interrupted { resumable: sink.writer.can_go_on(), by });
    }
    let disk = |source| BackupError::Finish { path: request.out.clone(), source };
    sink.release().map_err(disk)?;
    let BackupSink { writer, state, .. } = sink;
    let shown = at.map(|at| if at == PointInTime::END { state.made.clone() } else { at.to_string() });
    let trailer = writer.finish(state.source, shown, state.made).map_err(disk)?;
    Ok(Report {
        container: trailer.source,
        file: request.out,
        documents: trailer.documents,
        unknown: state.unknown,
        unnamed: state.unknown.saturating_sub(SHOWN_UNKNOWN),
        at: trailer.at,
        sha256: trailer.sha256,
        beyond: state.beyond,
        caveats: state.caveats,
        ru: cx.account.meter().total(),
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The containers; a live backup does not need the history.
async fn containers(cx: &AnyContext<'_>, with_history: bool) -> Result<Containers, Failure> {
    if with_history {
        return cx.account.containers(cx.names, None).await;
    }
    cx.account.live(cx.names).await
}

/// The live container is read in ranges of its own hash space.
fn live_ranges(containers: &Containers, share: Option<Shard>) -> Vec<HashRange> {
    let part = share.map_or(HashRange::WHOLE, Shard::span);
    if containers.source.hash_space().is_some() { part.cut(LIVE_RANGES) } else { vec![part] }
}

/// A running backup.
pub(super) struct BackupJob<'a> {
    pub(super) request: &'a Request,
    pub(super) cx: &'a AnyContext<'a>,
    pub(super) containers: &'a Containers,
    pub(super) limiter: RuLimiter,
    pub(super) step: &'a dyn ProgressStep,
}

impl BackupJob<'_> {
    /// Blames the predicate for a bad request, when there is one.
    pub(super) fn explain(&self, failure: Failure) -> Interruption {
        if self.request.predicate.is_some() && failure.status.is_bad_request() {
            return Interruption::Predicate(failure);
        }
        failure.into()
    }

    pub(super) fn disk(&self, source: io::Error) -> Interruption {
        Interruption::Disk { path: self.request.out.clone(), source }
    }
}

/// A file that is being written.
pub(super) struct BackupSink {
    writer: BackupWriter,
    /// Documents held back to be sorted, as long as they are few; and their bytes.
    held: Option<(Vec<(ItemKey, String)>, usize)>,
    pub(super) state: BackupState,
}

impl BackupSink {
    /// Notes how far a range was read. While documents are held back there is nothing to resume from.
    pub(super) fn walked(&mut self, number: usize, rest: HashRange) -> io::Result<()> {
        if let Some(left) = self.state.left.get_mut(number) {
            *left = rest;
        }
        if self.held.is_some() || self.writer.since_checkpoint() < CHECKPOINT {
            return Ok(());
        }
        self.writer.checkpoint(&self.state)
    }

    /// Counts something that is left out, and names the first few.
    pub(super) fn leave_out(&mut self, step: &dyn ProgressStep, warning: impl FnOnce() -> String) {
        self.state.unknown += 1;
        if self.state.unknown <= SHOWN_UNKNOWN {
            step.note(&format!("warning: {}", warning()));
        }
    }

    /// Counts and names a document whose state is unknown.
    pub(super) fn unknown(&mut self, item: &ItemKey, why: &str, step: &dyn ProgressStep) {
        self.leave_out(step, || {
            format!("document {:?} ({}): {why}; it is not in the file", item.id, item.partition_key)
        });
    }

    /// Adds a document.
    pub(super) fn push(&mut self, item: ItemKey, text: String) -> io::Result<()> {
        let Some((held, bytes)) = &mut self.held else { return self.writer.push(&text) };
        *bytes += text.len();
        held.push((item, text));
        if held.len() > SORTED || *bytes > SORTED_BYTES { self.release() } else { Ok(()) }
    }

    /// Writes the lines that are held back, sorted.
    fn release(&mut self) -> io::Result<()> {
        let (mut held, _) = self.held.take().unwrap_or_default();
        held.sort_by_cached_key(|(item, _)| item.sort_key());
        held.iter().try_for_each(|(_, text)| self.writer.push(text))
    }
}

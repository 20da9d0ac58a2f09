//! Writes generated zip-code documents, or documents of a file, into the source container.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, cosmos::Concurrency, populate::{self, Origin, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let concurrency = Concurrency::default();
//! let request = Request { from: Origin::Generated(5000), seed: Some(1), rate: Some(200.0), concurrency };
//! let report = populate::run(request, &cx).await?;
//! println!("{} written, {} failed", report.written, report.failed);
//! # Ok(())
//! # }
//! ```

mod documents;
mod mapping;
mod rate;

use std::{
    io::{self, BufRead},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use documents::{refreshed, zip_document};
pub use mapping::IdMapping;
use rate::DocumentRate;

use crate::{
    change::key::{ItemKey, KeyPaths},
    clock::{Clock as _, SystemClock},
    context::Context,
    cosmos::{Concurrency, Failure, RuLimiter, WriteAction, WriteJob, WriteTally, Writers},
    figures::count_of,
    input,
    outcomes::Outcomes,
    progress::ProgressStep,
    zipcodes,
};

/// How many problems are named; the rest is only counted.
const SHOWN_PROBLEMS: u64 = 10;

/// Which documents are written, and how fast.
pub struct Request {
    /// Where they come from.
    pub from: Origin,
    /// Seed of the random choices, to repeat an earlier run.
    pub seed: Option<u64>,
    /// At most this many documents per second.
    pub rate: Option<f64>,
    /// Writes in flight.
    pub concurrency: Concurrency,
}

/// Where documents come from.
pub enum Origin {
    /// This many upserts of randomly picked zip codes.
    Generated(u64),
    /// A file: a JSON array, JSON lines, or objects.
    File {
        /// The documents, one a line.
        input: Box<dyn BufRead + Send>,
        /// Where ids and keys are copied from.
        mapping: IdMapping,
        /// This many random updates after that.
        updates: u64,
    },
}

/// Counts of the documents, by outcome.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Database and container.
    pub container: String,
    /// Documents created or replaced.
    pub written: u64,
    /// Documents created.
    pub created: u64,
    /// Documents replaced.
    pub updated: u64,
    /// Documents of the input that cannot be used.
    pub rejected: u64,
    /// Documents that the service refuses.
    pub failed: u64,
    /// Request units.
    pub ru: f64,
    /// Seconds.
    pub seconds: f64,
    /// Documents written per second.
    pub per_second: f64,
    /// The failure that ended the writing: every further write would have failed, too.
    #[serde(skip)]
    pub refused: Option<Failure>,
    /// Why the input ended too early.
    #[serde(skip)]
    pub broken_off: Option<io::Error>,
    /// Whether the work was told to stop before its end.
    #[serde(skip)]
    pub stopped: bool,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum PopulateError {
    /// This is not a valid number of documents per second.
    #[error("{0} is not a rate")]
    Rate(f64),
    /// The container cannot be opened.
    #[error("cannot open the container")]
    Open(#[source] Failure),
    /// The mapping has another number of paths than the key.
    #[error("{given} paths are given for the key {key}")]
    KeyCount {
        /// Paths that are given.
        given: usize,
        /// The key.
        key: String,
    },
    /// The text of a document cannot be made.
    #[error("cannot make a document")]
    Document(#[source] InputError),
    /// The input cannot be read.
    #[error("cannot read the input")]
    Input(#[source] io::Error),
    /// No document of the input can be used; how many there were.
    #[error("no document of the input can be used ({0} rejected)")]
    AllRejected(u64),
}

/// Why a document cannot be written; displays as what follows its place.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The input has no document there.
    #[error(transparent)]
    None(#[from] input::NoDocument),
    /// It is not a JSON object.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A member cannot be changed; the reason.
    #[error("{0}")]
    Set(String),
    /// It has no id.
    #[error("has no id; name the field to take it from with --id-from /FIELD")]
    NoId,
    /// Its id is empty.
    #[error("has an empty id; name another field with --id-from /FIELD")]
    EmptyId,
    /// Its id is not a string; the id's text.
    #[error("has the id {0}, which is not a string; write --id-from /id to make it one")]
    OtherId(String),
    /// It lacks a component of the partition key; the component's path.
    #[error("has no partition key value at {0}; name the field to take it from with --pk-from /FIELD")]
    NoKey(String),
    /// It has nothing at the path that a value is copied from; the path.
    #[error("has no value at {0} to take its id or partition key from")]
    NoValue(String),
}

impl Request {
    /// Checks what can be checked before anything is contacted.
    ///
    /// # Errors
    /// When the rate is invalid.
    pub fn check(&self) -> Result<(), PopulateError> {
        match self.rate {
            Some(rate) if !(rate.is_finite() && rate > 0.0) => Err(PopulateError::Rate(rate)),
            _ => Ok(()),
        }
    }
}

/// Writes documents. The report says so when the input ended too early, or the service refused.
///
/// # Errors
/// When nothing was written: the input cannot be used, or the container cannot be opened.
pub async fn run(request: Request, cx: &Context<'_>) -> Result<Report, PopulateError> {
    let started = Instant::now();
    request.check()?;
    let Request { from, seed, rate, concurrency } = request;
    let container = cx.account.container(&cx.names.database, &cx.names.source).await.map_err(PopulateError::Open)?;
    let key_paths = container.key_paths();
    if let Origin::File { mapping, .. } = &from {
        mapping.check(key_paths)?;
    }
    let rng = seed.map_or_else(|| StdRng::from_rng(&mut rand::rng()), StdRng::seed_from_u64);
    let total = if let Origin::Generated(count) = &from { Some(*count) } else { None };
    let step = cx.progress.begin("populate", total);
    let problems = Problems { step: &*step, count: AtomicU64::new(0) };
    let (observer, outcomes) = Outcomes::observed();
    let limiter = RuLimiter::new(cx.account.meter(), None);
    let writers = Writers::start((&container).into(), concurrency, limiter, observer, &cx.stop);
    let sink = Sink { writers, rate: DocumentRate::new(rate), stop: cx.stop.clone() };
    // The writers end with the sink, and the outcomes with the writers.
    let work = async {
        let read = write_all(&sink, from, rng, key_paths, &problems).await;
        let (tally, refused) = sink.writers.finish().await;
        read.map(|read| (read, tally, refused))
    };
    let (done, ()) = tokio::join!(work, outcomes.tell(&*step, |text| problems.tell(text)));
    let hidden = problems.hidden();
    drop(step);
    let (Read { rejected, broken_off, stopped }, tally, refused) = done?;
    let stopped = refused.is_none() && (stopped || tally.left > 0);
    if hidden > 0 {
        cx.progress.note(&format!("... and {} more", count_of(hidden, "problem")));
    }
    if tally == WriteTally::default() && refused.is_none() && !stopped {
        match broken_off {
            Some(e) => return Err(PopulateError::Input(e)),
            None if rejected > 0 => return Err(PopulateError::AllRejected(rejected)),
            None => {}
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Report {
        container: format!("{}/{}", cx.names.database, cx.names.source),
        written: tally.done(),
        created: tally.created,
        updated: tally.updated,
        rejected,
        failed: tally.failed,
        ru: cx.account.meter().total(),
        seconds,
        per_second: tally.done() as f64 / seconds.max(0.001),
        refused,
        broken_off,
        stopped,
    })
}

/// Names the first problems and counts the others.
struct Problems<'a> {
    step: &'a dyn ProgressStep,
    count: AtomicU64,
}

impl Problems<'_> {
    fn tell(&self, text: &str) {
        if self.count.fetch_add(1, Ordering::Relaxed) < SHOWN_PROBLEMS {
            self.step.note(text);
        }
    }

    /// How many were not named.
    fn hidden(&self) -> u64 {
        self.count.load(Ordering::Relaxed).saturating_sub(SHOWN_PROBLEMS)
    }
}

/// The destination of documents, with a rate.
struct Sink {
    writers: Writers,
    rate: DocumentRate,
    stop: CancellationToken,
}

impl Sink {
    /// Returns false when nothing more can be written.
    async fn upsert(&self, item: ItemKey, text: String) -> bool {
        self.stop.run_until_cancelled(self.rate.wait()).await.is_some()
            && self.writers.send(WriteJob { item, action: WriteAction::Upsert(text.into_bytes()) }).await
    }
}

/// Counts of an input's documents.
#[derive(Default)]
struct Read {
    rejected: u64,
    broken_off: Option<io::Error>,
    stopped: bool,
}

async fn write_all(
    sink: &Sink,
    from: Origin,
    mut rng: StdRng,
    key_paths: &KeyPaths,
    problems: &Problems<'_>,
) -> Result<Read, PopulateError> {
    match from {
        Origin::Generated(count) => {
            let stopped = !generate(sink, key_paths, &mut rng, count).await?;
            Ok(Read { stopped, ..Read::default() })
        }
        Origin::File { input, mapping, updates } => {
            let prepare = |text: String| mapping.prepare(&text, key_paths);
            let (kept, mut read) = from_file(sink, input, prepare, problems, updates > 0).await;
            if read.broken_off.is_none() && !read.stopped {
                read.stopped = !update(sink, &kept, &mut rng, updates).await?;
            }
            Ok(read)
        }
    }
}

/// Returns false when it ended before all were queued.
async fn generate(sink: &Sink, key_paths: &KeyPaths, rng: &mut StdRng, count: u64) -> Result<bool, PopulateError> {
    for seq in 1..=count {
        let zip = zipcodes::pick(rng);
        let (item, text) = zip_document(zip, key_paths, seq, SystemClock.now()).map_err(PopulateError::Document)?;
        if !sink.upsert(item, text).await {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the documents of a file once each; returns those written, if they are to be kept.
async fn from_file(
    sink: &Sink,
    file: Box<dyn BufRead + Send>,
    prepare: impl Fn(String) -> Result<(ItemKey, String), InputError>,
    problems: &Problems<'_>,
    keep: bool,
) -> (Vec<(ItemKey, String)>, Read) {
    let (items, mut read) = mpsc::channel::<input::InputDocument>(64);
    let reader = tokio::task::spawn_blocking(move || input::read(file, |item| items.blocking_send(item).is_ok()));
    let mut kept = Vec::new();
    let (mut rejected, mut stopped) = (0, false);
    loop {
        let Some(item) = sink.stop.run_until_cancelled(read.recv()).await else {
            stopped = true;
            break;
        };
        let Some(item) = item else { break };
        match item.text.map_err(InputError::None).and_then(&prepare) {
            Ok((key, text)) => {
                if keep {
                    kept.push((key.clone(), text.clone()));
                }
                if !sink.upsert(key, text).await {
                    stopped = true;
                    break;
                }
            }
            Err(problem) => {
                rejected += 1;
                problems.tell(&format!("{} {problem}", item.place));
            }
        }
    }
    // The reader stops at its next document once the receiver is dropped.
    drop(read);
    // The reader may be waiting for input that nobody types.
    let broken_off = match sink.stop.run_until_cancelled(reader).await {
        None | Some(Ok(Ok(()))) => None,
        Some(Ok(Err(e))) => Some(e),
        Some(Err(e)) => Some(io::Error::other(e)),
    };
    (kept, Read { rejected, broken_off, stopped })
}

/// Writes documents again at random, with fresh `seq`, `timestamp` and `epoch`; returns false when it ended early.
async fn update(sink: &Sink, kept: &[(ItemKey, String)], rng: &mut StdRng, count: u64) -> Result<bool, PopulateError> {
    if kept.is_empty() {
        return Ok(true);
    }
    for seq in 1..=count {
        let (item, text) = &kept[rng.random_range(0..kept.len())];
        let text = refreshed(text, seq, SystemClock.now()).map_err(PopulateError::Document)?;
        if !sink.upsert(item.clone(), text).await {
            return Ok(false);
        }
    }
    Ok(true)
}

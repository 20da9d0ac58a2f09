//! Loads documents into the source container from a backup, from any JSON file, or from an archive of `follow`. Running
//! it again is harmless.

use std::{io, path::PathBuf, time::Instant};

use serde::Serialize;
use tokio::{sync::mpsc, task::JoinError};

use super::{
    file::{self, FileError, Trailer},
    loadable::{Unloadable, prepare},
    source::LineSource,
};
use crate::{
    archive::{Archive, Damage, InputDocument, Newest},
    causes::chain,
    change::time::PointInTime,
    context::Context,
    cosmos::{Concurrency, Container, Failure, RuLimiter, WriteAction, WriteJob, WriteTally, Writers},
    figures::count_of,
    input,
    outcomes::Outcomes,
};

/// How many documents that cannot be loaded are named. Whoever names the wrong file has as many as it has lines.
const SHOWN: u64 = 20;

/// Lines of a file that are counted together while it is checked.
const COUNTED: u64 = 500;

/// Which documents are loaded, and how.
pub struct Request {
    /// Where they come from.
    pub from: LoadOrigin,
    /// The treatment of documents that exist.
    pub existing: Existing,
    /// Writes in flight.
    pub concurrency: Concurrency,
    /// At most this many RU a second, on average.
    pub ru_limit: Option<f64>,
}

/// Where documents come from.
pub enum LoadOrigin {
    /// A file or a stream.
    File {
        /// Its name in messages.
        name: PathBuf,
        /// The documents.
        source: LineSource,
        /// Whether it is a backup, with a count and a checksum, or any other JSON.
        is_backup: bool,
    },
    /// An archive that `follow` wrote.
    Archive {
        /// The archive.
        archive: Archive,
        /// The moment whose versions are loaded; without it, the newest ones.
        at: Option<PointInTime>,
    },
}

/// The treatment of documents that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// They are replaced.
    Replace,
    /// They are left alone.
    Leave,
    /// They are replaced when they were last written before the moment of the backup or archive.
    ReplaceOlder,
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
    /// Documents that exist already and were left alone.
    pub skipped: u64,
    /// Documents that were refused, or could not be sent at all.
    pub failed: u64,
    /// Request units.
    pub ru: f64,
    /// Seconds.
    pub seconds: f64,
    /// The failure that ended the writing: every further write would have failed, too.
    #[serde(skip)]
    pub refused: Option<Failure>,
    /// Why the input ended too early.
    #[serde(skip)]
    pub broken_off: Option<BrokenOff>,
    /// Whether the work was told to stop before its end.
    #[serde(skip)]
    pub stopped: bool,
}

/// Why the input ended too early.
#[derive(Debug, thiserror::Error)]
pub enum BrokenOff {
    /// The file has changed, or is damaged.
    #[error("cannot use {}", name.display())]
    File {
        /// The file.
        name: PathBuf,
        /// The problem with it.
        #[source]
        problem: FileError,
    },
    /// The archive has changed, or is damaged.
    #[error("cannot read the archive")]
    Archive(#[source] Damage),
    /// The task that reads it failed.
    #[error("the reader of the archive failed")]
    Reader(#[source] JoinError),
}

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file that is not a backup does not say which moment it shows.
    #[error("the moment of the file is needed, and only a backup has one")]
    NoMoment,
    /// A stream says only at its end which moment it shows.
    #[error("the moment of the backup is needed before its end")]
    MomentAtEnd,
    /// The file is malformed.
    #[error("cannot use {}", name.display())]
    File {
        /// The file.
        name: PathBuf,
        /// Whether it was to be a backup.
        is_backup: bool,
        /// The problem with it.
        #[source]
        problem: FileError,
    },
    /// The archive cannot be used.
    #[error("cannot use the archive")]
    Archive(#[source] Damage),
    /// The container cannot be opened.
    #[error("cannot open the container")]
    Open(#[source] Failure),
    /// It was told to stop before the first document.
    #[error("stopped; nothing was loaded")]
    Stopped,
}

impl Existing {
    /// Checks whether a file has the moment that the request needs; only a backup has one.
    ///
    /// # Errors
    /// When the file is not a backup.
    pub fn check(self, is_backup: bool) -> Result<(), LoadError> {
        if self == Self::ReplaceOlder && !is_backup { Err(LoadError::NoMoment) } else { Ok(()) }
    }
}

impl Request {
    /// Checks whether the input has the moment that the request needs.
    ///
    /// # Errors
    /// When it has none, or has it only at its end.
    pub fn check(&self) -> Result<(), LoadError> {
        let LoadOrigin::File { is_backup, source, .. } = &self.from else { return Ok(()) };
        self.existing.check(*is_backup)?;
        match source {
            LineSource::Stream(_) if self.existing == Existing::ReplaceOlder => Err(LoadError::MomentAtEnd),
            _ => Ok(()),
        }
    }
}

/// Loads documents. Nothing is written when the input cannot be used; the report says so when it ended too early.
///
/// # Errors
/// When the input cannot be used, or the container cannot be opened.
pub async fn load(request: Request, cx: &Context<'_>) -> Result<Report, LoadError> {
    let started = Instant::now();
    request.check()?;
    let Request { from, existing, concurrency, ru_limit } = request;
    let how = Writing { existing, concurrency, ru_limit };
    let (written, broken_off) = match from {
        LoadOrigin::File { name, source, is_backup } => load_file(name, source, is_backup, how, cx).await?,
        LoadOrigin::Archive { archive, at } => load_archive(archive, at, how, cx).await?,
    };
    Ok(Report {
        container: format!("{}/{}", cx.names.database, cx.names.source),
        written: written.tally.done(),
        created: written.tally.created,
        updated: written.tally.updated,
        skipped: written.tally.skipped,
        failed: written.tally.failed + written.unusable,
        ru: cx.account.meter().total(),
        seconds: started.elapsed().as_secs_f64(),
        refused: written.refused,
        broken_off,
        stopped: written.stopped,
    })
}

async fn load_archive(
    archive: Archive,
    at: Option<PointInTime>,
    how: Writing,
    cx: &Context<'_>,
) -> Result<(Written, Option<BrokenOff>), LoadError> {
    let container = open(cx).await?;
    let newest = cx.stop.run_until_cancelled(Newest::of(archive, at.map(PointInTime::seconds))).await;
    let newest = newest.ok_or(LoadError::Stopped)?.map_err(LoadError::Archive)?;
    let documents = newest.documents();
    newest.counts.describe(Some(documents)).iter().for_each(|line| cx.progress.note(line));
    // What was written within that second may be the version itself.
    let moment = at.map_or(newest.time(), |at| at.seconds().min(newest.time()));
    let (lines, read) = mpsc::channel::<InputDocument>(64);
    let reader = tokio::spawn(newest.send(lines));
    let written = how.run(&container, read, Some(documents), moment, cx).await;
    let broken_off = match cx.stop.run_until_cancelled(reader).await {
        None | Some(Ok(Ok(()))) => None,
        Some(Ok(Err(damage))) => Some(BrokenOff::Archive(damage)),
        Some(Err(e)) => Some(BrokenOff::Reader(e)),
    };
    Ok((written, broken_off))
}

async fn load_file(
    name: PathBuf,
    mut source: LineSource,
    is_backup: bool,
    how: Writing,
    cx: &Context<'_>,
) -> Result<(Written, Option<BrokenOff>), LoadError> {
    let refused = |problem| LoadError::File { name: name.clone(), is_backup, problem };
    let mut trailer = None;
    if is_backup && matches!(source, LineSource::Seekable(_)) {
        let checked = cx.stop.run_until_cancelled(checked(source, cx)).await;
        let (found, same) = checked.ok_or(LoadError::Stopped)?.map_err(refused)?;
        (trailer, source) = (Some(found), same);
    }
    let moment = match &trailer {
        Some(trailer) => trailer.moment().map_err(refused)?,
        None => 0,
    };
    let container = open(cx).await?;
    let (lines, read) = mpsc::channel::<InputDocument>(64);
    let reader = tokio::task::spawn_blocking(move || pass_on(source, is_backup, lines));
    let written = how.run(&container, read, trailer.map(|t| t.documents), moment, cx).await;
    // The reader may be waiting for input that nobody types.
    let Some(read) = cx.stop.run_until_cancelled(reader).await else { return Ok((written, None)) };
    match joined(read) {
        Ok(()) => Ok((written, None)),
        Err(problem) if written.is_nothing() => Err(refused(problem)),
        Err(problem) => Ok((written, Some(BrokenOff::File { name, problem }))),
    }
}

async fn open(cx: &Context<'_>) -> Result<Container, LoadError> {
    cx.account.container(&cx.names.database, &cx.names.source).await.map_err(LoadError::Open)
}

/// Reads a backup to its end and checks its count and checksum.
async fn checked(mut source: LineSource, cx: &Context<'_>) -> Result<(Trailer, LineSource), FileError> {
    let step = cx.progress.begin("check", None);
    let (counted, mut counts) = mpsc::unbounded_channel();
    let reading = tokio::task::spawn_blocking(move || {
        let found = file::read(source.reader()?, |number, _| {
            if number.is_multiple_of(COUNTED) {
                let _ = counted.send(COUNTED);
            }
            true
        });
        found.map(|trailer| (trailer, source))
    });
    while let Some(more) = counts.recv().await {
        step.advance(more);
    }
    joined(reading.await)
}

/// How documents are written.
struct Writing {
    existing: Existing,
    concurrency: Concurrency,
    ru_limit: Option<f64>,
}

/// Counts of the writes, by outcome.
struct Written {
    tally: WriteTally,
    /// Documents that could not be sent at all.
    unusable: u64,
    refused: Option<Failure>,
    /// Whether the work was told to stop before its end.
    stopped: bool,
}

impl Writing {
    /// Writes the documents that are read, until the input ends or every further write would fail, too.
    async fn run(
        self,
        container: &Container,
        mut read: mpsc::Receiver<InputDocument>,
        total: Option<u64>,
        moment: i64,
        cx: &Context<'_>,
    ) -> Written {
        let step = cx.progress.begin("load", total);
        let (observer, outcomes) = Outcomes::observed();
        // What was there before with the same text is not created, though the write is tried again.
        let begun = match self.existing {
            Existing::Leave => cx.account.service_time().await.map(|now| now.timestamp()),
            Existing::Replace | Existing::ReplaceOlder => None,
        };
        let limiter = RuLimiter::new(cx.account.meter(), self.ru_limit);
        let writers = Writers::start(container.into(), self.concurrency, limiter, observer, &cx.stop);
        let work = async {
            let (mut unusable, mut stopped) = (0, false);
            loop {
                let Some(line) = cx.stop.run_until_cancelled(read.recv()).await else {
                    stopped = true;
                    break;
                };
                let Some(line) = line else { break };
                match line.text.map_err(Unloadable::None).and_then(|text| prepare(&text, container.key_paths())) {
                    Ok((item, text)) => {
                        let text = text.into_bytes();
                        let action = match self.existing {
                            Existing::Replace => WriteAction::Upsert(text),
                            Existing::Leave => WriteAction::Create(text, begun),
                            Existing::ReplaceOlder => WriteAction::ReplaceOlder(text, moment),
                        };
                        if !writers.send(WriteJob { item, action }).await {
                            stopped = true;
                            break;
                        }
                    }
                    Err(problem) => {
                        unusable += 1;
                        if unusable <= SHOWN {
                            step.note(&format!("{} {}", line.place, chain(&problem)));
                        }
                    }
                }
            }
            if let Some(more @ 1..) = unusable.checked_sub(SHOWN) {
                step.note(&format!("and {} that cannot be loaded", count_of(more, "more document")));
            }
            // The reader stops at its next line once the receiver is dropped.
            drop(read);
            let (tally, refused) = writers.finish().await;
            let stopped = refused.is_none() && (stopped || tally.left > 0);
            Written { tally, unusable, refused, stopped }
        };
        let (written, ()) = tokio::join!(work, outcomes.tell(&*step, |text| step.note(text)));
        written
    }
}

impl Written {
    fn is_nothing(&self) -> bool {
        self.tally == WriteTally::default() && self.unusable == 0 && self.refused.is_none() && !self.stopped
    }
}

fn joined<T>(result: Result<Result<T, FileError>, JoinError>) -> Result<T, FileError> {
    result.unwrap_or_else(|e| Err(FileError::Io(io::Error::other(e))))
}

/// Reads everything and sends it on. The checksum is checked again: the file may have changed since the first look, and
/// a stream was not checked before.
fn pass_on(mut source: LineSource, is_backup: bool, lines: mpsc::Sender<InputDocument>) -> Result<(), FileError> {
    let reader = source.reader()?;
    if !is_backup {
        return input::read(reader, |item| {
            matches!(&item.text, Ok(text) if file::is_trailer(text)) || lines.blocking_send(item).is_ok()
        })
        .map_err(FileError::Io);
    }
    let read = file::read(reader, |number, text| {
        lines.blocking_send(InputDocument { place: format!("line {number}"), text: Ok(text.to_owned()) }).is_ok()
    });
    match read {
        // The writers have stopped, and say why.
        Ok(_) | Err(FileError::Stopped) => Ok(()),
        Err(problem) => Err(problem),
    }
}

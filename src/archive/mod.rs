//! Reads back what `follow` wrote to a folder or to blobs.
//!
//! Everything is read twice. The first time only facts and places are collected (`newest`: one place for each document;
//! `versions`: all of them, in temporary files). The second time the texts that were chosen are passed on.

pub mod erase;
mod event;
mod fetch;
mod file;
mod index;
mod location;
mod newest;
pub mod texts;
pub mod versions;

use std::{error::Error, fmt, io};

use tokio::task::JoinError;

use self::file::FileKind;
use crate::{
    blob::{BlobContainer, BlobError},
    follow::NoAnswer,
};

pub use self::{
    fetch::WantedEvent,
    file::events_in,
    index::ReadCounts,
    location::{Archive, HOW, NoArchive},
    newest::Newest,
};

/// How many blobs of one version each are read concurrently.
const READS: usize = 16;

/// One document, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDocument {
    /// Its place: `line 7`, `document 3 (line 7)`, or a file's name before the line.
    pub place: String,
    /// Its JSON text, known to be an object.
    pub text: Result<String, NoDocument>,
}

/// Why there is no document in a place; displays as what follows the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDocument {
    /// Its text is longer than this many MiB.
    #[error("is longer than {0} MiB; the service takes 2 MB")]
    TooLong(usize),
    /// Its text is not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// Its text is JSON, but not an object.
    #[error("is JSON, but not an object")]
    NotAnObject,
    /// Its text is not JSON.
    #[error("is not valid JSON: {problem} (at {}column {column})", if *line > 1 { format!("its line {line}, ") } else { String::new() })]
    NotJson {
        /// The parser's message.
        problem: String,
        /// The line within the document.
        line: usize,
        /// Its column.
        column: usize,
    },
    /// The input ends inside it.
    #[error("is cut off: the input ends inside it")]
    CutOff,
    /// There is text after the end of the array.
    #[error("holds text after the end of the array")]
    AfterArray,
    /// The array does not end.
    #[error("is the last one, but the array is not closed with ]; the input may be cut off")]
    OpenArray,
    /// The event holds only a part of the document.
    #[error("is only a part of the document: fields were left out or hashed when it was archived")]
    Partial,
    /// MongoDB did not have the text any more when it was asked for it.
    #[error("has no text: the document was gone when MongoDB was asked for it")]
    Lost,
    /// The collection that took the name of its own was not read yet.
    #[error("may be another document: another collection took the name of its own, and was not read by then")]
    Replaced,
    /// The event had a document in the first pass.
    #[error("has no document any more")]
    Gone,
    /// Another event is in its place now.
    #[error("is another version now: the archive changed while it was read")]
    Changed,
    /// The event's partition key is malformed; the reason.
    #[error("{0}")]
    Key(String),
    /// The event has no document.
    #[error("has no document")]
    None,
    /// The event's document is not a JSON object.
    #[error("has a document that is not a JSON object")]
    NoObject,
    /// The event's document belongs to another item.
    #[error("has a document of another id or partition key")]
    Other,
    /// The event's MongoDB document does not have the fingerprint that was written with it.
    #[error("has a document that was altered: it does not have its etag")]
    Altered,
}

/// Why an archive cannot be used. Never quotes a document or a signature.
#[derive(Debug)]
pub struct Damage {
    /// The file, and the line when it has several.
    place: String,
    /// The problem.
    pub problem: Problem,
}

impl Damage {
    fn new(place: impl Into<String>, problem: impl Into<Problem>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.place, self.problem)
    }
}

impl Error for Damage {
    /// The cause of the problem; the problem itself is displayed with its place.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// A problem in one place of an archive; displays as the text that follows the place.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is no event file in it: probably another place was meant.
    #[error("is no .json, .jsonl or .jsonl.gz file")]
    Nothing,
    /// A file or folder cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// A temporary file cannot be made.
    #[error("cannot be made")]
    Make(#[source] io::Error),
    /// A temporary file cannot be written.
    #[error("cannot be written")]
    Write(#[source] io::Error),
    /// A file cannot be opened, replaced or removed.
    #[error(transparent)]
    Disk(io::Error),
    /// The blob container does not answer.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It is a device or a pipe, which may never end.
    #[error("is not a file")]
    NotAFile,
    /// It is longer than any event.
    #[error("is longer than {} MiB", file::MAX_EVENT >> 20)]
    TooLong,
    /// It is not an event that `follow` wrote.
    #[error("is not an event of follow: {what} (column {column})")]
    NotAnEvent {
        /// The kind of the problem.
        what: &'static str,
        /// Its column.
        column: usize,
    },
    /// It has neither a document nor a delete.
    #[error("is not an event of follow: it has no document and is no delete")]
    NoDocument,
    /// Its partition key is malformed.
    #[error("is not an event of follow: {0}")]
    Key(NoDocument),
    /// It cannot be turned back into an event.
    #[error(transparent)]
    Event(NoDocument),
    /// It has no time.
    #[error("is an event without a time: no order can be told")]
    NoTime,
    /// It has documents of these collections with the same id.
    #[error("has documents with the same id in several collections: {0}")]
    MixedUp(String),
    /// Its partition key does not fit the source.
    #[error("has a partition key of {found} components, the source's has {wanted}")]
    Components {
        /// The number of its components.
        found: usize,
        /// The number of the source's components.
        wanted: usize,
    },
    /// It was there in the first pass, and is gone.
    #[error("is gone: the archive changed while it was read")]
    Gone,
    /// Others change it all the time.
    #[error("keeps changing: run the command again")]
    KeepsChanging,
    /// The filter uses a name that does not exist.
    #[error(transparent)]
    Filter(NoAnswer),
    /// The task that reads panicked.
    #[error("ended")]
    Ended(#[source] JoinError),
}

/// The place of each document's newest version in one file. For the fuzz targets, too.
///
/// # Errors
/// When an entry is not an event.
#[doc(hidden)]
pub fn newest_in(name: &str, bytes: &[u8]) -> Result<Vec<WantedEvent>, Damage> {
    newest::places_in(name, FileKind::of(name).unwrap_or(FileKind::Lines), bytes)
}

/// The file, with the line when it has several.
fn place(file: &str, line: u64) -> String {
    if line == 0 { file.to_owned() } else { format!("{file} line {line}") }
}

/// Reading and decompressing take long enough to hold up other tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Damage> + Send + 'static) -> Result<T, Damage> {
    let task = tokio::task::spawn_blocking(work);
    task.await.unwrap_or_else(|e| Err(Damage::new("a reader", Problem::Ended(e))))
}

async fn get(store: &BlobContainer, name: &str) -> Result<Vec<u8>, Damage> {
    store.get(name).await.map_err(|e| Damage::new(name, e))
}

//! What `follow` wrote to a folder or to blobs, read back.
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

use self::file::Kind;
use crate::{
    blob::{BlobContainer, BlobError},
    follow::NoAnswer,
};

pub use self::{
    fetch::Wanted,
    file::events_in,
    index::Counts,
    location::{Archive, HOW, NoArchive},
    newest::Newest,
};

/// Blobs of one version each that are read at the same time.
const READS: usize = 16;

/// One document, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDocument {
    /// Where it is: `line 7`, `document 3 (line 7)`, or a file's name before the line.
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
        /// The parser's words.
        problem: String,
        /// The line within the document.
        line: usize,
        /// The column of it.
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
    /// The event has only a part of it.
    #[error("is only a part of the document: fields were left out or hashed when it was archived")]
    Partial,
    /// The event had one when it was read for the first time.
    #[error("has no document any more")]
    Gone,
    /// Another event is in its place.
    #[error("is not the version that it was: the archive changed while it was read")]
    Changed,
    /// The event's partition key is none; the reason.
    #[error("{0}")]
    Key(String),
    /// The event has none.
    #[error("has no document")]
    None,
    /// The event has something else instead.
    #[error("has a document that is no JSON object")]
    NoObject,
    /// The event has another one.
    #[error("has a document of another id or partition key")]
    Other,
}

/// Why an archive cannot be used. Nothing of it holds a document or a signature.
#[derive(Debug)]
pub struct Damage {
    /// The file, and the line where there are several.
    place: String,
    /// What is wrong there.
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
    /// The cause of the problem: the problem itself is told with its place.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// What is wrong in one place of an archive; displays as what follows the place.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// There is nothing at all: another place was meant.
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
    /// It is something that may never end.
    #[error("is not a file")]
    NotAFile,
    /// It is longer than any event.
    #[error("is longer than {} MiB", file::MAX_EVENT >> 20)]
    TooLong,
    /// It is something else.
    #[error("is no event of follow: {what} (column {column})")]
    NotAnEvent {
        /// What kind of thing is wrong with it.
        what: &'static str,
        /// The column of it.
        column: usize,
    },
    /// It is an event about nothing.
    #[error("is no event of follow: it has no document and is no delete")]
    NoDocument,
    /// Its partition key is none.
    #[error("is no event of follow: {0}")]
    Key(NoDocument),
    /// It cannot be made an event again.
    #[error(transparent)]
    Event(NoDocument),
    /// It has no time.
    #[error("is an event without a time: no order can be told")]
    NoTime,
    /// Its partition key is not one of the source.
    #[error("has a partition key of {found} components, the source's has {wanted}")]
    Components {
        /// Its components.
        found: usize,
        /// The source's.
        wanted: usize,
    },
    /// It was there when everything was read for the first time.
    #[error("is gone: the archive changed while it was read")]
    Gone,
    /// The filter names what there is not.
    #[error(transparent)]
    Filter(NoAnswer),
    /// The task that reads panicked.
    #[error("ended")]
    Ended(#[source] JoinError),
}

/// Where the newest version of each document in one file lies: for the fuzz targets, too.
///
/// # Errors
/// When something in it is no event.
#[doc(hidden)]
pub fn newest_in(name: &str, bytes: &[u8]) -> Result<Vec<Wanted>, Damage> {
    newest::places_in(name, Kind::of(name).unwrap_or(Kind::Lines), bytes)
}

/// The file, with the line where it has several.
fn place(file: &str, line: u64) -> String {
    if line == 0 { file.to_owned() } else { format!("{file} line {line}") }
}

/// Reading and expanding take long enough to be in others' way.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Damage> + Send + 'static) -> Result<T, Damage> {
    let task = tokio::task::spawn_blocking(work);
    task.await.unwrap_or_else(|e| Err(Damage::new("a reader", Problem::Ended(e))))
}

async fn get(store: &BlobContainer, name: &str) -> Result<Vec<u8>, Damage> {
    store.get(name).await.map_err(|e| Damage::new(name, e))
}

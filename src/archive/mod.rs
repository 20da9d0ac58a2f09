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
pub mod versions;

use self::file::Kind;
use crate::blob::BlobContainer;

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
    pub text: Result<String, String>,
}

/// Why an archive cannot be used. Nothing of it holds a document or a signature.
#[derive(Debug, thiserror::Error)]
#[error("{place} {problem}")]
pub struct Damage {
    /// The file, and the line where there are several.
    place: String,
    problem: String,
    /// Whether there is nothing at all, so that another place was meant.
    pub nothing: bool,
}

impl Damage {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into(), nothing: false }
    }
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
    task.await.unwrap_or_else(|e| Err(Damage::new("a reader", format!("ended: {e}"))))
}

async fn get(store: &BlobContainer, name: &str) -> Result<Vec<u8>, Damage> {
    store.get(name).await.map_err(|e| Damage::new(name, e.message))
}

//! What `follow` wrote to a folder or to blobs, read back: which version of each document was in force at a moment.
//!
//! Everything is read twice. The first time only places are kept, one for each document: which version is the newest so
//! far, and where its text is. The second time the texts that were chosen are passed on.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::bufread::MultiGzDecoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{CliError, Exit, input};
use crate::{
    blob::BlobContainer,
    change::{Op, order::Position},
    config::{BlobUrl, Credential, DeadLetterLocation},
};

/// Longest event taken: two documents of 2 MB, with room for escapes.
const MAX_EVENT: u64 = 32 << 20;
/// Blobs of one version each that are read at the same time.
const READS: usize = 16;

/// Where an archive is.
pub enum Archive {
    /// A folder on this machine, with all folders in it.
    Folder(PathBuf),
    /// Blobs below a prefix.
    Blobs(Arc<BlobContainer>, String),
}

/// Why an archive cannot be used. Nothing of it holds a document or a signature.
#[derive(Debug, thiserror::Error)]
#[error("{place} {problem}")]
pub struct Damage {
    /// The file, and the line where there are several.
    place: String,
    problem: String,
}

impl Damage {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

/// How a file of an archive is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One event.
    One,
    /// One event a line.
    Lines,
    /// The same, compressed.
    Gzip,
}

impl Kind {
    /// By the name; `None` for what `follow` does not write.
    fn of(name: &str) -> Option<Self> {
        match name {
            _ if name.ends_with(".jsonl.gz") => Some(Self::Gzip),
            _ if name.ends_with(".jsonl") => Some(Self::Lines),
            _ if name.ends_with(".json") => Some(Self::One),
            _ => None,
        }
    }
}

/// An event as far as it decides.
#[derive(Deserialize)]
struct Head<'a> {
    op: Op,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    pk: &'a RawValue,
    ts: Option<i64>,
    lsn: Option<i64>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow)]
    doc: Option<&'a RawValue>,
    #[serde(borrow, default)]
    partial: Option<&'a RawValue>,
}

/// What a version is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Document,
    Gone,
    Partial,
}

/// The newest version of a document so far.
#[derive(Debug)]
struct Best {
    ts: i64,
    lsn: Option<i64>,
    version: Box<str>,
    file: Arc<str>,
    line: u64,
    state: State,
}

impl Best {
    fn position(&self) -> Position<'_> {
        Position { ts: self.ts, lsn: self.lsn, record_id: &self.version }
    }
}

/// Where the text of each document's version is.
#[derive(Debug, Default)]
pub struct Index {
    items: HashMap<[u8; 16], Best>,
    /// Time of the newest version that was looked at, epoch seconds.
    pub newest: i64,
    /// Events read.
    pub events: u64,
    files: u64,
    /// Files with other names.
    pub passed_over: u64,
}

/// A version whose text is to be read.
#[derive(Debug)]
struct Wanted {
    file: Arc<str>,
    line: u64,
    version: Box<str>,
}

impl Index {
    fn add(&mut self, file: &Arc<str>, line: u64, text: &[u8], at: Option<i64>) -> Result<(), Damage> {
        let wrong = |problem: String| Damage::new(place(file, line), problem);
        let head: Head<'_> = serde_json::from_slice(text)
            .map_err(|e| wrong(format!("is no event of follow: {} (column {})", kind_of(&e), e.column())))?;
        let state = match (head.op.is_tombstone(), head.partial.is_some()) {
            (true, _) => State::Gone,
            (false, true) => State::Partial,
            (false, false) => State::Document,
        };
        if state == State::Document && head.doc.is_none() {
            return Err(wrong("is no event of follow: it has no document and is no delete".into()));
        }
        let Some(ts) = head.ts else { return Err(wrong("is an event without a time: no order can be told".into())) };
        self.events += 1;
        if at.is_some_and(|at| ts > at) {
            return Ok(());
        }
        self.newest = self.newest.max(ts);
        let mut digest = Sha256::new();
        digest.update(head.pk.get().as_bytes());
        digest.update([0]);
        digest.update(head.id.as_bytes());
        let mut item = [0; 16];
        item.copy_from_slice(&digest.finalize()[..16]);
        let seen = Position { ts, lsn: head.lsn, record_id: &head.version };
        if self.items.get(&item).is_none_or(|best| best.position() < seen) {
            let (lsn, version) = (head.lsn, head.version.as_ref().into());
            self.items.insert(item, Best { ts, lsn, version, file: file.clone(), line, state });
        }
        Ok(())
    }

    /// Adds all events of a file.
    fn add_all(&mut self, name: &str, kind: Kind, input: impl BufRead, at: Option<i64>) -> Result<(), Damage> {
        let file: Arc<str> = name.into();
        self.files += 1;
        each_event(name, kind, input, |line, text| self.add(&file, line, text, at).map(|()| true))
    }

    /// How many documents there were.
    pub fn documents(&self) -> u64 {
        self.items.values().filter(|best| best.state != State::Gone).count() as u64
    }

    /// What is to be read, in the order in which it lies, and the places of versions that are only a part.
    fn into_wanted(self) -> (Vec<Wanted>, Vec<String>) {
        let mut wanted = Vec::with_capacity(self.items.len());
        let mut partial = Vec::new();
        for best in self.items.into_values() {
            match best.state {
                State::Document => wanted.push(Wanted { file: best.file, line: best.line, version: best.version }),
                State::Partial => partial.push(place(&best.file, best.line)),
                State::Gone => {}
            }
        }
        wanted.sort_unstable_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        partial.sort_unstable();
        (wanted, partial)
    }
}

/// The file, with the line where it has several.
fn place(file: &str, line: u64) -> String {
    if line == 0 { file.to_owned() } else { format!("{file} line {line}") }
}

/// What is wrong with a text, without any of it: serde's own message may quote it.
fn kind_of(e: &serde_json::Error) -> &'static str {
    match e.classify() {
        serde_json::error::Category::Eof => "it is cut off",
        serde_json::error::Category::Syntax => "it is not valid JSON",
        _ => "its members are others",
    }
}

/// Passes on the events of a file, with their lines (0 where the file is one event), until `each` says false.
fn each_event(
    name: &str,
    kind: Kind,
    mut input: impl BufRead,
    mut each: impl FnMut(u64, &[u8]) -> Result<bool, Damage>,
) -> Result<(), Damage> {
    if kind == Kind::Gzip {
        let expanded = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input));
        return each_event(name, Kind::Lines, Box::new(expanded) as Box<dyn BufRead + '_>, each);
    }
    let unreadable = |e: &io::Error| Damage::new(name, format!("cannot be read: {e}"));
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        text.clear();
        line += 1;
        let mut limited = input.by_ref().take(MAX_EVENT + 1);
        let read = match kind {
            Kind::One => limited.read_to_end(&mut text),
            _ => limited.read_until(b'\n', &mut text),
        };
        let read = read.map_err(|e| unreadable(&e))?;
        if read as u64 > MAX_EVENT {
            return Err(Damage::new(place(name, line), format!("is longer than {} MiB", MAX_EVENT >> 20)));
        }
        if kind == Kind::One {
            return each(0, &text).map(drop);
        }
        if read == 0 {
            return Ok(());
        }
        let event = text.trim_ascii();
        if event.is_empty() {
            continue;
        }
        match each(line, event) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // A follower that was killed in the middle of a line writes it again: its page was not acknowledged.
            Err(_) if !text.ends_with(b"\n") && serde_json::from_slice::<serde::de::IgnoredAny>(event).is_err() => {
                return Ok(());
            }
            Err(damage) => return Err(damage),
        }
    }
}

impl Archive {
    /// Understands `--archive`; contacts nobody.
    ///
    /// # Errors
    /// When there is no such folder, or the URL is none.
    pub fn open(text: &str, credential: &Credential) -> Result<Self, CliError> {
        const FIX: &str =
            "write --archive FOLDER, or --archive blob:https://<account>.blob.core.windows.net/<container>/<prefix>";
        // A URL may hold a signature.
        let shown = text.split('?').next().unwrap_or_default();
        let wrong = |problem: &str| CliError::usage(format!("--archive {shown}: {problem}"), FIX);
        let Some(url) = text.strip_prefix("blob:") else {
            if text.contains("://") {
                return Err(wrong("a URL begins with blob:"));
            }
            return match fs::metadata(text) {
                Ok(kind) if kind.is_dir() => Ok(Self::Folder(text.into())),
                Ok(_) => Err(wrong("it is a file; name the folder that it is in")),
                Err(e) => Err(wrong(&e.to_string())),
            };
        };
        let url: BlobUrl = match DeadLetterLocation::parse("--archive", url, Path::new("")) {
            Ok(DeadLetterLocation::Blob(url)) => url,
            Ok(DeadLetterLocation::Directory(_)) => return Err(wrong("it is not a URL")),
            Err(e) => return Err(wrong(&e.problem)),
        };
        let (container, folder) = url.split();
        let store = BlobContainer::open(&container, credential).map_err(|e| wrong(&e.message))?;
        Ok(Self::Blobs(Arc::new(store), folder))
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// When something in it is no event, or cannot be read: the newest version of a document may be what is lost.
    pub async fn index(&self, at: Option<i64>) -> Result<Index, CliError> {
        let index = match self {
            Self::Folder(path) => {
                let path = path.clone();
                let task = tokio::task::spawn_blocking(move || index_folder(&path, at));
                task.await.unwrap_or_else(|e| Err(Damage::new("a reader", format!("ended: {e}"))))
            }
            Self::Blobs(store, folder) => index_blobs(store, folder, at).await,
        };
        let index = index.map_err(|damage| CliError {
            message: format!("--archive: {damage}"),
            hint: Some("nothing was written: the newest version of a document may be what is missing; take another copy of it, or move away what is no part of the archive".into()),
            exit: Exit::Failed,
        })?;
        if index.files == 0 {
            return Err(CliError::usage(
                "--archive: there is no .json, .jsonl or .jsonl.gz file",
                "name the folder, or container and prefix, that follow wrote to",
            ));
        }
        Ok(index)
    }

    /// Reads the chosen texts and passes them on, until nobody listens any more.
    ///
    /// # Errors
    /// When what was there the first time cannot be read now.
    pub async fn send(self, index: Index, lines: mpsc::Sender<input::Item>) -> Result<(), Damage> {
        let (wanted, partial) = index.into_wanted();
        for place in partial {
            let text =
                Err("is only a part of the document: fields were left out or hashed when it was archived".into());
            if lines.send(input::Item { place, text }).await.is_err() {
                return Ok(());
            }
        }
        let ended = |e: tokio::task::JoinError| Damage::new("a reader", format!("ended: {e}"));
        match self {
            Self::Folder(_) => {
                let task = tokio::task::spawn_blocking(move || {
                    for chosen in wanted.chunk_by(|a, b| a.file == b.file) {
                        let name = &*chosen[0].file;
                        let file = File::open(name).map_err(|e| Damage::new(name, format!("cannot be read: {e}")))?;
                        if !pass_on(chosen, BufReader::with_capacity(1 << 16, file), &lines)? {
                            break;
                        }
                    }
                    Ok(())
                });
                task.await.map_err(ended)?
            }
            Self::Blobs(store, _) => {
                // Files of many events one at a time: each is in memory, compressed.
                let mut files = Vec::new();
                let mut ones = Vec::new();
                for chosen in wanted {
                    if Kind::of(&chosen.file) == Some(Kind::One) { ones.push(chosen) } else { files.push(chosen) }
                }
                let mut read = stream::iter(ones)
                    .map(|one| async { get(&store, &one.file).await.map(|bytes| (one, bytes)) })
                    .buffer_unordered(READS);
                while let Some((one, bytes)) = read.try_next().await? {
                    if lines.send(item(&bytes, &one)).await.is_err() {
                        return Ok(());
                    }
                }
                let mut files = files.into_iter().peekable();
                while let Some(first) = files.next() {
                    let bytes = get(&store, &first.file).await?;
                    let mut chosen = vec![first];
                    while let Some(more) = files.next_if(|next| next.file == chosen[0].file) {
                        chosen.push(more);
                    }
                    let lines = lines.clone();
                    let task = tokio::task::spawn_blocking(move || pass_on(&chosen, bytes.as_slice(), &lines));
                    if !task.await.map_err(ended)?? {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Passes on the chosen events of one file; false when nobody listens any more.
fn pass_on(chosen: &[Wanted], input: impl BufRead, lines: &mpsc::Sender<input::Item>) -> Result<bool, Damage> {
    let Some(first) = chosen.first() else { return Ok(true) };
    let kind = Kind::of(&first.file).unwrap_or(Kind::Lines);
    let mut left = chosen.iter().peekable();
    let mut listening = true;
    each_event(&first.file, kind, input, |line, text| {
        if let Some(one) = left.next_if(|one| one.line == line) {
            listening = lines.blocking_send(item(text, one)).is_ok();
        }
        Ok(listening && left.peek().is_some())
    })?;
    match left.next() {
        Some(one) if listening => {
            Err(Damage::new(place(&one.file, one.line), "is gone: the archive changed while it was read"))
        }
        _ => Ok(listening),
    }
}

/// The document of an event that was chosen.
fn item(text: &[u8], chosen: &Wanted) -> input::Item {
    let document = match serde_json::from_slice::<Head<'_>>(text) {
        Ok(head) if *head.version == *chosen.version => head.doc.map(|doc| doc.get().to_owned()),
        _ => None,
    };
    let text =
        document.ok_or_else(|| "is not the version that it was: the archive changed while it was read".to_owned());
    input::Item { place: place(&chosen.file, chosen.line), text }
}

fn index_folder(root: &Path, at: Option<i64>) -> Result<Index, Damage> {
    let mut index = Index::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let unreadable = |e: io::Error| Damage::new(folder.display().to_string(), format!("cannot be read: {e}"));
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(unreadable)?);
            // Links to folders are not followed: they may lead round in a circle.
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let Some((name, kind)) = path.to_str().and_then(|name| Some((name, Kind::of(name)?))) else {
                index.passed_over += 1;
                continue;
            };
            let file = File::open(&path).map_err(|e| Damage::new(name, format!("cannot be read: {e}")))?;
            index.add_all(name, kind, BufReader::with_capacity(1 << 16, file), at)?;
        }
    }
    Ok(index)
}

async fn index_blobs(store: &Arc<BlobContainer>, folder: &str, at: Option<i64>) -> Result<Index, Damage> {
    let failed = |e: crate::blob::BlobError| Damage::new(store.shown(), e.message);
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut index = Index::default();
    let mut names = store.names_below(prefix).map_err(failed)?;
    let mut ones: Vec<String> = Vec::new();
    loop {
        let name = names.try_next().await.map_err(failed)?;
        let kind = name.as_deref().map(Kind::of);
        match (name, kind) {
            (Some(name), Some(Some(Kind::One))) => ones.push(name),
            (Some(name), Some(Some(kind))) => {
                let bytes = get(store, &name).await?;
                // Expanding takes long enough to be in others' way.
                let task = tokio::task::spawn_blocking(move || {
                    index.add_all(&name, kind, bytes.as_slice(), at).map(|()| index)
                });
                index = task.await.unwrap_or_else(|e| Err(Damage::new("a reader", format!("ended: {e}"))))?;
            }
            (Some(_), _) => index.passed_over += 1,
            (None, _) => break index_ones(store, ones, &mut index, at).await?,
        }
        if ones.len() >= READS * 8 {
            index_ones(store, std::mem::take(&mut ones), &mut index, at).await?;
        }
    }
    Ok(index)
}

async fn index_ones(
    store: &BlobContainer,
    names: Vec<String>,
    index: &mut Index,
    at: Option<i64>,
) -> Result<(), Damage> {
    let mut read = stream::iter(names)
        .map(|name| async { get(store, &name).await.map(|bytes| (name, bytes)) })
        .buffer_unordered(READS);
    while let Some((name, bytes)) = read.try_next().await? {
        index.add_all(&name, Kind::One, bytes.as_slice(), at)?;
    }
    Ok(())
}

async fn get(store: &BlobContainer, name: &str) -> Result<Vec<u8>, Damage> {
    store.get(name).await.map_err(|e| Damage::new(name, e.message))
}

//! What `follow` wrote to a folder or to blobs, read back.
//!
//! Everything is read twice. The first time only facts and places are collected (`newest`: one place for each document;
//! `versions`: all of them, in temporary files). The second time the texts that were chosen are passed on.

pub mod erase;
mod newest;
pub mod versions;

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::bufread::MultiGzDecoder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

pub use newest::Newest;

use crate::{
    blob::BlobContainer,
    change::{Op, key::PartitionKey},
    config::{BlobUrl, Credential, DeadLetterLocation, without_secrets},
    figures::count_of,
    follow::Event,
};

/// Longest event taken: two documents of 2 MB, with room for escapes.
const MAX_EVENT: u64 = 32 << 20;
/// Blobs of one version each that are read at the same time.
const READS: usize = 16;

/// Where an archive is.
#[derive(Clone)]
pub enum Archive {
    /// A folder on this machine, with all folders in it.
    Folder(PathBuf),
    /// Blobs below a prefix.
    Blobs(Arc<BlobContainer>, String),
}

/// Why an archive cannot be opened: the problem, and what to write.
#[derive(Debug, thiserror::Error)]
#[error("{shown}: {problem}")]
pub struct NoArchive {
    /// What was given, without a signature.
    shown: String,
    problem: String,
}

/// One document, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is: `line 7`, `document 3 (line 7)`, or a file's name before the line.
    pub place: String,
    /// Its JSON text, known to be an object.
    pub text: Result<String, String>,
}

/// How an archive is named on a command line.
pub const HOW: &str = "FOLDER, or blob:https://<account>.blob.core.windows.net/<container>/<prefix>";

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
    previous: Option<&'a RawValue>,
    #[serde(default)]
    changed: Option<Vec<String>>,
    #[serde(borrow, default)]
    partial: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    fn read(file: &str, line: u64, text: &'a [u8]) -> Result<Self, Damage> {
        let wrong = |problem: String| Damage::new(place(file, line), problem);
        let head: Self = serde_json::from_slice(text)
            .map_err(|e| wrong(format!("is no event of follow: {} (column {})", kind_of(&e), e.column())))?;
        if !head.op.is_tombstone() && head.partial.is_none() && head.doc.is_none() {
            return Err(wrong("is no event of follow: it has no document and is no delete".into()));
        }
        Ok(head)
    }

    /// Its time, without which no order can be told.
    fn time(&self, file: &str, line: u64) -> Result<i64, Damage> {
        self.ts.ok_or_else(|| Damage::new(place(file, line), "is an event without a time: no order can be told"))
    }

    /// The document's partition key: a key of one component is written as its value, a hierarchical one as an array.
    fn key(&self) -> Result<PartitionKey, String> {
        let text = self.pk.get();
        if text.starts_with('[') { PartitionKey::parse(text) } else { PartitionKey::parse(&format!("[{text}]")) }
    }

    /// The whole event.
    fn event(&self) -> Result<Event, String> {
        let text = |raw: Option<&RawValue>| raw.map(|raw| raw.get().to_owned());
        Ok(Event {
            op: self.op,
            id: self.id.clone().into_owned(),
            pk: self.key()?,
            ts: self.ts,
            lsn: self.lsn,
            version: self.version.clone().into_owned(),
            doc: text(self.doc),
            previous: text(self.previous),
            changed: self.changed.clone(),
            partial: text(self.partial),
        })
    }
}

/// What takes the facts of each event, when everything is read for the first time.
trait Collect: Send + 'static {
    fn add(&mut self, file: &Arc<str>, line: u64, head: &Head<'_>) -> Result<(), Damage>;
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events, also those that were written twice.
    pub events: u64,
    files: u64,
    /// Files with other names.
    pub passed_over: u64,
}

impl Counts {
    /// What was found, one line each; with the number of documents where it is known.
    pub fn describe(self, documents: Option<u64>) -> Vec<String> {
        let passed_over = (self.passed_over > 0)
            .then(|| format!("{} passed over: not .json, .jsonl or .jsonl.gz", count_of(self.passed_over, "file")));
        let of = documents.map_or_else(String::new, |n| format!("{} of ", count_of(n, "document")));
        let found = format!("{of}{} in the archive", count_of(self.events, "version"));
        passed_over.into_iter().chain([found]).collect()
    }
}

/// A first reading.
struct Reading<C> {
    into: C,
    counts: Counts,
}

impl<C: Collect> Reading<C> {
    /// Adds all events of a file.
    fn add_all(&mut self, name: &str, kind: Kind, input: impl BufRead) -> Result<(), Damage> {
        let file: Arc<str> = name.into();
        self.counts.files += 1;
        each_event(name, kind, input, |line, text| {
            let head = Head::read(&file, line, text)?;
            self.counts.events += 1;
            self.into.add(&file, line, &head).map(|()| true)
        })
    }
}

/// All events of one file with their lines: for the fuzz targets, which would spend their time on files otherwise.
///
/// # Errors
/// When something in it is no event.
#[doc(hidden)]
pub fn events_in(name: &str, bytes: &[u8]) -> Result<Vec<(u64, Event)>, Damage> {
    let mut events = Vec::new();
    each_event(name, Kind::of(name).unwrap_or(Kind::Lines), bytes, |line, text| {
        let event = Head::read(name, line, text)?.event().map_err(|e| Damage::new(place(name, line), e))?;
        events.push((line, event));
        Ok(true)
    })?;
    Ok(events)
}

/// Where the newest version of each document in one file lies: for the fuzz targets, too.
///
/// # Errors
/// When something in it is no event.
#[doc(hidden)]
pub fn newest_in(name: &str, bytes: &[u8]) -> Result<Vec<Wanted>, Damage> {
    newest::places_in(name, Kind::of(name).unwrap_or(Kind::Lines), bytes)
}

/// An event whose text is to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The file's name, as it was read.
    pub file: Arc<str>,
    /// Its line; 0 where the file is one event.
    pub line: u64,
    /// Id of the version.
    pub version: Box<str>,
}

impl Wanted {
    /// Where it lies.
    pub fn place(&self) -> String {
        place(&self.file, self.line)
    }
}

/// What is made of an event that was chosen; or of the reason why it cannot be read.
type Make<T> = fn(&Wanted, Result<Head<'_>, String>) -> T;

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

impl std::fmt::Display for Archive {
    /// Without a signature.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Blobs(store, folder) => write!(f, "blob:{}/{folder}", store.shown().trim_end_matches('/')),
        }
    }
}

impl Archive {
    /// Understands what a command line names; contacts nobody.
    ///
    /// # Errors
    /// When there is no such folder, or the URL is none.
    pub fn open(text: &str, credential: &Credential) -> Result<Self, NoArchive> {
        let shown = without_secrets(text);
        let wrong = |problem: &str| NoArchive { shown: shown.clone(), problem: problem.to_owned() };
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
        let url: BlobUrl = match DeadLetterLocation::parse("the archive", url, Path::new("")) {
            Ok(DeadLetterLocation::Blob(url)) => url,
            Ok(DeadLetterLocation::Directory(_)) => return Err(wrong("it is not a URL")),
            Err(e) => return Err(wrong(&e.problem)),
        };
        let (container, folder) = url.split();
        let store = BlobContainer::open(&container, credential).map_err(|e| wrong(&e.message))?;
        Ok(Self::Blobs(Arc::new(store), folder))
    }

    /// What all names of its files begin with.
    fn root(&self) -> String {
        match self {
            Self::Folder(path) => format!("{}/", path.to_string_lossy().trim_end_matches('/')),
            Self::Blobs(_, folder) if folder.is_empty() => String::new(),
            Self::Blobs(_, folder) => format!("{folder}/"),
        }
    }

    /// Reads everything once.
    ///
    /// # Errors
    /// When something in it is no event, or cannot be read, or there is nothing.
    async fn read<C: Collect>(&self, into: C) -> Result<(C, Counts), Damage> {
        let mut reading = Reading { into, counts: Counts::default() };
        let reading = match self {
            Self::Folder(path) => {
                let path = path.clone();
                blocking(move || index_folder(&path, &mut reading).map(|()| reading)).await?
            }
            Self::Blobs(store, _) => index_blobs(store, self.root(), reading).await?,
        };
        if reading.counts.files == 0 {
            let nothing = Damage::new("there", "is no .json, .jsonl or .jsonl.gz file");
            return Err(Damage { nothing: true, ..nothing });
        }
        Ok((reading.into, reading.counts))
    }

    /// Reads the chosen events, in any order, and passes on what is made of them, until nobody listens any more.
    ///
    /// # Errors
    /// When what was there the first time cannot be read now.
    async fn send<T: Send + 'static>(
        self,
        mut wanted: Vec<Wanted>,
        out: mpsc::Sender<T>,
        make: Make<T>,
    ) -> Result<(), Damage> {
        wanted.sort_unstable_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        match self {
            Self::Folder(_) => {
                blocking(move || {
                    for chosen in wanted.chunk_by(|a, b| a.file == b.file) {
                        let name = &*chosen[0].file;
                        let file = File::open(name).map_err(|e| Damage::new(name, format!("cannot be read: {e}")))?;
                        if !pass_on(chosen, BufReader::with_capacity(1 << 16, file), &out, make)? {
                            break;
                        }
                    }
                    Ok(())
                })
                .await
            }
            Self::Blobs(store, _) => {
                // Files of many events one at a time: each is in memory, compressed.
                let (ones, files): (Vec<Wanted>, Vec<Wanted>) =
                    wanted.into_iter().partition(|chosen| Kind::of(&chosen.file) == Some(Kind::One));
                let mut read = stream::iter(ones)
                    .map(|one| async { get(&store, &one.file).await.map(|bytes| (one, bytes)) })
                    .buffer_unordered(READS);
                while let Some((one, bytes)) = read.try_next().await? {
                    if out.send(made(&bytes, &one, make)).await.is_err() {
                        return Ok(());
                    }
                }
                for chosen in files.chunk_by(|a, b| a.file == b.file) {
                    let (chosen, out) = (chosen.to_vec(), out.clone());
                    let bytes = get(&store, &chosen[0].file).await?;
                    if !blocking(move || pass_on(&chosen, bytes.as_slice(), &out, make)).await? {
                        return Ok(());
                    }
                }
                Ok(())
            }
        }
    }
}

/// Reading and expanding take long enough to be in others' way.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Damage> + Send + 'static) -> Result<T, Damage> {
    let task = tokio::task::spawn_blocking(work);
    task.await.unwrap_or_else(|e| Err(Damage::new("a reader", format!("ended: {e}"))))
}

/// Passes on the chosen events of one file, which are in order; false when nobody listens any more.
fn pass_on<T>(chosen: &[Wanted], input: impl BufRead, out: &mpsc::Sender<T>, make: Make<T>) -> Result<bool, Damage> {
    let Some(first) = chosen.first() else { return Ok(true) };
    let kind = Kind::of(&first.file).unwrap_or(Kind::Lines);
    let mut left = chosen.iter().peekable();
    let mut listening = true;
    each_event(&first.file, kind, input, |line, text| {
        if let Some(one) = left.next_if(|one| one.line == line) {
            listening = out.blocking_send(made(text, one, make)).is_ok();
        }
        Ok(listening && left.peek().is_some())
    })?;
    match left.next() {
        Some(one) if listening => Err(Damage::new(one.place(), "is gone: the archive changed while it was read")),
        _ => Ok(listening),
    }
}

/// What is made of an event that was chosen.
fn made<T>(text: &[u8], chosen: &Wanted, make: Make<T>) -> T {
    let head = match serde_json::from_slice::<Head<'_>>(text) {
        Ok(head) if *head.version == *chosen.version => Ok(head),
        _ => Err("is not the version that it was: the archive changed while it was read".to_owned()),
    };
    make(chosen, head)
}

fn index_folder(root: &Path, reading: &mut Reading<impl Collect>) -> Result<(), Damage> {
    each_file(root, |name, kind| {
        let Some(kind) = kind else {
            reading.counts.passed_over += 1;
            return Ok(());
        };
        let file = File::open(name).map_err(|e| Damage::new(name, format!("cannot be read: {e}")))?;
        reading.add_all(name, kind, BufReader::with_capacity(1 << 16, file))
    })
}

/// The files of a folder and of all folders in it, with what they are.
fn each_file(root: &Path, mut each: impl FnMut(&str, Option<Kind>) -> Result<(), Damage>) -> Result<(), Damage> {
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
            let name = path.to_string_lossy();
            let known = path.to_str().and_then(Kind::of);
            // A pipe or a device, also behind a link, may never end.
            if known.is_some() && !fs::metadata(&path).map_err(unreadable)?.is_file() {
                return Err(Damage::new(name, "is not a file"));
            }
            each(&name, known)?;
        }
    }
    Ok(())
}

async fn index_blobs<C: Collect>(
    store: &Arc<BlobContainer>,
    prefix: String,
    mut reading: Reading<C>,
) -> Result<Reading<C>, Damage> {
    let failed = |e: crate::blob::BlobError| Damage::new(store.shown(), e.message);
    let mut names = store.names_below(prefix).map_err(failed)?;
    let mut ones: Vec<String> = Vec::new();
    while let Some(name) = names.try_next().await.map_err(failed)? {
        match Kind::of(&name) {
            Some(Kind::One) => ones.push(name),
            Some(kind) => {
                let bytes = get(store, &name).await?;
                reading = blocking(move || reading.add_all(&name, kind, bytes.as_slice()).map(|()| reading)).await?;
            }
            None => reading.counts.passed_over += 1,
        }
        if ones.len() >= READS * 8 {
            index_ones(store, std::mem::take(&mut ones), &mut reading).await?;
        }
    }
    index_ones(store, ones, &mut reading).await?;
    Ok(reading)
}

async fn index_ones(
    store: &BlobContainer,
    names: Vec<String>,
    reading: &mut Reading<impl Collect>,
) -> Result<(), Damage> {
    let mut read = stream::iter(names)
        .map(|name| async { get(store, &name).await.map(|bytes| (name, bytes)) })
        .buffer_unordered(READS);
    while let Some((name, bytes)) = read.try_next().await? {
        reading.add_all(&name, Kind::One, bytes.as_slice())?;
    }
    Ok(())
}

async fn get(store: &BlobContainer, name: &str) -> Result<Vec<u8>, Damage> {
    store.get(name).await.map_err(|e| Damage::new(name, e.message))
}

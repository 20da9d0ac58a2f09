//! The first pass over an archive: collects the facts and places of all its events.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader},
    path::Path,
    sync::Arc,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    Damage, Problem, READS, blocking,
    event::EventHead,
    file::{FileKind, each_event},
    get,
    location::Archive,
};
use crate::{
    blob::BlobContainer,
    change::{Op, order::Position},
    figures::count_of,
};

/// Receives the facts of each event during the first pass.
pub(super) trait Collect: Send + 'static {
    fn add(&mut self, file: &Arc<str>, line: u64, head: &EventHead<'_>) -> Result<(), Damage>;

    /// A collection has ended, and with it every document that was in it.
    fn end(&mut self, end: CollectionEnd);
}

/// The end of a collection: it was dropped or renamed, or another one took its name.
#[derive(Debug, Clone)]
pub(super) struct CollectionEnd {
    /// Database and collection, separated by a dot.
    pub(super) ns: Arc<str>,
    pub(super) ts: i64,
    pub(super) lsn: Option<i64>,
    /// The position of the event that ended it.
    pub(super) version: Arc<str>,
    /// Whether another collection took its name, with documents that no event tells of. They are baselines later, when
    /// the follower reads them.
    pub(super) is_replaced: bool,
}

impl CollectionEnd {
    /// The collections that an event ends, if any.
    fn of(head: &EventHead<'_>) -> impl Iterator<Item = Self> {
        let names = [(&head.ns, false), (&head.to, true)].into_iter().filter(|_| head.op.ends_collection());
        names.filter_map(|(ns, is_replaced)| {
            let version = head.version.as_ref().into();
            Some(Self { ns: ns.as_deref()?.into(), ts: head.ts?, lsn: head.lsn, version, is_replaced })
        })
    }

    /// What the reading of the documents that came with it is known by.
    pub(super) fn reading(&self) -> &str {
        moment_in(&self.version)
    }

    /// Its position among the versions of a document.
    pub(super) fn position(&self) -> Position<'_> {
        Position { ts: self.ts, lsn: self.lsn, record_id: &self.version }
    }
}

/// What a baseline's reading is known by: the moment from which its stream was to go on.
pub(super) fn reading_of<'a>(head: &'a EventHead<'_>) -> Option<&'a str> {
    let begun = head.version.rsplit('~').next()?.strip_prefix("base-").filter(|_| head.op == Op::Baseline)?;
    Some(moment_in(begun))
}

/// The seconds and the number of the operation at the beginning of a version.
fn moment_in(version: &str) -> &str {
    let version = version.rsplit('~').next().unwrap_or_default();
    let end = version.match_indices('-').nth(1).map_or(version.len(), |(at, _)| at);
    version.get(..end).unwrap_or_default()
}

/// Counts of the first pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Events, counting those that were written twice.
    pub events: u64,
    pub(super) files: u64,
    /// Events that are not versions of a document of this collection.
    pub others: u64,
    /// Files with unknown names.
    pub passed_over: u64,
    /// Files that end in the middle of a line.
    pub cut_off: u64,
}

impl ReadCounts {
    /// Describes the counts, one line each, with the number of documents where that is known.
    pub fn describe(self, documents: Option<u64>) -> Vec<String> {
        let passed_over = (self.passed_over > 0)
            .then(|| format!("{} passed over: not .json, .jsonl or .jsonl.gz", count_of(self.passed_over, "file")));
        let others = (self.others > 0).then(|| {
            format!("{} passed over: of other collections, or without a document", count_of(self.others, "event"))
        });
        let cut_off = (self.cut_off > 0).then(|| {
            let lines = count_of(self.cut_off, "last line");
            format!("{lines} passed over: cut off, as when a follower is killed, which writes them again")
        });
        let of = documents.map_or_else(String::new, |n| format!("{} of ", count_of(n, "document")));
        let found = format!("{of}{} in the archive", count_of(self.events, "version"));
        passed_over.into_iter().chain(others).chain(cut_off).chain([found]).collect()
    }
}

/// The first pass over an archive.
pub(super) struct Reading<C> {
    pub(super) into: C,
    /// The collection whose events are read, when the archive may have several.
    pub(super) ns: Option<String>,
    pub(super) counts: ReadCounts,
}

impl<C: Collect> Reading<C> {
    /// Adds all events of a file.
    pub(super) fn add_all(&mut self, name: &str, kind: FileKind, input: impl BufRead) -> Result<(), Damage> {
        let file: Arc<str> = name.into();
        self.counts.files += 1;
        let cut_off = each_event(name, kind, input, |line, text| {
            let head = EventHead::read(&file, line, text)?;
            let is_of_other = head.is_of_other(self.ns.as_deref());
            if head.is_bare() || is_of_other {
                self.counts.others += 1;
                for end in CollectionEnd::of(&head).filter(|end| self.ns.as_deref().is_none_or(|own| own == &*end.ns)) {
                    self.into.end(end);
                }
                return Ok(true);
            }
            self.counts.events += 1;
            self.into.add(&file, line, &head).map(|()| true)
        })?;
        self.counts.cut_off += u64::from(cut_off);
        Ok(())
    }
}

impl Archive {
    /// Reads everything once.
    ///
    /// # Errors
    /// When an entry is not an event or cannot be read, or the archive is empty.
    pub(super) async fn read<C: Collect>(&self, into: C, ns: Option<&str>) -> Result<(C, ReadCounts), Damage> {
        let mut reading = Reading { into, ns: ns.map(str::to_owned), counts: ReadCounts::default() };
        let reading = match self {
            Self::Folder(path) => {
                let path = path.clone();
                blocking(move || index_folder(&path, &mut reading).map(|()| reading)).await?
            }
            Self::Blobs(store, _) => index_blobs(store, self.root(), reading).await?,
        };
        if reading.counts.files == 0 {
            return Err(Damage::new("there", Problem::Nothing));
        }
        Ok((reading.into, reading.counts))
    }
}

fn index_folder(root: &Path, reading: &mut Reading<impl Collect>) -> Result<(), Damage> {
    each_file(root, |name, kind| {
        let Some(kind) = kind else {
            reading.counts.passed_over += 1;
            return Ok(());
        };
        let file = File::open(name).map_err(|e| Damage::new(name, Problem::Read(e)))?;
        reading.add_all(name, kind, BufReader::with_capacity(1 << 16, file))
    })
}

/// The files of a folder and of its subfolders, with their encodings.
pub(super) fn each_file(
    root: &Path,
    mut each: impl FnMut(&str, Option<FileKind>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let unreadable = |e: io::Error| Damage::new(folder.display().to_string(), Problem::Read(e));
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, kind) = (entry.path(), entry.file_type().map_err(unreadable)?);
            // Links to folders are not followed: they may form a circle.
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.to_string_lossy();
            let known = path.to_str().and_then(FileKind::of);
            // A pipe or a device, even behind a link, may never end.
            if known.is_some() && !fs::metadata(&path).map_err(unreadable)?.is_file() {
                return Err(Damage::new(name, Problem::NotAFile));
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
    let failed = |e: crate::blob::BlobError| Damage::new(store.shown(), e);
    let mut names = store.names_below(prefix).map_err(failed)?;
    let mut ones: Vec<String> = Vec::new();
    while let Some(name) = names.try_next().await.map_err(failed)? {
        match FileKind::of(&name) {
            Some(FileKind::One) => ones.push(name),
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
        reading.add_all(&name, FileKind::One, bytes.as_slice())?;
    }
    Ok(())
}

//! Finds the events of one document in an archive, and removes them.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use futures::TryStreamExt as _;

use super::{
    Archive, Damage, Problem, READS, blocking,
    event::EventHead,
    file::{FileKind, each_event},
    index::each_file,
};
use crate::{
    blob::{BlobContainer, BlobError},
    change::key::ItemKey,
    follow::Locked,
    private_file,
};

/// How often a blob is read again because another run was quicker.
const TRIES: u32 = 100;

/// The events of a document that were found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArchivedEvents {
    /// The events, counting those that were written twice.
    pub events: u64,
    /// The files or blobs that hold them.
    pub files: u64,
}

/// What is erased from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The items.
    pub items: Vec<ItemKey>,
    /// Their collection, when the archive may have several.
    pub ns: Option<String>,
}

impl ArchivedEvents {
    fn add(&mut self, events: u64) {
        self.events += events;
        self.files += u64::from(events > 0);
    }
}

impl Archive {
    /// Counts the events of these items, which may share their ids with those of another collection; with `remove` it
    /// deletes them. A file with a single event is deleted; one with several is rewritten without them. A file in a
    /// folder is replaced as a whole, under the lock that a follower respects.
    ///
    /// # Errors
    /// When an entry is not an event, so that nobody can tell whose it is, or cannot be read or written.
    pub async fn mentions(&self, items: &Arc<Erased>, remove: bool) -> Result<ArchivedEvents, Damage> {
        match self {
            Self::Folder(path) => {
                let (path, items) = (path.clone(), items.clone());
                blocking(move || in_folder(&path, &items, remove)).await
            }
            Self::Blobs(store, _) => in_blobs(store, self.root(), items, remove).await,
        }
    }
}

fn is_about(head: &EventHead<'_>, Erased { items, ns }: &Erased) -> bool {
    !head.is_of_other(ns.as_deref())
        && items.iter().any(|item| item.id == head.id && head.key().is_ok_and(|key| key == item.partition_key))
}

/// The events of other items, and how many were dropped. A line that was cut off is not an event, but it counts when it
/// names the item. It is dropped in any case: its page was never acknowledged.
fn others(name: &str, kind: FileKind, input: impl BufRead, items: &Erased) -> Result<(Vec<u8>, u64), Damage> {
    let (mut kept, mut found, mut cut_off) = (Vec::new(), 0, false);
    each_event(name, kind, input, |line, text| {
        let head = EventHead::read(name, line, text);
        if head.is_err() {
            cut_off = items.items.iter().any(|item| item.is_named_in(text));
        }
        if is_about(&head?, items) {
            found += 1;
        } else {
            kept.extend_from_slice(text);
            kept.push(b'\n');
        }
        Ok(true)
    })?;
    Ok((kept, found + u64::from(cut_off)))
}

/// The same bytes, in the form in which the archive keeps them.
fn packed(kind: FileKind, text: Vec<u8>) -> io::Result<Vec<u8>> {
    if kind != FileKind::Gzip {
        return Ok(text);
    }
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&text)?;
    packed.finish()
}

fn in_folder(root: &Path, items: &Erased, remove: bool) -> Result<ArchivedEvents, Damage> {
    let mut mentions = ArchivedEvents::default();
    each_file(root, |name, kind| {
        let Some(kind) = kind else { return Ok(()) };
        let failed = |e: io::Error| Damage::new(name, Problem::Disk(e));
        let path = Path::new(name);
        if !remove || kind == FileKind::One {
            let Some(file) = unless_gone(File::open(path)).map_err(failed)? else { return Ok(()) };
            let (_, found) = others(name, kind, BufReader::with_capacity(1 << 16, file), items)?;
            mentions.add(found);
            if remove && found > 0 {
                unless_gone(fs::remove_file(path)).map_err(failed)?;
                // In this layout they are named after the document.
                let above = path.ancestors().skip(1).take_while(|folder| folder.starts_with(root) && *folder != root);
                above.map(fs::remove_dir).take_while(Result::is_ok).for_each(drop);
            }
            return Ok(());
        }
        let Some(locked) = unless_gone(Locked::existing(path)).map_err(failed)? else { return Ok(()) };
        let (kept, found) = others(name, kind, BufReader::with_capacity(1 << 16, &*locked), items)?;
        mentions.add(found);
        match (found, kept.is_empty()) {
            (0, _) => Ok(()),
            (_, true) => fs::remove_file(path).map_err(failed),
            (_, false) => replace(path, &packed(kind, kept).map_err(failed)?).map_err(failed),
        }
    })?;
    Ok(mentions)
}

/// `None` when another run has erased the last document of the file in the meantime.
fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Replaces a file as a whole: a reader sees the old one or the new one. The temporary file has a fixed name, so that
/// the next run reuses what a killed one left behind. Under a random name it would stay for ever, and nobody would look
/// for documents in it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut new = private_file::options().write(true).create_new(true).open(&part)?;
    let replaced = new.write_all(content).and_then(|()| new.sync_all()).and_then(|()| fs::rename(&part, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&part);
    }
    replaced
}

async fn in_blobs(
    store: &Arc<BlobContainer>,
    prefix: String,
    items: &Arc<Erased>,
    remove: bool,
) -> Result<ArchivedEvents, Damage> {
    let failed = |e: crate::blob::BlobError| Damage::new(store.shown(), e);
    let names = store.names_below(prefix).map_err(failed)?.map_err(failed);
    let known = |name: String| std::future::ready(Ok(FileKind::of(&name).map(|kind| (name, kind))));
    let counted = names
        .try_filter_map(known)
        .map_ok(|(name, kind)| in_blob(store, name, kind, items, remove))
        .try_buffer_unordered(READS);
    let mut counted = std::pin::pin!(counted);
    let mut mentions = ArchivedEvents::default();
    while let Some(found) = counted.try_next().await? {
        mentions.add(found);
    }
    Ok(mentions)
}

async fn in_blob(
    store: &Arc<BlobContainer>,
    name: String,
    kind: FileKind,
    items: &Arc<Erased>,
    remove: bool,
) -> Result<u64, Damage> {
    let mut events = 0;
    for _ in 0..TRIES {
        let (bytes, etag) = match store.get_with_etag(&name).await {
            Ok(found) => found,
            // Another run has erased the last document of it.
            Err(BlobError::NotThere) => return Ok(events),
            Err(e) => return Err(Damage::new(name, e)),
        };
        let (shown, of) = (name.clone(), items.clone());
        let (kept, found) = blocking(move || others(&shown, kind, bytes.as_slice(), &of)).await?;
        // When an answer was lost, they are gone already.
        events = events.max(found);
        if !remove || found == 0 {
            return Ok(events);
        }
        let written = if kept.is_empty() || kind == FileKind::One {
            store.delete(&name).await.map(|()| true)
        } else {
            let content = packed(kind, kept).map_err(|e| Damage::new(&name, Problem::Disk(e)))?;
            // Another run may have taken out another document in the meantime.
            store.replace(&name, content, etag).await
        };
        if written.map_err(|e| Damage::new(&name, e))? {
            return Ok(events);
        }
    }
    Err(Damage::new(name, Problem::KeepsChanging))
}

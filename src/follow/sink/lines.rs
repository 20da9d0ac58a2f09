//! Writes events as lines, to standard output or to a file.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom, Write},
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Busy, Refused, SinkError};
use crate::{follow::Event, private_file};

/// How much of a file's end is read at once in search of its last complete line.
const TAIL: u64 = 64 * 1024;

/// The beginning of an event's line.
const EVENT: &[u8] = b"{\"op\":\"";

/// How long another process may hold the file's lock, and how often to check.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Appends the text of an event, including the line end.
pub type Render = Arc<dyn Fn(&Event<'_>, &mut String) + Send + Sync>;

/// A stream that somebody reads. "Written" means handed over: what happens behind the pipe is not known here.
pub struct StreamSink {
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    render: Render,
}

impl std::fmt::Debug for StreamSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamSink")
    }
}

impl StreamSink {
    /// Writes to `out`, each event rendered by `render`.
    pub fn new(out: Box<dyn Write + Send>, render: Render) -> Self {
        Self { out: Arc::new(Mutex::new(out)), render }
    }

    pub(super) async fn write(&self, events: &[Event<'_>]) -> Result<(), SinkError> {
        let mut text = String::with_capacity(events.iter().map(Event::usual_size).sum());
        for event in events {
            (self.render)(event, &mut text);
        }
        let out = self.out.clone();
        // A slow reader may block the write, and with it a thread: not one of those that read the feed.
        let written = tokio::task::spawn_blocking(move || {
            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        });
        match written.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(SinkError::Closed),
            Err(e) => Err(Refused::Stdout(e).into()),
        }
    }
}

/// A growing file, mode 0600. A page is flushed to disk before it counts.
///
/// Two processes may write to it: a holder that was suspended and wakes, and the stand-by that took over. So each page
/// is written under the file's lock, at the end that the file has then. It is opened for each page: `erase` may have
/// replaced it meanwhile.
#[derive(Debug)]
pub struct FileSink {
    path: PathBuf,
}

impl FileSink {
    /// Remembers the path; opens nothing.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file. A last line that was cut off by a kill is removed: its page was never acknowledged, so it will
    /// be delivered again.
    pub(super) async fn begin(&self) -> Result<(), SinkError> {
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut file = Locked::open(&path)?;
            whole_lines(&mut file).map(drop)
        });
        opened
            .await
            .unwrap_or_else(|e| Err(io::Error::other(e)))
            .map_err(|error: io::Error| Refused::File { path: self.path.clone(), error }.into())
    }

    pub(super) async fn write(&self, events: &[Event<'_>]) -> Result<(), SinkError> {
        let mut text = String::with_capacity(events.iter().map(Event::usual_size).sum());
        for event in events {
            event.push_line(&mut text);
            text.push('\n');
        }
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = Locked::open(&path)?;
            let before = whole_lines(&mut file)?;
            let done = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
            if done.is_err() {
                // Half a page would be duplicated when it is tried again.
                file.set_len(before)?;
            }
            done
        });
        let done = written.await.unwrap_or_else(|e| Err(io::Error::other(e)));
        done.map_err(|error| Busy::File { path: self.path.clone(), error }.into())
    }
}

/// A file that no other process reads or writes in this way at the same time; released on drop.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// Opens a file for reading and writing, or creates it with mode 0600, and locks it. A lock held by a suspended
    /// process is not waited for long.
    ///
    /// # Errors
    /// When it cannot be opened, or another process keeps the lock.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with(path, private_file::options().read(true).write(true).create(true).truncate(false))
    }

    /// The same for a file that exists; nothing is created in the place of one that was removed.
    ///
    /// # Errors
    /// As above, and when it does not exist.
    pub fn existing(path: &Path) -> io::Result<Self> {
        Self::with(path, private_file::options().read(true).write(true))
    }

    /// The same for a file to which lines are added.
    ///
    /// # Errors
    /// As for `open`.
    pub fn growing(path: &Path) -> io::Result<Self> {
        Self::with(path, private_file::options().read(true).append(true).create(true))
    }

    fn with(path: &Path, options: &OpenOptions) -> io::Result<Self> {
        let since = Instant::now();
        loop {
            let file = options.open(path)?;
            match file.try_lock() {
                // If it were replaced between the two, it would be a file without a name.
                Ok(()) if is_at(&file, path)? => return Ok(Self(file)),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if since.elapsed() < LOCK_TIMEOUT => std::thread::sleep(LOCK_PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has it locked"));
                }
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let own = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino())))
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> io::Result<bool> {
    // An open file cannot be replaced there.
    Ok(true)
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

/// Removes a last line that was cut off, and goes to the end, which it returns. In a file that others wrote, nothing is
/// removed.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let size = file.seek(SeekFrom::End(0))?;
    let mut last = [0];
    if size > 0 {
        file.seek(SeekFrom::Start(size - 1))?;
        file.read_exact(&mut last)?;
    }
    if size > 0 && last != *b"\n" {
        let end = end_of_lines(file)?;
        let mut begin = Vec::new();
        file.seek(SeekFrom::Start(end))?;
        file.take(EVENT.len() as u64).read_to_end(&mut begin)?;
        // A power cut may leave zeros.
        if !EVENT.starts_with(&begin) && begin.first() != Some(&0) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its last line does not end, and is not an event that was cut off: this is somebody else's file",
            ));
        }
        file.set_len(end)?;
    }
    file.seek(SeekFrom::End(0))
}

/// Where the last complete line ends.
fn end_of_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    while end > 0 {
        let begin = end.saturating_sub(TAIL);
        file.seek(SeekFrom::Start(begin))?;
        let mut part = Vec::new();
        file.take(end - begin).read_to_end(&mut part)?;
        if let Some(at) = memchr::memrchr(b'\n', &part) {
            return Ok(begin + at as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Op, key::PartitionKey};

    fn event(id: &str) -> Event<'_> {
        Event {
            op: Op::Create,
            id: id.into(),
            pk: PartitionKey::parse("p").unwrap(),
            ts: Some(1),
            lsn: Some(2),
            version: format!("{id}~1"),
            doc: Some("{}".into()),
            previous: None,
            changed: None,
            partial: None,
            etag: None,
            native: None,
        }
    }

    #[tokio::test]
    async fn a_line_that_was_cut_off_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        let sink = FileSink::new(path.clone());
        sink.begin().await.unwrap();
        sink.write(&[event("a"), event("b")]).await.unwrap();
        let whole = std::fs::read_to_string(&path).unwrap();
        for torn in ["{".to_owned(), "{\"op\":".to_owned(), whole[..7].to_owned() + &"x".repeat(200_000), "\0\0".into()]
        {
            std::fs::write(&path, format!("{whole}{torn}")).unwrap();
            sink.begin().await.unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
        sink.write(&[event("c")]).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
        // Another process has it open, too, and writes in between.
        let other = FileSink::new(path.clone());
        other.begin().await.unwrap();
        other.write(&[event("d")]).await.unwrap();
        sink.write(&[event("e")]).await.unwrap();
        let mut torn = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        torn.write_all(b"{\"op\"").unwrap();
        other.write(&[event("f")]).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let ids: Vec<String> =
            text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].to_string()).collect();
        assert_eq!(ids, ["\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\"", "\"f\""]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[tokio::test]
    async fn a_file_of_somebody_else_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        for text in ["all of my notes", "one\ntwo", "{\n  \"op\": 1\n}", "{\"op\": 1}", "[{\"op\":\"create\"}]"] {
            std::fs::write(&path, text).unwrap();
            let sink = FileSink::new(path.clone());
            let error = sink.begin().await.unwrap_err();
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("somebody else's"), "{error:?}");
            assert!(sink.write(&[event("a")]).await.is_err());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_named_with_the_flag() {
        let error = FileSink::new("/nowhere/at/all.jsonl".into()).begin().await.unwrap_err();
        assert!(error.to_string().contains("--sink file:/nowhere/at/all.jsonl"), "{error}");
    }
}

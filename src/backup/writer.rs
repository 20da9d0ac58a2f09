//! Writes a backup file that appears as a whole. An interrupted one leaves a part that the same backup resumes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    file::{FORMAT, MAX_LINE, Trailer, TrailerLine, one_line},
    out::{LineFile, has_other_name, is_gzip, with_suffix},
};
use crate::{change::record, private_file};

/// A file that appears as a whole or not at all. Until it is complete it is called `FILE.part`, and `FILE.part.json`
/// beside it says how much of it is valid: an interrupted backup resumes from there.
pub struct BackupWriter {
    path: PathBuf,
    part: PathBuf,
    progress: PathBuf,
    out: Option<LineFile>,
    hash: Sha256,
    documents: u64,
    /// Bytes of text since the last checkpoint.
    since: usize,
    /// Bytes of the file at the last checkpoint.
    good: u64,
    /// A second handle to the file. A process that is being started holds a copy of every open file for a moment, so
    /// closing our own handle would not release the lock.
    lock: File,
}

/// The content of `FILE.part.json`.
#[derive(Serialize, Deserialize)]
struct Checkpoint<T> {
    v: u32,
    /// How many bytes of the file are valid.
    bytes: u64,
    /// The documents in them.
    documents: u64,
    /// The state that the writer's owner needs to resume.
    state: T,
}

impl BackupWriter {
    /// Begins `path` under the name `path.part`, or resumes an interrupted one, then with the state of its last
    /// checkpoint. `fits` says whether that state belongs to the same backup.
    ///
    /// # Errors
    /// When the file exists, the folder cannot be written to, or the part belongs to another backup or is somebody's
    /// own file.
    pub fn open<T: Serialize + DeserializeOwned>(
        path: &Path,
        first: T,
        fits: impl FnOnce(&T) -> bool,
    ) -> io::Result<(Self, T, bool)> {
        let exists = |text: String| Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        if path.symlink_metadata().is_ok() {
            return exists("it exists already".into());
        }
        let (part, progress) = (with_suffix(path, ".part"), with_suffix(path, ".part.json"));
        let begun = private_file::options().read(true).write(true).create_new(true).open(&part);
        let is_there = matches!(&begun, Err(e) if e.kind() == io::ErrorKind::AlreadyExists);
        let file = if is_there { File::options().read(true).write(true).open(&part)? } else { begun? };
        if let Err(std::fs::TryLockError::WouldBlock) = file.try_lock() {
            return exists(format!("{} is being written by another process", part.display()));
        }
        // What was a part when it was opened may have become the finished backup since.
        if path.symlink_metadata().is_ok() {
            return exists("it exists already".into());
        }
        let new = |state| Checkpoint { v: FORMAT, bytes: 0, documents: 0, state };
        let text = if is_there { std::fs::read_to_string(&progress).unwrap_or_default() } else { String::new() };
        let known = serde_json::from_str::<Checkpoint<T>>(&text);
        // Killed before it took this name away from a finished backup, which has got another one since.
        if known.is_ok() && has_other_name(&file)? {
            std::fs::remove_file(&part)?;
            return Self::open(path, first, fits);
        }
        let (state, resumed) = match known {
            Ok(known) if known.v == FORMAT && fits(&known.state) => (known, true),
            Ok(_) => return exists(format!("{} is of another backup; finish or remove that", part.display())),
            // It was just created, by this process or by one that was killed right then.
            Err(_) if file.metadata()?.len() == 0 => (new(first), false),
            Err(_) => return exists(format!("{} is in the way; remove it", part.display())),
        };
        let mut writer = Self {
            path: path.to_owned(),
            part,
            progress,
            out: None,
            hash: Sha256::new(),
            documents: 0,
            since: 0,
            good: state.bytes,
            lock: file.try_clone()?,
        };
        if resumed {
            writer.read_again(&file, state.bytes, state.documents)?;
        } else {
            writer.keep(&state.state)?;
        }
        writer.out = Some(LineFile::new(file, is_gzip(path)));
        Ok((writer, state.state, resumed))
    }

    /// Keeps the valid bytes of a part and truncates the rest.
    fn read_again(&mut self, file: &File, bytes: u64, documents: u64) -> io::Result<()> {
        use std::io::Seek as _;
        let wrong = || {
            let text = format!("{} is not what its checkpoint says; remove it", self.part.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        if file.metadata()?.len() < bytes {
            return Err(wrong());
        }
        file.set_len(bytes)?;
        // Killed before its first checkpoint: nothing is no compressed text.
        if bytes == 0 && documents == 0 {
            return Ok(());
        }
        let mut plain = BufReader::with_capacity(1 << 16, file);
        plain.rewind()?;
        let mut input: Box<dyn BufRead + '_> =
            if is_gzip(&self.path) { Box::new(BufReader::new(MultiGzDecoder::new(plain))) } else { Box::new(plain) };
        let mut line = Vec::new();
        while input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? > 0 {
            self.hash.update(&line);
            self.documents += u64::from(line.ends_with(b"\n"));
            line.clear();
        }
        drop(input);
        if self.documents != documents {
            return Err(wrong());
        }
        let mut file = file;
        file.seek(io::SeekFrom::End(0)).map(drop)
    }

    /// Documents so far.
    pub fn documents(&self) -> u64 {
        self.documents
    }

    /// Bytes of text since the last checkpoint.
    pub fn since_checkpoint(&self) -> usize {
        self.since
    }

    /// Whether there would be something to resume from.
    pub fn can_go_on(&self) -> bool {
        self.good > 0
    }

    /// Makes everything so far durable, and notes how to resume from here.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn checkpoint(&mut self, state: &impl Serialize) -> io::Result<()> {
        let Some(out) = self.out.take() else { return Ok(()) };
        let file = out.close()?;
        self.good = file.metadata()?.len();
        self.out = Some(LineFile::new(file, is_gzip(&self.path)));
        self.since = 0;
        self.keep(state)
    }

    fn keep(&self, state: &impl Serialize) -> io::Result<()> {
        let progress = Checkpoint { v: FORMAT, bytes: self.good, documents: self.documents, state };
        let new = with_suffix(&self.progress, ".new");
        let text = serde_json::to_vec(&progress)?;
        let mut file = private_file::options().write(true).create(true).truncate(true).open(&new)?;
        let kept = file.write_all(&text).and_then(|()| file.sync_all());
        let kept = kept.and_then(|()| std::fs::rename(&new, &self.progress));
        if kept.is_err() {
            let _ = std::fs::remove_file(new);
        }
        kept
    }

    /// Adds a document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, text: &str) -> io::Result<()> {
        self.line(&one_line(text))?;
        self.documents += 1;
        self.since += text.len();
        Ok(())
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let Some(out) = &mut self.out else { return Ok(()) };
        for bytes in [text.as_bytes(), b"\n"] {
            self.hash.update(bytes);
            out.write_all(bytes)?;
        }
        Ok(())
    }

    /// Adds the trailer and gives the file its name.
    ///
    /// # Errors
    /// When it cannot be written, or somebody created a file of that name meanwhile.
    pub fn finish(mut self, source: String, at: Option<String>, made: String) -> io::Result<Trailer> {
        let sha256 = record::hex(&self.hash.clone().finalize());
        let trailer = Trailer { v: FORMAT, documents: self.documents, sha256, source, at, made };
        self.line(&serde_json::to_string(&TrailerLine { backup: &trailer })?)?;
        if let Some(out) = self.out.take() {
            out.close()?;
        }
        // A link never replaces an existing file; where links are not supported, a rename has to do.
        match std::fs::hard_link(&self.part, &self.path) {
            Ok(()) => std::fs::remove_file(&self.part)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
            Err(_) if self.path.symlink_metadata().is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"));
            }
            Err(_) => std::fs::rename(&self.part, &self.path)?,
        }
        self.good = 0;
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok(trailer)
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        self.out = None;
        let _ = self.lock.unlock();
        if self.good == 0 {
            let _ = std::fs::remove_file(&self.part);
            let _ = std::fs::remove_file(&self.progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::file::{TRAILER, read},
        *,
    };

    #[test]
    fn whatever_is_cut_or_changed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        let (mut writer, (), _) = BackupWriter::open(&path, (), |()| true).unwrap();
        for text in ["{\"id\":\"a\"}", "{\"id\":\"b\",\"n\":1.10}"] {
            writer.push(text).unwrap();
        }
        let written = writer.finish("dev/events".into(), None, "2026-11-20T14:05:00Z".into()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut lines = Vec::new();
        let mut keep = |_: u64, text: &str| {
            lines.push(text.to_owned());
            true
        };
        assert_eq!(read(whole.as_slice(), &mut keep).unwrap(), written);
        assert_eq!(lines, ["{\"id\":\"a\"}", "{\"id\":\"b\",\"n\":1.10}"]);
        assert_eq!(written.moment().unwrap(), 1_795_183_500);
        for end in 0..whole.len() - 1 {
            assert!(read(&whole[..end], |_, _| true).is_err(), "cut at {end}");
        }
        let body = whole.windows(TRAILER.len()).position(|w| w == TRAILER).unwrap();
        for at in 0..body {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(read(changed.as_slice(), |_, _| true).is_err(), "changed at {at}");
        }
        let mut longer = whole.clone();
        longer.extend_from_slice(b"{}\n");
        assert!(read(longer.as_slice(), |_, _| true).unwrap_err().to_string().contains("after its trailer"));
    }

    #[test]
    fn an_unfinished_file_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(BackupWriter::open(&folder.path().join("b.jsonl"), (), |()| true).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_interrupted_file_goes_on_from_its_last_checkpoint() {
        for name in ["b.jsonl", "b.jsonl.gz"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            let open = |state: &str| BackupWriter::open(&path, state.to_owned(), |s| s.ends_with("ours"));
            let text = |i: u32| format!("{{\"id\":\"{i}\"}}");
            let (mut writer, state, resumed) = open("first, ours").unwrap();
            assert_eq!((state.as_str(), resumed), ("first, ours", false));
            for i in 0..3 {
                writer.push(&text(i)).unwrap();
                writer.checkpoint(&format!("{i}, ours")).unwrap();
            }
            // Written after the checkpoint, and lost.
            writer.push(&text(99)).unwrap();
            assert!(open("x").err().unwrap().to_string().contains("another process"));
            drop(writer);

            let other = BackupWriter::open(&path, String::new(), |s: &String| s == "theirs").err().unwrap();
            assert!(other.to_string().contains("of another backup"), "{other}");
            let (mut writer, state, resumed) = open("x").unwrap();
            assert_eq!((state.as_str(), resumed, writer.documents()), ("2, ours", true, 3));
            writer.push(&text(3)).unwrap();
            let trailer = writer.finish("dev/events".into(), None, "2026-11-20T14:05:00Z".into()).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let plain: Box<dyn BufRead> = if is_gzip(&path) {
                Box::new(BufReader::new(MultiGzDecoder::new(bytes.as_slice())))
            } else {
                Box::new(bytes.as_slice())
            };
            let mut lines = Vec::new();
            let read = read(plain, |_, line| {
                lines.push(line.to_owned());
                true
            });
            assert_eq!(read.unwrap(), trailer);
            assert_eq!(lines, (0..4).map(text).collect::<Vec<_>>());
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the file is left");
        }
    }

    #[test]
    fn a_file_goes_on_that_was_killed_before_its_first_checkpoint() {
        for name in ["b.jsonl", "b.jsonl.gz"] {
            let (killed, again) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let (mut writer, (), _) = BackupWriter::open(&killed.path().join(name), (), |()| true).unwrap();
            writer.push("{\"id\":\"lost\"}").unwrap();
            for left in [format!("{name}.part"), format!("{name}.part.json")] {
                std::fs::copy(killed.path().join(&left), again.path().join(&left)).unwrap();
            }
            let (mut writer, (), _) = BackupWriter::open(&again.path().join(name), (), |()| true).unwrap();
            writer.push("{\"id\":\"a\"}").unwrap();
            assert_eq!(writer.finish("dev/events".into(), None, "now".into()).unwrap().documents, 1, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_finished_backup_is_not_written_into_by_the_name_of_its_part() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("b.jsonl"), folder.path().join("older.jsonl"));
        let open = || BackupWriter::open(&path, (), |()| true).unwrap().0;
        let finish = |mut writer: BackupWriter, text: &str| {
            writer.push(text).unwrap();
            writer.finish("dev/events".into(), None, "now".into()).unwrap();
        };
        let writer = open();
        let checkpoint = std::fs::read(folder.path().join("b.jsonl.part.json")).unwrap();
        finish(writer, "{\"id\":\"a\"}");
        // Killed between the two names; then somebody keeps the backup under another one.
        std::fs::rename(&path, &moved).unwrap();
        std::fs::hard_link(&moved, folder.path().join("b.jsonl.part")).unwrap();
        std::fs::write(folder.path().join("b.jsonl.part.json"), checkpoint).unwrap();
        finish(open(), "{\"id\":\"b\"}");
        assert!(std::fs::read_to_string(&moved).unwrap().contains("\"a\""));
        assert!(std::fs::read_to_string(&path).unwrap().contains("\"b\""));
    }

    #[test]
    fn a_part_that_becomes_whole_while_it_is_opened_again_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        let (mut writer, (), _) = BackupWriter::open(&path, (), |()| true).unwrap();
        writer.push("{\"id\":\"a\"}").unwrap();
        writer.checkpoint(&()).unwrap();
        writer.push("{\"id\":\"b\"}").unwrap();
        let end = || drop(writer.finish("dev/events".into(), None, "now".into()));
        let again = BackupWriter::open(&path, (), |()| {
            end();
            true
        });
        let error = again.err().unwrap().to_string();
        assert!(error.contains("another process"), "{error}");
        // A backup that was killed before its first checkpoint starts afresh.
        std::fs::write(folder.path().join("c.jsonl.part"), "").unwrap();
        let (_, (), resumed) = BackupWriter::open(&folder.path().join("c.jsonl"), (), |()| true).unwrap();
        assert!(!resumed);
    }

    #[test]
    fn somebodys_own_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        std::fs::write(folder.path().join("b.jsonl.part"), "mine").unwrap();
        let error = BackupWriter::open(&path, (), |()| true).err().unwrap().to_string();
        assert!(error.contains("b.jsonl.part is in the way"), "{error}");
        assert_eq!(std::fs::read_to_string(folder.path().join("b.jsonl.part")).unwrap(), "mine");
    }
}

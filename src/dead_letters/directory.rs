//! Dead letters as files in a directory.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{DeadLetterError, StoreError};
use crate::private_file;

/// How the name of an incomplete file ends.
const PART: &str = ".part";

/// A directory of letters, created on first use.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    fn error(&self, action: &'static str) -> impl FnOnce(io::Error) -> DeadLetterError {
        let location = self.path.display().to_string();
        move |e| DeadLetterError { action, location, cause: StoreError::Directory(e) }
    }

    pub(super) async fn put(&self, name: &str, text: Vec<u8>) -> Result<(), DeadLetterError> {
        let (path, name) = (self.path.clone(), name.to_owned());
        let write = move || {
            std::fs::create_dir_all(&path)?;
            replace_file(&path, &name, &text)
        };
        self.written(write).await
    }

    /// Runs work on the directory on a thread that may block.
    async fn written(&self, write: impl FnOnce() -> io::Result<()> + Send + 'static) -> Result<(), DeadLetterError> {
        let written = tokio::task::spawn_blocking(write).await;
        written.unwrap_or_else(|e| Err(io::Error::other(e))).map_err(self.error("write"))
    }

    /// Checks whether a letter could be put here; leaves nothing behind.
    pub(super) async fn check(&self) -> Result<(), DeadLetterError> {
        let path = self.path.clone();
        let tried = move || {
            let made = !path.exists();
            std::fs::create_dir_all(&path)?;
            tempfile::Builder::new().prefix(".").suffix(PART).tempfile_in(&path)?.close()?;
            // Others may have put something there in the meantime.
            let _ = made.then(|| std::fs::remove_dir(&path));
            Ok(())
        };
        self.written(tried).await
    }

    pub(super) async fn list(&self) -> Result<Vec<String>, DeadLetterError> {
        self.names(|name| name.ends_with(".json") && !name.starts_with('.')).await
    }

    /// The leftovers of a process that was killed while it wrote a letter.
    pub(super) async fn parts(&self) -> Result<Vec<String>, DeadLetterError> {
        self.names(|name| name.starts_with('.') && name.ends_with(PART)).await
    }

    async fn names(&self, is_one: impl Fn(&str) -> bool) -> Result<Vec<String>, DeadLetterError> {
        let mut entries = match tokio::fs::read_dir(&self.path).await {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(self.error("list")(e)),
        };
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await.map_err(self.error("list"))? {
            if let Ok(name) = entry.file_name().into_string()
                && is_one(&name)
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    pub(super) async fn get(&self, name: &str) -> Result<Vec<u8>, DeadLetterError> {
        tokio::fs::read(self.path.join(name)).await.map_err(self.error("read"))
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), DeadLetterError> {
        match tokio::fs::remove_file(self.path.join(name)).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("delete")(e)),
            _ => Ok(()),
        }
    }
}

/// Writes a temporary file, flushes it to disk, then renames it: the letter exists completely or not at all. Only the
/// owner can read it, because it holds documents or names them.
pub(crate) fn replace_file(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let part = folder.join(format!(".{name}.{:016x}{PART}", rand::random::<u64>()));
    let result = private_file::options().write(true).create_new(true).open(&part).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()?;
        std::fs::rename(&part, folder.join(name))?;
        // The rename itself is only durable once the directory is flushed.
        std::fs::File::open(folder)?.sync_all()
    });
    if result.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    result
}

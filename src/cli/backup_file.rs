//! The file of a backup: one document a line, and a trailer with their count and checksum. Gzip when the name says so.

use std::{
    fs::File,
    io::{self, BufRead, BufWriter, Read as _, Write},
    path::{Path, PathBuf},
};

use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::change::record;

/// Version of the file's format.
pub const FORMAT: u32 = 1;
/// Longest line taken; the service takes documents of 2 MB.
const MAX_LINE: u64 = 16 << 20;
/// How the last line begins. No document has this member alone: it has an id.
const TRAILER: &[u8] = b"{\"_backup\":";

/// What the last line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Version of the format.
    pub v: u32,
    /// How many lines are before it.
    pub documents: u64,
    /// SHA-256 of all bytes before it, hexadecimal.
    pub sha256: String,
    /// Database and container.
    pub source: String,
    /// The moment that it shows, RFC 3339; none when the live documents were read.
    pub at: Option<String>,
    /// When the reading began, RFC 3339.
    pub made: String,
}

impl Trailer {
    /// The moment, epoch seconds, up to which changes are in the file.
    ///
    /// # Errors
    /// When it is no time.
    pub fn moment(&self) -> Result<i64, String> {
        let text = self.at.as_deref().unwrap_or(&self.made);
        chrono::DateTime::parse_from_rfc3339(text)
            .map(|t| t.timestamp())
            .map_err(|_| format!("its trailer names the time {text:?}, which is none"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<T> {
    #[serde(rename = "_backup")]
    backup: T,
}

/// A file that comes into being whole or not at all.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    out: Option<Out>,
    hash: Sha256,
    documents: u64,
}

enum Out {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl Out {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(out) => out.write_all(bytes),
            Self::Gzip(out) => out.write_all(bytes),
        }
    }

    /// Everything is on the disk when this returns.
    fn close(self) -> io::Result<()> {
        let buffer = match self {
            Self::Plain(out) => out,
            Self::Gzip(out) => out.finish()?,
        };
        buffer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Writer {
    /// Begins `path` under the name `path.part`.
    ///
    /// # Errors
    /// When either exists, or the folder cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"));
        }
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&part).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => io::Error::new(
                e.kind(),
                format!("{} is left of a backup that was killed, or one is being written; remove it", part.display()),
            ),
            _ => e,
        })?;
        let buffer = BufWriter::with_capacity(1 << 16, file);
        let gzip = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
        let out = if gzip {
            Out::Gzip(Box::new(GzEncoder::new(buffer, flate2::Compression::default())))
        } else {
            Out::Plain(buffer)
        };
        Ok(Self { path: path.to_owned(), part, out: Some(out), hash: Sha256::new(), documents: 0 })
    }

    /// Adds a document.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn push(&mut self, text: &str) -> io::Result<()> {
        self.line(&one_line(text))?;
        self.documents += 1;
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
    /// When it cannot be written, or somebody made a file of that name meanwhile.
    pub fn finish(mut self, source: String, at: Option<String>, made: String) -> io::Result<Trailer> {
        let sha256 = record::hex(&self.hash.clone().finalize());
        let trailer = Trailer { v: FORMAT, documents: self.documents, sha256, source, at, made };
        self.line(&serde_json::to_string(&Line { backup: &trailer })?)?;
        if let Some(out) = self.out.take() {
            out.close()?;
        }
        // A link never replaces a file that exists; where there are none, a rename must do.
        match std::fs::hard_link(&self.part, &self.path) {
            Ok(()) => std::fs::remove_file(&self.part)?,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
            Err(_) if self.path.symlink_metadata().is_ok() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists already"));
            }
            Err(_) => std::fs::rename(&self.part, &self.path)?,
        }
        #[cfg(unix)]
        if let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok(trailer)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.out = None;
        let _ = std::fs::remove_file(&self.part);
    }
}

/// JSON on one line: only a text with line ends is touched, and of it only the white space between tokens.
pub fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(['\n', '\r']) {
        return text.into();
    }
    let (mut in_string, mut escaped) = (false, false);
    text.chars()
        .filter(|c| {
            if in_string {
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => in_string = false,
                    _ => {}
                }
                return true;
            }
            in_string = *c == '"';
            !matches!(c, ' ' | '\t' | '\n' | '\r')
        })
        .collect::<String>()
        .into()
}

/// Why a file is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be read to its end.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It ends without one.
    #[error("has no trailer: it was cut off, or another program made it")]
    NoTrailer,
    /// It is not what was written.
    #[error("{0}")]
    Damaged(String),
    /// The caller wanted no more.
    #[error("was not read to its end")]
    Stopped,
}

/// Passes on every line with its number, then checks count and checksum. Stops when `each` says false.
///
/// # Errors
/// When the file is damaged; lines passed on before that may be wrong.
pub fn read(mut input: impl BufRead, mut each: impl FnMut(u64, &str) -> bool) -> Result<Trailer, Problem> {
    let damaged = |text: String| Err(Problem::Damaged(text));
    let mut hash = Sha256::new();
    let (mut documents, mut number) = (0u64, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        if input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)? == 0 || (number == 1 && line[0] == b'[') {
            return Err(Problem::NoTrailer);
        }
        if line.len() as u64 > MAX_LINE {
            return damaged(format!("is damaged: line {number} is longer than {} MiB", MAX_LINE >> 20));
        }
        if line.starts_with(TRAILER) {
            break;
        }
        hash.update(&line);
        documents += 1;
        let Ok(text) = std::str::from_utf8(line.trim_ascii()) else {
            return damaged(format!("is damaged: line {number} is not UTF-8"));
        };
        if !each(number, text) {
            return Err(Problem::Stopped);
        }
    }
    let trailer = match serde_json::from_slice::<Line<serde_json::Value>>(&line) {
        Ok(Line { backup }) if backup["v"].as_u64().is_some_and(|v| v != u64::from(FORMAT)) => {
            return damaged(format!("is of format {}, this program knows {FORMAT}", backup["v"]));
        }
        Ok(Line { backup }) => serde_json::from_value::<Trailer>(backup),
        Err(e) => Err(e),
    };
    let Ok(trailer) = trailer else { return damaged("is damaged: its trailer is not understood".into()) };
    line.clear();
    if input.take(1).read_to_end(&mut line)? > 0 {
        return damaged("is damaged: there is text after its trailer".into());
    }
    if trailer.documents != documents {
        return damaged(format!("is damaged: it has {documents} lines, its trailer says {}", trailer.documents));
    }
    if trailer.sha256 != record::hex(&hash.finalize()) {
        return damaged("is damaged: its checksum does not match".into());
    }
    Ok(trailer)
}

/// Whether a text is a trailer, to be passed over where none is asked for.
pub fn is_trailer(text: &str) -> bool {
    text.as_bytes().starts_with(TRAILER) && serde_json::from_str::<Line<serde::de::IgnoredAny>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_line_ends_becomes_one_line_with_the_same_strings() {
        assert_eq!(one_line("{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(one_line("{\"a\" :\r\n [1, \"x \\\" y\\\\\",\t2]}"), "{\"a\":[1,\"x \\\" y\\\\\",2]}");
    }

    #[test]
    fn whatever_is_cut_or_changed_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.jsonl");
        let mut writer = Writer::create(&path).unwrap();
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
        assert_eq!(written.moment(), Ok(1_795_183_500));
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
        drop(Writer::create(&folder.path().join("b.jsonl")).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

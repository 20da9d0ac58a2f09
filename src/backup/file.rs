//! The format of a backup file: one document per line, and a trailer with their count and checksum. Compressed with
//! gzip when the file's name ends in `.gz`.

use std::io::{self, BufRead, Read as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::change::{raw::RawDocument, record};

/// Version of the file format.
pub const FORMAT: u32 = 1;
/// The longest line that is accepted: a MongoDB document has up to 16 MB, and its text may be several times as long.
pub(super) const MAX_LINE: u64 = 72 << 20;
/// How the last line begins. A document may have this member, too, but never alone: it has an id.
pub(super) const TRAILER: &[u8] = b"{\"_backup\":";

/// The content of the trailer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trailer {
    /// Version of the format.
    pub v: u32,
    /// The number of lines before it.
    pub documents: u64,
    /// SHA-256 of all bytes before it, hexadecimal.
    pub sha256: String,
    /// Database and container.
    pub source: String,
    /// The moment that the backup shows, RFC 3339; none for live documents.
    pub at: Option<String>,
    /// When the reading began, RFC 3339.
    pub made: String,
}

impl Trailer {
    /// The moment up to which changes are in the file, epoch seconds.
    ///
    /// # Errors
    /// When it is not a valid time.
    pub fn moment(&self) -> Result<i64, FileError> {
        let text = self.at.as_deref().unwrap_or(&self.made);
        chrono::DateTime::parse_from_rfc3339(text).map(|t| t.timestamp()).map_err(|_| FileError::Time(text.to_owned()))
    }
}

/// The last line: an object with the trailer as its only member.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TrailerLine<T> {
    #[serde(rename = "_backup")]
    pub(super) backup: T,
}

/// JSON on one line. Only a text with line ends is touched, and only the white space between its tokens.
pub fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if memchr::memchr2(b'\n', b'\r', text.as_bytes()).is_none() {
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

/// Why a backup file cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read to its end.
    #[error("cannot be read")]
    Io(#[from] io::Error),
    /// It ends without a trailer.
    #[error("has no trailer: it was cut off, or another program made it")]
    NoTrailer,
    /// It is of another format.
    #[error("is of format {0}, this program knows {FORMAT}")]
    Format(serde_json::Value),
    /// A line is longer than any that was written.
    #[error("is damaged: line {_0} is longer than {mib} MiB", mib = MAX_LINE >> 20)]
    LongLine(u64),
    /// A line is not UTF-8.
    #[error("is damaged: line {0} is not UTF-8")]
    NotUtf8(u64),
    /// The trailer differs from the written lines.
    #[error("is damaged: its trailer is not understood")]
    Trailer,
    /// It goes on after the trailer.
    #[error("is damaged: there is text after its trailer")]
    AfterTrailer,
    /// It has another number of lines than were written.
    #[error("is damaged: it has {found} lines, its trailer says {written}")]
    Count {
        /// The lines it has.
        found: u64,
        /// The lines that its trailer names.
        written: u64,
    },
    /// It has other bytes than were written.
    #[error("is damaged: its checksum does not match")]
    Checksum,
    /// The moment in its trailer is malformed.
    #[error("its trailer has an invalid time: {0:?}")]
    Time(String),
    /// The caller wanted no more.
    #[error("was not read to its end")]
    Stopped,
}

/// Passes on every line with its number, then checks count and checksum. Stops when `each` returns false.
///
/// # Errors
/// When the file is damaged; lines passed on before that may be wrong.
pub fn read(mut input: impl BufRead, mut each: impl FnMut(u64, &str) -> bool) -> Result<Trailer, FileError> {
    let mut hash = Sha256::new();
    let (mut documents, mut number) = (0u64, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        number += 1;
        if input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut line)? == 0 || (number == 1 && line[0] == b'[') {
            return Err(FileError::NoTrailer);
        }
        if line.len() as u64 > MAX_LINE {
            return Err(FileError::LongLine(number));
        }
        if line.starts_with(TRAILER) && !is_document(&line) {
            break;
        }
        hash.update(&line);
        documents += 1;
        let Ok(text) = std::str::from_utf8(line.trim_ascii()) else {
            return Err(FileError::NotUtf8(number));
        };
        if !each(number, text) {
            return Err(FileError::Stopped);
        }
    }
    let trailer = match serde_json::from_slice::<TrailerLine<serde_json::Value>>(&line) {
        Ok(TrailerLine { backup }) if backup["v"].as_u64().is_some_and(|v| v != u64::from(FORMAT)) => {
            return Err(FileError::Format(backup["v"].clone()));
        }
        Ok(TrailerLine { backup }) => serde_json::from_value::<Trailer>(backup),
        Err(e) => Err(e),
    };
    let Ok(trailer) = trailer else { return Err(FileError::Trailer) };
    line.clear();
    if input.take(1).read_to_end(&mut line)? > 0 {
        return Err(FileError::AfterTrailer);
    }
    if trailer.documents != documents {
        return Err(FileError::Count { found: documents, written: trailer.documents });
    }
    if trailer.sha256 != record::hex(&hash.finalize()) {
        return Err(FileError::Checksum);
    }
    Ok(trailer)
}

/// Whether a line is an object with more members than a trailer has.
fn is_document(line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).ok();
    text.and_then(|text| RawDocument::parse(text).ok()).is_some_and(|line| line.members().len() > 1)
}

/// Whether a text is a trailer. Readers that do not check one skip it.
pub fn is_trailer(text: &str) -> bool {
    text.as_bytes().starts_with(TRAILER) && serde_json::from_str::<TrailerLine<serde::de::IgnoredAny>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_with_line_ends_becomes_one_line_with_the_same_strings() {
        assert_eq!(one_line("{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(one_line("{\"a\" :\r\n [1, \"x \\\" y\\\\\",\t2]}"), "{\"a\":[1,\"x \\\" y\\\\\",2]}");
    }
}

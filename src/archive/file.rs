//! Reads the events of one file, one after another.

use std::io::{BufRead, BufReader, Read as _};

use flate2::bufread::MultiGzDecoder;

use super::{Damage, Problem, event::EventHead, place};
use crate::follow::Event;

/// The longest event that is accepted. An event of a 16 MB MongoDB document holds its text twice and its bytes in
/// base64.
pub(super) const MAX_EVENT: u64 = 72 << 20;

/// How a file of an archive is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A single event.
    One,
    /// One event per line.
    Lines,
    /// One event per line, compressed.
    Gzip,
}

impl FileKind {
    /// Tells the encoding by the file's name; `None` for files that `follow` does not write.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            _ if name.ends_with(".jsonl.gz") => Some(Self::Gzip),
            _ if name.ends_with(".jsonl") => Some(Self::Lines),
            _ if name.ends_with(".json") => Some(Self::One),
            _ => None,
        }
    }
}

/// All events of one file with their lines. For the fuzz targets, which would otherwise spend their time on files.
///
/// # Errors
/// When an entry is not an event.
#[doc(hidden)]
pub fn events_in(name: &str, bytes: &[u8]) -> Result<Vec<(u64, Event<'static>)>, Damage> {
    let mut events = Vec::new();
    each_event(name, FileKind::of(name).unwrap_or(FileKind::Lines), bytes, |line, text| {
        let event = EventHead::read(name, line, text)?.event();
        let event = event.map_err(|e| Damage::new(place(name, line), Problem::Event(e)))?;
        events.push((line, event));
        Ok(true)
    })?;
    Ok(events)
}

/// Passes on the events of a file with their lines (0 when the file is a single event), until `each` returns false. Says
/// whether its last line is cut off and was passed over.
pub(super) fn each_event(
    name: &str,
    kind: FileKind,
    mut input: impl BufRead,
    mut each: impl FnMut(u64, &[u8]) -> Result<bool, Damage>,
) -> Result<bool, Damage> {
    if kind == FileKind::Gzip {
        let expanded = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input));
        return each_event(name, FileKind::Lines, Box::new(expanded) as Box<dyn BufRead + '_>, each);
    }
    let mut text = Vec::new();
    let mut line = 0;
    loop {
        text.clear();
        line += 1;
        let mut limited = input.by_ref().take(MAX_EVENT + 1);
        let read = match kind {
            FileKind::One => limited.read_to_end(&mut text),
            _ => limited.read_until(b'\n', &mut text),
        };
        let read = read.map_err(|e| Damage::new(name, Problem::Read(e)))?;
        if read as u64 > MAX_EVENT {
            return Err(Damage::new(place(name, line), Problem::TooLong));
        }
        if kind == FileKind::One {
            return each(0, &text).map(|_| false);
        }
        if read == 0 {
            return Ok(false);
        }
        let event = text.trim_ascii();
        if event.is_empty() {
            continue;
        }
        match each(line, event) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // A follower that was killed in the middle of a line writes that line again: its page was not acknowledged.
            Err(_) if !text.ends_with(b"\n") && is_beginning(event) => return Ok(true),
            Err(damage) => return Err(damage),
        }
    }
}

/// Whether a text is the beginning of an event. Anything else without an end is something that nobody writes again, such
/// as a compressed file under a wrong name.
fn is_beginning(text: &[u8]) -> bool {
    let without =
        |ends: &dyn Fn(&u8) -> bool| &text[..text.iter().rposition(|byte| !ends(byte)).map_or(0, |last| last + 1)];
    // A power cut may leave zeros. A number that is cut off is no number to the parser, instead of an end.
    let written = without(&|byte| matches!(*byte, 0 | b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    without(&|byte| *byte == 0).is_empty()
        || (written.starts_with(b"{")
            && serde_json::from_slice::<serde::de::IgnoredAny>(written).is_err_and(|e| e.is_eof()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_beginning_of_an_event_is_one_and_nothing_else() {
        let event = r#"{"op":"create","id":"é\u0041\n","doc":{"n":-1.5e3,"l":[true,null,{}]}}"#.as_bytes();
        for end in 1..event.len() {
            assert!(is_beginning(&event[..end]), "{end}");
            assert!(is_beginning(&[&event[..end], &[0; 9]].concat()), "{end} and zeros");
        }
        assert!(is_beginning(&[0, 0]));
        for other in [event, b"\x1f\x8b\x08\x00", b"[{", b"op", b"{op", b"{\"op\":\"create\"} {"] {
            assert!(!is_beginning(other), "{other:?}");
        }
    }
}

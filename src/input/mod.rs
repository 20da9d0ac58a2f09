//! Reads documents from a file or a stream: a JSON array, JSON lines, or objects one after another. It reads as a
//! stream, keeps the text of every document, and a broken document does not hold up the others. Also reads lists that
//! name documents.

mod items;
mod lists;

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
};

pub use self::{
    items::{BadList, ListedDocument, ListedGoal},
    lists::{ListError, items_of, listed_of, lists_of, lists_or_repeated},
};
pub use crate::archive::{InputDocument, NoDocument};
use crate::change::raw::RawDocument;

/// The longest text that is accepted for one document; the service takes 2 MB.
const MAX_DOCUMENT: usize = 16 << 20;

/// Opens a file.
///
/// # Errors
/// When it cannot be opened, or is a directory.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    let file = std::fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}

/// Reads documents and passes each on; stops early when `each` returns false. An empty array is fine, an empty input is
/// not.
///
/// # Errors
/// When reading fails, the input is empty, or the text is UTF-16.
pub fn read(mut input: impl BufRead, mut each: impl FnMut(InputDocument) -> bool) -> io::Result<()> {
    let start = input.fill_buf()?;
    if start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is UTF-16; save it as UTF-8"));
    }
    if start.starts_with(b"\xEF\xBB\xBF") {
        input.consume(3);
    }
    let mut line = 1;
    loop {
        match input.fill_buf()?.first() {
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty")),
            Some(byte) if byte.is_ascii_whitespace() => {
                line += u64::from(*byte == b'\n');
                input.consume(1);
            }
            Some(b'[') => {
                input.consume(1);
                return values(input, line, true, &mut each);
            }
            Some(_) => break,
        }
    }
    let (first, overlong) = read_line(&mut input)?;
    let trimmed = first.trim_ascii();
    // The first line decides: a complete value (or anything but an object) means JSON lines; the beginning of an object
    // means that objects may span lines.
    let by_line = overlong
        || !trimmed.starts_with(b"{")
        || trimmed.ends_with(b"}")
        || serde_json::from_slice::<serde::de::IgnoredAny>(trimmed).is_ok();
    if !by_line {
        return values(Cursor::new(first).chain(input), line, false, &mut each);
    }
    let mut current = (first, overlong);
    loop {
        let text = current.0.trim_ascii();
        if !text.is_empty() || current.1 {
            let item = InputDocument { place: format!("line {line}"), text: document(text, current.1) };
            if !each(item) {
                return Ok(());
            }
        }
        if current.0.last() != Some(&b'\n') && !current.1 && input.fill_buf()?.is_empty() {
            return Ok(());
        }
        line += 1;
        current = read_line(&mut input)?;
    }
}

/// A line with its end, and whether it was too long and therefore cut.
fn read_line(input: &mut impl BufRead) -> io::Result<(Vec<u8>, bool)> {
    let mut line = Vec::new();
    input.by_ref().take(MAX_DOCUMENT as u64).read_until(b'\n', &mut line)?;
    if line.len() < MAX_DOCUMENT || line.last() == Some(&b'\n') {
        return Ok((line, false));
    }
    // The rest of the line is skipped.
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        let (used, end) = memchr::memchr(b'\n', buffer).map_or((buffer.len(), false), |at| (at + 1, true));
        input.consume(used);
        if end {
            break;
        }
    }
    Ok((Vec::new(), true))
}

/// The values of an array after its bracket, or values one after another.
fn values(
    input: impl BufRead,
    mut line: u64,
    array: bool,
    each: &mut impl FnMut(InputDocument) -> bool,
) -> io::Result<()> {
    let mut value = Value::default();
    let mut index = 0u64;
    let mut start = line;
    let mut emit = |value: &mut Value, start: u64, index: &mut u64, cut: bool| {
        *index += 1;
        let text = if cut { Err(NoDocument::CutOff) } else { document(value.text.trim_ascii(), value.overlong) };
        *value = Value::default();
        each(InputDocument { place: format!("document {index} (line {start})"), text })
    };
    let mut closed = !array;
    for byte in input.bytes() {
        let byte = byte?;
        if value.is_empty() {
            match byte {
                b'\n' => line += 1,
                b' ' | b'\t' | b'\r' => {}
                b',' if array => {}
                b']' if array && !closed => closed = true,
                _ if array && closed => {
                    let _ = each(InputDocument { place: format!("line {line}"), text: Err(NoDocument::AfterArray) });
                    return Ok(());
                }
                _ => {
                    start = line;
                    if value.push(byte) && !emit(&mut value, start, &mut index, false) {
                        return Ok(());
                    }
                }
            }
            continue;
        }
        // A number or a word ends where the next token begins.
        if value.depth == 0
            && !value.in_string
            && (byte.is_ascii_whitespace() || (array && matches!(byte, b',' | b']')))
        {
            if !emit(&mut value, start, &mut index, false) {
                return Ok(());
            }
            line += u64::from(byte == b'\n');
            closed |= array && byte == b']';
            continue;
        }
        line += u64::from(byte == b'\n');
        if value.push(byte) && !emit(&mut value, start, &mut index, false) {
            return Ok(());
        }
    }
    if !value.is_empty() {
        let whole = value.depth == 0 && !value.in_string && !array;
        emit(&mut value, start, &mut index, !whole);
    } else if !closed {
        let _ = each(InputDocument { place: format!("line {line}"), text: Err(NoDocument::OpenArray) });
    }
    Ok(())
}

/// The text of one JSON value while it is being read.
#[derive(Debug, Default)]
struct Value {
    text: Vec<u8>,
    overlong: bool,
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Value {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && !self.overlong
    }

    /// Adds a byte; returns true when the value is complete with it.
    fn push(&mut self, byte: u8) -> bool {
        if self.text.len() >= MAX_DOCUMENT {
            self.text = Vec::new();
            self.overlong = true;
        }
        if !self.overlong {
            self.text.push(byte);
        }
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return self.depth == 0;
                }
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

fn document(text: &[u8], overlong: bool) -> Result<String, NoDocument> {
    if overlong {
        return Err(NoDocument::TooLong(MAX_DOCUMENT >> 20));
    }
    let text = std::str::from_utf8(text).map_err(|_| NoDocument::NotUtf8)?;
    match RawDocument::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => Err(NoDocument::NotAnObject),
        Err(e) => {
            // The parser's position is within the document, whose own place is already named.
            let message = e.to_string();
            let problem = message.split(" at line ").next().unwrap_or_default().to_owned();
            Err(NoDocument::NotJson { problem, line: e.line(), column: e.column() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &[u8]) -> Vec<String> {
        let mut items = Vec::new();
        // A tiny buffer, so that every boundary falls inside something.
        let result = read(BufReader::with_capacity(3, text), |item| {
            items.push(match item.text {
                Ok(text) => format!("{}: {text}", item.place),
                Err(problem) => format!("{} {problem}", item.place),
            });
            true
        });
        if let Err(e) = result {
            items.push(e.to_string());
        }
        items
    }

    #[test]
    fn arrays_lines_and_objects_are_told_apart() {
        assert_eq!(
            items(b"[{\"a\": [1]},\n {\"b\":\"]}\\\"\"}]"),
            ["document 1 (line 1): {\"a\": [1]}", "document 2 (line 2): {\"b\":\"]}\\\"\"}"]
        );
        assert_eq!(items(b"{\"a\":1}\r\n\n{\"b\":2}"), ["line 1: {\"a\":1}", "line 3: {\"b\":2}"]);
        assert_eq!(
            items(b"\n{\n \"a\": 1\n}\n{\"b\":\n2}\n"),
            ["document 1 (line 2): {\n \"a\": 1\n}", "document 2 (line 5): {\"b\":\n2}"]
        );
        assert_eq!(items(b"{\"only\":1}"), ["line 1: {\"only\":1}"]);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        assert_eq!(items(b"\xEF\xBB\xBF [{}]\n"), ["document 1 (line 1): {}"]);
        assert_eq!(items(b"\xEF\xBB\xBF{}\n"), ["line 1: {}"]);
        assert_eq!(items(b"\xFF\xFE{\0"), ["it is UTF-16; save it as UTF-8"]);
    }

    #[test]
    fn nothing_is_nothing() {
        for text in [&b"[]"[..], b"[ ]\n", b"\xEF\xBB\xBF\n[]"] {
            assert!(items(text).is_empty(), "{text:?}");
        }
        for text in [&b""[..], b" \n ", b"\xEF\xBB\xBF"] {
            assert_eq!(items(text), ["it is empty"], "{text:?}");
        }
    }

    #[test]
    fn broken_ones_are_named_and_the_others_read() {
        insta::assert_snapshot!(items(b"{\"a\":1}\n{\"a\":}\n[1]\nnonsense\n{\"z\":1}\n").join("\n"), @r#"
        line 1: {"a":1}
        line 2 is not valid JSON: expected value (at column 6)
        line 3 is JSON, but not an object
        line 4 is not valid JSON: expected ident (at column 2)
        line 5: {"z":1}
        "#);
        insta::assert_snapshot!(items(b"[{\"a\":1},\n{\"a\":},\n7, null,\"s\",\n{\"z\":1}] x").join("\n"), @r#"
        document 1 (line 1): {"a":1}
        document 2 (line 2) is not valid JSON: expected value (at column 6)
        document 3 (line 3) is JSON, but not an object
        document 4 (line 3) is JSON, but not an object
        document 5 (line 3) is JSON, but not an object
        document 6 (line 4): {"z":1}
        line 4 holds text after the end of the array
        "#);
        assert_eq!(items(b"{\"a\":\xff}\n{}"), ["line 1 is not UTF-8", "line 2: {}"]);
    }

    #[test]
    fn a_cut_off_input_is_noticed() {
        assert_eq!(
            items(b"[{\"a\":1},{\"b\":"),
            ["document 1 (line 1): {\"a\":1}", "document 2 (line 1) is cut off: the input ends inside it"]
        );
        assert!(items(b"[{\"a\":1}\n").last().unwrap().contains("not closed"));
        assert_eq!(items(b"{\n\"a\":"), ["document 1 (line 1) is cut off: the input ends inside it"]);
        assert_eq!(items(b"{\"a\":"), ["document 1 (line 1) is cut off: the input ends inside it"]);
    }

    #[test]
    fn an_endless_document_does_not_fill_the_memory() {
        let mut long = vec![b'x'; MAX_DOCUMENT + 5];
        long.extend_from_slice(b"\n{\"a\":1}\n");
        let mut items = Vec::new();
        read(BufReader::new(long.as_slice()), |item| {
            items.push(item.text);
            true
        })
        .unwrap();
        assert_eq!(items[0], Err(NoDocument::TooLong(16)));
        assert_eq!(items[1].as_deref(), Ok("{\"a\":1}"));
    }
}

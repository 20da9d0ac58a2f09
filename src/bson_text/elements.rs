//! Walks the elements of a BSON document in memory by their lengths. Nothing is copied.

/// A 64-bit floating point number.
pub(super) const DOUBLE: u8 = 0x01;
pub(super) const STRING: u8 = 0x02;
pub(super) const DOCUMENT: u8 = 0x03;
pub(super) const ARRAY: u8 = 0x04;
pub(super) const BINARY: u8 = 0x05;
pub(super) const UNDEFINED: u8 = 0x06;
pub(super) const OBJECT_ID: u8 = 0x07;
pub(super) const BOOLEAN: u8 = 0x08;
pub(super) const DATE: u8 = 0x09;
pub(super) const NULL: u8 = 0x0A;
pub(super) const REGEX: u8 = 0x0B;
pub(super) const DB_POINTER: u8 = 0x0C;
pub(super) const CODE: u8 = 0x0D;
pub(super) const SYMBOL: u8 = 0x0E;
pub(super) const CODE_WITH_SCOPE: u8 = 0x0F;
pub(super) const INT32: u8 = 0x10;
pub(super) const TIMESTAMP: u8 = 0x11;
pub(super) const INT64: u8 = 0x12;
pub(super) const DECIMAL: u8 = 0x13;
pub(super) const MAX_KEY: u8 = 0x7F;
pub(super) const MIN_KEY: u8 = 0xFF;

/// The subtype of binaries that carry their length twice.
pub(super) const OLD_BINARY: u8 = 0x02;

/// An element of a document or of an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Element<'b> {
    /// The type's number.
    pub(super) kind: u8,
    /// The name without its terminating zero. May not be UTF-8.
    pub(super) name: &'b [u8],
    /// The value's bytes, with their lengths.
    pub(super) value: &'b [u8],
}

/// The elements of a document, one after the other.
pub(super) struct Elements<'b> {
    rest: &'b [u8],
}

/// Returned when elements do not follow each other, so that the next one cannot be found.
pub(super) struct Broken;

impl<'b> Elements<'b> {
    /// `None` when the bytes do not have the length that they claim, or no terminating zero.
    pub(super) fn of(document: &'b [u8]) -> Option<Self> {
        let inner = document.get(4..)?.strip_suffix(&[0])?;
        (length(document)? == document.len()).then_some(Self { rest: inner })
    }

    fn take(&mut self) -> Option<Element<'b>> {
        let (kind, rest) = self.rest.split_first()?;
        let end = memchr::memchr(0, rest)?;
        let (name, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
        let (value, rest) = rest.split_at_checked(length_of(*kind, rest)?)?;
        self.rest = rest;
        Some(Element { kind: *kind, name, value })
    }
}

impl<'b> Iterator for Elements<'b> {
    type Item = Result<Element<'b>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let element = self.take();
        if element.is_none() {
            self.rest = &[];
        }
        Some(element.ok_or(Broken))
    }
}

/// The `_id` of a document.
pub(super) fn id_of(document: &[u8]) -> Option<Element<'_>> {
    let found = Elements::of(document)?.find(|element| !matches!(element, Ok(element) if element.name != b"_id"));
    found?.ok()
}

/// How many of the bytes a value of a type takes, given where it begins; `None` for an unknown type.
pub(super) fn length_of(kind: u8, rest: &[u8]) -> Option<usize> {
    match kind {
        UNDEFINED | NULL | MIN_KEY | MAX_KEY => Some(0),
        BOOLEAN => Some(1),
        INT32 => Some(4),
        DOUBLE | DATE | TIMESTAMP | INT64 => Some(8),
        OBJECT_ID => Some(12),
        DECIMAL => Some(16),
        STRING | CODE | SYMBOL => length(rest)?.checked_add(4),
        DOCUMENT | ARRAY | CODE_WITH_SCOPE => length(rest).filter(|length| *length >= 5),
        BINARY => length(rest)?.checked_add(5),
        DB_POINTER => length(rest)?.checked_add(16),
        REGEX => {
            let pattern = memchr::memchr(0, rest)? + 1;
            Some(pattern + memchr::memchr(0, rest.get(pattern..)?)? + 1)
        }
        _ => None,
    }
}

/// Whether a value is nested no deeper than this many levels.
pub(super) fn is_shallow(kind: u8, value: &[u8], levels: usize) -> bool {
    let inner = match kind {
        DOCUMENT | ARRAY => Some(value),
        CODE_WITH_SCOPE => value.get(4..).and_then(|inner| inner.get(length_of(STRING, inner)?..)),
        _ => return true,
    };
    let Some(levels) = levels.checked_sub(1) else { return false };
    let mut elements = inner.and_then(Elements::of).into_iter().flatten().flatten();
    elements.all(|element| is_shallow(element.kind, element.value, levels))
}

/// The length at the beginning of the bytes.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok()
}

/// The text of a string: the bytes between its length and the terminating zero.
pub(super) fn string(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.get(4..)?.strip_suffix(&[0])?).ok()
}

/// A document with one element whose name is empty.
pub(super) fn alone(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut document = Vec::with_capacity(value.len() + 7);
    document.extend_from_slice(&[0, 0, 0, 0, kind, 0]);
    document.extend_from_slice(value);
    document.push(0);
    set_length(&mut document, 0);
    document
}

/// Writes the length of what begins at a place to that place. A length beyond MongoDB's limit is truncated, which makes
/// the document invalid.
pub(super) fn set_length(out: &mut [u8], from: usize) {
    let length = i32::try_from(out.len() - from).unwrap_or(-1).to_le_bytes();
    if let Some(place) = out.get_mut(from..from + 4) {
        place.copy_from_slice(&length);
    }
}

/// Bytes as hex digits, two for each.
pub(super) fn push_hex(out: &mut String, bytes: &[u8]) {
    for part in bytes.chunks(12) {
        let mut digits = [0; 24];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(part) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        push_ascii(out, digits.get(..part.len() * 2).unwrap_or_default());
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";

/// Writes an integer in decimal digits. Documents are full of them, and the general formatter takes three times as
/// long.
pub(super) fn push_integer(out: &mut String, number: i64) {
    let (mut digits, mut from, mut rest) = ([b'0'; 20], 20, number.unsigned_abs());
    while from > 0 {
        from -= 1;
        digits[from] += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    push_ascii(out, digits.get(from..).unwrap_or_default());
}

fn push_ascii(out: &mut String, text: &[u8]) {
    out.push_str(std::str::from_utf8(text).unwrap_or_default());
}

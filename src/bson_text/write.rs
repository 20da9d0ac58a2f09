//! From bytes to text, in one pass. What turns out not to survive the way back is cut off again and written as bytes.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    NotADocument,
    decimal::DecimalValue,
    elements::{
        ARRAY, BINARY, BOOLEAN, CODE, CODE_WITH_SCOPE, DATE, DB_POINTER, DECIMAL, DOCUMENT, DOUBLE, Element, Elements,
        INT32, INT64, MAX_KEY, MIN_KEY, NULL, OBJECT_ID, OLD_BINARY, REGEX, STRING, SYMBOL, TIMESTAMP, UNDEFINED,
        id_of, length, length_of, push_hex, push_integer, string,
    },
    id,
};
use crate::change::extended::{is_escaped, is_wrapper};

/// Levels of a text, not counting those of a single value: fewer than the 128 that every parser reads. MongoDB allows
/// 100.
const LEVELS: usize = 100;
/// Up to this many names are compared with each other; more are sorted.
const FEW: usize = 16;

/// Writes the document, or nothing.
pub(super) fn document(out: &mut String, bson: &[u8]) -> Result<(), NotADocument> {
    let elements = Elements::of(bson).ok_or(NotADocument("they do not have the length that they say"))?;
    let own = id_of(bson).ok_or(NotADocument("there is no _id in it"))?;
    out.push_str("{\"id\":");
    push_string(out, &id::text_of(own.kind, own.value));
    let own_members = out.len();
    let mut writer = BsonTextWriter::new(out, Numbers::Typed);
    if writer.top(elements).is_none() {
        writer.out.truncate(own_members);
        writer.out.push_str(",\"_id\":");
        writer.names.clear();
        writer.element(own.kind, own.value, 1);
        writer.out.push_str(",\"$bson\":");
        push_inside_bson(writer.out, DOCUMENT, bson);
    }
    writer.out.push('}');
    Ok(())
}

/// How numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// With their types.
    Typed,
    /// As MongoDB compares them, whatever their types.
    Compared,
}

pub(super) struct BsonTextWriter<'o, 'b> {
    out: &'o mut String,
    numbers: Numbers,
    /// The names in the documents that are being written, inner ones last.
    names: Vec<&'b [u8]>,
}

impl<'o, 'b> BsonTextWriter<'o, 'b> {
    pub(super) fn new(out: &'o mut String, numbers: Numbers) -> Self {
        Self { out, numbers, names: Vec::new() }
    }

    /// The members of the document itself; `None` when they would not survive the way back.
    fn top(&mut self, elements: Elements<'b>) -> Option<()> {
        for element in elements {
            let Element { kind, name, value } = element.ok()?;
            self.out.push(',');
            let text = self.name(name, 0)?;
            self.out.push('"');
            if is_escaped(text) {
                self.out.push('~');
            }
            push_escaped(self.out, text);
            self.out.push_str("\":");
            self.element(kind, value, 1);
        }
        self.all_differ(0)
    }

    /// A value, in whatever form it can be given back.
    pub(super) fn element(&mut self, kind: u8, value: &'b [u8], level: usize) {
        let (start, names) = (self.out.len(), self.names.len());
        if self.value(kind, value, level).is_none() {
            self.out.truncate(start);
            self.names.truncate(names);
            push_bson(self.out, kind, value);
        }
    }

    /// A value in Extended JSON; `None` when it would not survive the way back.
    fn value(&mut self, kind: u8, value: &'b [u8], level: usize) -> Option<()> {
        if self.numbers == Numbers::Compared && matches!(kind, DOUBLE | INT32 | INT64 | DECIMAL) {
            return id::push_number(self.out, kind, value);
        }
        match kind {
            STRING => push_string(self.out, string(value)?),
            INT32 => {
                let number = i32::from_le_bytes(*value.first_chunk()?);
                self.integer("{\"$numberInt\":\"", number.into(), "\"}");
            }
            INT64 => self.integer("{\"$numberLong\":\"", i64_of(value)?, "\"}"),
            DOUBLE => {
                let number = f64::from_bits(u64::from_le_bytes(*value.first_chunk()?));
                // Of all bit patterns of NaN, only one is written as NaN.
                (!number.is_nan() || number.to_bits() == NAN).then_some(())?;
                self.out.push_str("{\"$numberDouble\":\"");
                push_double(self.out, number);
                self.out.push_str("\"}");
            }
            DECIMAL => {
                let (decimal, is_only) = DecimalValue::of(value)?;
                is_only.then_some(())?;
                self.out.push_str("{\"$numberDecimal\":\"");
                decimal.push(self.out);
                self.out.push_str("\"}");
            }
            DOCUMENT => self.document(value, level + 1)?,
            ARRAY => self.array(value, level + 1)?,
            BOOLEAN => match value {
                [0] => self.out.push_str("false"),
                [1] => self.out.push_str("true"),
                _ => return None,
            },
            NULL => self.out.push_str("null"),
            OBJECT_ID => {
                self.out.push_str("{\"$oid\":\"");
                push_hex(self.out, value);
                self.out.push_str("\"}");
            }
            DATE => self.integer("{\"$date\":{\"$numberLong\":\"", i64_of(value)?, "\"}}"),
            _ => return self.rare(kind, value, level),
        }
        Some(())
    }

    fn rare(&mut self, kind: u8, value: &'b [u8], level: usize) -> Option<()> {
        match kind {
            BINARY => {
                let (subtype, bytes) = value.get(4..)?.split_first()?;
                let bytes = match *subtype {
                    OLD_BINARY => (length(bytes)? == bytes.len() - 4).then(|| bytes.get(4..))??,
                    _ => bytes,
                };
                self.out.push_str("{\"$binary\":{\"base64\":\"");
                STANDARD.encode_string(bytes, self.out);
                self.out.push_str("\",\"subType\":\"");
                push_hex(self.out, &[*subtype]);
                self.out.push_str("\"}}");
            }
            TIMESTAMP => {
                let (count, seconds) = value.split_first_chunk()?;
                let (count, seconds) = (u32::from_le_bytes(*count), u32::from_le_bytes(*seconds.first_chunk()?));
                let _ = write!(self.out, "{{\"$timestamp\":{{\"t\":{seconds},\"i\":{count}}}}}");
            }
            REGEX => {
                let mut parts = value.split(|byte| *byte == 0).map(std::str::from_utf8);
                let (pattern, options) = (parts.next()?.ok()?, parts.next()?.ok()?);
                self.out.push_str("{\"$regularExpression\":{\"pattern\":");
                push_string(self.out, pattern);
                self.out.push_str(",\"options\":");
                push_string(self.out, options);
                self.out.push_str("}}");
            }
            SYMBOL => self.named_string("{\"$symbol\":", string(value)?, "}"),
            CODE => self.named_string("{\"$code\":", string(value)?, "}"),
            CODE_WITH_SCOPE => {
                let inner = value.get(4..)?;
                let (code, scope) = inner.split_at_checked(length_of(STRING, inner)?)?;
                (length_of(DOCUMENT, scope)? == scope.len()).then_some(())?;
                self.named_string("{\"$code\":", string(code)?, ",\"$scope\":");
                self.element(DOCUMENT, scope, level + 1);
                self.out.push('}');
            }
            DB_POINTER => {
                let (namespace, id) = value.split_at_checked(length_of(STRING, value)?)?;
                self.named_string("{\"$dbPointer\":{\"$ref\":", string(namespace)?, ",\"$id\":");
                self.value(OBJECT_ID, id, level)?;
                self.out.push_str("}}");
            }
            UNDEFINED => self.out.push_str("{\"$undefined\":true}"),
            MIN_KEY => self.out.push_str("{\"$minKey\":1}"),
            MAX_KEY => self.out.push_str("{\"$maxKey\":1}"),
            _ => return None,
        }
        Some(())
    }

    fn integer(&mut self, before: &str, number: i64, after: &str) {
        self.out.push_str(before);
        push_integer(self.out, number);
        self.out.push_str(after);
    }

    fn named_string(&mut self, before: &str, text: &str, after: &str) {
        self.out.push_str(before);
        push_string(self.out, text);
        self.out.push_str(after);
    }

    fn document(&mut self, document: &'b [u8], level: usize) -> Option<()> {
        (level <= LEVELS).then_some(())?;
        let first = self.names.len();
        let mut before = '{';
        for element in Elements::of(document)? {
            let Element { kind, name, value } = element.ok()?;
            let text = self.name(name, first)?;
            // Read back, it would be taken for a single value.
            (before == ',' || !is_wrapper(text)).then_some(())?;
            self.out.push(before);
            push_string(self.out, text);
            self.out.push(':');
            self.element(kind, value, level);
            before = ',';
        }
        self.all_differ(first)?;
        self.out.push_str(if before == '{' { "{}" } else { "}" });
        Some(())
    }

    fn array(&mut self, array: &'b [u8], level: usize) -> Option<()> {
        (level <= LEVELS).then_some(())?;
        self.out.push('[');
        let mut index = Index::default();
        for (place, element) in Elements::of(array)?.enumerate() {
            let Element { kind, name, value } = element.ok()?;
            (name == index.text()).then_some(())?;
            if place > 0 {
                self.out.push(',');
            }
            self.element(kind, value, level);
            index.next();
        }
        self.out.push(']');
        Some(())
    }

    /// A member's name; `None` when it is not UTF-8, or the document has it already.
    fn name(&mut self, name: &'b [u8], first: usize) -> Option<&'b str> {
        let before = self.names.get(first..).unwrap_or_default();
        if before.len() < FEW && before.contains(&name) {
            return None;
        }
        self.names.push(name);
        std::str::from_utf8(name).ok()
    }

    /// Drops the names of a document; `None` when two are the same.
    fn all_differ(&mut self, first: usize) -> Option<()> {
        let names = self.names.get_mut(first..).unwrap_or_default();
        let mut all_differ = true;
        if names.len() > FEW {
            names.sort_unstable();
            all_differ = names.windows(2).all(|pair| pair[0] != pair[1]);
        }
        self.names.truncate(first);
        all_differ.then_some(())
    }
}

/// The only bit pattern of NaN that JSON has a text for.
pub(super) const NAN: u64 = 0x7FF8_0000_0000_0000;

/// The keys of an array, one after the other.
struct Index {
    digits: [u8; 20],
    from: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { digits: [b'0'; 20], from: 19 }
    }
}

impl Index {
    fn text(&self) -> &[u8] {
        self.digits.get(self.from..).unwrap_or_default()
    }

    fn next(&mut self) {
        for (place, digit) in self.digits.iter_mut().enumerate().rev() {
            self.from = self.from.min(place);
            if *digit != b'9' {
                *digit += 1;
                return;
            }
            *digit = b'0';
        }
    }
}

fn i64_of(value: &[u8]) -> Option<i64> {
    value.first_chunk().map(|bytes| i64::from_le_bytes(*bytes))
}

/// The shortest text that reads back as the same number; special values have names. Ids are made from it, and texts
/// written years apart are compared: it keeps the standard library's spelling, since a parser's has changed before.
pub(super) fn push_double(out: &mut String, number: f64) {
    let _ = match () {
        () if number.is_nan() => out.write_str("NaN"),
        () if number.is_infinite() => out.write_str(if number < 0.0 { "-Infinity" } else { "Infinity" }),
        () => write!(out, "{number:?}"),
    };
}

/// The value's bytes, with its type.
pub(super) fn push_bson(out: &mut String, kind: u8, value: &[u8]) {
    out.push_str("{\"$bson\":");
    push_inside_bson(out, kind, value);
    out.push('}');
}

fn push_inside_bson(out: &mut String, kind: u8, value: &[u8]) {
    out.push_str("{\"type\":\"");
    push_hex(out, &[kind]);
    out.push_str("\",\"base64\":\"");
    STANDARD.encode_string(value, out);
    out.push_str("\"}");
}

pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = first_special(rest.as_bytes()) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let (one, after) = from.split_at(1);
        match one.as_bytes().first().copied().unwrap_or_default() {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            8 => out.push_str("\\b"),
            12 => out.push_str("\\f"),
            byte if byte < 0x20 => {
                out.push_str("\\u00");
                push_hex(out, &[byte]);
            }
            _ => {
                out.push('\\');
                out.push_str(one);
            }
        }
        rest = after;
    }
    out.push_str(rest);
}

/// The position of the first byte that a JSON string cannot hold unescaped. Whole blocks are examined without a branch,
/// so that the compiler can use vector instructions.
fn first_special(bytes: &[u8]) -> Option<usize> {
    const BLOCK: usize = 32;
    let is_special = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    let (blocks, _) = bytes.as_chunks::<BLOCK>();
    let plain = blocks.iter().take_while(|block| !block.iter().fold(false, |any, byte| any | is_special(*byte)));
    let from = plain.count() * BLOCK;
    bytes.get(from..)?.iter().position(|byte| is_special(*byte)).map(|at| from + at)
}

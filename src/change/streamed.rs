//! A change that this program reads from bytes, in parts: an event is made of them without another look at their text,
//! and the item of a feed only where somebody wants one.

use std::{borrow::Cow, fmt::Write as _};

use super::{Native, Op, edit::push_quoted};

/// A document in a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image<T> {
    /// Its text, without an etag.
    pub text: T,
    /// Its etag with its quotes; `None` where fields are to be left out.
    pub etag: Option<T>,
}

/// A change of one document. `T` is a text, or its place on a [`ChangeBuffer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streamed<T> {
    /// The operation.
    pub op: Op,
    /// When, epoch seconds.
    pub ts: Option<i64>,
    /// Its place among the changes of the source.
    pub lsn: Option<i64>,
    /// The document's id.
    pub id: T,
    /// The id that the change names beside its documents, if it does.
    pub named: Option<T>,
    /// The version, which distinguishes it from the others of its document.
    pub version: T,
    /// Database and collection, separated by a dot.
    pub ns: T,
    /// The document after the change.
    pub current: Option<Image<T>>,
    /// The document before it.
    pub previous: Option<Image<T>>,
    /// The paths that the change itself names: a JSON array of JSON Pointers.
    pub changed: Option<T>,
    /// The document's own bytes, base64.
    pub bson: Option<T>,
    /// Whether the text was looked up after the change.
    pub looked_up: bool,
}

impl<T: Copy> Streamed<T> {
    fn map<U>(&self, of: impl Fn(T) -> U) -> Streamed<U> {
        let image = |image: Image<T>| Image { text: of(image.text), etag: image.etag.map(&of) };
        Streamed {
            op: self.op,
            ts: self.ts,
            lsn: self.lsn,
            id: of(self.id),
            named: self.named.map(&of),
            version: of(self.version),
            ns: of(self.ns),
            current: self.current.map(image),
            previous: self.previous.map(image),
            changed: self.changed.map(&of),
            bson: self.bson.map(&of),
            looked_up: self.looked_up,
        }
    }
}

impl<'a> Streamed<&'a str> {
    /// The members that only MongoDB changes have.
    pub fn native(&self) -> Native<'a> {
        Native {
            ns: Cow::Borrowed(self.ns),
            to: None,
            version: Cow::Borrowed(self.version),
            bson: self.bson.map(Cow::Borrowed),
            looked_up: self.looked_up,
            changed: self.changed,
        }
    }

    /// Appends the change as an item of a feed: an envelope of `current`, `previous` and `metadata`.
    pub fn push_item(&self, out: &mut String) {
        out.push('{');
        for (name, image) in [("\"current\":", &self.current), ("\"previous\":", &self.previous)] {
            let Some(image) = image else { continue };
            out.push_str(name);
            match image.etag {
                Some(etag) => {
                    out.push_str(image.text.strip_suffix('}').unwrap_or(image.text));
                    out.push_str(",\"_etag\":");
                    push_quoted(out, etag);
                    out.push('}');
                }
                None => out.push_str(image.text),
            }
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "\"metadata\":{{\"operationType\":\"{}\",\"version\":", self.op);
        push_quoted(out, self.version);
        out.push_str(",\"ns\":");
        push_quoted(out, self.ns);
        for (name, number) in [("crts", self.ts), ("lsn", self.lsn)] {
            if let Some(number) = number {
                let _ = write!(out, ",\"{name}\":{number}");
            }
        }
        if let Some(id) = self.named {
            out.push_str(",\"id\":");
            push_quoted(out, id);
            out.push_str(",\"partitionKey\":{\"id\":");
            push_quoted(out, id);
            out.push('}');
        }
        if self.looked_up {
            out.push_str(",\"lookedUp\":true");
        }
        if let Some(changed) = self.changed {
            out.extend([",\"changed\":", changed]);
        }
        if let Some(bson) = self.bson {
            // Base64 needs no escapes.
            out.extend([",\"bson\":\"", bson, "\""]);
        }
        out.push_str("}}");
    }
}

/// A place on a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    from: usize,
    to: usize,
}

/// Nearly all are changes.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
enum Entry {
    Item(Span),
    Change(Streamed<Span>),
}

/// The content of a sheet.
#[derive(Debug, Clone, Copy)]
pub enum BufferContent<'s> {
    /// The text of an item that is no change of a document.
    Item(&'s str),
    /// A change.
    Change(Streamed<&'s str>),
}

/// Changes in parts, with all their texts one behind the other.
#[derive(Debug, Default)]
pub struct ChangeBuffer {
    text: String,
    entries: Vec<Entry>,
}

impl ChangeBuffer {
    /// With room for so many bytes of text.
    pub fn with_room(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), entries: Vec::new() }
    }

    /// The size of the text in bytes.
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// How many changes and items there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is neither a change nor an item.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a part.
    pub fn write(&mut self, write: impl FnOnce(&mut String)) -> Span {
        let from = self.text.len();
        write(&mut self.text);
        Span { from, to: self.text.len() }
    }

    /// Takes back the parts after the first `bytes` of text, which no change may have.
    pub fn take_back(&mut self, bytes: usize) {
        self.text.truncate(bytes);
    }

    /// The text at a place.
    pub fn at(&self, span: Span) -> &str {
        self.text.get(span.from..span.to).unwrap_or_default()
    }

    /// Adds a change, of which the parts are on this sheet.
    pub fn push(&mut self, change: Streamed<Span>) {
        self.entries.push(Entry::Change(change));
    }

    /// Adds an item.
    pub fn push_item(&mut self, write: impl FnOnce(&mut String)) {
        let item = self.write(write);
        self.entries.push(Entry::Item(item));
    }

    /// A change, of which the parts are on this sheet.
    pub fn read(&self, change: &Streamed<Span>) -> Streamed<&str> {
        change.map(|span| self.at(span))
    }

    /// All that stands here, in its order.
    pub fn entries(&self) -> impl Iterator<Item = BufferContent<'_>> {
        self.entries.iter().map(|entry| match entry {
            Entry::Item(span) => BufferContent::Item(self.at(*span)),
            Entry::Change(change) => BufferContent::Change(self.read(change)),
        })
    }
}

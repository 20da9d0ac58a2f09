//! The line that an event is, in every sink but the history.

use std::fmt::Write as _;

use super::Event;
use crate::change::{
    Native,
    edit::push_quoted,
    key::{KeyValue, PartitionKey},
    raw::without_line_ends,
};

/// The usual size of a line without its documents.
const LINE_OVERHEAD: usize = 512;

impl Event<'_> {
    /// The event as one JSON object on one line, without a line end. Unknown members are null; `partial` only appears
    /// when something was left out.
    pub fn to_line(&self) -> String {
        let mut line = String::with_capacity(self.usual_size());
        self.push_line(&mut line);
        line
    }

    /// About as many bytes as its line has.
    pub(super) fn usual_size(&self) -> usize {
        let texts = [&self.doc, &self.previous, &self.partial].into_iter().flatten().map(|text| text.len());
        let bytes = self.native.as_ref().and_then(|native| native.bson.as_ref()).map_or(0, |bson| bson.len());
        texts.sum::<usize>() + bytes + LINE_OVERHEAD
    }

    /// Appends the same line to a text.
    pub fn push_line(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{{\"op\":\"{}\",\"id\":", self.op);
        push_quoted(out, &self.id);
        out.push_str(",\"pk\":");
        match self.pk.0.as_slice() {
            [KeyValue::String(text)] => push_quoted(out, text),
            _ => out.push_str(&key_text(&self.pk)),
        }
        push_number(out, ",\"ts\":", self.ts);
        push_number(out, ",\"lsn\":", self.lsn);
        out.push_str(",\"version\":");
        push_quoted(out, &self.version);
        push_known(out, ",\"doc\":", self.doc.as_deref());
        push_known(out, ",\"previous\":", self.previous.as_deref());
        out.push_str(",\"changed\":");
        match &self.changed {
            Some(paths) => {
                out.push('[');
                for (place, path) in paths.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    push_quoted(out, path);
                }
                out.push(']');
            }
            None => out.push_str("null"),
        }
        if let Some(note) = &self.partial {
            out.extend([",\"partial\":", note]);
        }
        if let Some(native) = &self.native {
            self.push_native(native, out);
        }
        out.push('}');
    }

    fn push_native(&self, native: &Native<'_>, out: &mut String) {
        out.push_str(",\"ns\":");
        push_quoted(out, &native.ns);
        if let Some(etag) = &self.etag {
            out.push_str(",\"etag\":");
            push_quoted(out, etag);
        }
        if let Some(bson) = &native.bson {
            // Base64 needs no escapes.
            out.extend([",\"bson\":\"", bson, "\""]);
        }
        if let Some(to) = &native.to {
            out.push_str(",\"to\":");
            push_quoted(out, to);
        }
        if native.looked_up {
            out.push_str(",\"lookedUp\":true");
        }
    }
}

fn push_number(out: &mut String, name: &str, number: Option<i64>) {
    out.push_str(name);
    let _ = match number {
        Some(number) => write!(out, "{number}"),
        None => out.write_str("null"),
    };
}

fn push_known(out: &mut String, name: &str, text: Option<&str>) {
    out.push_str(name);
    out.push_str(&text.map_or("null".into(), without_line_ends));
}

pub(super) fn key_text(key: &PartitionKey) -> String {
    match key.0.as_slice() {
        [one] => one.to_json().to_string(),
        _ => key.to_json().to_string(),
    }
}

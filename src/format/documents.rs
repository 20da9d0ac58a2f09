//! Prints documents of any shape, as a query returns them.

use std::{collections::VecDeque, io::Write};

use serde_json::{Value, value::RawValue};

use super::{
    Format, NotWritten,
    rows::{Look, Rows, end_json, write_json},
};
use crate::change::raw::{RawDocument, unescape};

/// Prints raw documents, exactly as stored in `json` and `jsonl`; otherwise with columns taken from the first of them.
pub struct DocumentPrinter<W: Write = Box<dyn Write + Send>> {
    format: Format,
    count: u64,
    /// Documents held back until the columns are known.
    first: VecDeque<Box<RawValue>>,
    rows: Option<Rows<W>>,
    out: Option<W>,
    look: Look,
}

/// How many documents determine the columns of a table.
pub(super) const COLUMNS_FROM: usize = 100;

impl<W: Write> DocumentPrinter<W> {
    /// Documents that go there.
    pub fn new(out: W, format: Format, look: Look) -> Self {
        Self { format, count: 0, first: VecDeque::new(), rows: None, out: Some(out), look }
    }

    /// Adds a document.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn push(&mut self, document: Box<RawValue>) -> Result<(), NotWritten> {
        self.count += 1;
        match self.format {
            Format::Json | Format::Jsonl => match &mut self.out {
                Some(out) => Ok(write_json(out, self.format, self.count, document.get())?),
                None => Ok(()),
            },
            Format::Table | Format::Csv => {
                self.first.push_back(document);
                if self.rows.is_none() && self.first.len() < COLUMNS_FROM {
                    return Ok(());
                }
                self.drain()
            }
        }
    }

    /// Passes buffered text on, so that a reader sees every page at once.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn flush(&mut self) -> Result<(), NotWritten> {
        self.out.as_mut().map_or(Ok(()), |out| Ok(out.flush()?))
    }

    /// Ends the output.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self) -> Result<(), NotWritten> {
        match self.format {
            Format::Json | Format::Jsonl => {
                let Some(mut out) = self.out else { return Ok(()) };
                let end = if self.format == Format::Json { end_json(&mut out, self.count) } else { Ok(()) };
                Ok(end.and_then(|()| out.flush())?)
            }
            Format::Table | Format::Csv => {
                if self.count > 0 {
                    self.drain()?;
                }
                self.rows.map_or(Ok(()), Rows::finish)
            }
        }
    }

    fn drain(&mut self) -> Result<(), NotWritten> {
        if self.rows.is_none()
            && let Some(out) = self.out.take()
        {
            let columns = columns_of(self.first.iter().map(|d| d.get()));
            self.rows = Some(Rows::new(out, self.format, self.look, &columns));
        }
        let Some(rows) = &mut self.rows else { return Ok(()) };
        for document in self.first.drain(..) {
            let values = columns_in(document.get(), &rows.columns);
            rows.push(&values)?;
        }
        Ok(())
    }
}

/// The column for a result that is not an object, as with `SELECT VALUE c.id`.
pub(super) const VALUE_COLUMN: &str = "value";

/// The columns of documents: their fields in order of appearance, those that the service adds last, of which only `_ts`
/// is shown.
pub(super) fn columns_of<'a>(documents: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SYSTEM: [&str; 4] = ["_rid", "_self", "_etag", "_attachments"];
    let mut columns: Vec<String> = Vec::new();
    for text in documents {
        match RawDocument::parse(text) {
            Ok(document) => {
                for member in document.members() {
                    let name = member.name();
                    if !SYSTEM.contains(&name.as_ref()) && !columns.iter().any(|c| *c == name) {
                        columns.push(name.into_owned());
                    }
                }
            }
            Err(_) if columns.iter().any(|c| c == VALUE_COLUMN) => {}
            Err(_) => columns.push(VALUE_COLUMN.into()),
        }
    }
    // The id first, as people look for it.
    columns.sort_by_key(|c| match c.as_str() {
        "id" => 0,
        "_ts" => 2,
        _ => 1,
    });
    columns
}

pub(super) fn columns_in(text: &str, columns: &[String]) -> Vec<Value> {
    match RawDocument::parse(text) {
        Ok(document) => columns.iter().map(|c| document.get(c).map_or(Value::Null, |v| shown(v.get()))).collect(),
        Err(_) => columns.iter().map(|c| if c == VALUE_COLUMN { shown(text) } else { Value::Null }).collect(),
    }
}

/// A raw value for a cell: a string without quotes; anything else as its text, so that numbers stay as they were
/// written.
pub(super) fn shown(text: &str) -> Value {
    match text.as_bytes().first() {
        Some(b'"') => Value::String(unescape(text).into_owned()),
        Some(b'n') => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

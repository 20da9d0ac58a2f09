//! Prints rows in every format: tables for people, JSON and CSV for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use serde_json::Value;

use super::{Format, NotWritten, printable};
use crate::change::{edit::quote, raw::without_line_ends};

/// Rows with named columns. Every format but the table is written row by row.
pub struct Rows<W: Write = Box<dyn Write + Send>> {
    format: Format,
    pub(super) columns: Vec<String>,
    count: u64,
    pub(super) table: Vec<Vec<String>>,
    /// The column widths of the part of the table that was written; empty when none was.
    written: Vec<usize>,
    look: Look,
    out: W,
}

/// How many rows of a table for a pipe are aligned together: a listing may be as long as a container.
pub(super) const ALIGNED: usize = 10_000;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// A value of ours.
    Value(Value),
    /// JSON text of a document, printed as it is, strings with their quotes; `None` is a missing value: empty in
    /// columns, no member in an object.
    Json(Option<&'a str>),
}

impl<T: Into<Value>> From<T> for Cell<'_> {
    fn from(value: T) -> Self {
        Self::Value(value.into())
    }
}

/// How wide a table may be and whether it is ruled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// For a terminal: ruled, no wider than it is.
    Terminal,
    /// For a pipe: aligned columns, nothing shortened.
    Plain,
}

impl<W: Write> Rows<W> {
    /// Writes rows to this output.
    pub fn new(out: W, format: Format, look: Look, columns: &[impl AsRef<str>]) -> Self {
        let columns = columns.iter().map(|c| c.as_ref().to_owned()).collect();
        Self { format, columns, count: 0, table: Vec::new(), written: Vec::new(), look, out }
    }

    /// Adds a row: one value per column.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn push(&mut self, values: &[Value]) -> Result<(), NotWritten> {
        let cells: Vec<Cell<'_>> = values.iter().cloned().map(Cell::Value).collect();
        self.push_cells(&cells)
    }

    /// Adds a row in which some values are JSON text.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn push_cells(&mut self, cells: &[Cell<'_>]) -> Result<(), NotWritten> {
        self.count += 1;
        match self.format {
            Format::Table => {
                self.table.push(cells.iter().map(|c| printable(&plain_cell(c)).into_owned()).collect());
                if self.look == Look::Plain && self.table.len() == ALIGNED {
                    self.write_table()?;
                }
                Ok(())
            }
            Format::Json | Format::Jsonl => {
                let text = object_text(self.columns.iter().map(String::as_str).zip(cells));
                Ok(write_json(&mut self.out, self.format, self.count, &text)?)
            }
            Format::Csv => Ok(self.csv_record(&cells.iter().map(plain_cell).collect::<Vec<_>>())?),
        }
    }

    /// Writes the buffer. Must be called last.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn finish(mut self) -> Result<(), NotWritten> {
        let done = match self.format {
            Format::Table => self.write_table(),
            Format::Json => end_json(&mut self.out, self.count),
            Format::Jsonl => Ok(()),
            Format::Csv if self.count == 0 => {
                let header = self.columns.clone();
                csv_line(&mut self.out, &header)
            }
            Format::Csv => Ok(()),
        };
        Ok(done.and_then(|()| self.out.flush())?)
    }

    /// Writes the buffered rows, below the header or, when that was written, with the same widths as above.
    fn write_table(&mut self) -> io::Result<()> {
        let mut rows = std::mem::take(&mut self.table);
        let Some(first) = rows.first_mut() else { return Ok(()) };
        let header = if self.written.is_empty() { self.columns.as_slice() } else { &[] };
        for (cell, width) in first.iter_mut().zip(&self.written) {
            let missing = width.saturating_sub(cell.chars().count());
            cell.extend(std::iter::repeat_n(' ', missing));
        }
        if self.look == Look::Plain {
            self.written = natural_widths(header, &rows);
        }
        self.out.write_all(draw(self.look, header, rows).as_bytes())
    }

    fn csv_record(&mut self, cells: &[String]) -> io::Result<()> {
        if self.count == 1 {
            csv_line(&mut self.out, &self.columns)?;
        }
        csv_line(&mut self.out, cells)
    }
}

pub(super) fn csv_line(out: &mut impl Write, cells: &[String]) -> io::Result<()> {
    let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
    line.write_record(cells).map_err(io::Error::other)?;
    out.write_all(&line.into_inner().map_err(|e| io::Error::other(e.to_string()))?)
}

pub(super) fn write_json(out: &mut impl Write, format: Format, nth: u64, text: &str) -> io::Result<()> {
    match format {
        Format::Json if nth == 1 => write!(out, "[\n{text}"),
        Format::Json => write!(out, ",\n{text}"),
        _ => writeln!(out, "{}", without_line_ends(text)),
    }
}

pub(super) fn end_json(out: &mut impl Write, count: u64) -> io::Result<()> {
    out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })
}

pub(super) fn draw(look: Look, columns: &[String], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let mut hidden = 0;
    match look {
        Look::Terminal => {
            table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
            let widths = fit(&natural_widths(columns, &rows), usize::from(table.width().unwrap_or(80)));
            hidden = columns.len() - widths.len();
            let cut =
                |cells: &[String]| -> Vec<String> { cells.iter().zip(&widths).map(|(c, w)| shorten(c, *w)).collect() };
            table.set_header(cut(columns));
            table.add_rows(rows.iter().map(|cells| cut(cells)));
        }
        Look::Plain => {
            table.force_no_tty();
            if !columns.is_empty() {
                table.set_header(columns);
            }
            table.add_rows(rows);
        }
    }
    // On a terminal one of the blanks is the column of the header line's intersections.
    let padding = if look == Look::Terminal { GAP - 1 } else { GAP };
    for column in table.column_iter_mut() {
        column.set_padding((0, padding));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if hidden > 0 {
        text.push_str(&format!("({hidden} more columns do not fit; choose fields, or use --format json)\n"));
    }
    text
}

/// Blanks between columns.
pub(super) const GAP: u16 = 2;

pub(super) fn natural_widths(columns: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let width = |text: &String| text.chars().count();
    let mut widths: Vec<usize> = columns.iter().map(width).collect();
    widths.resize(rows.first().map_or(widths.len(), Vec::len), 0);
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = (*widest).max(width(cell));
        }
    }
    widths
}

/// Widths that fit a terminal: long cells are shortened first, then the last columns left out.
pub(super) fn fit(natural: &[usize], terminal: usize) -> Vec<usize> {
    const SHORTEST_CUT: usize = 12;
    let total = |widths: &[usize]| widths.iter().map(|w| w + usize::from(GAP)).sum::<usize>();
    let mut widths = natural.to_vec();
    while total(&widths) > terminal {
        match widths.iter().enumerate().max_by_key(|(_, w)| **w) {
            Some((at, &widest)) if widest > SHORTEST_CUT => {
                let excess = total(&widths) - terminal;
                // Down to the next wide one at most, so that several share the loss.
                let next = widths.iter().filter(|w| **w < widest).max().copied().unwrap_or(0);
                widths[at] = widest.saturating_sub(excess).max(next).max(SHORTEST_CUT).min(widest - 1);
            }
            _ if widths.len() > 1 => {
                widths.pop();
            }
            _ => break,
        }
    }
    widths
}

pub(super) fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A value as text: strings without quotes, null as nothing, everything else as compact JSON.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

pub(super) fn plain_cell(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Value(value) => plain(value),
        Cell::Json(text) => text.unwrap_or_default().to_owned(),
    }
}

/// The text of an object; JSON text stays as it is.
pub(super) fn object_text<'a>(members: impl Iterator<Item = (&'a str, &'a Cell<'a>)>) -> String {
    let mut text = String::from("{");
    for (name, cell) in members {
        let value: Cow<'_, str> = match cell {
            Cell::Value(value) => Cow::Owned(value.to_string()),
            Cell::Json(Some(json)) => Cow::Borrowed(*json),
            Cell::Json(None) => continue,
        };
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&quote(name));
        text.push(':');
        text.push_str(&value);
    }
    text.push('}');
    text
}

/// As [`plain`], made harmless for a terminal: documents are external input and may hold escape sequences.
pub(super) fn cell(value: &Value) -> String {
    printable(&plain(value)).into_owned()
}

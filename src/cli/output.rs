//! Where data, progress and errors are printed: data on stdout, everything else on stderr. Nothing else prints.
//!
//! `--format` is a contract: `json` is one array (a command's summary: one object), `jsonl` one object a line, `csv`
//! has a header line, and `table` is for people: ruled on a terminal, plain aligned columns when piped.

use std::{
    borrow::Cow,
    collections::VecDeque,
    io::{self, BufWriter, IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::{ValueEnum, builder::styling::AnsiColor};
use comfy_table::{ContentArrangement, Table, TableComponent, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;
use serde_json::{Value, value::RawValue};

use super::{CliError, Exit};
pub use crate::figures::{count_of, number};
use crate::{
    change::{
        diff::Difference,
        edit::quote,
        raw::{RawDocument, unescape},
    },
    cosmos::Cosmos,
    surroundings,
};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One JSON array
    Json,
    /// One JSON object a line
    Jsonl,
    /// Comma-separated, with a header line
    Csv,
}

/// Prints an error and its hint on stderr.
pub fn error(error: &CliError) {
    // Empty when the reader of stdout has gone away, which is no error.
    if error.message.is_empty() {
        return;
    }
    note(&format!("error: {error}"));
    if let Some(text) = &error.hint {
        hint(text);
    }
}

/// Prints a line on stderr. A closed stderr is nobody's problem.
pub fn note(text: &str) {
    let _ = writeln!(surroundings::stderr(), "{text}");
}

/// Prints a suggestion on stderr.
pub fn hint(text: &str) {
    note(&format!("hint: {text}"));
}

/// Stdout for a command that writes lines as they come, from more than one task.
pub fn stream() -> Box<dyn Write + Send> {
    Box::new(BufWriter::new(surroundings::stdout()))
}

/// Whether stdout is a terminal that wants colours.
pub fn is_coloured() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// What a failed write to stdout means: nothing when the reader has gone (`| head`), else a failure.
pub fn stdout_failed(error: &io::Error) -> CliError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return CliError { message: String::new(), hint: None, exit: Exit::Done };
    }
    CliError::failed(format!("cannot write to standard output: {error}"))
}

/// Rows with named columns on stdout. Everything but a table is written as it comes.
pub struct Rows<W: Write = Box<dyn Write>> {
    format: Format,
    columns: Vec<String>,
    count: u64,
    table: Vec<Vec<String>>,
    /// How wide the columns of what was written of the table are; nothing was when there are none.
    written: Vec<usize>,
    look: Look,
    out: W,
}

/// So many rows of a table for a pipe are aligned together: what is listed may be as long as a container.
const ALIGNED: usize = 10_000;

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// A value of ours.
    Value(Value),
    /// JSON text of a document, printed as it is, strings with their quotes; `None` is a value that is not there:
    /// nothing in columns, no member in an object.
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

impl Rows {
    /// Rows for stdout.
    pub fn stdout(format: Format, columns: &[impl AsRef<str>]) -> Self {
        let look = if io::stdout().is_terminal() { Look::Terminal } else { Look::Plain };
        Self::new(Box::new(BufWriter::new(surroundings::stdout())), format, look, columns)
    }
}

impl<W: Write> Rows<W> {
    /// Rows for any writer.
    pub fn new(out: W, format: Format, look: Look, columns: &[impl AsRef<str>]) -> Self {
        let columns = columns.iter().map(|c| c.as_ref().to_owned()).collect();
        Self { format, columns, count: 0, table: Vec::new(), written: Vec::new(), look, out }
    }

    /// Adds a row: one value per column.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn push(&mut self, values: &[Value]) -> Result<(), CliError> {
        let cells: Vec<Cell<'_>> = values.iter().cloned().map(Cell::Value).collect();
        self.push_cells(&cells)
    }

    /// Adds a row of which some values are JSON text.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn push_cells(&mut self, cells: &[Cell<'_>]) -> Result<(), CliError> {
        self.count += 1;
        match self.format {
            Format::Table => {
                self.table.push(cells.iter().map(|c| printable(&plain_cell(c)).into_owned()).collect());
                if self.look == Look::Plain && self.table.len() == ALIGNED {
                    return self.write_table().map_err(|e| stdout_failed(&e));
                }
                Ok(())
            }
            Format::Json | Format::Jsonl => {
                let text = object_text(self.columns.iter().map(String::as_str).zip(cells));
                write_json(&mut self.out, self.format, self.count, &text).map_err(|e| stdout_failed(&e))
            }
            Format::Csv => self.csv_record(cells.iter().map(plain_cell).collect()),
        }
    }

    /// Writes what is buffered. Must be called last.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn finish(mut self) -> Result<(), CliError> {
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
        done.and_then(|()| self.out.flush()).map_err(|e| stdout_failed(&e))
    }

    /// Writes the rows that are held, under the header or, when that was written, as wide as what stands above them.
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

    fn csv_record(&mut self, cells: Vec<String>) -> Result<(), CliError> {
        if self.count == 1 {
            let header = self.columns.clone();
            csv_line(&mut self.out, &header).map_err(|e| stdout_failed(&e))?;
        }
        csv_line(&mut self.out, &cells).map_err(|e| stdout_failed(&e))
    }
}

fn csv_line(out: &mut impl Write, cells: &[String]) -> io::Result<()> {
    let mut line = csv::WriterBuilder::new().from_writer(Vec::new());
    line.write_record(cells).map_err(io::Error::other)?;
    out.write_all(&line.into_inner().map_err(|e| io::Error::other(e.to_string()))?)
}

fn write_json(out: &mut impl Write, format: Format, nth: u64, text: &str) -> io::Result<()> {
    match format {
        Format::Json if nth == 1 => write!(out, "[\n{text}"),
        Format::Json => write!(out, ",\n{text}"),
        // A line break is legal between tokens only, so a space keeps the meaning.
        _ if text.contains(['\n', '\r']) => writeln!(out, "{}", text.replace(['\n', '\r'], " ")),
        _ => writeln!(out, "{text}"),
    }
}

fn end_json(out: &mut impl Write, count: u64) -> io::Result<()> {
    out.write_all(if count == 0 { b"[]\n" } else { b"\n]\n" })
}

fn draw(look: Look, columns: &[String], rows: Vec<Vec<String>>) -> String {
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
const GAP: u16 = 2;

fn natural_widths(columns: &[String], rows: &[Vec<String>]) -> Vec<usize> {
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

/// Widths that fit a terminal: long cells are cut first, then the last columns left out.
fn fit(natural: &[usize], terminal: usize) -> Vec<usize> {
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

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A value as text: strings without quotes, nothing for null, everything else as compact JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

fn plain_cell(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Value(value) => plain(value),
        Cell::Json(text) => text.unwrap_or_default().to_owned(),
    }
}

/// The text of an object; JSON text stays as it is.
fn object_text<'a>(members: impl Iterator<Item = (&'a str, &'a Cell<'a>)>) -> String {
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

/// Prints one object with these members on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn object(members: &[(&str, Cell<'_>)]) -> Result<(), CliError> {
    lines(&object_text(members.iter().map(|(name, cell)| (*name, cell))))
}

/// Prints a document's text on stdout, exactly, or indented without touching its values.
///
/// # Errors
/// When stdout cannot be written.
pub fn document(text: &str, indented: bool) -> Result<(), CliError> {
    let text = if indented { Cow::Owned(pretty(text)) } else { Cow::Borrowed(text) };
    if !io::stdout().is_terminal() {
        return lines(&text);
    }
    // JSON allows a few control characters in strings that a terminal would obey; their escapes mean the same.
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    lines(&text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if harmful(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
        shown
    }))
}

/// Prints what the next lines are about, on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn heading(text: &str) -> Result<(), CliError> {
    lines(&printable(text))
}

/// Prints fields that differ on stdout, a line for each; coloured on a terminal, unless `NO_COLOR` is set.
///
/// # Errors
/// When stdout cannot be written.
pub fn differences(differences: &[Difference<'_>]) -> Result<(), CliError> {
    let terminal = io::stdout().is_terminal();
    let coloured = is_coloured();
    let limit = if terminal { Some(LONGEST_SHOWN) } else { None };
    if differences.is_empty() {
        return Ok(());
    }
    lines(difference_lines(differences, coloured, limit).trim_end())
}

/// How much of a long value a terminal gets.
const LONGEST_SHOWN: usize = 200;

/// The lines of [`differences`]: `~ /path  before -> after`, `+ /path  value`, `- /path  value`.
fn difference_lines(differences: &[Difference<'_>], coloured: bool, limit: Option<usize>) -> String {
    const WIDEST_PATH: usize = 40;
    let paths: Vec<String> = differences.iter().map(|d| printable(&d.path_text()).into_owned()).collect();
    let width = |path: &String| path.chars().count();
    let column = paths.iter().map(width).filter(|w| *w <= WIDEST_PATH).max().unwrap_or(0);
    let shown = |text: &str| {
        let text = printable(text).into_owned();
        limit.map_or(text.clone(), |limit| shorten(&text, limit))
    };
    let mut out = String::new();
    for (difference, path) in differences.iter().zip(&paths) {
        let (mark, colour, value) = match (difference.before, difference.after) {
            (None, after) => ('+', AnsiColor::Green, shown(after.unwrap_or_default())),
            (Some(before), None) => ('-', AnsiColor::Red, shown(before)),
            (Some(before), Some(after)) => ('~', AnsiColor::Yellow, format!("{} -> {}", shown(before), shown(after))),
        };
        let path = if path.is_empty() { "/" } else { path };
        let line = format!("{mark} {path:column$}  {value}");
        let style = colour.on_default();
        if coloured {
            out.push_str(&format!("{style}{line}{style:#}\n"));
        } else {
            out.push_str(&format!("{line}\n"));
        }
    }
    out
}

fn lines(text: &str) -> Result<(), CliError> {
    let mut out = BufWriter::new(surroundings::stdout());
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| stdout_failed(&e))
}

/// JSON text with line breaks and indents; strings and numbers stay the text they are.
fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut chars = text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' => {}
            other => out.push(other),
        }
    }
    out
}

/// Deeper levels are not indented further: text must not grow with the square of its depth.
const MAX_INDENT: usize = 64;

/// As [`plain`], made harmless for a terminal: documents are outside input and may hold escape sequences.
fn cell(value: &Value) -> String {
    printable(&plain(value)).into_owned()
}

/// Text without control characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default())
        } else {
            shown.push(c)
        }
        shown
    }))
}

/// Raw documents on stdout, exactly as stored in `json` and `jsonl`; columns are found in the first of them otherwise.
pub struct Documents<W: Write = Box<dyn Write>> {
    format: Format,
    count: u64,
    /// Documents held back until the columns are known.
    first: VecDeque<Box<RawValue>>,
    rows: Option<Rows<W>>,
    out: Option<W>,
    look: Look,
}

/// How many documents decide about the columns of a table.
const COLUMNS_FROM: usize = 100;

impl Documents {
    /// Documents for stdout.
    pub fn stdout(format: Format) -> Self {
        let look = if io::stdout().is_terminal() { Look::Terminal } else { Look::Plain };
        Self::new(Box::new(BufWriter::new(surroundings::stdout())), format, look)
    }
}

impl<W: Write> Documents<W> {
    /// Documents for any writer.
    pub fn new(out: W, format: Format, look: Look) -> Self {
        Self { format, count: 0, first: VecDeque::new(), rows: None, out: Some(out), look }
    }

    /// Prints a document.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn push(&mut self, document: Box<RawValue>) -> Result<(), CliError> {
        self.count += 1;
        match self.format {
            Format::Json | Format::Jsonl => match &mut self.out {
                Some(out) => write_json(out, self.format, self.count, document.get()).map_err(|e| stdout_failed(&e)),
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
    /// When stdout cannot be written.
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.out.as_mut().map_or(Ok(()), |out| out.flush().map_err(|e| stdout_failed(&e)))
    }

    /// Ends the output.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn finish(mut self) -> Result<(), CliError> {
        match self.format {
            Format::Json | Format::Jsonl => {
                let Some(mut out) = self.out else { return Ok(()) };
                let end = if self.format == Format::Json { end_json(&mut out, self.count) } else { Ok(()) };
                end.and_then(|()| out.flush()).map_err(|e| stdout_failed(&e))
            }
            Format::Table | Format::Csv => {
                if self.count > 0 {
                    self.drain()?;
                }
                self.rows.map_or(Ok(()), Rows::finish)
            }
        }
    }

    fn drain(&mut self) -> Result<(), CliError> {
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

/// The column that holds a result that is no object, as of `SELECT VALUE c.id`.
const VALUE_COLUMN: &str = "value";

/// The columns of documents: their fields in order of appearance, what the service adds last, `_ts` excepted left out.
fn columns_of<'a>(documents: impl Iterator<Item = &'a str>) -> Vec<String> {
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

fn columns_in(text: &str, columns: &[String]) -> Vec<Value> {
    match RawDocument::parse(text) {
        Ok(document) => columns.iter().map(|c| document.get(c).map_or(Value::Null, |v| shown(v.get()))).collect(),
        Err(_) => columns.iter().map(|c| if c == VALUE_COLUMN { shown(text) } else { Value::Null }).collect(),
    }
}

/// A raw value for a cell: a string's meaning, the text of everything else, so that numbers stay as they were written.
fn shown(text: &str) -> Value {
    match text.as_bytes().first() {
        Some(b'"') => Value::String(unescape(text).into_owned()),
        Some(b'n') => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

/// Prints what a command did, as named figures: lines for people, one object for programs.
///
/// # Errors
/// When stdout cannot be written.
pub fn summary(format: Format, figures: &[(&str, Value)]) -> Result<(), CliError> {
    let mut out = BufWriter::new(surroundings::stdout());
    write_summary(&mut out, format, figures).and_then(|()| out.flush()).map_err(|e| stdout_failed(&e))
}

fn write_summary(out: &mut impl Write, format: Format, figures: &[(&str, Value)]) -> io::Result<()> {
    match format {
        Format::Table => {
            let width = figures.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            figures.iter().try_for_each(|(name, value)| {
                let value = value.as_u64().map_or_else(|| cell(value), number);
                writeln!(out, "{name:width$}  {value}")
            })
        }
        Format::Json | Format::Jsonl => {
            let object: serde_json::Map<_, _> = figures.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
            writeln!(out, "{}", Value::Object(object))
        }
        Format::Csv => {
            csv_line(out, &figures.iter().map(|(k, _)| (*k).to_owned()).collect::<Vec<_>>())?;
            csv_line(out, &figures.iter().map(|(_, v)| plain(v)).collect::<Vec<_>>())
        }
    }
}

/// Prints text that was made elsewhere, as it is.
///
/// # Errors
/// When stdout cannot be written.
pub fn text(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = surroundings::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| stdout_failed(&e))
}

/// Prints one JSON value on a line, as it is serialized: nothing of it is held.
///
/// # Errors
/// When stdout cannot be written, or what is printed cannot be read.
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let mut out = BufWriter::new(surroundings::stdout());
    let written = serde_json::to_writer(&mut out, value).map_err(io::Error::from);
    written.and_then(|()| writeln!(out)).and_then(|()| out.flush()).map_err(|e| stdout_failed(&e))
}

/// The line that ends every command: what was done, the request units and the time it took.
pub fn spent(what: &str, cosmos: &Cosmos, started: Instant) {
    note(&format!("{what}, {:.1} RU, {:.1} s", cosmos.meter().total(), started.elapsed().as_secs_f64()));
}

/// A number rounded to a tenth, as summaries show RU and seconds.
pub fn tenths(number: f64) -> Value {
    Value::from((number * 10.0).round() / 10.0)
}

/// A progress bar on stderr; silent when stderr is no terminal.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar towards `total`, or a counter when the total is not known.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        let template = match total {
            Some(_) => "{prefix} {bar:30} {human_pos}/{human_len} {rate} {eta}",
            None => "{prefix} {spinner} {human_pos}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0}/s", state.per_sec());
            }));
        }
        bar.set_prefix(what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// Counts `n` more.
    pub fn inc(&self, n: u64) {
        self.0.inc(n);
    }

    /// Prints a line on stderr above the bar.
    pub fn note(&self, text: &str) {
        self.0.suspend(|| note(text));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Asks before something that cannot be taken back. `answer` is what must be typed; `yes` is the flag that answers.
///
/// # Errors
/// When there is no terminal to ask on, or the answer was another one.
pub fn confirm(question: &str, answer: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(CliError::usage(
            format!("{question} There is no terminal to ask on"),
            "pass --yes when you are sure",
        ));
    }
    let mut err = surroundings::stderr();
    let _ = write!(err, "{question} Type {answer} to go on: ");
    let _ = err.flush();
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|e| CliError::failed(format!("cannot read the answer: {e}")))?;
    if line.trim() == answer {
        return Ok(());
    }
    Err(CliError { message: "not confirmed; nothing was done".into(), hint: None, exit: Exit::Failed })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_long_table_is_written_in_parts_under_one_header_with_columns_that_stay_aligned() {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, Format::Table, Look::Plain, &["name", "n"]);
        rows.push(&[json!("the widest of all"), json!(0)]).unwrap();
        for n in 1..=2 * ALIGNED {
            rows.push(&[json!("é"), json!(n)]).unwrap();
            assert!(rows.table.len() < ALIGNED);
        }
        rows.finish().unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
        assert_eq!(lines.len(), 2 * ALIGNED + 2);
        assert!(lines.iter().all(|line| line[17..19] == [' ', ' '] && line[19] != ' '), "{text}");
        assert_eq!(text.matches("name").count(), 1);
    }

    fn rows(format: Format, look: Look, count: usize) -> String {
        let mut out = Vec::new();
        let mut rows = Rows::new(&mut out, format, look, &["id", "n", "note"]);
        let data =
            [vec![json!("a"), json!(1.5), json!(null)], vec![json!("b\u{1b}[2J"), json!({"x": 1}), json!("q\"x, y")]];
        for row in data.iter().take(count) {
            rows.push(row).unwrap();
        }
        rows.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_printed_in_every_format() {
        insta::assert_snapshot!(rows(Format::Table, Look::Plain, 2), @r#"
        id          n        note
        a           1.5
        b\u{1b}[2J  {"x":1}  q"x, y
        "#);
        insta::assert_snapshot!(rows(Format::Json, Look::Plain, 2), @r#"
        [
        {"id":"a","n":1.5,"note":null},
        {"id":"b\u001b[2J","n":{"x":1},"note":"q\"x, y"}
        ]
        "#);
        assert_eq!(rows(Format::Jsonl, Look::Plain, 1), "{\"id\":\"a\",\"n\":1.5,\"note\":null}\n");
        assert_eq!(
            rows(Format::Csv, Look::Plain, 2),
            "id,n,note\na,1.5,\nb\u{1b}[2J,\"{\"\"x\"\":1}\",\"q\"\"x, y\"\n"
        );
    }

    #[test]
    fn text_of_a_document_is_printed_as_it_is_and_what_is_not_there_left_out() {
        let text = |format| {
            let mut out = Vec::new();
            let mut rows = Rows::new(&mut out, format, Look::Plain, &["n", "before", "after"]);
            rows.push_cells(&[1.into(), Cell::Json(None), Cell::Json(Some("12345678901234567890.10"))]).unwrap();
            rows.push_cells(&[2.into(), Cell::Json(Some("null")), Cell::Json(Some("\"1\""))]).unwrap();
            rows.finish().unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(Format::Jsonl),
            "{\"n\":1,\"after\":12345678901234567890.10}\n{\"n\":2,\"before\":null,\"after\":\"1\"}\n"
        );
        assert_eq!(text(Format::Csv), "n,before,after\n1,,12345678901234567890.10\n2,null,\"\"\"1\"\"\"\n");
    }

    #[test]
    fn a_document_is_indented_without_touching_its_values() {
        let text = "{ \"id\" : \"a, {b}: \\\" \\\\\",\r\n\"n\":1.10,\"o\":{},\"l\":[ ],\"m\":[1,{\"x\":1e400}]}";
        insta::assert_snapshot!(pretty(text), @r#"
        {
          "id": "a, {b}: \" \\",
          "n": 1.10,
          "o": {},
          "l": [],
          "m": [
            1,
            {
              "x": 1e400
            }
          ]
        }
        "#);
    }

    #[test]
    fn fields_that_differ_are_a_line_each() {
        let before = r#"{"city":"Davidson","n":1.10,"gone":1,"o":{"deep":true}}"#;
        let after = "{\"city\":\"Ruined\u{7f}\",\"n\":1.1,\"o\":{\"deep\":false},\"new\":[1]}";
        let found = crate::change::diff::between(before, after);
        insta::assert_snapshot!(difference_lines(&found, false, None), @r#"
        ~ /city    "Davidson" -> "Ruined\u{7f}"
        - /gone    1
        ~ /o/deep  true -> false
        + /new     [1]
        "#);
        let coloured = difference_lines(&found[..1], true, Some(6));
        assert_eq!(coloured, "\u{1b}[33m~ /city  \"Davi… -> \"Ruin…\u{1b}[0m\n");
    }

    #[test]
    fn no_rows_are_still_valid_output() {
        assert_eq!(rows(Format::Table, Look::Terminal, 0), "");
        assert_eq!(rows(Format::Json, Look::Plain, 0), "[]\n");
        assert_eq!(rows(Format::Jsonl, Look::Plain, 0), "");
        assert_eq!(rows(Format::Csv, Look::Plain, 0), "id,n,note\n");
    }

    fn documents(format: Format, texts: &[&str]) -> String {
        let mut out = Vec::new();
        let mut documents = Documents::new(&mut out, format, Look::Plain);
        for text in texts {
            documents.push(RawValue::from_string((*text).into()).unwrap()).unwrap();
        }
        documents.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn documents_are_printed_as_stored() {
        let texts = [
            r#"{"n":1.10,"id":"a","_rid":"r","_ts":7}"#,
            "{\"id\":\"b\",\n\"big\":12345678901234567890.0,\"o\":{\"x\": [1]}}",
        ];
        assert_eq!(documents(Format::Json, &texts), format!("[\n{},\n{}\n]\n", texts[0], texts[1]));
        assert_eq!(documents(Format::Jsonl, &texts), format!("{}\n{}\n", texts[0], texts[1].replace('\n', " ")));
        insta::assert_snapshot!(documents(Format::Table, &texts), @r#"
        id  n     big                     o           _ts
        a   1.10                                      7
        b         12345678901234567890.0  {"x": [1]}
        "#);
        assert_eq!(documents(Format::Table, &["\"x\"", "3"]), "value\nx\n3\n");
        assert_eq!(documents(Format::Table, &[]), "");
        assert_eq!(documents(Format::Csv, &[r#"{"id":"a,b"}"#]), "id\n\"a,b\"\n");
    }

    #[test]
    fn a_summary_is_lines_for_people_and_one_object_for_programs() {
        let text = |format| {
            let mut out = Vec::new();
            write_summary(&mut out, format, &[("written", json!(5000)), ("ru", tenths(61.44))]).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(Format::Table), "written  5,000\nru       61.4\n");
        assert_eq!(text(Format::Json), "{\"written\":5000,\"ru\":61.4}\n");
        assert_eq!(text(Format::Csv), "written,ru\n5000,61.4\n");
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        assert_eq!(fit(&[5, 10], 80), [5, 10]);
        assert_eq!(fit(&[5, 90], 40), [5, 31]);
        assert_eq!(fit(&[30, 60], 60), [30, 26]);
        assert_eq!(fit(&[12; 10], 60), [12; 4]);
        assert_eq!(fit(&[500], 3), [12]);
        assert_eq!(shorten("abcdef", 4), "abc…");
        assert_eq!(shorten("abcd", 4), "abcd");
    }

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        let error = stdout_failed(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.message.as_str(), error.exit), ("", Exit::Done));
        assert_eq!(stdout_failed(&io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Failed);
    }
}

//! The versions of documents, or the changes of one field, as rows.

use super::versions::{change_columns, change_row, key_cell, remark, unknown_note, version_columns, version_row};
use crate::{
    causes::chain,
    console::{CliError, Exit, Ui},
    figures::count_of,
    format::{Cell, Format, Rows, printable},
    history::{
        histories::Item,
        past::{ListedVersion, Remark, is_first_unknown},
    },
};

/// Versions of documents, or the changes of one field, that are printed as they are read; in a list, each row names its
/// document.
pub(crate) struct VersionPrinter<'u> {
    ui: &'u Ui,
    field: Option<&'u [String]>,
    list: bool,
    format: Format,
    rows: Rows,
    count: u64,
    has_legacy: bool,
    /// Versions whose text cannot be read.
    unreadable: u64,
    /// For the current document: when the field first changed, and whether its value before that is unknown.
    first_change: Option<(i64, bool)>,
    notes: Vec<String>,
}

impl<'u> VersionPrinter<'u> {
    /// Begins the rows.
    pub(crate) fn new(ui: &'u Ui, field: Option<&'u [String]>, list: bool, format: Format) -> Self {
        let mut columns = if list { vec!["id", "pk"] } else { Vec::new() };
        columns.extend(match field {
            Some(_) => change_columns(format),
            None => version_columns(format),
        });
        let rows = ui.rows(format, &columns);
        let (count, has_legacy, unreadable, first_change, notes) = (0, false, 0, None, Vec::new());
        Self { ui, field, list, format, rows, count, has_legacy, unreadable, first_change, notes }
    }

    /// Prints a version, unless it concerns another field.
    pub(crate) fn push(&mut self, item: &Item, told: &ListedVersion<'_>) -> Result<(), CliError> {
        let version = told.version;
        self.has_legacy |= version.op.is_none();
        if let Some(problem) = &told.problem {
            self.unreadable += 1;
            let (id, key) = (&item.key.id, &item.key.partition_key);
            self.notes.push(format!("warning: record {} of {id:?} ({key}): {}", version.record_id, chain(problem)));
        }
        let row = match (self.field, &told.change) {
            (Some(_), None) => return Ok(()),
            (Some(_), Some(change)) => {
                self.first_change.get_or_insert_with(|| (version.ts, is_first_unknown(item, version)));
                change_row(version, change, self.format)
            }
            (None, _) => {
                let row = version_row(version, told.text.as_deref(), told.before.as_deref(), self.format);
                row.into_iter().map(Cell::Value).collect()
            }
        };
        self.count += 1;
        let about = if self.list {
            vec![item.key.id.as_str().into(), key_cell(&item.key.partition_key, self.format).into()]
        } else {
            Vec::new()
        };
        Ok(self.rows.push_cells(&[about, row].concat())?)
    }

    /// Ends a document, about which this is to be said.
    pub(crate) fn end(&mut self, item: &Item, remarks: &[Remark]) {
        let of = if self.list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
        let first_change = self.first_change.take();
        self.notes.extend(self.field.and_then(|field| unknown_note(first_change, field, &of)));
        self.notes.extend(remarks.iter().map(|one| remark(one, &of)));
    }

    /// The exit code for the versions so far.
    pub(crate) fn exit(&self) -> Exit {
        if self.unreadable > 0 { Exit::Incomplete } else { Exit::Done }
    }

    /// Prints the remarks; returns the summary.
    pub(crate) fn finish(self, asked: u64) -> Result<String, CliError> {
        self.rows.finish()?;
        if self.has_legacy {
            self.ui.note("note: legacy versions have the time of the copy, which is later than the change itself");
        }
        for text in self.notes {
            self.ui.note(&printable(&text));
        }
        let what = count_of(self.count, if self.field.is_some() { "change" } else { "version" });
        Ok(if self.list { format!("{what} of {}", count_of(asked, "document")) } else { what })
    }
}

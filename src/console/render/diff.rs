//! Differences between documents, and remarks about the two sides.

use super::versions::key_cell;
use crate::{
    change::diff::{self, Difference},
    console::{
        CliError, Ui,
        in_force::{self, describe},
        words::{self, time},
    },
    format::{Cell, Format, Rows, printable},
    history::{
        as_of::State,
        histories::Item,
        past::{LiveSide, Seen},
    },
};

/// Prints on standard error which state is shown, and the doubts about it.
///
/// # Errors
/// When nothing is known about the moment, or the history has nothing of the document.
pub(crate) fn describe_side(ui: &Ui, name: &str, item: &Item, seen: &Seen) -> Result<(), CliError> {
    if let Some(version) = seen.absent() {
        let about = format!("{name}: document {:?} ({})", item.key.id, item.key.partition_key);
        return Err(in_force::absent(&printable(&about), version));
    }
    match seen {
        Seen::Live(LiveSide { text: None, is_uncaptured, .. }) => {
            ui.note(&format!("{name}: no live document"));
            if *is_uncaptured {
                ui.note("note: its delete is not in the history (yet)");
            }
        }
        Seen::Live(LiveSide { ts, is_uncaptured, .. }) => {
            let written = ts.map(|ts| format!(", written at {}", time(ts))).unwrap_or_default();
            ui.note(&printable(&format!("{name}: the live document{written}")));
            if *is_uncaptured {
                ui.note("note: the live version is not in the history (yet)");
            }
        }
        Seen::Version(version, _) => {
            ui.note(&format!("{name}: version of {} ({})", time(version.ts), words::op(version)));
        }
        Seen::At { known, .. } => {
            if let Some(doubt) = &known.doubt {
                ui.note(&printable(&format!("warning: {name}: {doubt}")));
            }
            let Some(answer) = seen.answer() else { return Ok(()) };
            match answer.state {
                _ if !seen.is_known() => {
                    return Err(in_force::not_there(&item.key.id, &answer, &known.versions, &format!("--{name}")));
                }
                State::NotYet { earliest } => {
                    ui.note(&format!("{name}: no document: it was created at {}", time(earliest.ts)));
                }
                _ => {
                    ui.note(&format!("{name}: {}", describe(&answer).unwrap_or_default()));
                    in_force::note_caveats(ui, &answer.caveats);
                }
            }
        }
    }
    Ok(())
}

/// How differences are printed: for one document alone, or for each of a list.
pub(crate) enum DiffPrinter {
    /// Lines for people.
    Lines { list: bool },
    /// The fields as rows, or the operations of a patch.
    Rows { rows: Rows, patch: bool, list: Option<Format> },
    /// A patch for each document.
    Patches(Rows),
}

impl DiffPrinter {
    pub(crate) fn new(ui: &Ui, format: Format, list: bool) -> Self {
        match (format, list) {
            (Format::Table, _) => Self::Lines { list },
            (Format::Json, true) => Self::Patches(ui.rows(format, &["id", "pk", "patch"])),
            (Format::Json, false) => {
                Self::Rows { rows: ui.rows(format, &["op", "path", "value"]), patch: true, list: None }
            }
            (_, true) => {
                let rows = ui.rows(format, &["id", "pk", "path", "op", "before", "after"]);
                Self::Rows { rows, patch: false, list: Some(format) }
            }
            (_, false) => {
                Self::Rows { rows: ui.rows(format, &["path", "op", "before", "after"]), patch: false, list: None }
            }
        }
    }

    /// Prints the differences of a document, and returns how many fields differ.
    pub(crate) fn push(
        &mut self,
        ui: &Ui,
        item: &Item,
        before: Option<&str>,
        after: Option<&str>,
    ) -> Result<usize, CliError> {
        let is_patch = matches!(self, Self::Patches(_) | Self::Rows { patch: true, .. });
        let found = match (before, after) {
            (Some(before), Some(after)) => diff::between(before, after),
            (None, None) => Vec::new(),
            (before, after) if is_patch => vec![Difference { path: Vec::new(), before, after }],
            // For people, a document that did not exist counts as one without fields.
            (before, after) => diff::between(before.unwrap_or("{}"), after.unwrap_or("{}")),
        };
        let (id, key) = (item.key.id.as_str(), &item.key.partition_key);
        match self {
            Self::Lines { list } => {
                if *list && !found.is_empty() {
                    ui.heading(&format!("{id:?} ({})", item.key.partition_key))?;
                }
                ui.differences(&found)?;
            }
            Self::Patches(_) if found.is_empty() => {}
            Self::Patches(rows) => {
                let patch: Vec<String> = found.iter().map(Difference::to_patch).collect();
                let patch = format!("[{}]", patch.join(","));
                rows.push_cells(&[id.into(), words::pk_json(key).into(), Cell::Json(Some(&patch))])?;
            }
            Self::Rows { rows, patch, list } => {
                for one in &found {
                    let mut cells: Vec<Cell<'_>> = Vec::new();
                    if *patch {
                        cells.extend([one.operation().into(), one.pointer().into(), Cell::Json(one.after)]);
                    } else {
                        if let Some(format) = list {
                            cells.extend([id.into(), key_cell(key, *format).into()]);
                        }
                        let (before, after) = (Cell::Json(one.before), Cell::Json(one.after));
                        cells.extend([one.path_text().into(), one.operation().into(), before, after]);
                    }
                    rows.push_cells(&cells)?;
                }
            }
        }
        Ok(found.len())
    }

    pub(crate) fn finish(self) -> Result<(), CliError> {
        match self {
            Self::Lines { .. } => Ok(()),
            Self::Rows { rows, .. } | Self::Patches(rows) => Ok(rows.finish()?),
        }
    }
}

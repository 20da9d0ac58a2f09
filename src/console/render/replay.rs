//! Dead letters, and what became of them.

use serde_json::json;

use crate::{
    capture::replay::{Replayed, Report},
    console::{CliError, Exit, Ui},
    figures::count_of,
    format::{Format, Rows},
};

/// Letters that are printed as they come.
pub(crate) struct Letters<'u> {
    ui: &'u Ui,
    rows: Rows,
}

impl<'u> Letters<'u> {
    /// Begins the rows.
    pub(crate) fn new(ui: &'u Ui, format: Format) -> Self {
        Self { ui, rows: ui.rows(format, &["letter", "at", "function", "id", "status", "outcome", "reason"]) }
    }

    /// Prints a letter.
    pub(crate) fn push(&mut self, one: Replayed) -> Result<(), CliError> {
        let cells = [
            one.letter.into(),
            json!(one.at),
            json!(one.function),
            json!(one.id),
            json!(one.status),
            one.outcome.as_str().into(),
            one.reason.into(),
        ];
        Ok(self.rows.push(&cells)?)
    }

    /// Prints how many there are, and where; and how many were not looked at.
    pub(crate) fn finish(self, report: &Report, list_only: bool) -> Result<Exit, CliError> {
        self.rows.finish()?;
        let store = &report.store;
        self.ui.note(&match list_only {
            true => format!("{} dead letters in {store}", report.letters),
            false => format!("{} replayed, {} kept, {:.1} RU, store {store}", report.stored, report.kept, report.ru),
        });
        if report.left > 0 {
            let letters = count_of(report.left, "letter");
            self.ui.hint(&format!("stopped before {letters} were looked at: run the command again"));
            return Ok(Exit::Incomplete);
        }
        Ok(if list_only || report.kept == 0 { Exit::Done } else { Exit::Incomplete })
    }
}

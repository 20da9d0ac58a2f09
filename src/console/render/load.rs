//! The output of `load`: the summary, and why not everything was loaded.

use serde_json::json;

use crate::{
    backup::load::{BrokenOff, Existing, Report},
    causes::chain,
    console::{CliError, Exit, Ui},
    format::{Format, tenths},
};

/// Prints the summary, then fails when the input ended too early or the service refused.
pub(crate) fn show(ui: &Ui, report: Report, existing: Existing, format: Format) -> Result<Exit, CliError> {
    ui.summary(
        format,
        &[
            ("container", json!(report.container)),
            ("written", json!(report.written)),
            ("created", json!(report.created)),
            ("updated", json!(report.updated)),
            ("skipped", json!(report.skipped)),
            ("failed", json!(report.failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )?;
    let again = match existing {
        Existing::Leave => "run the command again when that is fixed: documents that exist are left alone",
        Existing::ReplaceOlder => "run the command again when that is fixed: what is newer than the file is left alone",
        Existing::Replace if report.written == 0 => "nothing was written; run the command again when that is fixed",
        Existing::Replace => {
            "documents were replaced; run the command again when that is fixed, which replaces what was changed since as well"
        }
    };
    if let Some(failure) = report.refused {
        let error = CliError::from(failure);
        return Err(if error.hints.is_empty() { error.hint(again) } else { error });
    }
    if let Some(broken_off) = report.broken_off {
        let problem = match broken_off {
            BrokenOff::File { name, problem } => format!("{} {}", name.display(), chain(&problem)),
            BrokenOff::Archive(damage) => format!("--archive: {}", chain(&damage)),
            BrokenOff::Reader(e) => format!("--archive: {e}"),
        };
        return Err(CliError::incomplete(problem, again).leaving("what came before that was written"));
    }
    if report.stopped {
        ui.note("stopped before everything was loaded");
    }
    if report.failed > 0 {
        ui.hint(again);
    }
    if report.stopped || report.failed > 0 {
        return Ok(Exit::Incomplete);
    }
    Ok(Exit::Done)
}

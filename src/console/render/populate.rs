//! The summary of `populate`.

use crate::{
    console::{CliError, Exit, Ui},
    figures::number,
    format::{Format, tenths},
    populate::Report,
};
use serde_json::json;

/// Prints the summary, then fails when the input ended too early or the service refused.
///
/// # Errors
/// Also when stdout cannot be written.
pub(crate) fn show(ui: &Ui, report: Report, format: Format) -> Result<Exit, CliError> {
    let (rejected, failed, stopped) = (report.rejected, report.failed, report.stopped);
    ui.summary(
        format,
        &[
            ("container", json!(report.container)),
            ("written", json!(report.written)),
            ("created", json!(report.created)),
            ("updated", json!(report.updated)),
            ("rejected", json!(rejected)),
            ("failed", json!(failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
            ("per_second", tenths(report.per_second)),
        ],
    )?;
    if let Some(failure) = report.refused {
        return Err(failure.into());
    }
    if let Some(e) = report.broken_off {
        return Err(CliError::failed("cannot read the input to its end").because(e));
    }
    if stopped {
        ui.note("stopped before everything was written");
    }
    if rejected + failed == 0 {
        return Ok(if stopped { Exit::Incomplete } else { Exit::Done });
    }
    ui.note(&format!("warning: {} rejected, {} failed", number(rejected), number(failed)));
    Ok(Exit::Incomplete)
}

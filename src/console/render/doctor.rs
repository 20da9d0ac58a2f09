//! The findings of `doctor`.

use crate::{
    console::{CliError, Ui},
    doctor::{Report, Verdict},
    figures::count_of,
    format::Format,
};
use serde_json::json;

/// Prints the findings, and how many there are of which kind.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    let mut rows = ui.rows(format, &["check", "result", "found", "do"]);
    for finding in &report.findings {
        rows.push(&[
            json!(finding.check),
            json!(finding.verdict.as_str()),
            json!(finding.found),
            json!(finding.advice),
        ])?;
    }
    rows.finish()?;
    ui.note(&format!(
        "{}, {}, {}",
        count_of(report.findings.len() as u64, "check"),
        count_of(report.count(Verdict::Warning), "warning"),
        count_of(report.count(Verdict::Failure), "failure"),
    ));
    Ok(())
}

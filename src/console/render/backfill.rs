//! The summary of `backfill`.

use crate::{
    backfill::Report,
    console::{CliError, Ui},
    format::{Format, tenths},
};
use serde_json::json;

/// Prints the summary.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, report: &Report, container: &str, format: Format) -> Result<(), CliError> {
    ui.summary(
        format,
        &[
            ("container", json!(container)),
            ("documents", json!(report.documents)),
            ("written", json!(report.written)),
            ("existed", json!(report.existed)),
            ("failed", json!(report.failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )
}

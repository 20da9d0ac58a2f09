//! The summary of `backup`, and its doubts.

use crate::{
    backup::Report,
    console::{CliError, Ui, in_force},
    figures::count_of,
    format::{Format, tenths},
};
use serde_json::json;

/// Prints the summary, after what cannot be known about some documents.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    in_force::count_caveats(ui, report.caveats.iter().map(|(name, count)| (name.as_str(), *count)));
    if report.unnamed > 0 {
        ui.note(&format!("... and {} more", count_of(report.unnamed, "document")));
    }
    ui.summary(
        format,
        &[
            ("container", json!(report.container)),
            ("file", json!(report.file.display().to_string())),
            ("documents", json!(report.documents)),
            ("unknown", json!(report.unknown)),
            ("at", json!(report.at)),
            ("sha256", json!(report.sha256)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )
}

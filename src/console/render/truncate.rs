//! The question that `truncate` asks, and its summary.

use crate::{
    config::Names,
    console::{CliError, Ui},
    figures::count_of,
    format::{Format, tenths},
    truncate::{Report, TruncatePlan},
};
use serde_json::json;

/// The question that stands between the plan and the deletes.
pub(crate) fn question(plan: &TruncatePlan, name: &str, names: &Names) -> String {
    let which = if plan.more { "the first " } else { "" };
    let warning = if name == names.changes {
        " They are the history: nothing can be restored from them afterwards."
    } else if name == names.leases {
        " The trigger starts over without them."
    } else {
        ""
    };
    format!("Delete {which}{} of {}?{warning}", count_of(plan.documents(), "document"), plan.shown)
}

/// Prints the summary.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    if report.unnamed > 0 {
        ui.note(&format!("... and {} more", count_of(report.unnamed, "failure")));
    }
    ui.summary(
        format,
        &[
            ("container", json!(report.container)),
            ("deleted", json!(report.deleted)),
            ("failed", json!(report.failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )
}

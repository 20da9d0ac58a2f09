//! The question that `prune` asks, and its summary.

use crate::{
    change::time::PointInTime,
    console::{CliError, Ui},
    figures::count_of,
    format::{Format, tenths},
    retention::{KeepReason, Report, RetentionPlan, Sums},
};
use serde_json::json;

/// Reports the rules of what is kept.
pub(crate) fn note_kept(ui: &Ui, kept: &RetentionPlan) {
    ui.note(&format!(
        "keeping    every second from {}, and {} before it (ends of days and months)",
        PointInTime::from_epoch(kept.window),
        count_of(kept.points().count() as u64, "moment")
    ));
}

/// The question that stands between the plan and the deletes.
pub(crate) fn question(counted: &Sums, container: &str) -> String {
    format!(
        "{} of {} and {} will be deleted from {container}, for about {:.0} RU. They cannot be had back.",
        count_of(counted.removed, "version"),
        counted.versions,
        count_of(counted.journals, "journal"),
        counted.forecast()
    )
}

/// Prints the summary.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, report: &Report, container: &str, format: Format) -> Result<(), CliError> {
    let sums = &report.sums;
    let of_reason = |reason: KeepReason| sums.reasons.get(&reason).copied().unwrap_or_default();
    let reasons: serde_json::Map<_, _> =
        KeepReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), json!(of_reason(reason)))).collect();
    ui.summary(
        format,
        &[
            ("container", json!(container)),
            ("dry_run", json!(report.dry_run)),
            ("documents", json!(sums.items)),
            ("versions", json!(sums.versions)),
            ("kept", json!(sums.reasons.values().sum::<u64>())),
            ("reasons", reasons.into()),
            ("removed", json!(sums.removed)),
            ("forgotten", json!(sums.forgotten)),
            ("journals", json!(sums.journals)),
            ("failed", json!(sums.failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )
}

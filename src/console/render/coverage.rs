//! The report of `coverage`: a row for each day, then its periods and outages.

use crate::{
    change::time::PointInTime,
    console::{CliError, Ui},
    coverage::{KnownDay, Report},
    figures::count_of,
    format::Format,
};
use serde_json::json;

/// Prints the report.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    let columns = [
        "day",
        "mode",
        "versions",
        "all_versions",
        "latest",
        "filtered",
        "baseline",
        "legacy",
        "normalized",
        "late",
        "gaps",
    ];
    let mut rows = ui.rows(format, &columns);
    for KnownDay { day, mode, known } in &report.days {
        rows.push(&[
            day.to_string().into(),
            mode.name().into(),
            json!(known.versions),
            json!(known.all_versions),
            json!(known.latest),
            json!(known.filtered),
            json!(known.baseline),
            json!(known.legacy),
            json!(known.normalized),
            json!(known.late),
            json!(known.gaps),
        ])?;
    }
    rows.finish()?;
    for period in &report.periods {
        let gaps = if period.gaps == 0 { String::new() } else { format!(", {}", count_of(period.gaps, "gap")) };
        ui.note(&format!("{} to {}  {}{gaps}", period.from, period.to, period.mode.name()));
    }
    for outage in &report.outages {
        ui.note(&format!(
            "{} to {}  capture was down or behind: {} waited",
            PointInTime::from_epoch(outage.from),
            PointInTime::from_epoch(outage.to),
            count_of(outage.versions, "version")
        ));
    }
    Ok(())
}

//! The report of `status`: figures, and a row for each lease.

use serde_json::{Value, json};

use crate::{
    change::time::span_text,
    console::{CliError, Ui},
    figures::number,
    format::Format,
    status::{MissedPeriod, Report},
};

/// Prints the report.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        return ui.json(report);
    }
    let (source, history) = (&report.source, &report.history);
    let text = |value: &Option<String>| json!(value);
    let size = |items: Option<u64>, bytes: Option<u64>| {
        json!(items.zip(bytes).map(|(items, bytes)| format!("{}, about {} bytes", number(items), number(bytes))))
    };
    let figures = [
        ("source", json!(source.container)),
        ("newest document", text(&source.newest)),
        ("documents", size(source.documents, source.bytes)),
        ("history", json!(history.container)),
        ("oldest version", text(&history.oldest)),
        ("restorable from", text(&history.restorable_from)),
        ("complete until", text(&history.complete_until)),
        ("newest version", text(&history.newest)),
        ("may lack changes", json!(holes(&history.holes))),
        ("records", size(history.records, history.bytes)),
        ("behind", json!(report.behind.map(span_text))),
        ("dead letters", json!(report.dead_letters)),
        ("leases", json!(report.workers.as_ref().map(Vec::len))),
    ];
    let shown: Vec<(&str, Value)> = figures.into_iter().filter(|(_, value)| !value.is_null()).collect();
    ui.summary(format, &shown)?;
    if format == Format::Csv {
        return Ok(());
    }
    let mut rows = ui.rows(format, &["lease", "range", "owner", "checkpoint", "age", "items", "lag"]);
    for worker in report.workers.iter().flatten() {
        let items = worker.items.map(|n| format!("{}{}", number(n), if worker.more { "+" } else { "" }));
        rows.push(&[
            json!(worker.token),
            json!(worker.range),
            json!(worker.owner),
            json!(worker.checkpoint),
            json!(worker.age.map(span_text)),
            json!(items),
            json!(worker.lag.map(span_text)),
        ])?;
    }
    Ok(rows.finish()?)
}

/// The times in which changes may be missing; `None` when there are none.
fn holes(all: &[MissedPeriod]) -> Option<String> {
    let shown = all.iter().map(|hole| match &hole.after {
        Some(after) => format!("{after} to {}", hole.before),
        None => format!("before {}", hole.before),
    });
    (!all.is_empty()).then(|| shown.collect::<Vec<_>>().join(", "))
}

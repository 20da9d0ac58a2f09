//! The report of `verify`: a row for each check, the documents that are named, and the figures.

use serde_json::json;

use crate::{
    change::time::PointInTime,
    console::{CliError, Ui},
    figures::count_of,
    format::{Format, printable, tenths},
    verify::{CheckReport, Report},
};

/// Prints the report.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    if matches!(format, Format::Json | Format::Jsonl) {
        return print_json(ui, report);
    }
    let mut rows = ui.rows(format, &["check", "result", "count", "from", "to", "meaning"]);
    for (check, found) in &report.checks {
        let (verdict, [from, to]) = (report.verdict(*check).as_str(), ends(found));
        let meaning = check.meaning().into();
        rows.push(&[check.name().into(), verdict.into(), json!(found.count), json!(from), json!(to), meaning])?;
    }
    rows.finish()?;
    for (check, CheckReport { count, named, .. }) in &report.checks {
        for one in named {
            let text = format!("{:8}  document {:?} ({}): {}", check.name(), one.id, one.pk, one.detail);
            ui.note(&printable(&text));
        }
        if let Some(more) = count.checked_sub(named.len() as u64).filter(|n| *n > 0 && !named.is_empty()) {
            ui.note(&format!("{:8}  ... and {more} more", check.name()));
        }
    }
    ui.note(&format!(
        "{}: {}, {}, {} of them normalized, {} pending, {} rebuilt, {} repaired",
        report.result().as_str(),
        count_of(report.documents, "document"),
        count_of(report.versions, "version"),
        report.normalized,
        report.pending,
        report.sampled,
        report.repaired
    ));
    if report.interrupted {
        ui.note("stopped before everything was verified");
    }
    Ok(())
}

fn print_json(ui: &Ui, report: &Report) -> Result<(), CliError> {
    let checks = report.checks.iter().map(|(check, found)| {
        let [from, to] = ends(found);
        json!({"check": check.name(), "result": report.verdict(*check).as_str(), "count": found.count,
            "from": from, "to": to, "meaning": check.meaning(), "documents": found.named})
    });
    let checks: Vec<_> = checks.collect();
    ui.json(&json!({
        "result": report.result().as_str(),
        "documents": report.documents,
        "versions": report.versions,
        "normalized": report.normalized,
        "pending": report.pending,
        "sampled": report.sampled,
        "repaired": report.repaired,
        "stopped": report.interrupted,
        "checks": checks,
        "ru": tenths(report.ru),
        "seconds": tenths(report.seconds),
    }))
}

/// Both ends of the period that findings concern, as they are shown.
fn ends(found: &CheckReport) -> [Option<String>; 2] {
    let shown = |ts| PointInTime::from_epoch(ts).to_string();
    [found.span.map(|(from, _)| shown(from)), found.span.map(|(_, to)| shown(to))]
}

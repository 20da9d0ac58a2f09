//! The output of `demo`: the timeline of a document, and the figures.

use std::time::Instant;

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::{
    change::version::Version,
    console::{CliError, Exit, Ui},
    format::{Format, tenths},
    local::demo::{Incident, Report},
};

/// Columns of the timeline.
const COLUMNS: [&str; 8] = ["version", "time", "op", "lsn", "prev_lsn", "seq", "bytes", "fidelity"];

/// Names and values of the summary.
pub(crate) type Figures = Vec<(&'static str, Value)>;

/// Prints the results of capture for people. For programs they are part of one document with the incident: returns
/// them.
pub(crate) fn print(ui: &Ui, report: &Report, format: Format, start: Instant) -> Result<Figures, CliError> {
    let mut figures = figures(report, start);
    if let Some((zip, _)) = &report.timeline {
        ui.note(&format!("timeline   of {} ({})", zip.zip, zip.city));
    }
    let versions = report.timeline.iter().flat_map(|(_, versions)| versions);
    let rows: Vec<Vec<Value>> = versions.enumerate().map(|(i, version)| row(i, version)).collect();
    match format {
        Format::Table => {
            let mut table = ui.rows(format, &COLUMNS);
            rows.iter().try_for_each(|row| table.push(row))?;
            table.finish()?;
            ui.summary(format, &figures)?;
        }
        Format::Csv => ui.summary(format, &figures)?,
        Format::Json | Format::Jsonl => {
            let named = rows.into_iter().map(|row| Value::from_iter(COLUMNS.iter().map(|c| (*c).to_owned()).zip(row)));
            figures.push(("timeline", named.collect()));
        }
    }
    if let (0, Ok(what)) = (report.letters, &report.proof) {
        ui.note(&format!("proved     {what}"));
    }
    Ok(figures)
}

/// The incident, for programs.
pub(crate) fn summed_up(incident: Option<&Incident>) -> Value {
    incident.map_or(Value::Null, |incident| {
        json!({
            "damaged": incident.damaged, "honest_writes": incident.honest, "found": incident.found,
            "planned": incident.planned, "reverted": incident.reverted, "undone": incident.undone,
            "proved": incident.problems.is_empty(), "problems": incident.problems,
        })
    })
}

fn figures(report: &Report, start: Instant) -> Figures {
    vec![
        ("documents", json!(report.documents)),
        ("versions_written", json!(report.written)),
        ("versions_captured", json!(report.captured)),
        ("documents_per_second", json!((report.written as f64 / report.took.as_secs_f64()).round() as u64)),
        ("invocations", json!(report.invocations)),
        ("lag_ms_p50", json!(report.lag(50))),
        ("lag_ms_p99", json!(report.lag(99))),
        ("ru_of_capture", tenths(report.charged)),
        ("ru_per_version", tenths(report.charged / report.captured.max(1) as f64)),
        ("seconds", tenths(start.elapsed().as_secs_f64())),
    ]
}

fn row(place: usize, version: &Version) -> Vec<Value> {
    let text = version.document.as_deref().unwrap_or_default();
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let time = DateTime::from_timestamp(version.ts, 0).map(|t| t.to_rfc3339_opts(SecondsFormat::Secs, true));
    vec![
        json!(place + 1),
        json!(time),
        json!(version.op),
        json!(version.lsn),
        json!(version.prev_lsn),
        document.get("seq").cloned().unwrap_or_default(),
        json!(text.len()),
        json!(version.fidelity),
    ]
}

/// How `demo` ends: it fails when anything is not as it must be.
///
/// # Errors
/// With the problem, and its place.
pub(crate) fn judge(report: &Report, incident: Option<&Incident>) -> Result<Exit, CliError> {
    if report.letters > 0 {
        return Err(CliError::failed(format!("{} changes went to the dead-letter store", report.letters)));
    }
    let failed = |problems: &[String], place: &str| {
        let shown = problems.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
        Err(CliError::failed(format!("{} problems {place}:\n  {shown}", problems.len())))
    };
    if let Err(problems) = &report.proof {
        return failed(problems, "in the history");
    }
    match incident {
        Some(incident) if incident.problems.is_empty() => Ok(Exit::Done),
        Some(incident) => failed(&incident.problems, "in the incident"),
        None => Err(CliError::failed("the incident was not played")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report() -> Report {
        Report {
            documents: 1,
            written: 1,
            captured: 1,
            took: Duration::from_secs(1),
            invocations: 1,
            lags: Vec::new(),
            charged: 0.0,
            letters: 0,
            timeline: None,
            proof: Ok("all".into()),
        }
    }

    #[test]
    fn whatever_is_not_proved_fails_and_is_named() {
        let played = Incident { damaged: 2, found: 2, planned: 2, reverted: 2, undone: 2, ..Incident::default() };
        assert!(judge(&report(), Some(&played)).is_ok());
        assert_eq!(summed_up(Some(&played))["proved"], true);

        let failed = |report: &Report, incident: Option<&Incident>| judge(report, incident).unwrap_err().to_string();
        let lost = Incident { problems: vec!["27007: not what the honest writes made of it".into()], ..played.clone() };
        let said = failed(&report(), Some(&lost));
        assert!(said.contains("1 problems in the incident") && said.contains("27007: not what"), "{said}");
        assert_eq!(summed_up(Some(&lost))["proved"], false);
        assert_eq!(summed_up(Some(&lost))["problems"][0], lost.problems[0]);

        assert!(failed(&report(), None).contains("not played"));
        assert!(summed_up(None).is_null());
        let missing = Report { proof: Err(vec!["27007: missing".into()]), ..report() };
        assert!(failed(&missing, None).contains("27007: missing") && !missing.is_proved());
        let letters = Report { letters: 3, ..report() };
        assert!(failed(&letters, Some(&played)).contains("3 changes") && !letters.is_proved());
    }
}

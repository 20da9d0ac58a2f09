//! The report of `provision`.

use crate::{
    console::{CliError, Ui},
    format::Format,
    provision::{Provisioned, Report, Severity},
};
use serde_json::{Value, json};

/// Prints a row for each container, and how it differs from one that would have been created.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn show(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    let all = &report.all;
    let mut rows = ui.rows(format, &["role", "name", "state", "partition_key", "differs"]);
    for one in all {
        rows.push(&row(one, format))?;
    }
    rows.finish()?;
    for (one, difference) in all.iter().flat_map(|one| one.differs.iter().map(move |d| (one, d))) {
        let level = if difference.severity == Severity::Note { "note" } else { "warning" };
        ui.note(&format!("{level}: {} {}: {} (left as it is)", one.role.as_str(), one.name, difference.what));
    }
    let created = report.created();
    let (found, ru, seconds) = (all.len() - created, report.ru, report.seconds);
    ui.note(&format!("{created} created, {found} found, {ru:.1} RU, {seconds:.1} s"));
    Ok(())
}

fn row(one: &Provisioned, format: Format) -> [Value; 5] {
    let state = match (one.created, one.differs.is_empty()) {
        (true, _) => "created",
        (false, true) => "exists",
        (false, false) => "exists, differs",
    };
    let differs: Vec<&str> = one.differs.iter().map(|d| d.what.as_str()).collect();
    [
        json!(one.role.as_str()),
        json!(one.name),
        json!(state),
        json!(one.key.join(", ")),
        match format {
            // People read the details below the table.
            Format::Table if differs.is_empty() => Value::Null,
            Format::Table => json!("see below"),
            Format::Csv => json!(differs.join("; ")),
            Format::Json | Format::Jsonl => json!(differs),
        },
    ]
}

//! The output of `new-function`: the files, the function's settings, and the next steps.

use serde_json::{Value, json};

use crate::{
    console::{CliError, Ui},
    format::{Format, shell_word},
    host::app::{BUNDLE, BUNDLE_VERSIONS, NewFunction},
    new_function::{FUNCTION_FILE, FileOutcome, LocalSettings, Report, Request},
};

/// Prints the report, and advice on standard error.
pub(crate) fn show(ui: &Ui, request: &Request, report: &Report, format: Format) -> Result<(), CliError> {
    print(ui, request, report, format)?;
    advise(ui, &request.function, report);
    Ok(())
}

fn print(ui: &Ui, request: &Request, report: &Report, format: Format) -> Result<(), CliError> {
    let function = &request.function;
    let state = match report.state {
        FileOutcome::Exists => "exists",
        FileOutcome::Planned => "planned",
        FileOutcome::Created => "created",
    };
    let local = match report.local_settings {
        LocalSettings::Missing => "no local.settings.json",
        LocalSettings::UpToDate => "has them",
        LocalSettings::WouldBeUpdated => "would get them",
        LocalSettings::Updated => "updated",
    };
    let az = azure_command(&report.settings);
    let file = format!("{}/{FUNCTION_FILE}", function.name);
    if matches!(format, Format::Json | Format::Jsonl) {
        let settings: serde_json::Map<String, Value> =
            report.settings.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        return ui.json(&json!({
            "function": function.name, "state": state, "file": file,
            "content": report.content, "settings": settings, "local_settings": local, "azure": az,
        }));
    }
    ui.summary(
        format,
        &[
            ("function", json!(function.name)),
            ("state", json!(state)),
            ("file", json!(file)),
            ("local_settings", json!(local)),
            ("azure", json!(az)),
        ],
    )?;
    if request.dry_run && format == Format::Table {
        return ui.document(&report.content.to_string(), true);
    }
    Ok(())
}

/// The command that sets the function's settings on Azure; none of them is secret.
fn azure_command(settings: &[(String, String)]) -> String {
    let pairs: Vec<String> = settings.iter().map(|(name, value)| shell_word(&format!("{name}={value}"))).collect();
    format!("az functionapp config appsettings set -n <app> -g <resource group> --settings {}", pairs.join(" "))
}

/// Prints the steps that remain before it runs.
fn advise(ui: &Ui, function: &NewFunction, report: &Report) {
    if report.bundle_is_too_old {
        ui.note(&format!(
            "warning: host.json has the bundle {} {}, and all-versions mode needs \
             \"extensionBundle\": {{ \"id\": \"{BUNDLE}\", \"version\": \"{BUNDLE_VERSIONS}\" }}",
            report.bundle.as_deref().unwrap_or("(none)"),
            report.bundle_versions.as_deref().unwrap_or("(no version)"),
        ));
    }
    if report.dates_are_rewritten {
        ui.note(
            "warning: the host rewrites dates on their way to the handler; `cosmos-rewind doctor` says what to write in host.json",
        );
    }
    if function.all_versions {
        ui.note("note: all-versions mode needs continuous backup on the account");
    }
    let mut provision = format!(
        "cosmos-rewind provision --source {} --changes {}",
        shell_word(&function.source),
        shell_word(&function.changes)
    );
    for (flag, value) in [("--database", &function.database), ("--leases", &function.leases)] {
        if let Some(value) = value {
            provision.push_str(&format!(" {flag} {}", shell_word(value)));
        }
    }
    ui.hint(&format!("its containers: {provision}"));
}

//! What `new-function` prints: the files, the function's settings, and what else has to be so.

use serde_json::{Value, json};

use crate::{
    cli::{CliError, Ui},
    format::Format,
    host::app::{BUNDLE, BUNDLE_VERSIONS, NewFunction},
    new_function::{FUNCTION_FILE, LocalSettings, NewFunctionError, Report, Request, State},
};

/// Prints the report, and advice on standard error.
pub(in crate::cli) fn show(ui: &Ui, request: &Request, report: &Report, format: Format) -> Result<(), CliError> {
    print(ui, request, report, format)?;
    advise(ui, &request.function, report);
    Ok(())
}

fn print(ui: &Ui, request: &Request, report: &Report, format: Format) -> Result<(), CliError> {
    let function = &request.function;
    let state = match report.state {
        State::Exists => "exists",
        State::Planned => "planned",
        State::Created => "created",
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

/// The line that sets the function's settings on Azure; none of them is secret.
fn azure_command(settings: &[(String, String)]) -> String {
    let pairs: Vec<String> = settings.iter().map(|(name, value)| quoted(&format!("{name}={value}"))).collect();
    format!("az functionapp config appsettings set -n <app> -g <resource group> --settings {}", pairs.join(" "))
}

/// A word as a POSIX shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-=.,:@/".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// What else has to be so before it runs.
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
        quoted(&function.source),
        quoted(&function.changes)
    );
    for (flag, value) in [("--database", &function.database), ("--leases", &function.leases)] {
        if let Some(value) = value {
            provision.push_str(&format!(" {flag} {}", quoted(value)));
        }
    }
    ui.hint(&format!("its containers: {provision}"));
}

/// The flag that gives a setting of the function.
fn flag_of(setting: &str) -> Option<&'static str> {
    let flags = [
        ("COSMOS_DATABASE", "--database"),
        ("COSMOS_SOURCE_CONTAINER", "--source"),
        ("COSMOS_CHANGES_CONTAINER", "--changes"),
        ("COSMOS_LEASE_CONTAINER", "--leases"),
    ];
    flags.into_iter().find(|(name, _)| setting.ends_with(name)).map(|(_, flag)| flag)
}

impl From<NewFunctionError> for CliError {
    fn from(error: NewFunctionError) -> Self {
        match error {
            NewFunctionError::Name(name) => Self::usage(
                format!("--name: {name:?} is no function name"),
                "use a letter, then letters, digits and _, 128 at most: --name CaptureOrders",
            ),
            NewFunctionError::Dash(name) => Self::usage(
                format!("--name: {name:?} has a - in it, which names of app settings on Linux must not have"),
                format!("use letters, digits and _: --name {}", name.replace('-', "_")),
            ),
            NewFunctionError::NoPast => Self::usage(
                "--start-from-beginning: the all-versions feed cannot be read from the past",
                "leave it out, and run `cosmos-rewind backfill` once the function is deployed",
            ),
            NewFunctionError::NoName { setting, value } => Self::usage(
                format!("{}: {value:?} is no container's or database's name", flag_of(&setting).unwrap_or_default()),
                "give the name itself, without %",
            ),
            NewFunctionError::Setting(e) => {
                Self::usage(format!("{}: {}", flag_of(&e.name).unwrap_or(&e.name), e.problem), e.fix)
            }
            NewFunctionError::File { path, problem, is_host } => Self::usage(
                path.display().to_string(),
                if is_host {
                    "run it in the folder of host.json, or name that folder with --app-root"
                } else {
                    "correct it, and run the command again; nothing was written"
                },
            )
            .because(problem),
            NewFunctionError::Read { path, source } => Self::failed(path.display().to_string()).because(source),
            NewFunctionError::Taken(path) => Self::usage(
                format!("{} is there already, and is not what would be written", path.display()),
                "give another --name, or remove that folder",
            ),
            NewFunctionError::Write { path, source } => {
                Self::failed(format!("cannot write {}", path.display())).because(source)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell_when_they_must_be() {
        assert_eq!(quoted("A__B=orders"), "A__B=orders");
        assert_eq!(quoted("A=two words"), "'A=two words'");
        assert_eq!(quoted("A=it's"), "'A=it'\\''s'");
    }
}

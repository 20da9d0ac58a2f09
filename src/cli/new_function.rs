//! `new-function`: adds a function folder, so that one app captures another container too.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{
    CliError, Exit,
    output::{self, Format},
};
use crate::{
    change::fidelity::Delivery,
    config::{self, Names, Settings},
    host::app::{self, BUNDLE, BUNDLE_VERSIONS, NewFunction},
};

const FUNCTION_FILE: &str = "function.json";
const SETTINGS_FILE: &str = "local.settings.json";

/// Which change feed the function gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// The newest version of each document; deletes are invisible
    Latest,
    /// Every version and every delete; needs continuous backup on the account
    AllVersions,
}

/// Flags of `new-function`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  cosmos-rewind new-function --name CaptureOrders --source orders --changes orders-changes

The containers are made by `cosmos-rewind provision --source orders --changes orders-changes`.")]
pub struct NewFunctionArgs {
    /// Name of the function: its folder, and the prefix of its settings
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Live container it watches
    #[arg(long, value_name = "NAME")]
    source: String,
    /// History container its versions go to
    #[arg(long, value_name = "NAME")]
    changes: String,
    /// Its lease container [default: the app's, COSMOS_LEASE_CONTAINER]
    #[arg(long, value_name = "NAME")]
    leases: Option<String>,
    /// Its database [default: the app's, COSMOS_DATABASE]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Which change feed it gets
    #[arg(long, value_enum, default_value = "latest")]
    mode: Mode,
    /// Begin with the documents that are in the container already (latest mode)
    #[arg(long)]
    start_from_beginning: bool,
    /// Folder of host.json [default: the working directory]
    #[arg(long, value_name = "DIR")]
    app_root: Option<PathBuf>,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When a name is wrong or taken, or a file cannot be written; then nothing is left behind.
pub async fn run(args: NewFunctionArgs) -> Result<Exit, CliError> {
    let app_root = args.app_root.clone().unwrap_or_else(config::app_root);
    let function = function(&args)?;
    let host = host_file(&app_root)?;
    let text = pretty(&function.function_json());
    let exists = taken(&app_root, &function, &text)?;
    let settings = settings_file(&app_root, &function)?;
    let state = match (exists, args.dry_run) {
        (true, _) => "exists",
        (false, true) => "planned",
        (false, false) => "created",
    };
    if !args.dry_run {
        write(&app_root, &function, (!exists).then_some(&text), settings.text.as_deref())?;
    }
    report(&args, &function, state, &settings)?;
    advise(&function, &host);
    Ok(Exit::Done)
}

/// The function that the flags ask for.
fn function(args: &NewFunctionArgs) -> Result<NewFunction, CliError> {
    if !app::is_function_name(&args.name) {
        return Err(CliError::usage(
            format!("--name: {:?} is no function name", args.name),
            "use a letter, then letters, digits and _, 128 at most: --name CaptureOrders",
        ));
    }
    if args.name.contains('-') {
        return Err(CliError::usage(
            format!("--name: {:?} has a - in it, which names of app settings on Linux must not have", args.name),
            format!("use letters, digits and _: --name {}", args.name.replace('-', "_")),
        ));
    }
    if args.mode == Mode::AllVersions && args.start_from_beginning {
        return Err(CliError::usage(
            "--start-from-beginning: the all-versions feed cannot be read from the past",
            "leave it out, and run `cosmos-rewind backfill` once the function is deployed",
        ));
    }
    let function = NewFunction {
        name: args.name.clone(),
        database: args.database.clone(),
        source: args.source.clone(),
        changes: args.changes.clone(),
        leases: args.leases.clone(),
        all_versions: args.mode == Mode::AllVersions,
        from_beginning: args.start_from_beginning,
    };
    // The handler's own rules for names, before anything is written.
    let flags = [
        ("COSMOS_DATABASE", "--database"),
        ("COSMOS_SOURCE_CONTAINER", "--source"),
        ("COSMOS_CHANGES_CONTAINER", "--changes"),
        ("COSMOS_LEASE_CONTAINER", "--leases"),
    ];
    for (setting, value) in function.settings() {
        // What stands between % is a setting to the host; the handler has no such rule.
        let flag = flags.iter().find(|(name, _)| setting.ends_with(name)).map_or("", |(_, flag)| flag);
        if value.trim().is_empty() || value.contains('%') {
            return Err(CliError::usage(
                format!("{flag}: {value:?} is no container's or database's name"),
                "give the name itself, without %",
            ));
        }
    }
    Names::from_settings(&Settings::from_pairs(function.settings()), Some(&function.name)).map_err(|e| {
        let flag = flags.iter().find(|(name, _)| e.name.ends_with(name)).map_or(e.name.as_str(), |(_, flag)| flag);
        CliError::usage(format!("{flag}: {}", e.problem), e.fix)
    })?;
    Ok(function)
}

/// host.json, which makes a folder a function app.
fn host_file(app_root: &Path) -> Result<Value, CliError> {
    let path = app_root.join("host.json");
    app::read_json(&path).map_err(|problem| {
        CliError::usage(
            format!("{}: {problem}", path.display()),
            "run it in the folder of host.json, or name that folder with --app-root",
        )
    })
}

/// Whether this very function is there already.
///
/// # Errors
/// When another one of its name is: the host's routes ignore case.
fn taken(app_root: &Path, function: &NewFunction, text: &str) -> Result<bool, CliError> {
    let unreadable = |e| CliError::failed(format!("{}: {e}", app_root.display()));
    for entry in std::fs::read_dir(app_root).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(name) = name.to_str().filter(|name| name.eq_ignore_ascii_case(&function.name)) else { continue };
        let path = app_root.join(name).join(FUNCTION_FILE);
        let same = name == function.name
            && app::read_json(&path).is_ok_and(|found| Some(found) == serde_json::from_str::<Value>(text).ok());
        if same {
            return Ok(true);
        }
        return Err(CliError::usage(
            format!("{} is there already, and is not what would be written", app_root.join(name).display()),
            "give another --name, or remove that folder",
        ));
    }
    Ok(false)
}

/// What is to be done to local.settings.json.
struct SettingsFile {
    /// Its new text, when it changes.
    text: Option<String>,
    /// Whether there is one.
    exists: bool,
}

fn settings_file(app_root: &Path, function: &NewFunction) -> Result<SettingsFile, CliError> {
    let path = app_root.join(SETTINGS_FILE);
    if !path.exists() {
        return Ok(SettingsFile { text: None, exists: false });
    }
    let changed = app::read_json(&path).and_then(|mut file| {
        let added = app::add_settings(&mut file, &function.settings())?;
        Ok(added.then(|| pretty(&file)))
    });
    match changed {
        Ok(text) => Ok(SettingsFile { text, exists: true }),
        Err(problem) => Err(CliError::usage(
            format!("{}: {problem}", path.display()),
            "correct it, and run the command again; nothing was written",
        )),
    }
}

/// Writes both files, or neither.
fn write(
    app_root: &Path,
    function: &NewFunction,
    text: Option<&String>,
    settings: Option<&str>,
) -> Result<(), CliError> {
    let folder = app_root.join(&function.name);
    let failed = |what: &Path, e: std::io::Error| CliError::failed(format!("cannot write {}: {e}", what.display()));
    let written = match text {
        // A folder is no function before it has its file, which is renamed into it.
        Some(text) => {
            let path = folder.join(FUNCTION_FILE);
            std::fs::create_dir(&folder).map_err(|e| failed(&folder, e))?;
            app::write_whole(&path, text).map_err(|e| failed(&path, e))
        }
        None => Ok(()),
    };
    let path = app_root.join(SETTINGS_FILE);
    let written = written.and_then(|()| match settings {
        Some(settings) => app::write_whole(&path, settings).map_err(|e| failed(&path, e)),
        None => Ok(()),
    });
    if written.is_err() && text.is_some() {
        let _ = std::fs::remove_file(folder.join(FUNCTION_FILE));
        let _ = std::fs::remove_dir(&folder);
    }
    written
}

fn report(args: &NewFunctionArgs, function: &NewFunction, state: &str, file: &SettingsFile) -> Result<(), CliError> {
    let settings = function.settings();
    let local = match (file.exists, file.text.is_some(), args.dry_run) {
        (false, ..) => "no local.settings.json",
        (true, false, _) => "has them",
        (true, true, true) => "would get them",
        (true, true, false) => "has got them",
    };
    let az = azure_command(&settings);
    if matches!(args.format, Format::Json | Format::Jsonl) {
        let settings: serde_json::Map<String, Value> =
            settings.into_iter().map(|(name, value)| (name, value.into())).collect();
        return output::json(&json!({
            "function": function.name, "state": state, "file": format!("{}/{FUNCTION_FILE}", function.name),
            "content": function.function_json(), "settings": settings, "local_settings": local, "azure": az,
        }));
    }
    output::summary(
        args.format,
        &[
            ("function", json!(function.name)),
            ("state", json!(state)),
            ("file", json!(format!("{}/{FUNCTION_FILE}", function.name))),
            ("local_settings", json!(local)),
            ("azure", json!(az)),
        ],
    )?;
    if args.dry_run && args.format == Format::Table {
        return output::document(&function.function_json().to_string(), true);
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
fn advise(function: &NewFunction, host: &Value) {
    let (id, versions) = app::bundle_of(host);
    if function.all_versions && !versions.is_some_and(app::is_new_enough) {
        output::note(&format!(
            "warning: host.json has the bundle {} {}, and all-versions mode needs \
             \"extensionBundle\": {{ \"id\": \"{BUNDLE}\", \"version\": \"{BUNDLE_VERSIONS}\" }}",
            id.unwrap_or("(none)"),
            versions.unwrap_or("(no version)"),
        ));
    }
    if app::delivery(host) != Delivery::DatesKept {
        output::note(
            "warning: the host rewrites dates on their way to the handler; `cosmos-rewind doctor` says what to write in host.json",
        );
    }
    if function.all_versions {
        output::note("note: all-versions mode needs continuous backup on the account");
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
    output::hint(&format!("its containers: {provision}"));
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_nothing_half_made() {
        let app = tempfile::tempdir().unwrap();
        // No file can be put where a folder with something in it is.
        std::fs::create_dir_all(app.path().join(SETTINGS_FILE).join("x")).unwrap();
        let function = NewFunction {
            name: "CaptureOrders".into(),
            database: None,
            source: "orders".into(),
            changes: "orders-changes".into(),
            leases: None,
            all_versions: false,
            from_beginning: false,
        };
        let error = write(app.path(), &function, Some(&"{}".to_owned()), Some("{}")).unwrap_err();
        assert!(error.message.contains(SETTINGS_FILE), "{error}");
        let left: Vec<_> = std::fs::read_dir(app.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [SETTINGS_FILE]);
    }

    #[test]
    fn words_are_quoted_for_a_shell_when_they_must_be() {
        assert_eq!(quoted("A__B=orders"), "A__B=orders");
        assert_eq!(quoted("A=two words"), "'A=two words'");
        assert_eq!(quoted("A=it's"), "'A=it'\\''s'");
    }
}

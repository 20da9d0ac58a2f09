//! Adds a function to an app's folder, so that one app captures another container too.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::Value;

use crate::{
    change::fidelity::Delivery,
    config::{ConfigError, Names, Settings},
    host::{
        app::{self, AppFileError, NewFunction},
        functions::{Function, TriggerKind},
    },
};

/// The file that turns a folder into a function.
pub const FUNCTION_FILE: &str = "function.json";
const SETTINGS_FILE: &str = "local.settings.json";

/// Which function is added, and where.
#[derive(Debug, Clone)]
pub struct Request {
    /// Folder of host.json.
    pub app_root: PathBuf,
    /// The function.
    pub function: NewFunction,
    /// Whether to only report what would be written.
    pub dry_run: bool,
}

/// The files that were written, and the needs of the function.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The outcome for the function's file.
    pub state: FileOutcome,
    /// The text of the function's file, as JSON.
    pub content: Value,
    /// The app settings that the handler needs for it.
    pub settings: Vec<(String, String)>,
    /// The outcome for local.settings.json.
    pub local_settings: LocalSettings,
    /// Id of host.json's extension bundle.
    pub bundle: Option<String>,
    /// Its versions.
    pub bundle_versions: Option<String>,
    /// Whether the bundle is too old for the function's mode.
    pub bundle_is_too_old: bool,
    /// Whether the host rewrites dates on their way to the handler.
    pub dates_are_rewritten: bool,
}

/// The outcome for the function's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileOutcome {
    /// It existed already, with the same content.
    Exists,
    /// It would be written.
    Planned,
    /// It was written.
    Created,
}

/// The outcome for local.settings.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LocalSettings {
    /// It does not exist.
    Missing,
    /// It already had the function's settings.
    UpToDate,
    /// It would be given them.
    WouldBeUpdated,
    /// It was given them.
    Updated,
}

/// Why no function was added. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum NewFunctionError {
    /// The host does not accept this name for a function.
    #[error("{0:?} is not a function name")]
    Name(String),
    /// A name with a `-` cannot be the prefix of app settings on Linux.
    #[error("{0:?} has a - in it, which app settings on Linux cannot have in their names")]
    Dash(String),
    /// The all-versions feed cannot be read from the past.
    #[error("the all-versions feed cannot be read from the past")]
    NoPast,
    /// The value of this setting is not a valid name.
    #[error("{setting}: {value:?} is not a valid name for a container or database")]
    NoName {
        /// The setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// The handler does not accept this setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// host.json or local.settings.json cannot be used.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        #[source]
        problem: AppFileError,
        /// Whether it is host.json, which makes a folder an app.
        is_host: bool,
    },
    /// The app's folder cannot be read.
    #[error("{path}")]
    Read {
        /// The folder.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
    /// Another function with this name exists.
    #[error("{0} exists already, with other content")]
    Taken(PathBuf),
    /// Another function of the app writes this history.
    #[error("{other} captures {source_container} into {changes} already")]
    Captured {
        /// The other function.
        other: String,
        /// Its source.
        source_container: String,
        /// The history.
        changes: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The disk's error.
        source: io::Error,
    },
}

/// Adds a function: its folder with a function.json, and its settings in local.settings.json when there is one. Adding
/// it again is harmless.
///
/// # Errors
/// When a name is wrong or taken, or a file cannot be written; then nothing is left behind.
pub fn add(request: &Request) -> Result<Report, NewFunctionError> {
    let Request { app_root, function, dry_run } = request;
    check(function)?;
    let path = app_root.join("host.json");
    let host = app::read_json(&path).map_err(|problem| NewFunctionError::File { path, problem, is_host: true })?;
    let content = function.function_json();
    let text = pretty(&content);
    let exists = is_there(app_root, function, &text)?;
    check_history(app_root, function)?;
    let settings = settings_file(app_root, function)?;
    if !dry_run {
        write(app_root, function, (!exists).then_some(&text), settings.text.as_deref())?;
    }
    let (bundle, versions) = app::bundle_of(&host);
    Ok(Report {
        state: match (exists, dry_run) {
            (true, _) => FileOutcome::Exists,
            (false, true) => FileOutcome::Planned,
            (false, false) => FileOutcome::Created,
        },
        content,
        settings: function.settings(),
        local_settings: match (settings.exists, settings.text.is_some(), dry_run) {
            (false, ..) => LocalSettings::Missing,
            (true, false, _) => LocalSettings::UpToDate,
            (true, true, true) => LocalSettings::WouldBeUpdated,
            (true, true, false) => LocalSettings::Updated,
        },
        bundle: bundle.map(str::to_owned),
        bundle_versions: versions.map(str::to_owned),
        bundle_is_too_old: function.all_versions && !versions.is_some_and(app::is_new_enough),
        dates_are_rewritten: app::delivery(&host) != Delivery::DatesKept,
    })
}

/// Checks the names by the host's rules and by the handler's own, before anything is written.
fn check(function: &NewFunction) -> Result<(), NewFunctionError> {
    if !app::is_function_name(&function.name) {
        return Err(NewFunctionError::Name(function.name.clone()));
    }
    if function.name.contains('-') {
        return Err(NewFunctionError::Dash(function.name.clone()));
    }
    if function.all_versions && function.from_beginning {
        return Err(NewFunctionError::NoPast);
    }
    for (setting, value) in function.settings() {
        // Text between % is a setting to the host; the handler has no such rule.
        if value.trim().is_empty() || value.contains('%') {
            return Err(NewFunctionError::NoName { setting, value });
        }
    }
    Names::from_settings(&Settings::from_pairs(function.settings()), Some(&function.name))?;
    Ok(())
}

/// Whether this very function exists already.
///
/// # Errors
/// When another one with its name exists: the host's routes ignore case.
fn is_there(app_root: &Path, function: &NewFunction, text: &str) -> Result<bool, NewFunctionError> {
    let unreadable = |source| NewFunctionError::Read { path: app_root.to_owned(), source };
    for entry in std::fs::read_dir(app_root).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let Some(name) = name.to_str().filter(|name| name.eq_ignore_ascii_case(&function.name)) else { continue };
        let path = app_root.join(name).join(FUNCTION_FILE);
        let same = name == function.name
            && app::read_json(&path).is_ok_and(|found| Some(found) == serde_json::from_str::<Value>(text).ok());
        return if same { Ok(true) } else { Err(NewFunctionError::Taken(app_root.join(name))) };
    }
    Ok(false)
}

/// Checks that no other function of the app writes the same history, as far as the app's settings tell: that of another
/// container would be mixed with it, and one of the same container does what this one would. With the other mode it
/// does not: the two overlap while an app changes from one to the other.
fn check_history(app_root: &Path, function: &NewFunction) -> Result<(), NewFunctionError> {
    let path = app_root.join(SETTINGS_FILE);
    let Some(Value::Object(values)) = app::read_json(&path).ok().map(|mut file| file["Values"].take()) else {
        return Ok(());
    };
    let own = function.settings();
    let values = values.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    let settings = Settings::from_pairs(values.chain(own));
    let names = Names::from_settings(&settings, Some(&function.name))?;
    for other in Function::discover(app_root)? {
        let Ok(theirs) = Names::from_settings(&settings, Some(&other.name)) else { continue };
        let is_same = theirs.database == names.database && theirs.changes == names.changes;
        if other.trigger != TriggerKind::Changes || other.name == function.name || !is_same {
            continue;
        }
        let file = app::read_json(&app_root.join(&other.name).join(FUNCTION_FILE)).unwrap_or_default();
        let mut bindings = file["bindings"].as_array().into_iter().flatten();
        let all_versions = bindings.any(|one| one["changeFeedMode"].as_str() == Some(app::ALL_VERSIONS));
        if theirs.source != names.source || all_versions == function.all_versions {
            let (source_container, changes) = (theirs.source, theirs.changes);
            return Err(NewFunctionError::Captured { other: other.name, source_container, changes });
        }
    }
    Ok(())
}

/// The pending change of local.settings.json.
struct SettingsFile {
    /// Its new text, if it changes.
    text: Option<String>,
    exists: bool,
}

fn settings_file(app_root: &Path, function: &NewFunction) -> Result<SettingsFile, NewFunctionError> {
    let path = app_root.join(SETTINGS_FILE);
    if !path.exists() {
        return Ok(SettingsFile { text: None, exists: false });
    }
    let changed: Result<_, AppFileError> = app::read_json(&path).and_then(|mut file| {
        let added = app::add_settings(&mut file, &function.settings())?;
        Ok(added.then(|| pretty(&file)))
    });
    match changed {
        Ok(text) => Ok(SettingsFile { text, exists: true }),
        Err(problem) => Err(NewFunctionError::File { path, problem, is_host: false }),
    }
}

/// Writes both files, or neither.
fn write(
    app_root: &Path,
    function: &NewFunction,
    text: Option<&String>,
    settings: Option<&str>,
) -> Result<(), NewFunctionError> {
    let folder = app_root.join(&function.name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| NewFunctionError::Write { path, source }
    };
    let written = match text {
        // A folder is not a function before it has its file, which is renamed into it.
        Some(text) => {
            let path = folder.join(FUNCTION_FILE);
            std::fs::create_dir(&folder).map_err(failed(&folder))?;
            app::write_whole(&path, text).map_err(failed(&path))
        }
        None => Ok(()),
    };
    let path = app_root.join(SETTINGS_FILE);
    let written = written.and_then(|()| match settings {
        Some(settings) => app::write_whole(&path, settings).map_err(failed(&path)),
        None => Ok(()),
    });
    if written.is_err() && text.is_some() {
        let _ = std::fs::remove_file(folder.join(FUNCTION_FILE));
        let _ = std::fs::remove_dir(&folder);
    }
    written
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
        // A file cannot replace a folder that is not empty.
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
        assert!(error.to_string().contains(SETTINGS_FILE), "{error}");
        let left: Vec<_> = std::fs::read_dir(app.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [SETTINGS_FILE]);
    }
}

//! Reads a function app's folder as the host does: host.json and the function folders. The same code writes them, so
//! what is created here is what is checked here.

use std::{
    io::{self, Write as _},
    path::Path,
};

use serde_json::{Map, Value, json};

use crate::{change::fidelity::Delivery, config::Settings};

/// The extension bundle that contains the trigger.
pub const BUNDLE: &str = "Microsoft.Azure.Functions.ExtensionBundle";
/// The versions of it that this product is written for: from the first that has both the all-versions mode and the
/// setting that leaves dates alone.
pub const BUNDLE_VERSIONS: &str = "[4.37.1, 5.0.0)";
const FIRST_BUNDLE: [u64; 3] = [4, 37, 1];
/// Where host.json says that dates are left alone, and the value it must have.
pub const DATES: [&str; 4] = ["extensions", "cosmosDB", "serializerSettings", "dateParseHandling"];
/// See [`DATES`].
pub const DATES_KEPT: &str = "None";
/// The value in function.json for the feed of all versions.
pub const ALL_VERSIONS: &str = "AllVersionsAndDeletes";

/// Whether the host accepts this as a function's name: a letter, then up to 127 letters, digits, `-` and `_`.
pub fn is_function_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// A function that is to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFunction {
    /// Its name: folder, route, and prefix of its settings.
    pub name: String,
    /// Its database; `None` means the app's.
    pub database: Option<String>,
    /// The live container it watches.
    pub source: String,
    /// Where its versions go.
    pub changes: String,
    /// Its lease container; `None` means the app's.
    pub leases: Option<String>,
    /// Whether it gets every version and delete, instead of the newest version.
    pub all_versions: bool,
    /// Whether it begins with what is already in the container.
    pub from_beginning: bool,
}

impl NewFunction {
    /// Its function.json.
    ///
    /// The container is named literally: its setting has `__` in its name, which the host's configuration takes for a
    /// section, so that `%...%` may not find it. The setting is for the handler.
    pub fn function_json(&self) -> Value {
        let setting = |name: &Option<String>, setting: &str| name.clone().unwrap_or_else(|| format!("%{setting}%"));
        let database = setting(&self.database, "COSMOS_DATABASE");
        let mut trigger = json!({
            "type": "cosmosDBTrigger",
            "direction": "in",
            "name": "documents",
            "connection": "CosmosDB",
            "databaseName": database,
            "containerName": self.source,
            "leaseConnection": "CosmosDB",
            "leaseDatabaseName": database,
            "leaseContainerName": setting(&self.leases, "COSMOS_LEASE_CONTAINER"),
            // Functions that share a lease container and a source would take each other's leases.
            "leaseContainerPrefix": self.name,
            // With an identity the trigger is not allowed to create it, and the function would not start.
            "createLeaseContainerIfNotExists": false,
        });
        if self.from_beginning {
            trigger["startFromBeginning"] = true.into();
        }
        trigger["feedPollDelay"] = 1000.into();
        trigger["maxItemsPerInvocation"] = 100.into();
        if self.all_versions {
            trigger["changeFeedMode"] = ALL_VERSIONS.into();
        }
        json!({
            "bindings": [trigger],
            // Without a retry policy, or with any other count, the host gives up a failed batch: it is lost.
            "retry": {
                "strategy": "exponentialBackoff",
                "maxRetryCount": -1,
                "minimumInterval": "00:00:05",
                "maximumInterval": "00:05:00",
            },
        })
    }

    /// The app settings the handler needs for it.
    pub fn settings(&self) -> Vec<(String, String)> {
        let mut settings = Vec::new();
        for (setting, value) in [
            ("COSMOS_DATABASE", self.database.as_ref()),
            ("COSMOS_SOURCE_CONTAINER", Some(&self.source)),
            ("COSMOS_CHANGES_CONTAINER", Some(&self.changes)),
            ("COSMOS_LEASE_CONTAINER", self.leases.as_ref()),
        ] {
            if let Some(value) = value {
                settings.push((format!("{}__{setting}", self.name), value.clone()));
            }
        }
        settings
    }
}

/// host.json's extension bundle: id and versions.
pub fn bundle_of(host: &Value) -> (Option<&str>, Option<&str>) {
    let bundle = &host["extensionBundle"];
    (bundle["id"].as_str(), bundle["version"].as_str())
}

/// Whether every version in a range of bundles, such as `[4.37.1, 5.0.0)`, has everything that this product needs.
pub fn is_new_enough(versions: &str) -> bool {
    let Some(range) = versions.trim().strip_prefix(['[', '(']) else { return false };
    let lowest = range.split([',', ']', ')']).next().unwrap_or_default();
    // `4.*` begins with the first of them.
    let mut parts = lowest.trim().split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    FIRST_BUNDLE.map(|_| parts.next().unwrap_or(0)) >= FIRST_BUNDLE
}

/// Whether host.json tells the trigger to leave dates alone; a bundle that is too old ignores it.
pub fn keeps_dates(host: &Value) -> bool {
    // The host's configuration ignores case.
    let said = DATES.iter().try_fold(host, |value, name| {
        let found = value.as_object()?.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    });
    said.and_then(Value::as_str).is_some_and(|text| text.eq_ignore_ascii_case(DATES_KEPT))
}

/// How a host with this host.json alters documents.
pub fn delivery(host: &Value) -> Delivery {
    let (id, versions) = bundle_of(host);
    if id == Some(BUNDLE) && versions.is_some_and(is_new_enough) && keeps_dates(host) {
        Delivery::DatesKept
    } else {
        Delivery::DatesRewritten
    }
}

/// An app setting that a text in function.json names, and that is not set: its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the app setting {0} is not set")]
pub struct MissingSetting(pub String);

/// Why a file of an app cannot be used. Displays as what follows its name, and quotes nothing: a settings file holds
/// secrets.
#[derive(Debug, thiserror::Error)]
pub enum AppFileError {
    /// It does not exist.
    #[error("is not there")]
    Missing,
    /// It cannot be read.
    #[error("cannot be read")]
    Read(#[source] io::Error),
    /// It is not JSON.
    #[error("is not valid JSON: line {line} column {column}")]
    NotJson {
        /// The line where the parser stopped.
        line: usize,
        /// The column there.
        column: usize,
    },
    /// It is a local.settings.json whose values are encrypted.
    #[error("is encrypted: run `func settings decrypt` first")]
    Encrypted,
    /// It is JSON, but not an object.
    #[error("is not a JSON object")]
    NotAnObject,
    /// It is a local.settings.json whose values are not in an object.
    #[error("has a Values that is not an object")]
    Values,
    /// It has another value for this setting.
    #[error("has another value for {0} already")]
    Taken(String),
}

/// A text in function.json as the host reads it: every `%NAME%` is replaced by that app setting.
///
/// # Errors
/// When one is not set.
pub fn resolve(text: &str, settings: &Settings) -> Result<String, MissingSetting> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let Some((name, tail)) = after.split_once('%') else { break };
        resolved.push_str(before);
        resolved.push_str(settings.get(name).ok_or_else(|| MissingSetting(name.to_owned()))?);
        rest = tail;
    }
    resolved.push_str(rest);
    Ok(resolved)
}

/// Reads a JSON file as the host does, a byte order mark allowed.
///
/// # Errors
/// When it cannot be read, or is not JSON; says which.
pub fn read_json(path: &Path) -> Result<Value, AppFileError> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => AppFileError::Missing,
        _ => AppFileError::Read(e),
    })?;
    serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|e| AppFileError::NotJson { line: e.line(), column: e.column() })
}

/// Adds settings to the `Values` of a local.settings.json, after the existing ones. Returns whether there was anything
/// to add.
///
/// # Errors
/// When the file has another shape, or has another value already.
pub fn add_settings(file: &mut Value, settings: &[(String, String)]) -> Result<bool, AppFileError> {
    if file["IsEncrypted"] == true {
        return Err(AppFileError::Encrypted);
    }
    let Some(root) = file.as_object_mut() else { return Err(AppFileError::NotAnObject) };
    let values = root.entry("Values").or_insert_with(|| Value::Object(Map::new()));
    let Some(values) = values.as_object_mut() else { return Err(AppFileError::Values) };
    let mut added = false;
    for (name, value) in settings {
        match values.get(name) {
            Some(found) if found.as_str() == Some(value) => {}
            Some(_) => return Err(AppFileError::Taken(name.clone())),
            None => {
                values.insert(name.clone(), value.as_str().into());
                added = true;
            }
        }
    }
    Ok(added)
}

/// Writes a file that exists completely or not at all, with the permissions of the one it replaces, or readable for
/// everybody.
///
/// # Errors
/// When it cannot be written; an existing file stays as it was.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    // A link stays a link: the file it leads to is written.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".cosmos-rewind-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    match std::fs::metadata(path) {
        Ok(found) => file.as_file().set_permissions(found.permissions())?,
        #[cfg(unix)]
        Err(_) => {
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        #[cfg(not(unix))]
        Err(_) => {}
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> NewFunction {
        NewFunction {
            name: "CaptureOrders".into(),
            database: None,
            source: "orders".into(),
            changes: "orders-changes".into(),
            leases: None,
            all_versions: false,
            from_beginning: false,
        }
    }

    #[test]
    fn the_shipped_function_is_what_would_be_made_for_it() {
        let shipped: Value = serde_json::from_str(include_str!("../../CaptureChanges/function.json")).unwrap();
        let mut function = orders();
        function.name = "CaptureChanges".into();
        function.source = "%COSMOS_SOURCE_CONTAINER%".into();
        function.from_beginning = true;
        assert_eq!(function.function_json(), shipped);
    }

    #[test]
    fn all_versions_and_other_places_are_said_where_they_are_meant() {
        let function =
            NewFunction { all_versions: true, leases: Some("l".into()), database: Some("d".into()), ..orders() };
        let trigger = &function.function_json()["bindings"][0];
        assert_eq!(trigger["changeFeedMode"], ALL_VERSIONS);
        assert_eq!((&trigger["databaseName"], &trigger["leaseContainerName"]), (&"d".into(), &"l".into()));
        assert!(trigger.get("startFromBeginning").is_none() && trigger.get("cardinality").is_none());
        assert_eq!(function.settings().len(), 4);
        assert_eq!(
            orders().settings(),
            [
                ("CaptureOrders__COSMOS_SOURCE_CONTAINER".to_owned(), "orders".to_owned()),
                ("CaptureOrders__COSMOS_CHANGES_CONTAINER".to_owned(), "orders-changes".to_owned()),
            ]
        );
    }

    #[test]
    fn settings_are_added_behind_the_others_and_never_replaced() {
        let mut file = json!({"IsEncrypted": false, "Values": {"Z": "1", "A": "2"}, "Host": {"CORS": "*"}});
        assert!(add_settings(&mut file, &orders().settings()).unwrap());
        let names: Vec<&String> = file["Values"].as_object().unwrap().keys().collect();
        assert_eq!(names[..2], ["Z", "A"]);
        assert_eq!(names.len(), 4);
        assert!(!add_settings(&mut file, &orders().settings()).unwrap());
        file["Values"]["CaptureOrders__COSMOS_SOURCE_CONTAINER"] = "other".into();
        assert!(matches!(add_settings(&mut file, &orders().settings()), Err(AppFileError::Taken(_))));
        assert!(add_settings(&mut json!({"IsEncrypted": true}), &[]).is_err());
        assert!(add_settings(&mut json!({"Values": 7}), &[]).is_err());
    }

    #[test]
    fn dates_are_kept_where_the_setting_and_the_bundle_both_say_so() {
        let shipped: Value = serde_json::from_str(include_str!("../../host.json")).unwrap();
        assert_eq!(delivery(&shipped), Delivery::DatesKept);
        let with = |change: &dyn Fn(&mut Value)| {
            let mut host = shipped.clone();
            change(&mut host);
            delivery(&host)
        };
        for versions in ["[4.37.1, 5.0.0)", "[4.37.1,5.0.0)", "(4.40.0, 5.0.0)", "[4.100.0]", " [5.0.0, 6.0.0)"] {
            let now = with(&|host| host["extensionBundle"]["version"] = versions.into());
            assert_eq!(now, Delivery::DatesKept, "{versions}");
        }
        for versions in ["[4.*, 5.0.0)", "[4.37.0, 5.0.0)", "[4.0.0, 5.0.0)", "[3.*, 4.0.0)", "4.37.1", "", "[x]", "["]
        {
            let now = with(&|host| host["extensionBundle"]["version"] = versions.into());
            assert_eq!(now, Delivery::DatesRewritten, "{versions}");
        }
        let other = with(&|host| host["extensionBundle"]["id"] = format!("{BUNDLE}.Preview").into());
        assert_eq!(other, Delivery::DatesRewritten);
        for said in [Value::Null, "DateTime".into(), "DateTimeOffset".into(), 0.into()] {
            let now =
                with(&|host| host["extensions"]["cosmosDB"]["serializerSettings"]["dateParseHandling"] = said.clone());
            assert_eq!(now, Delivery::DatesRewritten, "{said}");
        }
        assert_eq!(with(&|host| drop(host.as_object_mut().unwrap().remove("extensions"))), Delivery::DatesRewritten);
        let spelt = json!({"CosmosDb": {"SerializerSettings": {"DateParseHandling": "none"}}});
        assert_eq!(with(&|host| host["extensions"] = spelt.clone()), Delivery::DatesKept);
    }

    #[test]
    fn names_follow_the_hosts_rule() {
        for (name, fine) in [
            ("CaptureOrders", true),
            ("a", true),
            ("a-b_9", true),
            ("", false),
            ("9a", false),
            ("_a", false),
            ("a b", false),
            ("a/b", false),
            ("..", false),
            ("é", false),
        ] {
            assert_eq!(is_function_name(name), fine, "{name:?}");
        }
        assert!(is_function_name(&"a".repeat(128)) && !is_function_name(&"a".repeat(129)));
    }
}

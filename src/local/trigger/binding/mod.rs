//! Reads a function's `function.json` and the app's `host.json`.

mod host_file;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use self::host_file::time_span;

pub(super) use self::host_file::HostFile;

/// Which change feed is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TriggerMode {
    /// The newest version of each document; deletes are invisible.
    #[default]
    Latest,
    /// Every version, and deletes, in envelopes.
    AllVersions,
}

/// The host's reaction to a failed invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often the same batch is retried; `None` means forever (`-1`).
    pub max_retries: Option<u32>,
    /// The delay before the first retry.
    pub first_delay: Duration,
    /// The delay doubles up to this; equal to `first_delay` for a fixed delay.
    pub max_delay: Duration,
}

impl RetryPolicy {
    /// Returns the delay before retry number `retry`, starting at 1.
    pub fn delay(&self, retry: u32) -> Duration {
        let factor = 2_u32.saturating_pow(retry.saturating_sub(1).min(20));
        self.first_delay.saturating_mul(factor).min(self.max_delay)
    }
}

/// A function with a Cosmos DB trigger; all settings are resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionBinding {
    /// The function's name: its folder, and the path of the host's requests.
    pub function: String,
    /// The binding's name: the key under `Data`.
    pub binding: String,
    /// Database of the source container.
    pub database: String,
    /// The source container.
    pub container: String,
    /// Database of the lease container.
    pub lease_database: String,
    /// Where leases and their progress are kept.
    pub lease_container: String,
    /// Separates functions on the same container.
    pub lease_prefix: String,
    /// Whether a missing lease container is created.
    pub create_lease_container: bool,
    /// The delay after an empty poll.
    pub poll_delay: Duration,
    /// The requested number of documents per invocation.
    pub max_items: Option<usize>,
    /// Whether to start with existing documents (latest-version mode only).
    pub start_from_beginning: bool,
    /// Which feed is read.
    pub mode: TriggerMode,
    /// Without a policy, a failed batch is lost, as in Azure.
    pub retry: Option<RetryPolicy>,
}

/// Why a function app folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file has invalid contents.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The field, what is wrong with it, and the fix.
        problem: String,
    },
}

#[derive(Deserialize)]
struct FunctionFile {
    bindings: Vec<serde_json::Value>,
    #[serde(default)]
    retry: Option<RetryField>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TriggerField {
    name: String,
    #[serde(default)]
    direction: Option<String>,
    database_name: String,
    container_name: String,
    #[serde(default)]
    lease_database_name: Option<String>,
    #[serde(default)]
    lease_container_name: Option<String>,
    #[serde(default)]
    create_lease_container_if_not_exists: bool,
    #[serde(default)]
    lease_container_prefix: Option<String>,
    #[serde(default)]
    feed_poll_delay: Option<u64>,
    #[serde(default)]
    max_items_per_invocation: Option<usize>,
    #[serde(default)]
    start_from_beginning: bool,
    #[serde(default)]
    change_feed_mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryField {
    strategy: String,
    max_retry_count: i64,
    #[serde(default)]
    delay_interval: Option<String>,
    #[serde(default)]
    minimum_interval: Option<String>,
    #[serde(default)]
    maximum_interval: Option<String>,
}

impl FunctionBinding {
    /// Returns the function that this project ships, for a start without its folder. The names come from the same
    /// settings.
    pub fn capture_changes(settings: &[(String, String)]) -> Self {
        let setting = |name: &str, default: &str| {
            let found = settings.iter().rev().find(|(known, _)| known == name);
            found.map_or(default, |(_, value)| value).to_owned()
        };
        let database = setting("COSMOS_DATABASE", "dev");
        Self {
            function: "CaptureChanges".into(),
            binding: "documents".into(),
            container: setting("COSMOS_SOURCE_CONTAINER", "events"),
            lease_database: database.clone(),
            database,
            lease_container: setting("COSMOS_LEASE_CONTAINER", "leases"),
            lease_prefix: String::new(),
            create_lease_container: true,
            poll_delay: Duration::from_millis(5000),
            max_items: None,
            start_from_beginning: false,
            mode: TriggerMode::Latest,
            retry: Some(RetryPolicy {
                max_retries: None,
                first_delay: Duration::from_secs(5),
                max_delay: Duration::from_secs(300),
            }),
        }
    }

    /// Finds the functions with a Cosmos DB trigger below `app_root`, by name.
    pub fn find(app_root: &Path, settings: &[(String, String)]) -> Result<Vec<Self>, BindingError> {
        let read = |source| BindingError::Read { path: app_root.to_owned(), source };
        let mut found: Vec<Self> = Vec::new();
        for entry in std::fs::read_dir(app_root).map_err(read)? {
            let folder = entry.map_err(read)?.path();
            let file = folder.join("function.json");
            let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
            if !file.is_file() {
                continue;
            }
            let text = std::fs::read(&file).map_err(|source| BindingError::Read { path: file.clone(), source })?;
            let parsed = Self::parse(name, &text, settings);
            found.extend(parsed.map_err(|problem| BindingError::Invalid { path: file, problem })?);
        }
        found.sort_by(|a, b| a.function.cmp(&b.function));
        Ok(found)
    }

    /// Parses a `function.json`; `None` when it has no Cosmos DB trigger. The error names the field and the fix.
    pub fn parse(function: &str, text: &[u8], settings: &[(String, String)]) -> Result<Option<Self>, String> {
        let file: FunctionFile = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let is_trigger = |binding: &serde_json::Value| {
            binding["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("cosmosDBTrigger"))
        };
        let Some(trigger) = file.bindings.into_iter().find(is_trigger) else { return Ok(None) };
        for (old, new) in [("collectionName", "containerName"), ("connectionStringSetting", "connection")] {
            if trigger.get(old).is_some() {
                return Err(format!("{old} is a name of extension 3.x and has no effect: use {new}"));
            }
        }
        let trigger: TriggerField =
            serde_json::from_value(trigger).map_err(|error| format!("the cosmosDBTrigger binding: {error}"))?;
        if trigger.direction.as_deref().is_some_and(|direction| direction != "in") {
            return Err("direction: a trigger has \"in\"".into());
        }
        if !is_binding_name(&trigger.name) {
            return Err(format!("name: \"{}\" is not a binding name: a letter, then letters and digits", trigger.name));
        }
        let resolve = |field: &str, text: &str| resolve(field, text, settings);
        let database = resolve("databaseName", &trigger.database_name)?;
        let mode = match trigger.change_feed_mode.as_deref() {
            None => TriggerMode::Latest,
            Some(mode) if mode.eq_ignore_ascii_case("LatestVersion") => TriggerMode::Latest,
            Some(mode) if mode.eq_ignore_ascii_case("AllVersionsAndDeletes") => TriggerMode::AllVersions,
            Some(mode) => {
                return Err(format!("changeFeedMode: \"{mode}\" is not LatestVersion or AllVersionsAndDeletes"));
            }
        };
        Ok(Some(Self {
            function: function.to_owned(),
            binding: trigger.name,
            container: resolve("containerName", &trigger.container_name)?,
            lease_database: match trigger.lease_database_name {
                Some(name) => resolve("leaseDatabaseName", &name)?,
                None => database.clone(),
            },
            database,
            lease_container: match trigger.lease_container_name {
                Some(name) => resolve("leaseContainerName", &name)?,
                None => "leases".into(),
            },
            lease_prefix: match trigger.lease_container_prefix {
                Some(prefix) => resolve("leaseContainerPrefix", &prefix)?,
                None => String::new(),
            },
            create_lease_container: trigger.create_lease_container_if_not_exists,
            poll_delay: Duration::from_millis(trigger.feed_poll_delay.unwrap_or(5000)),
            max_items: trigger.max_items_per_invocation,
            start_from_beginning: trigger.start_from_beginning,
            mode,
            retry: file.retry.map(RetryPolicy::try_from).transpose()?,
        }))
    }
}

impl TryFrom<RetryField> for RetryPolicy {
    type Error = String;

    fn try_from(field: RetryField) -> Result<Self, String> {
        let max_retries = match field.max_retry_count {
            -1 => None,
            count => {
                Some(u32::try_from(count).map_err(|_| "retry.maxRetryCount: -1 (for ever), 0 or more".to_owned())?)
            }
        };
        let span = |name: &str, value: Option<String>| {
            let text = value.ok_or_else(|| format!("retry.{name} is missing: give hh:mm:ss"))?;
            time_span(&text).ok_or_else(|| format!("retry.{name}: \"{text}\" is not hh:mm:ss"))
        };
        match field.strategy.as_str() {
            "fixedDelay" => {
                let delay = span("delayInterval", field.delay_interval)?;
                Ok(Self { max_retries, first_delay: delay, max_delay: delay })
            }
            "exponentialBackoff" => Ok(Self {
                max_retries,
                first_delay: span("minimumInterval", field.minimum_interval)?,
                max_delay: span("maximumInterval", field.maximum_interval)?,
            }),
            other => Err(format!("retry.strategy: \"{other}\" is not fixedDelay or exponentialBackoff")),
        }
    }
}

/// Whether the host accepts the name: `[a-zA-Z][a-zA-Z0-9]*`.
fn is_binding_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

/// Replaces every `%NAME%` with that app setting.
fn resolve(field: &str, text: &str, settings: &[(String, String)]) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let Some((name, tail)) = after.split_once('%') else { break };
        let value = settings.iter().rev().find(|(known, _)| known == name);
        let (_, value) =
            value.ok_or_else(|| format!("{field}: the app setting {name} is not set: add it, or drop %{name}%"))?;
        out.push_str(before);
        out.push_str(value);
        rest = tail;
    }
    out.push_str(rest);
    if out.is_empty() { Err(format!("{field} is empty: give a name")) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> Vec<(String, String)> {
        vec![("DB".into(), "dev".into()), ("SOURCE".into(), "events".into())]
    }

    fn file(trigger: serde_json::Value, retry: serde_json::Value) -> Vec<u8> {
        json!({"bindings": [trigger], "retry": retry}).to_string().into_bytes()
    }

    #[test]
    fn a_function_file_is_read_with_its_settings_resolved() {
        let trigger = json!({"type": "cosmosDBTrigger", "direction": "in", "name": "documents", "connection": "CosmosDB",
            "databaseName": "%DB%", "containerName": "x-%SOURCE%-y", "leaseContainerName": "leases",
            "createLeaseContainerIfNotExists": true, "maxItemsPerInvocation": 7, "feedPollDelay": 100,
            "startFromBeginning": true, "changeFeedMode": "AllVersionsAndDeletes"});
        let retry = json!({"strategy": "exponentialBackoff", "maxRetryCount": -1, "minimumInterval": "00:00:05",
            "maximumInterval": "00:05:00"});
        let binding = FunctionBinding::parse("Capture", &file(trigger, retry), &settings()).unwrap().unwrap();
        assert_eq!((binding.database.as_str(), binding.container.as_str()), ("dev", "x-events-y"));
        assert_eq!(
            (binding.mode, binding.max_items, binding.start_from_beginning),
            (TriggerMode::AllVersions, Some(7), true)
        );
        let retry = binding.retry.unwrap();
        let delays: Vec<u64> = (1..=8).map(|number| retry.delay(number).as_secs()).collect();
        assert_eq!((retry.max_retries, delays), (None, vec![5, 10, 20, 40, 80, 160, 300, 300]));
    }

    #[test]
    fn a_mistake_is_reported_with_field_and_fix() {
        let trigger = |change: serde_json::Value| {
            let mut trigger =
                json!({"type": "cosmosDBTrigger", "name": "documents", "databaseName": "d", "containerName": "c"});
            for (name, value) in change.as_object().unwrap() {
                trigger[name] = value.clone();
            }
            FunctionBinding::parse("F", &file(trigger, json!(null)), &settings()).unwrap_err()
        };
        assert!(trigger(json!({"name": "my_docs"})).starts_with("name: \"my_docs\""));
        assert!(trigger(json!({"databaseName": "%MISSING%"})).contains("databaseName: the app setting MISSING"));
        assert!(trigger(json!({"collectionName": "c"})).contains("use containerName"));
        assert!(trigger(json!({"changeFeedMode": "Everything"})).starts_with("changeFeedMode"));
        assert!(trigger(json!({"direction": "out"})).starts_with("direction"));
        let retry = json!({"strategy": "fixedDelay", "maxRetryCount": 3});
        let plain = json!({"type": "cosmosDBTrigger", "name": "d", "databaseName": "d", "containerName": "c"});
        let error = FunctionBinding::parse("F", &file(plain, retry), &settings()).unwrap_err();
        assert_eq!(error, "retry.delayInterval is missing: give hh:mm:ss");
    }

    #[test]
    fn a_file_without_the_trigger_is_ignored() {
        let timer = json!({"type": "timerTrigger", "name": "t"});
        assert_eq!(FunctionBinding::parse("F", &file(timer, json!(null)), &[]).unwrap(), None);
    }
}

//! The functions of an app folder: each `<Name>/function.json` with a Cosmos DB trigger is one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::config::{ConfigError, Settings};

/// The function this repository ships, used when the app folder has none.
pub const DEFAULT_FUNCTION: &str = "CaptureChanges";
/// The binding name of the shipped function.
pub const DEFAULT_BINDING: &str = "documents";

/// Which change feed a trigger reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize, clap::ValueEnum)]
pub enum FeedMode {
    /// The newest version of each document; no deletes.
    #[default]
    #[serde(alias = "LatestVersion", alias = "latest")]
    #[value(name = "latest")]
    LatestVersion,
    /// Every version and every delete; needs continuous backup on the account.
    #[serde(alias = "AllVersionsAndDeletes", alias = "all-versions")]
    #[value(name = "all-versions")]
    AllVersionsAndDeletes,
}

/// One function of the app.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Folder name, which is also the route.
    pub name: String,
    /// Its trigger, with `%SETTING%` not yet resolved.
    pub trigger: TriggerBinding,
    /// What the host does when an invocation fails.
    pub retry: Option<RetryPolicy>,
}

/// The `cosmosDBTrigger` binding, field names as in function.json (Functions host, Cosmos DB extension 4.x).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerBinding {
    /// Name of the member of `Data` that carries the documents.
    pub name: String,
    /// Setting that holds the connection.
    #[serde(default)]
    pub connection: Option<String>,
    /// Database of the source container.
    #[serde(default)]
    pub database_name: Option<String>,
    /// Source container.
    #[serde(default)]
    pub container_name: Option<String>,
    /// Database of the lease container.
    #[serde(default)]
    pub lease_database_name: Option<String>,
    /// Lease container.
    #[serde(default)]
    pub lease_container_name: Option<String>,
    /// Distinguishes functions that share a lease container.
    #[serde(default)]
    pub lease_container_prefix: Option<String>,
    /// Milliseconds between polls that found nothing.
    #[serde(default)]
    pub feed_poll_delay: Option<u64>,
    /// Most items of one invocation, as a hint.
    #[serde(default)]
    pub max_items_per_invocation: Option<usize>,
    /// Whether a new lease starts at the beginning of the feed.
    #[serde(default)]
    pub start_from_beginning: bool,
    /// Which feed is read.
    #[serde(default)]
    pub change_feed_mode: FeedMode,
}

/// The `retry` object of function.json.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryPolicy {
    /// `fixedDelay` or `exponentialBackoff`.
    pub strategy: String,
    /// Retries before the batch is given up (and, by the trigger, lost); -1 is without end.
    pub max_retry_count: i64,
    /// Of `fixedDelay`, as `hh:mm:ss`.
    #[serde(default)]
    pub delay_interval: Option<String>,
    /// Of `exponentialBackoff`, as `hh:mm:ss`.
    #[serde(default)]
    pub minimum_interval: Option<String>,
    /// Of `exponentialBackoff`, as `hh:mm:ss`.
    #[serde(default)]
    pub maximum_interval: Option<String>,
}

impl Function {
    /// The shipped function, for a folder that has none.
    pub fn shipped() -> Self {
        let text = include_str!("../../CaptureChanges/function.json");
        Self::parse(DEFAULT_FUNCTION, text).ok().flatten().unwrap_or_else(|| Self {
            name: DEFAULT_FUNCTION.into(),
            trigger: TriggerBinding {
                name: DEFAULT_BINDING.into(),
                connection: None,
                database_name: None,
                container_name: None,
                lease_database_name: None,
                lease_container_name: None,
                lease_container_prefix: None,
                feed_poll_delay: None,
                max_items_per_invocation: None,
                start_from_beginning: false,
                change_feed_mode: FeedMode::default(),
            },
            retry: None,
        })
    }

    /// Reads a function.json; `None` when it has no Cosmos DB trigger.
    ///
    /// # Errors
    /// When it is not valid.
    pub fn parse(name: &str, text: &str) -> Result<Option<Self>, ConfigError> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            bindings: Vec<serde_json::Value>,
            #[serde(default)]
            retry: Option<RetryPolicy>,
        }
        let file_name = format!("{name}/function.json");
        let wrong = |problem: String| ConfigError::new(&file_name, problem, "compare it with CaptureChanges/function.json");
        let file: File =
            serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| wrong(format!("is not valid: {e}")))?;
        let Some(trigger) = file.bindings.into_iter().find(|b| b.get("type").and_then(|t| t.as_str()).is_some_and(|t| t.eq_ignore_ascii_case("cosmosDBTrigger")))
        else {
            return Ok(None);
        };
        let trigger: TriggerBinding = serde_json::from_value(trigger).map_err(|e| wrong(format!("its cosmosDBTrigger is not valid: {e}")))?;
        if !trigger.name.starts_with(|c: char| c.is_ascii_alphabetic()) || !trigger.name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(wrong(format!("its binding name {:?} is not allowed by the host: letters and digits only", trigger.name)));
        }
        Ok(Some(Self { name: name.to_owned(), trigger, retry: file.retry }))
    }

    /// All functions of an app folder with a Cosmos DB trigger, by name.
    ///
    /// # Errors
    /// When a function.json is not valid; the host would refuse it too.
    pub fn discover(app_root: &Path) -> Result<Vec<Self>, ConfigError> {
        let mut found = BTreeMap::new();
        let Ok(entries) = std::fs::read_dir(app_root) else { return Ok(Vec::new()) };
        for path in entries.filter_map(|e| e.ok()).map(|e| e.path().join("function.json")) {
            let Some(name) = path.parent().and_then(Path::file_name).and_then(|n| n.to_str()).map(String::from) else { continue };
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(_) if !PathBuf::from(&path).exists() => continue,
                Err(e) => return Err(ConfigError::new(format!("{name}/function.json"), format!("cannot be read: {e}"), "make it readable")),
            };
            if let Some(function) = Self::parse(&name, &text)? {
                found.insert(name, function);
            }
        }
        Ok(found.into_values().collect())
    }
}

/// Replaces every `%NAME%` by the setting, as the host does.
///
/// # Errors
/// When a setting is missing, naming it and the field.
pub fn resolve(field: &str, text: &str, settings: &Settings) -> Result<String, ConfigError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        let Some((name, tail)) = after.split_once('%') else { break };
        let value = settings.get(name).ok_or_else(|| {
            ConfigError::new(name, format!("is missing, and {field} in function.json refers to it as %{name}%"), format!("set {name}"))
        })?;
        out.push_str(before);
        out.push_str(value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_function_retries_for_ever_and_has_a_legal_binding_name() {
        let function = Function::shipped();
        assert_eq!((function.name.as_str(), function.trigger.name.as_str()), (DEFAULT_FUNCTION, DEFAULT_BINDING));
        assert_eq!(function.retry.unwrap().max_retry_count, -1);
    }

    #[test]
    fn a_wrong_function_json_is_named() {
        for (text, problem) in [
            ("{", "not valid"),
            (r#"{"bindings":[{"type":"cosmosDBTrigger"}]}"#, "name"),
            (r#"{"bindings":[{"type":"cosmosDBTrigger","name":"my-docs"}]}"#, "letters and digits"),
            (r#"{"bindings":[{"type":"cosmosDBTrigger","name":"d","changeFeedMode":"Some"}]}"#, "Some"),
        ] {
            let error = Function::parse("Orders", text).unwrap_err();
            assert_eq!(error.name, "Orders/function.json");
            assert!(error.problem.contains(problem), "{error}");
        }
        assert_eq!(Function::parse("Timer", r#"{"bindings":[{"type":"timerTrigger","name":"t"}]}"#).unwrap(), None);
    }

    #[test]
    fn settings_are_resolved_and_a_missing_one_is_named_with_its_field() {
        let settings = Settings::from_pairs([("A", "x")]);
        assert_eq!(resolve("containerName", "pre-%A%-post", &settings).unwrap(), "pre-x-post");
        assert_eq!(resolve("containerName", "100%", &settings).unwrap(), "100%");
        let error = resolve("containerName", "%B%", &settings).unwrap_err();
        assert_eq!(error.name, "B");
        assert!(error.problem.contains("containerName"));
    }
}

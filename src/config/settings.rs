//! The raw settings: flags, environment and local.settings.json.

use std::{collections::BTreeMap, path::Path, str::FromStr};

use super::{ConfigError, SETTINGS};
use crate::secret::Secret;

/// The raw settings by name, before they are parsed.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, Secret>,
    overrides: BTreeMap<String, Secret>,
}

impl Settings {
    /// The process environment over `local.settings.json` in `app_root`, when that file exists.
    pub fn load(app_root: &Path) -> Result<Self, ConfigError> {
        // An unreadable file must not count as unset: the default would be another database.
        let own = |name: &str| SETTINGS.iter().any(|s| name == s.name || name.ends_with(&format!("__{}", s.name)));
        for (name, value) in std::env::vars_os() {
            if let (Some(name), None) = (name.to_str(), value.to_str())
                && own(name)
            {
                return Err(ConfigError::new(name, "is not UTF-8", "write it as UTF-8, or leave it out"));
            }
        }
        let mut settings = Self::from_file(&app_root.join("local.settings.json"))?;
        settings.values.extend(Self::environment().values);
        Ok(settings)
    }

    /// The process environment alone.
    pub fn environment() -> Self {
        let values = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, Secret::new(value.into_string().ok()?))));
        Self { values: values.collect(), overrides: BTreeMap::new() }
    }

    /// Settings from pairs, for tests and for the local environment.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self {
            values: pairs.into_iter().map(|(k, v)| (k.into(), Secret::new(v))).collect(),
            overrides: BTreeMap::new(),
        }
    }

    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(rename = "IsEncrypted", default)]
            is_encrypted: bool,
            #[serde(rename = "Values", default)]
            values: BTreeMap<String, String>,
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => {
                return Err(ConfigError::new(
                    "local.settings.json",
                    format!("cannot be read: {e}"),
                    "make it readable, or remove it",
                ));
            }
        };
        let text = text.trim_start_matches('\u{feff}');
        let invalid = |problem: String| {
            let fix = "compare it with local.settings.example.json; every value under Values is a string";
            ConfigError::new("local.settings.json", format!("is not valid: {problem}"), fix)
        };
        // An array would be taken for an object without members.
        if text.trim_start().starts_with('[') {
            return Err(invalid("it is a list".into()));
        }
        let file: File =
            serde_json::from_str(text).map_err(|e| invalid(format!("line {} column {}", e.line(), e.column())))?;
        if file.is_encrypted {
            return Err(ConfigError::new("local.settings.json", "is encrypted", "run `func settings decrypt`"));
        }
        Ok(Self::from_pairs(file.values))
    }

    /// Sets a value that beats every other source, as a command-line flag does.
    pub fn set_override(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.overrides.insert(name.into(), Secret::new(value));
    }

    /// The value of a setting; empty text counts as unset, because app settings cannot be null.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.overrides.get(name).or_else(|| self.values.get(name))?;
        Some(value.expose().trim()).filter(|v| !v.is_empty())
    }

    /// The value for one function: `<function>__<name>` when set, else `name`. Flags beat both.
    pub fn get_for(&self, function: Option<&str>, name: &str) -> Option<&str> {
        if let Some(flag) = self.overrides.get(name) {
            return Some(flag.expose().trim()).filter(|v| !v.is_empty());
        }
        if let Some(function) = function
            && let Some(value) = self.get(&format!("{function}__{name}"))
        {
            return Some(value);
        }
        self.get(name)
    }

    /// Refuses a function's own value of a setting that all functions share: it would have no effect.
    ///
    /// # Errors
    /// With the first such value.
    pub fn check_own(&self, function: &str) -> Result<(), ConfigError> {
        for shared in SETTINGS.iter().filter(|setting| !setting.for_functions) {
            let own = format!("{function}__{}", shared.name);
            if self.get(&own).is_some() {
                let fix = format!("remove it, and set {} for all of them", shared.name);
                return Err(ConfigError::new(own, "has no effect: all functions share this setting", fix));
            }
        }
        Ok(())
    }

    /// The settings whose names begin like this, in any case, by the rest of their names.
    pub fn below(&self, prefix: &str) -> BTreeMap<&str, &str> {
        let is_below = |name: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
        let all = self.values.iter().chain(&self.overrides).filter(|(name, _)| is_below(name));
        all.map(|(name, value)| (&name[prefix.len()..], value.expose())).collect()
    }

    /// The name under which a function's value was found, for messages.
    pub(super) fn name_for(&self, function: Option<&str>, name: &str) -> String {
        let own = function.map(|function| format!("{function}__{name}"));
        let own = own.filter(|own| !self.overrides.contains_key(name) && self.get(own).is_some());
        own.unwrap_or_else(|| name.to_owned())
    }

    pub(super) fn parse<T: FromStr>(
        &self,
        name: &str,
        valid: impl Fn(&T) -> bool,
        fix: &str,
    ) -> Result<T, ConfigError> {
        let default = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
        let text = self.get(name).unwrap_or(default);
        match text.parse::<T>() {
            Ok(value) if valid(&value) => Ok(value),
            _ => Err(ConfigError::new(name, format!("{text:?} is not allowed"), fix)),
        }
    }
}

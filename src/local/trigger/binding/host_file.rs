//! Reads `host.json`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::BindingError;
use crate::{config::Settings, host::overrides::apply_overrides};

/// The host's default when host.json sets no `functionTimeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Parses `hh:mm:ss`, .NET's format for a time span, or `d.hh:mm:ss`.
pub(super) fn time_span(text: &str) -> Option<Duration> {
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) if clock.contains(':') => (days.parse::<u64>().ok()?, clock),
        _ => (0, text),
    };
    let mut parts = clock.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none() && minutes < 60 && seconds < 60)
        .then(|| Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60 + seconds))
}

/// The relevant parts of `host.json`.
#[derive(Clone, Debug)]
pub(in crate::local::trigger) struct HostFile {
    pub executable: Option<PathBuf>,
    pub arguments: Option<Vec<String>>,
    pub function_timeout: Duration,
    /// `extensions.cosmosDB.serializerSettings.dateParseHandling` is `None` and the bundle supports it: strings that
    /// look like dates are left alone.
    pub keeps_dates: bool,
}

/// The first extension bundle that supports the date setting.
const DATE_SETTING_SINCE: (u32, u32, u32) = (4, 37, 1);

/// Whether every bundle in `range` supports the date setting. For `[4.37.1, 5.0.0)`, the lower bound decides.
fn bundle_has_date_setting(range: &str) -> bool {
    let Some(lower) = range.trim().strip_prefix('[').and_then(|rest| rest.split(',').next()) else { return false };
    let mut numbers = lower.trim().trim_end_matches(']').split('.').map(|part| part.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    let lower = (next().unwrap_or(0), next().unwrap_or(0), next().unwrap_or(0));
    lower >= DATE_SETTING_SINCE
}

impl HostFile {
    /// Reads `host.json` with the app settings applied over it; a missing file means the defaults.
    pub fn read(app_root: &Path) -> Result<Self, BindingError> {
        let path = app_root.join("host.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            Err(source) => return Err(BindingError::Read { path, source }),
        };
        let invalid = |problem: String| BindingError::Invalid { path: path.clone(), problem };
        let mut file: serde_json::Value = serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        let settings =
            Settings::load(app_root).map_err(|error| invalid(format!("the app settings over it: {error}")))?;
        apply_overrides(&mut file, &settings);
        let description = &file["customHandler"]["description"];
        let timeout = match file["functionTimeout"].as_str() {
            None => DEFAULT_TIMEOUT,
            Some("-1") => Duration::from_secs(u64::from(u32::MAX)),
            Some(text) => {
                time_span(text).ok_or_else(|| invalid(format!("functionTimeout: \"{text}\" is not hh:mm:ss")))?
            }
        };
        let arguments = description["arguments"].as_array();
        let handling = &file["extensions"]["cosmosDB"]["serializerSettings"]["dateParseHandling"];
        let asked = handling.as_str().is_some_and(|handling| handling.eq_ignore_ascii_case("None"));
        let known = file["extensionBundle"]["version"].as_str().is_some_and(bundle_has_date_setting);
        if asked && !known {
            tracing::warn!(
                "host.json sets dateParseHandling, but its extension bundle may be older than 4.37.1 and ignore it: set \
                 \"[4.37.1, 5.0.0)\""
            );
        }
        Ok(Self {
            executable: description["defaultExecutablePath"].as_str().map(PathBuf::from),
            arguments: arguments.map(|list| list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()),
            function_timeout: timeout,
            keeps_dates: asked && known,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_date_setting_counts_only_with_a_bundle_that_supports_it() {
        let keeps = |bundle: &str, handling: &str| {
            let folder = tempfile::tempdir().unwrap();
            let text = json!({"extensionBundle": {"version": bundle},
                "extensions": {"cosmosDB": {"serializerSettings": {"dateParseHandling": handling}}}});
            std::fs::write(folder.path().join("host.json"), text.to_string()).unwrap();
            HostFile::read(folder.path()).unwrap().keeps_dates
        };
        assert!(keeps("[4.37.1, 5.0.0)", "None") && keeps("[5.0.0, 6.0.0)", "none"));
        assert!(!keeps("[4.37.1, 5.0.0)", "DateTime"));
        for old in ["[4.*, 5.0.0)", "[4.0.0, 5.0.0)", "[4.37.0, 5.0.0)", "[3.3.0, 4.0.0)", "nonsense"] {
            assert!(!keeps(old, "None"), "{old}");
        }
    }

    #[test]
    fn time_spans_in_dotnet_format_are_parsed() {
        assert_eq!(time_span("00:10:01"), Some(Duration::from_secs(601)));
        assert_eq!(time_span("1.00:00:00"), Some(Duration::from_secs(86_400)));
        assert_eq!(time_span("10"), None);
        assert_eq!(time_span("00:99:00"), None);
    }
}

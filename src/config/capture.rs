//! Limits and switches of capture.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{ConfigError, DeadLetterLocation, Settings};

/// Whether documents that the host may have altered are re-read from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// Re-read when the payload contains anything the host may have altered.
    Exact,
    /// Store the payload as delivered.
    Payload,
}

/// Limits and switches of capture, all validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Whether altered documents are re-read.
    pub fidelity: Fidelity,
    /// Where poison goes.
    pub dead_letters: DeadLetterLocation,
    /// Writes in flight in the whole process.
    pub max_writes: usize,
    /// Re-reads in flight in the whole process.
    pub max_rereads: usize,
    /// How long transient failures of one batch are retried.
    pub deadline: Duration,
    /// Largest accepted request body, in bytes.
    pub max_body: usize,
    /// How long SIGTERM waits for batches in flight.
    pub drain: Duration,
}

impl CaptureConfig {
    /// Reads and validates the settings of capture.
    pub fn from_settings(settings: &Settings, app_root: &Path) -> Result<Self, ConfigError> {
        const DEAD_LETTERS: &str = "REWIND_DEAD_LETTERS";
        // On Azure the application folder is read-only, or disappears with the instance: a default there would lose
        // data.
        if settings.get(DEAD_LETTERS).is_none() && settings.get("WEBSITE_SITE_NAME").is_some() {
            return Err(ConfigError::new(
                DEAD_LETTERS,
                "is missing, and a directory does not outlive a function app's instance",
                "set it to https://<account>.blob.core.windows.net/<container>",
            ));
        }
        let fidelity = match settings.get("REWIND_FIDELITY").unwrap_or("exact").to_ascii_lowercase().as_str() {
            "exact" => Fidelity::Exact,
            "payload" => Fidelity::Payload,
            other => {
                return Err(ConfigError::new(
                    "REWIND_FIDELITY",
                    format!("{other:?} is not allowed"),
                    "write exact or payload",
                ));
            }
        };
        let seconds = |name: &str, max: u64| -> Result<Duration, ConfigError> {
            settings
                .parse::<u64>(name, |v| (1..=max).contains(v), &format!("write whole seconds from 1 to {max}"))
                .map(Duration::from_secs)
        };
        Ok(Self {
            fidelity,
            dead_letters: DeadLetterLocation::parse(
                DEAD_LETTERS,
                settings.get(DEAD_LETTERS).unwrap_or(".dead-letters"),
                app_root,
            )?,
            max_writes: settings.parse(
                "REWIND_MAX_WRITES",
                |v| (1..=4096).contains(v),
                "write a number from 1 to 4096",
            )?,
            max_rereads: settings.parse(
                "REWIND_MAX_REREADS",
                |v| (1..=4096).contains(v),
                "write a number from 1 to 4096",
            )?,
            deadline: seconds("REWIND_DEADLINE_SECONDS", 3600)?,
            max_body: settings.parse::<usize>(
                "REWIND_MAX_BODY_MB",
                |v| (1..=2048).contains(v),
                "write whole MiB from 1 to 2048",
            )? << 20,
            drain: seconds("REWIND_DRAIN_SECONDS", 600)?,
        })
    }
}

/// The setting that says what a timer function removes.
pub const PRUNE: &str = "REWIND_PRUNE";

/// How long one tick of a timer function may take.
///
/// # Errors
/// When the setting is wrong.
pub fn prune_budget(settings: &Settings) -> Result<Duration, ConfigError> {
    let fix = "write whole seconds from 1 to 3600, less than functionTimeout in host.json";
    settings.parse::<u64>("REWIND_PRUNE_SECONDS", |v| (1..=3600).contains(v), fix).map(Duration::from_secs)
}

/// The folder of host.json: the one that the host names, else the working directory.
pub fn app_root() -> PathBuf {
    std::env::var_os("FUNCTIONS_APP_ROOT_PATH").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

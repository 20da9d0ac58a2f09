//! The output of `at` for programs: its address, and the loaded documents.

use serde_json::json;

use crate::{
    console::{CliError, Ui, in_force},
    fork::CHANGED,
    local::past::{Loaded, PastAccount, PastRequest, UNKNOWN},
};

/// Says where it listens.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn ready(ui: &Ui, past: &PastAccount, request: &PastRequest, database: &str) -> Result<(), CliError> {
    let containers: Vec<&str> = request.sources.iter().map(|names| names.source.as_str()).collect();
    ui.json(&json!({
        "event": "ready", "endpoint": past.account().endpoint().as_str(), "key": past.account().key(),
        "database": database, "containers": containers, "unknown": UNKNOWN,
        "changed": request.writable.then_some(CHANGED),
        "at": request.at.to_string(), "writable": request.writable,
    }))
}

/// Reports the loaded documents, and of how many documents not everything is known.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn loaded(ui: &Ui, loaded: &Loaded) -> Result<(), CliError> {
    ui.json(&json!({
        "event": "loaded", "documents": loaded.documents, "unknown": loaded.unknown, "bytes": loaded.bytes,
        "beyond": loaded.beyond, "caveats": loaded.caveats,
    }))?;
    in_force::count_caveats(ui, loaded.caveats.iter().map(|(name, count)| (*name, *count)));
    Ok(())
}

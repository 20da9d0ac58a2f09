//! The restores that can be taken back.

use crate::{
    console::{CliError, Ui, words::time},
    format::Format,
    restore::journal::ListedRestore,
};
use serde_json::json;

/// Prints the restores that are in the history.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn list(ui: &Ui, restores: &[ListedRestore], format: Format) -> Result<(), CliError> {
    let mut rows = ui.rows(format, &["restore", "made", "at", "target", "undoes", "planned", "written"]);
    for restore in restores {
        let head = restore.head.as_ref();
        rows.push(&[
            json!(restore.id),
            json!(restore.applied.or(head.map(|h| h.made)).map(time)),
            json!(head.and_then(|h| h.at).map(time)),
            json!(head.map_or("of another format", |h| h.place.target.as_str())),
            json!(head.and_then(|h| h.undoes.as_deref())),
            json!(restore.planned),
            json!(restore.written),
        ])?;
    }
    Ok(rows.finish()?)
}

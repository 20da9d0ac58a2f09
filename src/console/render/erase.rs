//! The question that `erase` asks, and its receipt.

use crate::{
    console::{CliError, Ui},
    erase::{Receipt, TraceCounts},
    figures::count_of,
    format::{Format, tenths},
};
use serde_json::json;

/// The question that stands between the plan and the deletes.
pub(crate) fn question(found: &TraceCounts, with_live: bool, place: &str) -> String {
    format!(
        "{}, {}, {} in {} of restores, {} in {} of archives and {} will be erased from {place}. They cannot be had back.",
        count_of(found.versions, "version"),
        count_of(found.dead_letters, "dead letter"),
        count_of(found.mentions, "mention"),
        count_of(found.journals, "journal"),
        count_of(found.events, "event"),
        count_of(found.files, "file"),
        if with_live { "the live document" } else { "not the live document" },
    )
}

/// Prints the receipt.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn print(ui: &Ui, receipt: &Receipt, format: Format) -> Result<(), CliError> {
    ui.summary(
        format,
        &[
            ("item", json!(receipt.item)),
            ("found", json!(receipt.found)),
            ("versions", json!(receipt.versions)),
            ("dead_letters", json!(receipt.dead_letters)),
            ("journals", json!(receipt.journals)),
            ("archived", json!(receipt.archived)),
            ("live", json!(receipt.live)),
            ("shared", json!(receipt.shared)),
            ("left", json!(receipt.left)),
            ("at", json!(receipt.at)),
            ("ru", tenths(receipt.ru)),
            ("seconds", tenths(receipt.seconds)),
        ],
    )
}

//! Parses times that flags name.

use crate::{
    change::time::PointInTime,
    console::{CliError, Ui},
    cosmos::point_in_time,
    format::printable,
    history::Account,
};

/// The time a flag names.
///
/// # Errors
/// When it cannot be used.
pub(super) async fn point(ui: &Ui, account: &dyn Account, flag: &str, text: &str) -> Result<PointInTime, CliError> {
    let named = point_in_time(account.service_time(), text, &**ui.clock(), ui.screen()).await;
    named.map_err(|bad| CliError::usage(printable(&format!("{flag}: {bad}")).into_owned(), bad.hint))
}

/// Refuses a time that ends before it begins.
pub(super) fn in_order(from: PointInTime, to: PointInTime) -> Result<(), CliError> {
    if from <= to {
        return Ok(());
    }
    Err(CliError::usage(format!("--to {to} is before --from {from}"), "name the earlier time with --from"))
}

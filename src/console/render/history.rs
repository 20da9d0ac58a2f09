//! The versions of documents, or the changes of one field, as rows.

use futures::TryStreamExt as _;

use super::versions::{change_columns, change_row, key_cell, remark, unknown_note, version_columns, version_row};
use crate::{
    console::{CliError, Ui},
    figures::count_of,
    format::{Cell, Format, printable},
    history::past::Lives,
};

/// Prints the versions of documents, or the changes of one field; of a list, each row names its document.
pub(crate) async fn print(
    ui: &Ui,
    lives: &mut Lives<'_>,
    field: Option<&[String]>,
    list: bool,
    format: Format,
) -> Result<String, CliError> {
    let mut columns = if list { vec!["id", "pk"] } else { Vec::new() };
    columns.extend(match field {
        Some(_) => change_columns(format),
        None => version_columns(format),
    });
    let mut rows = ui.rows(format, &columns);
    let (mut count, mut legacy) = (0, false);
    let mut notes = Vec::new();
    while let Some(item) = lives.next().await? {
        let about = if list {
            vec![item.key.id.as_str().into(), key_cell(&item.key.partition_key, format).into()]
        } else {
            Vec::new()
        };
        let mut first_change = None;
        let mut told = std::pin::pin!(lives.told(&item));
        while let Some(told) = told.try_next().await? {
            legacy |= told.version.op.is_none();
            let row = match (field, &told.change) {
                (Some(_), None) => continue,
                (Some(_), Some(change)) => {
                    first_change.get_or_insert(told.version);
                    change_row(told.version, change, format)
                }
                (None, _) => {
                    let row = version_row(told.version, told.text.as_deref(), told.before.as_deref(), format);
                    row.into_iter().map(Cell::Value).collect()
                }
            };
            count += 1;
            rows.push_cells(&[about.clone(), row].concat())?;
        }
        let of = if list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
        notes.extend(field.and_then(|field| unknown_note(&item, first_change, field, &of)));
        notes.extend(lives.remarks(&item).await?.iter().map(|one| remark(one, &of)));
    }
    rows.finish()?;
    if legacy {
        ui.note("note: legacy versions have the time of the copy, which is later than the change itself");
    }
    for text in notes {
        ui.note(&printable(&text));
    }
    let what = count_of(count, if field.is_some() { "change" } else { "version" });
    Ok(if list { format!("{what} of {}", count_of(lives.asked(), "document")) } else { what })
}

//! Versions of documents as rows, and remarks about them.

use serde_json::{Value, json};

use crate::{
    change::{
        fields::ChangedFields,
        key::{PartitionKey, render_path},
        version::Version,
    },
    config::Names,
    console::{
        CliError, Ui,
        words::{op, pk_json, time},
    },
    figures::count_of,
    format::{Cell, Format},
    history::past::{FieldChange, FoundDocuments, Remark},
};

/// The columns of a field's changes.
pub(super) fn change_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "before", "after"],
        _ => &["time", "ts", "op", "lsn", "before", "after", "record"],
    }
}

/// A version in which a field got another value.
pub(super) fn change_row<'a>(version: &'a Version, change: &'a FieldChange, format: Format) -> Vec<Cell<'a>> {
    let (before, after) = (Cell::Json(change.before.as_deref()), Cell::Json(change.after.as_deref()));
    let mut cells = vec![time(version.ts).into(), op(version).into(), version.lsn.into(), before, after];
    if format != Format::Table {
        cells.insert(1, version.ts.into());
        cells.push(version.record_id.as_str().into());
    }
    cells
}

/// Says that a field never existed, or that its first value may not be the first. `first_change` is when it first
/// changed, and whether its value before that is unknown.
pub(super) fn unknown_note(first_change: Option<(i64, bool)>, field: &[String], of: &str) -> Option<String> {
    match first_change {
        None => Some(format!("note: no version{of} has a field {}", render_path(field))),
        Some((ts, true)) => Some(format!("note: what it was before {}{of} is not known", time(ts))),
        Some((_, false)) => None,
    }
}

/// Remarks about a document's versions; `of` names the document in a list.
pub(super) fn remark(remark: &Remark, of: &str) -> String {
    match remark {
        Remark::Gap(ts, gap) => format!("note: after the version{of} of {}: {gap}", time(*ts)),
        Remark::UnkeyedDelete(ts) => format!(
            "note: a document with the id{of} was deleted at {}; the history does not say under which partition key",
            time(*ts)
        ),
        Remark::Uncaptured(ts) => format!("note: the live document, of {}, is not in the history (yet)", time(*ts)),
        Remark::FieldUnknown(ts) => format!(
            "note: the version{of} of {} was too large for the history, or gone when MongoDB was asked for it: whether the field changed in it is not known, and the next version may show a change that was made in it",
            time(*ts)
        ),
        Remark::Doubt(doubt) => format!("note: {doubt}"),
    }
}

/// The columns of versions.
pub(super) fn version_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "size", "changed", "fidelity"],
        _ => &["time", "ts", "op", "lsn", "size", "changed", "added", "removed", "fidelity", "via", "record"],
    }
}

/// A version, with its differences from the text before.
pub(super) fn version_row(version: &Version, text: Option<&str>, before: Option<&str>, format: Format) -> Vec<Value> {
    let op = op(version);
    let size = text.map_or(Value::Null, |d| json!(d.len()));
    let changed = match (before, text) {
        (Some(before), Some(now)) => Some(ChangedFields::between(before, now)),
        _ => None,
    };
    let time = time(version.ts);
    if format == Format::Table {
        let changed = changed.map_or(Value::Null, |c| json!(for_people(&c)));
        return vec![json!(time), json!(op), json!(version.lsn), size, changed, json!(version.fidelity)];
    }
    let list = |names: Option<Vec<String>>| match (names, format) {
        (None, _) => Value::Null,
        (Some(names), Format::Csv) => json!(names.join(" ")),
        (Some(names), _) => json!(names),
    };
    let (c, a, r) = changed.map_or((None, None, None), |c| (Some(c.changed), Some(c.added), Some(c.removed)));
    vec![
        json!(time),
        json!(version.ts),
        json!(op),
        json!(version.lsn),
        size,
        list(c),
        list(a),
        list(r),
        json!(version.fidelity),
        json!(version.via),
        json!(version.record_id),
    ]
}

/// Names of fields: `+` before added ones, `-` before removed ones.
fn for_people(fields: &ChangedFields) -> String {
    let names = fields.changed.iter().cloned();
    let names = names.chain(fields.added.iter().map(|n| format!("+{n}")));
    let names: Vec<String> = names.chain(fields.removed.iter().map(|n| format!("-{n}"))).collect();
    if names.is_empty() { "(nothing)".into() } else { names.join(", ") }
}

/// Prints the report of live documents and versions; returns the summary.
pub(crate) fn print_report(
    ui: &Ui,
    found: FoundDocuments,
    names: &Names,
    format: Format,
    columns: &[String],
) -> Result<String, CliError> {
    let mut header: Vec<String> = ["_ts", "container", "pk", "id"].map(String::from).into();
    header.extend(columns.iter().cloned());
    let mut rows = ui.rows(format, &header);
    let (mut live, mut versions) = (0, 0);
    for line in found.lines {
        *(if line.is_live { &mut live } else { &mut versions }) += 1;
        let container = if line.is_live { &names.source } else { &names.changes };
        let key = key_cell(&line.item.partition_key, format);
        let mut values = vec![json!(line.ts), json!(container), key, json!(line.item.id)];
        values.extend(line.values());
        rows.push(&values)?;
    }
    rows.finish()?;
    Ok(format!("{}, {}", count_of(live, "live document"), count_of(versions, "version")))
}

/// A key as it appears in a row.
pub(super) fn key_cell(key: &PartitionKey, format: Format) -> Value {
    match format {
        Format::Json | Format::Jsonl => pk_json(key),
        Format::Table | Format::Csv => json!(key.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_came_and_went_are_marked() {
        let [changed, added, removed] = ["seq", "new", "gone"].map(|name| vec![name.to_owned()]);
        assert_eq!(for_people(&ChangedFields { changed, added, removed }), "seq, +new, -gone");
        assert_eq!(for_people(&ChangedFields::default()), "(nothing)");
    }

    #[test]
    fn versions_are_shown_for_people_and_for_programs() {
        let parse = |text: &str| Version::parse(text).unwrap();
        let first = parse(
            r#"{"id":"a~1","n":1,"_originalId":"a","_change":{"v":1,"op":"create","ts":1592926844,"lsn":7,"fidelity":"exact","via":"trigger"}}"#,
        );
        let second = parse(
            r#"{"id":"a~2","n":2,"_originalId":"a","_change":{"v":1,"op":"replace","ts":1592926845,"lsn":8,"fidelity":"normalized"}}"#,
        );
        let legacy = parse(r#"{"id":"x-y","n":2,"_originalId":"a","_lsn":9,"_ts":1592926850}"#);
        let row = |v: &Version, before: Option<&str>, format| {
            Value::from(version_row(v, v.document.as_deref(), before, format)).to_string()
        };
        assert_eq!(row(&first, None, Format::Table), r#"["2020-06-23T15:40:44Z","create",7,16,null,"exact"]"#);
        let before = first.document.as_deref();
        assert_eq!(row(&second, before, Format::Table), r#"["2020-06-23T15:40:45Z","replace",8,16,"n","normalized"]"#);
        assert_eq!(
            row(&second, before, Format::Json),
            r#"["2020-06-23T15:40:45Z",1592926845,"replace",8,16,["n"],[],[],"normalized",null,"a~2"]"#
        );
        assert_eq!(
            row(&legacy, second.document.as_deref(), Format::Table),
            r#"["2020-06-23T15:40:50Z","legacy",9,16,"(nothing)",null]"#
        );
        assert_eq!(version_columns(Format::Table).len(), version_row(&first, None, None, Format::Table).len());
        assert_eq!(version_columns(Format::Csv).len(), version_row(&first, None, None, Format::Csv).len());
    }
}

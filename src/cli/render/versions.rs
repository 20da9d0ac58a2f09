//! Versions of documents as rows, and what is said of them.

use serde_json::{Value, json};

use super::super::{
    CliError, Ui,
    lookup::{op, time},
};
use crate::{
    change::{
        diff,
        key::{PartitionKey, render_path},
        raw::RawDocument,
        version::Version,
    },
    config::Names,
    figures::count_of,
    format::{Cell, Format},
    history::{
        histories::Item,
        past::{FieldChange, Found, Remark, is_first_unknown},
    },
};

/// The columns of a field's changes.
pub(in crate::cli) fn change_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "before", "after"],
        _ => &["time", "ts", "op", "lsn", "before", "after", "record"],
    }
}

/// A version in which a field got another value.
pub(in crate::cli) fn change_row<'a>(version: &'a Version, change: &'a FieldChange, format: Format) -> Vec<Cell<'a>> {
    let (before, after) = (Cell::Json(change.before.as_deref()), Cell::Json(change.after.as_deref()));
    let mut cells = vec![time(version.ts).into(), op(version).into(), version.lsn.into(), before, after];
    if format != Format::Table {
        cells.insert(1, version.ts.into());
        cells.push(version.record_id.as_str().into());
    }
    cells
}

/// That a field never was there, or that its first value is not known to be the first.
pub(in crate::cli) fn unknown_note(
    item: &Item,
    first_change: Option<&Version>,
    field: &[String],
    of: &str,
) -> Option<String> {
    match first_change {
        None => Some(format!("note: no version{of} has a field {}", render_path(field))),
        Some(change) if is_first_unknown(item, change) => {
            Some(format!("note: what it was before {}{of} is not known", time(change.ts)))
        }
        Some(_) => None,
    }
}

/// What is to be said of a document's versions; `of` names the document in a list.
pub(in crate::cli) fn remark(remark: &Remark, of: &str) -> String {
    match remark {
        Remark::Gap(ts, gap) => format!("note: after the version{of} of {}: {gap}", time(*ts)),
        Remark::UnkeyedDelete(ts) => format!(
            "note: a document with the id{of} was deleted at {}; the history does not say under which partition key",
            time(*ts)
        ),
        Remark::Uncaptured(ts) => format!("note: the live document, of {}, is not in the history (yet)", time(*ts)),
        Remark::Doubt(doubt) => format!("note: {doubt}"),
    }
}

/// The columns of versions.
pub(in crate::cli) fn version_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "size", "changed", "fidelity"],
        _ => &["time", "ts", "op", "lsn", "size", "changed", "added", "removed", "fidelity", "via", "record"],
    }
}

/// A version, with what differs from the text before.
pub(in crate::cli) fn version_row(
    version: &Version,
    text: Option<&str>,
    before: Option<&str>,
    format: Format,
) -> Vec<Value> {
    let op = op(version);
    let size = text.map_or(Value::Null, |d| json!(d.len()));
    let changed = match (before, text) {
        (Some(before), Some(now)) => Some(Changed::between(before, now)),
        _ => None,
    };
    let time = time(version.ts);
    if format == Format::Table {
        let changed = changed.map_or(Value::Null, |c| json!(c.for_people()));
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

/// The top-level fields in which two documents differ.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changed {
    changed: Vec<String>,
    added: Vec<String>,
    removed: Vec<String>,
}

impl Changed {
    fn between(before: &str, now: &str) -> Self {
        let (before, now) =
            (RawDocument::parse(before).unwrap_or_default(), RawDocument::parse(now).unwrap_or_default());
        let mut all = Self::default();
        let push = |list: &mut Vec<String>, name: &str| {
            if !list.iter().any(|n| n == name) {
                list.push(name.to_owned());
            }
        };
        for member in now.members() {
            let name = member.name();
            match (before.get(&name), now.get(&name)) {
                (None, _) => push(&mut all.added, &name),
                (Some(a), Some(b)) if !diff::same(a.get(), b.get()) => push(&mut all.changed, &name),
                _ => {}
            }
        }
        for member in before.members() {
            let name = member.name();
            if now.get(&name).is_none() {
                push(&mut all.removed, &name);
            }
        }
        all
    }

    fn for_people(&self) -> String {
        let names = self.changed.iter().cloned();
        let names = names.chain(self.added.iter().map(|n| format!("+{n}")));
        let names: Vec<String> = names.chain(self.removed.iter().map(|n| format!("-{n}"))).collect();
        if names.is_empty() { "(nothing)".into() } else { names.join(", ") }
    }
}

/// Prints the report of live documents and versions; returns what there is in words.
pub(in crate::cli) fn print_report(
    ui: &Ui,
    found: Found,
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
        let key = report_key(&line.item.partition_key, format);
        let mut values = vec![json!(line.ts), json!(container), key, json!(line.item.id)];
        values.extend(line.values());
        rows.push(&values)?;
    }
    rows.finish()?;
    Ok(format!("{}, {}", count_of(live, "live document"), count_of(versions, "version")))
}

/// A key of one component stands by itself in JSON.
fn report_key(key: &PartitionKey, format: Format) -> Value {
    match (key.0.as_slice(), format) {
        ([one], Format::Json | Format::Jsonl) => one.to_json(),
        (_, Format::Json | Format::Jsonl) => key.to_json(),
        _ => json!(key.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_fields_are_those_that_mean_something_else() {
        let changed = Changed::between(
            r#"{"id":"a","n":1,"list":[1,{"x":2.0}],"gone":1,"seq":1}"#,
            r#"{"seq":2,"id":"a","n":1.0,"list":[1.0,{"x":2}],"new":null}"#,
        );
        assert_eq!(changed.for_people(), "seq, +new, -gone");
        assert_eq!(Changed::between("{}", "{}").for_people(), "(nothing)");
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

//! `history`: the versions of one document, or a report of all versions that match a predicate.

use std::{cmp::Ordering, path::PathBuf, time::Instant};

use clap::{ArgGroup, Args};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    lookup::{self, op, time},
    output::{self, Cell, Format, Rows, count_of},
    query::check_key,
    selection::{self, Documents, Matching},
};
use crate::{
    change::{
        Op, diff,
        key::{ItemKey, KeyPaths, KeyValue, PartitionKey, parse_path, render_path},
        raw::{RawDocument, unescape},
        time::PointInTime,
        version::{BadRecord, Version, key_of},
    },
    config::Names,
    cosmos::{Cosmos, Failure, Param, sql_path},
    history::{
        as_of::{self, Caveat},
        predicate::{self, PACKED_COLUMN, evaluate::Predicate},
        reader::{self, IS_RECORD, Item, Texts},
        scan::Containers,
    },
};

/// Flags of `history`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").required(true).args(["id", "ids_file", "predicate"])),
    after_help = "Examples:
  cosmos-rewind history --id 28036 --pk 28036
  cosmos-rewind history --id 28036 --changes-of /city_name
  cosmos-rewind history --where \"c.city_name = 'Davidson'\" --changes-of /city_name
  cosmos-rewind history --where \"c.city_name = @city\" --param city=Davidson --columns city_name,seq

A document's versions are listed with their time (UTC), what happened, and the top-level
fields that differ from the version before (+ added, - removed). The op `legacy` marks copies
of the original demo; their time is the copy's.

--where takes your own Cosmos SQL, put in parentheses behind WHERE and run on both containers;
the document is c, as it is or was: its own id, its whole body, and no deletes."
)]
pub struct HistoryArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// Document whose versions are shown
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Its partition key, as text or as a JSON array of the components; needed when several documents share the id
    #[arg(long, value_name = "KEY", value_parser = PartitionKey::parse)]
    pk: Option<PartitionKey>,
    /// Documents whose versions are shown: a JSON object a line with id and pk; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "pk")]
    ids_file: Option<PathBuf>,
    /// Show only when this field changed, and to what: /city_name, /address/zip, /lines/0
    #[arg(long, value_name = "/PATH")]
    changes_of: Option<String>,
    /// Report live documents and versions that match this predicate, by time; with --changes-of the changes of
    /// documents of which any version matches
    #[arg(long = "where", value_name = "PREDICATE")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate: JSON, or else text (digits as text: zip='"28036"'); repeatable
    #[arg(long = "param", value_name = "NAME=VALUE", requires = "predicate")]
    params: Vec<Param>,
    /// Further columns of the report: fields, or paths such as /address/zip
    #[arg(
        long,
        value_name = "FIELD,...",
        value_delimiter = ',',
        requires = "predicate",
        conflicts_with = "changes_of"
    )]
    columns: Vec<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(args: HistoryArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let columns = args.columns.iter().map(|c| column(c)).collect::<Result<Vec<_>, _>>()?;
    let (cosmos, names) = args.connection.open()?;
    let mut documents = match (&args.id, &args.ids_file, &args.predicate) {
        (Some(id), _, _) => {
            let found = lookup::document(&cosmos, &names, id, args.pk.as_ref(), Texts::OF_ONE).await?;
            Documents::one(found.item, found.exit)
        }
        (None, Some(file), _) => {
            let items = selection::read_ids(file, &names, &Containers::open(&cosmos, &names).await?)?;
            selection::histories(&cosmos, &names, items, Texts::OF_MANY).await?
        }
        (None, None, Some(predicate)) if args.changes_of.is_some() => {
            if args.pk.is_some() {
                return Err(CliError::usage("--pk with --where and --changes-of", "put the key into the predicate"));
            }
            let (items, exit) = selection::matched(
                &cosmos,
                &Containers::open(&cosmos, &names).await?,
                predicate,
                &args.params,
                Matching::Ever,
            )
            .await?;
            let documents = selection::histories(&cosmos, &names, items, Texts::OF_MANY).await?;
            documents.with(exit)
        }
        (None, None, Some(predicate)) => return report(&args, predicate, &columns, &cosmos, &names, started).await,
        (None, None, None) => {
            return Err(CliError::usage("nothing is asked for", "pass --id ID, --ids-file FILE or --where PREDICATE"));
        }
    };
    of_documents(&args, &mut documents, &cosmos, &names, started).await?;
    Ok(documents.exit)
}

fn column(text: &str) -> Result<Vec<String>, CliError> {
    if text.starts_with('/') {
        return parse_path(text).map_err(|problem| {
            CliError::usage(format!("--columns: {problem}"), "write --columns city_name,/address/zip")
        });
    }
    if text.is_empty() {
        return Err(CliError::usage("--columns has an empty name", "write --columns city_name,seq"));
    }
    Ok(vec![text.to_owned()])
}

/// Texts that are read ahead.
const AHEAD: usize = 8;

/// The versions of documents, or the changes of one field; of a list, each row names its document. One document's facts
/// and a few of its texts are in memory at a time.
async fn of_documents(
    args: &HistoryArgs,
    documents: &mut Documents,
    cosmos: &Cosmos,
    names: &Names,
    started: Instant,
) -> Result<(), CliError> {
    let field = args.changes_of.as_deref().map(parse_path).transpose().map_err(|problem| {
        CliError::usage(
            format!("--changes-of: {problem}"),
            "write --changes-of /city_name or --changes-of /address/zip",
        )
    })?;
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let paths = lookup::source_paths(cosmos, names, &changes).await?;
    let list = args.id.is_none();
    let mut columns = if list { vec!["id", "pk"] } else { Vec::new() };
    columns.extend(match field {
        Some(_) => change_columns(args.format),
        None => version_columns(args.format),
    });
    let mut rows = Rows::stdout(args.format, &columns);
    let (mut count, mut legacy) = (0, false);
    let mut notes = Vec::new();
    while let Some(item) = documents.next().await? {
        let about: Vec<Cell<'_>> = match (list, args.format) {
            (false, _) => Vec::new(),
            (true, Format::Table | Format::Csv) => {
                vec![item.key.id.as_str().into(), item.key.partition_key.to_string().into()]
            }
            (true, _) => vec![item.key.id.as_str().into(), lookup::pk_json(&item.key).into()],
        };
        let mut texts = stream::iter(&item.versions)
            .map(|version| lookup::text_of(&changes, &paths, &item.key, version))
            .buffered(AHEAD);
        let mut before: Option<String> = None;
        let mut walk = FieldWalk::default();
        let mut first_change = None;
        let mut versions = item.versions.iter();
        while let Some(text) = texts.try_next().await? {
            let Some(version) = versions.next() else { break };
            legacy |= version.op.is_none();
            match &field {
                Some(field) => {
                    if let Some((before, after)) = walk.step(text.as_deref(), field) {
                        count += 1;
                        first_change.get_or_insert(version);
                        let row = change_row(version, before.as_deref(), after.as_deref(), args.format);
                        rows.push_cells(&[about.clone(), row].concat())?;
                    }
                }
                None => {
                    count += 1;
                    let row = version_row(version, text.as_deref(), before.as_deref(), args.format);
                    rows.push_cells(&[about.clone(), row.into_iter().map(Cell::Value).collect()].concat())?;
                }
            }
            before = text;
        }
        drop(texts);
        if let Some(field) = &field {
            notes.extend(unknown_note(&item, first_change, field, list));
        }
        notes.extend(gap_notes(&item, list));
        if !list {
            let known = lookup::known_at(cosmos, names, &item, PointInTime::END).await?;
            let live = known.versions.iter().find(|version| version.is_live());
            notes.extend(
                live.map(|live| format!("note: the live document, of {}, is not in the history (yet)", time(live.ts))),
            );
            notes.extend(known.doubt.map(|doubt| format!("note: {doubt}")));
        }
    }
    rows.finish()?;
    if legacy {
        output::note("note: legacy versions have the time of the copy, which is later than the change itself");
    }
    for text in notes {
        output::note(&output::printable(&text));
    }
    let what = count_of(count as u64, if field.is_some() { "change" } else { "version" });
    let of = if list { format!(" of {}", count_of(documents.len() as u64, "document")) } else { String::new() };
    output::spent(&format!("{what}{of}"), cosmos, started);
    Ok(())
}

/// What is to be said of a document's chain of versions.
fn gap_notes(item: &Item, list: bool) -> Vec<String> {
    let of = if list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
    let gaps = item.versions.windows(2).filter_map(|pair| match pair {
        [one, next] => match as_of::unseen(&item.versions, one, Some(next)) {
            Some(gap @ Caveat::Gap { .. }) => Some(format!("note: after the version{of} of {}: {gap}", time(one.ts))),
            _ => None,
        },
        _ => None,
    });
    let unkeyed = item.unkeyed.iter().map(|delete| {
        format!(
            "note: a document with the id{of} was deleted at {}; the history does not say under which partition key",
            time(delete.ts)
        )
    });
    gaps.chain(unkeyed).collect()
}

fn change_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "before", "after"],
        _ => &["time", "ts", "op", "lsn", "before", "after", "record"],
    }
}

fn change_row<'a>(
    version: &'a Version,
    before: Option<&'a str>,
    after: Option<&'a str>,
    format: Format,
) -> Vec<Cell<'a>> {
    let (before, after) = (Cell::Json(before), Cell::Json(after));
    let mut cells = vec![time(version.ts).into(), op(version).into(), version.lsn.into(), before, after];
    if format != Format::Table {
        cells.insert(1, version.ts.into());
        cells.push(version.record_id.as_str().into());
    }
    cells
}

/// That a field never was there, or that its first value is not known to be the first.
fn unknown_note(item: &Item, first_change: Option<&Version>, field: &[String], list: bool) -> Option<String> {
    let of = if list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
    match (item.versions.first(), first_change) {
        (_, None) => Some(format!("note: no version{of} has a field {}", render_path(field))),
        (Some(first), Some(change)) if std::ptr::eq(first, change) && first.op != Some(Op::Create) => {
            Some(format!("note: what it was before {}{of} is not known", time(first.ts)))
        }
        _ => None,
    }
}

/// A field's value before and after a version.
type Values = (Option<String>, Option<String>);

/// Follows a field through versions. In a version without a document it has no value; nor has it before the first one.
#[derive(Debug, Default)]
struct FieldWalk {
    before: Option<String>,
}

impl FieldWalk {
    /// The field's value before and in the next version, when it got another one, came or went.
    fn step(&mut self, text: Option<&str>, field: &[String]) -> Option<Values> {
        let after = text.and_then(|text| diff::value_at(text, field));
        let differs = match (self.before.as_deref(), after) {
            (Some(before), Some(after)) => !diff::same(before, after),
            (before, after) => before.is_some() != after.is_some(),
        };
        let before = std::mem::replace(&mut self.before, after.map(str::to_owned));
        differs.then(|| (before, self.before.clone()))
    }
}

fn version_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "size", "changed", "fidelity"],
        _ => &["time", "ts", "op", "lsn", "size", "changed", "added", "removed", "fidelity", "via", "record"],
    }
}

fn version_row(version: &Version, text: Option<&str>, before: Option<&str>, format: Format) -> Vec<Value> {
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

/// One line of the report. There may be hundreds of thousands: what is only printed is kept as text.
struct Line {
    ts: i64,
    lsn: Option<i64>,
    live: bool,
    /// The id, the key and the columns, as a JSON array.
    cells: Box<str>,
}

impl Line {
    /// By time; a version stands before the live document that it equals.
    fn order(&self, other: &Self) -> Ordering {
        self.ts
            .cmp(&other.ts)
            .then(self.live.cmp(&other.live))
            .then(self.lsn.cmp(&other.lsn))
            .then_with(|| self.cells.cmp(&other.cells))
    }
}

/// A row of the report's queries.
struct ReportRow {
    ts: i64,
    lsn: Option<i64>,
    live: bool,
    key: PartitionKey,
    id: String,
    values: Vec<Value>,
    /// The id of the record, when the document is kept compressed there.
    packed: Option<String>,
}

impl ReportRow {
    /// What is kept of it until all rows are there. A key of one component stands by itself in JSON.
    fn line(self, format: Format) -> Line {
        let key = match (self.key.0.as_slice(), format) {
            ([one], Format::Json | Format::Jsonl) => one.to_json(),
            (_, Format::Json | Format::Jsonl) => self.key.to_json(),
            _ => json!(self.key.to_string()),
        };
        let cells: Vec<Value> = [json!(self.id), key].into_iter().chain(self.values).collect();
        Line { ts: self.ts, lsn: self.lsn, live: self.live, cells: Value::from(cells).to_string().into() }
    }
}

async fn report(
    args: &HistoryArgs,
    predicate: &str,
    columns: &[Vec<String>],
    cosmos: &Cosmos,
    names: &Names,
    started: Instant,
) -> Result<Exit, CliError> {
    if predicate.trim().is_empty() {
        return Err(CliError::usage(
            "--where is empty",
            "write a predicate on c, such as \"c.city_name = 'Davidson'\"",
        ));
    }
    let changes = cosmos.container(&names.database, &names.changes).await?;
    let source = cosmos.container(&names.database, &names.source).await?;
    if let Some(key) = &args.pk {
        check_key(key, source.name(), source.key_paths())?;
    }
    let mut lines = Vec::new();
    let mut undecided = Vec::new();
    for (container, live) in [(&source, true), (&changes, false)] {
        let scope = match &args.pk {
            Some(key) if live => Some(key.clone()),
            Some(key) => reader::scope(changes.key_paths(), source.key_paths(), key, None),
            None => None,
        };
        let sql = report_sql(predicate, source.key_paths(), columns, live);
        let mut pages = container.query(&sql, &args.params, scope.as_ref(), None).await.map_err(explain)?;
        while let Some(page) = pages.next().await {
            for row in page.map_err(explain)?.documents {
                let row = report_row(row.get(), live, source.key_paths().len(), columns.len());
                let mut row = row.map_err(CliError::failed)?;
                if let Some(record_id) = row.packed.take() {
                    let item = ItemKey { id: row.id.clone(), partition_key: row.key.clone() };
                    let record = reader::record(&changes, source.key_paths(), &item, &record_id).await?;
                    let text = record.and_then(|record| record.document).unwrap_or_default();
                    match packed_matches(predicate, &args.params, &text) {
                        Ok(true) => row.values = columns.iter().map(|path| value_of(&text, path)).collect(),
                        Ok(false) => continue,
                        Err(problem) => {
                            undecided.push(BadRecord { record_id, problem });
                            continue;
                        }
                    }
                }
                lines.push(row.line(args.format));
            }
        }
    }
    let exit = lookup::note_bad(&undecided);
    lines.sort_by(Line::order);

    let mut header: Vec<String> = ["_ts", "container", "pk", "id"].map(String::from).into();
    header.extend(args.columns.iter().cloned());
    let mut rows = Rows::stdout(args.format, &header);
    let (live, versions) = lines.iter().fold((0, 0), |(l, v), line| if line.live { (l + 1, v) } else { (l, v + 1) });
    for line in lines {
        let container = if line.live { source.name() } else { changes.name() };
        let cells: Vec<Value> = serde_json::from_str(&line.cells).map_err(|e| CliError::failed(e.to_string()))?;
        let mut cells = cells.into_iter();
        let (id, key) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let mut values = vec![json!(line.ts), json!(container), key, id];
        values.extend(cells);
        rows.push(&values)?;
    }
    rows.finish()?;
    output::spent(&format!("{}, {}", count_of(live, "live document"), count_of(versions, "version")), cosmos, started);
    Ok(exit)
}

/// Whether a document that the service cannot see matches.
fn packed_matches(predicate: &str, params: &[Param], text: &str) -> Result<bool, String> {
    let value = |name: &str| params.iter().find(|param| param.name == name).map(|param| &param.value);
    let predicate = Predicate::parse(predicate, value)
        .map_err(|e| format!("its document is kept compressed, and in --where {e}"))?;
    serde_json::from_str(text).map(|document| predicate.matches(&document)).map_err(|e| e.to_string())
}

fn value_of(text: &str, path: &[String]) -> Value {
    diff::value_at(text, path).map_or(Value::Null, shown)
}

/// The user's own predicate between parentheses, on a line of its own so that a comment cannot swallow the last one.
fn report_sql(predicate: &str, key_paths: &KeyPaths, columns: &[Vec<String>], live: bool) -> String {
    let mut sql = String::from(
        "SELECT c._ts AS ts, c.id AS id, c._originalId AS original, c._change.ts AS changed, c._change.lsn AS lsn",
    );
    if !live {
        sql.push_str(&format!(", c._change.key AS key, {PACKED_COLUMN}"));
    }
    for (i, path) in key_paths.segments().iter().enumerate() {
        sql.push_str(&format!(", {} AS k{i}", sql_path(path)));
    }
    for (i, path) in columns.iter().enumerate() {
        sql.push_str(&format!(", {} AS v{i}", sql_path(path)));
    }
    if live {
        sql.push_str(&format!(" FROM c WHERE (\n{predicate}\n)"));
    } else {
        sql.push_str(&format!(" FROM c WHERE {IS_RECORD} AND {}", predicate::of_records(predicate)));
    }
    sql
}

/// Understands a row of the report's queries.
fn report_row(row: &str, live: bool, components: usize, columns: usize) -> Result<ReportRow, String> {
    let row = RawDocument::parse(row).map_err(|e| format!("a row of the report is not understood: {e}"))?;
    let own_id = row.get_str("id").unwrap_or_default();
    let parts = (0..components).map(|i| KeyPaths::extract_one(&[format!("k{i}")], &row));
    let mut key = PartitionKey(parts.collect());
    let value = |name: &str| row.get(name).map_or(Value::Null, |raw| shown(raw.get()));
    let values = (0..columns).map(|i| value(&format!("v{i}"))).collect();
    let own_ts = row.get_i64("ts").unwrap_or_default();
    let (ts, id) = if live {
        (own_ts, own_id.to_string())
    } else {
        (
            row.get_i64("changed").unwrap_or(own_ts),
            row.get_str("original").unwrap_or_else(|| own_id.clone()).into_owned(),
        )
    };
    if let Some(own) = row.get("key").and_then(key_of).filter(|own| own.0.len() == components) {
        key = own;
    } else if !live {
        // A source keyed by /id: the record's own id stands there.
        for part in &mut key.0 {
            if *part == KeyValue::String(own_id.to_string()) {
                *part = KeyValue::String(id.clone());
            }
        }
    }
    let packed = row.get("packed").is_some_and(|packed| packed.get() == "true").then(|| own_id.to_string());
    Ok(ReportRow { ts, lsn: row.get_i64("lsn"), live, key, id, values, packed })
}

fn shown(text: &str) -> Value {
    if text.starts_with('"') {
        return Value::String(unescape(text).into_owned());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn explain(failure: Failure) -> CliError {
    let refused = failure.status.is_bad_request();
    let mut error = CliError::from(failure);
    if refused {
        error =
            error.hint("--where is a predicate on c with single-quoted strings, such as \"c.city_name = 'Davidson'\"");
    }
    error
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

    #[test]
    fn a_fields_changes_are_those_of_its_meaning() {
        let version = |lsn: i64, op: &str, members: &str| {
            Version::parse(&format!(
                r#"{{"id":"a~{lsn}"{members},"_originalId":"a","_change":{{"v":1,"op":"{op}","ts":5,"lsn":{lsn}}}}}"#
            ))
            .unwrap()
        };
        let versions = [
            version(1, "create", r#","n":1.10"#),
            version(2, "replace", r#","n":1.1,"m":2"#),
            version(3, "replace", r#","n":12345678901234567890"#),
            version(4, "replace", r#","n":12345678901234567891"#),
            version(5, "delete", ""),
            version(6, "create", r#","n":null"#),
            version(7, "replace", ""),
        ];
        let changes_of = |field: &str| {
            let (mut walk, field) = (FieldWalk::default(), [field.to_owned()]);
            let step = |v: &Version| Some((v.lsn.unwrap(), walk.step(v.document.as_deref(), &field)?));
            versions.iter().filter_map(step).collect::<Vec<_>>()
        };
        let changes = changes_of("n");
        let shown: Vec<_> =
            changes.iter().map(|(lsn, (before, after))| (*lsn, before.as_deref(), after.as_deref())).collect();
        assert_eq!(
            shown,
            [
                (1, None, Some("1.10")),
                (3, Some("1.1"), Some("12345678901234567890")),
                (4, Some("12345678901234567890"), Some("12345678901234567891")),
                (5, Some("12345678901234567891"), None),
                (6, None, Some("null")),
                (7, Some("null"), None),
            ]
        );
        assert_eq!(changes_of("none"), []);
    }

    #[test]
    fn the_report_asks_for_its_columns_only() {
        let paths = KeyPaths::parse(&["/pk"]).unwrap();
        insta::assert_snapshot!(report_sql("c.n = 1 -- x", &paths, &[vec!["city_name".into()]], true), @r"
        SELECT c._ts AS ts, c.id AS id, c._originalId AS original, c._change.ts AS changed, c._change.lsn AS lsn, c['pk'] AS k0, c['city_name'] AS v0 FROM c WHERE (
        c.n = 1 -- x
        )
        ");
    }

    #[test]
    fn report_lines_use_the_sources_time_and_id() {
        let row = r#"{"ts":100,"id":"a~1","original":"a","changed":90,"lsn":3,"k0":"p","v0":1.5}"#;
        let version = report_row(row, false, 1, 1).unwrap();
        assert_eq!((version.ts, version.id.as_str(), version.key.to_string().as_str()), (90, "a", "p"));
        let legacy = report_row(r#"{"ts":100,"id":"x","original":"a","k0":"p"}"#, false, 1, 1).unwrap();
        assert_eq!((legacy.ts, legacy.id.as_str()), (100, "a"));
        let live = report_row(r#"{"ts":90,"id":"a","k0":"p"}"#, true, 1, 0).unwrap();
        let [version, legacy, live] = [version, legacy, live].map(|row| row.line(Format::Json));
        assert_eq!(&*version.cells, r#"["a","p",1.5]"#);
        assert_eq!(version.order(&live), Ordering::Less);
        assert_eq!(legacy.order(&live), Ordering::Greater);
    }
}

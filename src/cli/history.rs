//! `history`: the versions of one document, or a report of all versions that match a predicate.

use std::{cmp::Ordering, path::PathBuf, time::Instant};

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    lookup::{self, op, time},
    output::{self, Cell, Format, Rows, count_of},
    query::check_key,
    restore::places,
    selection::{self, Matching},
};
use crate::{
    change::{
        Op, diff,
        key::{KeyPaths, KeyValue, PartitionKey, parse_path, render_path},
        raw::{RawDocument, unescape},
        version::Version,
    },
    config::Names,
    cosmos::{Cosmos, Failure, Param, sql_path},
    history::{
        as_of::{self, Caveat},
        reader::{self, Item},
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
the document is c. Records have ids of their own: in the history, the document's id is
c._originalId. Documents stored compressed (near 2 MB) are not matched there."
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
    let items = match (&args.id, &args.ids_file, &args.predicate) {
        (Some(id), _, _) => {
            let found = lookup::document(&cosmos, &names, id, args.pk.as_ref()).await?;
            (vec![found.item], found.exit)
        }
        (None, Some(file), _) => {
            let items = selection::read_ids(file, &names, &places(&cosmos, &names, None).await?)?;
            selection::histories(&cosmos, &names, items).await?
        }
        (None, None, Some(predicate)) if args.changes_of.is_some() => {
            if args.pk.is_some() {
                return Err(CliError::usage("--pk with --where and --changes-of", "put the key into the predicate"));
            }
            let items = selection::matched(
                &cosmos,
                &places(&cosmos, &names, None).await?,
                predicate,
                &args.params,
                Matching::Ever,
            )
            .await?;
            selection::histories(&cosmos, &names, items).await?
        }
        (None, None, Some(predicate)) => return report(&args, predicate, &columns, &cosmos, &names, started).await,
        (None, None, None) => {
            return Err(CliError::usage("nothing is asked for", "pass --id ID, --ids-file FILE or --where PREDICATE"));
        }
    };
    of_documents(&args, &items.0, &cosmos, started)?;
    Ok(items.1)
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

/// The versions of documents, or the changes of one field; of a list, each row names its document.
fn of_documents(args: &HistoryArgs, items: &[Item], cosmos: &Cosmos, started: Instant) -> Result<(), CliError> {
    let field = args.changes_of.as_deref().map(parse_path).transpose().map_err(|problem| {
        CliError::usage(
            format!("--changes-of: {problem}"),
            "write --changes-of /city_name or --changes-of /address/zip",
        )
    })?;
    let list = args.id.is_none();
    let mut columns = if list { vec!["id", "pk"] } else { Vec::new() };
    columns.extend(match field {
        Some(_) => change_columns(args.format),
        None => version_columns(args.format),
    });
    let mut rows = Rows::stdout(args.format, &columns);
    let mut count = 0;
    for item in items {
        let versions = &item.versions;
        let about: Vec<Cell<'_>> = match (list, args.format) {
            (false, _) => Vec::new(),
            (true, Format::Table | Format::Csv) => {
                vec![item.key.id.as_str().into(), item.key.partition_key.to_string().into()]
            }
            (true, _) => vec![item.key.id.as_str().into(), lookup::pk_json(&item.key).into()],
        };
        match &field {
            Some(field) => {
                let changes = changes_of(versions, field);
                count += changes.len();
                for change in &changes {
                    rows.push_cells(&[about.clone(), change_row(change, args.format)].concat())?;
                }
                note_unknown(item, &changes, field, list);
            }
            None => {
                count += versions.len();
                let mut before: Option<&str> = None;
                for version in versions {
                    let row = version_row(version, before, args.format).into_iter().map(Cell::Value).collect();
                    rows.push_cells(&[about.clone(), row].concat())?;
                    before = version.document.as_deref();
                }
            }
        }
    }
    rows.finish()?;
    if items.iter().flat_map(|item| &item.versions).any(|v| v.op.is_none()) {
        output::note("note: legacy versions have the time of the copy, which is later than the change itself");
    }
    for item in items {
        for pair in item.versions.windows(2) {
            if let [one, next] = pair
                && let Some(gap @ Caveat::Gap { .. }) = as_of::unseen(&item.versions, one, Some(next))
            {
                let of =
                    if list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
                output::note(&output::printable(&format!("note: after the version{of} of {}: {gap}", time(one.ts))));
            }
        }
    }
    let what = count_of(count as u64, if field.is_some() { "change" } else { "version" });
    let of = if list { format!(" of {}", count_of(items.len() as u64, "document")) } else { String::new() };
    output::spent(&format!("{what}{of}"), cosmos, started);
    Ok(())
}

fn change_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "before", "after"],
        _ => &["time", "ts", "op", "lsn", "before", "after", "record"],
    }
}

fn change_row<'a>(change: &FieldChange<'a>, format: Format) -> Vec<Cell<'a>> {
    let version = change.version;
    let (before, after) = (Cell::Json(change.before), Cell::Json(change.after));
    let mut cells = vec![time(version.ts).into(), op(version).into(), version.lsn.into(), before, after];
    if format != Format::Table {
        cells.insert(1, version.ts.into());
        cells.push(version.record_id.as_str().into());
    }
    cells
}

/// Says that a field never was there, or that its first value is not known to be the first.
fn note_unknown(item: &Item, changes: &[FieldChange<'_>], field: &[String], list: bool) {
    let of = if list { format!(" of {:?} ({})", item.key.id, item.key.partition_key) } else { String::new() };
    let text = match (item.versions.first(), changes.first()) {
        (_, None) => format!("note: no version{of} has a field {}", render_path(field)),
        (Some(first), Some(change)) if std::ptr::eq(first, change.version) && first.op != Some(Op::Create) => {
            format!("note: what it was before {}{of} is not known", time(first.ts))
        }
        _ => return,
    };
    output::note(&output::printable(&text));
}

/// A version in which a field got another value, came or went.
#[derive(Debug, PartialEq)]
struct FieldChange<'a> {
    version: &'a Version,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

/// When a field changed. In a version without a document it has no value; nor has it before the first version.
fn changes_of<'a>(versions: &'a [Version], field: &[String]) -> Vec<FieldChange<'a>> {
    let mut before = None;
    let mut changes = Vec::new();
    for version in versions {
        let after = version.document.as_deref().and_then(|text| diff::value_at(text, field));
        let differs = match (before, after) {
            (Some(before), Some(after)) => !diff::same(before, after),
            (before, after) => before.is_some() != after.is_some(),
        };
        if differs {
            changes.push(FieldChange { version, before, after });
        }
        before = after;
    }
    changes
}

fn version_columns(format: Format) -> &'static [&'static str] {
    match format {
        Format::Table => &["time", "op", "lsn", "size", "changed", "fidelity"],
        _ => &["time", "ts", "op", "lsn", "size", "changed", "added", "removed", "fidelity", "via", "record"],
    }
}

fn version_row(version: &Version, before: Option<&str>, format: Format) -> Vec<Value> {
    let op = op(version);
    let size = version.document.as_ref().map_or(Value::Null, |d| json!(d.len()));
    let changed = match (before, version.document.as_deref()) {
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

/// One line of the report.
struct Line {
    ts: i64,
    lsn: Option<i64>,
    container: String,
    key: PartitionKey,
    id: String,
    values: Vec<Value>,
    live: bool,
}

impl Line {
    /// By time; a version stands before the live document that it equals.
    fn order(&self, other: &Self) -> Ordering {
        self.ts
            .cmp(&other.ts)
            .then(self.live.cmp(&other.live))
            .then(self.lsn.cmp(&other.lsn))
            .then_with(|| self.id.cmp(&other.id))
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
                let line = line(row.get(), container.name(), live, source.key_paths().len(), columns.len());
                lines.push(line.map_err(CliError::failed)?);
            }
        }
    }
    lines.sort_by(Line::order);

    let mut header: Vec<String> = ["_ts", "container", "pk", "id"].map(String::from).into();
    header.extend(args.columns.iter().cloned());
    let mut rows = Rows::stdout(args.format, &header);
    let (live, versions) = lines.iter().fold((0, 0), |(l, v), line| if line.live { (l + 1, v) } else { (l, v + 1) });
    for line in lines {
        let key = match (line.key.0.as_slice(), args.format) {
            ([one], Format::Json | Format::Jsonl) => one.to_json(),
            (_, Format::Json | Format::Jsonl) => line.key.to_json(),
            _ => json!(line.key.to_string()),
        };
        let mut values = vec![json!(line.ts), json!(line.container), key, json!(line.id)];
        values.extend(line.values);
        rows.push(&values)?;
    }
    rows.finish()?;
    output::spent(&format!("{}, {}", count_of(live, "live document"), count_of(versions, "version")), cosmos, started);
    Ok(Exit::Done)
}

/// The user's own predicate between parentheses, on a line of its own so that a comment cannot swallow the last one.
fn report_sql(predicate: &str, key_paths: &KeyPaths, columns: &[Vec<String>], live: bool) -> String {
    let mut sql = String::from(
        "SELECT c._ts AS ts, c.id AS id, c._originalId AS original, c._change.ts AS changed, c._change.lsn AS lsn",
    );
    for (i, path) in key_paths.segments().iter().enumerate() {
        sql.push_str(&format!(", {} AS k{i}", sql_path(path)));
    }
    for (i, path) in columns.iter().enumerate() {
        sql.push_str(&format!(", {} AS v{i}", sql_path(path)));
    }
    sql.push_str(&format!(" FROM c WHERE (\n{predicate}\n)"));
    if !live {
        // The journals of restores are kept with the history, but are none.
        sql.push_str(" AND NOT IS_DEFINED(c._restore)");
    }
    sql
}

fn line(row: &str, container: &str, live: bool, components: usize, columns: usize) -> Result<Line, String> {
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
    if !live {
        // A source keyed by /id: the record's own id stands there.
        for part in &mut key.0 {
            if *part == KeyValue::String(own_id.to_string()) {
                *part = KeyValue::String(id.clone());
            }
        }
    }
    Ok(Line { ts, lsn: row.get_i64("lsn"), container: container.to_owned(), key, id, values, live })
}

fn shown(text: &str) -> Value {
    if text.starts_with('"') {
        return Value::String(unescape(text).into_owned());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

fn explain(failure: Failure) -> CliError {
    let refused = failure.status.starts_with("400");
    let mut error = CliError::from(failure);
    if refused {
        error.hint =
            Some("--where is a predicate on c with single-quoted strings, such as \"c.city_name = 'Davidson'\"".into());
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
        let row = |v: &Version, before: Option<&str>, format| Value::from(version_row(v, before, format)).to_string();
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
        assert_eq!(version_columns(Format::Table).len(), version_row(&first, None, Format::Table).len());
        assert_eq!(version_columns(Format::Csv).len(), version_row(&first, None, Format::Csv).len());
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
        let changes = changes_of(&versions, &["n".to_owned()]);
        let shown: Vec<_> = changes.iter().map(|c| (c.version.lsn.unwrap(), c.before, c.after)).collect();
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
        assert_eq!(changes_of(&versions, &["none".to_owned()]), []);
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
        let version = line(row, "changes", false, 1, 1).unwrap();
        assert_eq!((version.ts, version.id.as_str(), version.key.to_string().as_str()), (90, "a", "p"));
        let legacy = line(r#"{"ts":100,"id":"x","original":"a","k0":"p"}"#, "changes", false, 1, 1).unwrap();
        assert_eq!((legacy.ts, legacy.id.as_str()), (100, "a"));
        let live = line(r#"{"ts":90,"id":"a","k0":"p"}"#, "events", true, 1, 0).unwrap();
        assert_eq!(version.order(&live), Ordering::Less);
        assert_eq!(legacy.order(&live), Ordering::Greater);
    }
}

//! `history`: the versions of one document, or a report of all versions that match a predicate.

use std::{path::PathBuf, time::Instant};

use clap::{ArgGroup, Args};
use futures::TryStreamExt as _;

use super::{
    CliError, ConnectionArgs, Exit, Ui, lookup,
    render::versions::{change_columns, change_row, print_report, remark, unknown_note, version_columns, version_row},
    selection::read_ids,
};
use crate::{
    change::key::{ItemKey, PartitionKey, parse_path},
    config::Names,
    cosmos::{Cosmos, Param},
    figures::count_of,
    format::{Cell, Format, printable},
    history::{
        Account as _,
        past::{self, Lives, LookError, ReportRequest, Selection, VersionsRequest},
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
pub async fn run(args: HistoryArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let columns = args.columns.iter().map(|c| column(c)).collect::<Result<Vec<_>, _>>()?;
    let (cosmos, names) = args.connection.open()?;
    if let (None, Some(predicate), None) = (&args.ids_file, &args.predicate, &args.changes_of) {
        return report(ui, &args, predicate, columns, &cosmos, &names, started).await;
    }
    let field = args.changes_of.as_deref().map(parse_path).transpose().map_err(|problem| {
        CliError::usage(
            format!("--changes-of: {problem}"),
            "write --changes-of /city_name or --changes-of /address/zip",
        )
    })?;
    let which = args.selection(&cosmos, &names).await?;
    let cx = ui.context(&cosmos, &names).any();
    let mut lives = past::versions(VersionsRequest { which, field: field.clone() }, &cx).await?;
    let what = print(ui, &args, field.as_deref(), &mut lives).await?;
    ui.spent(&what, &cosmos, started);
    Ok(if lives.is_incomplete() { Exit::Incomplete } else { Exit::Done })
}

impl HistoryArgs {
    async fn selection(&self, cosmos: &Cosmos, names: &Names) -> Result<Selection, CliError> {
        match (&self.id, &self.ids_file, &self.predicate) {
            (Some(id), ..) => Ok(Selection::One { id: id.clone(), key: self.pk.clone() }),
            (None, Some(file), _) => {
                read_ids(file, names, &cosmos.containers(names, None).await?).map(Selection::Items)
            }
            (None, None, Some(_)) if self.pk.is_some() => {
                Err(CliError::usage("--pk with --where and --changes-of", "put the key into the predicate"))
            }
            (None, None, Some(predicate)) => {
                Ok(Selection::Where { predicate: predicate.clone(), params: self.params.clone() })
            }
            (None, None, None) => {
                Err(CliError::usage("nothing is asked for", "pass --id ID, --ids-file FILE or --where PREDICATE"))
            }
        }
    }
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

/// Prints the versions of documents, or the changes of one field; of a list, each row names its document.
async fn print(
    ui: &Ui,
    args: &HistoryArgs,
    field: Option<&[String]>,
    lives: &mut Lives<'_>,
) -> Result<String, CliError> {
    let list = args.id.is_none();
    let mut columns = if list { vec!["id", "pk"] } else { Vec::new() };
    columns.extend(match field {
        Some(_) => change_columns(args.format),
        None => version_columns(args.format),
    });
    let mut rows = ui.rows(args.format, &columns);
    let (mut count, mut legacy) = (0, false);
    let mut notes = Vec::new();
    while let Some(item) = lives.next().await? {
        let about = if list { about(&item.key, args.format) } else { Vec::new() };
        let mut first_change = None;
        let mut told = std::pin::pin!(lives.told(&item));
        while let Some(told) = told.try_next().await? {
            legacy |= told.version.op.is_none();
            let row = match (field, &told.change) {
                (Some(_), None) => continue,
                (Some(_), Some(change)) => {
                    first_change.get_or_insert(told.version);
                    change_row(told.version, change, args.format)
                }
                (None, _) => {
                    let row = version_row(told.version, told.text.as_deref(), told.before.as_deref(), args.format);
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

fn about(key: &ItemKey, format: Format) -> Vec<Cell<'_>> {
    match format {
        Format::Table | Format::Csv => vec![key.id.as_str().into(), key.partition_key.to_string().into()],
        Format::Json | Format::Jsonl => vec![key.id.as_str().into(), lookup::pk_json(key).into()],
    }
}

async fn report(
    ui: &Ui,
    args: &HistoryArgs,
    predicate: &str,
    columns: Vec<Vec<String>>,
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
    let (key, params) = (args.pk.clone(), args.params.clone());
    let request = ReportRequest { predicate: predicate.to_owned(), params, key, columns };
    let found = past::report(&request, &ui.context(cosmos, names)).await.map_err(|error| match error {
        LookError::Predicate(failure) => CliError::from(failure)
            .hint("--where is a predicate on c with single-quoted strings, such as \"c.city_name = 'Davidson'\""),
        other => other.into(),
    })?;
    let exit = lookup::note_bad(ui, &found.undecided);
    let what = print_report(ui, found, names, args.format, &args.columns)?;
    ui.spent(&what, cosmos, started);
    Ok(exit)
}

//! `history`: the versions of one document, or a report of all versions that match a predicate.

use std::{path::PathBuf, time::Instant};

use clap::{ArgGroup, Args};

use super::{
    ConnectionArgs,
    selection::{columns, read_ids},
};
use crate::{
    change::key::{PartitionKey, parse_path},
    config::Names,
    console::{
        CliError, ErrorKind, Exit, Ui,
        render::{history::print, versions::print_report},
        words,
    },
    cosmos::{Cosmos, Param},
    format::Format,
    history::{
        Account,
        past::{self, LookError, ReportRequest, Selection, VersionsRequest},
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
    let columns = columns(&args.columns)?;
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    if let (None, Some(predicate), None) = (&args.ids_file, &args.predicate, &args.changes_of) {
        return report(ui, &args, predicate, columns, cosmos, names, started).await;
    }
    let field = args.changes_of.as_deref().map(parse_path).transpose().map_err(|problem| {
        CliError::usage(
            format!("--changes-of: {problem}"),
            "write --changes-of /city_name or --changes-of /address/zip",
        )
    })?;
    let which = args.selection(opened.account(), names).await?;
    let cx = opened.context(ui);
    let mut lives = past::versions(VersionsRequest { which, field: field.clone() }, &cx).await?;
    let what = print(ui, &mut lives, field.as_deref(), args.id.is_none(), args.format).await?;
    ui.spent(&what, cosmos, started);
    Ok(if lives.is_incomplete() { Exit::Incomplete } else { Exit::Done })
}

impl HistoryArgs {
    async fn selection(&self, account: &dyn Account, names: &Names) -> Result<Selection, CliError> {
        match (&self.id, &self.ids_file, &self.predicate) {
            (Some(id), ..) => Ok(Selection::One { id: id.clone(), key: self.pk.clone() }),
            (None, Some(file), _) => {
                read_ids(file, names, &account.containers(names, None).await?).map(Selection::Items)
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
        LookError::Predicate(failure) => CliError::from(ErrorKind::Predicate(failure))
            .hint("--where is a predicate on c with single-quoted strings, such as \"c.city_name = 'Davidson'\""),
        other => other.into(),
    })?;
    let exit = words::note_bad(ui, &found.undecided);
    let what = print_report(ui, found, names, args.format, &args.columns)?;
    ui.spent(&what, cosmos, started);
    Ok(exit)
}

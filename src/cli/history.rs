//! `history`: the versions of one document, or a report of all versions that match a predicate.

use std::{pin::pin, time::Instant};

use futures::TryStreamExt as _;

pub use super::history_args::HistoryArgs;
use super::selection::columns;
use crate::{
    change::key::parse_path,
    config::Names,
    console::{
        CliError, ErrorKind, Exit, Ui,
        render::{history::VersionPrinter, versions::print_report},
        words,
    },
    cosmos::Cosmos,
    history::past::{self, LookError, ReportRequest, VersionsRequest},
};

/// Runs the command.
pub async fn run(args: HistoryArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let columns = columns(&args.columns)?;
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    if let (None, Some(predicate), None) = (&args.ids_file, &args.predicate, &args.changes_of) {
        if opened.elsewhere.is_some() {
            return Err(CliError::usage(
                "--where without --changes-of asks a container of Cosmos DB, and the source is a MongoDB deployment",
                "find --when lists the writes that made a condition true; show --where prints the documents of a moment",
            ));
        }
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
    let mut out = VersionPrinter::new(ui, field.as_deref(), args.id.is_none(), args.format);
    while let Some(item) = lives.next().await? {
        let mut versions = pin!(lives.told(&item));
        while let Some(told) = versions.try_next().await? {
            out.push(&item, &told)?;
        }
        out.end(&item, &lives.remarks(&item).await?);
    }
    let exit = if lives.is_incomplete() { Exit::Incomplete } else { out.exit() };
    let what = out.finish(lives.asked())?;
    ui.spent(&what, cosmos, started);
    Ok(exit)
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

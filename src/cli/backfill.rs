//! `backfill`: a baseline of the documents that existed before capture.

use std::sync::Arc;

use clap::{ArgGroup, Args};

use super::{ConnectionArgs, connection::PartArgs};
use crate::{
    backfill::{self, Request},
    config::Settings,
    console::{CliError, Exit, Ui, render, words},
    cosmos::Param,
    format::Format,
    history::baseline::Extent,
    projection::Projection,
};

/// Flags of `backfill`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("scope").required(true)),
    after_help = "Examples:
  cosmos-rewind backfill --all --ru-limit 500
  cosmos-rewind backfill --where \"c.city_name = @city\" --param city=Davidson
Run it once when capture runs; running it again is harmless, and finishes what was interrupted."
)]
pub struct BackfillArgs {
    /// Live documents that match this predicate; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "scope")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// All live documents
    #[arg(long, group = "scope")]
    all: bool,
    #[command(flatten)]
    part: PartArgs,
    /// Writes in flight
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Save whole documents, though capture leaves something out of them on purpose
    #[arg(long)]
    whole: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How much of each document is saved: what the settings of capture leave, unless the whole is asked for.
///
/// # Errors
/// When such a setting is wrong.
pub(super) fn extent(whole: bool, settings: &Settings) -> Result<Extent, CliError> {
    if whole {
        return Ok(Extent::WholeAnyway);
    }
    let projection = Projection::from_settings(settings, None)?;
    Ok(projection.map_or(Extent::Whole, |projection| Extent::Part(Arc::new(projection))))
}

/// Runs the command.
///
/// # Errors
/// When the predicate is wrong or the account cannot be used. A document that could not be saved is reported, and makes
/// the exit code 3.
pub async fn run(args: BackfillArgs, ui: &Ui) -> Result<Exit, CliError> {
    let settings = args.connection.settings()?;
    let (cosmos, names) = args.connection.open_with(&settings)?;
    let extent = extent(args.whole, &settings)?;
    let request = Request {
        predicate: args.predicate.map(|predicate| (predicate, args.param)),
        extent,
        shard: args.part.feed_range,
        ru_limit: args.part.ru_limit,
        concurrency: args.concurrency.into(),
    };
    let report = backfill::run(request, ui.careful_context(&cosmos, &names).any()).await?;
    render::backfill::print(ui, &report, &format!("{}/{}", names.database, names.source), args.format)?;
    match report.fatal {
        Some(failure) => Err(failure.into()),
        None if report.stopped => {
            ui.hint("stopped before the end; the command goes on with what is left when it is run again");
            Ok(Exit::Incomplete)
        }
        None if report.failed > 0 => {
            ui.hint("run the command again when that is fixed; what is saved already is left alone");
            Ok(Exit::Incomplete)
        }
        None => Ok(words::note_bad(ui, &report.bad)),
    }
}

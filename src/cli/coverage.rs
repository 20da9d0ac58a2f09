//! `coverage`: which periods the history covers, and how well.

use std::time::Instant;

use clap::Args;

use super::{ConnectionArgs, connection::PartArgs, verify::span};
use crate::{
    console::{CliError, Exit, Ui, render, words},
    coverage::{self, Request},
    format::Format,
};

/// Flags of `coverage`.
#[derive(Debug, Args)]
#[command(after_help = "Reads the facts of every version, not the documents.")]
pub struct CoverageArgs {
    #[command(flatten)]
    part: PartArgs,
    /// Take a version that was captured later than this after its change as a sign that capture was down or behind
    #[arg(long, value_name = "SPAN", value_parser = span, default_value = "5m")]
    late: i64,
    /// How to print the days
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the account cannot be used.
pub async fn run(args: CoverageArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let opened = args.connection.opened().await?;
    let cosmos = &opened.cosmos;
    let request = Request { late: args.late, shard: args.part.feed_range, ru_limit: args.part.ru_limit };
    let report = coverage::read(request, opened.careful_context(ui)).await?;
    render::coverage::print(ui, &report, args.format)?;
    report.holes.iter().for_each(|hole| ui.note(&format!("warning: {hole}")));
    let exit = words::note_bad(ui, &report.bad);
    ui.spent("read", cosmos, started);
    Ok(exit)
}

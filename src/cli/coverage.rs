//! `coverage`: which periods the history knows, and how well.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{ConnectionArgs, connection::PartArgs, verify::span};
use crate::{
    change::time::PointInTime,
    console::{CliError, Exit, Ui, words},
    coverage::{self, KnownDay, Report, Request},
    figures::count_of,
    format::Format,
};

/// Flags of `coverage`.
#[derive(Debug, Args)]
#[command(after_help = "Reads the facts of every version, not the documents.")]
pub struct CoverageArgs {
    #[command(flatten)]
    part: PartArgs,
    /// A version captured later than this after its change says that capture was down or behind
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
    let report = coverage::read(request, opened.context(ui)).await?;
    print(ui, &report, args.format)?;
    let exit = words::note_bad(ui, &report.bad);
    ui.spent("read", cosmos, started);
    Ok(exit)
}

fn print(ui: &Ui, report: &Report, format: Format) -> Result<(), CliError> {
    let columns =
        ["day", "mode", "versions", "all_versions", "latest", "baseline", "legacy", "normalized", "late", "gaps"];
    let mut rows = ui.rows(format, &columns);
    for KnownDay { day, mode, known } in &report.days {
        rows.push(&[
            day.to_string().into(),
            mode.name().into(),
            json!(known.versions),
            json!(known.all_versions),
            json!(known.latest),
            json!(known.baseline),
            json!(known.legacy),
            json!(known.normalized),
            json!(known.late),
            json!(known.gaps),
        ])?;
    }
    rows.finish()?;
    for period in &report.periods {
        let gaps = if period.gaps == 0 { String::new() } else { format!(", {}", count_of(period.gaps, "gap")) };
        ui.note(&format!("{} to {}  {}{gaps}", period.from, period.to, period.mode.name()));
    }
    for outage in &report.outages {
        ui.note(&format!(
            "{} to {}  capture was down or behind: {} waited",
            PointInTime::from_epoch(outage.from),
            PointInTime::from_epoch(outage.to),
            count_of(outage.versions, "version")
        ));
    }
    Ok(())
}

//! `coverage`: which periods the history knows, and how well.

use std::time::Instant;

use clap::Args;
use futures::StreamExt as _;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    connection::{PartArgs, hash_ranges},
    lookup,
    output::{self, Format, Progress, Rows, count_of, note},
    restore,
    verify::span,
};
use crate::{
    change::time::PointInTime,
    history::scan::{LiveDetail, PIECE_ROWS, Scan, Scope},
    upkeep::coverage::Coverage,
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
pub async fn run(args: CoverageArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let containers = restore::containers(&cosmos, &names, None).await?;
    let hash_ranges = hash_ranges(&containers, args.part.feed_range, "everything is read")?;
    let pace = args.part.pace(&cosmos);
    let scan = Scan {
        containers: &containers,
        wanted: &Scope::All,
        at: PointInTime::END,
        hash_ranges: &hash_ranges,
        live: LiveDetail::No,
        piece_rows: PIECE_ROWS,
        pace: &pace,
        needs_text: &|_| false,
    };
    let progress = Progress::new("coverage", None);
    let mut coverage = Coverage::new(args.late);
    let mut bad = Vec::new();
    let mut pieces = std::pin::pin!(scan.pieces());
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        bad.extend(piece.bad);
        for found in piece.found {
            progress.inc(found.versions.len() as u64);
            coverage.add(&found.versions);
        }
    }
    progress.finish();
    let columns =
        ["day", "mode", "versions", "all_versions", "latest", "baseline", "legacy", "normalized", "late", "gaps"];
    let mut rows = Rows::stdout(args.format, &columns);
    for (day, known) in coverage.days() {
        rows.push(&[
            day.to_string().into(),
            known.mode().name().into(),
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
    for period in coverage.periods() {
        let gaps = if period.gaps == 0 { String::new() } else { format!(", {}", count_of(period.gaps, "gap")) };
        note(&format!("{} to {}  {}{gaps}", period.from, period.to, period.mode.name()));
    }
    for outage in coverage.outages() {
        note(&format!(
            "{} to {}  capture was down or behind: {} waited",
            PointInTime::from_epoch(outage.from),
            PointInTime::from_epoch(outage.to),
            count_of(outage.versions, "version")
        ));
    }
    let exit = lookup::note_bad(&bad);
    output::spent("read", &cosmos, started);
    Ok(exit)
}

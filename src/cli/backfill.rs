//! `backfill`: a baseline of the documents that existed before capture.

use std::{sync::Arc, time::Instant};

use clap::Args;
use futures::StreamExt as _;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    connection::{PartArgs, hash_ranges},
    lookup,
    output::{self, Format, Progress, printable, tenths},
    restore,
};
use crate::{
    change::{key::ItemKey, time::PointInTime},
    cosmos::{Bulk, Failure, Observer, Param},
    history::{
        baseline::{Saver, is_missing, op_of},
        scan::{LiveDetail, PIECE_ROWS, Scan, Scope},
    },
};

/// Flags of `backfill`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind backfill --all --ru-limit 500
  cosmos-rewind backfill --where \"c.city_name = @city\" --param city=Davidson
Run it once when capture runs; running it again is harmless, and finishes what was interrupted.")]
pub struct BackfillArgs {
    /// Live documents that match this predicate; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", required_unless_present = "all", conflicts_with = "all")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// All live documents
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    part: PartArgs,
    /// Writes in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the predicate is wrong or the account cannot be used. A document that could not be saved is reported and
/// makes the exit code 3.
pub async fn run(args: BackfillArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let containers = restore::containers(&cosmos, &names, None).await?;
    let hash_ranges = hash_ranges(&containers, args.part.feed_range, "one machine saves everything")?;
    let scope = match &args.predicate {
        Some(predicate) => Scope::Live { predicate: predicate.clone(), params: args.param.clone() },
        None => Scope::All,
    };
    let pace = args.part.pace(&cosmos);
    let scan = Scan {
        containers: &containers,
        wanted: &scope,
        at: PointInTime::END,
        hash_ranges: &hash_ranges,
        live: LiveDetail::Text,
        piece_rows: PIECE_ROWS,
        pace: &pace,
        needs_text: &is_missing,
    };
    let progress = Arc::new(Progress::new("backfill", None));
    let observer: Observer = {
        let progress = progress.clone();
        Arc::new(move |record: &ItemKey, failure: Option<&Failure>| {
            if let Some(failure) = failure {
                progress.note(&printable(&format!("record {:?} ({}): {failure}", record.id, record.partition_key)));
            }
        })
    };
    let bulk = Bulk::start(&containers.changes, usize::from(args.concurrency), pace.clone(), observer);
    let saver = Saver { containers: &containers, pace: &pace, bulk: &bulk, concurrency: args.concurrency.into() };
    let (mut existed, mut unusable, mut stopped) = (0, 0, false);
    let mut bad = Vec::new();
    let mut pieces = std::pin::pin!(scan.pieces());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|f| restore::explain(f, args.predicate.is_some()))?;
        bad.extend(piece.bad);
        let found = piece.found;
        let (missing, known): (Vec<_>, Vec<_>) = found.into_iter().filter(|f| f.live.is_some()).partition(is_missing);
        existed += known.len() as u64;
        progress.inc((missing.len() + known.len()) as u64);
        let saved = saver.save(missing, op_of).await?;
        for (item, problem) in &saved.unusable {
            progress.note(&printable(&format!("document {:?} ({}): {problem}", item.id, item.partition_key)));
        }
        unusable += saved.unusable.len() as u64;
        if saved.stopped {
            stopped = true;
            break;
        }
    }
    let (tally, fatal) = bulk.finish().await;
    progress.finish();
    let failed = tally.failed + unusable;
    // What capture saved in between existed as well.
    existed += tally.skipped;
    output::summary(
        args.format,
        &[
            ("container", json!(format!("{}/{}", names.database, names.source))),
            ("documents", json!(tally.created + existed + failed)),
            ("written", json!(tally.created)),
            ("existed", json!(existed)),
            ("failed", json!(failed)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(started.elapsed().as_secs_f64())),
        ],
    )?;
    match fatal {
        Some(failure) => Err(failure.into()),
        None if stopped => Err(CliError::failed("the writers stopped")),
        None if failed > 0 => {
            output::hint("run the command again when that is mended; what is saved already is left alone");
            Ok(Exit::Incomplete)
        }
        None => Ok(lookup::note_bad(&bad)),
    }
}

//! `verify`: proves that the history has what is live, and that nothing is missing in between.

use std::time::Instant;

use clap::Args;

use super::{ConnectionArgs, backfill::extent, connection::PartArgs, lookup};
use crate::{
    change::time::{PointInTime, seconds_of},
    console::{CliError, Exit, Ui, render},
    format::Format,
    history::baseline::Extent,
    verify::{self, Check, Request, Verdict},
};

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind verify
  cosmos-rewind verify --content --deep 1000 --ru-limit 500 --format json
  cosmos-rewind verify --repair")]
pub struct VerifyArgs {
    /// Compare the texts, not only the etags
    #[arg(long)]
    content: bool,
    /// Rebuild this many versions, chosen at random, as documents
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    deep: u32,
    /// Save the live documents that the history lacks
    #[arg(long)]
    repair: bool,
    /// With --repair: save whole documents, though capture leaves something out of them on purpose
    #[arg(long, requires = "repair")]
    whole: bool,
    /// Tolerate that documents younger than this are not captured yet: a span such as 60s or 5m
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    grace: i64,
    /// Do not count missing and absent versions before this moment: they may have been pruned
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Name at most this many documents per check
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    #[command(flatten)]
    part: PartArgs,
    /// Documents read or written at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A span of time in seconds.
pub(super) fn span(text: &str) -> Result<i64, String> {
    seconds_of(text).ok_or_else(|| "write a span such as 60s, 5m, 2h or 7d".into())
}

/// Runs the command.
///
/// # Errors
/// When the account cannot be used. Anything that is wrong with the history makes the exit code 3.
pub async fn run(args: VerifyArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings()?;
    let extent = extent(args.whole, &settings)?;
    let opened = args.connection.opened_with(&settings).await?;
    let cosmos = &opened.cosmos;
    let since = match &args.since {
        Some(text) => Some(lookup::point(ui, opened.account(), "--since", text).await?),
        None => None,
    };
    let report = verify::run(args.request(since, extent), opened.careful_context(ui)).await?;
    render::verify::print(ui, &report, args.format)?;
    report.holes.iter().for_each(|hole| ui.note(&format!("warning: {hole}")));
    if !matches!(args.format, Format::Json | Format::Jsonl) {
        if report.verdict(Check::Missing) != Verdict::Ok && !args.repair {
            ui.hint("verify --repair saves what is missing; look first whether capture runs");
        }
        ui.spent("verified", cosmos, started);
    }
    Ok(if report.result() == Verdict::Ok { Exit::Done } else { Exit::Incomplete })
}

impl VerifyArgs {
    fn request(&self, since: Option<PointInTime>, extent: Extent) -> Request {
        Request {
            content: self.content,
            sample: self.deep as usize,
            repair: self.repair,
            extent,
            grace: self.grace,
            since,
            named: self.show,
            shard: self.part.feed_range,
            ru_limit: self.part.ru_limit,
            concurrency: self.concurrency.into(),
        }
    }
}

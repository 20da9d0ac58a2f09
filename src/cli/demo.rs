//! `demo`: the whole story on this machine, with its proof.

use std::time::{Duration, Instant};

use clap::Args;

use super::local::FeedModeArg;
use crate::{
    config::Settings,
    console::{
        CliError, Exit, Ui,
        render::demo::{judge, print, summed_up},
    },
    format::Format,
    local::demo::{self, Request},
    telemetry,
};

/// Flags of `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Number of writes: each is a randomly picked zip code, so that inserts are followed by updates
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Change feed mode; in `latest` a version replaced between two polls is never seen, as in the service
    #[arg(long, value_enum, default_value = "all-versions")]
    mode: FeedModeArg,
    /// Physical partitions, and thus leases that work at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Makes the random picks repeatable
    #[arg(long, value_name = "N", default_value_t = 35)]
    seed: u64,
    /// How many seconds to wait for the last change
    #[arg(long, value_name = "S", default_value_t = 120)]
    patience: u64,
    /// Print the timeline and the summary in this format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When anything is missing, doubled, out of order or wrong, or a part does not start.
pub async fn run(args: DemoArgs, ui: &Ui) -> Result<Exit, CliError> {
    telemetry::start(&Settings::environment(), telemetry::LogStream::Stderr, "warn")?;
    let start = Instant::now();
    let request = Request {
        count: args.count,
        mode: args.mode.into(),
        partitions: args.partitions,
        seed: args.seed,
        patience: Duration::from_secs(args.patience),
    };
    let mut printed = Ok(Vec::new());
    let told = demo::run(&request, ui.screen(), |report| printed = print(ui, report, args.format, start)).await;
    let figures = printed?;
    if matches!(args.format, Format::Json | Format::Jsonl) && !figures.is_empty() {
        let incident = told.as_ref().ok().and_then(|(_, incident)| incident.as_ref());
        ui.summary(args.format, &[figures, vec![("incident", summed_up(incident))]].concat())?;
    }
    let (report, incident) = told?;
    judge(&report, incident.as_ref())
}

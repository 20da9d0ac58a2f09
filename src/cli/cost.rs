//! `cost`: how much throughput and storage capture will need, and what a restore costs.

use clap::Args;

use crate::{
    console::{CliError, Exit, Ui, render},
    format::Format,
    restore::sizing::{Load, Prices},
};

/// Which change feed is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum CostedFeed {
    /// The newest version of each document: changes in quick succession are captured once
    Latest,
    /// Every version and every delete
    AllVersions,
}

/// Flags of `cost`.
#[derive(Debug, Args)]
#[command(after_help = "Connects to no account. Example:
  cosmos-rewind cost --docs-per-day 2000000 --size 2048 --index-paths 2 --retention 90")]
pub struct CostArgs {
    /// Changes of the source a day, deletes included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    docs_per_day: u64,
    /// Bytes of a document, on average
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=2_097_152))]
    size: u32,
    /// Index paths of the history beyond those of `provision` (each --index is one)
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
    index_paths: u32,
    /// Days that versions are kept
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    retention: u32,
    /// Share of the documents that the host may alter, 0 to 1: they are read again (REWIND_FIDELITY=exact)
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    fidelity: f64,
    /// Which change feed is captured
    #[arg(long, value_enum, default_value = "all-versions")]
    mode: CostedFeed,
    /// The busiest second, as a multiple of the average
    #[arg(long, value_name = "FACTOR", default_value = "5", value_parser = factor)]
    peak: f64,
    /// Documents of the restore whose request units are estimated
    #[arg(long, value_name = "N", default_value_t = 1000)]
    restore: u64,
    /// Price of 100 RU/s, provisioned, per hour; with --price-gb
    #[arg(long, value_name = "PRICE", requires = "price_gb", value_parser = price)]
    price_ru: Option<f64>,
    /// Price of a GB per month; with --price-ru
    #[arg(long, value_name = "PRICE", requires = "price_ru", value_parser = price)]
    price_gb: Option<f64>,
    /// How to print the figures
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn share(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 1.0, "write a number from 0 to 1")
}

fn factor(text: &str) -> Result<f64, String> {
    number_in(text, 1.0, 10_000.0, "write a number from 1 to 10000")
}

fn price(text: &str) -> Result<f64, String> {
    number_in(text, 0.0, 1e9, "write a number, 0 or more")
}

fn number_in(text: &str, least: f64, most: f64, fix: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ => Err(fix.to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(args: CostArgs, ui: &Ui) -> Result<Exit, CliError> {
    let load = Load {
        versions_a_day: args.docs_per_day as f64,
        bytes: args.size as usize,
        index_paths: args.index_paths,
        days: f64::from(args.retention),
        reread: args.fidelity,
        peak: args.peak,
        restored: args.restore,
    };
    let sizing = load.size();
    let cost = args
        .price_ru
        .zip(args.price_gb)
        .map(|(hundred_ru_hour, gb_month)| sizing.cost(Prices { hundred_ru_hour, gb_month }));
    render::cost::show(ui, &sizing, cost.as_ref(), args.mode == CostedFeed::Latest, args.format)?;
    Ok(Exit::Done)
}

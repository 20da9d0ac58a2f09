//! `demo`: the whole story on this machine, with its proof.

use std::time::{Duration, Instant};

use chrono::DateTime;
use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Exit, Ui, local::Mode};
use crate::{
    change::version::Version,
    config::Settings,
    format::{Format, tenths},
    local::demo::{self, Report, Request},
    telemetry,
};

/// Flags of `demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Writes: each a zip code picked at random, so that inserts are followed by updates
    #[arg(long, value_name = "N", default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    count: u64,
    /// Change feed mode; in `latest` a version replaced between two polls is never seen, as in the service
    #[arg(long, value_enum, default_value = "all-versions")]
    mode: Mode,
    /// Physical partitions, and with it leases that work at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    partitions: u32,
    /// Makes the random picks repeatable
    #[arg(long, value_name = "N", default_value_t = 35)]
    seed: u64,
    /// Seconds to wait for the last change
    #[arg(long, value_name = "S", default_value_t = 120)]
    patience: u64,
    /// Print the timeline and the summary in this format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When anything is missing, doubled or out of order, and when a part does not start.
pub async fn run(args: DemoArgs, ui: &Ui) -> Result<Exit, CliError> {
    telemetry::start(&Settings::environment(), telemetry::Stream::Stderr, "warn")?;
    let start = Instant::now();
    let request = Request {
        count: args.count,
        mode: args.mode.into(),
        partitions: args.partitions,
        seed: args.seed,
        patience: Duration::from_secs(args.patience),
    };
    let report = demo::run(&request, ui.screen()).await?;
    print(ui, &report, args.format, start)?;
    if report.letters > 0 {
        return Err(CliError::failed(format!("{} changes went to the dead-letter store", report.letters)));
    }
    match &report.proof {
        Ok(what) => {
            ui.note(&format!("proved     {what}"));
            Ok(Exit::Done)
        }
        Err(problems) => {
            let shown = problems.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
            Err(CliError::failed(format!("{} problems in the history:\n  {shown}", problems.len())))
        }
    }
}

fn print(ui: &Ui, report: &Report, format: Format, start: Instant) -> Result<(), CliError> {
    let mut figures = vec![
        ("documents", json!(report.documents)),
        ("versions_written", json!(report.written)),
        ("versions_captured", json!(report.captured)),
        ("documents_per_second", json!((report.written as f64 / report.took.as_secs_f64()).round() as u64)),
        ("invocations", json!(report.invocations)),
        ("lag_ms_p50", json!(percentile(&report.lags, 50))),
        ("lag_ms_p99", json!(percentile(&report.lags, 99))),
        ("ru_of_capture", tenths(report.charged)),
        ("ru_per_version", tenths(report.charged / report.captured.max(1) as f64)),
        ("seconds", tenths(start.elapsed().as_secs_f64())),
    ];
    let columns = ["version", "time", "op", "lsn", "prev_lsn", "seq", "bytes", "fidelity"];
    let mut rows = Vec::new();
    if let Some((zip, versions)) = &report.timeline {
        ui.note(&format!("timeline   of {} ({})", zip.zip, zip.city));
        rows.extend(versions.iter().enumerate().map(|(i, version)| row(i, version)));
    }
    if format == Format::Table {
        let mut table = ui.rows(format, &columns);
        rows.iter().try_for_each(|row| table.push(row))?;
        table.finish()?;
    } else if format != Format::Csv {
        // One document for programs: the timeline is part of it.
        let named = rows.into_iter().map(|row| Value::from_iter(columns.iter().map(|c| (*c).to_owned()).zip(row)));
        figures.push(("timeline", named.collect()));
    }
    ui.summary(format, &figures)
}

fn row(place: usize, version: &Version) -> Vec<Value> {
    let text = version.document.as_deref().unwrap_or_default();
    let document: Value = serde_json::from_str(text).unwrap_or_default();
    let time = DateTime::from_timestamp(version.ts, 0).map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    vec![
        json!(place + 1),
        json!(time),
        json!(version.op),
        json!(version.lsn),
        json!(version.prev_lsn),
        document.get("seq").cloned().unwrap_or_default(),
        json!(text.len()),
        json!(version.fidelity),
    ]
}

fn percentile(sorted: &[i64], percent: usize) -> i64 {
    sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

//! `demo`: the whole story on this machine: an account, the handler under the trigger, documents, and the proof that
//! every version of every document is in the history exactly once and in order.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, Utc};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    CliError, Exit,
    local::{Mode, handler_settings, local_error, prepare, this_program, trigger_error},
    output::{self, Format, Progress, Rows, note},
};
use crate::{
    change::{
        key::{KeyValue, PartitionKey},
        version::Version,
    },
    config::{Names, Settings},
    cosmos::{Container, Failure, Retry},
    host::functions::DEFAULT_FUNCTION,
    local::{
        LocalCosmos, LocalOptions,
        trigger::{Trigger, TriggerOptions},
    },
    telemetry, zipcodes,
};

/// How many documents are written at a time. Each document belongs to one writer, so its versions have one order.
const WRITERS: usize = 16;
/// How soon the trigger looks again after it found nothing.
const POLL: Duration = Duration::from_millis(50);

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

/// A version as it was written to the source.
struct Expected {
    etag: String,
    /// When the write was acknowledged, milliseconds since 1970.
    written_at: i64,
}

/// Versions by document, in the order they were written.
type Written = BTreeMap<&'static str, Vec<Expected>>;

/// Runs the command.
///
/// # Errors
/// When anything is missing, doubled or out of order, and when a part does not start.
pub async fn run(args: DemoArgs) -> Result<Exit, CliError> {
    let settings = Settings::environment();
    telemetry::start(&settings, telemetry::Stream::Stderr, "warn")?;
    let names =
        Names { database: "dev".into(), source: "events".into(), changes: "changes".into(), leases: "leases".into() };
    let start = Instant::now();
    let local = LocalCosmos::start(LocalOptions { partitions: args.partitions, ..LocalOptions::default() })
        .await
        .map_err(local_error)?;
    let cosmos = prepare(&local, &names).await?;
    note(&format!(
        "account    {} with {}/{}, {}, {}",
        local.endpoint(),
        names.database,
        names.source,
        names.changes,
        names.leases
    ));

    // A folder of its own: the demo leaves nothing behind, and no function.json of the caller's changes it.
    let folder = std::env::temp_dir().join(format!("cosmos-rewind-demo-{:016x}", rand::random::<u64>()));
    std::fs::create_dir(&folder)
        .map_err(|e| CliError::failed(format!("cannot create {}", folder.display())).because(e))?;
    let outcome = story(&args, &names, &local, &cosmos, &folder, start).await;
    let cleaned = std::fs::remove_dir_all(&folder);
    local.shutdown().await;
    let exit = outcome?;
    cleaned.map_err(|e| CliError::failed(format!("cannot remove {}", folder.display())).because(e))?;
    Ok(exit)
}

async fn story(
    args: &DemoArgs,
    names: &Names,
    local: &LocalCosmos,
    cosmos: &crate::cosmos::Cosmos,
    folder: &std::path::Path,
    start: Instant,
) -> Result<Exit, CliError> {
    let mut options = TriggerOptions::new(folder);
    options.handler = this_program()?;
    options.settings = handler_settings(local, names);
    options.mode = Some(args.mode.into());
    options.poll_delay = Some(POLL);
    let trigger = Trigger::start(local, options).await.map_err(trigger_error)?;
    let ready = trigger.stats().await.handler_ready.unwrap_or_default();
    note(&format!(
        "handler    pid {}, function {DEFAULT_FUNCTION}, ready after {} ms, as the Functions host starts it",
        trigger.handler_pid().unwrap_or_default(),
        ready.as_millis()
    ));

    let source = cosmos.container(&names.database, &names.source).await?;
    let writing = Instant::now();
    let written = populate(&source, args).await?;
    let wrote = writing.elapsed();
    note(&format!("populated  {} documents, {} versions, in {:.1} s", written.len(), args.count, wrote.as_secs_f64()));

    let drained = trigger.wait_until_drained(Duration::from_secs(args.patience)).await;
    let captured = writing.elapsed();
    let stats = trigger.stats().await;
    trigger.stop().await;
    drained.map_err(trigger_error)?;

    let changes = cosmos.container(&names.database, &names.changes).await?;
    let history = read_history(&changes).await?;
    let letters = std::fs::read_dir(folder.join(".dead-letters")).map_or(0, Iterator::count);
    let proof = prove(&written, &history, args.mode == Mode::AllVersions);

    let versions: usize = history.values().map(Vec::len).sum();
    let charged = local.charged(&names.database, &names.changes);
    let lags = lags(&written, &history);
    let mut figures = vec![
        ("documents", json!(written.len())),
        ("versions_written", json!(args.count)),
        ("versions_captured", json!(versions)),
        ("documents_per_second", json!((args.count as f64 / captured.as_secs_f64()).round() as u64)),
        ("invocations", json!(stats.invocations)),
        ("lag_ms_p50", json!(percentile(&lags, 50))),
        ("lag_ms_p99", json!(percentile(&lags, 99))),
        ("ru_of_capture", output::tenths(charged)),
        ("ru_per_version", output::tenths(charged / versions.max(1) as f64)),
        ("seconds", output::tenths(start.elapsed().as_secs_f64())),
    ];
    let (columns, rows) = timeline(&written, &history);
    if args.format == Format::Table {
        let mut table = Rows::stdout(args.format, &columns);
        rows.iter().try_for_each(|row| table.push(row))?;
        table.finish()?;
    } else if args.format != Format::Csv {
        // One document for programs: the timeline is part of it.
        let named = rows.into_iter().map(|row| Value::from_iter(columns.iter().map(|c| (*c).to_owned()).zip(row)));
        figures.push(("timeline", named.collect()));
    }
    output::summary(args.format, &figures)?;
    if letters > 0 {
        return Err(CliError::failed(format!("{letters} changes went to the dead-letter store")));
    }
    match proof {
        Ok(what) => {
            note(&format!("proved     {what}"));
            Ok(Exit::Done)
        }
        Err(problems) => {
            let shown = problems.iter().take(10).cloned().collect::<Vec<_>>().join("\n  ");
            Err(CliError::failed(format!("{} problems in the history:\n  {shown}", problems.len())))
        }
    }
}

async fn populate(source: &Container, args: &DemoArgs) -> Result<Written, CliError> {
    let mut rng = StdRng::seed_from_u64(args.seed);
    let mut shares: Vec<Vec<(u64, &'static zipcodes::Zipcode)>> = (0..WRITERS).map(|_| Vec::new()).collect();
    for seq in 1..=args.count {
        let index = rng.random_range(0..zipcodes::all().len());
        shares[index % WRITERS].push((seq, &zipcodes::all()[index]));
    }
    let progress = Progress::new("populating", Some(args.count));
    let written: Vec<Written> = stream::iter(shares)
        .map(|share| {
            let progress = &progress;
            async move {
                let mut written = Written::new();
                for (seq, zip) in share {
                    let key = PartitionKey(vec![KeyValue::String(zip.zip.to_owned())]);
                    let text = zip.document(seq, Utc::now());
                    let done = Retry::for_at_most(Duration::from_secs(30))
                        .run(|| source.upsert(&key, zip.zip, text.clone().into_bytes()))
                        .await?;
                    let etag = done
                        .etag
                        .ok_or_else(|| Failure::invalid("upsert item".into(), "the account sent no etag".into()))?;
                    written.entry(zip.zip).or_default().push(Expected { etag, written_at: now_ms() });
                    progress.inc(1);
                }
                Ok::<_, Failure>(written)
            }
        })
        .buffer_unordered(WRITERS)
        .try_collect()
        .await?;
    progress.finish();
    Ok(written.into_iter().flatten().collect())
}

/// Everything in `changes`, by document, each in version order.
async fn read_history(changes: &Container) -> Result<BTreeMap<String, Vec<Version>>, CliError> {
    let mut history: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    let mut pages = changes.query("SELECT * FROM c", &[], None, None).await?;
    while let Some(page) = pages.next().await {
        for record in page?.documents {
            let version = Version::parse(record.get()).map_err(|e| CliError::failed(e.to_string()))?;
            history.entry(version.id.clone()).or_default().push(version);
        }
    }
    for versions in history.values_mut() {
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
    }
    Ok(history)
}

/// Compares what was written with what is in the history, version by version.
fn prove(
    written: &Written,
    history: &BTreeMap<String, Vec<Version>>,
    all_versions: bool,
) -> Result<String, Vec<String>> {
    let mut problems = Vec::new();
    let mut proved = 0;
    for (zip, expected) in written {
        let found: Vec<&str> =
            history.get(*zip).into_iter().flatten().map(|v| v.etag.as_deref().unwrap_or("none")).collect();
        let expected: Vec<&str> = expected.iter().map(|e| e.etag.as_str()).collect();
        if all_versions && found != expected {
            problems.push(format!(
                "{zip}: wrote {} versions, the history has {}, or they are out of order",
                expected.len(),
                found.len()
            ));
        } else if !all_versions {
            // A subsequence that ends with the last version: intermediate ones may be missing, nothing may be doubled.
            let mut rest = expected.iter();
            if !found.iter().all(|f| rest.any(|e| e == f)) || found.last() != expected.last() {
                problems.push(format!(
                    "{zip}: the history's {} versions are not an ordered part of the {} written",
                    found.len(),
                    expected.len()
                ));
            }
        }
        proved += found.len();
    }
    problems.extend(
        history
            .keys()
            .filter(|id| !written.contains_key(id.as_str()))
            .map(|id| format!("{id}: never written, but in the history")),
    );
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if all_versions {
        format!("each of the {proved} versions of {} documents is in the history exactly once, in order", written.len())
    } else {
        format!(
            "{} documents: the last version of each, {proved} versions in all, each exactly once, in order",
            written.len()
        )
    })
}

/// The versions of the document that was written most often: columns and rows.
fn timeline(written: &Written, history: &BTreeMap<String, Vec<Version>>) -> ([&'static str; 8], Vec<Vec<Value>>) {
    let columns = ["version", "time", "op", "lsn", "prev_lsn", "seq", "bytes", "fidelity"];
    let Some((zip, _)) = written.iter().max_by_key(|(_, versions)| versions.len()) else {
        return (columns, Vec::new());
    };
    let city = zipcodes::all().iter().find(|z| z.zip == *zip).map_or("", |z| z.city);
    note(&format!("timeline   of {zip} ({city})"));
    let row = |(i, version): (usize, &Version)| {
        let text = version.document.as_deref().unwrap_or_default();
        let document: Value = serde_json::from_str(text).unwrap_or_default();
        let time =
            DateTime::from_timestamp(version.ts, 0).map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
        vec![
            json!(i + 1),
            json!(time),
            json!(version.op),
            json!(version.lsn),
            json!(version.prev_lsn),
            document.get("seq").cloned().unwrap_or_default(),
            json!(text.len()),
            json!(version.fidelity),
        ]
    };
    (columns, history.get(*zip).into_iter().flatten().enumerate().map(row).collect())
}

/// From the acknowledged write to its capture, in milliseconds, sorted.
fn lags(written: &Written, history: &BTreeMap<String, Vec<Version>>) -> Vec<i64> {
    let mut lags = Vec::new();
    for (zip, expected) in written {
        for version in history.get(*zip).into_iter().flatten() {
            let at =
                version.at.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok()).map(|t| t.timestamp_millis());
            let written_at =
                expected.iter().find(|e| Some(e.etag.as_str()) == version.etag.as_deref()).map(|e| e.written_at);
            if let (Some(at), Some(written_at)) = (at, written_at) {
                lags.push((at - written_at).max(0));
            }
        }
    }
    lags.sort_unstable();
    lags
}

fn percentile(sorted: &[i64], percent: usize) -> i64 {
    sorted.get((sorted.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

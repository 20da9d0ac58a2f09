//! `follow`: capture with our own change feed reader, for those who run without the Functions host.

use std::{
    path::PathBuf,
    str::FromStr,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{CliError, ConnectionArgs, Exit, lookup, output, serve::watch_signals};
use crate::{
    blob::BlobContainer,
    capture::{Capture, Limits, Recent},
    change::{
        Via,
        fidelity::Delivery,
        key::{KeyPaths, parse_path},
        shape::{Redact, Shape},
    },
    config::{self, Account, BlobUrl, CaptureConfig, DeadLetterLocation, Fidelity, Names, Secret, Settings},
    cosmos::{Container, Cosmos, Disposition, Failure, FeedMode, FeedStart, RETRY_TIMEOUT, Retry, Shard},
    dead_letters::DeadLetterStore,
    feed::{
        self, CheckpointStore, Ended, Event, Filter, FollowError, Follower, Metrics, Options, Pipeline, StoreError,
        health::{self, Health},
        sink::{BlobSink, FileSink, SegmentSink, Sink, SinkError, StreamSink},
    },
    history::CosmosHistory,
    telemetry::{self, otlp::Export},
};

/// A poll, or a page with the sinks, that takes so long is stuck; the pause between polls comes on top.
const STUCK: Duration = Duration::from_secs(20);

/// Which change feed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// The newest version of each document; deletes are invisible
    Latest,
    /// Every version and every delete; needs continuous backup on the account
    AllVersions,
}

/// One `--sink`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Changes,
    Stdout,
    File(PathBuf),
    Blob(BlobUrl),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "changes" => Ok(Self::Changes),
            None if text == "stdout" => Ok(Self::Stdout),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("blob", url)) => match DeadLetterLocation::parse("--sink blob", url, std::path::Path::new("")) {
                Ok(DeadLetterLocation::Blob(url)) => Ok(Self::Blob(url)),
                Ok(DeadLetterLocation::Directory(_)) => {
                    Err("write blob:https://<account>.blob.core.windows.net/<container>".into())
                }
                Err(e) => Err(format!("{}; {}", e.problem, e.fix)),
            },
            _ => Err("write changes, stdout, file:PATH or blob:URL".into()),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changes => f.write_str("changes"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Blob(url) => write!(f, "blob:{url}"),
        }
    }
}

/// Segments of a path; named, or the argument parser would take the list for several values.
type Path = Vec<String>;

/// Flags of `follow`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind follow --mode all-versions
  cosmos-rewind follow --name audit --from beginning --sink changes --sink file:events.jsonl
  cosmos-rewind follow --name overdrawn --mode all-versions --sink stdout --filter 'doc.balance < 0' --pretty

Logs are on stderr. The checkpoint is saved when all sinks have what lies before it; running it again goes on there.")]
pub struct FollowArgs {
    /// Which change feed to read; a name keeps its mode
    #[arg(long, value_enum, default_value = "latest")]
    mode: Mode,
    /// Where to start when the name has no checkpoint yet: beginning, now, or a time
    #[arg(long, value_name = "beginning|now|TIME", default_value = "now")]
    from: String,
    /// Where changes go: changes, stdout, file:PATH or blob:URL; repeatable [default: changes]
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<String>,
    /// Pass on only changes for which this CEL expression is true, such as 'op == "delete" || doc.balance < 0'; it may
    /// name op, doc, previous, ts, lsn, id, pk and changed("/path")
    #[arg(long, value_name = "EXPRESSION")]
    filter: Option<String>,
    /// Pass on only these fields of documents, beside id, partition key and what a record needs; comma-separated
    #[arg(long, value_name = "/PATH,...", value_delimiter = ',', value_parser = parse_path)]
    fields: Vec<Path>,
    /// Leave this field out, or replace it by a keyed hash (/PATH=hash, setting: REWIND_REDACT_KEY); repeatable
    #[arg(long, value_name = "/PATH[=hash]")]
    redact: Vec<Redact>,
    /// On stdout, write events for people and not as JSON
    #[arg(long)]
    pretty: bool,
    /// In blobs, write compressed files of many events instead of one blob a version
    #[arg(long)]
    segments: bool,
    /// Close a segment when it has so many MiB, compressed
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    segment_mb: u64,
    /// Close a segment when it is so many seconds old; until then nothing in it is acknowledged
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    segment_seconds: u64,
    /// End when nothing is left to read
    #[arg(long)]
    until_caught_up: bool,
    /// Name of this follower: its checkpoint, which one process at a time may hold
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = name)]
    name: String,
    /// Keep the checkpoint in this file instead of the lease container
    #[arg(long, value_name = "PATH")]
    checkpoint_file: Option<PathBuf>,
    /// Read only the i-th of n equal parts of the container; every machine takes another i
    #[arg(long, value_name = "I/N")]
    feed_range: Option<Shard>,
    /// Serve /metrics (Prometheus), /healthz and /readyz at this address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDR")]
    metrics: Option<std::net::SocketAddr>,
    /// Pause between polls that find nothing new, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    poll: u64,
    /// How long a stand-by waits for a holder that is silent before it takes over, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease: u64,
    /// Directory or blob container URL for what can never be stored [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A follower's name is part of a document's id.
fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("use 1 to 64 letters, digits, - _ and .".into());
    }
    Ok(text.to_owned())
}

/// Runs until stopped, or until nothing is left.
///
/// # Errors
/// When a flag or setting is wrong, or when the source, a sink or the checkpoint refuses. What may pass is retried.
pub async fn run(args: FollowArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let settings = args.connection.settings_with(args.dead_letters.as_ref())?;
    let account = Account::from_settings(&settings)?;
    let cosmos = Cosmos::new(account.clone());
    let options = Arc::new(options(&args, &cosmos).await?);
    let targets = targets(&args)?;
    let filter = args.filter.as_deref().map(|source| filter(source, options.mode)).transpose()?;
    telemetry::start(&settings, telemetry::Stream::Stderr, "info")?;
    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));

    let names = Names::from_settings(&settings, None)?;
    let metrics = Arc::new(Metrics::default());
    if let Some(address) = args.metrics {
        let (metrics, meter) = (metrics.clone(), cosmos.meter().clone());
        let health = Health { name: options.name.clone(), metrics, meter, patience: options.poll + STUCK };
        serve_health(address, health, &stop).await?;
    }
    let export = Export::start(&settings)?;
    if let Some(export) = &export {
        export.follow(&options.name, metrics.clone(), cosmos.meter().clone());
    }
    let open = |name| open(&cosmos, &names.database, name, &options, &metrics, &stop);
    let Some(source) = open(&names.source).await? else { return Ok(Exit::Done) };
    let store = match &args.checkpoint_file {
        Some(path) => CheckpointStore::File(path.clone()),
        None => match open(&names.leases).await? {
            Some(leases) => CheckpointStore::Container(leases),
            None => return Ok(Exit::Done),
        },
    };
    let shape = shape(&args.fields, &args.redact, &settings, source.key_paths())?;
    let config = CaptureConfig::from_settings(&settings, &config::app_root())?;
    let dead_letters = DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(|e| CliError {
        message: e.to_string(),
        hint: Some("check --dead-letters, or REWIND_DEAD_LETTERS".into()),
        exit: Exit::Usage,
    })?;
    let dead_letters = Arc::new(dead_letters);
    let capture = || Capture {
        function: options.name.clone(),
        history: CosmosHistory::new(cosmos.clone(), names.clone()),
        dead_letters: dead_letters.clone(),
        fidelity: Fidelity::Payload,
        delivery: Delivery::Direct,
        identity_told: AtomicBool::new(false),
        limits: Limits::new(config.max_writes, config.max_rereads, config.deadline),
        via: Via::Follow,
        recent: Recent::default(),
        partial: shape.as_ref().map(|shape| shape.note().to_owned()),
        projection: None,
    };
    let sinks = targets.into_iter().map(|target| sink(target, &args, &account, &capture)).collect::<Result<_, _>>()?;
    let pipeline = Pipeline {
        name: options.name.clone(),
        paths: source.key_paths().clone(),
        filter,
        sinks,
        dead_letters: dead_letters.clone(),
        metrics: metrics.clone(),
        shape,
    };
    let follower = Follower { source, options, store, pipeline: Arc::new(pipeline), metrics: metrics.clone() };
    let ended = follower.run(&stop).await;
    if let Some(export) = export {
        export.finish().await;
    }

    let [read, passed, letters, unclear] =
        [&metrics.changes, &metrics.delivered, &metrics.dead_letters, &metrics.filter_errors].map(Metrics::get);
    let ended = ended.map_err(explain)?;
    let how = match ended.ended {
        Ended::CaughtUp => "caught up",
        Ended::Stopped => "stopped",
    };
    let mut text = format!("{how}: {} read, {} passed on", output::count_of(read, "change"), output::number(passed));
    if letters > 0 {
        text.push_str(&format!(", {}", output::count_of(letters, "dead letter")));
    }
    if unclear > 0 {
        text.push_str(&format!(", {} without an answer of the filter", output::number(unclear)));
    }
    output::spent(&text, &cosmos, started);
    Ok(if letters == 0 { Exit::Done } else { Exit::Incomplete })
}

/// Opens a container as patiently as the follower reads: an account that is busy or out of reach is asked again, until the
/// follower is stopped, or, when it is to end by itself, for a while. `None` when it was stopped.
async fn open(
    cosmos: &Cosmos,
    database: &str,
    name: &str,
    options: &Options,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<Option<Container>, Failure> {
    loop {
        let retry = Retry::for_at_most(RETRY_TIMEOUT);
        let opened = stop.run_until_cancelled(retry.run(|| cosmos.container(database, name))).await;
        Metrics::add(&metrics.retries, retry.count());
        match opened {
            None => return Ok(None),
            Some(Err(failure)) if failure.disposition == Disposition::Transient && !options.until_caught_up => {
                warn!(follower = options.name, reason = %failure, "out of reach, trying again");
            }
            Some(opened) => return opened.map(Some),
        }
    }
}

async fn serve_health(address: std::net::SocketAddr, health: Health, stop: &CancellationToken) -> Result<(), CliError> {
    let listener = TcpListener::bind(address).await.map_err(|e| CliError {
        message: format!("--metrics {address}: {e}"),
        hint: Some("end the process that has the port, or name another one; port 0 takes any free one".into()),
        exit: Exit::Failed,
    })?;
    let address = listener.local_addr().unwrap_or(address);
    info!(%address, "metrics are served");
    tokio::spawn(health::serve(listener, health, stop.clone()));
    Ok(())
}

async fn options(args: &FollowArgs, cosmos: &Cosmos) -> Result<Options, CliError> {
    let mode = match args.mode {
        Mode::Latest => FeedMode::Latest,
        Mode::AllVersions => FeedMode::AllVersions,
    };
    let start = match args.from.trim().to_ascii_lowercase().as_str() {
        "beginning" => FeedStart::Beginning,
        "now" => FeedStart::Now,
        _ => FeedStart::At(lookup::point(cosmos, "--from", &args.from).await.map_err(|e| CliError {
            hint: Some("write beginning, now, or a time such as 2h or 2026-11-20T14:05Z".into()),
            ..e
        })?),
    };
    if mode == FeedMode::AllVersions && start != FeedStart::Now {
        return Err(CliError::usage(
            format!("--from {}: the all-versions feed cannot be read from the past", args.from),
            "leave --from out; with --mode latest, --from beginning gives the newest version of every document",
        ));
    }
    Ok(Options {
        name: args.name.clone(),
        mode,
        start,
        part: args.feed_range,
        until_caught_up: args.until_caught_up,
        poll: Duration::from_millis(args.poll),
        lease: Duration::from_secs(args.lease),
        holder: holder(),
    })
}

/// A filter that can be asked.
pub(super) fn compiled(source: &str) -> Result<Filter, CliError> {
    Filter::compile(source).map_err(|e| {
        CliError::usage(
            format!("--filter: {e}"),
            r#"an example: --filter 'op in ["create","replace"] && doc.balance < 0'"#,
        )
    })
}

fn filter(source: &str, mode: FeedMode) -> Result<Filter, CliError> {
    let filter = compiled(source)?;
    if filter.needs_previous() && mode == FeedMode::Latest {
        return Err(CliError::usage(
            "--filter asks for the document before, which the latest-version feed does not have",
            "use --mode all-versions, or leave previous and changed() out",
        ));
    }
    Ok(filter)
}

fn shape(fields: &[Path], redact: &[Redact], settings: &Settings, paths: &KeyPaths) -> Result<Option<Shape>, CliError> {
    let key = settings.get("REWIND_REDACT_KEY").map(Secret::new);
    if key.is_none() && redact.iter().any(Redact::is_hash) {
        return Err(CliError::usage(
            "--redact /path=hash needs a key: without one, a hash is undone by trying all values",
            "set REWIND_REDACT_KEY to a secret text, or drop the field with --redact /path",
        ));
    }
    Shape::new(fields, redact, paths, key)
        .map_err(|problem| CliError::usage(format!("--redact: {problem}"), "name a field of the document's content"))
}

/// Parsed here and not by the argument parser, whose message would quote a signature.
fn targets(args: &FollowArgs) -> Result<Vec<Target>, CliError> {
    let mut targets = Vec::with_capacity(args.sinks.len().max(1));
    for text in &args.sinks {
        let target: Target = text.parse().map_err(|problem| {
            let shown = crate::config::without_secrets(text);
            CliError::usage(format!("--sink {shown}: {problem}"), "such as --sink changes --sink file:events.jsonl")
        })?;
        if targets.contains(&target) {
            return Err(CliError::usage(format!("--sink {target} is given twice"), "give each sink once"));
        }
        targets.push(target);
    }
    if targets.is_empty() {
        targets.push(Target::Changes);
    }
    for (flag, given, wanted) in [
        ("--pretty", args.pretty, targets.contains(&Target::Stdout)),
        ("--segments", args.segments, targets.iter().any(|target| matches!(target, Target::Blob(_)))),
    ] {
        if given && !wanted {
            let sink = if flag == "--pretty" { "stdout" } else { "blob:URL" };
            return Err(CliError::usage(
                format!("{flag} changes nothing without that sink"),
                format!("add --sink {sink}"),
            ));
        }
    }
    Ok(targets)
}

fn sink(
    target: Target,
    args: &FollowArgs,
    account: &Account,
    capture: &dyn Fn() -> Capture<CosmosHistory>,
) -> Result<Sink, CliError> {
    Ok(match target {
        Target::Changes => Sink::Changes(Box::new(capture())),
        Target::Stdout if args.pretty => {
            let coloured = output::is_coloured();
            Sink::Stream(StreamSink::new(
                output::stream(),
                Arc::new(move |event: &Event| feed::pretty(event, coloured)),
            ))
        }
        Target::Stdout => {
            Sink::Stream(StreamSink::new(output::stream(), Arc::new(|event: &Event| event.to_line() + "\n")))
        }
        Target::File(path) => Sink::File(FileSink::new(path)),
        Target::Blob(url) => {
            let (container, folder) = url.split();
            let store = BlobContainer::open(&container, &account.credential)
                .map_err(|e| CliError::usage(format!("--sink blob:{container}: {e}"), "check the URL"))?;
            if args.segments {
                let (bytes, age) = ((args.segment_mb as usize) << 20, Duration::from_secs(args.segment_seconds));
                Sink::Segments(SegmentSink::new(store, folder, args.name.clone(), bytes, age))
            } else {
                Sink::Blobs(BlobSink::new(store, folder))
            }
        }
    })
}

/// This process, for a person who reads the checkpoint; unlike any other one.
fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok())
        .map_or_else(|| "?".to_owned(), |host| host.trim().to_owned());
    format!("{host}/{}/{:08x}", std::process::id(), rand::random::<u32>())
}

fn explain(error: FollowError) -> CliError {
    match error {
        // The reader has seen enough, as with `| head`.
        FollowError::Sink(SinkError::Closed) => CliError { message: String::new(), hint: None, exit: Exit::Done },
        FollowError::Sink(SinkError::Refused { message, hint }) => CliError { message, hint, exit: Exit::Failed },
        FollowError::Filter(message) => CliError::usage(
            message,
            "functions are those of CEL, such as size, startsWith and matches, and changed(\"/path\")",
        ),
        FollowError::Source(f) if f.disposition == Disposition::Poison => CliError {
            message: f.to_string(),
            hint: Some(
                "a checkpoint may be older than what the feed still has: another --name starts anew, without what was lost"
                    .into(),
            ),
            exit: Exit::Failed,
        },
        FollowError::Source(f) | FollowError::Store(StoreError::Service(f)) => f.into(),
        FollowError::Store(e @ StoreError::Foreign { .. }) => CliError {
            message: e.to_string(),
            hint: Some("give another --name (or --checkpoint-file), or the flags that it was started with".into()),
            exit: Exit::Usage,
        },
        other => CliError::failed(other.to_string()),
    }
}

//! `follow`: capture with our own change feed reader, for those who run without the Functions host.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration, time::Instant};

use chrono::Local;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{CliError, ConnectionArgs, Exit, output, serve::watch_signals};
use crate::{
    capture::{Capture, Limits, Recent},
    change::{Via, time::PointInTime},
    config::{self, Account, CaptureConfig, Fidelity, Names, Settings},
    cosmos::{Cosmos, FeedMode, FeedStart},
    dead_letters::DeadLetterStore,
    feed::{
        CheckpointStore, Event, FollowError, Follower, Metrics, Options, Part, Pipeline, StoreError,
        sink::{FileSink, Sink, SinkError, StreamSink},
    },
    history::CosmosHistory,
    telemetry,
};

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
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "changes" => Ok(Self::Changes),
            None if text == "stdout" => Ok(Self::Stdout),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            _ => Err("write changes, stdout or file:PATH".into()),
        }
    }
}

/// Flags of `follow`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind follow --mode all-versions
  cosmos-rewind follow --name audit --from beginning --sink changes --sink file:events.jsonl
  cosmos-rewind follow --name report --sink stdout --until-caught-up | jq .id

Logs are on stderr. The checkpoint is saved when all sinks have what lies before it; running it again goes on there.")]
pub struct FollowArgs {
    /// Which change feed to read; a name keeps its mode
    #[arg(long, value_enum, default_value = "latest")]
    mode: Mode,
    /// Where to start when the name has no checkpoint yet: beginning, now, or a time
    #[arg(long, value_name = "beginning|now|TIME", default_value = "now")]
    from: String,
    /// Where changes go: changes, stdout or file:PATH; repeatable [default: changes]
    #[arg(long = "sink", value_name = "SINK")]
    sinks: Vec<Target>,
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
    feed_range: Option<Part>,
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
    let mut settings = args.connection.settings()?;
    if let Some(place) = &args.dead_letters {
        settings.set_override("REWIND_DEAD_LETTERS", place.clone());
    }
    let options = Arc::new(options(&args)?);
    let targets = targets(&args)?;
    telemetry::start(&settings, telemetry::Stream::Stderr, "info")?;
    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));

    let account = Account::from_settings(&settings)?;
    let names = Names::from_settings(&settings, None)?;
    let cosmos = Cosmos::new(account.clone());
    let metrics = Arc::new(Metrics::default());
    let source = cosmos.container(&names.database, &names.source).await?;
    let store = match args.checkpoint_file {
        Some(path) => CheckpointStore::File(path),
        None => CheckpointStore::Container(cosmos.container(&names.database, &names.leases).await?),
    };
    let (sinks, dead_letters) = sinks(targets, &settings, &account, &cosmos, &names, &options)?;
    let pipeline = Pipeline {
        name: options.name.clone(),
        paths: source.key_paths().clone(),
        sinks,
        dead_letters,
        metrics: metrics.clone(),
    };
    let follower = Follower { source, options, store, pipeline: Arc::new(pipeline), metrics: metrics.clone() };
    let ended = follower.run(&stop).await;

    let (read, letters) = (Metrics::get(&metrics.changes), Metrics::get(&metrics.dead_letters));
    let report = |how: &str| {
        let letters =
            if letters == 0 { String::new() } else { format!(", {}", output::count_of(letters, "dead letter")) };
        output::spent(&format!("{how}: {} read{letters}", output::count_of(read, "change")), &cosmos, started);
    };
    match ended {
        Ok(done) => {
            report(match done.ended {
                crate::feed::Ended::CaughtUp => "caught up",
                crate::feed::Ended::Stopped => "stopped",
            });
            Ok(if letters == 0 { Exit::Done } else { Exit::Incomplete })
        }
        Err(e) => Err(explain(e)),
    }
}

fn options(args: &FollowArgs) -> Result<Options, CliError> {
    let mode = match args.mode {
        Mode::Latest => FeedMode::Latest,
        Mode::AllVersions => FeedMode::AllVersions,
    };
    let start = match args.from.trim().to_ascii_lowercase().as_str() {
        "beginning" => FeedStart::Beginning,
        "now" => FeedStart::Now,
        _ => FeedStart::At(PointInTime::parse(&args.from, &Local::now()).map_err(|e| {
            CliError::usage(
                format!("--from {}: {e}", args.from),
                "write beginning, now, or a time such as 2h or 2026-11-20T14:05Z",
            )
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

fn targets(args: &FollowArgs) -> Result<Vec<Target>, CliError> {
    let targets = if args.sinks.is_empty() { vec![Target::Changes] } else { args.sinks.clone() };
    if let Some(twice) = targets.iter().enumerate().find_map(|(i, t)| targets[..i].contains(t).then_some(t)) {
        return Err(CliError::usage(format!("--sink {twice} is given twice"), "give each sink once"));
    }
    Ok(targets)
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Changes => f.write_str("changes"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

fn sinks(
    targets: Vec<Target>,
    settings: &Settings,
    account: &Account,
    cosmos: &Cosmos,
    names: &Names,
    options: &Options,
) -> Result<(Vec<Sink>, Arc<DeadLetterStore>), CliError> {
    let config = CaptureConfig::from_settings(settings, &config::app_root())?;
    let dead_letters = DeadLetterStore::open(&config.dead_letters, &account.credential).map_err(|e| CliError {
        message: e.to_string(),
        hint: Some("check --dead-letters, or REWIND_DEAD_LETTERS".into()),
        exit: Exit::Usage,
    })?;
    let dead_letters = Arc::new(dead_letters);
    let sinks = targets
        .into_iter()
        .map(|target| match target {
            Target::Changes => Sink::Changes(Box::new(Capture {
                function: options.name.clone(),
                history: CosmosHistory::new(cosmos.clone(), names.clone()),
                dead_letters: dead_letters.clone(),
                // Nobody between the service and us rewrites dates: the text is the document's own.
                fidelity: Fidelity::Payload,
                limits: Limits::new(config.max_writes, config.max_rereads, config.deadline),
                via: Via::Follow,
                recent: Recent::default(),
            })),
            Target::Stdout => {
                Sink::Stream(StreamSink::new(output::stream(), Arc::new(|event: &Event| event.to_line() + "\n")))
            }
            Target::File(path) => Sink::File(FileSink::new(path)),
        })
        .collect();
    Ok((sinks, dead_letters))
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
        FollowError::Source(f) | FollowError::Store(StoreError::Service(f)) => f.into(),
        FollowError::Store(e @ StoreError::Foreign { .. }) => CliError {
            message: e.to_string(),
            hint: Some("give another --name (or --checkpoint-file), or the flags that it was started with".into()),
            exit: Exit::Usage,
        },
        other => CliError::failed(other.to_string()),
    }
}

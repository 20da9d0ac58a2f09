//! Flags of `follow`, and the options they form.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{ConnectionArgs, files, lookup};
use crate::{
    change::{key::parse_path, shape::Redact},
    console::{CliError, Ui},
    cosmos::{Cosmos, FeedMode, FeedStart, Shard},
    follow::{self, BadOptions, FollowedSource, Options},
};

/// Which change feed is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FeedArg {
    /// The newest version of each document; deletes are invisible
    Latest,
    /// Every version and every delete; needs continuous backup on the account
    AllVersions,
}

/// Segments of a path. Named, because the argument parser would take the list for several values.
type Path = Vec<String>;

/// Flags of `follow`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind follow --mode all-versions
  cosmos-rewind follow --name audit --from beginning --sink changes --sink file:events.jsonl
  cosmos-rewind follow --name overdrawn --mode all-versions --sink stdout --filter 'doc.balance < 0' --pretty
  cosmos-rewind follow --source mongodb://127.0.0.1/ --database bank --sink stdout --checkpoint-file bank.json

Logs are on stderr. The checkpoint is saved when all sinks have what lies before it; running it again goes on there.")]
pub struct FollowArgs {
    /// Which change feed to read; a name keeps its mode
    #[arg(long, value_enum, default_value = "latest")]
    mode: FeedArg,
    /// Where to start when the name has no checkpoint yet: beginning, now, or a time
    #[arg(long, value_name = "beginning|now|TIME", default_value = "now")]
    from: String,
    /// Where changes go: changes, stdout, file:PATH or blob:URL; repeatable [default: changes]
    #[arg(long = "sink", value_name = "SINK")]
    pub(super) sinks: Vec<String>,
    /// Pass on only changes for which this CEL expression is true, such as 'op == "delete" || doc.balance < 0'; it may
    /// name op, doc, previous, ts, lsn, id, pk and changed("/path")
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) filter: Option<String>,
    /// Pass on only these fields of documents, besides id, partition key and what records need; comma-separated
    #[arg(long, value_name = "/PATH,...", value_delimiter = ',', value_parser = parse_path)]
    pub(super) fields: Vec<Path>,
    /// Leave this field out, or replace it by a keyed hash (/PATH=hash, setting: REWIND_REDACT_KEY); repeatable
    #[arg(long, value_name = "/PATH[=hash]")]
    pub(super) redact: Vec<Redact>,
    /// On stdout, write events for people and not as JSON
    #[arg(long)]
    pub(super) pretty: bool,
    /// In blobs, write compressed files of many events instead of one blob per version
    #[arg(long)]
    pub(super) segments: bool,
    /// Close a segment when it has this many MiB, compressed
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(super) segment_mb: u64,
    /// Close a segment when it is this many seconds old; until then nothing in it is acknowledged
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) segment_seconds: u64,
    /// End when nothing is left to read
    #[arg(long)]
    until_caught_up: bool,
    /// Name of this follower and its checkpoint; only one process at a time can hold a name
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = name)]
    name: String,
    /// Keep the checkpoint in this file instead of the lease container
    #[arg(long, value_name = "PATH", value_parser = files::to_write())]
    pub(super) checkpoint_file: Option<PathBuf>,
    /// Read only the i-th of n equal parts of the container; every machine takes another i
    #[arg(long, value_name = "I/N")]
    feed_range: Option<Shard>,
    /// Serve /metrics (Prometheus), /healthz and /readyz at this address, such as 127.0.0.1:9464
    #[arg(long, value_name = "ADDR")]
    pub(super) metrics: Option<std::net::SocketAddr>,
    /// Pause between polls that find nothing new, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    poll: u64,
    /// How many seconds a stand-by waits for a silent holder before it takes over
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(2..=3600))]
    lease: u64,
    /// Directory or blob container URL for what can never be stored [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    pub(super) dead_letters: Option<String>,
    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// A follower's name is part of a document's id.
fn name(text: &str) -> Result<String, String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
        return Err("use 1 to 64 letters, digits, - _ and .".into());
    }
    Ok(text.to_owned())
}

/// How the feed is read.
///
/// # Errors
/// When the start is not a time, or the feed cannot be read from there.
pub(super) async fn options(
    ui: &Ui,
    args: &FollowArgs,
    source: &FollowedSource,
    cosmos: &Cosmos,
) -> Result<Options, CliError> {
    let mode = match args.mode {
        FeedArg::Latest => FeedMode::Latest,
        FeedArg::AllVersions => FeedMode::AllVersions,
    };
    let start = match args.from.trim().to_ascii_lowercase().as_str() {
        "beginning" => FeedStart::Beginning,
        "now" => FeedStart::Now,
        _ => FeedStart::At(
            lookup::point(ui, cosmos, "--from", &args.from)
                .await
                .map_err(|e| e.hint("write beginning, now, or a time such as 2h or 2026-11-20T14:05Z"))?,
        ),
    };
    let options = Options {
        name: args.name.clone(),
        mode,
        start,
        part: args.feed_range,
        until_caught_up: args.until_caught_up,
        poll: Duration::from_millis(args.poll),
        lease: Duration::from_secs(args.lease),
        holder: follow::holder(),
    };
    options.check(source).map_err(|bad| match bad {
        BadOptions::Past => CliError::usage(
            format!("--from {}: {bad}", args.from),
            "leave --from out; with --mode latest, --from beginning gives the newest version of every document",
        ),
        BadOptions::Share => {
            CliError::usage(format!("--feed-range: {bad}"), "leave it out; a second follower of this name stands by")
        }
    })?;
    Ok(options)
}

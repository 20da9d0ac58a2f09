//! `backup`: documents of the live container, or of a moment, into a file.

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::{ConnectionArgs, connection::ru_limit, files, lookup, restore};
use crate::{
    backup::{self, BackupError, Interruption, Request},
    console::{CliError, Exit, Hint, Ui, render, room},
    cosmos::{Param, Shard},
    format::Format,
};

/// Flags of `backup`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("scope").required(true)),
    after_help = "Examples:
  cosmos-rewind backup --all --out events.jsonl.gz
  cosmos-rewind backup --where \"c.city_name = @city\" --param city=Davidson --at 2h --out davidson.jsonl"
)]
pub struct BackupArgs {
    /// Documents that match this predicate; with --at, those that matched then; your own SQL on `c`
    #[arg(long = "where", value_name = "PREDICATE", group = "scope")]
    predicate: Option<String>,
    /// Value of a parameter of the predicate; repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "predicate")]
    param: Vec<Param>,
    /// All documents
    #[arg(long, group = "scope")]
    all: bool,
    /// As of this moment, from the history: 2026-11-20T14:05:00Z, epoch seconds, 15m, "yesterday 14:05Z"
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Wait until capture has passed the moment
    #[arg(long, requires = "at")]
    wait: bool,
    /// Only the i-th of n equal parts of the documents, by partition key
    #[arg(long, value_name = "I/N")]
    feed_range: Option<Shard>,
    /// File to write, one document per line; compressed when its name ends in .gz
    #[arg(long, value_name = "FILE", value_parser = files::to_write())]
    out: PathBuf,
    /// Versions read at the same time, with --at
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// At most this many request units a second, on average
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    ru_limit: Option<f64>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the file exists or cannot be written, or the service refuses.
pub async fn run(args: BackupArgs, ui: &Ui) -> Result<Exit, CliError> {
    let opened = args.connection.opened().await?;
    let at = match &args.at {
        Some(text) => Some(lookup::point(ui, opened.account(), "--at", text).await?),
        None => None,
    };
    let request = Request {
        predicate: args.predicate,
        params: args.param,
        at,
        at_text: args.at,
        wait: args.wait,
        feed_range: args.feed_range,
        out: args.out,
        concurrency: args.concurrency.into(),
        ru_limit: args.ru_limit,
    };
    let report = backup::write(request, &opened.careful_context(ui)).await?;
    render::backup::show(ui, &report, args.format)?;
    Ok(if report.is_complete() { Exit::Done } else { Exit::Incomplete })
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Open(failure) | BackupError::Time(failure) => failure.into(),
            BackupError::Parts(problem) => {
                Self::usage(format!("--feed-range: {problem}"), "leave it out; one file has everything then")
            }
            BackupError::Begin { path, source } => Self::unwritable(
                format!("--out {}", path.display()),
                source,
                "name a file that does not exist yet, in a folder that can be written",
            ),
            BackupError::Finish { path, source } => unwritten(&path, source),
            BackupError::Interrupted { resumable, by } => {
                let error = match by {
                    Interruption::Predicate(failure) => restore::explain(failure, true),
                    Interruption::Service(failure) => failure.into(),
                    Interruption::Document { item, failure } => {
                        let hints = failure.hint().map(Hint::from).into_iter().collect();
                        let of = Self::failed(format!("document {:?} ({})", item.id, item.partition_key));
                        Self { hints, ..of.because(failure) }
                    }
                    Interruption::Stopped => Self::failed("stopped"),
                    Interruption::Disk { path, source } => unwritten(&path, source),
                };
                if resumable {
                    error.leaving("what is done is kept").hint("the same command goes on from there")
                } else {
                    error.leaving("no file was made")
                }
            }
        }
    }
}

fn unwritten(path: &Path, cause: std::io::Error) -> CliError {
    let hint = room(&cause);
    CliError::failed(format!("cannot write {}", path.display())).because(cause).hint_of(hint)
}

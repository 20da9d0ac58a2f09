//! `populate`: writes generated zip-code documents, or documents from a file, into the source container.

use std::{
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use clap::Args;

use super::ConnectionArgs;
use crate::{
    change::key::parse_path,
    console::{CliError, Exit, Ui, render},
    figures::number,
    format::Format,
    input,
    populate::{self, IdMapping, Origin, PopulateError, Request},
};

/// Flags of `populate`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind populate --count 5000 --rate 200
  cosmos-rewind populate --file zips.json --id-from /postal_cd --pk-from /postal_cd --updates 5000
  cat documents.jsonl | cosmos-rewind populate --file -")]
pub struct PopulateArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    /// How many upserts of randomly picked North Carolina zip codes [default: 5000]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    count: Option<u64>,
    /// Write the documents of a file instead: a JSON array, JSON lines, or one object; - is standard input
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Copy the value at this path into the document's id
    #[arg(long, value_name = "/PATH", requires = "file")]
    id_from: Option<String>,
    /// Copy the value at this path into the container's partition key; repeat for a hierarchical key
    #[arg(long, value_name = "/PATH", requires = "file")]
    pk_from: Vec<String>,
    /// After the file, update its documents at random this many times, with new seq, timestamp and epoch
    #[arg(long, value_name = "N", requires = "file", default_value_t = 0)]
    updates: u64,
    /// Seed of the random choices, to repeat an earlier run
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// At most this many documents a second
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// Writes in flight [default: 100, and up to 1000 small ones while requests are packed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
///
/// # Errors
/// When the input cannot be used, or the service refuses.
pub async fn run(args: PopulateArgs, ui: &Ui) -> Result<Exit, CliError> {
    let generated = Origin::Generated(args.count.unwrap_or(5000));
    let mut request =
        Request { from: generated, seed: args.seed, rate: args.rate, concurrency: args.concurrency.into() };
    request.check()?;
    let id_from = args.id_from.as_deref().map(|p| path("--id-from", p)).transpose()?;
    let pk_from = args.pk_from.iter().map(|p| path("--pk-from", p)).collect::<Result<_, _>>()?;
    if let Some(file) = &args.file {
        let mapping = IdMapping { id_from, pk_from };
        request.from = Origin::File { input: opened(file)?, mapping, updates: args.updates };
    }
    let (cosmos, names) = args.connection.open()?;
    let report = populate::run(request, &ui.careful_context(&cosmos, &names)).await?;
    render::populate::show(ui, report, args.format)
}

fn path(flag: &str, text: &str) -> Result<Vec<String>, CliError> {
    parse_path(text).map_err(|problem| CliError::usage(flag, format!("write {flag} /postal_cd")).because(problem))
}

/// `-` is standard input.
fn opened(path: &Path) -> Result<Box<dyn BufRead + Send>, CliError> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    input::open(path).map_err(|e| {
        let hint = "name a readable file, or - for standard input";
        CliError::usage(format!("cannot open {}", path.display()), hint).because(e)
    })
}

impl From<PopulateError> for CliError {
    fn from(error: PopulateError) -> Self {
        match error {
            PopulateError::Rate(rate) => Self::usage(
                format!("--rate {rate} is not a rate"),
                "write a number of documents a second, such as 50 or 0.5",
            ),
            PopulateError::Open(failure) => failure.into(),
            PopulateError::KeyCount { given, key } => Self::usage(
                format!("--pk-from is given {given} times, the container's key is {key}"),
                "give it once for each path of the key, in order",
            ),
            PopulateError::Document(problem) => Self::failed(problem.to_string()),
            PopulateError::Input(e) => {
                Self::usage("cannot read the input", "give a JSON array, JSON lines, or one object").because(e)
            }
            PopulateError::AllRejected(rejected) => Self::usage(
                format!("no document of the input could be used ({} rejected)", number(rejected)),
                "see the problems above",
            ),
        }
    }
}

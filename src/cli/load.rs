//! `load`: loads the documents of a backup, of any JSON file, or of an archive of `follow` into the source container.

use std::{
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};

use super::{ConnectionArgs, connection::ru_limit, from_archive::open_archive, lookup};
use crate::{
    backup::{
        self, LineSource,
        load::{Existing, LoadOrigin, Request},
    },
    config::AccountSettings,
    console::{CliError, Exit, Ui, render::load as render},
    format::Format,
};

/// The treatment of documents that exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    /// Replaced
    Upsert,
    /// Left alone
    #[default]
    CreateOnly,
    /// Replaced when they were last written before the moment of the backup or archive
    IfNewer,
}

/// Flags of `load`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind load events.jsonl.gz
  cosmos-rewind load events.jsonl --mode upsert
  cosmos-rewind load --no-trailer demo_backup.json
  cosmos-rewind load --archive ./archive --at 2026-11-20T14:05Z")]
pub struct LoadArgs {
    /// File that `backup` made, compressed or not; - is standard input
    #[arg(required_unless_present = "archive", conflicts_with = "archive")]
    file: Option<PathBuf>,
    /// Folder, or blob:URL, that follow wrote: files with one event, or with one per line, compressed or not
    #[arg(long, value_name = "DIR|blob:URL")]
    archive: Option<String>,
    /// From an archive, load the version of each document that was in force then [default: the newest]
    #[arg(long, value_name = "TIME", requires = "archive")]
    at: Option<String>,
    /// The treatment of documents that exist
    #[arg(long, value_enum, default_value_t)]
    mode: ModeArg,
    /// Accept a file without count and checksum, too: JSON lines, a JSON array, or one object; system properties are
    /// left out
    #[arg(long, conflicts_with = "archive")]
    no_trailer: bool,
    /// Writes in flight [default: 100, and up to 1000 small ones while requests are packed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: Option<u16>,
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
/// When the input cannot be used, or the service refuses.
pub async fn run(args: LoadArgs, ui: &Ui) -> Result<Exit, CliError> {
    let existing = Existing::from(args.mode);
    let request = |from| Request { from, existing, concurrency: args.concurrency.into(), ru_limit: args.ru_limit };
    let (request, (cosmos, names)) = match (args.file, args.archive) {
        (Some(name), _) => {
            // Without a trailer there is no moment, whatever the file is.
            existing.check(!args.no_trailer)?;
            let source = opened(&name)?;
            let request = request(LoadOrigin::File { name, source, is_backup: !args.no_trailer });
            request.check()?;
            // Wrong settings are reported before a long file is read.
            (request, args.connection.open()?)
        }
        (None, Some(text)) => {
            let (cosmos, names) = args.connection.open()?;
            let at = match &args.at {
                Some(text) => Some(lookup::point(ui, &cosmos, "--at", text).await?),
                None => None,
            };
            let credential = AccountSettings::from_settings(&args.connection.settings()?)?.credential;
            let archive = open_archive("--archive", &text, &credential)?;
            (request(LoadOrigin::Archive { archive, at }), (cosmos, names))
        }
        (None, None) => return Err(CliError::usage("there is no FILE", "name one, or --archive")),
    };
    let report = backup::load(request, &ui.careful_context(&cosmos, &names)).await?;
    render::show(ui, report, existing, args.format)
}

/// `-` is standard input.
fn opened(file: &Path) -> Result<LineSource, CliError> {
    if file.as_os_str() == "-" {
        return Ok(LineSource::Stream(Box::new(BufReader::new(io::stdin()))));
    }
    LineSource::open(file).map_err(|e| {
        CliError::usage(
            format!("cannot open {}", file.display()),
            "name a file that backup made, or - for standard input; a folder that follow wrote to with --archive",
        )
        .because(e)
    })
}

impl From<ModeArg> for Existing {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Upsert => Self::Replace,
            ModeArg::CreateOnly => Self::Leave,
            ModeArg::IfNewer => Self::ReplaceOlder,
        }
    }
}

//! `show`: documents as they were at a moment.

use std::time::Instant;

use clap::{Args, ValueEnum};

use super::{ConnectionArgs, lookup, selection::SelectionArgs, together::SeveralArgs};
use crate::{
    console::{
        CliError, ErrorKind, Exit, Ui,
        render::show::{PrintOptions, print},
    },
    figures::count_of,
    history::past::{self, ShowRequest},
};

/// Flags of `show`.
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  cosmos-rewind show --id 28036 --pk 28036 --at \"2h30m ago\"
  cosmos-rewind show --id 28036 --at 2026-11-20T14:05:00+02:00 --pretty
  cosmos-rewind show --where \"c.city_name = 'Davidson'\" --at 15m

The document's exact text goes to stdout; stderr says which version it is, how far from the time
it was written, and what cannot be known about it. The exit code is 1 when there was no document.
Several documents are printed one a line; the exit code is 3 when one of a list was not there."
)]
pub struct ShowArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    which: SelectionArgs,
    #[command(flatten)]
    several: SeveralArgs,
    /// The moment: RFC 3339 with a zone, epoch seconds, 15m, "2h30m ago", "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", default_value = "now")]
    at: String,
    /// Show this version of the one --id: a record of the history, an LSN or an etag, as `history` shows them
    #[arg(long, value_name = "RECORD|LSN|ETAG", conflicts_with = "at")]
    version: Option<String>,
    /// Indent the document
    #[arg(long)]
    pretty: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: ShowFormat,
}

/// How a document is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ShowFormat {
    /// The document's exact text
    #[default]
    Text,
    /// One object: the details of the version, and the document
    Json,
}

/// Runs the command.
pub async fn run(mut args: ShowArgs, ui: &Ui) -> Result<Exit, CliError> {
    let mut all = args.several.names(&args.connection)?;
    if !all.is_empty() {
        args.which.share_list_or_repeat(&mut all)?;
    }
    SeveralArgs::each(all, &args.connection, ui, async |connection| one(&args, connection, ui).await).await
}

async fn one(args: &ShowArgs, connection: &ConnectionArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    args.which.check_version(args.version.as_ref())?;
    let opened = connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    let at = match &args.version {
        Some(version) => past::RequestedState::Version(version.clone()),
        None => past::RequestedState::At(lookup::point(ui, opened.account(), "--at", &args.at).await?),
    };
    let request = ShowRequest { which: args.which.selection(opened.account(), names).await?, at };
    let cx = opened.context(ui);
    let mut documents = past::show(&request, &cx).await?;
    let how = PrintOptions { object: args.format == ShowFormat::Json, pretty: args.pretty, list: args.which.is_list() };
    let mut count = 0;
    let mut exit = Exit::Done;
    while let Some(shown) = documents.next().await? {
        match print(ui, &shown, how) {
            Ok(()) => count += 1,
            Err(error) if args.which.is_list() && matches!(error.kind, ErrorKind::NotThere(_)) => {
                ui.note(&format!("warning: {error}"));
                exit = Exit::Incomplete;
            }
            Err(error) => return Err(error),
        }
    }
    ui.spent(&count_of(count, "document"), cosmos, started);
    Ok(if documents.is_incomplete() { Exit::Incomplete } else { exit })
}

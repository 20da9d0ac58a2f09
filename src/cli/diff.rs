//! `diff`: the fields of documents that differ between two moments, or between a moment and the live document.

use std::time::Instant;

use clap::Args;

use super::{
    ConnectionArgs,
    diff_fork::{self, ForkArgs},
    lookup,
    selection::SelectionArgs,
    together::SeveralArgs,
};
use crate::{
    console::{
        CliError, Exit, Ui,
        render::diff::{DiffPrinter, describe_side},
    },
    figures::count_of,
    format::Format,
    history::{
        Account,
        past::{self, Comparison, DiffRequest, Side},
    },
};

/// Flags of `diff`.
#[derive(Debug, Args)]
#[command(
    disable_version_flag = true,
    after_help = "Examples:
  cosmos-rewind diff --id 28036 --pk 28036 --from \"2h30m ago\"
  cosmos-rewind diff --id 28036 --from 2026-11-20T14:05:00Z --to \"yesterday 18:00Z\" --format json
  cosmos-rewind diff --where \"c.city_name = 'Davidson'\" --from 15m
  cosmos-rewind diff --fork http://127.0.0.1:8082/ --plan-out plan.json

Lines are `~ /path before -> after`, `+ /path added`, `- /path removed`; --format json is a JSON
Patch (RFC 6902) that leads from the first to the second. Numbers are compared as numbers of any
size: 1.10 is 1.1. The exit code is 0 whether anything differs or not. --where means the documents
that matched at --from (at --to when that is `live`)."
)]
pub struct DiffArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(flatten)]
    which: SelectionArgs,
    #[command(flatten)]
    several: SeveralArgs,
    /// The earlier moment: RFC 3339 with a zone, epoch seconds, 15m, "2h30m ago", "yesterday 14:05Z"
    #[arg(long, value_name = "TIME", required_unless_present_any = ["version", "fork"])]
    from: Option<String>,
    /// Compare this version of the one --id instead: a record of the history, an LSN or an etag, as `history` shows
    /// them
    #[arg(long, value_name = "RECORD|LSN|ETAG", conflicts_with = "from")]
    version: Option<String>,
    /// The other side: a time, `now` (the newest version in the history), or `live` (the live document)
    #[arg(long, value_name = "TIME", default_value = "live")]
    to: String,
    #[command(flatten)]
    fork: ForkArgs,
    /// How to print; json is a JSON Patch, or with --fork the plan
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub async fn run(mut args: DiffArgs, ui: &Ui) -> Result<Exit, CliError> {
    if let Some(url) = &args.fork.fork {
        return diff_fork::run(&args.fork, url, &args.connection, args.several.containers(), args.format, ui).await;
    }
    let mut all = args.several.names(&args.connection)?;
    if !all.is_empty() {
        args.which.share_list_or_repeat(&mut all)?;
    }
    SeveralArgs::each(all, &args.connection, ui, async |connection| one(&args, connection, ui).await).await
}

async fn one(args: &DiffArgs, connection: &ConnectionArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    args.which.check_version(args.version.as_ref())?;
    let opened = connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    let from = match (&args.version, &args.from) {
        (Some(version), _) => Side::Version(version.clone()),
        (None, from) => side(ui, opened.account(), "--from", from.as_deref().unwrap_or("now")).await?,
    };
    let to = side(ui, opened.account(), "--to", &args.to).await?;
    let request = DiffRequest { which: args.which.selection(opened.account(), names).await?, from, to };
    let cx = opened.context(ui);
    let mut documents = past::diff(&request, &cx).await?;
    let mut out = DiffPrinter::new(ui, args.format, args.which.is_list());
    let mut differing = 0_u64;
    let mut count = 0;
    let mut left_out = 0;
    while let Some(Comparison { item, from, to }) = documents.next().await? {
        match describe_side(ui, "from", &item, &from).and_then(|()| describe_side(ui, "to", &item, &to)) {
            Ok(()) => {}
            // Nothing is known about one of the times, or nothing is left of the document.
            Err(error) if args.which.is_list() => {
                ui.note(&format!("warning: {error}"));
                left_out += 1;
                continue;
            }
            Err(error) => return Err(error),
        }
        let found = out.push(ui, &item, from.text(), to.text())?;
        differing += u64::from(found > 0);
        count += found as u64;
    }
    out.finish()?;
    let what = if count == 0 { "no difference".to_owned() } else { count_of(count, "difference") };
    let of = if args.which.is_list() {
        let left_out = left_out + documents.unreadable();
        let not = if left_out == 0 { String::new() } else { format!(", {left_out} not comparable") };
        format!(" in {differing} of {}{not}", count_of(documents.asked(), "document"))
    } else {
        String::new()
    };
    ui.spent(&format!("{what}{of}"), cosmos, started);
    Ok(if documents.is_incomplete() || left_out > 0 { Exit::Incomplete } else { Exit::Done })
}

async fn side(ui: &Ui, account: &dyn Account, flag: &str, text: &str) -> Result<Side, CliError> {
    if text.trim().eq_ignore_ascii_case("live") {
        return Ok(Side::Live);
    }
    lookup::point(ui, account, flag, text).await.map(Side::At)
}

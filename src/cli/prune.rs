//! `prune`: removes versions that no kept instant needs.

use clap::Args;

use super::{ConnectionArgs, retention_args::RetentionArgs};
use crate::{
    console::{CliError, Exit, Ui, render::prune as render, words},
    format::Format,
    retention::{self},
};

/// Flags of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind prune --older-than 90d --dry-run
  cosmos-rewind prune --keep-within 7d --keep-daily 90d --keep-monthly 7y --yes --ru-limit 500")]
pub struct PruneArgs {
    #[command(flatten)]
    retention: RetentionArgs,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When the account cannot be used, or the place of a record does not follow from its item. A record that could not be
/// deleted is reported, and makes the exit code 3.
pub async fn run(args: PruneArgs, ui: &Ui) -> Result<Exit, CliError> {
    let opened = args.connection.opened().await?;
    let names = &opened.names;
    let plan = retention::plan(args.retention.request(), opened.context(ui)).await?;
    let container = names.history();
    render::note_kept(ui, plan.kept());
    let dry_run = args.retention.dry_run;
    if !dry_run && !args.yes {
        ui.confirm(&render::question(&plan.count().await?.sums, &container), &names.changes, false)?;
    }
    ui.heed();
    let report = if dry_run { plan.count().await? } else { plan.apply().await? };
    let exit = words::note_bad(ui, &report.bad);
    if dry_run {
        ui.note(&format!("removing   about {:.0} RU are expected; nothing was removed", report.sums.forecast()));
    }
    render::print(ui, &report, &container, args.format)?;
    match report.fatal {
        Some(failure) => Err(failure.into()),
        None if report.sums.failed > 0 || report.interrupted => {
            ui.hint("run the command again: it continues with what is left");
            Ok(Exit::Incomplete)
        }
        None => Ok(exit),
    }
}

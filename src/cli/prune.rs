//! `prune`: removes versions that no kept instant needs.

use clap::Args;
use serde_json::json;

use super::{ConnectionArgs, retention_args::RetentionArgs};
use crate::{
    change::time::PointInTime,
    console::{CliError, Exit, Ui, words},
    figures::count_of,
    format::{Format, tenths},
    retention::{self, KeepReason, Report, Sums},
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
/// When the account cannot be used, or where a record lies does not follow from its item. A record that could not be
/// deleted is reported and makes the exit code 3.
pub async fn run(args: PruneArgs, ui: &Ui) -> Result<Exit, CliError> {
    let opened = args.connection.opened().await?;
    let names = &opened.names;
    let plan = retention::plan(args.retention.request(), opened.context(ui)).await?;
    let container = format!("{}/{}", names.database, names.changes);
    ui.note(&format!(
        "keeping    every second from {}, and {} before it (ends of days and months)",
        PointInTime::from_epoch(plan.kept().window),
        count_of(plan.kept().points().count() as u64, "moment")
    ));
    let dry_run = args.retention.dry_run;
    if !dry_run && !args.yes {
        ui.confirm(&question(&plan.count().await?.sums, &container), &names.changes, false)?;
    }
    let report = if dry_run { plan.count().await? } else { plan.apply().await? };
    let exit = words::note_bad(ui, &report.bad);
    if dry_run {
        ui.note(&format!("removing   about {:.0} RU are expected; nothing was removed", report.sums.forecast()));
    }
    print(ui, &report, &container, args.format)?;
    match report.fatal {
        Some(failure) => Err(failure.into()),
        None if report.sums.failed > 0 || report.interrupted => {
            ui.hint("run the command again: it goes on with what is left");
            Ok(Exit::Incomplete)
        }
        None => Ok(exit),
    }
}

/// The question that stands between the plan and the deletes.
fn question(counted: &Sums, container: &str) -> String {
    format!(
        "{} of {} and {} will be deleted from {container}, for about {:.0} RU. They cannot be had back.",
        count_of(counted.removed, "version"),
        counted.versions,
        count_of(counted.journals, "journal"),
        counted.forecast()
    )
}

fn print(ui: &Ui, report: &Report, container: &str, format: Format) -> Result<(), CliError> {
    let sums = &report.sums;
    let of_reason = |reason: KeepReason| sums.reasons.get(&reason).copied().unwrap_or_default();
    let reasons: serde_json::Map<_, _> =
        KeepReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), json!(of_reason(reason)))).collect();
    ui.summary(
        format,
        &[
            ("container", json!(container)),
            ("dry_run", json!(report.dry_run)),
            ("documents", json!(sums.items)),
            ("versions", json!(sums.versions)),
            ("kept", json!(sums.reasons.values().sum::<u64>())),
            ("reasons", reasons.into()),
            ("removed", json!(sums.removed)),
            ("forgotten", json!(sums.forgotten)),
            ("journals", json!(sums.journals)),
            ("failed", json!(sums.failed)),
            ("ru", tenths(report.ru)),
            ("seconds", tenths(report.seconds)),
        ],
    )
}

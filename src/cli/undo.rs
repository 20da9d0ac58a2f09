//! `undo`: takes a restore back, document by document, with the same plan, guards and report.

use std::time::Instant;

use clap::Args;

use super::{
    ConnectionArgs,
    applying::{ApplyArgs, show_and_apply},
    together::carry_out,
};
use crate::{
    console::{
        CliError, Exit, Ui,
        render::{self, plan::PlanView},
    },
    figures::count_of,
    history::CosmosReader,
    restore::{
        UndoRequest, Use, journal,
        together::{ContainerPlan, undo_each},
    },
};

/// Flags of `undo`
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The restore to take back; its id was printed when it ended
    #[arg(required_unless_present = "list")]
    restore: Option<String>,
    /// List the restores that are in the history
    #[arg(long)]
    list: bool,
    /// Only show the plan
    #[arg(long)]
    dry_run: bool,
    /// Overwrite documents that were changed after the plan was made (their current text is saved first)
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: ApplyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
///
/// # Errors
/// When there is no such restore. A document that was changed since is a conflict: it stays, is reported, and makes the
/// exit code 3.
pub async fn run(mut args: UndoArgs, ui: &Ui) -> Result<Exit, CliError> {
    args.how.force = args.force;
    let started = Instant::now();
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    if args.list {
        let changes = cosmos.container(&names.database, &names.changes).await?;
        // Works even when the source is gone.
        let restores = journal::list(&CosmosReader::new(changes.clone(), changes.key_paths())).await?;
        render::undo::list(ui, &restores, args.how.format)?;
        ui.spent(&count_of(restores.len() as u64, "restore"), cosmos, started);
        return Ok(Exit::Done);
    }
    let request = UndoRequest {
        restore: args.restore.unwrap_or_default(),
        journal: args.how.journal().to_owned(),
        concurrency: args.how.concurrency.into(),
        ru_limit: args.how.ru_limit,
    };
    let cx = opened.context(ui);
    let together = undo_each(&request, &cx).await?;
    let (how, account) = ((&args.how, args.dry_run), (cosmos, names));
    let Some(ContainerPlan { containers, planned, .. }) = together.alone() else {
        return carry_out(ui, &together, how, account, started).await;
    };
    let plan = &planned.plan;
    let shown = PlanView { plan, fields: None, format: args.how.format };
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    show_and_apply(ui, shown, this, containers, how, account, started).await
}

//! `undo`: takes a restore back, document by document, with the same plan, guards and report.

use std::time::Instant;

use clap::Args;

use super::{
    ConnectionArgs,
    applying::{ApplyArgs, show_and_apply},
    together::{Part, Run, carry_out},
};
use crate::{
    config::Names,
    console::{
        CliError, Exit, Ui,
        render::{self, plan::Shown},
    },
    figures::count_of,
    history::CosmosReader,
    restore::{self, RestoreError, UndoRequest, Use, journal, plan_file::Pair},
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
    /// Overwrite documents that were changed after the plan was made (what they were is saved first)
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
/// When there is no such restore. A document changed since is a conflict, not a victim: reported, exit code 3.
pub async fn run(mut args: UndoArgs, ui: &Ui) -> Result<Exit, CliError> {
    args.how.force = args.force;
    let started = Instant::now();
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    if args.list {
        let changes = cosmos.container(&names.database, &names.changes).await?;
        // Whatever has become of the source.
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
    let (plan, containers) = restore::undo(&request, &cx).await?;
    if !plan.head.together.is_empty() {
        let together = plan.head.together.clone();
        let mut parts = vec![Part { names: names.clone(), containers, plan, fields: None, texts: None }];
        for Pair { source, changes } in together.into_iter().filter(|pair| pair.source != names.source) {
            let names = Names { source, changes, ..names.clone() };
            let (plan, containers) = match restore::undo(&request, &opened.with(ui, &names)).await {
                // It was not begun there.
                Err(RestoreError::NoRestore { .. }) => continue,
                undo => undo?,
            };
            parts.push(Part { names, containers, plan, fields: None, texts: None });
        }
        let run = Run { id: None, dry_run: args.dry_run };
        return carry_out(ui, &parts, &args.how, run, cosmos, started).await;
    }
    let shown = Shown { plan: &plan, fields: None, format: args.how.format };
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    show_and_apply(ui, shown, this, &containers, (&args.how, args.dry_run), (cosmos, names), started).await
}

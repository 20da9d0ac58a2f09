//! `undo`: takes a restore back, document by document, with the same plan, guards and report.

use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::{
    ConnectionArgs,
    applying::{ApplyArgs, show_and_apply},
    together::{Part, Run, carry_out},
};
use crate::{
    change::time::PointInTime,
    config::Names,
    console::{CliError, Exit, Ui, render::plan::Shown},
    figures::count_of,
    format::Format,
    history::{CosmosReader, reading::HistoryReader},
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
        let count = list(ui, &CosmosReader::new(changes.clone(), changes.key_paths()), args.how.format).await?;
        ui.spent(&count_of(count, "restore"), cosmos, started);
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

async fn list(ui: &Ui, changes: &dyn HistoryReader, format: Format) -> Result<u64, CliError> {
    let restores = journal::list(changes).await?;
    let mut rows = ui.rows(format, &["restore", "made", "at", "target", "undoes", "planned", "written"]);
    let time = |t: i64| PointInTime::from_epoch(t).to_string();
    for restore in &restores {
        let head = restore.head.as_ref();
        rows.push(&[
            json!(restore.id),
            json!(restore.applied.or(head.map(|h| h.made)).map(time)),
            json!(head.and_then(|h| h.at).map(time)),
            json!(head.map_or("of another format", |h| h.place.target.as_str())),
            json!(head.and_then(|h| h.undoes.as_deref())),
            json!(restore.planned),
            json!(restore.written),
        ])?;
    }
    rows.finish()?;
    Ok(restores.len() as u64)
}

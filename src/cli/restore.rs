//! `restore`: puts documents back to what they were at a moment. Plans, shows, asks, writes, reports.

use std::{path::Path, time::Instant};

pub use super::restore_args::RestoreArgs;
use super::{
    CliError, ErrorKind, Exit, Ui,
    applying::{apply, save_plan},
    from_archive::{FROM, open_archive},
    render::plan::{Shown, planned_exit, show_plan},
    together::{OnePlan, names_of, pairs, plan_and_carry_out},
};
use crate::{
    config::Account,
    restore::{self, PlanLoadError, Planned, Use, new_id, plan::PlanTarget, plan_file::Plan},
};

/// Runs the command.
///
/// # Errors
/// When the request or the plan is wrong, or the account cannot be used. A document that could not be restored is
/// reported and makes the exit code 3.
pub async fn run(mut args: RestoreArgs, ui: &Ui) -> Result<Exit, CliError> {
    args.how.force = args.force;
    let started = Instant::now();
    if !args.containers.is_empty() {
        return together(&args, ui).await;
    }
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    // Only waiting can be ended in good order; what is planned is of no use before it is whole.
    let cx = if args.wait { opened.careful_context(ui) } else { opened.context(ui) };
    let containers = restore::open(args.into.as_deref(), &cx).await?;
    let credential = Account::from_settings(&args.connection.settings()?)?.credential;
    let archive = args.from_archive.as_deref().map(|text| open_archive(FROM, text, &credential)).transpose()?;
    let Planned { plan, texts, bad } = match &args.plan {
        Some(file) => {
            let plan = loaded(file, &restore::target_of(&containers, &cx))?;
            let texts = restore::texts_of(&plan, archive.as_ref(), &containers).await?;
            Planned { plan, texts, bad: Vec::new() }
        }
        None => {
            let request = args.request(ui, archive.as_ref(), cosmos, names, &containers).await?;
            restore::plan(&request, &containers, &cx).await?
        }
    };
    let bad = if bad.is_empty() { Exit::Done } else { Exit::Incomplete };
    if let Some(file) = &args.plan_out {
        save_plan(ui, &plan, file)?;
    }
    let shown = Shown { plan: &plan, fields: None, format: args.how.format };
    show_plan(ui, shown, args.dry_run)?;
    if args.dry_run {
        ui.spent("planned, nothing written", cosmos, started);
        return Ok(planned_exit(&plan).and(bad));
    }
    // A plan may be used twice: each use has its own journal.
    let run = if args.plan.is_some() { new_id(&*cx.clock) } else { plan.head.id.clone() };
    let this = Use { run: &run, made_now: args.plan.is_none(), texts: texts.as_ref() };
    Ok(apply(ui, shown, this, &containers, &args.how, (cosmos, names), started).await?.and(bad))
}

/// Several containers, to the same moment.
async fn together(args: &RestoreArgs, ui: &Ui) -> Result<Exit, CliError> {
    let (cosmos, _) = args.connection.open()?;
    let all = names_of(&args.connection, &args.containers)?;
    plan_and_carry_out(ui, &cosmos, &all, (&args.how, args.dry_run), async |names, containers, cx| {
        let mut request = args.request(ui, None, &cosmos, names, containers).await?;
        request.together = pairs(&all);
        let planned = restore::plan(&request, containers, cx).await;
        Ok(planned.map(|Planned { plan, bad, .. }| OnePlan { plan, fields: None, is_odd: !bad.is_empty() }))
    })
    .await
}

fn loaded(file: &Path, place: &PlanTarget) -> Result<Plan, CliError> {
    let wrong = |hint| CliError::usage(format!("--plan {}", file.display()), hint);
    restore::load_plan(file, place).map_err(|error| match error {
        PlanLoadError::Open(e) => wrong("make one with --plan-out").because(e),
        PlanLoadError::Unusable(problem) => {
            wrong("make a new plan with --plan-out, for these containers").because(problem)
        }
    })
}

/// A refused query is nearly always the predicate.
pub(super) fn explain(failure: crate::cosmos::Failure, predicate: bool) -> CliError {
    if predicate && failure.status.is_bad_request() {
        return CliError::from(ErrorKind::Predicate(failure))
            .hint("check --where: a predicate on c, strings in single quotes or as --param name=value");
    }
    failure.into()
}

//! `restore`: puts documents back to what they were at a moment. Plans, shows, asks, writes, reports.

use std::{path::Path, time::Instant};

pub use super::restore_args::RestoreArgs;
use super::{
    applying::{save_plans, show_and_apply},
    from_archive::{FROM, open_archive},
    selection::{bad_list, list_text},
    together::{PlanUse, bad_plan, carry_out, names_of, plan_and_carry_out},
};
use crate::{
    config::AccountSettings,
    console::{CliError, ErrorKind, Exit, Ui, render::plan::PlanView},
    input::lists_of,
    restore::{
        self, PlanLoadError, Planned, SavedPlan, Use, new_id,
        together::{OnePlan, ReopenError, pairs, reopen_each},
    },
};

/// Runs the command.
///
/// # Errors
/// When the request or the plan is wrong, or the account cannot be used. A document that could not be restored is
/// reported, and makes the exit code 3.
pub async fn run(mut args: RestoreArgs, ui: &Ui) -> Result<Exit, CliError> {
    args.how.force = args.force;
    let started = Instant::now();
    if !args.containers.is_empty() {
        return together(args, ui).await;
    }
    let saved = args.plan.as_deref().map(loaded).transpose()?;
    let saved = match saved.map(<[SavedPlan; 1]>::try_from) {
        None => None,
        Some(Ok([one])) if one.plan.head.together.is_empty() => Some(one),
        Some(several) => {
            let several = several.map_or_else(std::convert::identity, Vec::from);
            return saved_together(several, &args, ui, started).await;
        }
    };
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    // Only waiting can be stopped in good order; a plan is of no use until it is complete.
    let cx = if args.wait { opened.careful_context(ui) } else { opened.context(ui) };
    let containers = restore::open(args.into.as_deref(), &cx).await?;
    let credential = AccountSettings::from_settings(&args.connection.settings()?)?.credential;
    let archive = args.from_archive.as_deref().map(|text| open_archive(FROM, text, &credential)).transpose()?;
    let Planned { plan, texts, bad } = match saved {
        Some(SavedPlan { plan, texts }) => {
            let place = restore::target_of(&containers, &cx);
            plan.head.check_place(&place).map_err(|e| bad_plan(args.plan.as_deref(), e))?;
            let archived = restore::texts_of(&plan, archive.as_ref(), &containers).await?;
            Planned { plan, texts: texts.or(archived), bad: Vec::new() }
        }
        None => {
            let request = args.request(ui, archive.as_ref(), opened.account(), names, &containers).await?;
            restore::plan(&request, &containers, &cx).await?
        }
    };
    let bad = if bad.is_empty() { Exit::Done } else { Exit::Incomplete };
    if let Some(file) = &args.plan_out {
        save_plans(ui, &[(&plan, None)], file)?;
    }
    let shown = PlanView { plan: &plan, fields: None, format: args.how.format };
    // A plan may be used twice: each use has its own journal.
    let run = if args.plan.is_some() { new_id(&*cx.clock) } else { plan.head.id.clone() };
    let this = Use { run: &run, made_now: args.plan.is_none(), texts: texts.as_ref() };
    let how = (&args.how, args.dry_run);
    Ok(show_and_apply(ui, shown, this, &containers, how, (cosmos, names), started).await?.and(bad))
}

/// Several containers, to the same moment.
async fn together(mut args: RestoreArgs, ui: &Ui) -> Result<Exit, CliError> {
    let (cosmos, names) = args.connection.open()?;
    let mut all = names_of(&args.connection, &args.containers)?;
    if let Some(file) = &args.ids_file {
        args.lists = lists_of(&list_text(file)?, &mut all).map_err(bad_list)?;
    }
    let then = PlanUse { how: &args.how, dry_run: args.dry_run, plan_out: args.plan_out.as_deref() };
    plan_and_carry_out(ui, (&cosmos, &names), &all, then, async |names, containers, cx| {
        let mut request = args.request(ui, None, &cosmos, names, containers).await?;
        request.together = pairs(&all);
        Ok(restore::plan(&request, containers, cx).await.map(OnePlan::from))
    })
    .await
}

/// Saved plans of several containers.
async fn saved_together(
    saved: Vec<SavedPlan>,
    args: &RestoreArgs,
    ui: &Ui,
    started: Instant,
) -> Result<Exit, CliError> {
    if args.into.is_some() || args.from_archive.is_some() {
        return Err(CliError::usage(
            "--plan: the plan is for several containers",
            format!("leave --into and {FROM} out"),
        ));
    }
    let (cosmos, names) = args.connection.open()?;
    let together = reopen_each(saved, &ui.context(&cosmos, &names).any()).await.map_err(|error| match error {
        ReopenError::Plan(problem) => bad_plan(args.plan.as_deref(), problem),
        ReopenError::Restore(error) => error.into(),
    })?;
    carry_out(ui, &together, (&args.how, args.dry_run), (&cosmos, &names), started).await
}

fn loaded(file: &Path) -> Result<Vec<SavedPlan>, CliError> {
    restore::load_plans(file).map_err(|error| match error {
        PlanLoadError::Open(e) => {
            CliError::usage(format!("--plan {}", file.display()), "make one with --plan-out").because(e)
        }
        PlanLoadError::Unusable(problem) => bad_plan(Some(file), problem),
    })
}

/// A refused query is nearly always the predicate's fault.
pub(super) fn explain(failure: crate::cosmos::Failure, predicate: bool) -> CliError {
    if predicate && failure.status.is_bad_request() {
        return CliError::from(ErrorKind::Predicate(failure))
            .hint("check --where: a predicate on c, strings in single quotes or as --param name=value");
    }
    failure.into()
}

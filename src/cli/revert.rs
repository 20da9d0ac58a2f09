//! `revert`: takes back what the writes of a window changed, and keeps everything else. Plans, shows, asks, writes,
//! reports.

use std::time::Instant;

pub use super::revert_args::RevertArgs;
use super::{
    applying::{save_plans, show_and_apply},
    together::{PlanUse, names_of, plan_and_carry_out},
};
use crate::{
    console::{CliError, Exit, Ui, render::plan::PlanView},
    restore::{
        self, Use,
        together::{OnePlan, pairs},
    },
    revert::{self, Request},
};

/// Runs the command.
///
/// # Errors
/// When the request is wrong, or the account cannot be used. A conflicting field and a document that could not be
/// reverted are reported, and make the exit code 3.
pub async fn run(mut args: RevertArgs, ui: &Ui) -> Result<Exit, CliError> {
    let started = Instant::now();
    if !args.containers.is_empty() {
        return together(&mut args, ui).await;
    }
    let opened = args.connection.opened().await?;
    let (cosmos, names) = (&opened.cosmos, &opened.names);
    let cx = if args.wait { opened.careful_context(ui) } else { opened.context(ui) };
    let containers = restore::open(None, &cx).await?;
    let request = args.request(ui, opened.account(), names, &containers).await?;
    let planned = revert::plan(&request, &containers, &cx).await?;
    let bad = if planned.bad.is_empty() { Exit::Done } else { Exit::Incomplete };
    if let Some(file) = &args.plan_out {
        save_plans(ui, &[(&planned.plan, None)], file)?;
    }
    let shown = PlanView { plan: &planned.plan, fields: Some(&planned.fields), format: args.how.format };
    let this = Use { run: &planned.plan.head.id, made_now: true, texts: None };
    let how = (&args.how, args.dry_run);
    Ok(show_and_apply(ui, shown, this, &containers, how, (cosmos, names), started).await?.and(bad))
}

/// Several containers, the same writes.
async fn together(args: &mut RevertArgs, ui: &Ui) -> Result<Exit, CliError> {
    let (cosmos, own) = args.connection.open()?;
    let mut all = names_of(&args.connection, &args.containers)?;
    args.which.share_list(&mut all)?;
    let args = &*args;
    let then = PlanUse { how: &args.how, dry_run: args.dry_run, plan_out: args.plan_out.as_deref() };
    plan_and_carry_out(ui, (&cosmos, &own), &all, then, async |names, containers, cx| {
        let request = Request { together: pairs(&all), ..args.request(ui, &cosmos, names, containers).await? };
        Ok(revert::plan(&request, containers, cx).await.map(OnePlan::from))
    })
    .await
}

//! Shows, confirms, applies and reports a plan: what `restore` and `undo` share.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;

use super::connection::ru_limit;
use crate::{
    archive::texts::KeptTexts,
    config::Names,
    console::{
        CliError, Exit, Ui,
        render::plan::{PlanView, ended, planned_exit, print_report, printed_exit, show_plan},
    },
    cosmos::Cosmos,
    figures::count_of,
    format::Format,
    history::Containers,
    restore::{self, Approval, PlanLimits, RunOptions, Use, plan_file::Plan},
};

/// How a plan is applied: flags of `restore` and `undo`
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Whether documents that were changed after the plan was made are overwritten; a flag of the commands that allow
    /// it.
    #[arg(skip)]
    pub(super) force: bool,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    /// Refuse to write more documents than this
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max: usize,
    /// Refuse to delete more documents than this; for a restore 0, unless --delete-newer names a number; for an undo as
    /// many as the restore created
    #[arg(long, value_name = "N")]
    max_deletes: Option<usize>,
    /// Documents in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) concurrency: u16,
    /// At most this many request units a second, on average, while planning and while applying
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    pub(super) ru_limit: Option<f64>,
    /// Folder of the local journals
    #[arg(long, value_name = "DIR", default_value = ".cosmos-rewind")]
    journal: PathBuf,
    /// How to print the plan and the outcomes
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

impl ApplyArgs {
    /// Folder of the local journals.
    pub(super) fn journal(&self) -> &std::path::Path {
        &self.journal
    }

    pub(super) fn limits(&self) -> PlanLimits {
        PlanLimits { max: self.max, max_deletes: self.max_deletes }
    }

    pub(super) fn options(&self) -> RunOptions {
        RunOptions {
            force: self.force,
            concurrency: self.concurrency.into(),
            ru_limit: self.ru_limit,
            journal: self.journal.clone(),
        }
    }
}

/// Saves plans in a file that must not exist yet.
pub(super) fn save_plans(ui: &Ui, plans: &[(&Plan, Option<&KeptTexts>)], file: &Path) -> Result<(), CliError> {
    restore::save_plans(plans, file).map_err(|e| {
        CliError::unwritable(
            format!("--plan-out {}", file.display()),
            e,
            "name a file that does not exist yet, in a folder that can be written",
        )
    })?;
    let name = file.display();
    ui.note(&format!("plan       saved in {name}; apply it with: cosmos-rewind restore --plan {name}"));
    Ok(())
}

/// Shows a plan and, unless it is only to be shown, asks, applies it and reports.
pub(super) async fn show_and_apply(
    ui: &Ui,
    shown: PlanView<'_>,
    this: Use<'_>,
    containers: &Containers,
    (how, dry_run): (&ApplyArgs, bool),
    (cosmos, names): (&Cosmos, &Names),
    started: Instant,
) -> Result<Exit, CliError> {
    let plan = shown.plan;
    show_plan(ui, shown, dry_run)?;
    if dry_run {
        ui.spent("planned, nothing written", cosmos, started);
        return Ok(planned_exit(plan));
    }
    let writes = plan.totals.writes;
    let approval = Approval::of(plan, &how.limits())?;
    if writes > 0 {
        let (database, target) = (&plan.head.place.database, &plan.head.place.target);
        let what = format!("{} of {database}/{target} will be written.", count_of(writes as u64, "document"));
        ui.confirm(&what, target, how.yes)?;
    }
    let cx = ui.careful_context(cosmos, names).any();
    let report = restore::apply(plan, &approval, this, &how.options(), containers, &cx).await?;
    let noted = report.outcomes.as_ref().map(|_| this.run);
    let listed = print_report(ui, shown, noted, &report, cosmos, started);
    ended(ui, printed_exit(plan, &report)?, listed)
}

//! Several containers in one restore, revert or undo. Each has a plan; all plans are shown, confirmed and applied
//! together, under one id.

use std::{path::Path, time::Instant};

use clap::Args;

use super::{
    ConnectionArgs,
    applying::{ApplyArgs, save_plans},
};
use crate::{
    config::{self, BadContainers, Names},
    console::{
        CliError, ErrorKind, Exit, Ui,
        render::together::{self as render, heading},
    },
    cosmos::Cosmos,
    history::{AnyContext, Containers},
    host::functions::all_names,
    restore::{
        RestoreError,
        plan_file::BadPlan,
        together::{OnePlan, Together, plan_each},
    },
};

/// The containers of `--containers`: each with its history, as `orders=order-changes`, or with that of the function
/// that captures it.
///
/// # Errors
/// When a history is not known, or two containers would share one.
pub(super) fn names_of(connection: &ConnectionArgs, containers: &[String]) -> Result<Vec<Names>, CliError> {
    let settings = connection.settings()?;
    connection.refuse_mongo(&settings)?;
    let common = Names::from_settings(&settings, None)?;
    let known = all_names(&config::app_root(), &settings)?;
    Names::several(containers, &common, &known).map_err(|bad| match bad {
        BadContainers::NoName(_) => {
            CliError::usage(format!("--containers: {bad}"), "write NAME, or NAME=CHANGES, with commas in between")
        }
        BadContainers::NoHistory(text) => CliError::usage(
            format!("--containers {text}: no function captures it, so its history is not known"),
            format!("name it: {text}=CHANGES"),
        ),
        BadContainers::Same(..) => {
            CliError::usage(format!("--containers: {bad}"), "name each container once, with its own history")
        }
    })
}

/// Which containers a command works on, one after another: a flag of `show`, `diff` and `find`.
#[derive(Debug, Args)]
pub struct SeveralArgs {
    /// Work on several containers, one after another: names, each with =CHANGES unless a function of the app captures
    /// it
    #[arg(long, value_name = "NAME[=CHANGES]", value_delimiter = ',')]
    containers: Vec<String>,
}

impl SeveralArgs {
    /// Their names; empty means the container of the connection.
    pub(super) fn containers(&self) -> &[String] {
        &self.containers
    }

    /// The same with what else a function or its flag says of them; empty means the container of the connection.
    ///
    /// # Errors
    /// When a container's history is not known.
    pub(super) fn names(&self, connection: &ConnectionArgs) -> Result<Vec<Names>, CliError> {
        if self.containers.is_empty() { Ok(Vec::new()) } else { names_of(connection, &self.containers) }
    }

    /// Runs a command for each container, or once. Reports each of several containers in which nothing was found.
    ///
    /// # Errors
    /// When a container's history is not known, or the command fails.
    pub(super) async fn each(
        all: Vec<Names>,
        connection: &ConnectionArgs,
        ui: &Ui,
        one: impl AsyncFn(&ConnectionArgs) -> Result<Exit, CliError>,
    ) -> Result<Exit, CliError> {
        if all.is_empty() {
            return one(connection).await;
        }
        let (mut exit, mut is_somewhere, mut nowhere) = (Exit::Done, false, None);
        for names in all {
            heading(ui, &names);
            match one(&connection.of(&names)).await {
                Err(error) if matches!(error.kind, ErrorKind::NotThere(_)) => {
                    ui.note(&error.report());
                    nowhere.get_or_insert(error);
                }
                ended => {
                    exit = exit.and(ended?);
                    is_somewhere = true;
                }
            }
            // The part that was told to stop has reported it.
            if ui.stop().is_cancelled() {
                return Ok(Exit::Incomplete);
            }
        }
        match nowhere {
            Some(error) if !is_somewhere => Err(error),
            _ => Ok(exit),
        }
    }
}

/// How plans that were made together are used.
#[derive(Clone, Copy)]
pub(super) struct PlanUse<'a> {
    pub(super) how: &'a ApplyArgs,
    pub(super) dry_run: bool,
    pub(super) plan_out: Option<&'a Path>,
}

/// Plans each container and applies all plans. A container without matching documents is skipped; at least one must
/// have some.
///
/// # Errors
/// When a plan cannot be made or saved, or as [`carry_out`].
pub(super) async fn plan_and_carry_out(
    ui: &Ui,
    (cosmos, names): (&Cosmos, &Names),
    all: &[Names],
    then: PlanUse<'_>,
    plan: impl AsyncFn(&Names, &Containers, &AnyContext<'_>) -> Result<Result<OnePlan, RestoreError>, CliError>,
) -> Result<Exit, CliError> {
    let started = Instant::now();
    // Only waiting can be stopped in good order.
    let together = plan_each(all, &ui.careful_context(cosmos, names).any(), plan).await?;
    if let Some(file) = then.plan_out {
        save_parts(ui, &together, file)?;
    }
    let odd = if together.is_odd() { Exit::Incomplete } else { Exit::Done };
    Ok(carry_out(ui, &together, (then.how, then.dry_run), (cosmos, names), started).await?.and(odd))
}

/// Saves the plans in one file.
///
/// # Errors
/// When the file exists already, or it cannot be written.
pub(super) fn save_parts(ui: &Ui, together: &Together, file: &Path) -> Result<(), CliError> {
    let plans = together.parts.iter().map(|part| (part.plan(), part.planned.texts.as_ref()));
    save_plans(ui, &plans.collect::<Vec<_>>(), file)
}

/// Shows all plans, asks once, and applies them one after another.
///
/// # Errors
/// When the limits are too low for all of them, the question is declined, or a plan is given up.
pub(super) async fn carry_out(
    ui: &Ui,
    together: &Together,
    (how, dry_run): (&ApplyArgs, bool),
    (cosmos, names): (&Cosmos, &Names),
    started: Instant,
) -> Result<Exit, CliError> {
    let format = how.format;
    let planned = render::show_plans(ui, together, format, dry_run, true)?;
    if dry_run {
        ui.spent("planned, nothing written", cosmos, started);
        return Ok(planned);
    }
    let approvals = together.approve(&how.limits())?;
    if let Some((question, answer)) = render::question(together) {
        ui.confirm(&question, answer, how.yes)?;
    }
    let mut reports = render::Reports::new(ui, together.run(), format, cosmos, started);
    let cx = ui.careful_context(cosmos, names).any();
    together.apply(&approvals, &how.options(), &cx, |part, stage| reports.tell(part, &stage)).await?;
    reports.finish()
}

/// Names the file of a saved plan that cannot be used.
pub(super) fn bad_plan(file: Option<&Path>, problem: BadPlan) -> CliError {
    let flag = file.map_or_else(|| "--plan".to_owned(), |file| format!("--plan {}", file.display()));
    CliError::usage(flag, "make a new plan with --plan-out, for these containers").because(problem)
}

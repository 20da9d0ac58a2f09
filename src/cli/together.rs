//! Several containers in one restore, revert or undo: each has a plan, all are shown, asked about and carried out together,
//! under one id.

use std::{path::Path, time::Instant};

use clap::Args;

use super::{
    ConnectionArgs,
    applying::{ApplyArgs, save_plans},
};
use crate::{
    archive::texts::KeptTexts,
    config::{self, Names},
    console::{
        CliError, ErrorKind, Exit, Ui,
        render::plan::{Shown, ended, planned_exit, print_report, printed_exit, show_plan},
    },
    cosmos::Cosmos,
    figures::count_of,
    history::{AnyContext, Containers},
    host::functions::Function,
    restore::{
        self, Approval, Fields, RestoreError, Saved, Use,
        plan_file::{BadPlan, Pair, Plan},
    },
};

/// The plan of one container.
pub(super) struct Part {
    pub(super) names: Names,
    pub(super) containers: Containers,
    pub(super) plan: Plan,
    pub(super) fields: Option<Fields>,
    /// Texts that are not in the history.
    pub(super) texts: Option<KeptTexts>,
}

/// The containers of `--containers`: each with its history, as `orders=order-changes`, or as the function that captures it
/// has it.
///
/// # Errors
/// When a history is not known, or two containers would have the same.
pub(super) fn names_of(connection: &ConnectionArgs, containers: &[String]) -> Result<Vec<Names>, CliError> {
    let settings = connection.settings()?;
    connection.refuse_mongo(&settings)?;
    let common = Names::from_settings(&settings, None)?;
    let mut known = vec![common.clone()];
    for function in Function::discover(&config::app_root())? {
        known.push(Names::from_settings(&settings, Some(&function.name))?);
    }
    let mut all: Vec<Names> = Vec::new();
    for text in containers {
        let (source, changes) = match text.split_once('=') {
            Some((source, changes)) => (source, Some(changes)),
            None => (text.as_str(), None),
        };
        if let Some(wrong) = [Some(source), changes].into_iter().flatten().find(|name| !Names::is_one(name)) {
            return Err(CliError::usage(
                format!("--containers: {wrong:?} is not the name of a container"),
                "write NAME, or NAME=CHANGES, with commas in between",
            ));
        }
        let names = match changes {
            Some(changes) => Names { source: source.to_owned(), changes: changes.to_owned(), ..common.clone() },
            None => known.iter().find(|names| names.source == *text).cloned().ok_or_else(|| {
                CliError::usage(
                    format!("--containers {text}: no function captures it, so its history is not known"),
                    format!("name it: {text}=CHANGES"),
                )
            })?,
        };
        if let Some(other) = all.iter().find(|o| o.source == names.source || o.changes == names.changes) {
            return Err(CliError::usage(
                format!(
                    "--containers: {} and {} are not two containers with a history each",
                    other.source, names.source
                ),
                "name each container once, with its own history",
            ));
        }
        all.push(names);
    }
    Ok(all)
}

/// Which containers a command looks at, one after the other: a flag of `show`, `diff` and `find`.
#[derive(Debug, Args)]
pub struct SeveralArgs {
    /// Look at several containers, one after the other: names, each with =CHANGES unless a function of the app captures it
    #[arg(long, value_name = "NAME[=CHANGES]", value_delimiter = ',')]
    containers: Vec<String>,
}

impl SeveralArgs {
    /// Their names; empty: the one of the connection.
    pub(super) fn containers(&self) -> &[String] {
        &self.containers
    }

    /// The same with what else a function or its flag says of them; empty: the one of the connection.
    ///
    /// # Errors
    /// When a container's history is not known.
    pub(super) fn names(&self, connection: &ConnectionArgs) -> Result<Vec<Names>, CliError> {
        if self.containers.is_empty() { Ok(Vec::new()) } else { names_of(connection, &self.containers) }
    }

    /// Runs a command for each container, or once. Where one of several has nothing that is asked for, that is said.
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
            ui.note(&format!("container  {}", names.source));
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
        }
        match nowhere {
            Some(error) if !is_somewhere => Err(error),
            _ => Ok(exit),
        }
    }
}

/// The containers, as their plans name them.
pub(super) fn pairs(all: &[Names]) -> Vec<Pair> {
    all.iter().map(|names| Pair { source: names.source.clone(), changes: names.changes.clone() }).collect()
}

/// What is planned for a container.
pub(super) struct OnePlan {
    pub(super) plan: Plan,
    pub(super) fields: Option<Fields>,
    /// Texts that are not in the history.
    pub(super) texts: Option<KeptTexts>,
    /// Whether records were set aside.
    pub(super) is_odd: bool,
}

/// What is done with plans that were made together.
#[derive(Clone, Copy)]
pub(super) struct Then<'a> {
    pub(super) how: &'a ApplyArgs,
    pub(super) dry_run: bool,
    pub(super) plan_out: Option<&'a Path>,
}

/// Plans for each container, and carries all out. Where nothing is in scope, nothing is done; somewhere it has to be.
///
/// # Errors
/// When a plan cannot be made or saved, or as [`carry_out`].
pub(super) async fn plan_and_carry_out(
    ui: &Ui,
    cosmos: &Cosmos,
    all: &[Names],
    then: Then<'_>,
    plan: impl AsyncFn(&Names, &Containers, &AnyContext<'_>) -> Result<Result<OnePlan, RestoreError>, CliError>,
) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (parts, exit) = plan_each(ui, cosmos, all, plan).await?;
    if let Some(file) = then.plan_out {
        save_parts(ui, &parts, file)?;
    }
    let run = Run { id: None, dry_run: then.dry_run };
    Ok(carry_out(ui, &parts, then.how, run, cosmos, started).await?.and(exit))
}

/// Saves the plans in one file.
///
/// # Errors
/// When there is such a file already, or it cannot be written.
pub(super) fn save_parts(ui: &Ui, parts: &[Part], file: &Path) -> Result<(), CliError> {
    let plans: Vec<(&Plan, Option<&KeptTexts>)> = parts.iter().map(|part| (&part.plan, part.texts.as_ref())).collect();
    save_plans(ui, &plans, file)
}

/// Plans for each container; how it went.
///
/// # Errors
/// When a plan cannot be made, or nothing is in scope anywhere.
pub(super) async fn plan_each(
    ui: &Ui,
    cosmos: &Cosmos,
    all: &[Names],
    plan: impl AsyncFn(&Names, &Containers, &AnyContext<'_>) -> Result<Result<OnePlan, RestoreError>, CliError>,
) -> Result<(Vec<Part>, Exit), CliError> {
    let (mut parts, mut nothing, mut exit) = (Vec::new(), None, Exit::Done);
    for names in all {
        // Only waiting can be ended in good order.
        let cx = ui.careful_context(cosmos, names).any();
        let containers = restore::open(None, &cx).await?;
        match plan(names, &containers, &cx).await? {
            Err(error @ (RestoreError::Nothing { .. } | RestoreError::NothingToRevert { .. })) => nothing = Some(error),
            planned => {
                let OnePlan { plan, fields, texts, is_odd } = planned?;
                exit = exit.and(if is_odd { Exit::Incomplete } else { Exit::Done });
                parts.push(Part { names: names.clone(), containers, plan, fields, texts });
            }
        }
    }
    match nothing {
        Some(error) if parts.is_empty() => Err(error.into()),
        _ => Ok((parts, exit)),
    }
}

/// Opens the containers of saved plans.
///
/// # Errors
/// When one cannot be opened, or its plan was made for another one.
pub(super) async fn saved_parts(
    ui: &Ui,
    (cosmos, names): (&Cosmos, &Names),
    saved: Vec<Saved>,
    file: Option<&Path>,
) -> Result<Vec<Part>, CliError> {
    let mut parts = Vec::new();
    for Saved { plan, texts } in saved {
        let place = &plan.head.place;
        let names = Names { source: place.source.clone(), changes: place.changes.clone(), ..names.clone() };
        let cx = ui.context(cosmos, &names).any();
        let containers = restore::open(None, &cx).await?;
        plan.head.check_place(&restore::target_of(&containers, &cx)).map_err(|e| bad_plan(file, e))?;
        parts.push(Part { names, containers, plan, fields: None, texts });
    }
    Ok(parts)
}

/// A saved plan that cannot be used, from this file.
pub(super) fn bad_plan(file: Option<&Path>, problem: BadPlan) -> CliError {
    let flag = file.map_or_else(|| "--plan".to_owned(), |file| format!("--plan {}", file.display()));
    CliError::usage(flag, "make a new plan with --plan-out, for these containers").because(problem)
}

/// How plans are used.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    /// Names this use of saved plans; `None`: they were made now, and are used once.
    pub(super) id: Option<&'a str>,
    pub(super) dry_run: bool,
}

/// Shows all plans, asks once, and carries them out one after the other. One that is given up ends the others.
///
/// # Errors
/// When the limits are too low for all of them, nobody agrees, or one is given up.
pub(super) async fn carry_out(
    ui: &Ui,
    parts: &[Part],
    how: &ApplyArgs,
    run: Run<'_>,
    cosmos: &Cosmos,
    started: Instant,
) -> Result<Exit, CliError> {
    let shown = |part| shown(part, how);
    let mut exit = Exit::Done;
    for part in parts {
        ui.note(&format!("container  {}", part.names.source));
        show_plan(ui, shown(part), run.dry_run)?;
        exit = exit.and(planned_exit(&part.plan));
    }
    if run.dry_run {
        ui.spent("planned, nothing written", cosmos, started);
        return Ok(exit);
    }
    let plans: Vec<&Plan> = parts.iter().map(|part| &part.plan).collect();
    let approvals = Approval::of_all(&plans, &how.limits())?;
    let writes: usize = plans.iter().map(|plan| plan.totals.writes).sum();
    let Some(first) = parts.first() else { return Ok(exit) };
    if writes > 0 {
        let each = parts.iter().map(|part| format!("{} of {}", part.plan.totals.writes, part.names.source));
        let each = each.collect::<Vec<_>>().join(", ");
        let what =
            format!("{} of {} will be written: {each}.", count_of(writes as u64, "document"), first.names.database);
        ui.confirm(&what, &first.names.database, how.yes)?;
    }
    let (run, made_now) = (run.id.unwrap_or(&first.plan.head.id), run.id.is_none());
    if writes > 0 {
        restore::announce(&first.plan.head, run, &ui.context(cosmos, &first.names).any()).await?;
    }
    let noted = (writes > 0).then_some(run);
    let (mut exit, mut listed) = (Exit::Done, Ok(()));
    for (part, approval) in parts.iter().zip(&approvals) {
        let cx = ui.careful_context(cosmos, &part.names).any();
        let this = Use { run, made_now, texts: part.texts.as_ref() };
        ui.note(&format!("container  {}", part.names.source));
        let report = restore::apply(&part.plan, approval, this, &how.options(), &part.containers, &cx).await?;
        // Whoever reads the outcomes may be gone: what was approved is carried out all the same.
        listed = listed.and(print_report(ui, shown(part), noted, &report, cosmos, started));
        exit = exit.and(printed_exit(&part.plan, &report)?);
        if report.not_begun > 0 {
            break;
        }
    }
    ended(ui, exit, listed)
}

fn shown<'a>(part: &'a Part, how: &ApplyArgs) -> Shown<'a> {
    Shown { plan: &part.plan, fields: part.fields.as_ref(), format: how.format }
}

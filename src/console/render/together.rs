//! Plans of several containers, the question about all of them, and the outcome of each.

use std::time::Instant;

use super::plan::{PlanView, ended, planned_exit, print_report, printed_exit, show_plan};
use crate::{
    config::Names,
    console::{CliError, Exit, Ui},
    cosmos::Cosmos,
    figures::count_of,
    format::Format,
    restore::together::{ContainerPlan, Stage, Together},
};

impl<'a> PlanView<'a> {
    fn of(part: &'a ContainerPlan, format: Format) -> Self {
        Self { plan: part.plan(), fields: part.planned.fields.as_ref(), format }
    }
}

/// Prints which container the next lines belong to.
pub(crate) fn heading(ui: &Ui, names: &Names) {
    ui.note(&format!("container  {}", names.source));
}

/// Shows the plans, as [`show_plan`] does; returns how the command ends if it goes no further.
///
/// # Errors
/// When a plan or stdout cannot be used.
pub(crate) fn show_plans(
    ui: &Ui,
    together: &Together,
    format: Format,
    alone: bool,
    headed: bool,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Done;
    for part in &together.parts {
        if headed {
            heading(ui, &part.names);
        }
        show_plan(ui, PlanView::of(part, format), alone)?;
        exit = exit.and(planned_exit(part.plan()));
    }
    Ok(exit)
}

/// Asks once before the plans are applied; `None` when there is nothing to write.
pub(crate) fn question(together: &Together) -> Option<(String, &str)> {
    let first = together.parts.first().filter(|_| together.writes() > 0)?;
    let each = together.parts.iter().map(|part| format!("{} of {}", part.plan().totals.writes, part.names.source));
    let (each, database) = (each.collect::<Vec<_>>().join(", "), first.names.database.as_str());
    let documents = count_of(together.writes() as u64, "document");
    Some((format!("{documents} of {database} will be written: {each}."), database))
}

/// The outcomes of the plans, printed as each of them ends.
pub(crate) struct Reports<'r> {
    ui: &'r Ui,
    run: Option<&'r str>,
    format: Format,
    cosmos: &'r Cosmos,
    started: Instant,
    exit: Result<Exit, CliError>,
    listed: Result<(), CliError>,
}

impl<'r> Reports<'r> {
    /// Before anything has ended. `run` is the name of the journals, if there are any.
    pub(crate) fn new(ui: &'r Ui, run: Option<&'r str>, format: Format, cosmos: &'r Cosmos, started: Instant) -> Self {
        Self { ui, run, format, cosmos, started, exit: Ok(Exit::Done), listed: Ok(()) }
    }

    /// Prints how far a container is.
    pub(crate) fn tell(&mut self, part: &ContainerPlan, stage: &Stage) {
        let report = match stage {
            Stage::Begun => return heading(self.ui, &part.names),
            Stage::Ended(report) => report,
        };
        let shown = PlanView::of(part, self.format);
        // The reader of the outcomes may be gone: what was approved is applied all the same.
        let listed = print_report(self.ui, shown, self.run, report, self.cosmos, self.started);
        if self.listed.is_ok() {
            self.listed = listed;
        }
        if let Ok(exit) = self.exit {
            self.exit = printed_exit(part.plan(), report).map(|ended| exit.and(ended));
        }
    }

    /// How the command ends.
    ///
    /// # Errors
    /// When a plan was given up, or everything else was done but the outcomes could not be printed.
    pub(crate) fn finish(self) -> Result<Exit, CliError> {
        ended(self.ui, self.exit?, self.listed)
    }
}

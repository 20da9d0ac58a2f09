//! `doctor`: checks whether capture can work here, and says what to do where it cannot.

use std::path::PathBuf;

use clap::Args;

use super::{ConnectionArgs, retention_args};
use crate::{
    config,
    console::{CliError, Exit, Ui, render},
    doctor::{self, CheckResult, Request, TimerRules, Verdict},
    format::Format,
};

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Writes one item into the changes container and one dead letter, and removes both.")]
pub struct DoctorArgs {
    /// Folder of host.json and local.settings.json [default: the working directory]
    #[arg(long, value_name = "DIR")]
    app_root: Option<PathBuf>,
    /// Directory or blob container URL of the dead letters [setting: REWIND_DEAD_LETTERS]
    #[arg(long, value_name = "DIR|URL")]
    dead_letters: Option<String>,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command: everything is examined, whatever is wrong.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(args: DoctorArgs, ui: &Ui) -> Result<Exit, CliError> {
    let app_root = args.app_root.unwrap_or_else(config::app_root);
    args.connection.refuse_strange_address()?;
    let (mut settings, unreadable) = match args.connection.settings_in(&app_root) {
        Ok(settings) => (settings, None),
        Err(e) => {
            let fix = e.hints.first().map(ToString::to_string).unwrap_or_default();
            let finding = CheckResult::failure("local.settings.json", e.report(), fix);
            (args.connection.over(config::Settings::environment()), Some(finding))
        }
    };
    args.connection.refuse_mongo(&settings)?;
    if let Some(place) = args.dead_letters {
        settings.set_override("REWIND_DEAD_LETTERS", place);
    }
    let timers = TimerRules {
        settings: retention_args::check_settings,
        function: |settings, function, account| retention_args::timer(settings, function, account).map(drop),
    };
    let report = doctor::check(Request { app_root, settings, unreadable, timers }).await;
    render::doctor::show(ui, &report, args.format)?;
    Ok(if report.count(Verdict::Failure) == 0 { Exit::Done } else { Exit::Incomplete })
}

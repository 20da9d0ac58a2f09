//! `doctor`: whether capture can work here, and what to do where it cannot.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    output::{self, Format, Rows},
    retention_args,
};
use crate::{
    checkup::{Finding, Verdict, check_account, check_files, check_settings},
    config::{self, Account},
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

/// Runs the command: everything is looked at, whatever is wrong.
///
/// # Errors
/// When stdout cannot be written.
pub async fn run(args: DoctorArgs) -> Result<Exit, CliError> {
    let app_root = args.app_root.clone().unwrap_or_else(config::app_root);
    let mut findings = Vec::new();
    let mut settings = args.connection.settings_in(&app_root).unwrap_or_else(|e| {
        findings.push(Finding::failure("local.settings.json", e.message, e.hint.unwrap_or_default()));
        args.connection.over(config::Settings::environment())
    });
    if let Some(place) = &args.dead_letters {
        settings.set_override("REWIND_DEAD_LETTERS", place.clone());
    }
    let credential = Account::from_settings(&settings).ok().map(|account| account.credential);
    let functions = check_files(&app_root, &settings, credential.as_ref(), &mut findings);
    let understood = check_settings(&settings, &app_root, &functions.captures, &mut findings);
    if let Err(e) = retention_args::check_settings(&settings) {
        findings.push(Finding::failure(format!("setting {}", e.name), e.problem, e.fix));
    }
    for timer in &functions.timers {
        findings.push(pruning(&settings, timer, understood.account.clone()));
    }
    check_account(&understood, &mut findings).await;

    let mut rows = Rows::stdout(args.format, &["check", "result", "found", "do"]);
    for finding in &findings {
        rows.push(&[
            json!(finding.check),
            json!(finding.verdict.as_str()),
            json!(finding.found),
            json!(finding.advice),
        ])?;
    }
    rows.finish()?;
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count() as u64;
    let (warnings, failures) = (count(Verdict::Warning), count(Verdict::Failure));
    output::note(&format!(
        "{}, {}, {}",
        output::count_of(findings.len() as u64, "check"),
        output::count_of(warnings, "warning"),
        output::count_of(failures, "failure"),
    ));
    Ok(if failures == 0 { Exit::Done } else { Exit::Incomplete })
}

/// Whether a timer function knows what to prune.
fn pruning(settings: &config::Settings, function: &str, account: Option<Account>) -> Finding {
    let check = format!("function {function}");
    let Some(account) = account else {
        return Finding::warning(check, "cannot be looked at without an account", "mend the account's settings first");
    };
    match retention_args::timer(settings, function, account) {
        Ok(_) => Finding::ok(
            check,
            format!("prunes {}", settings.get_for(Some(function), config::PRUNE).unwrap_or_default()),
        ),
        Err(e) => Finding::failure(check, format!("setting {}: {}", e.name, e.problem), e.fix),
    }
}

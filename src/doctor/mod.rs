//! Whether capture can work here: the settings, the function app's files, the account. Nothing stops at the first
//! thing that is wrong; whoever asks wants all of them at once.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{config::Settings, doctor::{self, Request, TimerRules, Verdict}};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::load(".".as_ref())?;
//! let timers = TimerRules { settings: |_| Ok(()), function: |_, _, _| Ok(()) };
//! let report = doctor::check(Request { app_root: ".".into(), settings, unreadable: None, timers }).await;
//! println!("{} things are wrong", report.count(Verdict::Failure));
//! # Ok(())
//! # }
//! ```

mod account;
mod files;
mod leases;
mod writing;

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use account::check_account;
use files::check_files;

pub use crate::verify::Verdict;

use crate::{
    config::{self, AccountSettings, CaptureConfig, ConfigError, Names, Settings},
    projection::Projection,
    telemetry::{self, otlp::ExportConfig},
};

/// The subject of the checks. There is no [`Context`](crate::context::Context): whether there is an account is one of
/// the questions.
pub struct Request {
    /// Folder of host.json.
    pub app_root: PathBuf,
    /// The settings, as far as they can be read.
    pub settings: Settings,
    /// Why local.settings.json cannot be read, if so.
    pub unreadable: Option<CheckResult>,
    /// How the settings of timers are parsed.
    pub timers: TimerRules,
}

/// Checks the settings of timer functions, which are the flags of a command.
pub struct TimerRules {
    /// Checks the settings that all timers share.
    pub settings: fn(&Settings) -> Result<(), ConfigError>,
    /// Checks those of one function.
    pub function: fn(&Settings, &str, AccountSettings) -> Result<(), ConfigError>,
}

/// All findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// In the order of the checks.
    pub findings: Vec<CheckResult>,
}

impl Report {
    /// How many findings have this verdict.
    pub fn count(&self, verdict: Verdict) -> u64 {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count() as u64
    }
}

/// Checks everything, whatever is wrong: settings, files, timers, account and dead-letter store. Writes one item to the
/// history and one dead letter, and removes both.
pub async fn check(request: Request) -> Report {
    let Request { app_root, settings, unreadable, timers } = request;
    let mut findings: Vec<CheckResult> = unreadable.into_iter().collect();
    let credential = AccountSettings::from_settings(&settings).ok().map(|account| account.credential);
    let functions = check_files(&app_root, &settings, credential.as_ref(), &mut findings);
    let understood = check_settings(&settings, &app_root, &functions.captures, &mut findings);
    if let Err(e) = (timers.settings)(&settings) {
        findings.push(CheckResult::of(e));
    }
    for function in &functions.timers {
        findings.push(check_timer(&settings, function, understood.account.clone(), timers.function));
    }
    check_account(&understood, &functions.declared, &mut findings).await;
    Report { findings }
}

/// Whether a timer function knows what to prune.
fn check_timer(
    settings: &Settings,
    function: &str,
    account: Option<AccountSettings>,
    rule: fn(&Settings, &str, AccountSettings) -> Result<(), ConfigError>,
) -> CheckResult {
    let check = format!("function {function}");
    let Some(account) = account else {
        return CheckResult::warning(
            check,
            "cannot be looked at without an account",
            "mend the account's settings first",
        );
    };
    match rule(settings, function, account) {
        Ok(()) => {
            let flags = settings.get_for(Some(function), config::PRUNE).unwrap_or_default();
            CheckResult::ok(check, format!("prunes {flags}"))
        }
        Err(e) => CheckResult::failure(check, format!("setting {}: {}", e.name, e.problem), e.fix),
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// The subject of the check.
    pub check: String,
    /// How it is.
    #[serde(rename = "result", serialize_with = "as_word")]
    pub verdict: Verdict,
    /// The finding, on one line; never a secret.
    pub found: String,
    /// The remedy; `None` for [`Verdict::Ok`].
    #[serde(rename = "do")]
    pub advice: Option<String>,
}

fn as_word<S: Serializer>(verdict: &Verdict, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(verdict.as_str())
}

/// Checks of what starts the handler, which do not matter to a handler that has been started.
const OF_THE_START: [&str; 3] = [files::HOST, files::EXECUTABLE, files::ARGUMENTS];

/// Lists the faults of an app's files that would alter what is captured, one line each: `serve` does not start with any
/// of them.
pub fn wrong_in_files(app_root: &Path, settings: &Settings, account: &AccountSettings) -> Vec<String> {
    let mut findings = Vec::new();
    check_files(app_root, settings, Some(&account.credential), &mut findings);
    let concerns = |f: &CheckResult| f.verdict == Verdict::Failure && !OF_THE_START.contains(&f.check.as_str());
    let line = |f: CheckResult| format!("{}: {}; {}", f.check, f.found, f.advice.unwrap_or_default());
    findings.into_iter().filter(concerns).map(line).collect()
}

impl CheckResult {
    /// It is as it should be.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    /// It is not as it should be.
    pub fn new(
        verdict: Verdict,
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check: check.into(), verdict, found: found.into(), advice: Some(advice.into()) }
    }

    /// It works for now, or could not be checked.
    pub fn warning(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, found, advice)
    }

    /// It cannot work like this.
    pub fn failure(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Verdict::Failure, check, found, advice)
    }

    fn of(error: ConfigError) -> Self {
        Self::failure(format!("setting {}", error.name), error.problem, error.fix)
    }
}

/// The settings, as far as they could be parsed.
#[derive(Debug)]
struct Understood {
    /// The account, if its settings are valid.
    pub account: Option<AccountSettings>,
    /// Limits and dead letters, likewise.
    pub capture: Option<CaptureConfig>,
    /// The containers of each function, with its name; one entry without a name when there is no function.
    pub names: Vec<(Option<String>, Names)>,
}

/// Reads every setting as `serve` does, and reports those that are wrong.
fn check_settings(
    settings: &Settings,
    app_root: &Path,
    functions: &[String],
    findings: &mut Vec<CheckResult>,
) -> Understood {
    let before = findings.len();
    fn kept<T>(result: Result<T, ConfigError>, findings: &mut Vec<CheckResult>) -> Option<T> {
        result.map_err(|e| findings.push(CheckResult::of(e))).ok()
    }
    let account = kept(AccountSettings::from_settings(settings), findings);
    let capture = kept(CaptureConfig::from_settings(settings, app_root), findings);
    kept(telemetry::check(settings), findings);
    kept(ExportConfig::from_settings(settings), findings);
    let mut names = Vec::new();
    let each: Vec<Option<&str>> =
        if functions.is_empty() { vec![None] } else { functions.iter().map(|name| Some(name.as_str())).collect() };
    for function in each {
        let own = kept(Names::from_settings(settings, function), findings);
        names.extend(own.map(|own| (function.map(str::to_owned), own)));
        kept(Projection::from_settings(settings, function), findings);
    }
    if findings.len() == before {
        findings.push(CheckResult::ok("settings", "all understood"));
    }
    Understood { account, capture, names }
}

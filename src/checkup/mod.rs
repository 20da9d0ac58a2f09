//! Whether capture can work here: the settings, the function app's files, the account. Nothing stops at the first
//! thing that is wrong; whoever asks wants all of them at once.

mod account;
mod files;

pub use account::check_account;
pub use files::{Functions, check_files};

pub use crate::verify::Verdict;

use crate::{
    config::{Account, CaptureConfig, ConfigError, Names, Settings},
    projection::Projection,
    telemetry::{self, otlp::ExportConfig},
};

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was found, one line; never a secret.
    pub found: String,
    /// What to do about it; nothing for [`Verdict::Ok`].
    pub advice: Option<String>,
}

/// Checks of what starts the handler: of no interest to one that was started.
const OF_THE_START: [&str; 3] = [files::HOST, files::EXECUTABLE, files::ARGUMENTS];

/// What is wrong with an app's files as far as it concerns what is captured, one line each: `serve` does not start with
/// any of it.
pub fn wrong_in_files(app_root: &std::path::Path, settings: &Settings, account: &Account) -> Vec<String> {
    let mut findings = Vec::new();
    check_files(app_root, settings, Some(&account.credential), &mut findings);
    let concerns = |f: &Finding| f.verdict == Verdict::Failure && !OF_THE_START.contains(&f.check.as_str());
    let line = |f: Finding| format!("{}: {}; {}", f.check, f.found, f.advice.unwrap_or_default());
    findings.into_iter().filter(concerns).map(line).collect()
}

impl Finding {
    /// As it should be.
    pub fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        Self { check: check.into(), verdict: Verdict::Ok, found: found.into(), advice: None }
    }

    /// Not as it should be.
    pub fn new(
        verdict: Verdict,
        check: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { check: check.into(), verdict, found: found.into(), advice: Some(advice.into()) }
    }

    /// It works until it does not, or could not be looked at.
    pub fn warning(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, check, found, advice)
    }

    /// It cannot work so.
    pub fn failure(check: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Verdict::Failure, check, found, advice)
    }

    fn of(error: ConfigError) -> Self {
        Self::failure(format!("setting {}", error.name), error.problem, error.fix)
    }
}

/// What the settings say, as far as they can be understood.
#[derive(Debug)]
pub struct Understood {
    /// The account, when its settings are right.
    pub account: Option<Account>,
    /// Limits and dead letters, likewise.
    pub capture: Option<CaptureConfig>,
    /// The containers of each function, with the function's name; one entry without a name when there is no function.
    pub names: Vec<(Option<String>, Names)>,
}

/// Reads every setting as `serve` does, and says which are wrong.
pub fn check_settings(
    settings: &Settings,
    app_root: &std::path::Path,
    functions: &[String],
    findings: &mut Vec<Finding>,
) -> Understood {
    let before = findings.len();
    fn kept<T>(result: Result<T, ConfigError>, findings: &mut Vec<Finding>) -> Option<T> {
        result.map_err(|e| findings.push(Finding::of(e))).ok()
    }
    let account = kept(Account::from_settings(settings), findings);
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
        findings.push(Finding::ok("settings", "all understood"));
    }
    Understood { account, capture, names }
}

//! Checks host.json against what the host does with it.

use std::path::Path;

use serde_json::Value;

use super::{CheckResult, Verdict};
use crate::host::app::{self, BUNDLE, BUNDLE_VERSIONS, DATES, DATES_KEPT};

/// The check of host.json itself.
pub(in crate::doctor) const HOST: &str = "host.json";
/// The check of the program that it names.
pub(in crate::doctor) const EXECUTABLE: &str = "host.json executable";
/// The check of the program's arguments.
pub(in crate::doctor) const ARGUMENTS: &str = "host.json arguments";

/// Checks host.json; `all_versions` are the functions in that mode.
pub(super) fn check_host(app_root: &Path, host: &Value, all_versions: &[&str], findings: &mut Vec<CheckResult>) {
    let before = findings.len();
    if host["version"] != "2.0" {
        findings.push(CheckResult::failure(
            "host.json version",
            host["version"].to_string(),
            "write \"version\": \"2.0\"",
        ));
    }
    if host.get("httpWorker").is_some() {
        findings.push(CheckResult::failure(
            "host.json httpWorker",
            "the deprecated form",
            "use customHandler.description instead",
        ));
    }
    if host["customHandler"]["enableForwardingHttpRequest"] == true || !host["customHandler"]["http"].is_null() {
        findings.push(CheckResult::warning(
            "host.json customHandler",
            "forwards HTTP requests, which no change feed sends",
            "leave only description in customHandler",
        ));
    }
    let description = &host["customHandler"]["description"];
    executable(app_root, description, findings);
    let arguments = description["arguments"].as_array();
    if arguments.and_then(|all| all.first()).is_none_or(|first| first != "serve") {
        findings.push(CheckResult::failure(
            ARGUMENTS,
            description["arguments"].to_string(),
            "write \"arguments\": [\"serve\"]: without it the program prints its help and ends",
        ));
    }
    let folder = description["workingDirectory"].as_str().unwrap_or_default();
    if !folder.is_empty() && folder != "." {
        findings.push(CheckResult::warning(
            "host.json workingDirectory",
            format!("{folder:?}"),
            "leave it empty: settings and dead letters are looked for in the app's folder",
        ));
    }
    bundle(host, all_versions, findings);
    dates(host, all_versions, findings);
    if findings[before..].iter().all(|finding| finding.verdict == Verdict::Ok) {
        findings.push(CheckResult::ok(
            "host.json",
            "starts the handler, has the trigger's extension, and leaves dates alone",
        ));
    }
}

fn executable(app_root: &Path, description: &Value, findings: &mut Vec<CheckResult>) {
    const CHECK: &str = EXECUTABLE;
    let Some(named) = description["defaultExecutablePath"].as_str().filter(|path| !path.is_empty()) else {
        findings.push(CheckResult::failure(
            CHECK,
            "customHandler.description.defaultExecutablePath is missing",
            "name the program, relative to host.json: \"defaultExecutablePath\": \"cosmos-rewind\"",
        ));
        return;
    };
    let path = app_root.join(named);
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => {
            findings.push(CheckResult::failure(CHECK, format!("{named} is not a file"), "name the program itself"));
        }
        #[cfg(unix)]
        Ok(found) if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 == 0 => {
            findings.push(CheckResult::failure(
                CHECK,
                format!("{named} is not executable"),
                format!("run chmod 755 {}, and pack it with a tool that keeps modes", path.display()),
            ));
        }
        Ok(_) => {}
        // A plain name may be found in PATH.
        Err(_) if !named.contains(['/', '\\']) && !Path::new(named).is_absolute() => {
            findings.push(CheckResult::warning(
                CHECK,
                format!("{named} is not in the app's folder"),
                "put it beside host.json, unless the host finds it in PATH",
            ));
        }
        Err(e) => findings.push(CheckResult::failure(
            CHECK,
            format!("{named}: {e}"),
            "build it, or correct defaultExecutablePath; it is relative to host.json",
        )),
    }
}

fn bundle(host: &Value, all_versions: &[&str], findings: &mut Vec<CheckResult>) {
    const CHECK: &str = "host.json bundle";
    const VERSION: &str = "host.json bundle version";
    let (id, versions) = app::bundle_of(host);
    let write = format!("write \"extensionBundle\": {{ \"id\": \"{BUNDLE}\", \"version\": \"{BUNDLE_VERSIONS}\" }}");
    let Some(id) = id else {
        findings.push(CheckResult::failure(CHECK, "there is none, so there is no Cosmos DB trigger", write));
        return;
    };
    if id != BUNDLE {
        findings.push(CheckResult::warning(
            CHECK,
            format!("{id} is not the one that this product is written for"),
            write.as_str(),
        ));
    }
    // Versions before 4 contain extension 3.x, which reads other names.
    if versions.is_none_or(|v| !v.trim_start_matches(['[', '(']).starts_with('4')) {
        findings.push(CheckResult::failure(VERSION, versions.unwrap_or("there is none"), write));
    } else if !versions.is_some_and(app::is_new_enough) {
        let allows = format!("{} allows bundles", versions.unwrap_or_default());
        findings.push(match all_versions {
            [] => CheckResult::warning(VERSION, format!("{allows} that rewrite dates whatever host.json says"), write),
            names => CheckResult::failure(
                VERSION,
                format!("{allows} without the all-versions mode, which {} asks for", names.join(", ")),
                write,
            ),
        });
    }
}

/// In latest-version mode, dates that the host rewrites can be read again as long as the document does not change. In
/// all-versions mode most versions are already past.
fn dates(host: &Value, all_versions: &[&str], findings: &mut Vec<CheckResult>) {
    const CHECK: &str = "host.json dates";
    if app::keeps_dates(host) {
        return;
    }
    let [outermost, inner @ ..] = DATES;
    let value =
        inner.iter().rev().fold(format!("\"{DATES_KEPT}\""), |inner, name| format!("{{ \"{name}\": {inner} }}"));
    let write = format!("write \"{outermost}\": {value}");
    findings.push(match all_versions {
        [] => CheckResult::warning(
            CHECK,
            "the host rewrites dates, in ids and partition keys too: each document that has some is read again",
            write,
        ),
        names => CheckResult::failure(
            CHECK,
            format!(
                "the host rewrites dates, in ids and partition keys too: versions of {} are altered for good",
                names.join(", ")
            ),
            write,
        ),
    });
}

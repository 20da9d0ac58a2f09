//! The function app's files: host.json and each function.json, against what the host and the trigger do with them.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use super::{Finding, Verdict};
use crate::{
    config::{Credential, Names, Settings},
    host::{
        app::{self, ALL_VERSIONS, BUNDLE, BUNDLE_VERSIONS, DATES, DATES_KEPT},
        functions::{Function, Trigger},
    },
};

/// The check of host.json itself.
pub(super) const HOST: &str = "host.json";
/// The check of the program that it names.
pub(super) const EXECUTABLE: &str = "host.json executable";
/// The check of the program's arguments.
pub(super) const ARGUMENTS: &str = "host.json arguments";

/// Names of extension 3.x: ignored without a word.
const OLD_NAMES: [(&str, &str); 4] = [
    ("collectionName", "containerName"),
    ("connectionStringSetting", "connection"),
    ("leaseCollectionName", "leaseContainerName"),
    ("createLeaseCollectionIfNotExists", "createLeaseContainerIfNotExists"),
];

/// Names of an app's functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Functions {
    /// Those that capture.
    pub captures: Vec<String>,
    /// Those that prune, on a schedule.
    pub timers: Vec<String>,
}

/// Looks at the files below `app_root`; returns the functions.
pub(super) fn check_files(
    app_root: &Path,
    settings: &Settings,
    credential: Option<&Credential>,
    findings: &mut Vec<Finding>,
) -> Functions {
    let (functions, timers) = functions(app_root, findings);
    let path = app_root.join("host.json");
    if !path.exists() && functions.is_empty() {
        findings.push(Finding::warning(
            "host.json",
            format!("no function app in {}", app_root.display()),
            "name its folder with --app-root; without one, only the account is looked at",
        ));
        return Functions { captures: Vec::new(), timers };
    }
    let all_versions: Vec<&str> =
        functions.iter().filter(|(_, file)| is_all_versions(trigger(file))).map(|(name, _)| name.as_str()).collect();
    match app::read_json(&path) {
        Ok(host) => check_host(app_root, &host, &all_versions, findings),
        Err(problem) => findings.push(Finding::failure(
            HOST,
            problem,
            "write one as in the repository; without it there is no function app",
        )),
    }
    for (name, file) in &functions {
        check_function(name, file, settings, credential, findings);
    }
    check_leases(&functions, settings, findings);
    Functions { captures: functions.into_keys().collect(), timers }
}

/// The files of all functions with a Cosmos DB trigger, and the names of timers. Those that cannot be read are told.
fn functions(app_root: &Path, findings: &mut Vec<Finding>) -> (BTreeMap<String, Value>, Vec<String>) {
    let (mut found, mut timers) = (BTreeMap::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir(app_root) else { return (found, timers) };
    for entry in entries.filter_map(Result::ok) {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = entry.path().join("function.json");
        if !path.is_file() {
            continue;
        }
        let check = format!("{name}/function.json");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => {
                findings.push(Finding::failure(check, format!("cannot be read: {e}"), "make it readable"));
                continue;
            }
        };
        match (Function::parse(&name, &text), app::read_json(&path)) {
            (Ok(Some(function)), Ok(file)) if function.trigger == Trigger::Timer => {
                schedule(&name, &file, findings);
                timers.push(name);
            }
            (Ok(Some(_)), Ok(file)) => drop(found.insert(name, file)),
            (Ok(_), _) => {}
            (Err(e), _) => findings.push(Finding::failure(check, e.problem, e.fix)),
        }
    }
    timers.sort();
    (found, timers)
}

/// A timer without a schedule never ticks.
fn schedule(name: &str, file: &Value, findings: &mut Vec<Finding>) {
    let is_timer = |b: &&Value| b["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("timerTrigger"));
    let timer = file["bindings"].as_array().and_then(|all| all.iter().find(is_timer)).unwrap_or(&Value::Null);
    if timer["schedule"].as_str().is_none_or(str::is_empty) {
        findings.push(Finding::failure(
            format!("{name}/function.json"),
            "the timer has no schedule",
            "write \"schedule\": \"0 */30 * * * *\" (seconds first), or an app setting as %NAME%",
        ));
    }
}

fn trigger(file: &Value) -> &Value {
    let is_ours = |b: &&Value| b["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("cosmosDBTrigger"));
    file["bindings"].as_array().and_then(|all| all.iter().find(is_ours)).unwrap_or(&Value::Null)
}

fn is_all_versions(trigger: &Value) -> bool {
    trigger["changeFeedMode"].as_str().is_some_and(|mode| mode.eq_ignore_ascii_case(ALL_VERSIONS))
}

fn check_host(app_root: &Path, host: &Value, all_versions: &[&str], findings: &mut Vec<Finding>) {
    let before = findings.len();
    if host["version"] != "2.0" {
        findings.push(Finding::failure("host.json version", host["version"].to_string(), "write \"version\": \"2.0\""));
    }
    if host.get("httpWorker").is_some() {
        findings.push(Finding::failure(
            "host.json httpWorker",
            "the deprecated form",
            "use customHandler.description instead",
        ));
    }
    if host["customHandler"]["enableForwardingHttpRequest"] == true || !host["customHandler"]["http"].is_null() {
        findings.push(Finding::warning(
            "host.json customHandler",
            "forwards HTTP requests, which no change feed sends",
            "leave only description in customHandler",
        ));
    }
    let description = &host["customHandler"]["description"];
    executable(app_root, description, findings);
    let arguments = description["arguments"].as_array();
    if arguments.and_then(|all| all.first()).is_none_or(|first| first != "serve") {
        findings.push(Finding::failure(
            ARGUMENTS,
            description["arguments"].to_string(),
            "write \"arguments\": [\"serve\"]: without it the program prints its help and ends",
        ));
    }
    let folder = description["workingDirectory"].as_str().unwrap_or_default();
    if !folder.is_empty() && folder != "." {
        findings.push(Finding::warning(
            "host.json workingDirectory",
            format!("{folder:?}"),
            "leave it empty: settings and dead letters are looked for in the app's folder",
        ));
    }
    bundle(host, all_versions, findings);
    dates(host, all_versions, findings);
    if findings[before..].iter().all(|finding| finding.verdict == Verdict::Ok) {
        findings
            .push(Finding::ok("host.json", "starts the handler, has the trigger's extension, and leaves dates alone"));
    }
}

fn executable(app_root: &Path, description: &Value, findings: &mut Vec<Finding>) {
    const CHECK: &str = EXECUTABLE;
    let Some(named) = description["defaultExecutablePath"].as_str().filter(|path| !path.is_empty()) else {
        findings.push(Finding::failure(
            CHECK,
            "customHandler.description.defaultExecutablePath is missing",
            "name the program, relative to host.json: \"defaultExecutablePath\": \"cosmos-rewind\"",
        ));
        return;
    };
    let path = app_root.join(named);
    match std::fs::metadata(&path) {
        Ok(found) if !found.is_file() => {
            findings.push(Finding::failure(CHECK, format!("{named} is no file"), "name the program itself"));
        }
        #[cfg(unix)]
        Ok(found) if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 == 0 => {
            findings.push(Finding::failure(
                CHECK,
                format!("{named} is not executable"),
                format!("run chmod 755 {}, and pack it with a tool that keeps modes", path.display()),
            ));
        }
        Ok(_) => {}
        // A bare name may be one of PATH.
        Err(_) if !named.contains(['/', '\\']) && !Path::new(named).is_absolute() => {
            findings.push(Finding::warning(
                CHECK,
                format!("{named} is not in the app's folder"),
                "put it beside host.json, unless the host finds it in PATH",
            ));
        }
        Err(e) => findings.push(Finding::failure(
            CHECK,
            format!("{named}: {e}"),
            "build it, or correct defaultExecutablePath; it is relative to host.json",
        )),
    }
}

fn bundle(host: &Value, all_versions: &[&str], findings: &mut Vec<Finding>) {
    const CHECK: &str = "host.json bundle";
    const VERSION: &str = "host.json bundle version";
    let (id, versions) = app::bundle_of(host);
    let write = format!("write \"extensionBundle\": {{ \"id\": \"{BUNDLE}\", \"version\": \"{BUNDLE_VERSIONS}\" }}");
    let Some(id) = id else {
        findings.push(Finding::failure(CHECK, "there is none, so there is no Cosmos DB trigger", write));
        return;
    };
    if id != BUNDLE {
        findings.push(Finding::warning(
            CHECK,
            format!("{id} is not the one that this product is written for"),
            write.as_str(),
        ));
    }
    // Versions before 4 have the extension 3.x, which reads other names.
    if versions.is_none_or(|v| !v.trim_start_matches(['[', '(']).starts_with('4')) {
        findings.push(Finding::failure(VERSION, versions.unwrap_or("there is none"), write));
    } else if !versions.is_some_and(app::is_new_enough) {
        let allows = format!("{} allows bundles", versions.unwrap_or_default());
        findings.push(match all_versions {
            [] => Finding::warning(VERSION, format!("{allows} that rewrite dates whatever host.json says"), write),
            names => Finding::failure(
                VERSION,
                format!("{allows} without the all-versions mode, which {} asks for", names.join(", ")),
                write,
            ),
        });
    }
}

/// Dates that the host rewrites can be read again in latest-version mode, as long as the document does not move on. In
/// all-versions mode most versions are the past already.
fn dates(host: &Value, all_versions: &[&str], findings: &mut Vec<Finding>) {
    const CHECK: &str = "host.json dates";
    if app::keeps_dates(host) {
        return;
    }
    let [outermost, inner @ ..] = DATES;
    let value =
        inner.iter().rev().fold(format!("\"{DATES_KEPT}\""), |inner, name| format!("{{ \"{name}\": {inner} }}"));
    let write = format!("write \"{outermost}\": {value}");
    findings.push(match all_versions {
        [] => Finding::warning(
            CHECK,
            "the host rewrites dates, in ids and partition keys too: each document that has some is read again",
            write,
        ),
        names => Finding::failure(
            CHECK,
            format!(
                "the host rewrites dates, in ids and partition keys too: versions of {} are altered for good",
                names.join(", ")
            ),
            write,
        ),
    });
}

fn check_function(
    name: &str,
    file: &Value,
    settings: &Settings,
    credential: Option<&Credential>,
    findings: &mut Vec<Finding>,
) {
    let before = findings.len();
    let check = format!("{name}/function.json");
    let mut add = |verdict, found: String, advice: &str| {
        findings.push(Finding::new(verdict, check.clone(), found, advice));
    };
    let trigger = trigger(file);
    if !app::is_function_name(name) {
        add(
            Verdict::Failure,
            format!("the host takes no function named {name:?}"),
            "rename the folder: a letter, then letters, digits and _",
        );
    }
    match &file["retry"]["maxRetryCount"] {
        Value::Null => add(
            Verdict::Failure,
            "there is no retry: a batch that fails is checkpointed, and lost".into(),
            "copy retry from CaptureChanges/function.json, maxRetryCount -1",
        ),
        count if *count == -1 => {}
        count => add(
            Verdict::Failure,
            format!("retry.maxRetryCount is {count}: after that many a batch is lost"),
            "write \"maxRetryCount\": -1",
        ),
    }
    if trigger.get("cardinality").is_some() {
        add(Verdict::Failure, "cardinality changes what is delivered".into(), "remove cardinality");
    }
    if trigger.get("dataType").is_some_and(|kind| kind != "string") {
        add(Verdict::Failure, format!("dataType is {}", trigger["dataType"]), "remove dataType, or write \"string\"");
    }
    if trigger["direction"] != "in" {
        add(Verdict::Failure, format!("direction is {}", trigger["direction"]), "write \"direction\": \"in\"");
    }
    for (old, new) in OLD_NAMES {
        if trigger.get(old).is_some() {
            add(
                Verdict::Failure,
                format!("{old} is a name of extension 3.x and has no effect"),
                &format!("write {new} instead"),
            );
        }
    }
    let all_versions = is_all_versions(trigger);
    if all_versions && (trigger["startFromBeginning"] == true || trigger.get("startFromTime").is_some()) {
        add(
            Verdict::Failure,
            "startFromBeginning or startFromTime, with the all-versions feed, which starts now only".into(),
            "remove it; `cosmos-rewind backfill` saves what was there before",
        );
    }
    if trigger["startFromTime"].as_str().is_some_and(|time| !time.contains('%')) {
        add(
            Verdict::Warning,
            "startFromTime is a literal time, which the host may not take".into(),
            "put it into an app setting, and write \"startFromTime\": \"%START_FROM_TIME%\"",
        );
    }
    if let Some(mode) = trigger["changeFeedMode"].as_str()
        && !all_versions
        && !mode.eq_ignore_ascii_case("LatestVersion")
    {
        add(
            Verdict::Failure,
            format!("changeFeedMode {mode:?} is not known"),
            "write LatestVersion or AllVersionsAndDeletes, or remove it",
        );
    }
    let keyless = matches!(credential, Some(Credential::ManagedIdentity { .. } | Credential::Developer));
    if keyless && trigger["createLeaseContainerIfNotExists"] == true {
        add(
            Verdict::Failure,
            "createLeaseContainerIfNotExists: with an identity the function does not start".into(),
            "write false, and make the container with `cosmos-rewind provision` and a key, or with Bicep",
        );
    }
    if let Some(connection) = trigger["connection"].as_str()
        && connection != "CosmosDB"
        && !same_account(settings, connection)
    {
        add(
            Verdict::Failure,
            format!(
                "connection is {connection:?}, which is not the account of CosmosDB, where the handler writes and reads"
            ),
            "write \"connection\": \"CosmosDB\", or give both settings the same account",
        );
    }
    names(name, trigger, settings, &mut add);
    if findings.len() == before {
        let mode = if all_versions {
            "all versions; whether the account has the continuous backup that it needs cannot be seen from here"
        } else {
            "latest version"
        };
        findings.push(Finding::ok(check, format!("retries for ever, {mode}")));
    }
}

/// Whether another connection is known to lead to the handler's account.
fn same_account(settings: &Settings, connection: &str) -> bool {
    let endpoint = |name: &str| {
        let text = match settings.get(&format!("{name}__accountEndpoint")) {
            Some(endpoint) => endpoint,
            None => settings.get(name)?.split(';').find_map(|part| part.trim().strip_prefix("AccountEndpoint="))?,
        };
        url::Url::parse(text).ok()
    };
    endpoint(connection).zip(endpoint("CosmosDB")).is_some_and(|(its, own)| its == own)
}

/// The names the trigger uses, against those the handler uses: it writes what it is sent, wherever it came from.
fn names(name: &str, trigger: &Value, settings: &Settings, add: &mut impl FnMut(Verdict, String, &str)) {
    let own = Names::from_settings(settings, Some(name)).ok();
    for (field, setting, handlers) in [
        ("databaseName", "COSMOS_DATABASE", own.as_ref().map(|own| &own.database)),
        ("containerName", "COSMOS_SOURCE_CONTAINER", own.as_ref().map(|own| &own.source)),
        ("leaseDatabaseName", "COSMOS_DATABASE", None),
        ("leaseContainerName", "COSMOS_LEASE_CONTAINER", None),
        ("leaseContainerPrefix", "", None),
    ] {
        let Some(text) = trigger[field].as_str() else {
            if matches!(field, "databaseName" | "containerName") {
                add(Verdict::Failure, format!("{field} is missing"), "name it, as a text or as %SETTING%");
            }
            continue;
        };
        match app::resolve(text, settings) {
            Ok(resolved) => {
                if let Some(handlers) = handlers.filter(|handlers| **handlers != resolved) {
                    add(
                        Verdict::Failure,
                        format!("{field} is {resolved:?}, and the handler of {name} reads {handlers:?}"),
                        &format!("set {name}__{setting} to {resolved}, or correct {field}"),
                    );
                }
            }
            // `local` and Core Tools know what local.settings.json says; on Azure only the portal knows.
            Err(missing) => add(
                Verdict::Warning,
                format!("{field} needs the setting {missing}, which is not set here"),
                "set it, on Azure and in local.settings.json: the function does not start without it",
            ),
        }
    }
}

/// Two functions that watch one container with one lease prefix take each other's leases: each sees a part.
fn check_leases(functions: &BTreeMap<String, Value>, settings: &Settings, findings: &mut Vec<Finding>) {
    let mut seen: BTreeMap<[String; 5], &str> = BTreeMap::new();
    for (name, file) in functions {
        let trigger = trigger(file);
        let place = |field: &str, default: &str| {
            let text = trigger[field].as_str().unwrap_or(default);
            app::resolve(text, settings).unwrap_or_else(|_| text.to_owned())
        };
        let database = place("databaseName", "");
        let leases = [
            place("containerName", ""),
            place("leaseDatabaseName", &database),
            place("leaseContainerName", "leases"),
            place("leaseContainerPrefix", ""),
            database,
        ];
        if let Some(other) = seen.insert(leases, name) {
            findings.push(Finding::failure(
                format!("{name}/function.json"),
                format!("it shares container, lease container and lease prefix with {other}: each gets a part"),
                format!("write \"leaseContainerPrefix\": \"{name}\""),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct App(tempfile::TempDir);

    impl App {
        fn new() -> Self {
            let app = Self(tempfile::tempdir().unwrap());
            app.write("host.json", &app.host());
            app.write("program", &json!("x"));
            #[cfg(unix)]
            std::fs::set_permissions(app.0.path().join("program"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .unwrap();
            app.function("CaptureOrders", |_| {});
            app
        }

        fn host(&self) -> Value {
            json!({"version": "2.0", "extensionBundle": {"id": BUNDLE, "version": BUNDLE_VERSIONS},
                "extensions": {"cosmosDB": {"serializerSettings": {"dateParseHandling": DATES_KEPT}}},
                "customHandler": {"description": {"defaultExecutablePath": "program", "arguments": ["serve"]}}})
        }

        fn write(&self, path: &str, value: &Value) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, value.to_string()).unwrap();
        }

        fn function(&self, name: &str, change: impl FnOnce(&mut Value)) {
            let new = app::NewFunction {
                name: name.into(),
                database: Some("dev".into()),
                source: "orders".into(),
                changes: "orders-changes".into(),
                leases: Some("leases".into()),
                all_versions: false,
                from_beginning: false,
            };
            let mut file = new.function_json();
            change(&mut file);
            self.write(&format!("{name}/function.json"), &file);
        }

        fn check(&self) -> Vec<Finding> {
            let settings = Settings::from_pairs([
                ("CosmosDB", "AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=a2V5;"),
                ("Same__accountEndpoint", "https://a.documents.azure.com/"),
                ("Elsewhere", "AccountEndpoint=https://b.documents.azure.com:443/;AccountKey=a2V5;"),
                ("CaptureOrders__COSMOS_SOURCE_CONTAINER", "orders"),
                ("CaptureMore__COSMOS_SOURCE_CONTAINER", "orders"),
            ]);
            let mut findings = Vec::new();
            check_files(self.0.path(), &settings, Some(&Credential::Developer), &mut findings);
            findings
        }

        /// All that is wrong, one line each.
        fn wrong(&self) -> Vec<String> {
            let bad = self.check().into_iter().filter(|f| f.verdict != Verdict::Ok);
            bad.map(|f| {
                let advice = f.advice.unwrap();
                assert!(!advice.is_empty());
                format!("{} {}: {} -> {advice}", f.verdict.as_str(), f.check, f.found)
            })
            .collect()
        }
    }

    #[test]
    fn a_good_app_is_good() {
        let app = App::new();
        assert_eq!(app.wrong(), [""; 0]);
        assert_eq!(app.check().len(), 2);
        app.function("CaptureOrders", |f| f["bindings"][0]["connection"] = "Same".into());
        assert_eq!(app.wrong(), [""; 0]);
    }

    #[test]
    fn every_mistake_in_a_function_json_is_found() {
        type Break = fn(&mut Value);
        let cases: [(&str, Break); 16] = [
            ("there is no retry", |f| drop(f.as_object_mut().unwrap().remove("retry"))),
            ("maxRetryCount is 5", |f| f["retry"]["maxRetryCount"] = 5.into()),
            ("cardinality", |f| f["bindings"][0]["cardinality"] = "many".into()),
            ("dataType is", |f| f["bindings"][0]["dataType"] = "binary".into()),
            ("direction is \"out\"", |f| f["bindings"][0]["direction"] = "out".into()),
            ("collectionName is a name of extension 3.x", |f| f["bindings"][0]["collectionName"] = "c".into()),
            ("starts now only", |f| {
                f["bindings"][0]["changeFeedMode"] = ALL_VERSIONS.into();
                f["bindings"][0]["startFromBeginning"] = true.into();
            }),
            ("changeFeedMode \"Everything\" is not known", |f| {
                f["bindings"][0]["changeFeedMode"] = "Everything".into();
            }),
            ("with an identity the function does not start", |f| {
                f["bindings"][0]["createLeaseContainerIfNotExists"] = true.into();
            }),
            ("FAILURE CaptureOrders/function.json: connection is \"Other\"", |f| {
                f["bindings"][0]["connection"] = "Other".into()
            }),
            ("the handler of CaptureOrders reads \"orders\"", |f| {
                f["bindings"][0]["containerName"] = "events".into();
            }),
            ("needs the setting NOWHERE", |f| f["bindings"][0]["leaseContainerName"] = "%NOWHERE%".into()),
            ("WARNING CaptureOrders/function.json: startFromTime is a literal time", |f| {
                f["bindings"][0]["startFromTime"] = "2026-01-01T00:00:00Z".into();
            }),
            ("databaseName is \"prod\"", |f| f["bindings"][0]["databaseName"] = "prod".into()),
            ("FAILURE CaptureOrders/function.json: connection is \"Elsewhere\"", |f| {
                f["bindings"][0]["connection"] = "Elsewhere".into();
            }),
            ("containerName is missing", |f| {
                drop(f["bindings"][0].as_object_mut().unwrap().remove("containerName"));
            }),
        ];
        for (problem, change) in cases {
            let app = App::new();
            app.function("CaptureOrders", change);
            let wrong = app.wrong();
            assert!(wrong.iter().any(|line| line.contains(problem)), "{problem}: {wrong:#?}");
        }
        let app = App::new();
        std::fs::write(app.0.path().join("CaptureOrders/function.json"), "{").unwrap();
        assert!(app.wrong()[0].contains("FAILURE CaptureOrders/function.json: is not valid"), "{:?}", app.wrong());
    }

    #[test]
    fn every_mistake_in_a_host_json_is_found() {
        type Break = fn(&mut Value);
        let cases: [(&str, Break); 13] = [
            ("version", |h| h["version"] = "1.0".into()),
            ("httpWorker", |h| h["httpWorker"] = json!({})),
            ("forwards HTTP", |h| h["customHandler"]["enableForwardingHttpRequest"] = true.into()),
            ("defaultExecutablePath is missing", |h| h["customHandler"] = json!({})),
            ("bin/nothing", |h| h["customHandler"]["description"]["defaultExecutablePath"] = "bin/nothing".into()),
            ("nothing is not in the app's folder", |h| {
                h["customHandler"]["description"]["defaultExecutablePath"] = "nothing".into();
            }),
            ("arguments", |h| h["customHandler"]["description"]["arguments"] = json!([])),
            ("workingDirectory", |h| h["customHandler"]["description"]["workingDirectory"] = "bin".into()),
            ("there is no Cosmos DB trigger", |h| drop(h.as_object_mut().unwrap().remove("extensionBundle"))),
            ("bundle version", |h| h["extensionBundle"]["version"] = "[3.*, 4.0.0)".into()),
            ("WARNING host.json bundle version", |h| h["extensionBundle"]["version"] = "[4.*, 5.0.0)".into()),
            ("not the one", |h| h["extensionBundle"]["id"] = format!("{BUNDLE}.Preview").into()),
            (
                r#"WARNING host.json dates: the host rewrites dates, in ids and partition keys too: each document that has some is read again -> write "extensions": { "cosmosDB": { "serializerSettings": { "dateParseHandling": "None" } } }"#,
                |h| drop(h.as_object_mut().unwrap().remove("extensions")),
            ),
        ];
        for (problem, change) in cases {
            let app = App::new();
            let mut host = app.host();
            change(&mut host);
            app.write("host.json", &host);
            let wrong = app.wrong();
            assert!(wrong.iter().any(|line| line.contains(problem)), "{problem}: {wrong:#?}");
        }
        let app = App::new();
        std::fs::write(app.0.path().join("host.json"), "{\"AccountKey\": SECRET").unwrap();
        assert!(app.wrong()[0].contains("is not valid JSON: line 1") && !app.wrong()[0].contains("SECRET"));
    }

    #[test]
    fn what_only_costs_in_latest_mode_is_a_failure_in_all_versions_mode() {
        let app = App::new();
        app.function("CaptureOrders", |f| f["bindings"][0]["changeFeedMode"] = ALL_VERSIONS.into());
        assert_eq!(app.wrong(), [""; 0]);
        let mut host = app.host();
        host.as_object_mut().unwrap().remove("extensions");
        host["extensionBundle"]["version"] = "[4.*, 5.0.0)".into();
        app.write("host.json", &host);
        let wrong = app.wrong();
        assert_eq!(wrong.len(), 2, "{wrong:#?}");
        assert!(
            wrong[0].starts_with("FAILURE host.json bundle version: [4.*, 5.0.0) allows bundles without"),
            "{wrong:#?}"
        );
        assert!(wrong[1].starts_with("FAILURE host.json dates:") && wrong[1].contains("CaptureOrders"), "{wrong:#?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_program_without_its_mode_is_found() {
        let app = App::new();
        let path = app.0.path().join("program");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        assert!(app.wrong()[0].contains("is not executable"), "{:?}", app.wrong());
    }

    #[test]
    fn functions_that_share_leases_are_found() {
        let app = App::new();
        app.function("CaptureMore", |_| {});
        assert_eq!(app.wrong(), [""; 0], "each has its own prefix");
        app.function("CaptureMore", |f| f["bindings"][0]["leaseContainerPrefix"] = "CaptureOrders".into());
        assert!(app.wrong()[0].contains("shares container, lease container and lease prefix"), "{:?}", app.wrong());
    }

    #[test]
    fn a_folder_that_is_no_app_is_no_failure() {
        let empty = tempfile::tempdir().unwrap();
        let mut findings = Vec::new();
        assert!(check_files(empty.path(), &Settings::default(), None, &mut findings).captures.is_empty());
        assert_eq!(findings[0].verdict, Verdict::Warning);
    }
}

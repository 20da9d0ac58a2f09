//! Checks the function app's files: host.json and each function.json, against what the host and the trigger do with
//! them.

mod function;
mod host;

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;

use function::check_function;
use host::check_host;
pub(super) use host::{ARGUMENTS, EXECUTABLE, HOST};

use super::{CheckResult, Verdict};
use crate::{
    causes::chain,
    config::{Credential, Settings},
    host::{
        app::{self, ALL_VERSIONS},
        functions::{Function, TriggerKind},
        overrides::read_host,
    },
};

/// Names of an app's functions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Functions {
    /// Those that capture.
    pub captures: Vec<String>,
    /// Lease settings by function, from each function.json.
    pub declared: BTreeMap<String, Declared>,
    /// Those that prune, on a schedule.
    pub timers: Vec<String>,
}

/// The lease settings of a function.json.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Declared {
    /// The prefix of their ids.
    pub prefix: String,
    /// Whether they belong to the all-versions feed.
    pub all_versions: bool,
}

impl Declared {
    fn of(file: &Value, settings: &Settings) -> Self {
        let trigger = trigger(file);
        let prefix = trigger["leaseContainerPrefix"].as_str().unwrap_or_default();
        let prefix = app::resolve(prefix, settings).unwrap_or_else(|_| prefix.to_owned());
        Self { prefix, all_versions: is_all_versions(trigger) }
    }
}

/// Checks the files below `app_root`; returns the functions.
pub(super) fn check_files(
    app_root: &Path,
    settings: &Settings,
    credential: Option<&Credential>,
    findings: &mut Vec<CheckResult>,
) -> Functions {
    let (functions, timers) = functions(app_root, findings);
    let path = app_root.join("host.json");
    if !path.exists() && functions.is_empty() {
        findings.push(CheckResult::warning(
            "host.json",
            format!("no function app in {}", app_root.display()),
            "name its folder with --app-root; without one, only the account is looked at",
        ));
        return Functions { timers, ..Functions::default() };
    }
    let all_versions: Vec<&str> =
        functions.iter().filter(|(_, file)| is_all_versions(trigger(file))).map(|(name, _)| name.as_str()).collect();
    match read_host(&path, settings) {
        Ok(host) => check_host(app_root, &host, &all_versions, findings),
        Err(problem) => findings.push(CheckResult::failure(
            HOST,
            chain(&problem),
            "write one as in the repository; without it there is no function app",
        )),
    }
    for (name, file) in &functions {
        check_function(name, file, settings, credential, findings);
    }
    check_leases(&functions, settings, findings);
    let own = functions.keys().chain(&timers).filter_map(|name| settings.check_own(name).err());
    findings.extend(own.map(CheckResult::of));
    let declared = functions.iter().map(|(name, file)| (name.clone(), Declared::of(file, settings))).collect();
    Functions { captures: functions.into_keys().collect(), declared, timers }
}

/// The files of all functions with a Cosmos DB trigger, and the names of timers. Reports those that cannot be read.
fn functions(app_root: &Path, findings: &mut Vec<CheckResult>) -> (BTreeMap<String, Value>, Vec<String>) {
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
                findings.push(CheckResult::failure(check, format!("cannot be read: {e}"), "make it readable"));
                continue;
            }
        };
        match (Function::parse(&name, &text), app::read_json(&path)) {
            (Ok(Some(function)), Ok(file)) if function.trigger == TriggerKind::Timer => {
                schedule(&name, &file, findings);
                timers.push(name);
            }
            (Ok(Some(_)), Ok(file)) => drop(found.insert(name, file)),
            (Ok(_), _) => {}
            (Err(e), _) => findings.push(CheckResult::failure(check, e.problem, e.fix)),
        }
    }
    timers.sort();
    (found, timers)
}

/// Reports a timer without a schedule: it never ticks.
fn schedule(name: &str, file: &Value, findings: &mut Vec<CheckResult>) {
    let is_timer = |b: &&Value| b["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("timerTrigger"));
    let timer = file["bindings"].as_array().and_then(|all| all.iter().find(is_timer)).unwrap_or(&Value::Null);
    if timer["schedule"].as_str().is_none_or(str::is_empty) {
        findings.push(CheckResult::failure(
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

/// Reports functions that watch one container with the same lease prefix: they take each other's leases, and each sees
/// only a part.
fn check_leases(functions: &BTreeMap<String, Value>, settings: &Settings, findings: &mut Vec<CheckResult>) {
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
            findings.push(CheckResult::failure(
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
    use crate::host::app::{BUNDLE, BUNDLE_VERSIONS, DATES_KEPT};

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

        fn check(&self) -> Vec<CheckResult> {
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

        /// Everything that is wrong, one line each.
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

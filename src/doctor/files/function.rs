//! Checks a function.json against what the trigger and the handler do with it.

use serde_json::Value;

use super::{CheckResult, Verdict, is_all_versions, trigger};
use crate::{
    config::{Credential, Names, Settings},
    host::app::{self, MissingSetting},
};

/// Names of extension 3.x: ignored without a word.
const OLD_NAMES: [(&str, &str); 4] = [
    ("collectionName", "containerName"),
    ("connectionStringSetting", "connection"),
    ("leaseCollectionName", "leaseContainerName"),
    ("createLeaseCollectionIfNotExists", "createLeaseContainerIfNotExists"),
];

/// Checks the file of one function.
pub(super) fn check_function(
    name: &str,
    file: &Value,
    settings: &Settings,
    credential: Option<&Credential>,
    findings: &mut Vec<CheckResult>,
) {
    let before = findings.len();
    let check = format!("{name}/function.json");
    let mut add = |verdict, found: String, advice: &str| {
        findings.push(CheckResult::new(verdict, check.clone(), found, advice));
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
        findings.push(CheckResult::ok(check, format!("retries for ever, {mode}")));
    }
}

/// Whether another connection certainly leads to the handler's account.
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

/// Compares the names that the trigger uses with those of the handler, which writes whatever it is sent, wherever that
/// came from.
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
            // `local` and Core Tools know local.settings.json; on Azure only the portal knows.
            Err(MissingSetting(missing)) => add(
                Verdict::Warning,
                format!("{field} needs the setting {missing}, which is not set here"),
                "set it, on Azure and in local.settings.json: the function does not start without it",
            ),
        }
    }
}

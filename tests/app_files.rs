//! The function app's files, the route and the names of settings must agree; only these tests check that.

use std::path::Path;

use cosmos_rewind::{
    config::SETTINGS,
    host::functions::{DEFAULT_BINDING, DEFAULT_FUNCTION},
};
use serde_json::{Map, Value};

use crate::support::{Handler, TestApp, body_of};

/// Settings in the example for the host or the runtime.
const OF_OTHERS: &[&str] = &["FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "RUST_BACKTRACE"];

/// The fields that version 4.x of the trigger extension reads. Names of 3.x (`collectionName`,
/// `connectionStringSetting`, ...) are silently ignored, `cardinality` and `dataType` change the payload, and with an
/// identity the trigger cannot create the lease container.
const BINDING_FIELDS: &[&str] = &[
    "type",
    "direction",
    "name",
    "connection",
    "databaseName",
    "containerName",
    "leaseConnection",
    "leaseDatabaseName",
    "leaseContainerName",
    "createLeaseContainerIfNotExists",
    "leaseContainerPrefix",
    "leasesContainerThroughput",
    "feedPollDelay",
    "leaseAcquireInterval",
    "leaseExpirationInterval",
    "leaseRenewInterval",
    "maxItemsPerInvocation",
    "startFromBeginning",
    "startFromTime",
    "preferredLocations",
    "changeFeedMode",
];

fn file(path: &str) -> Value {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn example() -> Map<String, Value> {
    file("local.settings.example.json")["Values"].as_object().unwrap().clone()
}

fn function() -> Value {
    file(&format!("{DEFAULT_FUNCTION}/function.json"))
}

fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
}

#[test]
fn host_json_starts_the_handler_with_serve() {
    let host = file("host.json");
    assert_eq!(host["version"], "2.0");
    let description = &host["customHandler"]["description"];
    assert_eq!(description["arguments"], serde_json::json!(["serve"]));
    let executable = Path::new(description["defaultExecutablePath"].as_str().unwrap());
    assert!(executable.is_relative());
    assert_eq!(executable.file_name(), Path::new(env!("CARGO_BIN_EXE_cosmos-rewind")).file_name());
    // The working directory is the app root, in which the handler looks for settings and function folders.
    assert_eq!(description["workingDirectory"], "");
    assert_eq!(host["customHandler"].as_object().unwrap().keys().collect::<Vec<_>>(), ["description"]);
    // The deprecated form, and routes that would not match a function.json.
    assert!(host.get("httpWorker").is_none() && host.get("http").is_none());
    // The first bundle with the all-versions mode and with the setting that leaves dates alone.
    assert_eq!(
        host["extensionBundle"],
        serde_json::json!({"id": "Microsoft.Azure.Functions.ExtensionBundle", "version": "[4.37.1, 5.0.0)"})
    );
    assert_eq!(
        host["extensions"],
        serde_json::json!({"cosmosDB": {"serializerSettings": {"dateParseHandling": "None"}}})
    );
}

#[test]
fn function_json_has_one_trigger_that_retries_forever() {
    let function = function();
    // Without a retry policy the trigger loses a failed batch.
    assert_eq!(function["retry"]["maxRetryCount"], -1);
    assert_eq!(function["retry"]["strategy"], "exponentialBackoff");
    let bindings = function["bindings"].as_array().unwrap();
    assert_eq!(bindings.len(), 1);
    let binding = bindings[0].as_object().unwrap();
    assert_eq!((&binding["type"], &binding["direction"]), (&"cosmosDBTrigger".into(), &"in".into()));
    assert_eq!(binding["name"], DEFAULT_BINDING);
    assert!(DEFAULT_BINDING.chars().all(|c| c.is_ascii_alphanumeric()));
    for name in binding.keys() {
        assert!(BINDING_FIELDS.contains(&name.as_str()), "{name} is unknown to the 4.x trigger, or must not be set");
    }
    assert_eq!(binding["createLeaseContainerIfNotExists"], false);
    // Two functions with the same lease container need different prefixes.
    assert_eq!(binding["leaseContainerPrefix"], DEFAULT_FUNCTION);
}

#[test]
fn every_setting_that_function_json_names_is_known_and_in_the_example() {
    let function = function();
    let binding = function["bindings"][0].as_object().unwrap();
    let example = example();
    let mut named: Vec<String> =
        ["connection", "leaseConnection"].iter().map(|f| binding[*f].as_str().unwrap().to_owned()).collect();
    for value in binding.values().filter_map(Value::as_str) {
        named.extend(value.split('%').skip(1).step_by(2).map(str::to_owned));
    }
    assert!(named.len() > 5, "{named:?}");
    for name in &named {
        assert!(is_setting(name), "{name} is not a setting of the handler");
        assert!(example.contains_key(name), "{name} is not in the example");
    }
    for field in ["databaseName", "containerName", "leaseDatabaseName", "leaseContainerName"] {
        let value = binding[field].as_str().unwrap();
        assert!(value.starts_with('%') && value.ends_with('%'), "{field}: {value} is not a setting");
    }
}

#[test]
fn the_example_settings_are_strings_of_known_names_with_the_defaults() {
    assert_eq!(file("local.settings.example.json")["IsEncrypted"], false);
    for (name, value) in example() {
        let text = value.as_str().unwrap_or_else(|| panic!("{name}: Core Tools accept strings only"));
        assert!(is_setting(&name) || OF_OTHERS.contains(&name.as_str()), "{name} is unknown");
        // The connection has no default; every other value in the example is the default.
        if let Some(setting) = SETTINGS.iter().find(|s| s.name == name && !s.default.is_empty()) {
            assert_eq!(text, setting.default, "{name}");
        }
    }
    assert_eq!(example()["FUNCTIONS_WORKER_RUNTIME"], "custom");
}

#[tokio::test]
async fn a_folder_with_only_these_files_is_served_under_the_functions_route() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(DEFAULT_FUNCTION)).unwrap();
    for path in ["host.json", "CaptureChanges/function.json"] {
        std::fs::copy(path, folder.path().join(path)).unwrap();
    }
    // As a user does it: a copy of the example with the connection of their own account.
    let mut settings = file("local.settings.example.json");
    settings["Values"]["CosmosDB"] = app.local.connection_string().into();
    std::fs::write(folder.path().join("local.settings.json"), settings.to_string()).unwrap();

    let handler = Handler::start(folder.path(), &[]).await;
    let document = r#"[{"id":"1","pk":"1","_etag":"\"e\"","_ts":1700000000,"_lsn":1}]"#;
    let (status, answer) = handler.post(DEFAULT_FUNCTION, body_of(document)).await;
    assert_eq!(status, 200, "{answer} {:#?}", handler.log());
    assert_eq!(app.history().await.len(), 1);
    assert!(!handler.log().iter().any(|line| line.contains("no function.json")), "{:#?}", handler.log());
}

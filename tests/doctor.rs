//! `doctor` reports everything that is wrong at once, with advice.

use std::{collections::BTreeMap, path::Path};

use cosmos_rewind::{
    change::key::PartitionKey,
    local::trigger::{HandlerProgram, Trigger, TriggerMode, TriggerOptions},
};
use serde_json::{Value, json};

use crate::support::{BINARY, ClosedPort, Fault, Kind, Output, TestApp, eventually, run};

/// The worst finding of each check: result, finding, advice.
fn findings(output: &Output) -> BTreeMap<String, (String, String, String)> {
    let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut worst: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    for row in &rows {
        let advice = text(row, "do");
        assert_eq!(row["result"] == "OK", advice.is_empty(), "every problem comes with advice: {row}");
        let one = (text(row, "result"), text(row, "found"), advice);
        let known = worst.entry(text(row, "check")).or_insert_with(|| one.clone());
        if known.0 != "FAILURE" && one.0 == "FAILURE" {
            *known = one;
        }
    }
    worst
}

/// The names of the failed checks.
fn failed(output: &Output) -> Vec<String> {
    findings(output).into_iter().filter(|(_, one)| one.0 == "FAILURE").map(|(check, _)| check).collect()
}

/// Copies the repository's app files into a folder, with the program under test.
fn app_files(folder: &Path) {
    let host = std::fs::read_to_string("host.json").unwrap().replace("target/release/cosmos-rewind", BINARY);
    std::fs::write(folder.join("host.json"), host).unwrap();
}

const NAMES: [(&str, &str); 3] =
    [("COSMOS_DATABASE", "dev"), ("COSMOS_SOURCE_CONTAINER", "events"), ("COSMOS_LEASE_CONTAINER", "leases")];

#[tokio::test]
async fn the_mode_that_is_really_used_is_reported() {
    let app = TestApp::start().await;
    app_files(app.folder.path());
    for (mode, result, words) in [
        (TriggerMode::AllVersions, "WARNING", "reads all versions, and function.json says otherwise"),
        (TriggerMode::Latest, "OK", "reads the latest version"),
    ] {
        let mut options = TriggerOptions::new(app.folder.path());
        options.handler = HandlerProgram::Running("http://127.0.0.1:9/".parse().unwrap());
        options.settings = NAMES.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        options.mode = Some(mode);
        let trigger = Trigger::start(&app.local, options).await.unwrap();
        let check = "leases of CaptureChanges: mode";
        let found = eventually("the leases exist", async || {
            let output = app.run_with_settings(&["doctor", "--format", "json"], &NAMES).await;
            findings(&output).remove(check).filter(|found| found.1.contains(words))
        })
        .await;
        trigger.stop().await;
        assert_eq!(found.0, result, "{found:?}");
        let leases = app.cosmos.container("dev", "leases").await.unwrap();
        for row in leases.query_all("SELECT VALUE c.id FROM c", &[], None).await.unwrap() {
            let id: String = serde_json::from_str(row.get()).unwrap();
            leases.delete(&PartitionKey::parse(&json!([id]).to_string()).unwrap(), &id, None).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_good_app_is_good_and_nothing_is_left_behind() {
    let app = TestApp::start().await;
    app_files(app.folder.path());
    let output = app.run_with_settings(&["doctor", "--format", "json"], &NAMES).await;
    assert_eq!((output.code, failed(&output)), (0, Vec::new()), "{output:?}");
    let found = findings(&output);
    for check in
        ["host.json", "CaptureChanges/function.json", "settings", "account", "clock", "changes of CaptureChanges"]
    {
        assert_eq!(found[check].0, "OK", "{check}: {found:#?}");
    }
    for check in ["source of CaptureChanges: read", "changes of CaptureChanges: guarded write"] {
        assert!(found[check].1.starts_with("allowed"), "{check}: {found:#?}");
    }
    assert!(found["changes of CaptureChanges: packed writes"].1.starts_with("taken"), "{found:#?}");
    let left = app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    assert!(!app.folder.path().join(".dead-letters").exists());
    // The text output: a table and the count.
    let output = app.run_with_settings(&["doctor"], &NAMES).await;
    assert!(output.stdout.starts_with("check ") && output.stderr.contains("0 failures"), "{output:?}");
}

/// The host's own setting overrides a correct host.json.
#[tokio::test]
async fn an_app_setting_that_enables_the_rewriting_of_dates_is_noticed() {
    let app = TestApp::start().await;
    app_files(app.folder.path());
    let on = ("AzureFunctionsJobHost__extensions__cosmosDB__serializerSettings__dateParseHandling", "DateTime");
    let output = app.run_with_settings(&["doctor", "--format", "json"], &[&NAMES[..], &[on]].concat()).await;
    assert!(output.stdout.contains("the host rewrites dates"), "{output:?}");
    let output = app.run_with_settings(&["doctor", "--format", "json"], &NAMES).await;
    assert!(!output.stdout.contains("the host rewrites dates"), "{output:?}");
}

#[tokio::test]
async fn other_layouts_of_the_history_are_tested_as_they_are() {
    for (paths, verdict) in
        [(&["/pk"][..], "OK"), (&["/id"], "FAILURE"), (&["/_originalId"], "FAILURE"), (&["/somewhere/else"], "FAILURE")]
    {
        let app = TestApp::with_changes_key(paths).await;
        let output = app.run_with_settings(&["doctor", "--format", "json"], &NAMES).await;
        let found = findings(&output);
        assert_eq!(found["changes of CaptureChanges"].0, verdict, "{paths:?}: {found:#?}");
        assert_eq!(found["changes of CaptureChanges: guarded write"].0, "OK", "{paths:?}: {found:#?}");
        let left = app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn the_files_are_checked_even_if_the_account_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    app_files(folder.path());
    let function = folder.path().join("CaptureChanges");
    std::fs::create_dir(&function).unwrap();
    let text = std::fs::read_to_string("CaptureChanges/function.json").unwrap().replace("-1", "3");
    std::fs::write(function.join("function.json"), text).unwrap();
    let closed = ClosedPort::take();
    let connection = format!("AccountEndpoint=http://{}/;AccountKey=U0VDUkVU;", closed.address());
    let settings = [("CosmosDB".to_owned(), connection), ("REWIND_FIDELITY".to_owned(), "roughly".to_owned())];
    let output = run(folder.path(), &["doctor", "--format", "json"], &settings, "").await;
    assert_eq!(output.code, 3, "{output:?}");
    assert_eq!(failed(&output), ["CaptureChanges/function.json", "account", "setting REWIND_FIDELITY"]);
    assert!(findings(&output)["account"].1.contains("does not answer"), "{output:?}");
    assert!(!output.stdout.contains("U0VDUkVU") && !output.stderr.contains("U0VDUkVU"), "{output:?}");
}

#[tokio::test]
async fn missing_containers_are_reported_with_the_command_that_creates_them() {
    let app = TestApp::start().await;
    let elsewhere = [("COSMOS_CHANGES_CONTAINER", "no-changes"), ("COSMOS_LEASE_CONTAINER", "no-leases")];
    let output = app.run_with_settings(&["doctor", "--format", "json"], &elsewhere).await;
    assert_eq!(output.code, 3, "{output:?}");
    let found = findings(&output);
    for (check, advice) in [
        ("changes of CaptureChanges", "cosmos-rewind provision --changes no-changes"),
        ("leases of CaptureChanges", "cosmos-rewind provision --leases no-leases"),
    ] {
        assert!(found[check].0 == "FAILURE" && found[check].2.contains(advice), "{found:#?}");
    }
    assert_eq!(found["source of CaptureChanges: read"].0, "OK", "{found:#?}");
    let output = app.run_with_settings(&["doctor", "--database", "nowhere", "--format", "json"], &[]).await;
    assert_eq!(output.code, 3, "{output:?}");
}

#[tokio::test]
async fn a_wrong_key_is_reported_without_the_key() {
    let app = TestApp::start().await;
    // The local account accepts any key; this is the service's response to a wrong one.
    app.proxy.fail_always_of(Kind::Definition, Some(Fault::Reject(401, 0)));
    let wrong = format!("AccountEndpoint={};AccountKey=U0VDUkVU;", app.proxy.endpoint());
    let output = app.run_with_settings(&["doctor", "--format", "json"], &[("CosmosDB", &wrong)]).await;
    assert!(!output.stdout.contains("U0VDUkVU") && !output.stderr.contains("U0VDUkVU"), "{output:?}");
    let found = findings(&output);
    assert!(output.code == 3 && found["account"].0 == "FAILURE", "{output:?}");
    assert!(found["account"].1.contains("refuses") && found["account"].2.contains("key"), "{found:#?}");
}

#[tokio::test]
async fn a_broken_settings_file_and_an_unusable_dead_letter_store_are_reported() {
    let app = TestApp::start().await;
    std::fs::write(app.folder.path().join("local.settings.json"), "{\"CosmosDB\": SECRET").unwrap();
    std::fs::write(app.folder.path().join("file"), "no directory").unwrap();
    let args = ["doctor", "--dead-letters", "file/letters", "--format", "json"];
    let output = app.run_with_settings(&args, &[]).await;
    assert_eq!(output.code, 3, "{output:?}");
    let found = findings(&output);
    assert!(found["local.settings.json"].0 == "FAILURE" && !output.stdout.contains("SECRET"), "{found:#?}");
    let letters = found.iter().find(|(check, _)| check.starts_with("dead letters in")).unwrap();
    assert!(letters.1.0 == "FAILURE" && letters.1.2.contains("REWIND_DEAD_LETTERS"), "{found:#?}");
    assert_eq!(found["account"].0, "OK", "the environment still names the account: {found:#?}");
    // A folder other than the working directory.
    let elsewhere = tempfile::tempdir().unwrap();
    let path = app.folder.path().to_str().unwrap();
    let there = run(elsewhere.path(), &["doctor", "--app-root", path, "--format", "json"], &[], "").await;
    assert!(findings(&there).contains_key("local.settings.json"), "{there:?}");
    assert_eq!(run(elsewhere.path(), &["doctor", "--nonsense"], &[], "").await.code, 2);
}

#[tokio::test]
async fn the_containers_of_every_function_are_checked() {
    let app = TestApp::start().await;
    app_files(app.folder.path());
    let more = ["new-function", "--name", "CaptureOrders", "--source", "orders", "--changes", "orders-changes"];
    assert_eq!(app.run(&more).await.code, 0);
    let made = json!({"id": "orders", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(app.local.create_container("dev", made).await.unwrap());
    // The file names orders, and the handler lacks its settings.
    let output = app.run_with_settings(&["doctor", "--format", "json"], &NAMES).await;
    assert_eq!(failed(&output), ["CaptureOrders/function.json"]);
    let own = [
        ("CaptureOrders__COSMOS_SOURCE_CONTAINER", "orders"),
        ("CaptureOrders__COSMOS_CHANGES_CONTAINER", "orders-changes"),
    ];
    let output = app.run_with_settings(&["doctor", "--format", "json"], &[&NAMES[..], &own].concat()).await;
    assert_eq!(failed(&output), ["changes of CaptureOrders"], "{output:?}");
    assert_eq!(findings(&output)["source of CaptureOrders"].0, "OK");
}

#[tokio::test]
async fn a_timer_needs_to_know_what_to_prune() {
    let app = TestApp::start().await;
    app_files(app.folder.path());
    let folder = app.folder.path().join("PruneHistory");
    std::fs::create_dir(&folder).unwrap();
    let file = |timer: Value| std::fs::write(folder.join("function.json"), json!({"bindings": [timer]}).to_string());
    file(json!({"type": "timerTrigger", "direction": "in", "name": "timer"})).unwrap();
    let run = async |more: &[(&str, &str)]| {
        app.run_with_settings(&["doctor", "--format", "json"], &[&NAMES[..], more].concat()).await
    };
    assert_eq!(failed(&run(&[]).await), ["PruneHistory/function.json", "function PruneHistory"]);
    file(json!({"type": "timerTrigger", "direction": "in", "name": "timer", "schedule": "0 0 3 * * *"})).unwrap();
    let wrong = run(&[("REWIND_PRUNE", "--older-than soon")]).await;
    assert_eq!(failed(&wrong), ["function PruneHistory", "setting REWIND_PRUNE"], "{wrong:?}");
    let right = run(&[("REWIND_PRUNE", "--older-than 90d")]).await;
    assert_eq!((right.code, failed(&right)), (0, Vec::new()), "{right:?}");
    assert_eq!(findings(&right)["function PruneHistory"].1, "prunes --older-than 90d");
}

#[tokio::test]
async fn doctor_reports_whether_writes_will_be_packed() {
    let app = TestApp::start().await;
    let packed = async |settings: &[(&str, &str)]| {
        let proxied = app.settings();
        let proxied: Vec<_> = proxied.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let settings = [&proxied[..], settings].concat();
        let output = app.run_with_settings(&["doctor", "--format", "json"], &settings).await;
        let mut found = findings(&output);
        found.remove("changes of CaptureChanges: packed writes").unwrap_or_else(|| panic!("{output:?}"))
    };
    assert_eq!(packed(&[]).await.0, "OK");
    app.proxy.refuse_bulk(Some(400));
    let (verdict, what, advice) = packed(&[]).await;
    assert!(
        verdict == "WARNING" && what.contains("does not take bulk requests") && advice.contains("slower"),
        "{what}"
    );
    assert!(packed(&[("REWIND_BULK", "off")]).await.1.starts_with("off"));
    assert!(app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap().is_empty());
}

#[tokio::test]
async fn missing_permissions_are_reported_for_each_operation() {
    let app = TestApp::start().await;
    app.proxy.fail_always(Some(Fault::Reject(403, 0)));
    let output = app.run_through_proxy(&["doctor", "--format", "json"]).await;
    let found = findings(&output);
    assert_eq!(found["changes of CaptureChanges: write"].0, "FAILURE", "{found:#?}");
    assert_eq!(found["source of CaptureChanges: read"].0, "OK", "{found:#?}");
    assert_eq!(found["clock"].0, "WARNING", "{found:#?}");
    // The writes are allowed, but not the final delete: this is reported, but is not a failure of capture.
    app.proxy.fail_always(None);
    app.proxy.fail_next([vec![Fault::Pass; 5], vec![Fault::Reject(403, 0)]].concat());
    let output = app.run_through_proxy(&["doctor", "--format", "json"]).await;
    let found = findings(&output);
    assert_eq!(found["changes of CaptureChanges: write"].0, "OK", "{found:#?}");
    let delete = &found["changes of CaptureChanges: delete"];
    assert!(delete.0 == "WARNING" && delete.1.contains("stays") && delete.2.contains("prune"), "{found:#?}");
    // The remaining record does not affect other commands.
    for args in [&["verify", "--grace", "0s"][..], &["coverage"]] {
        let output = app.run(args).await;
        assert_eq!(output.code, 0, "{output:?}");
    }
    let output = app.run(&["restore", "--all", "--at", "1m", "--dry-run"]).await;
    assert!(output.stderr.contains("no document in scope"), "{output:?}");
}

//! `new-function`: one app, several containers.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Handler, Local, Output, TestApp, body_of, feed_document, run};

/// An app folder with host.json and the shipped function.
fn app() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy("host.json", folder.path().join("host.json")).unwrap();
    let function = folder.path().join("CaptureChanges");
    std::fs::create_dir(&function).unwrap();
    std::fs::copy("CaptureChanges/function.json", function.join("function.json")).unwrap();
    folder
}

const ORDERS: [&str; 7] =
    ["new-function", "--name", "CaptureOrders", "--source", "orders", "--changes", "orders-changes"];

async fn in_folder(folder: &Path, args: &[&str]) -> Output {
    run(folder, args, &[], "").await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn new_function_writes_the_function_and_its_settings_once() {
    let app = app();
    let settings = app.path().join("local.settings.json");
    let before = r#"{"IsEncrypted":false,"Values":{"Z":"1","CosmosDB":"AccountEndpoint=http://127.0.0.1:1/;AccountKey=U0VDUkVU;","A":"2"},"Host":{"CORS":"*"}}"#;
    std::fs::write(&settings, before).unwrap();

    let dry = in_folder(app.path(), &[&ORDERS[..], &["--dry-run", "--format", "json"]].concat()).await.json();
    assert_eq!((&dry["state"], &dry["local_settings"]), (&json!("planned"), &json!("would get them")));
    assert_eq!(names(app.path()), ["CaptureChanges", "host.json", "local.settings.json"]);
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), before);

    let made = in_folder(app.path(), &ORDERS).await;
    assert_eq!(made.code, 0, "{made:?}");
    assert!(
        made.stdout.contains(
            "--settings CaptureOrders__COSMOS_SOURCE_CONTAINER=orders CaptureOrders__COSMOS_CHANGES_CONTAINER=orders-changes"
        ),
        "{made:?}"
    );
    assert!(!made.stdout.contains("U0VDUkVU") && !made.stderr.contains("U0VDUkVU"));
    let file: Value =
        serde_json::from_slice(&std::fs::read(app.path().join("CaptureOrders/function.json")).unwrap()).unwrap();
    assert_eq!(file, dry["content"]);
    let trigger = &file["bindings"][0];
    assert_eq!(
        (&trigger["containerName"], &trigger["leaseContainerPrefix"], &file["retry"]["maxRetryCount"]),
        (&json!("orders"), &json!("CaptureOrders"), &json!(-1))
    );
    let text: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    assert_eq!(text.as_object().unwrap().keys().collect::<Vec<_>>(), ["IsEncrypted", "Values", "Host"]);
    assert_eq!(
        text["Values"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["Z", "CosmosDB", "A", "CaptureOrders__COSMOS_SOURCE_CONTAINER", "CaptureOrders__COSMOS_CHANGES_CONTAINER"]
    );

    let again = in_folder(app.path(), &[&ORDERS[..], &["--format", "json"]].concat()).await.json();
    assert_eq!((&again["state"], &again["local_settings"]), (&json!("exists"), &json!("has them")));
    // An existing function of that name is not replaced, whatever the case.
    for other in [["CaptureOrders", "other"], ["captureorders", "orders"]] {
        let args = ["new-function", "--name", other[0], "--source", other[1], "--changes", "orders-changes"];
        let refused = in_folder(app.path(), &args).await;
        assert!(refused.code == 2 && refused.stderr.contains("is there already"), "{refused:?}");
    }
    assert_eq!(names(app.path()), ["CaptureChanges", "CaptureOrders", "host.json", "local.settings.json"]);
}

#[tokio::test]
async fn an_invalid_request_is_reported_and_nothing_is_written() {
    let app = app();
    let with = |name: &'static str, source: &'static str, changes: &'static str, more: &[&'static str]| {
        [&["new-function", "--name", name, "--source", source, "--changes", changes][..], more].concat()
    };
    for (args, problem) in [
        (with("9lives", "orders", "c", &[]), "not a function name"),
        (with("../up", "orders", "c", &[]), "not a function name"),
        (with("my-orders", "orders", "c", &[]), "--name my_orders"),
        (with("F", "orders", "orders", &[]), "--changes: is the source container"),
        (with("F", "or/ders", "c", &[]), "--source: is not a valid resource name"),
        (with("F", "%X%", "c", &[]), "--source: \"%X%\" is not a valid name"),
        (with("F", "", "c", &[]), "--source: \"\" is not a valid name"),
        (with("F", "orders", "c", &["--leases", "c"]), "--leases: is the container"),
        (with("F", "o", "c", &["--mode", "all-versions", "--start-from-beginning"]), "cannot be read from the past"),
        (with("F", "o", "c", &["--app-root", "nowhere"]), "host.json: is not there"),
    ] {
        let output = in_folder(app.path(), &args).await;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stderr.contains(problem) && output.stderr.contains("hint: "), "{problem}: {output:?}");
    }
    // If the settings file cannot be extended, the folder is not created either.
    for (text, problem) in [
        ("{\"AccountKey\": SECRET", "is not valid JSON: line 1"),
        (r#"{"IsEncrypted":true}"#, "is encrypted"),
        (r#"{"Values":{"CaptureOrders__COSMOS_SOURCE_CONTAINER":"SECRET"}}"#, "has another value for"),
    ] {
        std::fs::write(app.path().join("local.settings.json"), text).unwrap();
        let output = in_folder(app.path(), &ORDERS).await;
        assert!(output.code == 2 && output.stderr.contains(problem), "{output:?}");
        assert!(!output.stderr.contains("SECRET"), "{output:?}");
    }
    assert_eq!(names(app.path()), ["CaptureChanges", "host.json", "local.settings.json"]);
}

#[tokio::test]
async fn one_function_captures_a_container_into_a_history() {
    let app = app();
    std::fs::write(app.path().join("local.settings.json"), r#"{"Values":{"COSMOS_DATABASE":"dev"}}"#).unwrap();
    assert_eq!(in_folder(app.path(), &ORDERS).await.code, 0);
    let add = async |name: &str, source: &str, changes: &str, more: &[&str]| {
        let args = ["new-function", "--name", name, "--source", source, "--changes", changes];
        in_folder(app.path(), &[&args[..], more].concat()).await
    };
    for (source, changes, other) in [
        ("orders", "orders-changes", "CaptureOrders captures orders into it already"),
        ("returns", "orders-changes", "CaptureOrders captures orders into it already"),
        ("events", "changes", "CaptureChanges captures events into it already"),
    ] {
        let refused = add("Second", source, changes, &[]).await;
        assert!(refused.code == 2 && refused.stderr.contains(other), "{source}: {refused:?}");
        assert!(!app.path().join("Second").exists());
    }
    // Again is harmless; another history or database is another thing, and so is the mode that an app changes to.
    assert_eq!(in_folder(app.path(), &ORDERS).await.code, 0);
    for (name, changes, more) in [
        ("Other", "orders-copies", &[][..]),
        ("Elsewhere", "orders-changes", &["--database", "prod"]),
        ("Every", "orders-changes", &["--mode", "all-versions"]),
    ] {
        let added = add(name, "orders", changes, more).await;
        assert_eq!(added.code, 0, "{name}: {added:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn existing_files_are_refused_and_a_link_stays_a_link() {
    let app = app();
    let (settings, aside) = (app.path().join("local.settings.json"), app.path().join("aside.json"));
    std::fs::write(&aside, r#"{"Values":{}}"#).unwrap();
    std::os::unix::fs::symlink(&aside, &settings).unwrap();
    // A file in place of the folder.
    std::fs::write(app.path().join("F"), "in the way").unwrap();
    let refused = in_folder(app.path(), &["new-function", "--name", "F", "--source", "o", "--changes", "c"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), r#"{"Values":{}}"#);
    assert_eq!(in_folder(app.path(), &ORDERS).await.code, 0);
    assert!(settings.is_symlink());
    assert!(std::fs::read_to_string(&aside).unwrap().contains("CaptureOrders__COSMOS_SOURCE_CONTAINER"));
    assert_eq!(
        names(app.path()),
        ["CaptureChanges", "CaptureOrders", "F", "aside.json", "host.json", "local.settings.json"]
    );
}

#[tokio::test]
async fn all_versions_names_the_required_bundle() {
    let app = app();
    let output = in_folder(app.path(), &[&ORDERS[..], &["--mode", "all-versions"]].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!output.stderr.contains("warning"), "the shipped host.json has everything it needs: {output:?}");
    let text = std::fs::read_to_string(app.path().join("host.json")).unwrap();
    std::fs::write(app.path().join("host.json"), text.replace("4.37.1", "4.0.0")).unwrap();
    let output = in_folder(app.path(), &[&ORDERS[..], &["--mode", "all-versions"]].concat()).await;
    assert!(
        output.stderr.contains("all-versions mode needs") && output.stderr.contains("[4.37.1, 5.0.0)"),
        "{output:?}"
    );
    std::fs::write(app.path().join("host.json"), text.replace("\"None\"", "\"DateTime\"")).unwrap();
    let output = in_folder(app.path(), &[&ORDERS[..], &["--mode", "all-versions"]].concat()).await;
    assert!(output.stderr.contains("the host rewrites dates") && !output.stderr.contains("bundle"), "{output:?}");
}

#[tokio::test]
async fn local_watches_all_functions_and_each_history_gets_its_own() {
    let app = app();
    std::fs::write(app.path().join("local.settings.json"), r#"{"Values":{"COSMOS_DATABASE":"dev"}}"#).unwrap();
    for args in [
        &[&ORDERS[..], &["--mode", "all-versions"]].concat()[..],
        // A second function on the first one's container needs its own leases.
        &["new-function", "--name", "CaptureAgain", "--source", "events", "--changes", "again"],
    ] {
        assert_eq!(in_folder(app.path(), args).await.code, 0);
    }
    let local = Local::start_in(app, &[]).await;
    assert_eq!(local.run(&["populate", "--count", "3"]).await.code, 0);
    let orders = ["--source", "orders", "--changes", "orders-changes"];
    assert_eq!(local.run(&[&["populate", "--count", "5"][..], &orders].concat()).await.code, 0);
    assert_eq!(local.run(&[&["truncate", "source", "--yes"][..], &orders].concat()).await.code, 0);
    local.wait_for_count("orders-changes", 10).await;
    local.wait_for_count("changes", 3).await;
    local.wait_for_count("again", 3).await;
    // Beside the records there may be the note of when the trigger began.
    let records = "SELECT * FROM c WHERE NOT IS_DEFINED(c._restore)";
    let output = local.run(&["query", "--in", "orders-changes", records, "--format", "json"]).await.json();
    let ops: Vec<&str> =
        output.as_array().unwrap().iter().map(|record| record["_change"]["op"].as_str().unwrap()).collect();
    assert_eq!(ops.iter().filter(|op| **op == "delete").count(), 5, "{ops:?}");
}

#[tokio::test]
async fn serve_writes_each_functions_batches_to_its_own_history() {
    let app = TestApp::start().await;
    std::fs::copy("host.json", app.folder.path().join("host.json")).unwrap();
    for container in ["orders", "orders-changes"] {
        let made = json!({"id": container, "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
        assert!(app.local.create_container("dev", made).await.unwrap());
    }
    assert_eq!(app.run(&ORDERS).await.code, 0);
    // Without its settings, the handler would write orders into the history of events, so it does not start.
    let settings = app.settings();
    let refused = run(app.folder.path(), &["serve"], &settings, "").await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("CaptureOrders__COSMOS_SOURCE_CONTAINER"), "{refused:?}");
    let handler = app
        .handler(&[
            ("CaptureOrders__COSMOS_SOURCE_CONTAINER", "orders"),
            ("CaptureOrders__COSMOS_CHANGES_CONTAINER", "orders-changes"),
        ])
        .await;
    deliver(&handler, "CaptureChanges", "a").await;
    deliver(&handler, "captureorders", "b").await;
    assert_eq!(app.history().await.iter().map(|r| r["_originalId"].clone()).collect::<Vec<_>>(), ["a"]);
    let orders = app.cosmos.container("dev", "orders-changes").await.unwrap();
    let records = orders.query_all("SELECT * FROM c", &[], None).await.unwrap();
    assert!(records.len() == 1 && records[0].get().contains("\"_originalId\":\"b\""), "{records:?}");
}

async fn deliver(handler: &Handler, function: &str, id: &str) {
    let array = Value::from(vec![feed_document(id, "p", 1)]).to_string();
    assert_eq!(handler.post(function, body_of(&array)).await.0, 200);
}

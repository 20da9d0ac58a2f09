//! `serve` with `REWIND_FIELDS` and `REWIND_REDACT`: only part of each document is stored.

use serde_json::{Value, json};

use crate::support::{Fault, TestApp};

const KEY: (&str, &str) = ("REWIND_REDACT_KEY", "pepper");

#[tokio::test]
async fn redacted_fields_are_in_no_record_however_their_document_was_delivered() {
    let app = TestApp::start().await;
    let handler = app
        .handler(&[
            ("REWIND_FIELDS", "/name, /when,/ssn,/card/number"),
            ("REWIND_REDACT", "/card/number=hash"),
            ("CaptureChanges__REWIND_REDACT", "/ssn,/card/number=hash"),
            KEY,
        ])
        .await;
    let secret = |id: &str, when: &str| {
        json!({"id": id, "pk": "p", "name": "Ann", "when": when, "ssn": "SECRET-1", "other": "SECRET-2",
            "card": {"number": "SECRET-3", "bank": "SECRET-4"}})
    };
    // An unchanged document; one that the host has altered, so that it is read again; one with a previous image; and a
    // delete.
    let plain = app.put(secret("plain", "once")).await;
    let mut rewritten = app.put(secret("rewritten", "2020-01-01T00:00:00.1000Z")).await;
    rewritten["when"] = json!("2020-01-01T00:00:00.1Z");
    let mut current = secret("twice", "now");
    (current["_etag"], current["_ts"]) = (json!("\"e2\""), json!(1_700_000_002));
    let mut previous = secret("twice", "before");
    (previous["_etag"], previous["_ts"]) = (json!("\"e1\""), json!(1_700_000_001));
    let metadata = json!({"operationType": "replace", "lsn": 9, "crts": 1_700_000_002, "previousImageLSN": 7});
    let replaced = json!({"current": current, "previous": previous, "metadata": metadata});
    let mut gone = replaced.clone();
    (gone["current"], gone["metadata"]["operationType"]) = (json!({}), json!("delete"));
    gone["metadata"]["id"] = json!("twice");
    let (status, body) = handler.deliver(&[plain, rewritten, replaced, gone]).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());

    let history = app.history().await;
    assert_eq!(history.len(), 5, "{history:#?}");
    let text = Value::from(history.clone()).to_string();
    assert!(!text.contains("SECRET") && !text.contains("pepper"), "{text}");
    for record in history.iter().filter(|record| record["_change"]["op"] != "delete") {
        let change = &record["_change"];
        assert_eq!(change["fidelity"], "partial", "{record}");
        assert_eq!(
            change["partial"],
            json!({"fields": ["/name", "/when", "/ssn", "/card/number"], "dropped": ["/ssn"], "hashed": ["/card/number"]})
        );
        assert!(record["card"]["number"].as_str().unwrap().starts_with("hmac:"), "{record}");
        assert_eq!((&record["name"], record.get("ssn"), record.get("other")), (&json!("Ann"), None, None));
    }
    let read_again = history.iter().find(|record| record["_originalId"] == "rewritten").unwrap();
    assert_eq!(read_again["when"], "2020-01-01T00:00:00.1000Z", "{read_again}");
    assert!(!handler.log().iter().any(|line| line.contains("SECRET")), "{:#?}", handler.log());
    let shown = app.run(&["show", "--id", "plain", "--pk", "p", "--format", "json"]).await.json();
    assert_eq!(
        (&shown["document"]["name"], &shown["caveats"][1]["name"]),
        (&json!("Ann"), &json!("partial")),
        "{shown}"
    );
}

/// Loaded again, a part would replace the whole document. While the version is live, all of it is known.
#[tokio::test]
async fn a_backup_of_a_moment_has_no_part_of_a_document() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_REDACT", "/ssn")]).await;
    for id in ["changes", "stays"] {
        let item = app.put(json!({"id": id, "pk": "p", "ssn": format!("SECRET-{id}")})).await;
        assert_eq!(handler.deliver(&[item]).await.0, 200);
    }
    let at = crate::support::moment().await;
    let later = app.put(json!({"id": "changes", "pk": "p", "ssn": "new"})).await;
    assert_eq!(handler.deliver(&[later]).await.0, 200);
    let file = app.folder.path().join("backup.jsonl");
    let output = app.run(&["backup", "--all", "--at", &at, "--out", file.to_str().unwrap()]).await;
    assert_eq!(output.code, 3, "{output:?}");
    assert!(output.stderr.contains("document \"changes\" (p): the history holds only a part"), "{output:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    let documents: Vec<&str> = text.lines().filter(|line| !line.contains("_backup")).collect();
    assert!(documents.len() == 1 && documents[0].contains("SECRET-stays"), "{text}");
}

#[tokio::test]
async fn a_wrong_setting_stops_the_start_and_is_named_with_the_fix() {
    let app = TestApp::start().await;
    for (name, value, problem) in [
        ("REWIND_FIELDS", "name", "does not start with /"),
        ("REWIND_FIELDS", "/a,,/b", "does not start with /"),
        ("REWIND_REDACT", "/a=rot13", "neither hash nor drop"),
        ("REWIND_REDACT", "/a=hash", "set REWIND_REDACT_KEY"),
        ("REWIND_REDACT", "/id", "identity"),
        // Only detected by asking the source.
        ("REWIND_REDACT", "/pk", "partition key"),
        ("CaptureChanges__REWIND_REDACT", "/pk=drop", "partition key"),
    ] {
        let output = app.run_with_settings(&["serve"], &[(name, value)]).await;
        assert_eq!(output.code, 2, "{name}={value}: {output:?}");
        assert!(output.stderr.contains(name) && output.stderr.contains(problem), "{name}={value}: {output:?}");
        assert!(!output.stdout.contains("ready"), "{output:?}");
    }
}

#[tokio::test]
async fn a_letter_is_redacted_and_one_with_a_whole_item_is_redacted_on_replay() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_REDACT", "/ssn")]).await;
    // A record that the service refuses becomes a redacted letter; an item that is not a document is kept as delivered.
    app.proxy.only_if_body_has("long~");
    app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
    let long = json!({"id": "long", "pk": "p", "when": "2020-01-01T00:00:00.1000Z", "ssn": "SECRET", "_etag": "\"e\"", "_ts": 1});
    let (status, body) = handler.deliver(&[long, json!({"ssn": "SECRET"})]).await;
    assert_eq!(status, 200, "{body} {:#?}", handler.log());
    let letters = app.dead_letters();
    let of = |id: &Value| letters.iter().find(|letter| letter["id"] == *id).unwrap_or_else(|| panic!("{letters:#?}"));
    let refused = of(&json!("long"));
    assert_eq!((refused["item"].get("ssn"), &refused["partial"]), (None, &json!(r#"{"dropped":["/ssn"]}"#)));
    assert_eq!(of(&json!(null))["item"], json!({"ssn": "SECRET"}));

    // A letter from before the setting was changed.
    let folder = app.folder.path().join(".dead-letters");
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let item = app.put(json!({"id": "x", "pk": "p", "ssn": "SECRET"})).await;
    let letter = json!({"v": 1, "at": "2026-11-20T15:00:00.000Z", "function": "CaptureChanges", "invocation": "1", "id": "x",
        "status": "400", "reason": "-", "item": item});
    std::fs::write(folder.join("CaptureChanges-0.json"), letter.to_string()).unwrap();
    let replayed = app.run_with_settings(&["replay"], &[("REWIND_REDACT", "/ssn")]).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let history = app.history().await;
    assert_eq!(
        (history.len(), history[0].get("ssn"), &history[0]["_change"]["fidelity"]),
        (1, None, &json!("partial"))
    );
}

/// Writes a document with a secret that no handler delivers.
async fn not_delivered(app: &TestApp, id: &str) {
    app.put(json!({"id": id, "pk": "p", "name": "Ann", "ssn": format!("SECRET-{id}"), "ttl": 3600})).await;
}

#[tokio::test]
async fn documents_that_are_saved_beside_capture_lose_what_capture_leaves_out() {
    let app = TestApp::start().await;
    not_delivered(&app, "early").await;
    // No record shows yet what will be left out. The settings do.
    let redact = [("REWIND_REDACT", "/ssn")];
    let saved = app.run_with_settings(&["backfill", "--all", "--format", "json"], &redact).await;
    assert_eq!((saved.code, saved.json()["written"].as_u64()), (0, Some(1)), "{saved:?}");
    let handler = app.handler(&redact).await;
    let delivered = app.put(json!({"id": "delivered", "pk": "p", "ssn": "SECRET-delivered"})).await;
    assert_eq!(handler.deliver(&[delivered]).await.0, 200);
    not_delivered(&app, "late").await;

    let before = app.history().await;
    for command in [&["backfill", "--all"][..], &["verify", "--repair", "--grace", "0s"]] {
        // Whoever runs a command may not have the settings of the function app.
        let refused = app.run(command).await;
        assert!(refused.code == 2 && refused.stderr.contains("REWIND_REDACT"), "{refused:?}");
        assert_eq!(app.history().await, before, "{command:?}");
    }
    let repaired = app.run_with_settings(&["verify", "--repair", "--grace", "0s"], &redact).await;
    assert!(repaired.stderr.contains("1 repaired"), "{repaired:?}");
    let history = app.history().await;
    let text = Value::from(history.clone()).to_string();
    assert!(history.len() == 3 && !text.contains("SECRET") && !text.contains("ssn\":"), "{text}");
    for record in &history {
        let change = &record["_change"];
        assert_eq!((&change["fidelity"], &change["partial"]), (&json!("partial"), &json!({"dropped": ["/ssn"]})));
    }
    let late = history.iter().find(|record| record["_originalId"] == "late").unwrap();
    assert_eq!((&late["name"], &late["_change"]["ttl"]), (&json!("Ann"), &json!(3600)), "{late}");

    // A part on purpose, of the version that is live: nothing is missing.
    let clean = app.run(&["verify", "--grace", "0s", "--format", "json"]).await;
    let clean: Value = serde_json::from_str(&clean.stdout).unwrap();
    let mut checks = clean["checks"].as_array().unwrap().iter();
    let mut count = |name: &str| checks.find(|check| check["check"] == name).unwrap()["count"].as_u64();
    assert_eq!((count("missing"), count("partial")), (Some(0), Some(3)), "{clean}");

    not_delivered(&app, "whole").await;
    let whole = app.run(&["backfill", "--all", "--whole"]).await;
    assert!(whole.code == 0 && app.history().await.iter().any(|record| record["ssn"] == "SECRET-whole"), "{whole:?}");
}

/// A condition on a field that was left out has no answer from the history: the document is counted, not passed over.
#[tokio::test]
async fn a_condition_on_a_field_that_was_left_out_leaves_its_documents_unknown() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_REDACT", "/ssn")]).await;
    let put = async |id: &str, ssn: &str, city: &str| {
        let item = app.put(json!({"id": id, "pk": "p", "ssn": ssn, "city": city})).await;
        assert_eq!(handler.deliver(&[item]).await.0, 200);
    };
    for (id, ssn, city) in [("hurt", "1", "Oslo"), ("other", "2", "Rome"), ("stays", "1", "Oslo")] {
        put(id, ssn, city).await;
    }
    let at = crate::support::moment().await;
    put("hurt", "0", "Oslo").await;
    put("other", "0", "Rome").await;

    // The exit code is part of what is tested.
    let json_of = |output: &crate::support::Output| serde_json::from_str::<Value>(&output.stdout).unwrap();
    let planned = async |condition: &str| {
        let output = app.run(&["restore", "--where", condition, "--at", &at, "--dry-run", "--format", "json"]).await;
        assert_eq!(output.code, 3, "{condition}: {output:?}");
        let steps = json_of(&output)["plan"]["steps"].as_array().unwrap().clone();
        let step =
            |step: &Value| (step["id"].as_str().unwrap().to_owned(), step["action"].as_str().unwrap().to_owned());
        let mut steps: Vec<_> = steps.iter().map(step).filter(|(_, action)| action != "keep").collect();
        steps.sort();
        steps.into_iter().map(|(id, action)| format!("{id} {action}")).collect::<Vec<_>>()
    };
    assert_eq!(planned("c.ssn = '1'").await, ["hurt unknown", "other unknown"]);
    assert_eq!(planned("c.ssn = '1' AND c.city = 'Oslo'").await, ["hurt unknown"], "the rest decides");
    assert_eq!(planned("NOT IS_DEFINED(c.ssn)").await, ["hurt unknown", "other unknown"]);
    assert_eq!(planned("EXISTS(SELECT VALUE s FROM s IN c.ssn)").await, ["hurt unknown", "other unknown"]);

    let backed_up = async |condition: &str, name: &str| {
        let file = app.folder.path().join(name);
        let file = file.to_str().unwrap();
        let flags = ["backup", "--where", condition, "--at", &at, "--out", file, "--format", "json"];
        let output = app.run(&flags).await;
        let text = std::fs::read_to_string(file).unwrap();
        (output.code, json_of(&output)["unknown"].clone(), text.lines().count() - 1, text.contains("\"stays\""))
    };
    // A version that is live can be asked as a whole.
    assert_eq!(backed_up("c.ssn = '1'", "one.jsonl").await, (3, json!(2), 1, true));
    assert_eq!(backed_up("c.ssn = '2'", "two.jsonl").await, (3, json!(2), 0, false));
    assert_eq!(backed_up("c.city = 'Bern'", "none.jsonl").await, (0, json!(0), 0, false));

    let shown = app.run(&["show", "--where", "c.ssn = '1'", "--at", &at]).await;
    assert_eq!(shown.code, 3, "{shown:?}");
    let history = app.run(&["history", "--where", "NOT IS_DEFINED(c.ssn)", "--format", "json"]).await;
    assert_eq!((history.code, json_of(&history)), (3, json!([])), "{history:?}");
    let found = app.run(&["find", "--when", "true", "--where", "c.ssn = '1'", "--format", "json"]).await;
    assert_eq!(found.code, 3, "{found:?}");
}

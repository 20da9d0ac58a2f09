//! Versions whose record is too large: the history knows that they existed, and claims nothing about their content.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::{ALL, catch_up, put};
use crate::support::TestApp;

/// Nearly 2 MB of incompressible text: the document fits into the service, but its record does not.
fn noise() -> String {
    let mut state: u64 = 7;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Printable characters that need no escape.
        let place = u8::try_from((state >> 33) % 91).unwrap();
        let letter = b'#' + place;
        char::from(if letter == b'\\' { b'!' } else { letter })
    };
    (0..2_096_900).map(|_| next()).collect()
}

#[tokio::test]
async fn nothing_is_claimed_about_a_version_that_was_too_large() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for id in ["over", "live"] {
        put(&app, id, 1).await;
        app.put(json!({"id": id, "pk": format!("key-{id}"), "n": 2, "noise": noise()})).await;
    }
    put(&app, "over", 3).await;
    let refused = app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    assert_eq!(refused.code, 3, "{refused:?}");
    // A letter stores how its item arrived, so a replay claims no more than the original reader could.
    let letters = std::fs::read_dir(app.folder.path().join(".dead-letters")).unwrap();
    for letter in letters {
        let letter: Value = serde_json::from_slice(&std::fs::read(letter.unwrap().path()).unwrap()).unwrap();
        assert_eq!(letter["via"], "follow", "{}", letter["reason"]);
    }
    let versions = app.versions("over").await;
    assert_eq!(versions.iter().map(|v| v.is_absent()).collect::<Vec<_>>(), [false, true, false]);
    let absent = versions[1].record_id.as_str();

    // The id and the key of its record are not the document.
    let shown = app.run(&["show", "--id", "over", "--version", absent]).await;
    assert_eq!((shown.code, shown.stdout.as_str()), (1, ""), "{shown:?}");
    assert!(shown.stderr.contains("too large for the history"), "{shown:?}");
    let listed = app.run(&["history", "--id", "over", "--format", "json"]).await.json();
    let rows = listed["versions"].as_array().or(listed.as_array()).unwrap();
    assert!(rows.iter().all(|row| row["removed"].is_null() || row["removed"] == json!([])), "{listed}");
    // The field changed twice, and the history only has its first and its last value.
    let changes = app.run(&["history", "--id", "over", "--changes-of", "/n"]).await;
    assert!(changes.stderr.contains("may show a change that was made in it"), "{changes:?}");
    let compared = app.run(&["diff", "--id", "over", "--version", absent]).await;
    assert_ne!(compared.code, 0, "{compared:?}");
    // The live document is available.
    let shown = app.run(&["show", "--id", "live"]).await;
    assert!(shown.code == 0 && shown.stdout.contains("\"n\":2,\"noise\":"), "{}", shown.stderr);

    // Whether it met a condition is unknown, and no write is claimed to have made it true.
    let found = app.run(&["find", "--when", "!has(doc.n)", "--format", "json"]).await;
    assert!(!found.stdout.contains(absent), "{found:?}");
    for predicate in ["NOT IS_DEFINED(c.n)", "c.n = 2"] {
        let found = app.run(&["history", "--where", predicate, "--format", "json"]).await;
        assert_eq!(found.code, 3, "{}", found.stderr);
        assert!(found.stderr.contains("which was too large"), "{}", found.stderr);
    }
}

#[tokio::test]
async fn verify_counts_apart_what_the_history_has_nothing_of() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    put(&app, "over", 1).await;
    app.put(json!({"id": "over", "pk": "key-over", "n": 2, "noise": noise()})).await;
    put(&app, "over", 3).await;
    put(&app, "gone", 1).await;
    app.events().await.delete(&PartitionKey::parse("key-gone").unwrap(), "gone", None).await.unwrap();
    app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    let verify = ["verify", "--deep", "100", "--grace", "0s", "--format", "json"];
    let told = app.run(&verify).await;
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    // Neither the absent version nor the delete is a document that was made again.
    assert_eq!((&report["versions"], &report["sampled"]), (&json!(5), &json!(3)), "{report}");
    let check = |report: &Value, name: &str| {
        report["checks"].as_array().unwrap().iter().find(|check| check["check"] == name).cloned().unwrap()
    };
    let absent = check(&report, "absent");
    assert_eq!((&absent["count"], &absent["result"]), (&json!(1), &json!("WARNING")), "{report}");
    assert_eq!((&absent["documents"][0]["id"], told.code), (&json!("over"), 3), "{report}");
    assert_eq!(check(&report, "rebuild")["count"], 0, "{report}");
    let later = app.run(&[&verify[..], &["--since", &crate::support::moment().await]].concat()).await;
    assert_eq!(later.json()["result"], "OK", "{later:?}");

    // The live document is the version that is too large: saving it saves nothing of it.
    app.put(json!({"id": "live", "pk": "key-live", "n": 1, "noise": noise()})).await;
    app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    for more in [&[][..], &["--repair"]] {
        let told = app.run(&[&verify[..], more].concat()).await;
        let report: Value = serde_json::from_str(&told.stdout).unwrap();
        assert_eq!((&report["result"], told.code), (&json!("FAILURE"), 3), "{more:?}: {}", told.stderr);
        assert_eq!((&report["repaired"], &check(&report, "missing")["count"]), (&json!(0), &json!(1)), "{report}");
    }
    let saved = app.run(&["backfill", "--all", "--format", "json"]).await;
    let report: Value = serde_json::from_str(&saved.stdout).unwrap();
    assert_eq!((saved.code, &report["failed"]), (3, &json!(1)), "{saved:?}");
}

/// The record that says that there was such a version is in the way of one that has a part of it.
#[tokio::test]
async fn a_repair_gives_its_text_to_a_version_of_which_the_history_has_nothing() {
    for command in
        [&["verify", "--repair", "--grace", "0s", "--format", "json"][..], &["backfill", "--all", "--format", "json"]]
    {
        let app = TestApp::start().await;
        catch_up(&app, &ALL).await;
        app.put(json!({"id": "live", "pk": "key-live", "n": 1, "noise": noise(), "ttl": 9000})).await;
        app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
        let before = app.history().await.remove(0);
        assert_eq!(before["_change"]["fidelity"], "absent", "{before}");
        let told = app.run_with_settings(command, &[("REWIND_REDACT", "/noise")]).await;
        let report: Value = serde_json::from_str(&told.stdout).unwrap();
        let saved = report.get("repaired").unwrap_or(&report["written"]);
        assert_eq!(saved, 1, "{told:?}");
        let history = app.history().await;
        let [record] = history.as_slice() else { panic!("{history:?}") };
        let (change, known) = (&record["_change"], &before["_change"]);
        assert_eq!(
            (&record["n"], &change["ttl"], &record["noise"]),
            (&json!(1), &json!(9000), &Value::Null),
            "{record}"
        );
        assert_eq!((&change["fidelity"], &change["partial"]), (&json!("partial"), &json!({"dropped": ["/noise"]})));
        // What capture knew about that version is still there.
        for fact in ["op", "lsn", "ts", "etag", "key"] {
            assert_eq!(change[fact], known[fact], "{fact}: {record}");
        }
        let after = app.run(&["verify", "--grace", "0s", "--format", "json"]).await;
        let after: Value = serde_json::from_str(&after.stdout).unwrap();
        let missing = after["checks"].as_array().unwrap().iter().find(|check| check["check"] == "missing").unwrap();
        assert_eq!(missing["count"], 0, "{after}");
    }
}

#[tokio::test]
async fn one_document_that_cannot_be_compared_is_no_reason_to_leave_out_the_others() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for id in ["a", "over", "z"] {
        put(&app, id, 1).await;
    }
    app.put(json!({"id": "over", "pk": "key-over", "n": 2, "noise": noise()})).await;
    app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    let at = crate::support::moment().await;
    for id in ["a", "over", "z"] {
        put(&app, id, 3).await;
    }
    app.run(&[&["follow", "--until-caught-up"], &ALL[..]].concat()).await;
    let list = app.folder.path().join("ids.jsonl");
    std::fs::write(
        &list,
        ["a", "over", "z"].map(|id| format!("{}\n", json!({"id": id, "pk": format!("key-{id}")}))).concat(),
    )
    .unwrap();
    let (by_list, by_predicate) = (["--ids-file", list.to_str().unwrap()], ["--where", "STARTSWITH(c.pk, 'key-')"]);
    for which in [by_list, by_predicate] {
        for (from, to) in [(at.as_str(), "now"), (&at, "live"), ("now", &at)] {
            let args = [&["diff", "--from", from, "--to", to, "--format", "json"], &which[..]].concat();
            let compared = app.run(&args).await;
            assert_eq!(compared.code, 3, "{compared:?}");
            let patches: Value = serde_json::from_str(&compared.stdout).unwrap();
            let ids: Vec<&str> =
                patches.as_array().unwrap().iter().map(|patch| patch["id"].as_str().unwrap()).collect();
            assert_eq!(ids, ["a", "z"], "{compared:?}");
            assert!(compared.stderr.contains("2 differences in 2 of 3 documents, 1 not comparable"), "{compared:?}");
            let warning = compared.stderr.lines().find(|line| line.contains("document \"over\" (key-over)")).unwrap();
            assert!(warning.contains("too large for the history"), "{compared:?}");
        }
    }
}

/// A record whose compressed document does not match its checksum, as of a damaged history.
#[tokio::test]
async fn one_record_that_cannot_be_read_is_no_reason_to_leave_out_the_others() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for id in ["a", "odd", "z"] {
        put(&app, id, 1).await;
    }
    catch_up(&app, &ALL).await;
    let mut odd = app.history().await.into_iter().find(|record| record["_originalId"] == "odd").unwrap();
    odd["_change"]["body"] = json!({"encoding": "gzip", "size": 1, "sha256": "", "data": "!"});
    let key = PartitionKey::parse(&json!(["key-odd", "odd"]).to_string()).unwrap();
    let id = odd["id"].as_str().unwrap().to_owned();
    app.changes().await.upsert(&key, &id, odd.to_string().into_bytes()).await.unwrap();
    let at = crate::support::moment().await;
    for id in ["a", "odd", "z"] {
        put(&app, id, 2).await;
    }
    catch_up(&app, &ALL).await;
    let list = app.folder.path().join("ids.jsonl");
    std::fs::write(
        &list,
        ["a", "odd", "z"].map(|id| format!("{}\n", json!({"id": id, "pk": format!("key-{id}")}))).concat(),
    )
    .unwrap();
    let shown = app.run(&["show", "--ids-file", list.to_str().unwrap(), "--at", &at]).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (3, 2), "{shown:?}");
    let compared = app.run(&["diff", "--ids-file", list.to_str().unwrap(), "--from", &at]).await;
    assert_eq!(compared.code, 3, "{compared:?}");
    assert!(compared.stderr.contains("2 differences in 2 of 3 documents, 1 not comparable"), "{compared:?}");
    let alone = app.run(&["show", "--id", "odd", "--at", &at]).await;
    assert_eq!(alone.code, 1, "{alone:?}");
}

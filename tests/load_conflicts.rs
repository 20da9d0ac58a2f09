//! `load` where something is in the way: values of a unique key, members that look like the trailer, lost answers.

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Fault, Kind, TestApp};

/// The service refuses both with the same status: a document that exists, and one whose values another one has.
#[tokio::test]
async fn a_document_whose_unique_values_another_one_has_is_not_taken_for_one_that_exists() {
    let description = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
        "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/mail"]}]}});
    let app = TestApp::with_events(&["/pk", "/_originalId"], description).await;
    app.put(json!({"id": "theirs", "pk": "p", "mail": "1"})).await;
    app.put(json!({"id": "exists", "pk": "p", "mail": "2"})).await;
    let file = app.folder.path().join("load.jsonl");
    let documents = [("refused", "1"), ("exists", "3"), ("new", "4")];
    let lines = documents.map(|(id, mail)| format!("{}\n", json!({"id": id, "pk": "p", "mail": mail})));
    std::fs::write(&file, lines.concat()).unwrap();
    let load = ["load", file.to_str().unwrap(), "--no-trailer", "--format", "json"];
    let figures = |report: &Value| ["created", "skipped", "failed"].map(|name| report[name].as_u64().unwrap());
    for created in [1, 0] {
        let loaded = app.run(&load).await;
        let report: Value = serde_json::from_str(&loaded.stdout).unwrap();
        assert_eq!((loaded.code, figures(&report)), (3, [created, 2 - created, 1]), "{loaded:?}");
        let named = "document \"refused\" (p): create item: 409: another document has its values of a unique key";
        assert!(loaded.stderr.contains(named), "{loaded:?}");
    }
    app.put(json!({"id": "theirs", "pk": "p", "mail": "free"})).await;
    let loaded = app.run(&load).await;
    assert_eq!((loaded.code, figures(&loaded.json())), (0, [1, 2, 0]), "{loaded:?}");
}

#[tokio::test]
async fn documents_that_begin_like_the_trailer_are_backed_up_and_loaded() {
    let app = TestApp::start().await;
    let trailer = json!({"v": 1, "documents": 0, "sha256": "", "source": "a/b", "at": null, "made": ""});
    for (id, value) in [("a", json!(true)), ("b", trailer), ("c", json!({}))] {
        let text = format!(r#"{{"_backup":{value},"id":"{id}","pk":"p"}}"#);
        app.events().await.upsert(&PartitionKey::parse("p").unwrap(), id, text.into_bytes()).await.unwrap();
    }
    for name in ["all.jsonl", "all.jsonl.gz"] {
        let file = app.folder.path().join(name);
        let file = file.to_str().unwrap();
        assert_eq!(app.run(&["backup", "--all", "--out", file]).await.code, 0);
        for more in [&[][..], &["--no-trailer"]] {
            assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
            let loaded = app.run(&[&["load", file, "--format", "json"], more].concat()).await;
            assert_eq!((loaded.code, &loaded.json()["created"]), (0, &json!(3)), "{more:?}: {loaded:?}");
        }
    }
}

/// A text that is there after a lost answer is that of this very write, or was there before it.
#[tokio::test]
async fn a_document_that_was_there_with_the_same_text_is_skipped_however_often_its_write_is_tried() {
    let app = TestApp::start().await;
    let same = json!({"id": "same", "pk": "p", "n": 1});
    app.put(same.clone()).await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let file = app.folder.path().join("load.jsonl");
    std::fs::write(&file, format!("{same}\n{}\n", json!({"id": "new", "pk": "p"}))).unwrap();
    for fault in [Fault::Reject(429, 3200), Fault::FailAfterWrite, Fault::CutAfterWrite] {
        app.proxy.storm(&[Kind::LiveWrite], 2, fault);
        let load = ["load", file.to_str().unwrap(), "--no-trailer", "--format", "json"];
        let report = app.run_through_proxy(&load).await.json();
        assert!(app.proxy.calm() > 0, "no write met a fault");
        assert_eq!((&report["created"], &report["skipped"]), (&json!(1), &json!(1)), "{report}");
        app.events().await.delete(&PartitionKey::parse("p").unwrap(), "new", None).await.unwrap();
    }
}

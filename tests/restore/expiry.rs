//! A plan's notes about documents that will expire.

use chrono::Utc;
use cosmos_rewind::change::{key::PartitionKey, time::PointInTime};
use serde_json::{Value, json};

use crate::support::{Kind, TestApp};

/// The notes of a plan that recreates three documents: one without a time to live, one with one, and one that never
/// expires.
async fn notes(default_ttl: Option<i64>) -> Vec<(String, bool)> {
    let mut events = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    if let Some(seconds) = default_ttl {
        events["defaultTtl"] = seconds.into();
    }
    let app = TestApp::with_events(&["/pk", "/_originalId"], events).await;
    let ago = Utc::now().timestamp() - 1200;
    let mut items = Vec::new();
    for (n, (id, ttl)) in [("none", Value::Null), ("own", 60.into()), ("for-ever", (-1).into())].into_iter().enumerate()
    {
        let mut document = json!({"id": id, "pk": "p", "_etag": format!("\"{n}\""), "_ts": ago});
        if !ttl.is_null() {
            document["ttl"] = ttl;
        }
        let at = |op: &str, lsn: usize, ts: i64| json!({"operationType": op, "lsn": lsn, "crts": ts});
        items.push(json!({"current": document, "metadata": at("create", 2 * n + 1, ago)}));
        let mut gone = at("delete", 2 * n + 2, ago + 600);
        (gone["id"], gone["partitionKey"]) = (id.into(), json!({"pk": "p"}));
        items.push(json!({"current": {}, "metadata": gone}));
    }
    app.capture(&items).await;
    let planned = app.run(&["restore", "--all", "--at", "15m", "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|e| panic!("{e}: {planned:?}"));
    let steps = plan["plan"]["steps"].as_array().unwrap_or_else(|| panic!("{planned:?}"));
    let of = |step: &Value| (step["id"].as_str().unwrap().to_owned(), step["notes"].to_string().contains("expires"));
    let mut notes: Vec<(String, bool)> = steps.iter().map(of).collect();
    notes.sort();
    notes
}

#[tokio::test]
async fn a_plan_reports_documents_that_will_expire_including_by_the_containers_ttl() {
    for (default_ttl, expected) in
        [(Some(3600), [false, true, true]), (Some(-1), [false, false, true]), (None, [false; 3])]
    {
        let names = ["for-ever", "none", "own"].map(str::to_owned);
        assert_eq!(notes(default_ttl).await, names.into_iter().zip(expected).collect::<Vec<_>>(), "{default_ttl:?}");
    }
}

/// Documents of two versions, all restored to the first one, and then gone in different ways: the action and the notes
/// of each in the plan of the undo.
#[tokio::test]
async fn an_undo_says_what_has_expired_since_and_makes_again_what_expired_because_of_the_restore() {
    let events = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": -1});
    let app = TestApp::with_events(&["/pk", "/_originalId"], events).await;
    let key = PartitionKey::parse("p").unwrap();
    let now = Utc::now().timestamp();
    let (mut lsn, mut items) = (0, Vec::new());
    let mut write = async |id: &str, op: &str, ts: i64, document: Option<Value>| {
        lsn += 1;
        let mut metadata = json!({"lsn": lsn, "crts": ts, "operationType": op});
        let Some(mut stored) = document else {
            (metadata["id"], metadata["partitionKey"]) = (id.into(), json!({"pk": "p"}));
            metadata["timeToLiveExpired"] = (op == "expire").into();
            metadata["operationType"] = "delete".into();
            return json!({"current": {}, "metadata": metadata});
        };
        if stored.get("_etag").is_none() {
            stored = app.put(stored).await;
        }
        stored["_ts"] = ts.into();
        json!({"current": stored, "metadata": metadata})
    };
    // How long the first version lives, and the second.
    let lives = [
        ("both", Some(9000), Some(600)),
        ("because", Some(9000), None),
        ("new", Some(9000), None),
        ("deleted", None, None),
        ("edited", Some(9000), None),
        ("unseen", Some(60), None),
    ];
    let document = |id: &str, n: u64, ttl: Option<i64>| {
        let mut document = json!({"id": id, "pk": "p", "n": n});
        if let Some(ttl) = ttl {
            document["ttl"] = ttl.into();
        }
        document
    };
    for (id, first, second) in lives {
        items.push(write(id, "create", now - 3600, Some(document(id, 1, first))).await);
        if id == "new" {
            app.events().await.delete(&key, id, None).await.unwrap();
            items.push(write(id, "delete", now - 1500, None).await);
        } else {
            items.push(write(id, "replace", now - 1500, Some(document(id, 2, second))).await);
        }
    }
    app.capture(&items).await;
    app.captured_from_now().await;
    let at = (now - 2400).to_string();
    let restored = app.run(&["restore", "--all", "--at", &at, "--yes", "--format", "json"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    let restored = restored.json()["restore"].as_str().unwrap().to_owned();

    items.clear();
    for (id, ..) in lives {
        let written = app.events().await.read(&key, id).await.unwrap().unwrap();
        let written: Value = serde_json::from_slice(&written).unwrap();
        let ts = if id == "unseen" { now - 100 } else { written["_ts"].as_i64().unwrap() };
        let op = if id == "new" { "create" } else { "replace" };
        items.push(write(id, op, ts, Some(written)).await);
        if id == "edited" {
            items.push(write(id, "replace", ts + 1, Some(document(id, 3, Some(1)))).await);
        }
        app.events().await.delete(&key, id, None).await.unwrap();
        if id != "unseen" {
            let op = if id == "deleted" { "delete" } else { "expire" };
            items.push(write(id, op, ts + 2, None).await);
        }
    }
    app.capture(&items).await;
    let planned = app.run(&["undo", &restored, "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|e| panic!("{e}: {planned:?}"));
    let step = |id: &str| plan["plan"]["steps"].as_array().unwrap().iter().find(|step| step["id"] == id).unwrap();
    for (id, action, note) in [
        ("both", "keep", "has expired since, and stays gone"),
        ("because", "recreate", "has expired since, by the time to live that the restore gave it"),
        ("new", "keep", "has expired since, and stays gone"),
        ("deleted", "restore", "was changed since: a conflict"),
        ("edited", "restore", "has expired since: a conflict, which stays gone unless --force"),
        ("unseen", "restore", "its time to live ended at"),
    ] {
        let step = step(id);
        assert_eq!(step["action"], action, "{step}");
        assert!(step["notes"].to_string().contains(note), "{step}");
        assert_eq!(step["notes"].to_string().contains("changed since"), id == "deleted", "{step}");
    }
    let undone = app.run(&["undo", &restored, "--yes"]).await;
    assert!(undone.code == 3 && undone.stderr.contains("3 conflicts"), "{undone:?}");
    assert!(undone.stdout.contains("was deleted, or has expired, since the plan was made"), "{undone:?}");
    for (id, ..) in lives {
        let live = app.events().await.read(&key, id).await.unwrap();
        let n = live.map(|text| serde_json::from_slice::<Value>(&text).unwrap()["n"].clone());
        assert_eq!(n, (id == "because").then(|| json!(2)), "{id}");
    }
}

/// What refuses one of the requests for definitions changes nothing silently: the time to live is in one of them.
#[tokio::test]
async fn a_plan_without_one_of_the_definitions_says_the_same_or_fails() {
    let events = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": 3600});
    let app = TestApp::with_events(&["/pk", "/_originalId"], events).await;
    let ago = Utc::now().timestamp() - 1200;
    let version = json!({"id": "a", "pk": "p", "_etag": "\"1\"", "_ts": ago});
    app.capture(&[json!({"current": version, "metadata": {"operationType": "create", "lsn": 1, "crts": ago}})]).await;
    let gone = json!({"operationType": "delete", "lsn": 2, "crts": ago + 600, "id": "a", "partitionKey": {"pk": "p"}});
    app.capture(&[json!({"current": {}, "metadata": gone})]).await;
    let at = PointInTime::from_epoch(ago + 300).to_string();
    let command = ["restore", "--all", "--at", &at, "--dry-run", "--format", "json"];
    let notes = |stdout: &str| serde_json::from_str::<Value>(stdout).unwrap()["plan"]["steps"][0]["notes"].to_string();
    let whole = notes(&app.run(&command).await.stdout);
    assert!(whole.contains("expires"), "{whole}");
    let refused = app.run_refused_in_turn(Kind::Definition, &command).await;
    assert!(refused.iter().filter(|done| done.code == 1).count() > 1, "{refused:?}");
    for done in refused.iter().filter(|done| done.code != 1) {
        assert_eq!(notes(&done.stdout), whole, "{done:?}");
    }
}

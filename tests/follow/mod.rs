//! `follow` from the outside: the program reads the change feed itself.

mod documents;
mod filtered;
mod takeover;
mod too_large;

use std::collections::BTreeMap;

use cosmos_rewind::change::{Op, VersionFidelity, VersionVia, key::PartitionKey};
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

pub const ALL: [&str; 2] = ["--mode", "all-versions"];

/// Runs a follower until it has caught up.
pub async fn catch_up(app: &TestApp, args: &[&str]) -> Output {
    let output = app.run(&[&["follow", "--until-caught-up", "--poll", "50"], args].concat()).await;
    assert_eq!(output.code, 0, "{output:?}");
    output
}

/// Writes version `n` of a document.
pub async fn put(app: &TestApp, id: &str, n: u64) {
    app.put(json!({"id": id, "pk": format!("key-{id}"), "n": n})).await;
}

/// The counters in the history by document, in version order.
async fn captured(app: &TestApp) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<(i64, u64)>> = BTreeMap::new();
    for record in app.history().await {
        let lsn = record["_change"]["lsn"].as_i64().unwrap();
        let id = record["_originalId"].as_str().unwrap().to_owned();
        found.entry(id).or_default().push((lsn, record["n"].as_u64().unwrap()));
    }
    found
        .into_iter()
        .map(|(id, mut versions)| {
            versions.sort_unstable();
            (id, versions.into_iter().map(|(_, n)| n).collect())
        })
        .collect()
}

/// The stored checkpoint.
pub async fn checkpoint(app: &TestApp, id: &str) -> Option<Value> {
    let leases = app.cosmos.container("dev", "leases").await.unwrap();
    let key = PartitionKey::parse(&json!([id]).to_string()).unwrap();
    leases.read(&key, id).await.unwrap().map(|text| serde_json::from_slice(&text).unwrap())
}

pub fn events(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_version_is_captured_exactly_and_the_next_run_continues() {
    let app = TestApp::start().await;
    let started = catch_up(&app, &ALL).await;
    assert!(started.stderr.contains("start of every range saved") && started.stdout.is_empty(), "{started:?}");
    let events_container = app.events().await;
    let key = PartitionKey::parse("p").unwrap();
    let text =
        r#"{"id":"x","pk":"p","price":1.5,"big":12345678901234567890,"at":"2026-01-01T00:00:00+02:00","_lsn":"mine"}"#;
    events_container.upsert(&key, "x", text.into()).await.unwrap();
    put(&app, "y", 1).await;
    put(&app, "y", 2).await;
    events_container.delete(&key, "x", None).await.unwrap();
    let output =
        catch_up(&app, &[&ALL[..], &["--sink", "changes", "--sink", "stdout", "--sink", "file:e.jsonl"]].concat())
            .await;
    let versions = app.versions("x").await;
    assert_eq!(versions.iter().map(|v| v.op.unwrap()).collect::<Vec<_>>(), [Op::Create, Op::Delete]);
    assert_eq!(versions[0].document.as_deref(), Some(text));
    assert_eq!(
        (versions[0].via.as_ref().map(VersionVia::as_str), versions[0].fidelity.as_ref().map(VersionFidelity::as_str)),
        (Some("follow"), Some("exact"))
    );
    assert_eq!(app.versions("y").await.iter().map(|v| v.op.unwrap()).collect::<Vec<_>>(), [Op::Create, Op::Replace]);

    let lines = events(&output.stdout);
    assert_eq!(std::fs::read_to_string(app.folder.path().join("e.jsonl")).unwrap().lines().count(), 4);
    let of_y: Vec<_> = lines.iter().filter(|e| e["id"] == "y").map(|e| (&e["op"], &e["changed"])).collect();
    assert_eq!(of_y, [(&json!("create"), &json!(null)), (&json!("replace"), &json!(["/n"]))]);
    let gone = lines.iter().find(|e| e["op"] == "delete").unwrap();
    assert_eq!(
        (&gone["pk"], &gone["doc"], gone["previous"]["price"].to_string().as_str()),
        (&json!("p"), &json!(null), "1.5")
    );
    assert!(output.stdout.contains("\"big\":12345678901234567890,"), "{output:?}");
    // Each event's version is the id of its record.
    let mut ids: Vec<_> = lines.iter().map(|e| e["version"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    assert_eq!(ids, app.history().await.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>());

    let again = catch_up(&app, &[&ALL[..], &["--sink", "stdout"]].concat()).await;
    assert_eq!((again.stdout.as_str(), again.stderr.contains("0 changes read")), ("", true), "{again:?}");
}

#[tokio::test]
async fn latest_mode_reads_from_the_beginning_or_a_time_and_writes_the_hosts_records() {
    let app = TestApp::start().await;
    for id in ["a", "b", "c", "d", "e"] {
        put(&app, id, 1).await;
        put(&app, id, 2).await;
    }
    catch_up(&app, &["--from", "beginning"]).await;
    let followed = app.history().await;
    assert_eq!(followed.len(), 5);
    // The same items delivered by the host change nothing except the source and its fidelity check.
    let payload: Vec<Value> = {
        let mut items = Vec::new();
        for record in &followed {
            let id = record["_originalId"].as_str().unwrap();
            let key = PartitionKey::parse(record["pk"].as_str().unwrap()).unwrap();
            let text = app.events().await.read(&key, id).await.unwrap().unwrap();
            let mut item: Value = serde_json::from_slice(&text).unwrap();
            item["_lsn"] = record["_change"]["lsn"].clone();
            items.push(item);
        }
        items
    };
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&payload).await.0, 200);
    let without_via = |mut records: Vec<Value>| {
        records.iter_mut().for_each(|r| r["_change"]["via"] = json!(null));
        records
    };
    assert_eq!(without_via(app.history().await), without_via(followed));

    let now = catch_up(&app, &["--name", "later", "--from", "now", "--sink", "stdout"]).await;
    assert_eq!(now.stdout, "");
    let hour = catch_up(&app, &["--name", "hour", "--from", "1h", "--sink", "stdout"]).await;
    assert_eq!(events(&hour.stdout).len(), 5);
}

/// The latest-version feed contains neither the operation nor the previous version.
#[tokio::test]
async fn a_follower_that_knows_less_changes_nothing_and_one_that_knows_more_completes_it() {
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    for n in 1..=3 {
        put(&app, "x", n).await;
    }
    put(&app, "y", 1).await;
    let latest = ["--mode", "latest", "--from", "beginning", "--name", "latest"];
    let known = |history: &[Value], id: &str| -> Vec<(String, Option<i64>)> {
        let of = history.iter().filter(|record| record["_originalId"] == id);
        let mut of: Vec<_> = of.map(|r| (r["n"].as_u64(), &r["_change"])).collect();
        of.sort_by_key(|(n, _)| *n);
        of.into_iter().map(|(_, c)| (c["op"].as_str().unwrap().to_owned(), c["prevLsn"].as_i64())).collect()
    };
    // First, it knows less and is completed later.
    catch_up(&app, &latest).await;
    assert_eq!(known(&app.history().await, "x"), [("upsert".to_owned(), None)]);
    catch_up(&app, &ALL).await;
    let whole = app.history().await;
    let of_x = [("create".to_owned(), None), ("replace".to_owned(), Some(1)), ("replace".to_owned(), Some(2))];
    assert_eq!(known(&whole, "x"), of_x);
    assert_eq!(known(&whole, "y"), [("create".to_owned(), None)]);
    // Afterwards, a full reread and the host's latest-version mode change nothing.
    catch_up(&app, &[&latest[..4], &["--name", "again"]].concat()).await;
    assert_eq!(app.history().await, whole);
    let handler = app.handler(&[]).await;
    let mut document = app.put(json!({"id": "x", "pk": "key-x", "n": 3})).await;
    for record in whole.iter().filter(|record| record["_originalId"] == "x") {
        document["_etag"] = record["_change"]["etag"].clone();
        document["n"] = record["n"].clone();
        (document["_ts"], document["_lsn"]) = (record["_change"]["ts"].clone(), record["_change"]["lsn"].clone());
        assert_eq!(handler.deliver(&[document.clone()]).await.0, 200);
    }
    let after = app.history().await;
    let kept: Vec<_> = after.iter().filter(|r| whole.iter().any(|w| w["id"] == r["id"])).cloned().collect();
    assert_eq!(kept, whole);
}

#[tokio::test]
async fn invalid_combinations_are_refused_with_the_fix() {
    let app = TestApp::start().await;
    for (args, wanted) in [
        (&["--mode", "all-versions", "--from", "beginning"][..], "--from beginning: the all-versions feed"),
        (&["--from", "yesterday"], "--from: time"),
        (&["--sink", "ftp://x"], "changes, stdout"),
        (&["--sink", "stdout", "--sink", "stdout"], "--sink stdout is given twice"),
        (&["--sink", "file:x", "--sink", "file:./x"], "--sink file:x and --sink file:./x are the same place"),
        (
            &[
                "--sink",
                "blob:https://a.blob.core.windows.net/c/d",
                "--sink",
                "blob:https://A.blob.core.windows.net/c//d/",
            ],
            "are the same place",
        ),
        (&["--sink", "stdout", "--sink", "file:/dev/stdout"], "are the same place"),
        (&["--sink", "file:x", "--checkpoint-file", "./x"], "--sink file:x is the file of the checkpoint"),
        (&["--sink", "file:-"], "is not written to standard output"),
        (&["--feed-range", "5/4"], "2/4"),
        (&["--name", "a/b"], "letters"),
        (&["--poll", "1"], "--poll"),
    ] {
        let output = app.run(&[&["follow", "--until-caught-up"], args].concat()).await;
        assert_eq!((output.code, output.stderr.contains(wanted)), (2, true), "{args:?}: {output:?}");
    }
    let output = app.run(&["follow", "--until-caught-up", "--sink", "file:no/such/folder/x.jsonl"]).await;
    assert_eq!((output.code, output.stderr.contains("--sink file:no/such/folder/x.jsonl")), (1, true), "{output:?}");
    catch_up(&app, &ALL).await;
    let output = app.run(&["follow", "--until-caught-up"]).await;
    assert!(output.code == 2 && output.stderr.contains("a token is bound to its mode"), "{output:?}");
    let output = app.run(&["follow", "--until-caught-up", "--leases", "nothing"]).await;
    assert!(output.code == 1 && output.stderr.contains("dev/nothing"), "{output:?}");
}

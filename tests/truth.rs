//! What an outside audit found wrong, with oracles that share nothing with the program: the test's own log of what it
//! wrote, and plain reads of the containers.

use std::time::Duration;

use chrono::Utc;
use cosmos_rewind::{
    change::key::PartitionKey,
    cosmos::{Container, FeedMode, FeedRange, FeedStart},
};
use serde_json::{Value, json};

use crate::support::{Output, TestApp, beginning, eventually};

/// An account whose changes are captured when the test says so, by a follower in all-versions mode.
struct Captured {
    app: TestApp,
    mode: &'static str,
}

impl Captured {
    async fn start(mode: &'static str) -> Self {
        Self::with(TestApp::start().await, mode).await
    }

    async fn with(app: TestApp, mode: &'static str) -> Self {
        let captured = Self { app, mode };
        captured.capture().await;
        captured
    }

    /// An account with a history that is keyed in a way that capture refuses today, as histories of before were: the test
    /// captures by itself what the feed delivers.
    async fn feed(&self) -> Vec<(FeedRange, String)> {
        beginning(&self.app.events().await).await
    }

    async fn capture_by_hand(&self, tokens: &mut [(FeedRange, String)]) {
        let events = self.app.events().await;
        for (range, token) in tokens {
            let mut feed = events.change_feed(range, FeedMode::AllVersions, FeedStart::Now, Some(token)).await.unwrap();
            loop {
                let page = feed.next().await.unwrap();
                let items: Vec<Value> =
                    page.items().unwrap().iter().map(|item| serde_json::from_str(item.get()).unwrap()).collect();
                if items.is_empty() {
                    break;
                }
                self.app.capture(&items).await;
            }
            *token = feed.token().unwrap();
        }
    }

    /// Captures what was written up to now.
    async fn capture(&self) {
        let from = if self.mode == "latest" { "beginning" } else { "now" };
        let follow = ["follow", "--name", "capture", "--mode", self.mode, "--from", from, "--until-caught-up"];
        let output = self.app.run(&follow).await;
        assert_eq!(output.code, 0, "{output:?}");
    }

    async fn put(&self, document: Value) -> Value {
        self.app.put(document).await
    }

    async fn delete(&self, id: &str, pk: &str) {
        self.app.events().await.delete(&key(pk), id, None).await.unwrap();
    }

    async fn live(&self, id: &str, pk: &str) -> Option<Value> {
        own(&self.app.events().await, id, pk).await
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}

fn key(pk: &str) -> PartitionKey {
    PartitionKey::parse(pk).unwrap()
}

/// A document without what the service adds, found by a query: whatever its id is.
async fn own(container: &Container, id: &str, pk: &str) -> Option<Value> {
    let params = [cosmos_rewind::cosmos::Param::new("id", id)];
    let found = container.query_all("SELECT * FROM c WHERE c.id = @id", &params, Some(&key(pk))).await.unwrap();
    let mut document: Value = serde_json::from_str(found.first()?.get()).unwrap();
    for name in ["_rid", "_self", "_etag", "_attachments", "_ts"] {
        document.as_object_mut().unwrap().shift_remove(name);
    }
    Some(document)
}

/// The next second has begun, so that what follows has another `_ts`.
async fn next_second() -> i64 {
    let now = Utc::now().timestamp();
    while Utc::now().timestamp() <= now {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Utc::now().timestamp()
}

/// The plan's action for a document.
fn action(output: &Output, id: &str) -> String {
    let report: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let steps = report["plan"]["steps"].as_array().unwrap().clone();
    steps.iter().find(|step| step["id"] == id).map_or_else(|| "none".into(), |s| s["action"].as_str().unwrap().into())
}

#[tokio::test]
async fn capture_that_is_behind_rolls_nobody_back() {
    let world = Captured::start("all-versions").await;
    for id in ["order-1", "deleted", "remade", "later"] {
        world.put(json!({"id": id, "pk": "p", "state": "new"})).await;
    }
    world.delete("remade", "p").await;
    world.capture().await;
    next_second().await;
    // From here on nothing is captured.
    world.put(json!({"id": "order-1", "pk": "p", "state": "PAID"})).await;
    world.put(json!({"id": "remade", "pk": "p", "state": "second life"})).await;
    world.delete("deleted", "p").await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "later", "pk": "p", "state": "damaged"})).await;

    let restore = ["restore", "--all", "--at", &at, "--delete-newer=10", "--no-stamp", "--format", "json"];
    let planned = world.run(&[&restore[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    let actions = ["order-1", "deleted", "remade"].map(|id| action(&planned, id));
    assert_eq!(actions, ["keep", "unknown", "keep"], "{planned:?}");
    assert!(planned.stdout.contains("\"beyond\":true") || planned.stdout.contains("\"beyond\": true"), "{planned:?}");
    let table = world.run(&["restore", "--all", "--at", &at, "--dry-run"]).await;
    assert!(table.stderr.contains("the history ends at"), "{table:?}");

    let done = world.run(&[&restore[..], &["--yes"]].concat()).await;
    assert_eq!(done.code, 3, "{done:?}");
    let state = async |id: &str| world.live(id, "p").await.map(|d| d["state"].as_str().unwrap().to_owned());
    assert_eq!(state("order-1").await.as_deref(), Some("PAID"));
    assert_eq!(state("remade").await.as_deref(), Some("second life"));
    assert_eq!(state("deleted").await, None);
    // Its damage is not captured either, but nothing of it was written before: it goes back, with a warning.
    assert_eq!(state("later").await.as_deref(), Some("new"));

    let shown = world.run(&["show", "--id", "order-1", "--pk", "p", "--at", &at]).await;
    assert!(shown.stdout.contains("PAID") && shown.code == 0, "{shown:?}");
    let gone = world.run(&["show", "--id", "deleted", "--pk", "p", "--at", &at]).await;
    assert!(gone.stderr.contains("the history ends at"), "{gone:?}");
    let history = world.run(&["history", "--id", "order-1", "--pk", "p"]).await;
    assert!(history.stderr.contains("is not in the history (yet)"), "{history:?}");
    let backup = world.run(&["backup", "--all", "--at", &at, "--out", "b.jsonl"]).await;
    assert_eq!(backup.code, 3, "{backup:?}");
    let file = std::fs::read_to_string(world.app.folder.path().join("b.jsonl")).unwrap();
    assert!(file.contains("PAID") && file.contains("second life") && !file.contains("\"deleted\""), "{file}");

    // Caught up, everything is known.
    world.capture().await;
    let again = world.run(&[&restore[..], &["--yes"]].concat()).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(action(&again, "deleted"), "keep");
    assert_eq!(state("order-1").await.as_deref(), Some("PAID"));
}

#[tokio::test]
async fn a_restore_can_wait_for_capture() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let restore = ["restore", "--all", "--at", &at, "--wait", "--yes", "--no-stamp"];
    let (restored, ()) = tokio::join!(world.run(&restore), async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        world.capture().await;
    });
    assert_eq!(restored.code, 0, "{restored:?}");
    assert!(restored.stderr.contains("waiting"), "{restored:?}");
    assert_eq!(world.live("a", "p").await.unwrap()["n"], 1);
}

#[tokio::test]
async fn what_is_deleted_in_latest_version_mode_comes_back_only_when_asked() {
    let world = Captured::start("latest").await;
    world.put(json!({"id": "a", "pk": "p"})).await;
    world.put(json!({"id": "b", "pk": "p"})).await;
    world.capture().await;
    world.delete("a", "p").await;
    let at = next_second().await.to_string();
    next_second().await;
    let restore = ["restore", "--all", "--at", &at, "--yes", "--no-stamp", "--format", "json"];
    let refused = world.run(&restore).await;
    assert_eq!((refused.code, action(&refused, "a").as_str()), (3, "unknown"), "{refused:?}");
    assert_eq!(world.live("a", "p").await, None);
    let asked = world.run(&[&restore[..], &["--recreate-deleted"]].concat()).await;
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(world.live("a", "p").await.is_some());
}

#[tokio::test]
async fn no_layout_of_the_history_takes_a_delete_from_its_document() {
    for paths in [&["/_originalId"][..], &["/id"], &["/pk", "/_originalId"]] {
        let world = Captured { app: TestApp::with_changes_key(paths).await, mode: "all-versions" };
        let mut tokens = world.feed().await;
        world.put(json!({"id": "a", "pk": "gone"})).await;
        world.put(json!({"id": "a", "pk": "stays"})).await;
        world.put(json!({"id": "b", "pk": "gone"})).await;
        world.capture_by_hand(&mut tokens).await;
        next_second().await;
        world.delete("a", "gone").await;
        world.delete("b", "gone").await;
        world.capture_by_hand(&mut tokens).await;
        let at = next_second().await.to_string();
        next_second().await;
        world.put(json!({"id": "clock", "pk": "later"})).await;
        world.capture_by_hand(&mut tokens).await;
        let restored = world.run(&["restore", "--all", "--at", &at, "--yes"]).await;
        assert_eq!(restored.code, 0, "{paths:?}: {restored:?}");
        assert_eq!(world.live("a", "gone").await, None, "{paths:?}");
        assert_eq!(world.live("b", "gone").await, None, "{paths:?}");
        assert!(world.live("a", "stays").await.is_some(), "{paths:?}");

        // Records of before the source's key was in them: whose delete it is, is told by the chain, or said not to be known.
        let changes = world.app.changes().await;
        for record in changes.query_all("SELECT * FROM c WHERE IS_DEFINED(c._change)", &[], None).await.unwrap() {
            let mut record: Value = serde_json::from_str(record.get()).unwrap();
            let tombstone = record["_change"]["op"] == "delete";
            let known = record["_change"]["key"].as_array().is_some_and(|key| key.len() == 1 && key[0].is_string());
            assert!(known, "{paths:?}: no layout tells the key of {record}");
            record
                .as_object_mut()
                .unwrap()
                .retain(|name, _| !["_rid", "_self", "_etag", "_attachments", "_ts"].contains(&name.as_str()));
            record["_change"].as_object_mut().unwrap().remove("key");
            if tombstone && record["_originalId"] == "a" {
                record["_change"].as_object_mut().unwrap().remove("prevLsn");
                record["_change"].as_object_mut().unwrap().remove("rid");
            }
            let id = record["id"].as_str().unwrap().to_owned();
            let parts = paths.iter().map(|path| record[&path[1..]].clone()).collect::<Vec<_>>();
            let key = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
            changes.upsert(&key, &id, record.to_string().into_bytes()).await.unwrap();
        }
        let restored = world.run(&["restore", "--all", "--at", &at, "--yes", "--format", "json"]).await;
        let expected = if paths.contains(&"/pk") { 0 } else { 3 };
        assert_eq!(restored.code, expected, "{paths:?}: {restored:?}");
        assert_eq!(world.live("a", "gone").await, None, "{paths:?}");
        assert_eq!(world.live("b", "gone").await, None, "{paths:?}");
    }
}

#[tokio::test]
async fn a_copy_of_the_original_demo_hides_no_record() {
    let world = Captured::start("latest").await;
    let first = world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    world.capture().await;
    let changes = world.app.changes().await;
    let lsn = world.app.versions("a").await[0].lsn.unwrap();
    // The demo copies the first version late: its copy's time is after the second one.
    next_second().await;
    let copy = json!({"id": "0a1b", "pk": "p", "n": 1, "_originalId": "a", "_lsn": lsn, "was": first["_ts"]});
    let key = changes.key_paths().segments().len();
    let place = if key == 1 { json!(["p"]) } else { json!(["p", "a"]) };
    let place = PartitionKey::parse(&place.to_string()).unwrap();
    changes.upsert(&place, "0a1b", copy.to_string().into_bytes()).await.unwrap();
    let at = next_second().await.to_string();
    next_second().await;
    let shown = world.run(&["show", "--id", "a", "--pk", "p", "--at", &at]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["n"], 2);
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    world.capture().await;
    let restored = world.run(&["restore", "--all", "--at", &at, "--yes", "--no-stamp"]).await;
    assert_eq!((restored.code, &world.live("a", "p").await.unwrap()["n"]), (0, &json!(2)), "{restored:?}");
}

#[tokio::test]
async fn a_version_that_a_repair_saved_comes_after_the_creation_of_its_second() {
    let world = Captured::start("all-versions").await;
    let created = world.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    world.capture().await;
    let mut second = world.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    // Written within one second, whatever the clock did.
    let ts = created["_ts"].as_i64().unwrap();
    let [etag, rid] = ["_etag", "_rid"].map(|name| second[name].clone());
    second.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
    let mut record = second.clone();
    let id = format!("a~{}", etag.as_str().unwrap().trim_matches('"'));
    record["id"] = id.clone().into();
    record["_originalId"] = "a".into();
    let at = format!("{}.900Z", chrono::DateTime::from_timestamp(ts, 0).unwrap().format("%Y-%m-%dT%H:%M:%S"));
    record["_change"] = json!({"v": 1, "op": "upsert", "ts": ts, "etag": etag, "rid": rid, "via": "backfill",
        "fidelity": "exact", "at": at, "key": ["p"]});
    let changes = world.app.changes().await;
    let parts: Vec<Value> =
        changes.key_paths().segments().iter().map(|p| if p[0] == "pk" { "p".into() } else { "a".into() }).collect();
    let place = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
    changes.create(&place, &id, record.to_string().into_bytes()).await.unwrap();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "n": 3})).await;
    next_second().await;
    let restored =
        world.run(&["restore", "--id", "a", "--pk", "p", "--at", &ts.to_string(), "--yes", "--no-stamp"]).await;
    assert_eq!(world.live("a", "p").await.unwrap()["n"], 2, "{restored:?}");
    // Any version can be named, whatever the order.
    for (named, n) in [(id.as_str(), 2), (created["_etag"].as_str().unwrap(), 1)] {
        let shown = world.run(&["show", "--id", "a", "--pk", "p", "--version", named]).await;
        assert_eq!(serde_json::from_str::<Value>(&shown.stdout).unwrap()["n"], n, "{shown:?}");
        let restore = ["restore", "--id", "a", "--pk", "p", "--version", named, "--yes", "--no-stamp"];
        let restored = world.run(&restore).await;
        assert_eq!((restored.code, &world.live("a", "p").await.unwrap()["n"]), (0, &json!(n)), "{restored:?}");
    }
    let diff = world.run(&["diff", "--id", "a", "--pk", "p", "--version", &id, "--format", "json"]).await;
    assert_eq!(diff.json()[0], json!({"op": "replace", "path": "/n", "value": 1}), "{diff:?}");
    let none = world.run(&["show", "--id", "a", "--pk", "p", "--version", "nonsense"]).await;
    assert!(none.code == 1 && none.stderr.contains("no such version"), "{none:?}");
}

#[tokio::test]
async fn a_predicate_speaks_of_documents() {
    let world = Captured::start("all-versions").await;
    let large = "x".repeat(2_097_000);
    for document in [
        json!({"id": "keep", "pk": "p", "n": 1}),
        json!({"id": "other", "pk": "q", "n": 2, "ttl": -1}),
        json!({"id": "dead", "pk": "p", "n": 3}),
        json!({"id": "large", "pk": "p", "n": 4, "blob": large}),
    ] {
        world.put(document).await;
    }
    world.delete("dead", "p").await;
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "newer", "pk": "p", "n": 5})).await;
    world.capture().await;
    let planned = async |predicate: &str, more: &[&str]| {
        let args = ["restore", "--where", predicate, "--at", &at, "--dry-run", "--format", "json"];
        let output = world.run(&[&args[..], more].concat()).await;
        if output.stdout.is_empty() {
            return (output.code, Vec::new());
        }
        let report: Value = serde_json::from_str(&output.stdout).unwrap();
        let mut ids: Vec<String> = report["plan"]["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| format!("{}:{}", s["id"], s["action"]))
            .collect();
        ids.sort();
        (output.code, ids.into_iter().map(|id| id.replace('"', "")).collect::<Vec<_>>())
    };
    let found = |ids: &[&str]| (0, ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>());
    assert_eq!(planned("c.id = 'keep'", &[]).await, found(&["keep:keep"]));
    assert_eq!(planned("c.id != 'keep' AND c.n < 4", &[]).await, found(&["other:keep"]));
    assert_eq!(planned("NOT IS_DEFINED(c.x)", &[]).await, found(&["keep:keep", "large:keep", "other:keep"]));
    assert_eq!(planned("c.n = 4", &[]).await, found(&["large:keep"]));
    assert_eq!(planned("c.pk = 'q'", &[]).await, found(&["other:keep"]));
    assert_eq!(planned("c.pk IN ('q')", &[]).await, found(&["other:keep"]));
    assert_eq!(planned("c.pk = @pk", &["--param", "pk=q"]).await, found(&["other:keep"]));
    assert_eq!(planned("c.ttl = -1", &[]).await, found(&["other:keep"]));
    assert_eq!(planned("c.n = 5", &["--delete-newer"]).await, found(&["newer:delete"]));
    assert_eq!(planned("c.n = 3", &[]).await.0, 1, "a deleted document matches nothing");
    let rows = world
        .run(&["history", "--where", "c.id = 'large' AND c.n = 4", "--columns", "n", "--format", "json"])
        .await
        .json();
    assert_eq!(rows.as_array().unwrap().len(), 2, "live and version: {rows}");
}

#[tokio::test]
async fn undo_takes_back_our_own_writes_and_no_others() {
    let world = Captured::start("all-versions").await;
    for id in ["a", "b", "c"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    for id in ["a", "b", "c"] {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    world.capture().await;
    let plan = ["restore", "--all", "--at", &at, "--no-stamp", "--plan-out", "plan.jsonl", "--dry-run"];
    assert_eq!(world.run(&plan).await.code, 0);
    // Somebody else puts `b` back before the plan is used: it is up to date, and not our write.
    world.put(json!({"id": "b", "pk": "p", "n": 1})).await;
    let apply = ["restore", "--plan", "plan.jsonl", "--yes", "--format", "json"];
    let first = world.run(&apply).await;
    assert_eq!(first.code, 0, "{first:?}");
    // Used again: everything is up to date, and this use wrote nothing.
    let second = world.run(&apply).await;
    assert_eq!(second.code, 0, "{second:?}");
    let [one, two] = [&first, &second].map(|o| o.json()["restore"].as_str().unwrap().to_owned());
    assert_ne!(one, two);
    let undone = world.run(&["undo", &two, "--yes", "--format", "json"]).await;
    assert_eq!((undone.code, undone.json()["plan"]["steps"].as_array().unwrap().len()), (0, 0), "{undone:?}");
    let undone = world.run(&["undo", &one, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    let mut all = Vec::new();
    for id in ["a", "b", "c"] {
        all.push(world.live(id, "p").await.unwrap()["n"].as_i64().unwrap());
    }
    assert_eq!(all, [2, 1, 2]);
}

#[tokio::test]
async fn limits_are_limits() {
    let world = Captured::start("all-versions").await;
    for n in 0..4 {
        world.put(json!({"id": format!("d{n}"), "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    for n in 0..6 {
        world.put(json!({"id": format!("d{n}"), "pk": "p", "n": 2})).await;
    }
    world.capture().await;
    let restore = ["restore", "--all", "--at", &at, "--yes", "--no-stamp"];
    let most = world.run(&[&restore[..], &["--max", "3"]].concat()).await;
    assert!(most.code == 2 && most.stderr.contains("more than --max 3"), "{most:?}");
    for more in [&["--delete-newer"][..], &["--delete-newer=1"], &["--delete-newer", "--max-deletes", "1"]] {
        let refused = world.run(&[&restore[..], more].concat()).await;
        assert!(refused.code == 2 && refused.stderr.contains("2 documents would be deleted"), "{refused:?}");
    }
    assert_eq!(world.live("d0", "p").await.unwrap()["n"], 2);
    let done = world.run(&[&restore[..], &["--delete-newer=2"]].concat()).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!((world.live("d5", "p").await, &world.live("d0", "p").await.unwrap()["n"]), (None, &json!(1)));
}

#[tokio::test]
async fn odd_documents_are_documents() {
    let world = Captured::start("all-versions").await;
    let ids = ["..", ".", "a/b", "a\\b", "tab\there", "line\nend", "../../..", "%2e%2e", "q?x#y", "\u{fc}\u{2028}"];
    for id in ids {
        world
            .put(json!({"id": id, "pk": "p", "n": 1, "_restore": {"kind": "part"}, "_lsn": 7, "restored_at": 5}))
            .await;
    }
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    let before = Utc::now().timestamp() - 3600;
    for id in ids {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    world.capture().await;
    let restored = world.run(&["restore", "--all", "--at", &at, "--yes"]).await;
    assert_eq!(restored.code, 0, "{restored:?}");
    for id in ids {
        let expected = json!({"id": id, "pk": "p", "n": 1, "_restore": {"kind": "part"}, "_lsn": 7, "restored_at": 5});
        assert_eq!(world.live(id, "p").await, Some(expected), "{id:?}");
    }
    world.capture().await;
    // An undo, and deletes: the container is there afterwards.
    let id = restored.stderr.split("cosmos-rewind undo ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let undone = world.run(&["undo", &id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    world.capture().await;
    let verified = world.run(&["verify", "--grace", "0s", "--deep", "100"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
    let gone = world.run(&["restore", "--all", "--at", &before.to_string(), "--delete-newer=100", "--yes"]).await;
    // The local account cannot delete `.` and `..`, and says so; in a URL they would have named the container.
    assert_eq!(gone.code, 3, "{gone:?}");
    for id in ids {
        assert_eq!(world.live(id, "p").await.is_some(), [".", ".."].contains(&id), "{id:?}: {gone:?}");
    }
    world.put(json!({"id": "after", "pk": "p"})).await;
}

#[tokio::test]
async fn one_odd_record_stops_nobody() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "good", "pk": "p", "n": 1})).await;
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "good", "pk": "p", "n": 2})).await;
    world.capture().await;
    let changes = world.app.changes().await;
    for (id, record) in [
        ("op", json!({"_originalId": "x", "_change": {"v": 1, "op": "merge", "ts": 1_700_000_000}})),
        ("ts", json!({"_originalId": "x", "_change": {"v": 1, "op": "upsert", "ts": 1_700_000_000.5}})),
        ("stray", json!({"hello": "world"})),
    ] {
        let mut record = record;
        record["id"] = id.into();
        record["pk"] = "p".into();
        let parts: Vec<Value> = changes
            .key_paths()
            .segments()
            .iter()
            .map(|p| record.get(&p[0]).cloned().unwrap_or_else(|| json!({})))
            .collect();
        let place = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
        changes.create(&place, id, record.to_string().into_bytes()).await.unwrap();
    }
    for args in [
        &["verify"][..],
        &["backup", "--all", "--at", &at, "--out", "b.jsonl"],
        &["prune", "--older-than", "1d", "--dry-run"],
        &["coverage"],
        &["restore", "--all", "--at", &at, "--yes"],
    ] {
        let output = world.run(args).await;
        assert_eq!(output.code, 3, "{args:?}: {output:?}");
        for id in ["op", "ts", "stray"] {
            assert!(output.stderr.contains(&format!("\"{id}\"")), "{args:?} names {id}: {output:?}");
        }
    }
    assert_eq!(world.live("good", "p").await.unwrap()["n"], 1);
}

#[tokio::test]
async fn what_was_pruned_away_is_not_claimed_not_to_have_been() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "life": 1})).await;
    let at = next_second().await.to_string();
    next_second().await;
    world.delete("a", "p").await;
    world.capture().await;
    next_second().await;
    next_second().await;
    let pruned = world.run(&["prune", "--older-than", "1s", "--drop-deleted", "--yes"]).await;
    assert_eq!(pruned.code, 0, "{pruned:?}");
    assert!(world.app.versions("a").await.is_empty());
    world.put(json!({"id": "a", "pk": "p", "life": 2})).await;
    world.capture().await;
    let restore = ["restore", "--all", "--at", &at, "--delete-newer=5", "--yes", "--format", "json"];
    let restored = world.run(&restore).await;
    assert_eq!((restored.code, action(&restored, "a").as_str()), (3, "unknown"), "{restored:?}");
    assert!(world.live("a", "p").await.is_some());
}

#[tokio::test]
async fn claims_are_true_or_not_made() {
    let world = Captured::start("all-versions").await;
    world.put(json!({"id": "a", "pk": "p", "tags": ["x"], "n": 1})).await;
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "a", "pk": "p", "tags": ["x", "y", "z"], "n": 1})).await;
    world.capture().await;
    let only = async |path: &str| {
        let args = [
            "restore",
            "--id",
            "a",
            "--pk",
            "p",
            "--at",
            &at,
            "--only",
            path,
            "--yes",
            "--no-stamp",
            "--format",
            "json",
        ];
        world.run(&args).await
    };
    for path in ["/tagz", "/tags/1"] {
        let output = only(path).await;
        assert_eq!((output.code, action(&output, "a").as_str()), (3, "unknown"), "{path}: {output:?}");
        assert!(!output.stdout.contains("has that content already"), "{path}: {output:?}");
    }
    assert_eq!(only("/tags/2").await.code, 0);
    assert_eq!(world.live("a", "p").await.unwrap()["tags"], json!(["x", "y"]));

    let erased = world.run(&["erase", "--id", "a", "--pk", "mistyped", "--yes", "--format", "json"]).await;
    let receipt: Value = serde_json::from_str(&erased.stdout).unwrap();
    assert_eq!((erased.code, &receipt["found"]), (3, &json!(false)), "{erased:?}");
    assert!(erased.stderr.contains("--pk 'p'"), "{erased:?}");
    let month = world.run(&["show", "--id", "a", "--at", "1M"]).await;
    assert!(month.code == 2 && month.stderr.contains("months"), "{month:?}");

    world.put(json!({"id": "late", "pk": "p"})).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let status = world.run(&["status", "--format", "json"]).await.json();
    assert!(status["behind"].as_i64().unwrap() >= 3, "{status}");
    world.capture().await;
    eventually("nothing is behind", async || {
        let status = world.run(&["status", "--format", "json"]).await.json();
        (status["behind"] == 0 && status["history"]["complete_until"] == "now").then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_odd_record_is_named_also_where_nothing_else_is_known_of_its_document() {
    let app = TestApp::start().await;
    let record = json!({"id": "odd~1", "pk": "p", "_originalId": "odd", "_change": {"v": 1, "op": "sleep", "ts": 1}});
    let changes = app.changes().await;
    let parts = changes.key_paths().segments().iter().map(|path| record[&path[0]].clone()).collect::<Vec<_>>();
    let at = PartitionKey::parse(&Value::from(parts).to_string()).unwrap();
    changes.upsert(&at, "odd~1", record.to_string().into_bytes()).await.unwrap();
    let done = app.run(&["restore", "--id", "odd", "--at", "now", "--dry-run"]).await;
    assert_eq!(done.code, 1, "{done:?}");
    assert!(done.stderr.contains("odd~1") && done.stderr.contains("it is set aside"), "{done:?}");
    assert!(done.stderr.contains("is not in the history"), "{done:?}");
}

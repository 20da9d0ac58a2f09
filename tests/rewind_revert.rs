//! `revert` with the real program: a bad writer's changes are reverted, and all others stay.

use std::collections::BTreeMap;

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    rewind_faults::kills::{before_or_after, killed_at},
    simulation::revert::{LEAVES, Leaves, Twin, document},
    support::{Handler, Output, TestApp},
};

/// Matches the bad writer's writes.
const BAD: &str = r#"doc.by == "job-42""#;

/// An account in whose history the writes are minutes apart, although the test makes them now.
pub struct Life {
    pub app: TestApp,
    handler: Handler,
    pub now: i64,
    lsn: i64,
    last: BTreeMap<String, (Value, i64)>,
}

impl Life {
    pub async fn start() -> Self {
        Self::of(TestApp::start().await).await
    }

    pub async fn of(app: TestApp) -> Self {
        let handler = app.handler(&[]).await;
        Self { app, handler, now: Utc::now().timestamp(), lsn: 0, last: BTreeMap::new() }
    }

    /// Writes a document and captures it as of this many minutes ago; `None` deletes it.
    async fn write(&mut self, minutes: i64, id: &str, document: Option<Value>) {
        self.write_at(self.now - minutes * 60, id, document).await;
    }

    /// Writes a document and captures it as of this second. `None` deletes it, or lets it expire if its id begins with
    /// `brief`. Returns the document as stored.
    pub async fn write_at(&mut self, ts: i64, id: &str, document: Option<Value>) -> Option<Value> {
        self.lsn += 1;
        let previous = self.last.remove(id);
        let mut metadata =
            json!({"lsn": self.lsn, "crts": ts, "previousImageLSN": previous.as_ref().map_or(0, |p| p.1)});
        let mut item = json!({"current": {}});
        if let Some((text, _)) = &previous {
            item["previous"] = text.clone();
        }
        match document {
            Some(mut document) => {
                document["id"] = id.into();
                document["pk"] = id.into();
                let mut stored = self.app.put(document).await;
                stored["_ts"] = ts.into();
                metadata["operationType"] = if previous.is_some() { "replace" } else { "create" }.into();
                item["current"] = stored.clone();
                self.last.insert(id.into(), (stored, self.lsn));
            }
            None => {
                let key = PartitionKey(vec![cosmos_rewind::change::key::KeyValue::String(id.into())]);
                self.app.events().await.delete(&key, id, None).await.unwrap();
                metadata["operationType"] = "delete".into();
                metadata["timeToLiveExpired"] = id.starts_with("brief").into();
                metadata["id"] = id.into();
                metadata["partitionKey"] = json!({"pk": id});
            }
        }
        item["metadata"] = metadata;
        let (status, answer) = self.handler.deliver(&[item]).await;
        assert_eq!(status, 200, "{answer}");
        self.last.get(id).map(|(stored, _)| stored.clone())
    }

    /// The live document's text as its users wrote it.
    async fn live(&self, id: &str) -> Option<String> {
        let key = PartitionKey(vec![cosmos_rewind::change::key::KeyValue::String(id.into())]);
        let text = self.app.events().await.read(&key, id).await.unwrap()?;
        let mut document: Value = serde_json::from_slice(&text).unwrap();
        for name in ["_rid", "_self", "_etag", "_attachments", "_ts", "id", "pk"] {
            document.as_object_mut().unwrap().shift_remove(name);
        }
        Some(document.to_string())
    }

    /// Runs `revert` for everything between 30 and 10 minutes ago.
    async fn revert(&self, more: &[&str]) -> Output {
        let (from, to) = ((self.now - 1800).to_string(), (self.now - 600).to_string());
        self.app.run(&[&["revert", "--from", &from, "--to", &to][..], more].concat()).await
    }

    /// Documents whose price a job ruined, with honest writes before, in between and after: `1` was left alone since,
    /// `2` got another city later, `3` another price.
    async fn shop() -> Self {
        let mut life = Self::start().await;
        for id in ["1", "2", "3"] {
            life.write(60, id, Some(json!({"by": "ann", "price": 9.5, "city": "Davidson", "stock": {"n": 1}}))).await;
            life.write(25, id, Some(json!({"by": "job-42", "price": -1, "city": "Davidson", "stock": {"n": 1}}))).await;
            life.write(20, id, Some(json!({"by": "bob", "price": -1, "city": "Davidson", "stock": {"n": 2}}))).await;
        }
        life.write(5, "2", Some(json!({"by": "ann", "price": -1, "city": "Cornelius", "stock": {"n": 2}}))).await;
        life.write(5, "3", Some(json!({"by": "ann", "price": 7, "city": "Davidson", "stock": {"n": 2}}))).await;
        life.app.captured_from_now().await;
        life
    }
}

#[tokio::test]
async fn a_jobs_changes_are_reverted_and_all_others_stay() {
    let life = Life::shop().await;
    let all = ["--filter", BAD, "--bookkeeping", "/by"];
    let before = [life.live("1").await, life.live("2").await, life.live("3").await];
    let planned = life.revert(&[&all[..], &["--dry-run"]].concat()).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    for words in [
        "restore",
        "keep",
        "/price",
        "conflict",
        "1 write taken back, the first of",
        "plan       events without the writes from",
        "conflicts  in 1 document",
    ] {
        assert!(planned.stdout.contains(words) || planned.stderr.contains(words), "no {words:?} in {planned:?}");
    }
    assert_eq!([life.live("1").await, life.live("2").await, life.live("3").await], before, "nothing is written");

    let done = life.revert(&[&all[..], &["--yes", "--format", "json"]].concat()).await;
    assert_eq!(done.code, 3, "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let field = |n: usize| {
        let field = &report["fields"][n];
        [&field["id"], &field["path"], &field["fate"], &field["base"], &field["theirs"], &field["ours"]]
            .map(Value::clone)
    };
    assert_eq!(field(0), [json!("1"), json!("/price"), json!("back"), json!(9.5), json!(-1), json!(-1)]);
    assert_eq!(field(2), [json!("3"), json!("/price"), json!("conflict"), json!(9.5), json!(-1), json!(7)]);
    let live = |price: &str, city: &str, by: &str| {
        Some(format!(r#"{{"by":"{by}","price":{price},"city":"{city}","stock":{{"n":2}}}}"#))
    };
    assert_eq!(life.live("1").await, live("9.5", "Davidson", "bob"));
    assert_eq!(life.live("2").await, live("9.5", "Cornelius", "ann"));
    assert_eq!(life.live("3").await, live("7", "Davidson", "ann"));
    // The journal is kept for years, so it must not contain document values.
    let journal = std::fs::read_dir(life.app.folder.path().join(".cosmos-rewind")).unwrap();
    let journal: String = journal.map(|f| std::fs::read_to_string(f.unwrap().path()).unwrap()).collect();
    assert!(journal.contains("/price") && !journal.contains("Davidson") && !journal.contains("9.5"), "{journal}");

    let undone = life.app.run(&["undo", report["restore"].as_str().unwrap(), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!([life.live("1").await, life.live("2").await, life.live("3").await], before, "undone");
}

#[tokio::test]
async fn a_conflict_is_resolved_as_requested() {
    let life = Life::shop().await;
    let one = ["--filter", BAD, "--bookkeeping", "/by", "--id", "3", "--pk", "3"];
    let ours = life.revert(&[&one[..], &["--prefer", "ours", "--yes"]].concat()).await;
    assert_eq!((ours.code, ours.stderr.contains("nothing to write")), (0, true), "{ours:?}");
    let base = life.revert(&[&one[..], &["--prefer", "base", "--yes"]].concat()).await;
    assert_eq!(base.code, 0, "{base:?}");
    let live = life.live("3").await.unwrap();
    assert_eq!(live, r#"{"by":"ann","price":9.5,"city":"Davidson","stock":{"n":2}}"#);
}

#[tokio::test]
async fn an_edit_after_the_plan_is_never_overwritten() {
    let mut life = Life::shop().await;
    let file = life.app.folder.path().join("plan");
    let file = file.to_str().unwrap();
    let one = ["--filter", BAD, "--bookkeeping", "/by", "--id", "1"];
    let planned = life.revert(&[&one[..], &["--dry-run", "--plan-out", file]].concat()).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("\"edits\"") && !text.contains("Davidson"), "{text}");
    life.write(0, "1", Some(json!({"by": "ann", "price": -1, "city": "Later"}))).await;
    for force in [&[][..], &["--force"]] {
        let applied = life.app.run(&[&["restore", "--plan", file, "--yes"][..], force].concat()).await;
        assert_eq!(applied.code, 3, "{applied:?}");
        assert!(applied.stdout.contains("was changed since the plan was made"), "{applied:?}");
        assert_eq!(life.live("1").await.unwrap(), r#"{"by":"ann","price":-1,"city":"Later"}"#);
    }
}

#[tokio::test]
async fn revert_handles_documents_created_or_deleted_in_the_window() {
    let mut life = Life::start().await;
    life.write(60, "old", Some(json!({"n": 1}))).await;
    life.write(20, "old", None).await;
    life.write(20, "new", Some(json!({"n": 1}))).await;
    life.write(20, "grown", Some(json!({"n": 1}))).await;
    life.write(5, "grown", Some(json!({"n": 1, "m": 2}))).await;
    // These expired: one is untouched, and the other, which had been changed before, stays gone.
    life.write(60, "brief", Some(json!({"n": 1}))).await;
    life.write(20, "brief", None).await;
    life.write(60, "brief-changed", Some(json!({"n": 1}))).await;
    life.write(25, "brief-changed", Some(json!({"n": 2}))).await;
    life.write(20, "brief-changed", None).await;
    life.app.captured_from_now().await;
    let kept = life.revert(&["--dry-run"]).await;
    assert!(kept.stdout.contains("--delete-created deletes it"), "{kept:?}");
    assert!(
        !kept.stdout.contains("  brief  ") && kept.stdout.contains("has expired since, and stays gone"),
        "{kept:?}"
    );
    let refused = life.revert(&["--delete-created=0", "--yes"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--max-deletes 1 allows it"), "{refused:?}");
    let done = life.revert(&["--delete-created=1", "--yes"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(life.live("old").await.unwrap(), r#"{"n":1}"#);
    assert_eq!(life.live("new").await, None);
    assert_eq!((life.live("brief").await, life.live("brief-changed").await), (None, None));
    // Another writer has changed a document that should not exist, so it stays.
    assert_eq!(life.live("grown").await.unwrap(), r#"{"n":1,"m":2}"#);
}

#[tokio::test]
async fn unknown_documents_are_reported_and_left_alone() {
    let life = Life::start().await;
    let now = life.now;
    // In latest-version mode, the author of changes between two versions is unknown.
    for (ts, n) in [(now - 3600, 1), (now - 1200, 2)] {
        let mut stored = life.app.put(json!({"id": "a", "pk": "a", "n": n})).await;
        stored["_ts"] = ts.into();
        assert_eq!(life.handler.deliver(&[stored]).await.0, 200);
    }
    // The history begins within the time window.
    let mut stored = life.app.put(json!({"id": "b", "pk": "b", "n": 2})).await;
    stored["_ts"] = (now - 1200).into();
    assert_eq!(life.handler.deliver(&[stored]).await.0, 200);
    life.app.captured_from_now().await;
    let left = life.revert(&["--yes"]).await;
    assert_eq!(left.code, 3, "{left:?}");
    for words in ["--assume-no-gaps takes them for one", "what was before is not known", "2 unknown"] {
        assert!(left.stdout.contains(words) || left.stderr.contains(words), "no {words:?} in {left:?}");
    }
    assert_eq!(life.live("a").await.unwrap(), r#"{"n":2}"#);
    let done = life.revert(&["--assume-no-gaps", "--yes"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(life.live("a").await.unwrap(), r#"{"n":1}"#);
}

#[tokio::test]
async fn wrong_flags_are_refused_before_anything_is_read() {
    let life = Life::shop().await;
    for (flags, code, words) in [
        (&["--filter", "doc.by = 1"][..], 2, "^"),
        (&["--filter", "nothing(doc)"], 2, "unknown function"),
        (&["--only", "/id"], 2, "cannot be changed"),
        (&["--only", "price"], 2, "--only"),
        (&["--bookkeeping", "by"], 2, "--bookkeeping"),
        (&["--array-key", "/items"], 2, "/items=/sku"),
        (&["--delete-created=x"], 2, "write a number"),
        (&["--prefer", "theirs"], 2, "possible values"),
        (&["--filter", "false"], 1, "is to be taken back"),
        (&["--force"], 2, "unexpected argument"),
    ] {
        let refused = life.revert(&[flags, &["--dry-run"]].concat()).await;
        assert_eq!(refused.code, code, "{flags:?}: {refused:?}");
        assert!(refused.stderr.contains(words), "{flags:?}: {refused:?}");
    }
    let turned = life.app.run(&["revert", "--from", "5m", "--to", "1h"]).await;
    assert_eq!((turned.code, turned.stderr.contains("is before --from")), (2, true), "{turned:?}");
}

/// A revert or restore of single fields is killed at any of its writes, and another writer then edits another field.
/// Undo cannot know whether the field was written before that edit or by it, and reverts only its own writes.
#[tokio::test]
async fn an_edit_after_a_kill_is_not_mistaken_for_the_killed_commands_write() {
    for revert in [true, false] {
        let mut was_written = 0;
        for kills in 0.. {
            let life = Life::shop().await;
            let (from, to) = ((life.now - 1800).to_string(), (life.now - 600).to_string());
            let args = match revert {
                true => vec!["revert", "--from", &from, "--to", &to, "--filter", BAD, "--bookkeeping", "/by"],
                false => vec!["restore", "--at", &from, "--only", "/price", "--no-stamp"],
            };
            let args = [&args[..], &["--id", "1", "--pk", "1", "--yes"]].concat();
            if !killed_at(&life.app, &args, kills, before_or_after(kills)).await {
                break;
            }
            let mut document = life.last["1"].0.clone();
            let now: Value = serde_json::from_str(&life.live("1").await.unwrap()).unwrap();
            document["price"] = now["price"].clone();
            document["city"] = "Honest".into();
            let edited = format!("killed at write {kills}, with a price of {}", now["price"]);
            was_written += usize::from(now["price"] == json!(9.5));
            life.app.put(document).await;
            let list: Value = life.app.run(&["undo", "--list", "--format", "json"]).await.json();
            let Some(id) = list[0]["restore"].as_str() else { continue };
            let undone = life.app.run(&["undo", id, "--yes"]).await;
            assert!([0, 3].contains(&undone.code), "{edited}: {undone:?}");
            let after: Value = serde_json::from_str(&life.live("1").await.unwrap()).unwrap();
            assert_eq!(after["city"], "Honest", "{edited}: {undone:?}");
        }
        assert!(was_written > 0, "never killed after the write");
    }
}

/// The model of `tests/simulation/revert.rs` with the real program: honest writers and a bad one, in
/// `COSMOS_REWIND_REVERT_DOCUMENTS` documents. The test keeps its own record of each document's writes and of its state
/// without the bad ones.
#[tokio::test]
async fn in_many_documents_every_honest_edit_is_kept() {
    let count = std::env::var("COSMOS_REWIND_REVERT_DOCUMENTS").map_or(150, |count| count.parse().unwrap());
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let (now, mut rng) = (Utc::now().timestamp(), StdRng::seed_from_u64(17));
    let (mut items, mut expected, mut conflicts, mut lsn) = (Vec::new(), BTreeMap::new(), 0, 0);
    for n in 0..count {
        let id = format!("doc-{n}");
        let mut twin = Twin::default();
        let (mut leaves, mut last): (Leaves, Option<Value>) = (Leaves::new(), None);
        let writes = rng.random_range(3..8);
        for write in 0..writes {
            let by = if write > 0 && rng.random_bool(0.4) { "job-42" } else { ["ann", "bob"][rng.random_range(0..2)] };
            for _ in 0..rng.random_range(1..4) {
                let leaf = LEAVES[rng.random_range(0..LEAVES.len())];
                leaves.insert(leaf, json!(rng.random_range(0..3)));
            }
            leaves.insert("/by", by.into());
            twin.write(by == "job-42", Some(leaves.clone()));
            let mut document = document(&(id.clone(), json!(id).to_string()), &leaves);
            lsn += 1;
            if write + 1 == writes {
                document = app.put(document).await;
            } else {
                document["_etag"] = format!("\"{n}-{write}\"").into();
            }
            document["_ts"] = (now - 3000 + write * 60).into();
            let previous = last.as_ref().map_or(0, |last| last["_lsn"].as_i64().unwrap());
            let op = if last.is_some() { "replace" } else { "create" };
            let metadata =
                json!({"operationType": op, "lsn": lsn, "crts": now - 3000 + write * 60, "previousImageLSN": previous});
            let mut item = json!({"current": document, "metadata": metadata});
            if let Some(last) = &last {
                item["previous"] = last.clone();
                item["previous"].as_object_mut().unwrap().remove("_lsn");
            }
            document["_lsn"] = lsn.into();
            last = Some(document);
            items.push(item);
        }
        conflicts += usize::from(!twin.conflicts().is_empty());
        expected.insert(
            id.clone(),
            crate::simulation::revert::document(&(id.clone(), json!(id).to_string()), twin.honest.as_ref().unwrap()),
        );
    }
    for batch in items.chunks(100) {
        assert_eq!(handler.deliver(batch).await.0, 200);
    }
    app.captured_from_now().await;
    let (from, to) = ((now - 3600).to_string(), (now - 60).to_string());
    let max = count.to_string();
    let done = app
        .run(&[
            "revert",
            "--from",
            &from,
            "--to",
            &to,
            "--filter",
            BAD,
            "--bookkeeping",
            "/by",
            "--max",
            &max,
            "--yes",
            "--format",
            "json",
        ])
        .await;
    assert_eq!(done.code, 3, "{}", done.stderr);
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let steps = report["plan"]["steps"].as_array().unwrap();
    assert_eq!(steps.iter().filter(|step| step["conflicts"].is_array()).count(), conflicts);
    let found = app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    assert_eq!(found.len(), expected.len());
    for raw in &found {
        let mut document: Value = serde_json::from_str(raw.get()).unwrap();
        for name in ["_rid", "_self", "_etag", "_attachments", "_ts"] {
            document.as_object_mut().unwrap().shift_remove(name);
        }
        assert_eq!(Some(&document), expected.get(document["id"].as_str().unwrap()));
    }
}

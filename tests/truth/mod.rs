//! Findings of an external audit, checked with oracles that share no code with the program: the test's own log of its
//! writes, and plain reads of the containers.

mod beside;
mod captured;
mod claims;
mod counted;
mod gaps;
mod holes;
mod holes_in_lives;
mod latest_lives;
mod lease_holes;
mod leases_again;
mod lost;
mod lost_checkpoints;
mod odd;
mod readers;
mod records;
mod uncaptured;
mod writer;

use std::time::Duration;

use serde_json::{Value, json};

use self::captured::{Captured, action, next_second};
use crate::support::eventually;

#[tokio::test]
async fn a_restore_while_capture_is_behind_rolls_no_write_back() {
    let world = Captured::start("all-versions").await;
    for id in ["order-1", "deleted", "remade", "later"] {
        world.put(json!({"id": id, "pk": "p", "state": "new"})).await;
    }
    world.delete("remade", "p").await;
    world.capture().await;
    next_second().await;
    // Nothing is captured from here on.
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
    // The damage to this document is not captured either, but no other uncaptured write preceded it. It is restored,
    // with a warning.
    assert_eq!(state("later").await.as_deref(), Some("new"));

    // Nothing was captured in latest-version mode, so no output may mention that mode.
    let later =
        planned.stdout.matches("latest-version mode").count() + table.stdout.matches("latest-version mode").count();
    assert_eq!((later, table.stdout.contains("which is not in the history (yet)")), (0, true), "{table:?}");

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

    // Once capture has caught up, everything is known.
    world.capture().await;
    let known = world.run(&["restore", "--all", "--at", &at, "--dry-run"]).await;
    assert!(known.stderr.contains("frontier   the history is complete up to"), "{known:?}");
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
async fn a_document_deleted_in_latest_version_mode_is_recreated_only_on_request() {
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
async fn a_predicate_applies_to_documents() {
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
async fn undo_reverts_only_the_restores_own_writes() {
    let world = Captured::start("all-versions").await;
    let at = world.changed(&["a", "b", "c"]).await;
    let plan = ["restore", "--all", "--at", &at, "--no-stamp", "--plan-out", "plan.jsonl", "--dry-run"];
    assert_eq!(world.run(&plan).await.code, 0);
    // Another writer restores `b` before the plan is applied: `b` is up to date, and the restore does not write it.
    world.put(json!({"id": "b", "pk": "p", "n": 1})).await;
    let apply = ["restore", "--plan", "plan.jsonl", "--yes", "--format", "json"];
    let first = world.run(&apply).await;
    assert_eq!(first.code, 0, "{first:?}");
    // On the second use everything is up to date, and this use writes nothing.
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
async fn a_pruned_document_is_not_claimed_to_have_been_absent() {
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
    // What was made or deleted since has nothing to do with single fields.
    world.put(json!({"id": "made", "pk": "p", "n": 2})).await;
    world.delete("a", "p").await;
    world.capture().await;
    let all = world.run(&["restore", "--all", "--at", &at, "--only", "/n", "--dry-run", "--format", "json"]).await;
    assert_eq!((all.code, action(&all, "a").as_str(), action(&all, "made").as_str()), (0, "keep", "keep"), "{all:?}");

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

//! Documents that match but are not captured yet are found all the same. The test's own log tells what was in force.

use serde_json::{Value, json};

use super::captured::{Captured, next_second};
use crate::support::TestApp;

/// The state of each document at the moment; `None` means that it did not exist.
const THEN: [(&str, Option<&str>); 6] = [
    ("captured", Some("Davidson")),
    ("moved-away", Some("Oslo")),
    ("moved-here", Some("Davidson")),
    ("new", Some("Davidson")),
    ("elsewhere", Some("Oslo")),
    ("later", None),
];

/// Returns an account whose history is behind, and the moment.
async fn behind(world: Captured, by_hand: bool) -> (Captured, String) {
    let mut feed = world.feed().await;
    let put = async |id: &str, city: &str| world.put(json!({"id": id, "pk": "p", "city": city})).await;
    for (id, city) in [("captured", "Davidson"), ("moved-away", "Davidson"), ("moved-here", "Oslo")] {
        put(id, city).await;
    }
    if by_hand {
        world.capture_by_hand(&mut feed).await;
    } else {
        world.capture().await;
    }
    for (id, city) in [("moved-away", "Oslo"), ("moved-here", "Davidson"), ("new", "Davidson"), ("elsewhere", "Oslo")] {
        put(id, city).await;
    }
    let at = next_second().await.to_string();
    next_second().await;
    put("later", "Davidson").await;
    (world, at)
}

fn ids(lines: &str) -> Vec<String> {
    let parsed = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut ids: Vec<String> = parsed.filter_map(|line| line["id"].as_str().map(str::to_owned)).collect();
    ids.sort();
    ids
}

async fn finds_what_was_in_force(world: Captured, by_hand: bool) {
    const WHERE: [&str; 2] = ["--where", "c.city = 'Davidson'"];
    let (world, at) = behind(world, by_hand).await;
    let mut then: Vec<&str> = THEN.iter().filter(|(_, city)| *city == Some("Davidson")).map(|(id, _)| *id).collect();
    then.sort_unstable();
    let shown = world.run(&[&["show", "--at", &at][..], &WHERE].concat()).await;
    assert_eq!((shown.code, ids(&shown.stdout)), (0, then.iter().map(|id| (*id).to_owned()).collect()), "{shown:?}");
    let warned = shown.stderr.contains("others may have matched then");
    assert!(warned, "a version overwritten before its capture is unknown: {shown:?}");
    let labelled = shown.stderr.matches("which the history does not have yet").count();
    assert_eq!(labelled, 2, "new and moved-here: {shown:?}");
    // Asked for now, `later` is live as well.
    let now = world.run(&[&["show"][..], &WHERE].concat()).await;
    let mut today = then.clone();
    today.push("later");
    today.sort_unstable();
    assert!(!now.stderr.contains("others may have matched"), "the live state is known: {now:?}");
    assert_eq!((now.code, ids(&now.stdout)), (0, today.iter().map(|id| (*id).to_owned()).collect()), "{now:?}");

    let saved = world.run(&[&["backup", "--at", &at, "--out", "then.jsonl"][..], &WHERE].concat()).await;
    assert_eq!(saved.code, 3, "the history ends before: {saved:?}");
    let file = std::fs::read_to_string(world.app.folder.path().join("then.jsonl")).unwrap();
    assert_eq!(ids(&file), then, "{file}");

    for (id, city) in [("new", "Bergen"), ("captured", "Bergen"), ("moved-away", "Bergen")] {
        world.put(json!({"id": id, "pk": "p", "city": city})).await;
    }
    // What was in force then is now known only for captured documents, and each other one is reported.
    let diff = world.run(&[&["diff", "--from", &at, "--format", "jsonl"][..], &WHERE].concat()).await;
    assert!(ids(&diff.stdout).contains(&"captured".to_owned()), "{diff:?}");
    assert!(!diff.stdout.contains("\"new\""), "{diff:?}");
    let still = [&["show", "--at", &at][..], &["--where", "c.id = 'moved-here' AND c.city = 'Davidson'"]].concat();
    assert_eq!(ids(&world.run(&still).await.stdout), ["moved-here"]);
}

#[tokio::test]
async fn a_predicate_finds_uncaptured_documents() {
    finds_what_was_in_force(Captured::start("all-versions").await, false).await;
}

/// The pieces of the history and those of the source do not correspond in this layout.
#[tokio::test]
async fn a_predicate_finds_uncaptured_documents_in_a_history_with_another_key() {
    let app = TestApp::with_changes_key(&["/_originalId"]).await;
    finds_what_was_in_force(Captured { app, mode: "all-versions" }, true).await;
}

#[tokio::test]
async fn an_account_of_the_past_shows_uncaptured_documents() {
    let (world, at) = behind(Captured::start("all-versions").await, false).await;
    let mut program = world.app.start_program(&["at", &at, "--where", "c.city = 'Davidson'"]);
    let ready: Value = serde_json::from_str(&program.line().await).unwrap();
    let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
    let endpoint = ready["endpoint"].as_str().unwrap();
    let read = world.run(&["query", "--endpoint", endpoint, "SELECT c.id FROM c", "--format", "jsonl"]).await;
    assert_eq!(ids(&read.stdout), ["captured", "moved-here", "new"], "{loaded} {read:?}");
}

/// All these documents lie in one part of the hash space, and the parts are queried one by one.
#[tokio::test]
async fn a_predicate_on_the_partition_key_is_answered_by_every_command() {
    let world = Captured::start("all-versions").await;
    for id in ["a", "b"] {
        for pk in ["p", "q"] {
            world.put(json!({"id": id, "pk": pk, "n": 1})).await;
        }
    }
    world.capture().await;
    let at = next_second().await.to_string();
    next_second().await;
    world.put(json!({"id": "new", "pk": "p", "n": 1})).await;
    world.capture().await;
    for predicate in ["c.pk = 'p'", "c.pk IN ('p')", "c.pk = 'p' AND c.n = 1"] {
        let found = async |args: &[&str]| {
            let output = world.run(&[args, &["--where", predicate]].concat()).await;
            assert_eq!(output.code, 0, "{args:?} {predicate}: {output:?}");
            output
        };
        assert_eq!(ids(&found(&["show", "--at", &at]).await.stdout), ["a", "b"]);
        let planned =
            found(&["restore", "--at", &at, "--delete-newer=5", "--dry-run", "--format", "json"]).await.json();
        let steps = planned["plan"]["steps"].as_array().unwrap();
        let mut steps: Vec<String> = steps.iter().map(|step| format!("{}{}", step["id"], step["action"])).collect();
        steps.sort();
        assert_eq!(steps, ["\"a\"\"keep\"", "\"b\"\"keep\"", "\"new\"\"delete\""]);
        for (more, expected) in [(&[][..], &["a", "b", "new"][..]), (&["--at", &at], &["a", "b"])] {
            let path = world.app.folder.path().join("b.jsonl");
            found(&[&["backup", "--out", "b.jsonl"], more].concat()).await;
            assert_eq!(ids(&std::fs::read_to_string(&path).unwrap()), expected);
            std::fs::remove_file(path).unwrap();
        }
        found(&["backfill"]).await;
        // A key that no part contains is not an error of the account.
        let nobody = world.run(&["backup", "--out", "none.jsonl", "--where", "c.pk = 'nobody'"]).await;
        assert_eq!(nobody.code, 0, "{nobody:?}");
        std::fs::remove_file(world.app.folder.path().join("none.jsonl")).unwrap();
    }
}

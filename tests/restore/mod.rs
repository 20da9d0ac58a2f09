//! Restore and undo end to end: the real binary on the local account, on histories that the handler wrote.

mod expiry;
mod story;
mod writers;

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use cosmos_rewind::change::{VersionVia, key::PartitionKey};
use serde_json::{Value, json};

use self::story::Story;
use crate::support::{BINARY, Fault, Output};

fn restore_id(output: &Output) -> String {
    let line = output.stderr.lines().find(|l| l.contains("cosmos-rewind undo")).unwrap_or_else(|| panic!("{output:?}"));
    line.split_whitespace().nth(3).unwrap().to_owned()
}

#[tokio::test]
async fn the_davidson_story_is_planned_restored_and_undone() {
    let story = Story::davidson().await;
    let before = (story.live("28035", "28035").await, story.live("28036", "28036").await);
    let scope = ["restore", "--where", "c.city_name = @city", "--param", "city=Davidson", "--at", "10m"];
    let with = |more: &[&'static str]| scope.iter().copied().chain(more.iter().copied()).collect::<Vec<_>>();

    let history = story.app.history().await;
    let dry = story.run(&with(&["--dry-run"])).await;
    assert_eq!(dry.code, 0, "{dry:?}");
    assert!(dry.stdout.contains("28035") && dry.stdout.contains("28036") && !dry.stdout.contains("28031"), "{dry:?}");
    assert!(dry.stdout.contains("city_name") && dry.stderr.contains("2 restore, 0 recreate"), "{dry:?}");
    assert_eq!(
        (story.live("28035", "28035").await, story.app.history().await),
        (before.0.clone(), history),
        "planning wrote something"
    );

    let refused = story.run(&with(&[])).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");

    let done = story.run(&with(&["--yes"])).await;
    assert_eq!(done.code, 0, "{done:?}");
    for zip in ["28035", "28036"] {
        let live = story.live(zip, zip).await.unwrap();
        assert_eq!((&live["city_name"], &live["seq"]), (&json!("Davidson"), &json!(1)));
        assert!(live["restored_at"].as_i64().unwrap() >= story.now, "{live}");
    }
    assert_eq!(story.live("28031", "28031").await.unwrap()["city_name"], "Cornelius");

    // A second restore changes nothing.
    let again = story.run(&with(&["--yes", "--format", "json"])).await.json();
    assert_eq!(again["outcomes"], json!([]));
    assert!(again["plan"]["steps"].as_array().unwrap().iter().all(|s| s["action"] == "keep"), "{again}");

    let id = restore_id(&done);
    let undone = story.run(&["undo", &id, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!((story.live("28035", "28035").await, story.live("28036", "28036").await), before);
    let listed = story.run(&["undo", "--list", "--format", "json"]).await.json();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    assert_eq!(listed[1]["undoes"], json!(id));
    // An undo is a restore and can itself be undone.
    let redone = story.run(&["undo", &restore_id(&undone), "--yes"]).await;
    assert_eq!(redone.code, 0, "{redone:?}");
    assert_eq!(story.live("28035", "28035").await.unwrap()["city_name"], "Davidson");
}

/// Request units that a restore used, and those that its plan expected.
fn cost(output: &Output) -> (f64, f64) {
    let line = output.stderr.lines().find(|line| line.starts_with("applied")).unwrap_or_else(|| panic!("{output:?}"));
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

/// Two price models that know nothing of each other: the plan's is what the service publishes, the account's the
/// emulator's.
#[tokio::test]
async fn a_plan_expects_about_the_request_units_that_it_takes() {
    let story = Story::davidson().await;
    let scope = ["--where", "c.city_name = @city", "--param", "city=Davidson", "--at", "10m", "--yes"];
    let done = story.run(&[&["restore"][..], &scope].concat()).await;
    let undone = story.run(&["undo", &restore_id(&done), "--yes"]).await;

    let story = Story::start().await;
    let document =
        |id: &str| json!({"id": id, "pk": "p", "name": "n", "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]});
    for n in 0..10 {
        story.create(30, n, document(&format!("gone-{n}"))).await;
        story.delete(5, &format!("gone-{n}"), "p", 100 + n).await;
        story.create(4, 200 + n, document(&format!("newer-{n}"))).await;
    }
    let both = story.run(&["restore", "--all", "--at", "10m", "--delete-newer=10", "--yes"]).await;
    // The emulator's deletes cost as much as replacements, the service's as little as creations.
    for (output, least, most) in [(done, 0.7, 1.4), (undone, 0.7, 1.4), (both, 0.7, 2.0)] {
        assert_eq!(output.code, 0, "{output:?}");
        let (used, expected) = cost(&output);
        assert!((least..most).contains(&(used / expected)), "{used} RU, {expected} expected: {output:?}");
    }
}

#[tokio::test]
async fn deleted_documents_come_back_and_newer_ones_are_deleted_only_on_request() {
    let story = Story::start().await;
    story.create(30, 1, json!({"id": "gone", "pk": "p", "n": 1})).await;
    story.delete(5, "gone", "p", 2).await;
    story.create(4, 3, json!({"id": "newer", "pk": "p", "n": 2})).await;
    story.put(30, json!({"id": "same", "pk": "p", "n": 3})).await;

    let done = story.run(&["restore", "--all", "--at", "10m", "--yes", "--no-stamp"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(story.live("gone", "p").await, Some(json!({"id": "gone", "pk": "p", "n": 1})));
    assert!(story.live("newer", "p").await.is_some());
    assert!(done.stdout.contains("--delete-newer deletes it"), "{done:?}");

    let deleting = story.run(&["restore", "--all", "--at", "10m", "--yes", "--delete-newer=1"]).await;
    assert_eq!(deleting.code, 0, "{deleting:?}");
    assert_eq!(story.live("newer", "p").await, None);

    assert_eq!(story.run(&["undo", &restore_id(&deleting), "--yes"]).await.code, 0);
    assert_eq!(story.live("newer", "p").await, Some(json!({"id": "newer", "pk": "p", "n": 2})));
    assert_eq!(story.run(&["undo", &restore_id(&done), "--yes"]).await.code, 0);
    assert_eq!(story.live("gone", "p").await, None);
    assert_eq!(story.live("same", "p").await, Some(json!({"id": "same", "pk": "p", "n": 3})));
}

#[tokio::test]
async fn a_document_changed_since_the_plan_is_a_conflict_and_untouched() {
    let story = Story::davidson().await;
    let plan = story.app.folder.path().join("plan.json");
    let plan = plan.to_str().unwrap();
    let planned = story
        .run(&[
            "restore",
            "--id",
            "28035",
            "--pk",
            "28035",
            "--id",
            "28036",
            "--pk",
            "28036",
            "--at",
            "10m",
            "--plan-out",
            plan,
            "--dry-run",
        ])
        .await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let newer = json!({"id": "28036", "pk": "28036", "city_name": "Newer"});
    story.app.put(newer.clone()).await;

    let applied = story.run(&["restore", "--plan", plan, "--yes"]).await;
    assert_eq!(applied.code, 3, "{applied:?}");
    assert!(applied.stdout.contains("conflict") && applied.stdout.contains("28036"), "{applied:?}");
    assert_eq!(story.live("28035", "28035").await.unwrap()["city_name"], "Davidson");
    assert_eq!(story.live("28036", "28036").await, Some(newer.clone()));

    // With --force it is overwritten, but its version is saved in the history first.
    let forced = story.run(&["restore", "--plan", plan, "--yes", "--force"]).await;
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(story.live("28036", "28036").await.unwrap()["city_name"], "Davidson");
    let saved = story.app.versions("28036").await;
    let saved = saved.iter().find(|v| v.via.as_ref().map(VersionVia::as_str) == Some("restore")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(saved.document.as_ref().unwrap()).unwrap(), newer);

    // A document changed after the restore is a conflict of the undo and stays.
    story.app.put(json!({"id": "28035", "pk": "28035", "city_name": "Later"})).await;
    let undone = story.run(&["undo", &restore_id(&applied), "--yes"]).await;
    assert_eq!(undone.code, 3, "{undone:?}");
    assert_eq!(story.live("28035", "28035").await.unwrap()["city_name"], "Later");
}

#[tokio::test]
async fn a_plan_that_was_edited_or_made_for_something_else_is_refused() {
    let story = Story::davidson().await;
    let plan = story.app.folder.path().join("plan.json");
    let path = plan.to_str().unwrap();
    let make = ["restore", "--id", "28035", "--pk", "28035", "--at", "10m", "--plan-out", path, "--dry-run"];
    assert_eq!(story.run(&make).await.code, 0);
    let twice = story.run(&make).await;
    assert_eq!(twice.code, 2, "a plan is never overwritten: {twice:?}");
    let text = std::fs::read_to_string(&plan).unwrap();
    for (changed, reason) in [
        (text.replace("28035", "28036"), "edited"),
        (text.replace("{\"v\":2,", "{\"v\":9,"), "format 9"),
        ("nonsense".to_owned(), "not a plan"),
    ] {
        std::fs::write(&plan, changed).unwrap();
        let refused = story.run(&["restore", "--plan", path, "--yes"]).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    std::fs::write(&plan, &text).unwrap();
    let elsewhere = story.run(&["restore", "--plan", path, "--yes", "--source", "leases"]).await;
    assert_eq!(elsewhere.code, 2, "{elsewhere:?}");
    assert_eq!(story.live("28035", "28035").await.unwrap()["city_name"], "Ruined");
}

#[tokio::test]
async fn single_fields_are_restored_and_another_container_serves_for_comparison() {
    let story = Story::davidson().await;
    let only =
        story.run(&["restore", "--id", "28035", "--at", "10m", "--only", "/city_name", "--no-stamp", "--yes"]).await;
    assert_eq!(only.code, 0, "{only:?}");
    let live = story.live("28035", "28035").await.unwrap();
    assert_eq!(live, json!({"id": "28035", "pk": "28035", "city_name": "Davidson", "seq": 2, "price": 1.5}));

    let description = json!({"id": "compare", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    assert!(story.app.local.create_container("dev", description).await.unwrap());
    // A document that belongs to that container is not overwritten: it is not a version of the source and cannot be
    // saved.
    let compare = story.app.cosmos.container("dev", "compare").await.unwrap();
    let key = PartitionKey::parse("28031").unwrap();
    let own = br#"{"id":"28031","pk":"28031","own":true}"#;
    compare.create(&key, "28031", own.to_vec()).await.unwrap();
    let history = story.app.history().await.len();
    let args = ["restore", "--all", "--at", "10m", "--into", "compare", "--no-stamp", "--yes"];
    let into = story.run(&args).await;
    assert_eq!(into.code, 3, "{into:?}");
    assert!(into.stderr.contains("1 restore, 2 recreate") && into.stdout.contains("conflict"), "{into:?}");
    assert_eq!(story.run(&[&args[..], &["--force"]].concat()).await.code, 3);
    assert!(compare.read(&key, "28031").await.unwrap().unwrap().windows(10).any(|w| w == br#""own":true"#));
    compare.delete(&key, "28031", None).await.unwrap();
    assert_eq!(story.app.history().await.len(), history);
    assert_eq!(story.live("28036", "28036").await.unwrap()["city_name"], "Ruined");
    assert_eq!(story.run(&["undo", &restore_id(&into), "--yes"]).await.code, 0);
    let left = story
        .app
        .cosmos
        .container("dev", "compare")
        .await
        .unwrap()
        .query_all("SELECT * FROM c", &[], None)
        .await
        .unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_restore_killed_half_way_is_finished_by_running_it_again_and_can_be_undone() {
    let story = Story::start().await;
    let ids: Vec<String> = (0..40).map(|i| format!("doc-{i:02}")).collect();
    for (minutes, n) in [(20, 1), (5, 2)] {
        for id in &ids {
            story.put(minutes, json!({"id": id, "pk": id, "n": n})).await;
        }
    }
    let app = &story.app;
    let connection =
        app.local.connection_string().replace(app.local.endpoint().as_str(), app.proxy.endpoint().as_str());
    let args = ["restore", "--all", "--at", "10m", "--yes", "--concurrency", "2"];
    app.proxy.fail_always(Some(Fault::RespondSlowly(Duration::from_millis(30))));
    let mut child = Command::new(BINARY)
        .args(args)
        .current_dir(app.folder.path())
        .env("CosmosDB", &connection)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let written = async || {
        let documents = app.events().await.query_all("SELECT * FROM c WHERE c.n = 1", &[], None).await.unwrap();
        documents.len()
    };
    while written().await < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    app.proxy.fail_always(None);
    // Requests that were in flight when the process ended are still applied.
    let mut half = written().await;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        match written().await {
            now if now == half => break,
            now => half = now,
        }
    }
    assert!((10..40).contains(&half), "{half}");

    let listed = story.run(&["undo", "--list", "--format", "json"]).await.json();
    let first = listed[0]["restore"].as_str().unwrap().to_owned();
    let finished = story.run(&args).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.stderr.contains(&format!("{} restore", 40 - half)), "{finished:?}");
    assert_eq!(written().await, 40);

    // Both runs are undone, including writes that the killed one could not record.
    for id in [restore_id(&finished), first] {
        let undone = story.run(&["undo", &id, "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
    }
    assert_eq!(written().await, 0);
    for id in &ids {
        assert_eq!(story.live(id, id).await, Some(json!({"id": id, "pk": id, "n": 2})));
    }
}

#[tokio::test]
async fn bad_requests_are_refused_with_the_next_step() {
    let story = Story::davidson().await;
    for (args, code, message) in [
        (vec!["restore", "--id", "28035"], 2, "point in time"),
        (vec!["restore", "--at", "10m"], 2, "nothing to restore"),
        (vec!["restore", "--id", "28035", "--at", "2026-11-20T14:05:00"], 2, "zone"),
        (vec!["restore", "--id", "28035", "--at", "2126-11-20T14:05:00Z"], 2, "future"),
        (vec!["restore", "--id", "nobody", "--at", "10m"], 1, "not in the history"),
        (vec!["restore", "--where", "c.city = ", "--at", "10m", "--yes"], 2, "--where"),
        (vec!["restore", "--where", "c.city_name = 'Nowhere'", "--at", "10m", "--yes"], 1, "no document in scope"),
        (vec!["restore", "--where", "c.citi_name = 'Davidson'", "--at", "10m"], 1, "no document has c.citi_name, now"),
        (vec!["restore", "--id", "28035", "--at", "10m", "--only", "/pk"], 2, "cannot be changed"),
        (vec!["restore", "--all", "--at", "10m", "--only", "/a", "--delete-newer"], 2, "--delete-newer"),
        (vec!["restore", "--id", "28035", "--at", "10m", "--dry-run", "--plan-out", "p.json"], 0, "saved in p.json"),
        (
            vec!["restore", "--id", "28035", "--at", "10m", "--dry-run", "--plan-out", "p.json"],
            2,
            "--plan-out p.json: it exists already",
        ),
        (vec!["restore", "--all", "--at", "10m", "--dry-run", "--plan-out", "no/p"], 2, "in a folder that exists"),
        (vec!["restore", "--id", "28035", "--at", "10m", "--into", "changes"], 2, "history itself"),
        (vec!["restore", "--id", "28035", "--at", "10m", "--into", "leases"], 2, "keyed"),
        (vec!["restore", "--id", "a", "--id", "b", "--pk", "a", "--at", "10m"], 2, "--pk"),
        (vec!["restore", "--plan", "missing.json"], 2, "missing.json"),
        (vec!["undo", "20200101T000000Z-000000", "--yes"], 1, "undo --list"),
    ] {
        let output = story.run(&args).await;
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        assert!(output.stderr.contains(message), "{args:?}: {output:?}");
        assert_eq!(story.live("28035", "28035").await.unwrap()["city_name"], "Ruined");
    }
    // The state before the first version is not guessed.
    let unknown = story.run(&["restore", "--id", "28035", "--at", "3d", "--yes"]).await;
    assert_eq!(unknown.code, 3, "{unknown:?}");
    assert!(unknown.stdout.contains("earliest known"), "{unknown:?}");
}

//! Erases every trace of one document and nothing else, with the real binary on the local account.

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::{
    follow,
    support::{Local, TestApp, eventually, peers::Azurite},
};

/// An id that can be found anywhere.
const WHO: &str = "jane-doe-4711";

/// All text in the container and in the files next to it.
async fn everything(app: &TestApp) -> String {
    let mut text = String::new();
    for container in [app.changes().await, app.events().await] {
        for item in container.query_all("SELECT * FROM c", &[], None).await.unwrap() {
            text.push_str(item.get());
            text.push('\n');
        }
    }
    for folder in [".dead-letters", ".cosmos-rewind"] {
        let Ok(entries) = std::fs::read_dir(app.folder.path().join(folder)) else { continue };
        for entry in entries {
            text.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
        }
    }
    text
}

async fn life(app: &TestApp) {
    let ago = Utc::now().timestamp() - 3600;
    let mut items = Vec::new();
    for (n, (id, pk)) in [(WHO, "p"), (WHO, "q"), ("other", "p")].into_iter().enumerate() {
        let lsn = n as i64 * 10;
        let mut first = json!({"id": id, "pk": pk, "n": 1, "_etag": format!("\"{n}\""), "_ts": ago});
        let metadata = |op: &str, lsn: i64, ts: i64| json!({"operationType": op, "lsn": lsn, "crts": ts});
        items.push(json!({"current": first, "metadata": metadata("create", lsn + 1, ago)}));
        first = app.put(json!({"id": id, "pk": pk, "n": 2})).await;
        items.push(json!({"current": first, "metadata": metadata("replace", lsn + 2, ago + 60)}));
    }
    // A delete without a partition key is poison, unless the history is not keyed by it.
    items.push(json!({"current": {}, "metadata": {"operationType": "delete", "lsn": 99, "crts": ago - 10, "id": WHO}}));
    app.capture(&items).await;
}

#[tokio::test]
async fn every_trace_is_erased_and_other_documents_stay() {
    for paths in [&["/pk", "/_originalId"][..], &["/pk"], &["/_originalId"]] {
        let app = TestApp::with_changes_key(paths).await;
        life(&app).await;
        let letters = u64::from(paths != ["/_originalId"]);
        assert_eq!(app.dead_letters().len() as u64, letters);
        let restored = app.run(&["restore", "--all", "--at", "3570s", "--yes", "--format", "json"]).await.json();
        let restore = restored["restore"].as_str().unwrap();
        let before = everything(&app).await;

        let erase = ["erase", "--id", WHO, "--pk", "p", "--live", "--settle", "0s"];
        let asked = app.run(&erase).await;
        assert!(asked.code == 2 && asked.stderr.contains("--yes") && !asked.stderr.contains(WHO), "{asked:?}");
        assert_eq!(everything(&app).await, before, "nothing is erased before it is confirmed");

        let output = app.run(&[&erase[..], &["--yes", "--format", "json"]].concat()).await;
        assert!(!output.stdout.contains(WHO) && !output.stderr.contains(WHO), "{output:?}");
        let receipt = output.json();
        let names = ["versions", "dead_letters", "journals", "shared", "left"];
        let figures = names.map(|f| receipt[f].as_u64().unwrap());
        // A delete without a key may belong to the other document.
        let shared = 1 - letters;
        let expected = [2, letters, 2, shared, 0];
        assert_eq!((figures, &receipt["live"]), (expected, &json!(true)), "{paths:?} {receipt}");
        assert_eq!(receipt["item"].as_str().unwrap().len(), 64);

        let after = everything(&app).await;
        let of_item = |line: &&str| line.contains(WHO) && !line.contains("\"q\"");
        // A journal item contains many lines; the remaining ones concern the other key.
        let lines: Vec<String> = after.replace("\\n", "\n").replace("\\\"", "\"").lines().map(String::from).collect();
        let lines: Vec<&str> = lines.iter().flat_map(|l| l.split("},{")).collect();
        let left: Vec<_> = lines.iter().filter(|l| of_item(l)).collect();
        assert!(left.iter().all(|l| l.contains(r#""op":"delete""#)), "{paths:?} {left:?}");
        assert_eq!(left.len() as u64, shared, "{paths:?} {left:?}");
        assert_eq!(app.versions(WHO).await.len() as u64, 2 + shared, "the versions of the other key stay");

        // The journal is intact: the other documents can be restored.
        let undone = app.run(&["undo", restore, "--yes", "--format", "json"]).await.json();
        let ids: Vec<&str> = undone["outcomes"].as_array().unwrap().iter().map(|o| o["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 2, "{undone}");
        let key = PartitionKey::parse("p").unwrap();
        let other = app.events().await.read(&key, "other").await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&other).unwrap()["n"], 2);

        let again = app.run(&[&erase[..], &["--format", "json"]].concat()).await;
        assert!(again.stderr.contains("nothing to erase"), "{again:?}");
        // Another document has this id, so the key may be mistyped.
        let receipt: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!((again.code, &receipt["versions"], &receipt["found"]), (3, &json!(0), &json!(false)));

        // With the last document of the id, everything is erased.
        let last = ["erase", "--id", WHO, "--pk", "q", "--live", "--settle", "0s", "--yes", "--format", "json"];
        let receipt = app.run(&last).await.json();
        assert_eq!((&receipt["shared"], &receipt["left"]), (&json!(0), &json!(0)), "{paths:?} {receipt}");
        assert!(!everything(&app).await.contains(WHO), "{paths:?}");
    }
}

#[tokio::test]
async fn erasing_a_document_does_not_recreate_another_one_of_its_id() {
    let app = TestApp::with_changes_key(&["/_originalId"]).await;
    let ago = Utc::now().timestamp() - 3600;
    let mut items: Vec<Value> = ["p", "q"]
        .into_iter()
        .enumerate()
        .map(|(n, pk)| {
            let document = json!({"id": WHO, "pk": pk, "_etag": format!("\"{n}\""), "_ts": ago});
            json!({"current": document, "metadata": {"operationType": "create", "lsn": n + 1, "crts": ago}})
        })
        .collect();
    // One of the two was deleted; which one is unknown.
    let metadata = json!({"operationType": "delete", "lsn": 99, "crts": ago + 60, "id": WHO});
    items.push(json!({"current": {}, "metadata": metadata}));
    app.capture(&items).await;
    let plan = ["restore", "--all", "--at", "3500s", "--dry-run", "--format", "json"];
    let unknown = async || app.run(&plan).await.stdout.matches(r#""action":"unknown""#).count();
    assert_eq!(unknown().await, 2);
    let erased = app.run(&["erase", "--id", WHO, "--pk", "p", "--yes", "--format", "json"]).await;
    assert!(erased.stderr.contains("kept 1 delete of this id"), "{erased:?}");
    assert_eq!(erased.json()["shared"], 1);
    assert_eq!(unknown().await, 1, "{:?}", app.run(&plan).await);
}

#[tokio::test]
async fn without_live_the_document_stays_and_that_is_reported() {
    let app = TestApp::start().await;
    life(&app).await;
    let kept = app.run(&["erase", "--id", "other", "--pk", "p", "--yes", "--format", "json"]).await;
    assert!(kept.stderr.contains("--live"), "{kept:?}");
    let receipt = kept.json();
    assert_eq!((&receipt["versions"], &receipt["live"], &receipt["left"]), (&json!(2), &json!(false), &json!(0)));
    let key = PartitionKey::parse("p").unwrap();
    assert!(app.events().await.read(&key, "other").await.unwrap().is_some());
    assert_eq!(app.dead_letters().len(), 1, "the letter of another document");
}

#[tokio::test]
async fn nothing_erased_comes_back_while_capture_runs() {
    let local = Local::start(&["--mode", "all-versions"]).await;
    assert_eq!(local.run(&["populate", "--count", "20"]).await.code, 0);
    local.wait_for_count("changes", 20).await;
    let live = local.run(&["query", "SELECT c.id, c.pk FROM c", "--max", "1", "--format", "json"]).await.json();
    let (id, pk) = (live[0]["id"].as_str().unwrap(), live[0]["pk"].as_str().unwrap());
    // A generated document may be written twice.
    let documents = local.count("events").await;
    let versions = local.run(&["history", "--id", id, "--pk", pk, "--format", "json"]).await.json();
    let others = 20 - versions.as_array().unwrap().len() as u64;
    let erase = ["erase", "--id", id, "--pk", pk, "--live", "--settle", "3s", "--yes", "--format", "json"];
    let first = local.run(&erase).await;
    assert!([0, 3].contains(&first.code), "{first:?}");
    // Whatever capture delivers later is found by the next run.
    eventually("only other documents are left", async || {
        let left = local.run(&erase).await;
        (left.code == 0 && local.count("changes").await == others).then_some(())
    })
    .await;
    assert_eq!(local.count("events").await, documents - 1);
}

/// The feed delivers the document once more, as the version before the delete.
#[tokio::test]
async fn a_delete_that_capture_has_not_delivered_is_not_passed_over() {
    let app = TestApp::start().await;
    let follow = ["follow", "--mode", "all-versions", "--until-caught-up"];
    assert_eq!(app.run(&follow).await.code, 0);
    app.put(json!({"id": WHO, "pk": "p", "n": 1})).await;
    assert_eq!(app.run(&follow).await.code, 0);
    let erase = ["erase", "--id", WHO, "--pk", "p", "--live", "--settle", "0s", "--yes", "--format", "json"];
    let first = app.run(&erase).await;
    assert!(first.stderr.contains("capture has not delivered the delete yet"), "{first:?}");
    assert_eq!(app.run(&follow).await.code, 0);
    assert!(!app.versions(WHO).await.is_empty());
    let second = app.run(&erase).await;
    assert!(!second.stderr.contains("capture has not delivered"), "{second:?}");
    assert_eq!((&second.json()["left"], app.versions(WHO).await.len()), (&json!(0), 0), "{second:?}");
}

#[tokio::test]
async fn an_impossible_erasure_is_refused() {
    let app = TestApp::with_changes_key(&["/city"]).await;
    let keyed = app.run(&["erase", "--id", "a", "--pk", "p", "--yes"]).await;
    assert!(keyed.code == 2 && keyed.stderr.contains("/city"), "{keyed:?}");
    for (args, named) in [
        (&["erase", "--id", "a"][..], "--pk"),
        (&["erase", "--id", "a", "--pk", r#"["p","q"]"#], "--pk"),
        (&["erase", "--id", "a", "--pk", "p", "--settle", "long"], "--settle"),
    ] {
        let refused = app.run(args).await;
        assert!(refused.code == 2 && refused.stderr.contains(named), "{args:?}: {refused:?}");
    }
}

#[tokio::test]
async fn archives_lose_the_document_and_nothing_else() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    std::fs::create_dir(folder.join("archive")).unwrap();
    let follow_all = ["--mode", "all-versions"];
    let azurite = Azurite::start();
    let mut sinks = vec![("lines", vec!["--sink".to_owned(), "file:archive/events.jsonl".into()])];
    if let Some(azurite) = &azurite {
        for (name, more) in [("single", &[][..]), ("segments", &["--segments"])] {
            azurite.create(name).await;
            let url = format!("blob:{}", azurite.container(name).replacen('?', "/a?", 1));
            let mut args = vec!["--name", name];
            args.extend(more);
            let args = args.into_iter().map(str::to_owned).chain(["--sink".to_owned(), url]);
            sinks.push((name, args.collect()));
        }
    }
    for (_, args) in &sinks {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        follow::catch_up(&app, &[&follow_all[..], &args].concat()).await;
    }
    for n in 1..=3 {
        for (id, pk) in [(WHO, "p"), (WHO, "q"), ("other", "p")] {
            app.put(json!({"id": id, "pk": pk, "n": n})).await;
        }
    }
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.delete(&key, WHO, None).await.unwrap();
    for (_, args) in &sinks {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        follow::catch_up(&app, &[&follow_all[..], &args].concat()).await;
    }
    let folder_archive = "archive".to_owned();
    let mut archives = vec![folder_archive];
    archives.extend(sinks[1..].iter().map(|(_, args)| args.last().unwrap().clone()));
    // The same events as one file per version.
    std::fs::create_dir(folder.join("ones")).unwrap();
    let lines = std::fs::read_to_string(folder.join("archive/events.jsonl")).unwrap();
    for (n, line) in lines.lines().enumerate() {
        std::fs::write(folder.join(format!("ones/{n}.json")), line).unwrap();
    }
    archives.push("ones".into());
    let flags: Vec<&str> = archives.iter().flat_map(|archive| ["--archive", archive]).collect();
    let erase = [&["erase", "--id", WHO, "--pk", "p", "--yes", "--format", "json"][..], &flags].concat();
    let done = app.run(&erase).await;
    let receipt = done.json();
    // Three versions and a delete in each archive.
    assert_eq!((&receipt["archived"], &receipt["left"]), (&json!(4 * archives.len()), &json!(0)), "{done:?}");
    let left = std::fs::read_to_string(folder.join("archive/events.jsonl")).unwrap();
    assert_eq!((left.lines().count(), left.matches(WHO).count() > 0), (6, true), "{left}");
    assert!(left.lines().all(|line| !(line.contains(WHO) && line.contains("\"pk\":\"p\""))), "{left}");
    assert_eq!(std::fs::read_dir(folder.join("ones")).unwrap().count(), 6);
    let again = app.run(&erase).await;
    assert_eq!((again.code, &again.json()["archived"]), (0, &json!(0)), "{again:?}");
    // The rest can be read, and the follower continues from its position.
    for archive in &archives {
        let load = app.run(&["load", "--archive", archive, "--mode", "upsert", "--format", "json"]).await;
        assert_eq!((load.code, &load.json()["written"]), (0, &json!(2)), "{load:?}");
    }
    app.put(json!({"id": "later", "pk": "p"})).await;
    follow::catch_up(&app, &[&follow_all[..], &["--sink", "file:archive/events.jsonl"]].concat()).await;
    assert!(std::fs::read_to_string(folder.join("archive/events.jsonl")).unwrap().contains("later"));

    std::fs::write(folder.join("archive/odd.json"), "{}").unwrap();
    let odd = app.run(&["erase", "--id", "other", "--pk", "p", "--yes", "--archive", "archive"]).await;
    assert_eq!((odd.code, odd.stderr.contains("odd.json is not an event of follow")), (1, true), "{odd:?}");
}

/// All functions of an app share one dead-letter store.
#[tokio::test]
async fn a_letter_of_another_container_stays() {
    let app = TestApp::start().await;
    life(&app).await;
    let letters = app.folder.path().join(".dead-letters");
    let held = json!({"id": WHO, "pk": "p", "_etag": "\"7\"", "_ts": 1});
    for (n, source) in [json!("dev/orders"), json!("dev/events"), Value::Null].into_iter().enumerate() {
        let letter = json!({"v": 1, "at": "2026-11-20T15:00:00.000Z", "function": "F", "invocation": "1", "id": WHO,
            "status": "413", "reason": "-", "source": source, "item": held});
        std::fs::write(letters.join(format!("F-{n}.json")), letter.to_string()).unwrap();
    }
    let receipt =
        app.run(&["erase", "--id", WHO, "--pk", "p", "--settle", "0s", "--yes", "--format", "json"]).await.json();
    // Includes the letter from `life`, whose key cannot be determined.
    assert_eq!((&receipt["dead_letters"], &receipt["left"]), (&json!(3), &json!(0)));
    let left: Vec<_> = std::fs::read_dir(&letters).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["F-0.json"]);
}

/// A kill leaves a letter, complete or partial, under its temporary name.
#[tokio::test]
async fn a_letter_left_by_a_kill_is_erased_too() {
    let app = TestApp::start().await;
    life(&app).await;
    let letters = app.folder.path().join(".dead-letters");
    let put = |name: &str, id: &str, length: usize| {
        let item = json!({"id": id, "pk": "p", "_etag": "\"7\"", "_ts": 1});
        let letter = json!({"at": "2026-11-20T15:00:00.000Z", "function": "F", "id": id, "invocation": "1", "item": item,
            "reason": "-", "status": "413", "v": 1});
        let text = letter.to_string();
        std::fs::write(letters.join(name), &text[..text.len().min(length)]).unwrap();
    };
    put(".F-1.json.0123456789abcdef.part", WHO, usize::MAX);
    put(".F-2.json.0123456789abcdef.part", WHO, 100);
    put(".F-3.json.0123456789abcdef.part", "other", usize::MAX);
    put(".F-4.json.0123456789abcdef.part", "other", 100);
    let receipt =
        app.run(&["erase", "--id", WHO, "--pk", "p", "--settle", "0s", "--yes", "--format", "json"]).await.json();
    // Includes the letter from `life`.
    assert_eq!((&receipt["dead_letters"], &receipt["left"]), (&json!(3), &json!(0)));
    let mut left: Vec<_> = std::fs::read_dir(&letters).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".F-3.json.0123456789abcdef.part", ".F-4.json.0123456789abcdef.part"]);
}

/// A follower was killed within a line and never restarted to remove it.
#[tokio::test]
async fn a_line_that_was_cut_off_is_erased_with_its_document() {
    let app = TestApp::start().await;
    let archive = app.folder.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    let event = |id: &str| {
        format!(r#"{{"op":"create","id":"{id}","pk":"p","ts":1,"lsn":1,"version":"v","doc":{{"id":"{id}","pk":"p"}}}}"#)
    };
    let (other, cut_off) = (event("other") + "\n", event(WHO));
    let cut_off = &cut_off[..cut_off.len() - 9];
    std::fs::write(archive.join("a.jsonl"), other.clone() + cut_off).unwrap();
    std::fs::write(archive.join("b.jsonl"), cut_off).unwrap();
    std::fs::write(archive.join("c.jsonl"), other.clone() + &event("somebody")[..60]).unwrap();
    // A leftover of a killed run.
    std::fs::write(archive.join("a.jsonl.part"), &other).unwrap();
    let erase = ["erase", "--id", WHO, "--pk", "p", "--yes", "--archive", "archive", "--format", "json"];
    let receipt = app.run(&erase).await.json();
    assert_eq!((&receipt["archived"], &receipt["left"]), (&json!(2), &json!(0)));
    let mut left: Vec<_> = std::fs::read_dir(&archive).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.sort();
    assert_eq!(left, [archive.join("a.jsonl"), archive.join("c.jsonl")]);
    assert_eq!(std::fs::read_to_string(&left[0]).unwrap(), other);
    assert_eq!(std::fs::read_to_string(&left[1]).unwrap(), other + &event("somebody")[..60], "the other line");

    // A segment under another name has documents of others.
    let segment = b"\x1f\x8b\x08\0\0\0\0\0\x02\xff";
    std::fs::write(archive.join("d.jsonl"), segment).unwrap();
    let output = app.run(&erase).await;
    assert_eq!((output.code, std::fs::read(archive.join("d.jsonl")).unwrap()), (1, segment.to_vec()), "{output:?}");
}

/// The live document was deleted and the run killed while it waited; capture has not delivered the delete yet.
#[tokio::test]
async fn a_run_after_a_kill_waits_for_the_delete_as_well() {
    let app = TestApp::start().await;
    life(&app).await;
    let key = PartitionKey::parse("p").unwrap();
    app.events().await.delete(&key, WHO, None).await.unwrap();
    let erase = ["erase", "--id", WHO, "--pk", "p", "--live", "--settle", "4s", "--yes", "--format", "json"];
    let again = app.start_through_proxy(&erase);
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let metadata = json!({"operationType": "delete", "lsn": 9, "crts": Utc::now().timestamp(), "id": WHO,
        "partitionKey": {"pk": "p"}, "previousImageLSN": 2});
    app.capture(&[json!({"current": {}, "metadata": metadata})]).await;
    let receipt = again.ended().await.json();
    assert_eq!((&receipt["versions"], &receipt["left"]), (&json!(3), &json!(0)), "{receipt}");
    assert_eq!(app.versions(WHO).await.len(), 2, "the versions of the other key");
}

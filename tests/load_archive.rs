//! `load --archive`: reads what `follow` wrote back into the source container.

use std::path::Path;

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::{
    follow::{ALL, catch_up, events, put},
    support::{
        Letterbox, Output, TestApp,
        peers::{Azurite, signatures},
    },
};

/// Every live document without system properties, sorted.
pub async fn live(app: &TestApp) -> Vec<String> {
    let found = app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    let mut texts: Vec<String> =
        found.iter().map(|d| cosmos_rewind::change::record::own_text(d.get()).unwrap()).collect();
    texts.sort();
    texts
}

fn figures(output: &Output) -> [u64; 5] {
    let summary: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    ["written", "created", "updated", "skipped", "failed"].map(|name| summary[name].as_u64().unwrap())
}

async fn load(app: &TestApp, archive: &str, more: &[&str]) -> Output {
    app.run(&[&["load", "--archive", archive, "--format", "json"], more].concat()).await
}

/// Versions of twelve documents, one deleted and one recreated.
pub async fn write_history(app: &TestApp) {
    for n in 1..=3 {
        for id in 0..12 {
            put(app, &format!("doc-{id}"), n).await;
        }
    }
    let events = app.events().await;
    for id in ["doc-3", "doc-4"] {
        events.delete(&PartitionKey::parse(&format!("key-{id}")).unwrap(), id, None).await.unwrap();
    }
    put(app, "doc-4", 9).await;
    let key = PartitionKey::parse("p").unwrap();
    let exact = r#"{"id":"exact","pk":"p","price":1.25,"when":"2020-01-01T00:00:00.000Z","ü":"\u00e9\n"}"#;
    events.upsert(&key, "exact", exact.into()).await.unwrap();
}

#[tokio::test]
async fn loading_a_folder_restores_the_newest_version_of_each_document() {
    let app = TestApp::start().await;
    std::fs::create_dir(app.folder.path().join("archive")).unwrap();
    catch_up(&app, &ALL).await;
    write_history(&app).await;
    catch_up(&app, &[&ALL[..], &["--sink", "file:archive/events.jsonl"]].concat()).await;
    let before = live(&app).await;
    assert_eq!(before.len(), 12);
    assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);

    // A line cut off by a kill, and an unrelated file.
    let file = app.folder.path().join("archive/events.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{}", &text[..40])).unwrap();
    std::fs::write(app.folder.path().join("archive/README.txt"), "notes").unwrap();
    let output = load(&app, "archive", &[]).await;
    assert_eq!((output.code, figures(&output)), (0, [12, 12, 0, 0, 0]), "{output:?}");
    for line in ["1 file passed over", "1 last line passed over: cut off", "12 documents of 40 versions"] {
        assert!(output.stderr.contains(line), "{output:?}");
    }
    assert_eq!(live(&app).await, before);
    assert_eq!(figures(&load(&app, "archive", &[]).await), [0, 0, 0, 12, 0]);
    assert_eq!(figures(&load(&app, "archive", &["--mode", "upsert"]).await), [12, 0, 12, 0, 0]);

    // The same events as one file per version, in folders.
    for (n, event) in events(&text).iter().enumerate() {
        let folder = app.folder.path().join(format!(
            "single/{}/{}",
            event["pk"].as_str().unwrap(),
            event["id"].as_str().unwrap()
        ));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{n}.json")), text.lines().nth(n).unwrap()).unwrap();
    }
    assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
    let output = load(&app, "single", &["--mode", "create-only"]).await;
    assert_eq!((output.code, figures(&output)), (0, [12, 12, 0, 0, 0]), "{output:?}");
    assert_eq!(live(&app).await, before);
    assert_eq!(figures(&load(&app, "single", &["--mode", "create-only"]).await), [0, 0, 0, 12, 0]);
    // Every live document was written after the archive's newest version.
    assert_eq!(figures(&load(&app, "single", &["--mode", "if-newer"]).await), [0, 0, 0, 12, 0]);
}

/// The base of event times.
pub const T: i64 = 1_700_000_000;

pub fn event(id: &str, op: &str, ts: i64, lsn: i64, n: u64) -> Value {
    let doc = if op == "delete" { Value::Null } else { json!({"id": id, "pk": "p", "n": n}) };
    json!({"op": op, "id": id, "pk": "p", "ts": T + ts, "lsn": lsn, "version": format!("{id}~{lsn}"), "doc": doc, "previous": null, "changed": null})
}

pub fn archive(folder: &Path, name: &str, events: &[Value]) {
    let text: String = events.iter().map(|event| format!("{event}\n")).collect();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(name), text).unwrap();
}

#[tokio::test]
async fn a_moment_has_the_versions_in_force_then_and_partial_documents_are_never_loaded() {
    let app = TestApp::start().await;
    let folder = app.folder.path().join("a");
    let mut part = event("part", "replace", 1030, 8, 2);
    part["partial"] = json!({"dropped": ["/ssn"]});
    archive(
        &folder,
        "2.jsonl",
        &[
            event("tie", "replace", 1010, 5, 2),
            event("x", "replace", 1020, 6, 2),
            event("gone", "delete", 1020, 7, 0),
            part,
        ],
    );
    archive(
        &folder,
        "1.jsonl",
        &[
            event("x", "create", 1000, 1, 1),
            event("gone", "create", 1000, 2, 1),
            event("part", "create", 1000, 3, 1),
            // Within a second the LSN decides, whatever file a version is in.
            event("tie", "create", 1010, 4, 1),
            event("tie", "replace", 1010, 5, 2),
        ],
    );
    let at = async |at: &str| {
        assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
        let at = at.parse::<i64>().map_or_else(|_| at.to_owned(), |seconds| (T + seconds).to_string());
        let output = load(&app, "a", &["--at", &at]).await;
        let mut found: Vec<(String, u64)> = live(&app)
            .await
            .iter()
            .map(|text| serde_json::from_str::<Value>(text).unwrap())
            .map(|d| (d["id"].as_str().unwrap().to_owned(), d["n"].as_u64().unwrap()))
            .collect();
        found.sort();
        (output, found)
    };
    let named = |list: &[(&str, u64)]| list.iter().map(|(id, n)| ((*id).to_owned(), *n)).collect::<Vec<_>>();
    let (output, found) = at("1009").await;
    assert_eq!((output.code, found), (0, named(&[("gone", 1), ("part", 1), ("x", 1)])), "{output:?}");
    let (output, found) = at("1019").await;
    assert_eq!((output.code, found), (0, named(&[("gone", 1), ("part", 1), ("tie", 2), ("x", 1)])), "{output:?}");
    let (output, found) = at("1029").await;
    assert_eq!((output.code, found), (0, named(&[("part", 1), ("tie", 2), ("x", 2)])), "{output:?}");
    let (output, found) = at("now").await;
    assert_eq!((output.code, found), (3, named(&[("tie", 2), ("x", 2)])), "{output:?}");
    assert_eq!(figures(&output), [2, 2, 0, 0, 1]);
    assert!(output.stderr.contains("2.jsonl line 4 is only a part of the document"), "{output:?}");
    let (output, found) = at("999").await;
    assert_eq!((output.code, figures(&output), found.len()), (0, [0; 5], 0), "{output:?}");

    // A version that is newer than the live document.
    let ahead = chrono::Utc::now().timestamp() + 3600 - T;
    archive(
        &app.folder.path().join("ahead"),
        "1.jsonl",
        &[event("x", "create", ahead, 1, 7), event("y", "create", ahead, 2, 7)],
    );
    put(&app, "z", 1).await;
    app.put(json!({"id": "x", "pk": "p", "n": 1})).await;
    assert_eq!(figures(&load(&app, "ahead", &["--mode", "if-newer"]).await), [2, 1, 1, 0, 0]);

    // An archive from which a follower left out fields.
    catch_up(&app, &ALL).await;
    put(&app, "z", 2).await;
    catch_up(&app, &[&ALL[..], &["--redact", "/ssn", "--sink", "file:part.jsonl"]].concat()).await;
    let parts = app.folder.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    std::fs::rename(app.folder.path().join("part.jsonl"), parts.join("part.jsonl")).unwrap();
    let output = load(&app, "parts", &[]).await;
    assert_eq!((output.code, figures(&output)), (3, [0, 0, 0, 0, 1]), "{output:?}");
}

#[tokio::test]
async fn a_file_that_is_not_an_archive_is_reported_and_nothing_is_written() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    archive(&folder.join("damaged"), "1.jsonl", &[event("x", "create", 1000, 1, 1), json!({"id": "SECRET"})]);
    archive(
        &folder.join("timeless"),
        "1.json",
        &[json!({"op": "create", "id": "x", "pk": "p", "ts": null, "lsn": null, "version": "x~1", "doc": {}})],
    );
    archive(&folder.join("cut"), "1.jsonl.gz", &[event("x", "create", 1000, 1, 1)]);
    archive(&folder.join("empty"), "README.txt", &[]);
    // A segment under another name, and text that no follower writes again: neither is a line that was cut off.
    archive(&folder.join("renamed"), "1.jsonl", &[]);
    std::fs::write(folder.join("renamed/1.jsonl"), b"\x1f\x8b\x08\0\0\0\0\0\x02\xff").unwrap();
    archive(&folder.join("notes"), "1.jsonl", &[event("x", "create", 1000, 1, 1)]);
    let with_notes = std::fs::read_to_string(folder.join("notes/1.jsonl")).unwrap() + "\nnotes";
    std::fs::write(folder.join("notes/1.jsonl"), with_notes.replace("\n\n", "\n")).unwrap();
    for (archive, code, wanted) in [
        ("damaged", 1, "1.jsonl line 2 is not an event of follow"),
        ("timeless", 1, "1.json is an event without a time"),
        ("cut", 1, "1.jsonl.gz cannot be read"),
        ("renamed", 1, "1.jsonl line 1 is not an event of follow"),
        ("notes", 1, "1.jsonl line 2 is not an event of follow"),
        ("empty", 2, "there is no .json, .jsonl or .jsonl.gz file"),
        ("nowhere", 2, "--archive nowhere: "),
        ("damaged/1.jsonl", 2, "it is a file"),
        ("https://a.blob.core.windows.net/c?sig=SECRET", 2, "a URL begins with blob:"),
        ("blob:ftp://a/c?sig=SECRET", 2, "unknown scheme"),
        ("blob:http://example.com/c?sig=SECRET", 2, "plain http"),
    ] {
        let output = load(&app, archive, &[]).await;
        assert_eq!((output.code, output.stderr.contains(wanted)), (code, true), "{archive}: {output:?}");
        assert!(!output.stderr.contains("SECRET") && output.stdout.is_empty(), "{archive}: {output:?}");
        assert!(output.stderr.contains("hint: "), "{archive}: {output:?}");
    }
    for args in [
        &["load"][..],
        &["load", "x", "--archive", "a"],
        &["load", "x", "--at", "1h"],
        &["load", "--archive", "a", "--no-trailer"],
    ] {
        assert_eq!(app.run(args).await.code, 2, "{args:?}");
    }
    let output = load(&app, "damaged", &["--at", "half past nine"]).await;
    assert!(output.code == 2 && output.stderr.contains("--at"), "{output:?}");
    assert!(live(&app).await.is_empty());
}

#[tokio::test]
async fn blobs_and_segments_are_read_back() {
    let Some(azurite) = Azurite::start() else { return };
    let app = TestApp::start().await;
    catch_up(&app, &ALL).await;
    catch_up(&app, &[&ALL[..], &["--name", "segments"]].concat()).await;
    write_history(&app).await;
    for name in ["single", "segments"] {
        azurite.create(name).await;
    }
    let signed = |name: &str| format!("blob:{}", azurite.container(name).replacen('?', "/a/b?", 1));
    catch_up(&app, &[&ALL[..], &["--sink", &signed("single")]].concat()).await;
    catch_up(&app, &[&ALL[..], &["--name", "segments", "--segments", "--sink", &signed("segments")]].concat()).await;
    let before = live(&app).await;
    for name in ["single", "segments"] {
        // With a SAS, and with Azurite's own key.
        let bare = signed(name).split('?').next().unwrap().to_owned();
        for archive in [signed(name), bare] {
            assert_eq!(app.run(&["truncate", "source", "--yes"]).await.code, 0);
            let output = load(&app, &archive, &[]).await;
            assert_eq!((output.code, figures(&output)), (0, [12, 12, 0, 0, 0]), "{output:?}");
            assert_eq!(live(&app).await, before, "{name}");
        }
        let output = load(&app, &signed(name).replacen("/a/b?", "/a/c?", 1), &[]).await;
        assert_eq!((output.code, output.stderr.contains("there is no .json")), (2, true), "{output:?}");
    }
    let wrong = signed("nowhere");
    let output = load(&app, &wrong, &[]).await;
    assert_eq!((output.code, output.stderr.contains("404")), (1, true), "{output:?}");
    for signature in signatures(wrong.trim_start_matches("blob:")) {
        assert!(!output.stderr.contains(&signature), "{output:?}");
    }
}

/// In the archive of a whole database, a drop removes the documents of its collection only.
#[tokio::test]
async fn documents_of_a_collection_that_was_dropped_are_not_loaded() {
    let app = TestApp::start().await;
    let event = |op: &str, id: &str, ns: &str, ts: i64| {
        let doc = (op == "create").then(|| json!({"id": id, "pk": id, "n": ts}));
        let (lsn, version) = (ts << 20, format!("{id}{ns}~{ts}"));
        json!({"op": op, "id": id, "pk": id, "ts": ts, "lsn": lsn, "version": version, "doc": doc, "ns": ns})
            .to_string()
    };
    // Times and names are the only criteria: the lines of two ranges may come in any order.
    let lines = [
        event("drop", "", "shop.orders", 1_700_000_020),
        event("create", "a", "shop.orders", 1_700_000_010),
        event("create", "b", "shop.baskets", 1_700_000_010),
        event("create", "c", "shop.orders", 1_700_000_030),
        event("rename", "", "shop.old", 1_700_000_040),
        event("create", "d", "shop.old", 1_700_000_030),
    ];
    std::fs::create_dir(app.folder.path().join("archive")).unwrap();
    std::fs::write(app.folder.path().join("archive/events.jsonl"), lines.join("\n") + "\n").unwrap();
    let output = load(&app, "archive", &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    let ids = |texts: Vec<String>| -> Vec<String> {
        texts.iter().map(|t| serde_json::from_str::<Value>(t).unwrap()["id"].as_str().unwrap().into()).collect()
    };
    assert_eq!(ids(live(&app).await), ["b", "c"]);
    // Before the drop, the other document existed as well.
    app.run(&["truncate", "source", "--yes"]).await;
    load(&app, "archive", &["--at", "1700000015"]).await;
    assert_eq!(ids(live(&app).await), ["a", "b"]);
}

#[tokio::test]
async fn a_blob_whose_answer_is_cut_off_is_read_again() {
    let (app, letterbox) = (TestApp::start().await, Letterbox::start().await);
    let sink = format!("blob:{}", letterbox.url());
    let follow_all = [&ALL[..], &["--sink", &sink, "--segments"]].concat();
    catch_up(&app, &follow_all).await;
    for id in ["a", "b", "c"] {
        put(&app, id, 1).await;
    }
    catch_up(&app, &follow_all).await;
    letterbox.cut(3);
    let whole = load(&app, &sink, &["--mode", "upsert"]).await;
    assert_eq!((whole.code, figures(&whole)), (0, [3, 0, 3, 0, 0]), "{whole:?}");
    // It is not asked for ever.
    letterbox.cut(1000);
    let erase = ["erase", "--id", "a", "--pk", "key-a", "--yes", "--archive", &sink];
    for args in [&["load", "--archive", &sink][..], &erase] {
        let failed = app.run(args).await;
        assert_eq!(failed.code, 1, "{failed:?}");
        assert!(failed.stderr.contains("cannot be reached") && failed.stderr.contains("the network"), "{failed:?}");
    }
}

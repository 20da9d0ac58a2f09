//! Documents that are gone, or were for a while, without a delete that tells when. Every command must report them
//! alike.

use serde_json::{Value, json};

use super::{
    captured::{Captured, action, next_second},
    lost::{dry_run, follow, forget, make_again},
};

/// The doubt that `show` reports about a document at a moment.
async fn doubt(world: &Captured, id: &str, at: i64) -> String {
    let shown = world.run(&["show", "--id", id, "--pk", "p", "--at", &at.to_string(), "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
    shown["doubt"].as_str().unwrap_or_default().to_owned()
}

/// The documents and the unknown documents that `backup --at` and `at` count.
async fn counted(world: &Captured, at: i64) -> [(u64, u64); 2] {
    let (at, out) = (at.to_string(), format!("{at}.jsonl"));
    let saved = world.run(&["backup", "--all", "--at", &at, "--out", &out, "--format", "json"]).await;
    let saved: Value = serde_json::from_str(&saved.stdout).unwrap_or_else(|_| panic!("{saved:?}"));
    let mut program = world.app.start_program(&["at", &at]);
    program.line().await;
    let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
    [saved, loaded].map(|told| (told["documents"].as_u64().unwrap(), told["unknown"].as_u64().unwrap()))
}

#[tokio::test]
async fn a_document_deleted_in_a_hole_and_recreated_is_not_claimed_to_have_existed() {
    let world = Captured::start("all-versions").await;
    for id in ["made-in-the-hole", "made-later", "replaced"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    let before = next_second().await;
    next_second().await;
    forget(&world).await;
    for id in ["made-in-the-hole", "made-later"] {
        world.delete(id, "p").await;
    }
    world.put(json!({"id": "replaced", "pk": "p", "n": 2})).await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "made-in-the-hole", "pk": "p", "n": 2})).await;
    world.capture().await;
    for id in ["made-in-the-hole", "made-later", "replaced"] {
        world.put(json!({"id": id, "pk": "p", "n": 3})).await;
    }
    world.capture().await;
    let again = ["made-in-the-hole", "made-later"];
    // The time of the delete is unknown: it may lie before either moment.
    for at in [before, at] {
        let planned = dry_run(&world, at).await;
        let actions = again.map(|id| action(&planned, id));
        assert_eq!((planned.code, actions), (3, ["unknown", "unknown"].map(String::from)), "{planned:?}");
        // This document existed all the time; only its content is uncertain.
        assert_eq!(action(&planned, "replaced"), "restore", "{planned:?}");
        for id in again {
            assert!(doubt(&world, id, at).await.contains("its delete was not captured"), "{id}");
        }
        assert_eq!(doubt(&world, "replaced", at).await, "");
        assert_eq!(counted(&world, at).await, [(1, 2), (1, 2)]);
    }
    let at = at.to_string();
    let asked = ["restore", "--all", "--at", &at, "--recreate-deleted", "--dry-run", "--format", "json"];
    let planned = world.run(&asked).await;
    assert_eq!((planned.code, action(&planned, "made-later")), (0, "restore".to_owned()), "{planned:?}");
}

#[tokio::test]
async fn a_deleted_document_that_was_made_again_in_a_hole_is_not_denied() {
    let world = Captured::start("all-versions").await;
    let ids = ["lives", "dies", "later", "stays"];
    for id in ids {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    for id in ids {
        world.delete(id, "p").await;
    }
    world.capture().await;
    next_second().await;
    forget(&world).await;
    for id in ["lives", "dies"] {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    next_second().await;
    world.capture().await;
    next_second().await;
    let at = next_second().await;
    next_second().await;
    for id in ["lives", "later"] {
        world.put(json!({"id": id, "pk": "p", "n": 3})).await;
    }
    world.delete("dies", "p").await;
    let (all, at_text) = (["restore", "--all", "--delete-newer=9", "--dry-run", "--format", "json"], at.to_string());
    // What waits is captured together with what it replaced.
    for (expected, certain) in
        [(["unknown", "unknown", "delete", "keep"], 2), (["restore", "recreate", "delete", "keep"], 4)]
    {
        let planned = world.run(&[&all[..], &["--at", &at_text]].concat()).await;
        let actions = ids.map(|id| action(&planned, id));
        assert_eq!(actions, expected.map(String::from), "{planned:?}");
        for (place, id) in ["later", "stays", "lives", "dies"].into_iter().enumerate() {
            let doubt = doubt(&world, id, at).await;
            assert_eq!(doubt.contains("whether it was made again"), place >= certain, "{id}: {doubt}");
        }
        world.capture().await;
    }
}

/// Deletes `lost` while nothing captures.
async fn with_a_hole(world: &Captured, archive: bool, ids: &[&str]) -> i64 {
    let archived = async |file: &str| {
        let sink = format!("file:archive/{file}.jsonl");
        let follow = ["follow", "--name", "archive", "--mode", "all-versions", "--until-caught-up", "--sink", &sink];
        assert!(!archive || world.run(&follow).await.code == 0);
    };
    std::fs::create_dir_all(world.app.folder.path().join("archive")).unwrap();
    archived("one").await;
    for id in ids {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    world.capture().await;
    archived("one").await;
    next_second().await;
    forget(world).await;
    world.delete("lost", "p").await;
    let at = next_second().await;
    next_second().await;
    world.capture().await;
    archived("two").await;
    world.put(json!({"id": "later", "pk": "p", "n": 1})).await;
    world.delete("kept", "p").await;
    world.capture().await;
    archived("two").await;
    next_second().await;
    at
}

#[tokio::test]
async fn a_restore_into_another_container_only_uses_documents_that_surely_existed() {
    let world = Captured::start("all-versions").await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    assert!(world.app.local.create_container("dev", json!({"id": "other", "partitionKey": key})).await.unwrap());
    let at = with_a_hole(&world, false, &["lost", "kept", "waits", "lives"]).await.to_string();
    world.delete("waits", "p").await;
    let restore = ["restore", "--all", "--into", "other", "--at", &at, "--dry-run", "--format", "json"];
    let planned = world.run(&restore).await;
    let actions = ["lost", "kept", "waits", "lives"].map(|id| action(&planned, id));
    let expected = ["unknown", "recreate", "recreate", "recreate"].map(String::from);
    assert_eq!((planned.code, actions), (3, expected), "{planned:?}");
    assert!(planned.stdout.contains("its delete was not captured"), "{planned:?}");
    let planned = world.run(&[&restore[..], &["--recreate-deleted"]].concat()).await;
    let actions = ["lost", "later"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["recreate", "unknown"].map(String::from)), "{planned:?}");
}

#[tokio::test]
async fn a_missing_delete_in_an_archive_does_not_prove_existence() {
    let world = Captured::start("all-versions").await;
    let ids = ["lost", "kept", "waits", "in-the-history", "lives"];
    let at = with_a_hole(&world, true, &ids).await.to_string();
    // The archive has no delete of these documents. The history and the uncaptured changes prove that they existed.
    world.delete("in-the-history", "p").await;
    world.capture().await;
    world.delete("waits", "p").await;
    let restore = ["restore", "--from-archive", "archive", "--at", &at, "--dry-run", "--format", "json"];
    let planned = world.run(&[&restore[..], &["--all"]].concat()).await;
    let actions = ids.map(|id| action(&planned, id));
    let expected = ["unknown", "recreate", "recreate", "recreate", "keep"].map(String::from);
    assert_eq!((planned.code, actions), (3, expected), "{planned:?}");
    assert!(planned.stdout.contains("its delete was not captured"), "{planned:?}");
    let planned = world.run(&[&restore[..], &["--filter", "doc.n == 1"]].concat()).await;
    assert_eq!((planned.code, action(&planned, "lost")), (3, "unknown".to_owned()), "{planned:?}");
    // An explicit request overrides the doubt, and the newest version is certain in any case.
    for more in [&["--all", "--recreate-deleted"][..], &["--id", "lost", "--pk", "p"], &["--all", "--at", "now"]] {
        let args = [&["restore", "--from-archive", "archive", "--dry-run", "--format", "json"], more].concat();
        let args = if more.contains(&"now") { args } else { [&args[..], &["--at", &at]].concat() };
        let planned = world.run(&args).await;
        assert_eq!((planned.code, action(&planned, "lost")), (0, "recreate".to_owned()), "{planned:?}");
    }
}

#[tokio::test]
async fn containers_of_a_deleted_source_are_told_apart() {
    let world = Captured::start("all-versions").await;
    follow(&world, "one", "all-versions").await;
    for id in ["only-before", "in-both"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
    }
    follow(&world, "one", "all-versions").await;
    let before = next_second().await;
    next_second().await;
    make_again(&world).await;
    follow(&world, "two", "all-versions").await;
    world.put(json!({"id": "first", "pk": "p", "n": 1})).await;
    let at = next_second().await;
    next_second().await;
    world.put(json!({"id": "in-both", "pk": "p", "n": 2})).await;
    follow(&world, "two", "all-versions").await;
    assert!(world.app.local.delete_container("dev", "events").await.unwrap());
    for id in ["only-before", "in-both"] {
        assert!(doubt(&world, id, at).await.contains("its container was deleted, and made again"), "{id}");
        assert_eq!(doubt(&world, id, before).await, "", "{id}");
    }
    assert_eq!(doubt(&world, "first", at).await, "");
}

#[tokio::test]
async fn a_delete_that_was_not_searched_for_is_not_claimed_to_be_later() {
    let world = Captured::start("all-versions").await;
    let at = with_a_hole(&world, false, &["lost", "kept"]).await;
    let many: String = (0..10_100).map(|n| json!({"id": format!("many-{n}"), "pk": "q"}).to_string() + "\n").collect();
    std::fs::write(world.app.folder.path().join("many.jsonl"), many).unwrap();
    let written = world.run(&["populate", "--file", "many.jsonl"]).await;
    assert_eq!(written.code, 0, "{written:?}");
    let args = ["restore", "--where", "c.pk = 'p'", "--at", &at.to_string(), "--dry-run", "--format", "json"];
    let planned = world.run(&args).await;
    let actions = ["lost", "kept"].map(|id| action(&planned, id));
    assert_eq!((planned.code, actions), (3, ["unknown", "recreate"].map(String::from)), "{planned:?}");
    assert!(planned.stdout.contains("too much is waiting to be captured"), "{planned:?}");
    assert!(doubt(&world, "lost", at).await.contains("too much is waiting to be captured"));
    // Once it is captured, the delete is found.
    world.capture().await;
    let planned = world.run(&args).await;
    assert!(planned.stdout.contains("its delete was not captured"), "{planned:?}");
}

/// A life may begin in one hole and end in the next. Nothing in between was written, so what was captured there does not
/// show it either.
#[tokio::test]
async fn a_life_from_one_hole_to_the_next_is_not_denied() {
    let world = Captured::start("all-versions").await;
    for id in ["again", "seen"] {
        world.put(json!({"id": id, "pk": "p", "n": 1})).await;
        world.delete(id, "p").await;
    }
    world.capture().await;
    next_second().await;
    forget(&world).await;
    for id in ["again", "first", "never-again"] {
        world.put(json!({"id": id, "pk": "p", "n": 2})).await;
    }
    next_second().await;
    world.capture().await;
    next_second().await;
    // That this one was deleted here proves that it was not there afterwards.
    world.put(json!({"id": "seen", "pk": "p", "n": 2})).await;
    world.delete("seen", "p").await;
    world.capture().await;
    let at = next_second().await;
    next_second().await;
    // So does a creation before the second hole.
    world.put(json!({"id": "made", "pk": "p", "n": 1})).await;
    next_second().await;
    world.put(json!({"id": "last", "pk": "p", "n": 1})).await;
    world.capture().await;
    next_second().await;
    forget(&world).await;
    for id in ["again", "first", "never-again"] {
        world.delete(id, "p").await;
    }
    next_second().await;
    world.capture().await;
    next_second().await;
    for id in ["again", "first", "seen"] {
        world.put(json!({"id": id, "pk": "p", "n": 3})).await;
    }
    world.capture().await;
    let at_text = at.to_string();
    let asked = ["restore", "--all", "--delete-newer=9", "--dry-run", "--format", "json", "--at", &at_text];
    let planned = world.run(&asked).await;
    let actions = ["again", "first", "seen", "made"].map(|id| action(&planned, id));
    assert_eq!(
        (planned.code, actions),
        (3, ["unknown", "unknown", "delete", "delete"].map(String::from)),
        "{planned:?}"
    );
    // The history has nothing at all of one of them.
    assert!(planned.stderr.contains("others may have existed"), "{planned:?}");
    for id in ["again", "first"] {
        assert!(doubt(&world, id, at).await.contains("whether it"), "{id}");
    }
    // One more is from the second in which the second hole begins.
    assert_eq!(counted(&world, at).await, [(0, 3), (0, 3)]);
}

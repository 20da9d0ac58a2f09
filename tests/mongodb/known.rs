//! How far the history of a collection is known to be complete.

use bson::{Binary, Document, doc, spec::BinarySubtype};
use cosmos_rewind::change::key::PartitionKey;

use super::{
    back::{Back, found, orders},
    gone::ops_of,
    of, text,
};
use crate::support::{ClosedPort, FollowerProcess, Output, eventually, mongo_ru::MongoRu, mongo_server::MongoServer};

/// The initial documents have the time of their read. That nothing older is pending proves nothing, because none of the
/// stream was read.
#[tokio::test]
async fn an_unfinished_initial_read_does_not_make_a_history_complete() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_many([doc! { "_id": "a" }, doc! { "_id": "b" }]).await.unwrap();
    back.capture().await;
    // A second follower begins its initial read, which never becomes durable in all sinks.
    let port = ClosedPort::take();
    let nowhere = format!("blob:http://{}/devstoreaccount1/versions", port.address());
    let args = ["--source", &back.source, "--name", "second", "--from", "beginning", "--sink", "changes", "--sink"];
    let args = [&args[..], &[&nowhere], &of("shop", "orders")].concat();
    let mut second = FollowerProcess::start_in(back.folder(), &args, &back.settings());
    second.wait_for_log("start of every range saved").await;
    second.kill();
    // The test server may assign a change the exact time that it reported before.
    crate::support::moment().await;
    orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    let at = crate::support::moment().await;
    let plan = ["restore", "--all", "--at", &at, "--dry-run"];
    let behind = back.ends(3, &plan).await;
    assert!(behind.stderr.contains(": 0 restore, 0 recreate, 0 delete, 1 keep, 1 unknown"), "{behind:?}");
    assert!(behind.stderr.contains("the history ends at"), "{behind:?}");
    // The first follower continues, and the delete becomes known.
    back.capture().await;
    let plan = back.ends(0, &plan).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 2 keep, 0 unknown"), "{plan:?}");
    assert_eq!(found(&orders, "a").await, None::<Document>);
}

/// The service does not accept its record, and the previous version is not the one in force.
#[tokio::test]
async fn a_version_that_is_too_large_for_the_history_is_known_to_have_existed() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    let capture = ["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"];
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.ends(0, &capture).await;
    let small = crate::support::moment().await;
    // Incompressible bytes.
    let bytes =
        (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()[3]).collect();
    let data = Binary { subtype: BinarySubtype::Generic, bytes };
    orders.replace_one(doc! { "_id": "a" }, doc! { "data": data }).await.unwrap();
    let refused = back.ends(3, &capture).await;
    assert!(refused.stderr.contains("1 dead letter"), "{refused:?}");
    let large = crate::support::moment().await;
    let missing = back.ends(3, &["verify", "--grace", "1s"]).await;
    assert!(missing.stdout.contains("missing    FAILURE  1"), "{missing:?}");
    // The text comes from the live document.
    let file = |name: &str| text(&back.path(name));
    back.ends(0, &["backup", "--all", "--at", &large, "--out", &file("live.jsonl")]).await;
    assert!(std::fs::metadata(back.path("live.jsonl")).unwrap().len() > 3_000_000);
    // A version that cannot be saved must not be overwritten.
    let restore = |at: &str| ["restore", "--all", "--at", at, "--no-stamp", "--yes"].map(str::to_owned).to_vec();
    let run = async |code: i32, args: Vec<String>| {
        back.ends(code, &args.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let failed = run(3, restore(&small)).await;
    assert!(failed.stdout.contains("too large for the history"), "{failed:?}");
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 3 }).await.unwrap();
    back.ends(0, &capture).await;

    let rows = back.ends(0, &["history", "--id", "a", "--format", "jsonl"]).await.lines();
    assert_eq!(ops_of(&rows), ["baseline", "replace", "replace"], "{rows:?}");
    assert_eq!(rows[1]["fidelity"], "absent", "{rows:?}");
    let unknown = run(3, restore(&large)).await;
    assert!(unknown.stderr.contains(": 0 restore, 0 recreate, 0 delete, 0 keep, 1 unknown"), "{unknown:?}");
    assert!(unknown.stdout.contains("too large for the history"), "{unknown:?}");
    let backup = back.ends(3, &["backup", "--all", "--at", &large, "--out", &file("gone.jsonl")]).await;
    assert!(backup.stderr.contains("too large for the history"), "{backup:?}");
    run(0, restore(&small)).await;
    assert_eq!(found(&orders, "a").await, Some(doc! { "_id": "a", "n": 1 }));
}

/// Whatever history the settings for containers name, a document of MongoDB would be a stranger in it.
#[tokio::test]
async fn a_letter_of_mongodb_is_kept_and_says_how_its_document_is_captured() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let back = Back::of(server.uri()).await;
    let bytes =
        (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()[3]).collect();
    let data = Binary { subtype: BinarySubtype::Generic, bytes };
    server.put("shop", "orders", &doc! { "_id": "a", "data": data });
    let capture = ["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"];
    back.ends(3, &capture).await;
    let waiting = back.ends(0, &["replay", "--list", "--format", "jsonl"]).await.lines();
    assert_eq!((waiting.len(), &waiting[0]["outcome"]), (1, &"waiting".into()), "{waiting:?}");
    for source in [&[][..], &["--source", "no-such-container"]] {
        let replayed = back.run_plain(&[&["replay", "--format", "jsonl"], source].concat()).await;
        let letters = replayed.lines();
        assert_eq!((replayed.code, &letters[0]["outcome"]), (3, &"kept".into()), "{replayed:?}");
        let reason = letters[0]["reason"].as_str().unwrap();
        assert!(["shop.orders", "MONGODB_URI", "--name"].iter().all(|word| reason.contains(word)), "{reason}");
    }
}

/// An update names its document, and the text is looked up: when the document is gone by then, nobody knows what it was.
#[tokio::test]
async fn an_update_whose_text_nobody_knows_is_not_taken_for_the_version_before() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    std::fs::create_dir(back.path("archive")).unwrap();
    let (archive, file) = (text(&back.path("archive")), text(&back.path("backup.jsonl")));
    let sink = format!("file:{archive}/events.jsonl");
    let capture = async || {
        let both = ["--sink", "changes", "--sink", &sink];
        let follow = ["follow", "--from", "beginning", "--until-caught-up", "--poll", "50"];
        back.ends(0, &[&follow[..], &both].concat()).await;
    };
    orders.insert_many([doc! { "_id": "a", "n": 1 }, doc! { "_id": "b", "n": 1 }]).await.unwrap();
    capture().await;
    orders.update_one(doc! { "_id": "a" }, doc! { "$set": { "n": 2 } }).await.unwrap();
    let at = crate::support::moment().await;
    orders.delete_one(doc! { "_id": "a" }).await.unwrap();
    let deleted = crate::support::moment().await;
    capture().await;

    let rows = back.ends(0, &["history", "--id", "a", "--format", "jsonl"]).await.lines();
    assert_eq!(ops_of(&rows), ["baseline", "update", "delete"], "{rows:?}");
    assert_eq!(rows[1]["fidelity"], "absent", "{rows:?}");
    let shown = back.ends(1, &["show", "--id", "a", "--at", &at]).await;
    assert!(shown.stderr.contains("gone when MongoDB was asked for it"), "{shown:?}");
    let backup = back.ends(3, &["backup", "--all", "--at", &at, "--out", &file]).await;
    assert!(backup.stderr.contains("gone when MongoDB was asked for it"), "{backup:?}");
    let from_archive = ["--from-archive", &archive];
    let filtered = ["--from-archive", &archive, "--filter", "doc.n == 1"];
    for source in [&["--all"][..], &[&from_archive[..], &["--all"]].concat(), &filtered] {
        let plan = back.ends(3, &[&["restore", "--at", &at, "--dry-run"][..], source].concat()).await;
        assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 1 keep, 1 unknown"), "{source:?}: {plan:?}");
        assert!(plan.stdout.contains("gone when MongoDB was asked for it"), "{plan:?}");
    }
    // It is known to be gone afterwards.
    let plan = back.ends(0, &["restore", "--all", "--at", &deleted, "--dry-run"]).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 2 keep, 0 unknown"), "{plan:?}");
}

/// What another follower will still deliver is not missing.
#[tokio::test]
async fn a_follower_notes_a_time_that_nobody_covers_only_when_no_other_goes_on() {
    let Some(server) = MongoServer::start() else { return };
    let elsewhere = ["--checkpoint-file", "first.json"];
    for (first, is_noted) in [(&[][..], false), (&elsewhere, true)] {
        let back = Back::of(server.uri()).await;
        let orders = orders(&back.source).await;
        orders.drop().await.unwrap();
        orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
        let follow = ["follow", "--until-caught-up", "--poll", "50", "--from"];
        back.ends(0, &[&follow[..], &["beginning"], first].concat()).await;
        orders.insert_one(doc! { "_id": "b", "n": 1 }).await.unwrap();
        back.ends(0, &[&follow[..], &["beginning"], first].concat()).await;
        let second = back.ends(0, &[&follow[..], &["now", "--name", "second"]].concat()).await;
        assert_eq!(second.stderr.contains("nobody captured every version"), is_noted, "{first:?}: {second:?}");
    }
}

/// An etag of MongoDB is a fingerprint: a document that was changed and changed back has it again. What the stream still
/// has tells which documents that may have been.
#[tokio::test]
async fn a_text_that_came_back_does_not_prove_that_nothing_was_written_before() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["changed", "made again", "quiet"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    back.capture().await;
    crate::support::moment().await;
    orders.replace_one(doc! { "_id": "changed" }, doc! { "n": 2 }).await.unwrap();
    orders.delete_one(doc! { "_id": "made again" }).await.unwrap();
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "changed" }, doc! { "n": 1 }).await.unwrap();
    orders.insert_one(doc! { "_id": "made again", "n": 1 }).await.unwrap();
    // Nothing of that is captured.
    let plan = back.ends(3, &["restore", "--all", "--at", &at, "--dry-run"]).await;
    assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 1 keep, 2 unknown"), "{plan:?}");
    let shown = back.ends(0, &["show", "--id", "changed", "--at", &at]).await;
    assert!(shown.stderr.contains("is not captured yet"), "{shown:?}");
    let quiet = back.ends(0, &["show", "--id", "quiet", "--at", &at]).await;
    assert!(!quiet.stderr.contains("warning"), "{quiet:?}");
    let file = text(&back.path("backup.jsonl"));
    let backup = back.ends(3, &["backup", "--all", "--at", &at, "--out", &file]).await;
    assert!(backup.stdout.contains("unknown    2"), "{backup:?}");
    // What is live now is what there is now.
    let now = back.ends(0, &["show", "--id", "changed"]).await;
    assert!(!now.stderr.contains("warning"), "{now:?}");
    back.capture().await;
    let shown = back.ends(0, &["show", "--id", "changed", "--at", &at]).await;
    assert!(shown.stdout.contains(r#""n":{"$numberInt":"2"}"#) && !shown.stderr.contains("warning"), "{shown:?}");
}

/// A version of MongoDB does not name the one before. So that none is missing is known from the followers alone.
#[tokio::test]
async fn what_was_written_between_two_followers_is_not_taken_for_unwritten() {
    let Some(server) = MongoServer::start() else { return };
    // The first one could go on, or its checkpoint is gone.
    for first in [&[][..], &["--checkpoint-file", "first.json"]] {
        let back = Back::of(server.uri()).await;
        let orders = orders(&back.source).await;
        orders.drop().await.unwrap();
        for id in ["a", "b", "c", "d"] {
            orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
        }
        let follow = ["follow", "--until-caught-up", "--poll", "50", "--from"];
        back.ends(0, &[&follow[..], &["beginning"], first].concat()).await;
        let before = crate::support::moment().await;
        orders.update_many(doc! {}, doc! { "$set": { "n": 2 } }).await.unwrap();
        let between = crate::support::moment().await;
        // One that stays, one that changes, one that comes back, and one that changes after the second follower began.
        orders.replace_one(doc! { "_id": "b" }, doc! { "n": 3 }).await.unwrap();
        orders.replace_one(doc! { "_id": "c" }, doc! { "n": 1 }).await.unwrap();
        back.ends(0, &[&follow[..], &["now", "--name", "second"]].concat()).await;
        crate::support::moment().await;
        orders.replace_one(doc! { "_id": "d" }, doc! { "n": 4 }).await.unwrap();
        back.ends(0, &[&follow[..], &["now", "--name", "second"]].concat()).await;
        let plan = back.ends(3, &["restore", "--all", "--at", &between, "--dry-run"]).await;
        assert!(plan.stderr.contains(": 0 restore, 0 recreate, 0 delete, 0 keep, 4 unknown"), "{first:?}: {plan:?}");
        for id in ["a", "b", "c", "d"] {
            let shown = back.ends(0, &["show", "--id", id, "--at", &between]).await;
            assert!(shown.stderr.contains("warning"), "{first:?} {id}: {shown:?}");
        }
        // Without its checkpoint, nobody knows how far the first one had read.
        let is_known = first.is_empty();
        let plan = back.run(&["restore", "--all", "--at", &before, "--dry-run"]).await;
        let expected = if is_known { ": 3 restore, 0 recreate, 0 delete, 1 keep, 0 unknown" } else { " 4 unknown" };
        assert!(plan.stderr.contains(expected), "{first:?}: {plan:?}");
    }
}

/// A follower that stands before changes that nobody captured was to deliver them. When it cannot any more, because the
/// server's history has moved on or its checkpoint is gone, they stay unknown.
#[tokio::test]
async fn changes_that_the_first_of_two_followers_can_no_longer_deliver_stay_unknown() {
    // The server forgets what is older than its newest writes.
    let Some(server) = MongoServer::start_with(&["--oplog-max-entries", "500"]) else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    for id in ["a", "b"] {
        orders.insert_one(doc! { "_id": id, "n": 1 }).await.unwrap();
    }
    let follow =
        async |args: &[&str]| back.ends(0, &[&["follow", "--until-caught-up", "--poll", "50"], args].concat()).await;
    follow(&["--from", "beginning", "--name", "first"]).await;
    orders.update_many(doc! {}, doc! { "$set": { "n": 2 } }).await.unwrap();
    let between = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "b" }, doc! { "n": 1 }).await.unwrap();
    // A third one began no earlier than the second: it does not deliver what was before that either.
    for name in ["second", "third"] {
        follow(&["--from", "now", "--name", name]).await;
    }
    crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 3 }).await.unwrap();
    for name in ["second", "third"] {
        follow(&["--name", name]).await;
    }
    let is_unknown = async |when: &str| {
        for id in ["a", "b"] {
            let shown = back.ends(0, &["show", "--id", id, "--at", &between]).await;
            assert!(shown.stderr.contains("warning: document"), "{when}, {id}: {shown:?}");
        }
        let plan = back.ends(3, &["restore", "--all", "--at", &between, "--dry-run", "--format", "csv"]).await;
        for id in ["a", "b"] {
            assert!(
                plan.stdout.lines().any(|line| line.starts_with(&format!("unknown,{id},"))),
                "{when}, {id}: {plan:?}"
            );
        }
    };
    is_unknown("the first one can go on").await;
    let args = ["--source", &back.source, "--name", "second"];
    let mut second =
        FollowerProcess::start_in(back.folder(), &[&args[..], &of("shop", "orders")].concat(), &back.settings());
    for n in 0..16 {
        orders.insert_many((0..150).map(|m| doc! { "_id": format!("x{n}-{m}") })).await.unwrap();
        eventually("the second one has delivered them", async || {
            let shown = back.run(&["history", "--id", &format!("x{n}-149")]).await;
            (shown.code == 0).then_some(())
        })
        .await;
    }
    second.signal("TERM");
    assert!(second.ended().await.success());
    let lost = back.run(&["follow", "--until-caught-up", "--name", "first"]).await;
    assert!(lost.code == 1 && lost.stderr.contains("ChangeStreamHistoryLost"), "{lost:?}");
    // The first that looks what has become of that time says so, and the history does from now on.
    is_unknown("the first one cannot").await;
    // The checkpoint stays a warning, which says how to end it.
    let show = ["show", "--id", "b", "--at", &between];
    let told = back.ends(0, &show).await;
    let advice = r#""first" can never go on from its checkpoint; another follower has taken over, so delete that, the item "follow.first" of dev/leases"#;
    assert!(told.stderr.contains(advice), "{told:?}");
    let key = PartitionKey::parse("follow.first").unwrap();
    back.leases().await.delete(&key, "follow.first", None).await.unwrap();
    let told = back.ends(0, &show).await;
    assert!(!told.stderr.contains("follow.first"), "{told:?}");
    let again = follow(&["--name", "second"]).await;
    let says_so = |output: &Output| output.stderr.contains("nobody captured every version");
    assert!(says_so(&lost) && !says_so(&again), "{lost:?} {again:?}");
    is_unknown("the history says so").await;
}

/// A kill leaves such a checkpoint, when the follower had its name and did not know yet where to start.
#[tokio::test]
async fn a_follower_without_a_position_does_not_make_a_history_complete() {
    let Some(server) = MongoServer::start() else { return };
    let back = Back::of(server.uri()).await;
    let orders = orders(&back.source).await;
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    back.capture().await;
    crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    let at = crate::support::moment().await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 3 }).await.unwrap();
    let leases = back.leases().await;
    let key = |id: &str| PartitionKey::parse(id).unwrap();
    let stored = leases.read(&key("follow.default"), "follow.default").await.unwrap().expect("it captured");
    let mut begun: serde_json::Value = serde_json::from_slice(&stored).unwrap();
    begun["id"] = "follow.begun".into();
    begun["follower"] = "begun".into();
    begun["ranges"] = serde_json::json!([]);
    leases.upsert(&key("follow.begun"), "follow.begun", begun.to_string().into()).await.unwrap();
    let plan = ["restore", "--all", "--at", &at, "--dry-run"];
    let unknown = back.ends(3, &plan).await;
    assert!(unknown.stderr.contains(": 0 restore, 0 recreate, 0 delete, 0 keep, 1 unknown"), "{unknown:?}");
    // Without the first one, nobody knows anything.
    leases.delete(&key("follow.default"), "follow.default", None).await.unwrap();
    let unknown = back.ends(3, &plan).await;
    assert!(unknown.stderr.contains(" 1 unknown"), "{unknown:?}");
}

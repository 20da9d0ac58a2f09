//! The RU dialect: newest versions without their operations, pages with a single token, throttled pages.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bson::{Bson, Timestamp, bson, doc};
use serde_json::{Value, json};

use super::{Work, back::Back, each, of};
use crate::support::{
    FollowerProcess, eventually,
    mongo_ru::{MongoRu, PageFault},
};

/// The arguments for the collection of these tests, with a starting point.
pub fn args(from: &str) -> Vec<&str> {
    [&of("shop", "orders")[..], &["--dialect", "cosmos-ru", "--from", from]].concat()
}

/// Writes documents with these numbers, for a few customers.
pub fn put(server: &MongoRu, numbers: std::ops::Range<i32>, version: i32) {
    for n in numbers {
        let customer = format!("c-{}", n % 11);
        server.put("shop", "orders", &doc! { "_id": n, "customer": customer, "version": version });
    }
}

/// The last version of every document that arrived. Repeated versions must be equal, text included.
pub fn newest(events: &[Value]) -> BTreeMap<i32, i64> {
    let (mut seen, mut newest) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        assert_eq!(event["op"], "upsert", "{event}");
        let text = (event["id"].clone(), event["bson"].clone());
        let before = seen.entry(event["version"].as_str().unwrap().to_owned()).or_insert_with(|| text.clone());
        assert_eq!(*before, text, "one version, two texts");
        let number = |name: &str| event["doc"][name]["$numberInt"].as_str().unwrap().parse::<i64>().unwrap();
        newest.insert(i32::try_from(number("_id")).unwrap(), number("version"));
    }
    newest
}

fn all(numbers: std::ops::Range<i32>, version: i64) -> BTreeMap<i32, i64> {
    numbers.map(|n| (n, version)).collect()
}

#[tokio::test]
async fn the_newest_versions_arrive_as_upserts_and_the_next_run_continues() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..30, 1);
    put(&server, 5..10, 2);
    let work = Work::new();
    work.catch_up(&server.uri(), &args("beginning")).await;
    let mut wanted = all(0..30, 1);
    wanted.extend(all(5..10, 2));
    assert_eq!((newest(&work.events()), work.events().len()), (wanted.clone(), 30));
    let event = work.events().into_iter().find(|event| event["id"] == "7").unwrap();
    assert_eq!((&event["ns"], &event["doc"]["customer"]), (&json!("shop.orders"), &json!("c-7")));
    put(&server, 28..33, 3);
    work.catch_up(&server.uri(), &args("beginning")).await;
    wanted.extend(all(28..33, 3));
    assert_eq!((newest(&work.events()), work.events().len()), (wanted, 35));
}

#[tokio::test]
async fn the_follower_waits_for_a_missing_collection() {
    let server = MongoRu::start().await;
    let work = Work::new();
    let mut follower = work.start(&server.uri(), &args("beginning"));
    let asked = |server: &MongoRu| server.commands().iter().any(|command| command.contains_key("collection"));
    let watched = |server: &MongoRu| server.commands().iter().any(|command| command.contains_key("aggregate"));
    eventually("it has sent a request", async || (asked(&server) || watched(&server)).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..20, 1);
    eventually("everything has arrived", async || (newest(&work.events()).len() == 20).then_some(())).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success(), "{:#?}", follower.log());
    // It started at the beginning of the feed, so a second run does not have to start over.
    put(&server, 20..25, 1);
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!((newest(&work.events()), work.events().len()), (all(0..25, 1), 25));
}

#[tokio::test]
async fn throttled_pages_neither_end_the_follower_nor_lose_changes() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    server.page_size(10);
    put(&server, 0..50, 1);
    let work = Work::new();
    // Before the first page, and between two pages.
    server.fail_next(&[PageFault::Throttled; 5]);
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!((newest(&work.events()), work.events().len()), (all(0..50, 1), 50));
    put(&server, 50..100, 1);
    server.fail_next(&[PageFault::TooManyRequests, PageFault::Throttled, PageFault::TooManyRequests]);
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!(newest(&work.events()), all(0..100, 1));
    assert_eq!(server.faults_left(), 0);
}

/// Request units are budgeted by the second: that the server is asked more often must not count as more quiet.
#[tokio::test]
async fn a_second_of_throttled_pages_does_not_end_the_follower() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..50, 1);
    let work = Work::new();
    // With and without a word of the server about how far it is.
    for version in 1..3 {
        put(&server, 0..50, version);
        server.fail_next(&[PageFault::Throttled; 20]);
        work.catch_up(&server.uri(), &args("beginning")).await;
        assert_eq!((newest(&work.events()), server.faults_left()), (all(0..50, version.into()), 0));
        server.forget_command("customAction");
    }
}

/// Its current number is not the number of any change, as after a delete.
#[tokio::test]
async fn a_partition_without_documents_does_not_keep_the_follower_from_ending() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    put(&server, 0..1, 1);
    let work = Work::new();
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!(newest(&work.events()), all(0..1, 1));
}

/// The number of a delete is above that of every change that the feed shows.
#[tokio::test]
async fn a_partition_in_which_a_delete_came_last_does_not_keep_the_follower_from_ending() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    put(&server, 0..20, 1);
    let orders = super::client(&server.uri()).await.database("shop").collection::<bson::Document>("orders");
    let delete = async |numbers: std::ops::Range<i32>| {
        for n in numbers {
            assert_eq!(orders.delete_one(doc! { "_id": n }).await.unwrap().deleted_count, 1);
        }
    };
    let work = Work::new();
    let read = async || {
        let before = work.events().len();
        work.catch_up(&server.uri(), &args("beginning")).await;
        newest(&work.events()[before..])
    };
    // In one partition, then in both of them; and what comes after the deletes is not passed over.
    delete(7..8).await;
    assert_eq!(read().await, all(0..7, 1).into_iter().chain(all(8..20, 1)).collect());
    put(&server, 30..40, 2);
    delete(8..20).await;
    assert_eq!(read().await, all(30..40, 2));
    assert_eq!(read().await, all(0..0, 1));
    put(&server, 40..45, 1);
    assert_eq!(read().await, all(40..45, 1));
}

/// After an empty page without a token, the driver has lost its position and would start at a new "now".
#[tokio::test]
async fn a_connection_that_breaks_after_a_quiet_time_loses_nothing() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..10, 1);
    let work = Work::new();
    let mut follower = work.start(&server.uri(), &args("now"));
    eventually("it has read several times", async || {
        let read = server.commands().iter().filter(|command| command.contains_key("getMore")).count();
        (read > 4).then_some(())
    })
    .await;
    server.fail_next(&[PageFault::Cut]);
    put(&server, 10..20, 1);
    eventually("the page broke off", async || (server.faults_left() == 0).then_some(())).await;
    put(&server, 20..30, 1);
    eventually("everything has arrived", async || (newest(&work.events()).len() >= 20).then_some(())).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success(), "{:#?}", follower.log());
    assert_eq!(newest(&work.events()), all(10..30, 1));
}

#[tokio::test]
async fn every_partition_is_read_from_its_own_token() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    server.page_size(7);
    put(&server, 0..90, 1);
    let work = Work::new();
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!((newest(&work.events()), work.events().len()), (all(0..90, 1), 90));
    let commands = server.commands();
    let asked = commands.iter().find(|c| c.get_str("customAction").is_ok_and(|name| name == "GetChangeStreamTokens"));
    let begin = asked.expect("it asks for the tokens").get_timestamp("startAtOperationTime");
    assert_eq!(begin.unwrap(), Timestamp { time: 0, increment: 0 });
    put(&server, 80..95, 2);
    work.catch_up(&server.uri(), &args("beginning")).await;
    let mut wanted = all(0..80, 1);
    wanted.extend(all(80..95, 2));
    assert_eq!((newest(&work.events()), work.events().len()), (wanted, 105));
}

#[tokio::test]
async fn the_follower_sends_the_pipeline_that_the_service_requires() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..5, 1);
    let work = Work::new();
    // The filter is applied by the program; the service would refuse it.
    let filtered = [&args("beginning")[..], &["--filter", "doc.version < 0"]].concat();
    work.catch_up(&server.uri(), &filtered).await;
    assert!(work.events().is_empty());
    let commands = server.commands();
    let pipelines: Vec<&Vec<Bson>> = commands.iter().filter_map(|command| command.get_array("pipeline").ok()).collect();
    assert!(!pipelines.is_empty());
    for pipeline in pipelines {
        let match_stage = bson!({ "$match": { "operationType": { "$in": ["insert", "update", "replace"] } } });
        let project = bson!({ "$project": { "_id": 1, "fullDocument": 1, "ns": 1, "documentKey": 1 } });
        assert_eq!(pipeline[1..], [match_stage, project]);
        let stream = pipeline[0].as_document().unwrap().get_document("$changeStream").unwrap();
        assert_eq!(stream.get_str("fullDocument").unwrap(), "updateLookup");
    }
    let names: BTreeSet<&String> = commands.iter().filter_map(|command| command.keys().next()).collect();
    let allowed = ["aggregate", "customAction", "getMore", "killCursors", "listCollections"];
    assert!(names.iter().all(|name| allowed.contains(&name.as_str())), "{names:?}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_with_a_clear_message() {
    let server = MongoRu::of_wire_version(6).await;
    let source = format!("{}&serverSelectionTimeoutMS=500", server.uri());
    let work = Work::new();
    let output = work.follow(&source, &args("beginning")).await;
    assert_ne!(output.code, 0, "{output:?}");
    // The output names the server's version and the required one.
    assert!(output.stderr.contains("4.4") || output.stderr.contains("wire version"), "{output:?}");
    assert!(work.events().is_empty());
}

/// Dates that no other test server accepts, duplicate names, and every BSON number type.
#[tokio::test]
async fn every_byte_of_a_document_is_preserved() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    let far = bson::DateTime::from_millis(i64::MAX);
    let odd = doc! {
        "_id": { "b": 1, "a": [far] }, "nan": f64::from_bits(0x7ff8_0000_0000_0001), "minus": -0.0, "whole": 5.0,
        "long": 5_i64, "symbol": Bson::Symbol("s".into()), "undefined": Bson::Undefined, "$where": "x", "a.b": 1, "": 2,
        "code": Bson::JavaScriptCode("x".into()), "far": far, "nul": "a\u{0}b",
    };
    let mut raw = bson::RawDocumentBuf::try_from(&odd).unwrap();
    raw.append(bson::raw::cstr!("twice"), 1);
    raw.append(bson::raw::cstr!("twice"), 2);
    server.put_raw("shop", "orders", raw.clone());
    let work = Work::new();
    work.catch_up(&server.uri(), &args("beginning")).await;
    let events = work.events();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(each(&events, "bson")[0]).unwrap();
    assert_eq!(bytes, raw.as_bytes());
}

/// The service tells neither the text before nor which fields changed.
#[tokio::test]
async fn no_field_is_known_to_have_changed() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..3, 1);
    let work = Work::new();
    let filter = ["--filter", r#"changed("/version") || doc._id == 0"#];
    let output = work.catch_up(&server.uri(), &[&args("beginning")[..], &filter].concat()).await;
    assert_eq!(newest(&work.events()), all(0..1, 1), "{output:?}");
    assert!(output.stderr.contains("2 without an answer of the filter"), "{output:?}");
}

/// Without its shard key, a document is not found, or another one under the same `_id` is overlooked.
#[tokio::test]
async fn a_busy_server_is_asked_again_for_the_shard_key() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    put(&server, 0..1, 1);
    let back = Back::of(server.uri()).await;
    back.capture().await;
    let at = crate::support::moment().await;
    put(&server, 0..1, 2);
    back.capture().await;
    server.throttle_next("customAction", 2);
    back.ends(0, &["restore", "--id", "0", "--pk", "0", "--at", &at, "--no-stamp", "--yes"]).await;
    let commands = server.commands();
    let update = commands.iter().rev().find(|command| command.contains_key("update")).expect("an update");
    let filter = update.get_array("updates").unwrap()[0].as_document().unwrap().get_document("q").unwrap();
    assert!(filter.contains_key("customer"), "{update}");
}

/// A server that does not hand out a token for each partition puts the positions of all into one.
#[tokio::test]
async fn a_text_that_comes_back_in_any_partition_of_one_stream_is_a_version_of_its_own() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 3);
    server.forget_command("customAction");
    put(&server, 0..6, 1);
    let work = Work::new();
    let follower = work.start(&server.uri(), &args("beginning"));
    let arrived = async |count: usize| {
        eventually("all arrive", async || (work.events().len() == count).then_some(())).await;
    };
    arrived(6).await;
    for n in 0..6_usize {
        for (round, version) in [2, 1, 2, 1].into_iter().enumerate() {
            let number = i32::try_from(n).unwrap();
            put(&server, number..number + 1, version);
            arrived(6 + 4 * n + round + 1).await;
        }
    }
    drop(follower);
    let events = work.events();
    assert_eq!(newest(&events), all(0..6, 1));
    let versions: BTreeSet<&str> = each(&events, "version").into_iter().collect();
    assert_eq!(versions.len(), events.len(), "each is a version of its own: {versions:?}");
}

/// Of three texts the first and the last are the same. The last is not the first delivered again.
#[tokio::test]
async fn a_text_that_comes_back_within_a_second_is_the_newest() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let back = Back::of(server.uri()).await;
    let sinks = ["--name", "f", "--sink", "changes", "--sink", "file:events.jsonl"];
    let args = [&["--source", &back.source], &args("beginning")[..], &sinks].concat();
    let _follower = FollowerProcess::start_in(back.folder(), &args, &back.settings());
    let events = back.folder().join("events.jsonl");
    let put = async |state: &str, arrived: usize| {
        server.put("shop", "orders", &doc! { "_id": "a", "state": state });
        let all = async || (Work::events_in(&events).len() == arrived).then_some(());
        eventually("the text arrives", all).await;
    };
    put("good", 1).await;
    crate::support::moment().await;
    put("bad", 2).await;
    put("good", 3).await;
    let at = crate::support::moment().await;
    let shown = back.ends(0, &["show", "--id", "a", "--at", &at]).await;
    assert!(shown.stdout.contains(r#""state":"good""#), "{shown:?}");
    let plan = back.ends(0, &["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    assert_eq!(plan["plan"]["steps"][0]["action"], "keep", "{plan}");
}

/// What waits does not tell its time: it may have been there at the moment.
#[tokio::test]
async fn a_document_with_a_waiting_change_is_unknown_where_capture_has_not_come_to() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "_id", 1);
    let back = Back::of(server.uri()).await;
    put(&server, 0..3, 1);
    back.capture().await;
    crate::support::moment().await;
    put(&server, 1..2, 2);
    let at = crate::support::moment().await;
    put(&server, 2..3, 2);
    let plan = back.ends(3, &["restore", "--all", "--at", &at, "--dry-run", "--format", "json"]).await;
    let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
    let actions: BTreeMap<&str, &str> = plan["plan"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["id"].as_str().unwrap(), step["action"].as_str().unwrap()))
        .collect();
    assert_eq!(actions, BTreeMap::from([("0", "keep"), ("1", "unknown"), ("2", "unknown")]), "{plan}");
    let file = back.path("backup.jsonl").to_str().unwrap().to_owned();
    back.ends(3, &["backup", "--all", "--at", &at, "--out", &file]).await;
    let saved = std::fs::read_to_string(&file).unwrap();
    assert_eq!((saved.lines().count(), saved.contains(r#""id":"0""#)), (2, true), "{saved}");
    for (id, is_doubtful) in [("0", false), ("1", true)] {
        let shown = back.ends(0, &["show", "--id", id, "--at", &at, "--format", "json"]).await;
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        assert_eq!(shown["doubt"].is_string(), is_doubtful, "{shown}");
    }
}

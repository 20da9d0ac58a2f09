//! A kill must not lose changes: of the follower, of a holder with a stand-by, and of the server.

use std::time::Duration;

use bson::{Document, doc};

use super::{Work, client, of, program, prove, text, write};
use crate::support::{ClosedPort, eventually, mongo_server::MongoServer};

const ORDERS: (&str, &str) = ("shop", "orders");

/// The number of changes; more for a long run.
fn changes() -> usize {
    std::env::var("COSMOS_REWIND_MONGO_CHANGES").map_or(600, |value| value.parse().expect("a number"))
}

#[tokio::test]
async fn a_repeatedly_killed_follower_delivers_every_change_in_order() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let (log, uri, orders, total) = (work.path("log.jsonl"), server.uri(), of("shop", "orders"), changes());
    let args = [&orders[..], &["--from", "beginning"]].concat();
    write(&server, ORDERS, &log, 1, 1).await;
    work.catch_up(&uri, &args).await;
    let (count, pause) = ((total - 1).to_string(), if total > 10_000 { "0" } else { "5" });
    let written = [&uri, "shop", "orders", &text(&log), &count, "2", "--images", "--pause", pause];
    let mut writer = program("write.py", &written).spawn().unwrap();
    let mut kills = 0_u64;
    let size = || std::fs::metadata(work.path("events.jsonl")).map_or(0, |file| file.len());
    while writer.try_wait().unwrap().is_none() {
        let before = size();
        let mut follower = work.start(&uri, &args);
        eventually("it delivers something", async || {
            (size() > before || writer.try_wait().unwrap().is_some()).then_some(())
        })
        .await;
        // Some kills come at once, in the middle of work; others later, between two pages. A long run gets further
        // between kills.
        let longest = if total > 10_000 { 3000 } else { 150 };
        tokio::time::sleep(Duration::from_millis(kills * 37 % longest)).await;
        follower.kill();
        kills += 1;
    }
    assert!(writer.wait().unwrap().success());
    work.catch_up(&uri, &args).await;
    let given = ["--ns", "shop.orders", "--baseline", "1", "--repeats"];
    let (delivered, repeats) = prove(&log, &work.path("events.jsonl"), &given).await;
    println!("{delivered} changes after {kills} kills, {repeats} came again");
    assert!(delivered == total && kills > 2, "{delivered} changes, {kills} kills");
}

#[tokio::test]
async fn a_stand_by_with_the_same_checkpoint_file_takes_over() {
    let Some(server) = MongoServer::start() else { return };
    let work = Work::new();
    let (log, uri) = (work.path("log.jsonl"), server.uri());
    let args = [&of("shop", "orders")[..], &["--from", "beginning", "--lease", "2"]].concat();
    write(&server, ORDERS, &log, 1, 1).await;
    work.catch_up(&uri, &args).await;
    let mut first = work.start(&uri, &args);
    first.wait_for_log("going on from the checkpoint").await;
    let mut second = work.start(&uri, &args);
    second.wait_for_log("standing by").await;
    write(&server, ORDERS, &log, 60, 2).await;
    first.kill();
    write(&server, ORDERS, &log, 60, 3).await;
    second.wait_for_log("going on from the checkpoint").await;
    eventually("everything has arrived", async || {
        let mut seen: Vec<String> = work.events().iter().map(|event| event["version"].to_string()).collect();
        seen.sort_unstable();
        seen.dedup();
        (seen.len() >= 121).then_some(())
    })
    .await;
    second.signal("TERM");
    assert!(second.ended().await.success(), "{:#?}", second.log());
    let given = ["--ns", "shop.orders", "--baseline", "1", "--repeats"];
    assert_eq!(prove(&log, &work.path("events.jsonl"), &given).await.0, 121);
}

#[tokio::test]
async fn following_continues_after_the_server_is_killed_and_restarted() {
    let Some(mut server) = MongoServer::start_with(&["--sync-on-commit", "--oplog-max-entries", "1000000"]) else {
        return;
    };
    let work = Work::new();
    let (log, uri) = (work.path("log.jsonl"), server.uri());
    let args = [&of("shop", "orders")[..], &["--from", "beginning"]].concat();
    write(&server, ORDERS, &log, 1, 1).await;
    work.catch_up(&uri, &args).await;
    let mut follower = work.start(&uri, &args);
    follower.wait_for_log("going on from the checkpoint").await;
    for round in 2..4 {
        write(&server, ORDERS, &log, 60, round).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.start_again();
    }
    write(&server, ORDERS, &log, 60, 4).await;
    eventually("everything has arrived", async || (work.events().len() >= 181).then_some(())).await;
    follower.signal("TERM");
    assert!(follower.ended().await.success(), "{:#?}", follower.log());
    let given = ["--ns", "shop.orders", "--baseline", "1", "--repeats"];
    assert_eq!(prove(&log, &work.path("events.jsonl"), &given).await.0, 181);
}

/// The initial documents have the time of their own read, not that of an earlier read that was killed.
#[tokio::test]
async fn a_restarted_initial_read_has_another_time() {
    let Some(server) = MongoServer::start() else { return };
    let (work, port) = (Work::new(), ClosedPort::take());
    let orders = client(&server.uri()).await.database("shop").collection::<Document>("orders");
    orders.insert_one(doc! { "_id": "a", "n": 1 }).await.unwrap();
    let args = [&of("shop", "orders")[..], &["--from", "beginning"]].concat();
    let nowhere = format!("blob:http://{}/devstoreaccount1/versions", port.address());
    let mut follower = work.start(&server.uri(), &[&args[..], &["--sink", &nowhere]].concat());
    follower.wait_for_log("start of every range saved").await;
    follower.kill();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let moment = chrono::Utc::now().timestamp();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    orders.replace_one(doc! { "_id": "a" }, doc! { "n": 2 }).await.unwrap();
    work.catch_up(&server.uri(), &args).await;
    let events = work.events();
    let read = events.iter().rfind(|event| event["op"] == "baseline").unwrap();
    assert_eq!(read["doc"]["n"]["$numberInt"], "2");
    assert!(read["ts"].as_i64().unwrap() > moment, "{moment}: {read}");
}

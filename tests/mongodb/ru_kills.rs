//! The token of an RU page stands for its end: a checkpoint with it before the whole page is durable would lose the
//! rest.

use std::time::Duration;

use super::{
    Work,
    ru::{args, newest, put},
};
use crate::support::{eventually, mongo_ru::MongoRu};

/// Kills a follower repeatedly, each time a while after its first delivery.
async fn kill_often(server: &MongoRu, work: &Work, kills: u64) {
    let size = || std::fs::metadata(work.path("events.jsonl")).map_or(0, |file| file.len());
    for kill in 0..kills {
        let before = size();
        let mut follower = work.start(&server.uri(), &args("beginning"));
        eventually("it delivers something", async || (size() > before).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(kill * 13 % 60)).await;
        follower.kill();
        // New documents, and newer versions of those already read.
        let kill = i32::try_from(kill).unwrap();
        put(server, kill * 100..kill * 100 + 150, kill + 2);
    }
}

#[tokio::test]
async fn a_kill_between_pages_loses_nothing() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 2);
    server.page_size(10);
    server.page_time(Duration::from_millis(15));
    put(&server, 0..1000, 1);
    let work = Work::new();
    kill_often(&server, &work, 6).await;
    settle(&server, &work, 6).await;
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_page_loses_nothing() {
    let server = MongoRu::start().await;
    server.create("shop", "orders", "customer", 1);
    server.page_size(500);
    put(&server, 0..3000, 1);
    let work = Work::new();
    kill_often(&server, &work, 6).await;
    settle(&server, &work, 6).await;
}

/// Asserts that the last version of every document has arrived and nothing is pending.
async fn settle(server: &MongoRu, work: &Work, kills: i32) {
    work.catch_up(&server.uri(), &args("beginning")).await;
    let found = newest(&work.events());
    let wanted =
        |n: i32| (0..kills).rev().find(|kill| (kill * 100..kill * 100 + 150).contains(&n)).map_or(1, |k| k + 2);
    for (n, version) in &found {
        assert_eq!(*version, i64::from(wanted(*n)), "document {n}");
    }
    let missing: Vec<i32> = (0..1000).filter(|n| !found.contains_key(n)).collect();
    assert!(missing.is_empty(), "{} documents are missing: {missing:?}", missing.len());
    let delivered = work.events().len();
    work.catch_up(&server.uri(), &args("beginning")).await;
    assert_eq!(work.events().len(), delivered);
}

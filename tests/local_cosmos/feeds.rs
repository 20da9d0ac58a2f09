//! The change feeds.

use futures::StreamExt as _;

use std::time::Duration;

use azure_data_cosmos::{
    FeedScope,
    options::{ChangeFeedMode, ChangeFeedOptions, ChangeFeedStartFrom},
};
use cosmos_rewind::local::LocalOptions;
use serde_json::{Value, json};

use super::{
    ALL, LATEST,
    account::{TestAccount, feed_items, queried},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_feed_shows_every_document_once_with_its_lsn() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let client = account.client("events").await;
    for n in 0..3 {
        for id in ["a", "b", "c"] {
            account.upsert(json!({"id": id, "pk": id, "n": n})).await;
        }
    }
    assert_eq!(account.delete("b", "b").await, 204);
    let items = feed_items(&client, ChangeFeedMode::LatestVersion, ChangeFeedStartFrom::Beginning).await;
    let mut seen: Vec<_> = items
        .iter()
        .map(|item| item.current().unwrap())
        .map(|item| {
            (item["id"].as_str().unwrap().to_owned(), item["n"].as_i64().unwrap(), item["_lsn"].as_i64().unwrap())
        })
        .collect();
    seen.sort();
    assert_eq!(seen, [("a".to_owned(), 2, 7), ("c".to_owned(), 2, 9)]);
    let (status, etag, flat) = account.feed(LATEST, &[]).await;
    assert_eq!((status, flat.len(), flat[0]["_lsn"].as_i64()), (200, 2, Some(7)));
    let (status, again, none) = account.feed(LATEST, &[("if-none-match", &etag)]).await;
    assert_eq!((status, none.len(), again), (304, 0, etag));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_all_versions_feed_shows_creates_replaces_and_deletes_with_previous_images() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let (_, now, _) = account.feed(ALL, &[("if-none-match", "*")]).await;
    account.upsert(json!({"id": "a", "pk": "x", "n": 1})).await;
    account.upsert(json!({"id": "a", "pk": "x", "n": 2})).await;
    assert_eq!(account.delete("a", "x").await, 204);
    let (status, _, items) = account.feed(ALL, &[("if-none-match", &now)]).await;
    assert_eq!((status, items.len()), (200, 3));
    let kinds: Vec<_> = items.iter().map(|item| item["metadata"]["operationType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["create", "replace", "delete"]);
    assert_eq!(items[1]["previous"]["n"], 1);
    assert_eq!(items[1]["metadata"]["previousImageLSN"], items[0]["metadata"]["lsn"]);
    assert_eq!((&items[2]["current"], &items[2]["previous"]["n"]), (&json!({}), &json!(2)));
    assert_eq!(items[2]["metadata"]["id"], "a");
    assert_eq!(items[2]["metadata"]["partitionKey"], json!({"pk": "x"}));
    assert_eq!(items[2]["metadata"]["timeToLiveExpired"], false);
    for header in [&[][..], &[("if-modified-since", "Thu, 01 Jan 2026 00:00:00 GMT")][..]] {
        assert_eq!(account.feed(ALL, header).await.0, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_reads_all_versions_from_now_on() {
    let account = TestAccount::start(LocalOptions { partitions: 1, ..LocalOptions::default() }).await;
    let client = account.client("events").await;
    let options = ChangeFeedOptions::default().with_mode(ChangeFeedMode::AllVersionsAndDeletes);
    let mut pages = client
        .query_change_feed::<Value>(FeedScope::full_container(), ChangeFeedStartFrom::Now, Some(options))
        .await
        .unwrap();
    assert!(pages.next().await.unwrap().unwrap().into_items().is_empty());
    account.upsert(json!({"id": "a", "pk": "x", "n": 1})).await;
    account.delete("a", "x").await;
    let items = pages.next().await.unwrap().unwrap().into_items();
    assert_eq!(items.len(), 2);
    assert!(items[1].current().is_none());
    assert_eq!(items[1].previous().unwrap()["n"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_from_before_a_split_continues_in_the_children() {
    let account = TestAccount::start(LocalOptions { partitions: 1, ..LocalOptions::default() }).await;
    for n in 0..20 {
        account.upsert(json!({"id": format!("d{n}"), "pk": format!("p{n}")})).await;
    }
    let range = ("x-ms-documentdb-partitionkeyrangeid", "0");
    let (_, token, before) = account.feed(LATEST, &[range, ("x-ms-max-item-count", "5")]).await;
    assert_eq!(before.len(), 5);
    let children = account.cosmos.split("dev", "events", "0").await.unwrap();
    assert_eq!(children.len(), 2);
    assert_eq!(account.feed(LATEST, &[range, ("if-none-match", &token)]).await.0, 410);
    let mut after = Vec::new();
    for child in &children {
        let range = ("x-ms-documentdb-partitionkeyrangeid", child.as_str());
        let (_, _, items) = account.feed(LATEST, &[range, ("if-none-match", &token)]).await;
        assert!(!items.is_empty(), "the keys are distributed");
        after.extend(items);
    }
    assert_eq!(after.len(), 15);
    let client = account.client("events").await;
    assert_eq!(queried(&client, "SELECT * FROM c", None).await.len(), 20);
    let merged = account.cosmos.merge("dev", "events", &children[0], &children[1]).await.unwrap();
    assert_eq!(account.cosmos.ranges("dev", "events").await.unwrap(), [merged]);
    assert_eq!(account.feed(LATEST, &[]).await.2.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_expire_and_the_feed_says_so() {
    let account = TestAccount::start(LocalOptions { partitions: 3, ..LocalOptions::default() }).await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    account.container(json!({"id": "short", "partitionKey": key, "defaultTtl": 10})).await;
    let client = account.client("short").await;
    assert_eq!(account.cosmos.ranges("dev", "short").await.unwrap().len(), 3);
    client.create_item("x", "a", &json!({"id": "a", "pk": "x"}), None).await.unwrap();
    account.cosmos.advance_clock(Duration::from_secs(11));
    assert!(client.read_item("x", "a", None).await.is_err(), "the container's default applies");

    let description = json!({"id": "events", "partitionKey": key, "defaultTtl": -1}).to_string();
    let answer = account.http.put(account.url("events")).body(description).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let (_, now, _) = account.feed(ALL, &[("if-none-match", "*")]).await;
    account.upsert(json!({"id": "short", "pk": "x", "ttl": 20})).await;
    account.upsert(json!({"id": "long", "pk": "x"})).await;
    account.cosmos.advance_clock(Duration::from_secs(20));
    let client = account.client("events").await;
    assert!(client.read_item("x", "short", None).await.is_err());
    assert!(client.read_item("x", "long", None).await.is_ok());
    let (_, _, items) = account.feed(ALL, &[("if-none-match", &now)]).await;
    assert_eq!(items[2]["metadata"]["operationType"], "delete");
    assert_eq!(items[2]["metadata"]["timeToLiveExpired"], true);
    assert_eq!(items[2]["previous"]["id"], "short");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_starts_at_a_point_in_time() {
    let account = TestAccount::start(LocalOptions::default()).await;
    account.upsert(json!({"id": "a", "pk": "x"})).await;
    let future = "Fri, 01 Jan 2100 00:00:00 GMT";
    assert_eq!(account.feed(LATEST, &[("if-modified-since", future)]).await.0, 304);
    let past = "Sat, 01 Jan 2000 00:00:00 GMT";
    assert_eq!(account.feed(LATEST, &[("if-modified-since", past)]).await.2.len(), 1);
}

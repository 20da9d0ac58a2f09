//! The local account over real HTTP, driven by the Rust SDK.

mod account;
mod feeds;
mod odd;

use futures::StreamExt as _;

use azure_data_cosmos::{
    FeedScope, Query, TransactionalBatch,
    options::{ChangeFeedMode, ChangeFeedStartFrom, ItemWriteOptions, Precondition, QueryOptions},
};
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use serde_json::{Value, json};

use self::account::{TestAccount, feed_items, limit, queried};

const LATEST: &str = "Incremental feed";
const ALL: &str = "Full-Fidelity Feed";

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_creates_reads_replaces_queries_and_deletes() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let client = account.client("events").await;
    for n in 0..20 {
        let item = json!({"id": format!("d{n}"), "pk": format!("p{}", n % 5), "n": n});
        client.upsert_item(format!("p{}", n % 5), &format!("d{n}"), &item, None).await.unwrap();
    }
    let read: Value = client.read_item("p3", "d3", None).await.unwrap().into_model().unwrap();
    assert_eq!(read["n"], 3);
    client.replace_item("p3", "d3", &json!({"id": "d3", "pk": "p3", "n": 300}), None).await.unwrap();
    client.delete_item("p4", "d4", None).await.unwrap();
    assert!(client.read_item("p4", "d4", None).await.is_err());
    let found = queried(&client, "SELECT VALUE c.n FROM c WHERE c.n > 15 ORDER BY c.n DESC", None).await;
    assert_eq!(found, [300, 19, 18, 17, 16].map(Value::from));
    assert_eq!(queried(&client, "SELECT * FROM c", None).await.len(), 19);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_in_a_binary_body_is_reported_to_the_rust_sdk() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let client = account.client("events").await;
    let error = client.create_item("y", "a", &json!({"id": "a", "pk": "x"}), None).await.unwrap_err();
    let status = error.status();
    assert_eq!(u16::from(status.status_code()), 400, "{error}");
    assert_eq!(status.sub_status().map(|sub| u32::from(sub.value())), Some(1001), "{error}");
    assert!(client.read_item("x", "a", None).await.is_err());
    // The condition of an upsert is honoured as well.
    let new = || Some(ItemWriteOptions::default().with_precondition(Precondition::if_none_match("*")));
    client.upsert_item("x", "a", &json!({"id": "a", "pk": "x", "n": 1}), new()).await.unwrap();
    let error = client.upsert_item("x", "a", &json!({"id": "a", "pk": "x", "n": 2}), new()).await.unwrap_err();
    assert_eq!(u16::from(error.status().status_code()), 412, "{error}");
    let stored: Value = client.read_item("x", "a", None).await.unwrap().into_model().unwrap();
    assert_eq!(stored["n"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn result_pages_have_the_requested_size_and_miss_no_item() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let client = account.client("events").await;
    for n in 0..50 {
        account.upsert(json!({"id": format!("d{n}"), "pk": format!("p{n}"), "n": n})).await;
    }
    let three = || Some(QueryOptions::default().with_max_item_count(limit(3)));
    let ordered = queried(&client, "SELECT VALUE c.n FROM c ORDER BY c.n", three()).await;
    assert_eq!(ordered, (0..50).map(Value::from).collect::<Vec<_>>());
    let mut plain: Vec<i64> =
        queried(&client, "SELECT VALUE c.n FROM c", three()).await.iter().map(|n| n.as_i64().unwrap()).collect();
    plain.sort_unstable();
    assert_eq!(plain, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_applied_completely_or_not_at_all_with_one_lsn() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let client = account.client("events").await;
    account.upsert(json!({"id": "old", "pk": "x", "n": 0})).await;
    let batch = TransactionalBatch::new("x")
        .create_item(json!({"id": "a", "pk": "x"}))
        .unwrap()
        .upsert_item(json!({"id": "old", "pk": "x", "n": 1}), None)
        .unwrap()
        .create_item(json!({"id": "old", "pk": "x"}))
        .unwrap();
    let response = client.execute_transactional_batch(batch, None).await.unwrap();
    let results = response.into_model().unwrap();
    let statuses: Vec<u16> = results.results().iter().map(|result| result.status_code()).collect();
    assert_eq!(statuses, [424, 424, 409]);
    assert!(client.read_item("x", "a", None).await.is_err());
    let batch = TransactionalBatch::new("x")
        .create_item(json!({"id": "a", "pk": "x"}))
        .unwrap()
        .create_item(json!({"id": "b", "pk": "x"}))
        .unwrap()
        .delete_item("old", None);
    let response = client.execute_transactional_batch(batch, None).await.unwrap();
    let results = response.into_model().unwrap();
    let statuses: Vec<u16> = results.results().iter().map(|result| result.status_code()).collect();
    assert_eq!(statuses, [201, 201, 204]);
    let (_, _, items) = account.feed(LATEST, &[("x-ms-max-item-count", "1")]).await;
    assert_eq!(items.len(), 2, "a page does not cut a transaction");
    assert_eq!(items[0]["_lsn"], items[1]["_lsn"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_one_refused_write_leaves_nothing_behind() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    let unique = json!({"uniqueKeys": [{"paths": ["/email"]}]});
    account.container(json!({"id": "people", "partitionKey": key, "uniqueKeyPolicy": unique})).await;
    let upsert = |document: Value| json!({"operationType": "Upsert", "resourceBody": document});
    let patch = |path: &str, value: Value| {
        let operations = json!([{"op": "set", "path": path, "value": value}]);
        json!({"operationType": "Patch", "id": "old", "resourceBody": {"operations": operations}})
    };
    for container in ["events", "people"] {
        for (pk, wrong) in [
            (json!("x"), upsert(json!({"id": "b", "pk": "x", "ttl": 0}))),
            (json!("x"), upsert(json!({"id": "b", "pk": "x", "ttl": "soon"}))),
            (json!("x"), upsert(json!({"id": "b", "pk": "x", "ttl": null}))),
            (json!("x"), patch("/ttl", json!(0))),
            (json!("x"), patch("/id", json!("new"))),
            (json!({}), upsert(json!({"id": "b", "pk": [1]}))),
            (json!({}), upsert(json!({"id": "b", "pk": {"a": 1}}))),
        ] {
            let with_pk = |id: &str| match pk.is_string() {
                true => json!({"id": id, "pk": "x", "email": id}),
                false => json!({"id": id, "email": id}),
            };
            let post = async |operations: Value| {
                let request = account.http.post(account.url(&format!("{container}/docs")));
                let request = request.header("x-ms-cosmos-is-batch-request", "True");
                let request = request.header("x-ms-documentdb-partitionkey", json!([pk]).to_string());
                let answer = request.body(operations.to_string()).send().await.unwrap();
                let status = answer.status().as_u16();
                let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
                (status, body)
            };
            assert_eq!(post(json!([upsert(with_pk("old"))])).await.0, 200);
            let (status, results) = post(json!([upsert(with_pk("a")), wrong])).await;
            assert_eq!(status, 207, "{container} {wrong}: {results}");
            assert_eq!((&results[0]["statusCode"], &results[1]["statusCode"]), (&json!(424), &json!(400)), "{results}");
            let client = account.client(container).await;
            let stored = queried(&client, "SELECT VALUE c.id FROM c", None).await;
            assert!(stored.iter().all(|id| *id == "old"), "{container} {wrong}: {stored:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_compared_by_value_only() {
    let account = TestAccount::start(LocalOptions { partitions: 1, ..LocalOptions::default() }).await;
    let client = account.client("events").await;
    for (id, n) in [("a", "1"), ("b", "1.0"), ("c", "0"), ("d", "-0.0"), ("e", "1e0")] {
        account.upsert(serde_json::from_str(&format!(r#"{{"id":"{id}","pk":"x","n":{n}}}"#)).unwrap()).await;
    }
    let found =
        client.query_items::<Value>(Query::from("SELECT DISTINCT VALUE c.n FROM c"), FeedScope::partition("x"), None);
    let found: Vec<f64> = found.await.unwrap().map(|n| n.unwrap().as_f64().unwrap()).collect().await;
    assert_eq!(found, [1.0, 0.0]);
    let texts = queried(&client, "SELECT VALUE ToString([c.n, 2.50]) FROM c WHERE c.n = 1", None).await;
    assert_eq!(texts, ["[1,2.5]", "[1,2.5]", "[1,2.5]"].map(Value::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_a_transaction_completely_or_not_at_all() {
    let account = std::sync::Arc::new(TestAccount::start(LocalOptions::default()).await);
    let writer = tokio::spawn({
        let account = std::sync::Arc::clone(&account);
        async move {
            let client = account.client("events").await;
            for round in 0..20 {
                let mut batch = TransactionalBatch::new("x");
                for n in 0..50 {
                    batch = batch.upsert_item(json!({"id": format!("d{n}"), "pk": "x", "round": round}), None).unwrap();
                }
                client.execute_transactional_batch(batch, None).await.unwrap();
            }
        }
    });
    let client = account.client("events").await;
    while !writer.is_finished() {
        let query = Query::from("SELECT DISTINCT VALUE c.round FROM c");
        let found = client.query_items::<Value>(query, FeedScope::partition("x"), None).await.unwrap();
        let rounds: Vec<Value> = found.map(Result::unwrap).collect().await;
        assert!(rounds.len() <= 1, "{rounds:?}");
    }
    writer.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unique_key_holds_in_a_batch_and_its_writes_reach_the_feed() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    let unique = json!({"uniqueKeys": [{"paths": ["/email"]}]});
    account.container(json!({"id": "people", "partitionKey": key, "uniqueKeyPolicy": unique})).await;
    let client = account.client("people").await;
    let batch = |second: &str| {
        TransactionalBatch::new("x")
            .create_item(json!({"id": format!("1{second}"), "pk": "x", "email": "a"}))
            .unwrap()
            .create_item(json!({"id": format!("2{second}"), "pk": "x", "email": second}))
            .unwrap()
    };
    let failed = client.execute_transactional_batch(batch("a"), None).await.unwrap().into_model().unwrap();
    assert_eq!(failed.results()[1].status_code(), 409);
    let done = client.execute_transactional_batch(batch("b"), None).await.unwrap().into_model().unwrap();
    assert_eq!(done.results()[1].status_code(), 201);
    let items = feed_items(&client, ChangeFeedMode::LatestVersion, ChangeFeedStartFrom::Beginning).await;
    assert_eq!(items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_continues_after_a_split() {
    let account = TestAccount::start(LocalOptions { partitions: 1, ..LocalOptions::default() }).await;
    let client = account.client("events").await;
    for n in 0..40 {
        account.upsert(json!({"id": format!("d{n}"), "pk": format!("p{n}"), "n": n})).await;
    }
    for query in ["SELECT VALUE c.n FROM c", "SELECT VALUE c.n FROM c ORDER BY c.n"] {
        let range = account.cosmos.ranges("dev", "events").await.unwrap().remove(0);
        let options = QueryOptions::default().with_max_item_count(limit(3));
        let mut items =
            client.query_items::<Value>(Query::from(query), FeedScope::full_container(), Some(options)).await.unwrap();
        let mut found = Vec::new();
        while let Some(item) = items.next().await {
            found.push(item.unwrap().as_i64().unwrap());
            if found.len() == 10 {
                account.cosmos.split("dev", "events", &range).await.unwrap();
            }
        }
        found.sort_unstable();
        assert_eq!(found, (0..40).collect::<Vec<_>>(), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_errors_in_the_services_format() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let post = |body: String, headers: &[(&'static str, &'static str)]| {
        let mut request = account.http.post(account.url("events/docs")).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    let key = ("x-ms-documentdb-partitionkey", "[\"x\"]");
    let batch = ("x-ms-cosmos-is-batch-request", "True");
    let long_id = json!({"id": "i".repeat(1024), "pk": "x"}).to_string();
    let huge = json!({"id": "a", "pk": "x", "s": "s".repeat(2 * 1024 * 1024)}).to_string();
    for (body, headers, status) in [
        ("{".to_owned(), vec![key], 400),
        ("{}".to_owned(), vec![key], 400),
        (long_id, vec![key], 400),
        (json!({"id": "", "pk": "x"}).to_string(), vec![key], 400),
        (huge, vec![key], 413),
        ("[{}]".to_owned(), vec![key, batch], 400),
        ("[]".to_owned(), vec![batch], 400),
        (json!({"id": "a", "pk": "x"}).to_string(), vec![("x-ms-documentdb-partitionkey", "no")], 400),
    ] {
        let answer = post(body, &headers).await.unwrap();
        assert_eq!(answer.status(), status);
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert!(body["message"].is_string() && body["code"].is_string(), "{body}");
    }
    assert_eq!(account.feed(LATEST, &[("if-none-match", "nonsense")]).await.0, 400);
    assert_eq!(account.feed("no mode", &[]).await.0, 400);
    let missing = account.http.get(account.url("nothing/docs/x")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert_eq!(account.feed(LATEST, &[]).await.0, 304, "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_reported_with_the_fix() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let port = account.cosmos.endpoint().port().unwrap();
    let error = LocalCosmos::start(LocalOptions { port, ..LocalOptions::default() }).await.unwrap_err();
    assert!(error.to_string().contains(&port.to_string()), "{error}");
    account.cosmos.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prefix_of_a_hierarchical_key_selects_its_documents() {
    let account = TestAccount::start(LocalOptions::default()).await;
    account
        .container(json!({"id": "tree", "partitionKey": {"paths": ["/a", "/b"], "kind": "MultiHash", "version": 2}}))
        .await;
    let client = account.client("tree").await;
    for n in 0..12 {
        let (a, b) = (format!("a{}", n % 3), format!("b{n}"));
        let item = json!({"id": format!("d{n}"), "a": a, "b": b});
        client.create_item((a, b), &format!("d{n}"), &item, None).await.unwrap();
    }
    let options = QueryOptions::default().with_max_item_count(limit(2));
    let mut found = client
        .query_items::<Value>(Query::from("SELECT * FROM c"), FeedScope::partition("a1"), Some(options))
        .await
        .unwrap();
    let mut count = 0;
    while let Some(item) = found.next().await {
        assert_eq!(item.unwrap()["a"], "a1");
        count += 1;
    }
    assert_eq!(count, 4);
}

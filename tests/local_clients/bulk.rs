//! Requests with independent operations, as sent by the SDKs' bulk modes.

use serde_json::{Value, json};

use super::client::{Answer, Client};

/// Sends operations to a partition key range.
async fn bulk(client: &Client, range: &str, more: &[(&str, &str)], operations: &Value) -> Answer {
    let headers = [
        ("x-ms-cosmos-is-batch-request", "True"),
        ("x-ms-cosmos-batch-atomic", "False"),
        ("x-ms-documentdb-partitionkeyrangeid", range),
    ];
    client.create(operations.clone(), &[&headers, more].concat()).await
}

fn create(id: &str, key: &str) -> Value {
    let document = json!({"id": id, "pk": key});
    json!({"operationType": "Create", "partitionKey": json!([key]).to_string(), "resourceBody": document})
}

/// The status and sub-status of each operation.
fn statuses(answer: &Answer) -> Vec<(u64, u64)> {
    let results = answer.body.as_array().unwrap_or_else(|| panic!("{} {}", answer.status, answer.body));
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    results.iter().map(|result| (number(&result["statusCode"]), number(&result["subStatusCode"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_a_bulk_request_has_its_own_status() {
    let client = Client::with_events(1).await;
    let made = client.create(json!({"id": "old", "pk": "x", "n": 1}), &[]).await;
    let etag = made.body["_etag"].as_str().unwrap();
    let range = client.cosmos.ranges("dev", "events").await.unwrap().remove(0);
    let on_old = |kind: &str, etag: &str, n: u32| {
        let document = json!({"id": "old", "pk": "x", "n": n});
        json!({"operationType": kind, "partitionKey": "[\"x\"]", "id": "old", "ifMatch": etag, "resourceBody": document})
    };
    let mut no_key = create("d", "x");
    no_key.as_object_mut().unwrap().remove("partitionKey");
    let mut other_key = create("e", "x");
    other_key["partitionKey"] = "[\"y\"]".into();
    let mut two_keys = create("f", "x");
    two_keys["partitionKey"] = "[\"x\",\"y\"]".into();
    let operations = json!([
        create("a", "x"),
        create("old", "x"),
        on_old("Replace", "\"stale\"", 2),
        on_old("Replace", etag, 3),
        {"operationType": "Delete", "partitionKey": "[\"x\"]", "id": "missing"},
        {"operationType": "Read", "partitionKey": ["x"], "id": "old"},
        no_key,
        other_key,
        two_keys,
        create("b", "y"),
    ]);
    let answer = bulk(&client, &range, &[("x-ms-cosmos-batch-continue-on-error", "True")], &operations).await;
    assert_eq!(answer.status, 207);
    let expected =
        [(201, 0), (409, 0), (412, 0), (200, 0), (404, 0), (200, 0), (400, 0), (400, 1001), (400, 1001), (201, 0)];
    assert_eq!(statuses(&answer), expected);
    assert_eq!(answer.body[5]["resourceBody"]["n"], 3);
    assert_eq!(answer.body[5]["eTag"], answer.body[3]["eTag"], "the read returns the written item");
    assert!(answer.body[0]["requestCharge"].as_f64().unwrap() > 0.0);
    let ids = client.query("SELECT VALUE c.id FROM c ORDER BY c.id").await;
    assert_eq!(ids.documents(), &[json!("a"), json!("b"), json!("old")]);
    let operations = json!([create("c", "x"), create("old", "x"), create("g", "x")]);
    let answer = bulk(&client, &range, &[("x-ms-cosmos-batch-continue-on-error", "False")], &operations).await;
    assert_eq!(statuses(&answer), [(201, 0), (409, 0), (424, 0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_outside_the_named_range_is_refused_with_gone() {
    let client = Client::with_events(2).await;
    let documents: Vec<Value> = (0..20).map(|n| create(&format!("d{n}"), &format!("p{n}"))).collect();
    let ranges = client.cosmos.ranges("dev", "events").await.unwrap();
    let gone = (410, 1002);
    let first = bulk(&client, &ranges[0], &[], &json!(documents)).await;
    let second = bulk(&client, &ranges[1], &[], &json!(documents)).await;
    assert_eq!((first.status, second.status), (207, 207));
    let (first, second) = (statuses(&first), statuses(&second));
    for both in first.iter().zip(&second) {
        assert!(matches!(both, ((201, 0), &there) | (&there, (201, 0)) if there == gone), "{both:?}");
    }
    assert!(first.contains(&gone) && second.contains(&gone), "twenty keys are in both ranges");
    let ids = client.query("SELECT VALUE c.id FROM c").await;
    assert_eq!(ids.documents().len(), 20, "each was applied once");
    let children = client.cosmos.split("dev", "events", &ranges[0]).await.unwrap();
    let late = bulk(&client, &ranges[0], &[], &json!([create("late", "p0")])).await;
    assert_eq!((late.status, late.header("x-ms-substatus")), (410, "1002"), "{}", late.body);
    // A read is refused as well.
    let read = json!([{"operationType": "Read", "partitionKey": "[\"p0\"]", "id": "d0"}]);
    let mut found = Vec::new();
    for range in children.iter().chain(&ranges[1..]) {
        found.extend(statuses(&bulk(&client, range, &[], &read).await));
    }
    found.sort_unstable();
    assert_eq!(found, [(200, 0), gone, gone]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bulk_requests_go_on_while_ranges_are_split() {
    let client = Client::with_events(1).await;
    let ranges = async || client.cosmos.ranges("dev", "events").await.unwrap();
    let writes = async {
        for round in 0..12 {
            let mut pending: Vec<Value> =
                (0..100).map(|n| create(&format!("d{round}-{n}"), &format!("p{n}"))).collect();
            while !pending.is_empty() {
                for range in ranges().await {
                    // Every range gets all pending operations and accepts its own.
                    let answer = bulk(&client, &range, &[], &json!(pending)).await;
                    if answer.status == 410 {
                        continue;
                    }
                    let statuses = statuses(&answer);
                    let known = |status: &(u64, u64)| matches!(status, (201, 0) | (410, 1002 | 1007));
                    assert!(statuses.iter().all(known), "{}", answer.body);
                    let mut statuses = statuses.into_iter();
                    pending.retain(|_| statuses.next().is_some_and(|(status, _)| status == 410));
                    if pending.is_empty() {
                        break;
                    }
                }
            }
        }
    };
    let splits = async {
        for _ in 0..5 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            client.cosmos.split("dev", "events", &ranges().await[0]).await.unwrap();
        }
    };
    tokio::join!(writes, splits);
    assert_eq!(ranges().await.len(), 6);
    let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", "\"0\"")];
    let feed = client.send("GET", "/dbs/dev/colls/events/docs", &headers, Vec::new()).await;
    assert_eq!(feed.documents().len(), 1200, "each was written once");
}

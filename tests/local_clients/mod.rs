//! The requests of Microsoft's .NET client, one by one (`tests/fixtures/dotnet-requests.jsonl`), and further requests
//! to the local account that no SDK in these tests makes. The expected responses are the documented ones.

mod bulk;
mod client;
mod dotnet;

use serde_json::{Value, json};

use self::client::Client;

#[tokio::test(flavor = "multi_thread")]
async fn a_query_plan_leads_to_the_right_result() {
    let client = Client::with_events(3).await;
    for n in 0..30 {
        client.create(json!({"id": format!("d{n}"), "pk": format!("p{n}"), "n": n, "s": n % 3}), &[]).await;
    }
    // What a client does with a plan: query every partition with the rewritten text and merge the results.
    let ranges = client.cosmos.ranges("dev", "events").await.unwrap();
    let ask = async |query: &str| {
        let headers = [
            ("x-ms-cosmos-is-query-plan-request", "True"),
            ("x-ms-cosmos-supported-query-features", "Aggregate, GroupBy, NonValueAggregate"),
        ];
        let body = json!({"query": query}).to_string().into_bytes();
        let plan = client.send("POST", "/dbs/dev/colls/events/docs", &headers, body).await;
        assert_eq!(plan.status, 200, "{}", plan.body);
        let rewritten = plan.body["queryInfo"]["rewrittenQuery"].as_str().unwrap().to_owned();
        let mut rows = Vec::new();
        for range in &ranges {
            let headers =
                [("x-ms-documentdb-isquery", "True"), ("x-ms-documentdb-partitionkeyrangeid", range.as_str())];
            let body = json!({"query": rewritten}).to_string().into_bytes();
            let answer = client.send("POST", "/dbs/dev/colls/events/docs", &headers, body).await;
            rows.extend(answer.documents().clone());
        }
        rows
    };
    let rows = ask("SELECT VALUE AVG(c.n) FROM c WHERE c.n < 20").await;
    let part = |row: &Value, name: &str| row[0]["item"][name].as_f64().unwrap();
    let sum: f64 = rows.iter().map(|row| part(row, "sum")).sum();
    let count: f64 = rows.iter().map(|row| part(row, "count")).sum();
    assert_eq!((sum, count), (190.0, 20.0));
    let rows = ask("SELECT c.s, COUNT(1) AS n FROM c GROUP BY c.s").await;
    let twos = rows.iter().filter(|row| row["groupByItems"][0]["item"] == 2);
    assert_eq!(twos.map(|row| row["payload"]["n"]["item"].as_u64().unwrap()).sum::<u64>(), 10);
    let rows = ask("SELECT VALUE MAX(c.n) FROM c WHERE c.id = 'd7'").await;
    let counts: Vec<u64> = rows.iter().map(|row| row[0]["item2"]["count"].as_u64().unwrap()).collect();
    assert_eq!(counts.iter().sum::<u64>(), 1, "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_over_all_partitions_is_left_to_the_client_or_refused() {
    let client = Client::with_events(2).await;
    let refused = client.query("SELECT * FROM c ORDER BY c.n").await;
    assert_eq!((refused.status, refused.header("x-ms-substatus")), (400, "1004"));
    let plan: Value = serde_json::from_str(refused.body["additionalErrorInfo"].as_str().unwrap()).unwrap();
    assert_eq!(plan["queryInfo"]["orderBy"], json!(["Ascending"]));
    assert_eq!(client.query("SELECT * FROM c").await.status, 200);
    assert_eq!(client.query("SELECT VALUE COUNT(1) FROM c WHERE c.pk = 'x'").await.status, 200);
    for unknown in ["SELECT VALUE ST_DISTANCE(c.a, c.b) FROM c", "SELECT VALUE udf.f(c.a) FROM c"] {
        let refused = client.query(unknown).await;
        assert_eq!(refused.status, 400);
        assert!(refused.body["message"].as_str().unwrap().contains("does not evaluate"), "{}", refused.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_key_that_does_not_fit_is_reported_with_sub_status_1001() {
    let client = Client::with_events(2).await;
    let key = |text: &'static str| [("x-ms-documentdb-partitionkey", text)];
    let document = || json!({"id": "a", "pk": "x"});
    for wrong in ["[\"y\"]", "[\"x\",\"y\"]", "[1]", "[{}]"] {
        let refused = client.create(document(), &key(wrong)).await;
        assert_eq!((refused.status, refused.header("x-ms-substatus")), (400, "1001"), "{wrong}");
    }
    assert_eq!(client.create(document(), &key("[\"x\"]")).await.status, 201);
    let path = "/dbs/dev/colls/events/docs/a";
    for (method, body) in [("GET", Vec::new()), ("PUT", document().to_string().into_bytes()), ("DELETE", Vec::new())] {
        let refused = client.send(method, path, &key("[\"x\",\"y\"]"), body).await;
        assert_eq!((refused.status, refused.header("x-ms-substatus")), (400, "1001"), "{method}");
    }
    let batch = json!([{"operationType": "Create", "resourceBody": {"id": "b", "pk": "other"}}]);
    let headers = [("x-ms-cosmos-is-batch-request", "True"), ("x-ms-documentdb-partitionkey", "[\"x\"]")];
    let answer = client.create(batch, &headers).await;
    assert_eq!((&answer.body[0]["statusCode"], &answer.body[0]["subStatusCode"]), (&json!(400), &json!(1001)));
    assert_eq!(client.query("SELECT VALUE c.id FROM c").await.documents(), &[json!("a")], "nothing else was stored");
}

/// By the sub-status a client tells a document that is gone from a container that is.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_gone_is_reported_with_sub_status_1003() {
    let client = Client::with_events(2).await;
    let key = [("x-ms-documentdb-partitionkey", "[\"x\"]")];
    let path = "/dbs/dev/colls/events/docs/a";
    let absent = client.send("GET", path, &key, Vec::new()).await;
    assert_eq!((absent.status, absent.header("x-ms-substatus")), (404, ""));
    assert_eq!(client.send("DELETE", "/dbs/dev/colls/events", &[], Vec::new()).await.status, 204);
    for (method, body) in [("GET", ""), ("PUT", r#"{"id":"a","pk":"x"}"#), ("DELETE", "")] {
        let gone = client.send(method, path, &key, body.into()).await;
        assert_eq!((gone.status, gone.header("x-ms-substatus")), (404, "1003"), "{method}");
    }
    assert_eq!(client.query("SELECT * FROM c").await.header("x-ms-substatus"), "1003");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_its_ranges_and_its_items_are_found_by_resource_id() {
    let client = Client::with_events(2).await;
    let made = client.create(json!({"id": "a/b", "pk": "x"}), &[]).await;
    let link = format!("/{}", made.body["_self"].as_str().unwrap());
    let collection = link.split("/docs/").next().unwrap().to_owned();
    let key = [("x-ms-documentdb-partitionkey", "[\"x\"]")];
    for (path, headers, id) in [(&collection, &[][..], "events"), (&link, &key[..], "a/b")] {
        let found = client.send("GET", path, headers, Vec::new()).await;
        assert_eq!((found.status, found.body["id"].as_str()), (200, Some(id)), "{path}");
    }
    let ranges = client.send("GET", &format!("{collection}/pkranges"), &[], Vec::new()).await;
    assert_eq!(ranges.body["PartitionKeyRanges"].as_array().unwrap().len(), 2);
    // In a link of names, the same text is a name.
    let rid = made.body["_rid"].as_str().unwrap();
    client.create(json!({"id": rid, "pk": "x", "n": 7}), &[]).await;
    let by_name = client.send("GET", &format!("/dbs/dev/colls/events/docs/{rid}"), &key, Vec::new()).await;
    assert_eq!(by_name.body["n"], 7);
    assert_eq!(client.send("DELETE", &link, &key, Vec::new()).await.status, 204);
    assert_eq!(client.send("GET", "/dbs/AAAAfw==/colls/AAAAf4AAAAI=", &[], Vec::new()).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_continues_from_an_lsn_in_a_range_and_in_a_part_of_one() {
    let client = Client::with_events(2).await;
    for n in 0..20 {
        client.create(json!({"id": format!("d{n}"), "pk": format!("p{n}")}), &[]).await;
    }
    let ranges = client.send("GET", "/dbs/dev/colls/events/pkranges", &[], Vec::new()).await;
    let ranges = ranges.body["PartitionKeyRanges"].as_array().unwrap().clone();
    for mode in ["Incremental Feed", "Full-Fidelity Feed"] {
        let read = async |headers: &[(&str, &str)]| {
            let all = [&[("a-im", mode), ("if-none-match", "\"12\"")], headers].concat();
            let answer = client.send("GET", "/dbs/dev/colls/events/docs", &all, Vec::new()).await;
            let etag = answer.header("etag").to_owned();
            assert!(matches!(answer.status, 200 | 304), "{} {}", answer.status, answer.body);
            (answer.body["Documents"].as_array().map_or(0, Vec::len), etag)
        };
        let mut by_range = 0;
        let mut by_halves = 0;
        for range in &ranges {
            let (id, min, max) = (&range["id"], &range["minInclusive"], &range["maxExclusive"]);
            let (id, min, max) = (id.as_str().unwrap(), min.as_str().unwrap(), max.as_str().unwrap());
            let (found, etag) = read(&[("x-ms-documentdb-partitionkeyrangeid", id)]).await;
            assert_eq!(etag, "\"20\"");
            by_range += found;
            let middle = if min.is_empty() { "0F00000000000000".to_owned() } else { "3000000000000000".to_owned() };
            for (from, to) in [(min, middle.as_str()), (middle.as_str(), max)] {
                let headers = [
                    ("x-ms-documentdb-partitionkeyrangeid", id),
                    ("x-ms-start-epk", from),
                    ("x-ms-end-epk", to),
                    ("x-ms-read-key-type", "EffectivePartitionKeyRange"),
                ];
                by_halves += read(&headers).await.0;
            }
        }
        assert_eq!((by_range, by_halves), (8, 8), "{mode}: everything after LSN 12, each item once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_the_service_refuses_are_refused_here() {
    let client = Client::with_events(1).await;
    for ttl in [json!(0), json!(-2), json!("5"), json!(1.5), Value::Null] {
        let refused = client.create(json!({"id": "t", "pk": "x", "ttl": ttl}), &[]).await;
        assert_eq!(refused.status, 400, "{ttl}");
    }
    let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
    for (wrong, word) in [
        (json!({"id": "c", "partitionKey": key, "defaultTtl": 0}), "defaultTtl"),
        (json!({"id": "a/b", "partitionKey": key}), "name"),
        (
            json!({"id": "c", "partitionKey": {"paths": ["/a", "/b", "/c", "/d"], "kind": "MultiHash", "version": 2}}),
            "paths",
        ),
        (json!({"id": "c", "partitionKey": key, "computedProperties": [{"name": "x"}]}), "computedProperties"),
    ] {
        let refused = client.send("POST", "/dbs/dev/colls", &[], wrong.to_string().into_bytes()).await;
        assert_eq!(refused.status, 400, "{wrong}");
        assert!(refused.body["message"].as_str().unwrap().contains(word), "{}", refused.body);
    }
    let upsert = ("x-ms-documentdb-is-upsert", "True");
    let new = ("if-none-match", "*");
    assert_eq!(client.create(json!({"id": "a", "pk": "x", "n": 1}), &[upsert, new]).await.status, 201);
    assert_eq!(client.create(json!({"id": "a", "pk": "x", "n": 2}), &[upsert, new]).await.status, 412);
    assert_eq!(client.query("SELECT VALUE c.n FROM c").await.documents(), &[json!(1)]);
    let trigger = ("x-ms-documentdb-pre-trigger-include", "t");
    assert_eq!(client.create(json!({"id": "b", "pk": "x"}), &[trigger]).await.status, 501);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_by_partition_key_is_in_the_feed() {
    let client = Client::with_events(2).await;
    for (id, pk) in [("a", "x"), ("b", "x"), ("c", "y")] {
        client.create(json!({"id": id, "pk": pk}), &[]).await;
    }
    let key = [("x-ms-documentdb-partitionkey", "[\"x\"]")];
    let path = "/dbs/dev/colls/events/operations/partitionkeydelete";
    assert_eq!(client.send("POST", path, &key, Vec::new()).await.status, 200);
    assert_eq!(client.query("SELECT VALUE c.id FROM c").await.documents(), &[json!("c")]);
    let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", "\"3\"")];
    let feed = client.send("GET", "/dbs/dev/colls/events/docs", &headers, Vec::new()).await;
    let deleted: Vec<&str> = feed.documents().iter().map(|item| item["metadata"]["id"].as_str().unwrap()).collect();
    assert_eq!(deleted, ["a", "b"]);
    assert_eq!(client.send("POST", path, &[], Vec::new()).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_come_with_a_query_that_asks_for_them() {
    let client = Client::with_events(1).await;
    client.create(json!({"id": "a", "pk": "x"}), &[]).await;
    let headers = [
        ("x-ms-documentdb-isquery", "True"),
        ("x-ms-documentdb-partitionkey", "[\"x\"]"),
        ("x-ms-documentdb-populatequerymetrics", "True"),
    ];
    let body = json!({"query": "SELECT * FROM c"}).to_string().into_bytes();
    let answer = client.send("POST", "/dbs/dev/colls/events/docs", &headers, body).await;
    let metrics = answer.header("x-ms-documentdb-query-metrics");
    assert!(
        metrics.contains("outputDocumentCount=1;") && metrics.split(';').all(|part| part.contains('=')),
        "{metrics}"
    );
    assert_eq!(answer.header("x-ms-activity-id").len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_may_change_an_items_id() {
    let client = Client::with_events(1).await;
    let key = ("x-ms-documentdb-partitionkey", "[\"x\"]");
    client.create(json!({"id": "a", "pk": "x", "n": 1}), &[]).await;
    let path = "/dbs/dev/colls/events/docs/a";
    let renamed =
        client.send("PUT", path, &[key], json!({"id": "b", "pk": "x", "n": 2}).to_string().into_bytes()).await;
    assert_eq!((renamed.status, &renamed.body["id"]), (200, &json!("b")));
    let batch = json!([{"operationType": "Replace", "id": "b", "resourceBody": {"id": "c", "pk": "x", "n": 3}}]);
    let done = client.create(batch, &[key, ("x-ms-cosmos-is-batch-request", "True")]).await;
    assert_eq!((done.status, &done.body[0]["statusCode"]), (200, &json!(200)), "{}", done.body);
    assert_eq!(client.query("SELECT c.id, c.n FROM c").await.documents(), &[json!({"id": "c", "n": 3})]);
    assert_eq!(client.send("GET", path, &[key], Vec::new()).await.status, 404);
    let headers = [("a-im", "Full-Fidelity Feed"), ("if-none-match", "\"0\"")];
    let feed = client.send("GET", "/dbs/dev/colls/events/docs", &headers, Vec::new()).await;
    let seen: Vec<_> = feed
        .documents()
        .iter()
        .map(|item| (&item["metadata"]["operationType"], &item["current"]["id"], &item["previous"]["id"]))
        .collect();
    let (a, b, c, none) = (json!("a"), json!("b"), json!("c"), Value::Null);
    let (create, replace) = (json!("create"), json!("replace"));
    assert_eq!(seen, [(&create, &a, &none), (&replace, &b, &a), (&replace, &c, &b)]);
}

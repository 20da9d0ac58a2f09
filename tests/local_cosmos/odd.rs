//! Documents and containers that an emulator easily gets wrong. Requests are plain HTTP, so that no client corrects
//! them.

use std::time::{Duration, Instant};

use cosmos_rewind::local::LocalOptions;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::account::TestAccount;

/// Sends a request with its path exactly as given; returns status and body.
async fn raw(account: &TestAccount, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
    let endpoint: url::Url = account.cosmos.endpoint().as_str().parse().unwrap();
    let host = format!("{}:{}", endpoint.host_str().unwrap(), endpoint.port().unwrap());
    let mut stream = TcpStream::connect(&host).await.unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} /dbs/dev/colls/{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let begin = body.find(['{', '[']).unwrap_or(body.len());
    let end = body.rfind(['}', ']']).map_or(begin, |end| end + 1);
    // A body that is too deep for the parser is compared as text.
    (status, serde_json::from_str(&body[begin..end]).unwrap_or_default())
}

const KEY: (&str, &str) = ("x-ms-documentdb-partitionkey", "[\"p\"]");

/// The ids of the documents in a container, from its read feed.
async fn ids(account: &TestAccount, container: &str) -> Vec<String> {
    let answer = account.http.get(account.url(&format!("{container}/docs"))).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // Documents may be too deep for the parser.
    let text = answer.text().await.unwrap();
    let mut ids: Vec<String> =
        text.split("{\"id\":\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn items_with_dots_as_ids_are_items_and_do_not_endanger_the_container() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let description =
        json!({"id": "brief", "defaultTtl": -1, "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    account.container(description).await;
    for id in [".", "..", "other"] {
        let (status, _) =
            raw(&account, "POST", "events/docs", &[KEY], &json!({"id": id, "pk": "p", "n": 1}).to_string()).await;
        assert_eq!(status, 201, "{id}");
        let (status, _) =
            raw(&account, "POST", "brief/docs", &[KEY], &json!({"id": id, "pk": "p", "ttl": 1}).to_string()).await;
        assert_eq!(status, 201, "{id}");
    }
    for (id, path) in [(".", "%2E"), ("..", "%2E%2E"), ("..", "%2e.")] {
        let path = format!("events/docs/{path}");
        let (status, read) = raw(&account, "GET", &path, &[KEY], "").await;
        assert_eq!((status, &read["id"]), (200, &json!(id)), "{path}");
        let replaced = json!({"id": id, "pk": "p", "n": 2}).to_string();
        let (status, stale) = raw(&account, "PUT", &path, &[KEY, ("if-match", "\"stale\"")], &replaced).await;
        assert_eq!(status, 412, "{stale}");
        let (status, written) = raw(&account, "PUT", &path, &[KEY], &replaced).await;
        assert_eq!((status, &written["n"]), (200, &json!(2)), "{written}");
        let patch = json!({"operations": [{"op": "incr", "path": "/n", "value": 5}]}).to_string();
        let (status, patched) = raw(&account, "PATCH", &path, &[KEY], &patch).await;
        assert_eq!((status, &patched["n"]), (200, &json!(7)), "{patched}");
    }
    // A client that omits the id does not mean the container.
    for (method, path, body) in [
        ("DELETE", "events", ""),
        ("DELETE", "events/docs", ""),
        ("PUT", "events", "{\"id\":\"..\",\"pk\":\"p\"}"),
        ("PUT", "events/docs", "{\"id\":\".\",\"pk\":\"p\"}"),
    ] {
        let (status, refused) = raw(&account, method, path, &[KEY], body).await;
        let message = refused["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((status, message.contains("a way up")), (400, true), "{method} {path}: {refused}");
    }
    assert_eq!(ids(&account, "events").await, [".", "..", "other"]);
    for path in ["%2E", "%2E%2E"] {
        assert_eq!(raw(&account, "DELETE", &format!("events/docs/{path}"), &[KEY], "").await.0, 204, "{path}");
        assert_eq!(raw(&account, "DELETE", &format!("events/docs/{path}"), &[KEY], "").await.0, 404, "{path}");
    }
    assert_eq!(ids(&account, "events").await, ["other"]);
    // In a batch, which has the id in its body, and on expiry.
    let batch = [KEY, ("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let create = |id: &str| json!({"operationType": "Create", "resourceBody": {"id": id, "pk": "p"}});
    let operations = json!([create(".."), {"operationType": "Delete", "id": ".."}, create(".")]);
    let (status, done) = raw(&account, "POST", "events/docs", &batch, &operations.to_string()).await;
    assert_eq!((status, &done[1]["statusCode"]), (200, &json!(204)), "{done}");
    assert_eq!(ids(&account, "events").await, [".", "other"]);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(ids(&account, "brief").await, [""; 0]);
    let (status, _) = raw(&account, "POST", "brief/docs", &[KEY], "{\"id\":\"next\",\"pk\":\"p\"}").await;
    assert_eq!((status, ids(&account, "brief").await), (201, vec!["next".to_owned()]), "the container still exists");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_may_be_as_deep_as_the_service_allows() {
    let account = TestAccount::start(LocalOptions::default()).await;
    // The document itself counts as a level.
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    let document =
        |id: &str, levels: usize| format!("{{\"id\":\"{id}\",\"pk\":\"p\",\"n\":1.50,\"d\":{}}}", nested(levels));
    for (levels, status) in [(64, 201), (127, 201), (128, 201), (129, 400), (5000, 400)] {
        let id = levels.to_string();
        assert_eq!(raw(&account, "POST", "events/docs", &[KEY], &document(&id, levels)).await.0, status, "{levels}");
    }
    let batch = [KEY, ("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    for (levels, status) in [(128, 200), (129, 207)] {
        let body =
            format!("[{{\"operationType\":\"Create\",\"resourceBody\":{}}}]", document(&format!("b{levels}"), levels));
        assert_eq!(raw(&account, "POST", "events/docs", &batch, &body).await.0, status, "batch of {levels}");
    }
    assert_eq!(ids(&account, "events").await, ["127", "128", "64", "b128"]);
    let read = account.http.get(account.url("events/docs/128")).header(KEY.0, KEY.1).send().await.unwrap();
    let text = read.text().await.unwrap();
    assert!(text.contains(&nested(128)), "{text}");
    let query = "{\"query\":\"SELECT VALUE c.id FROM c WHERE c.n = 1.5 AND IS_ARRAY(c.d)\"}";
    let headers = [KEY, ("x-ms-documentdb-isquery", "True"), ("content-type", "application/query+json")];
    let (status, found) = raw(&account, "POST", "events/docs", &headers, query).await;
    assert_eq!((status, found["Documents"].as_array().map(Vec::len)), (200, Some(4)), "{found}");
    let (status, _, feed) = account.feed("Incremental feed", &[]).await;
    assert!(status == 200 || feed.is_empty());
    let patch = json!({"operations": [{"op": "set", "path": "/n", "value": 2}]}).to_string();
    assert_eq!(raw(&account, "PATCH", "events/docs/128", &[KEY], &patch).await.0, 200);
    assert_eq!(account.delete("128", "p").await, 204);
    assert_eq!(ids(&account, "events").await, ["127", "64", "b128"]);
}

/// As the limits of the service say: 2,048 bytes, and not characters.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_key_that_is_too_long_is_refused_in_every_kind_of_request() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let batch = [("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    for (key, expected) in
        [("k".repeat(2048), 201), ("k".repeat(2049), 400), ("é".repeat(1024), 201), ("é".repeat(1025), 400)]
    {
        let header = format!("[\"{}\"]", key.replace('é', "\\u00e9"));
        let header = ("x-ms-documentdb-partitionkey", header.as_str());
        let document = |id: &str| json!({"id": id, "pk": key});
        let single = raw(&account, "POST", "events/docs", &[header], &document("a").to_string()).await;
        assert_eq!(single.0, expected, "{}", single.1);
        let operations = json!([{"operationType": "Create", "resourceBody": document("b")}]).to_string();
        let together = raw(&account, "POST", "events/docs", &[&[header][..], &batch].concat(), &operations).await;
        assert_eq!(together.0, if expected == 201 { 200 } else { 400 }, "{}", together.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_etag_fulfils_an_asterisk() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let any = ("if-match", "*");
    let (path, document) = ("events/docs/a", "{\"id\":\"a\",\"pk\":\"p\"}");
    let patch = json!({"operations": [{"op": "set", "path": "/n", "value": 1}]}).to_string();
    let requests = [("PUT", document, 200), ("PATCH", patch.as_str(), 200), ("DELETE", "", 204)];
    for (method, body, _) in requests {
        assert_eq!(raw(&account, method, path, &[KEY, any], body).await.0, 404, "{method} of nothing");
    }
    assert_eq!(raw(&account, "POST", "events/docs", &[KEY], document).await.0, 201);
    for (method, body, status) in requests {
        assert_eq!(raw(&account, method, path, &[KEY, ("if-match", "\"other\"")], body).await.0, 412, "{method}");
        assert_eq!(raw(&account, method, path, &[KEY, any], body).await.0, status, "{method}");
    }
}

/// An empty object as a key value means that the item has no key value, as if the field were missing. Any other object
/// is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_object_as_a_key_counts_as_a_missing_key() {
    let account = TestAccount::start(LocalOptions::default()).await;
    let none = ("x-ms-documentdb-partitionkey", "[{}]");
    for (id, body) in [("empty", json!({"id": "empty", "pk": {}})), ("missing", json!({"id": "missing"}))] {
        let text = body.to_string();
        let (status, answer) = raw(&account, "POST", "events/docs", &[none], &text).await;
        assert_eq!((status, answer.get("pk")), (201, body.get("pk")), "{body}: {answer}");
        let path = format!("events/docs/{id}");
        assert_eq!(raw(&account, "GET", &path, &[none], "").await.0, 200);
        assert_eq!(raw(&account, "PUT", &path, &[none], &text).await.0, 200);
        let other = ("x-ms-documentdb-partitionkey", "[\"x\"]");
        assert_eq!(raw(&account, "POST", "events/docs", &[other], &text).await.0, 400);
        assert_eq!(raw(&account, "DELETE", &path, &[none], "").await.0, 204);
    }
    for pk in [json!({"a": 1}), json!([1])] {
        let body = json!({"id": "odd", "pk": pk}).to_string();
        assert_eq!(raw(&account, "POST", "events/docs", &[none], &body).await.0, 400, "{body}");
    }
    assert_eq!(ids(&account, "events").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unique_keys_hold_in_every_kind_of_write() {
    let account = TestAccount::start(LocalOptions { partitions: 6, ..LocalOptions::default() }).await;
    let unique = json!({"uniqueKeys": [{"paths": ["/mail"]}, {"paths": ["/a/b", "/n"]}]});
    let description = json!({"id": "people", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
        "uniqueKeyPolicy": unique, "defaultTtl": -1});
    account.container(description.clone()).await;
    let (_, shown) = raw(&account, "GET", "people", &[], "").await;
    assert_eq!(shown["uniqueKeyPolicy"], unique);
    assert!(!shown.to_string().contains("held"), "{shown}");
    let (_, listed) = raw(&account, "GET", "", &[], "").await;
    assert!(listed.to_string().contains("\"uniqueKeyPolicy\"") && !listed.to_string().contains("held"), "{listed}");
    // A container's unique key policy cannot be changed.
    let mut other = description.clone();
    other["uniqueKeyPolicy"] = json!({"uniqueKeys": [{"paths": ["/x"]}]});
    assert_eq!(raw(&account, "PUT", "people", &[], &other.to_string()).await.0, 403);
    let mut same = description;
    same["defaultTtl"] = 100.into();
    let (status, answer) = raw(&account, "PUT", "people", &[], &same.to_string()).await;
    assert_eq!((status, &answer["uniqueKeyPolicy"]), (200, &unique), "{answer}");

    let document =
        |id: &str, mail: &str, n: i64| json!({"id": id, "pk": "p", "mail": mail, "a": {"b": 1}, "n": n}).to_string();
    let write = async |method: &str, path: &str, more: &[(&str, &str)], body: &str| {
        raw(&account, method, &format!("people/docs{path}"), &[&[KEY], more].concat(), body).await.0
    };
    assert_eq!(write("POST", "", &[], &document("one", "1", 1)).await, 201);
    assert_eq!(write("POST", "", &[], &document("two", "2", 2)).await, 201);
    let upsert = ("x-ms-documentdb-is-upsert", "True");
    let patch = json!({"operations": [{"op": "set", "path": "/mail", "value": "1"}]}).to_string();
    for (method, path, more, body) in [
        ("POST", "", &[][..], document("three", "1", 3)),
        ("POST", "", &[], document("three", "3", 1)),
        ("POST", "", &[upsert], document("two", "1", 2)),
        ("PUT", "/two", &[], document("two", "1", 2)),
        ("PATCH", "/two", &[], patch),
    ] {
        assert_eq!(write(method, path, more, &body).await, 409, "{method} {path} {body}");
    }
    // Other errors take precedence, a document does not conflict with itself, and each partition key has values of its
    // own.
    assert_eq!(write("PUT", "/none", &[], &document("none", "1", 9)).await, 404);
    assert_eq!(write("PUT", "/two", &[("if-match", "\"stale\"")], &document("two", "1", 2)).await, 412);
    assert_eq!(write("PUT", "/two", &[], &document("two", "2", 2)).await, 200);
    let elsewhere = [("x-ms-documentdb-partitionkey", "[\"q\"]")];
    let body = document("one", "1", 1).replace("\"p\"", "\"q\"");
    assert_eq!(raw(&account, "POST", "people/docs", &elsewhere, &body).await.0, 201);
    // A batch is checked as a whole.
    let batch = [("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let replace = |id: &str, mail: &str, n: i64| {
        let body: Value = serde_json::from_str(&document(id, mail, n)).unwrap();
        json!({"operationType": "Replace", "id": id, "resourceBody": body})
    };
    let taken = json!([replace("one", "2", 1), replace("two", "1", 2)]).to_string();
    assert_eq!(write("POST", "", &batch, &taken).await, 207);
    let round = json!([replace("one", "free", 1), replace("two", "1", 2), replace("one", "2", 1)]).to_string();
    assert_eq!(write("POST", "", &batch, &round).await, 200);
    // The values of a deleted or expired document are free again.
    assert_eq!(write("DELETE", "/two", &[], "").await, 204);
    let brief = document("three", "1", 2).replace("\"n\"", "\"ttl\":1,\"n\"");
    assert_eq!(write("POST", "", &[], &brief).await, 201);
    assert_eq!(write("POST", "", &[], &document("four", "1", 4)).await, 409);
    tokio::time::sleep(Duration::from_millis(2200)).await;
    assert_eq!(write("POST", "", &[], &document("four", "1", 4)).await, 201);
}

/// A write looks up the values in use and does not examine each document of its partition.
#[tokio::test(flavor = "multi_thread")]
async fn unique_keys_cost_no_more_in_a_large_partition() {
    let account = TestAccount::start(LocalOptions::default()).await;
    account
        .container(json!({"id": "people", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2},
            "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/mail"]}]}}))
        .await;
    let batch = [KEY, ("x-ms-cosmos-is-batch-request", "True"), ("x-ms-cosmos-batch-atomic", "True")];
    let mut rounds = Vec::new();
    for round in 0..30 {
        let create = |n: i64| {
            let n = round * 100 + n;
            json!({"operationType": "Create", "resourceBody": {"id": n.to_string(), "pk": "p", "mail": format!("{n}@x")}})
        };
        let body = Value::from((0..100).map(create).collect::<Vec<_>>()).to_string();
        let started = Instant::now();
        assert_eq!(raw(&account, "POST", "people/docs", &batch, &body).await.0, 200);
        rounds.push(started.elapsed());
    }
    let sum = |all: &[Duration]| all.iter().sum::<Duration>();
    let (first, last) = (sum(&rounds[..10]), sum(&rounds[20..]));
    assert!(last < first * 3, "{first:?}, later {last:?}");
}

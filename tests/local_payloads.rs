//! The trigger's bodies against those of the real one, byte for byte. `tests/fixtures/host-payloads` was recorded from
//! the real trigger extension; the recorded writes are replayed on the local account.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use chrono::FixedOffset;
use cosmos_rewind::local::trigger::{FunctionBinding, HandlerProgram, Trigger, TriggerMode, TriggerOptions};
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(20);

fn folder(scenario: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host-payloads").join(scenario)
}

/// A handler that keeps the bodies as received.
async fn handler() -> (Arc<Mutex<Vec<String>>>, HandlerProgram) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let answer = async |State(seen): State<Arc<Mutex<Vec<String>>>>, body: String| {
        if !body.is_empty() {
            seen.lock().unwrap().push(body);
        }
        ([("content-type", "application/json")], "{}")
    };
    let app = Router::new().fallback(answer).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (seen, HandlerProgram::Running(url))
}

/// The local account, the trigger on it, and what was written.
struct Play {
    cosmos: LocalCosmos,
    trigger: Trigger,
    http: reqwest::Client,
    bodies: Arc<Mutex<Vec<String>>>,
    app: tempfile::TempDir,
}

impl Play {
    async fn start(mode: TriggerMode, host_json: &Value, zone: FixedOffset) -> Self {
        let cosmos = LocalCosmos::start(LocalOptions { partitions: 1, ..LocalOptions::default() }).await.unwrap();
        cosmos.create_database("dev").await.unwrap();
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        let description = json!({"id": "events", "partitionKey": key, "defaultTtl": -1});
        cosmos.create_container("dev", description).await.unwrap();
        let app = tempfile::tempdir().unwrap();
        std::fs::write(app.path().join("host.json"), host_json.to_string()).unwrap();
        let (bodies, handler) = handler().await;
        let mut options = TriggerOptions::new(app.path());
        let mut binding = FunctionBinding::capture_changes(&[]);
        // The bodies were recorded without a retry policy, so they have no RetryContext.
        binding.retry = None;
        options.binding = Some(binding);
        options.mode = Some(mode);
        options.handler = handler;
        options.host_time_zone = zone;
        options.poll_delay = Some(Duration::from_millis(5));
        let trigger = Trigger::start(&cosmos, options).await.unwrap();
        let http = crate::support::http_client();
        Self { cosmos, trigger, http, bodies, app }
    }

    async fn write(&self, operation: &Value) {
        let documents = format!("{}dbs/dev/colls/events/docs", self.cosmos.endpoint());
        let key = |document: &Value| match document.get("pk") {
            Some(value) => json!([value]).to_string(),
            None => "[{}]".to_owned(),
        };
        let request = match operation["op"].as_str().unwrap() {
            "upsert" => {
                let mut document = operation["document"].clone();
                document.as_object_mut().unwrap().retain(|name, _| !name.starts_with('_'));
                self.http
                    .post(documents)
                    .header("x-ms-documentdb-is-upsert", "True")
                    .header("x-ms-documentdb-partitionkey", key(&document))
                    .body(document.to_string())
            }
            "delete" => {
                let id = operation["id"].as_str().unwrap();
                self.http.delete(format!("{documents}/{id}")).header("x-ms-documentdb-partitionkey", key(operation))
            }
            other => panic!("unknown operation {other}"),
        };
        let answer = request.send().await.unwrap();
        let wanted = operation["status"].as_u64().unwrap_or(204);
        assert_eq!(u64::from(answer.status().as_u16()), wanted, "{operation}");
    }

    async fn items(&self) -> Vec<String> {
        self.trigger.wait_until_drained(SOON).await.unwrap();
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|body| items(body)).collect()
    }
}

/// The items of a body as text. The body is cut rather than parsed, so that every byte is compared.
fn items(body: &str) -> Vec<String> {
    let whole: Value = serde_json::from_str(body).unwrap();
    let members: Vec<&String> = whole.as_object().unwrap().keys().collect();
    assert_eq!(members, ["Data", "Metadata"]);
    let array: String = serde_json::from_str(whole["Data"]["documents"].as_str().unwrap()).unwrap();
    let inner = array.strip_prefix('[').unwrap().strip_suffix(']').unwrap();
    let (mut items, mut depth, mut start, mut in_string, mut escaped) = (Vec::new(), 0, 0, false, false);
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth -= 1,
            b',' if !in_string && depth == 0 => {
                items.push(inner[start..at].to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !inner.is_empty() {
        items.push(inner[start..].to_owned());
    }
    items
}

/// Replaces what differs between accounts: resource ids, ETags, times.
fn without_accidents(item: &str) -> String {
    let mut out = item.to_owned();
    for (before, after) in [
        ("\"_rid\":\"", "\""),
        ("\"_self\":\"", "\""),
        ("\"_etag\":\"\\\"", "\\\"\""),
        ("\"_ts\":", ","),
        ("\"crts\":", ".0,"),
    ] {
        let mut from = 0;
        while let Some(found) = out[from..].find(before) {
            let start = from + found + before.len();
            let end = start + out[start..].find(after).unwrap();
            out.replace_range(start..end, "#");
            from = start;
        }
    }
    out
}

fn recorded(scenario: &str) -> Vec<String> {
    let mut all = Vec::new();
    for number in 1.. {
        let Ok(body) = std::fs::read_to_string(folder(scenario).join(format!("batch-{number}.json"))) else { break };
        all.extend(items(&body));
    }
    assert!(!all.is_empty(), "{scenario}");
    all
}

fn writes(scenario: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder(scenario).join("writes.json")).unwrap()).unwrap()
}

fn host_json(handling: Option<&str>) -> Value {
    let mut file = json!({"version": "2.0", "extensionBundle": {"version": "[4.37.1, 5.0.0)"}});
    if let Some(handling) = handling {
        file["extensions"]["cosmosDB"]["serializerSettings"]["dateParseHandling"] = handling.into();
    }
    file
}

fn utc() -> FixedOffset {
    FixedOffset::east_opt(0).unwrap()
}

fn assert_same(played: &[String], recorded: &[String], scenario: &str) {
    let played: Vec<String> = played.iter().map(|item| without_accidents(item)).collect();
    let recorded: Vec<String> = recorded.iter().map(|item| without_accidents(item)).collect();
    for (at, (ours, theirs)) in played.iter().zip(&recorded).enumerate() {
        assert_eq!(ours, theirs, "{scenario}, item {at}");
    }
    assert_eq!(played.len(), recorded.len(), "{scenario}");
}

/// Each write is delivered before the next one; otherwise latest-version mode would skip versions. The recording did
/// skip some; the comparison skips the same ones, by LSN.
async fn played(scenario: &str, mode: TriggerMode, handling: Option<&str>, zone: FixedOffset) -> Vec<String> {
    let play = Play::start(mode, &host_json(handling), zone).await;
    for operation in writes(scenario) {
        play.write(&operation).await;
        play.trigger.wait_until_drained(SOON).await.unwrap();
    }
    let items = play.items().await;
    play.trigger.stop().await;
    drop(play.app);
    items
}

fn lsn(item: &str) -> u64 {
    // The envelope's own field: a document may have a field of that name.
    let item: Value = serde_json::from_str(item).unwrap();
    item["_lsn"].as_u64().or_else(|| item["metadata"]["lsn"].as_u64()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_mode_bodies_match_the_real_triggers() {
    let new_york = FixedOffset::west_opt(5 * 3600).unwrap();
    for (scenario, handling, zone) in [
        ("latest-default", None, utc()),
        ("latest-default-new-york", None, new_york),
        ("latest-none", Some("None"), utc()),
    ] {
        let recorded = recorded(scenario);
        let by_lsn: HashMap<u64, String> = recorded.iter().map(|item| (lsn(item), item.clone())).collect();
        let played = played(scenario, TriggerMode::Latest, handling, zone).await;
        let played: Vec<String> = played.into_iter().filter(|item| by_lsn.contains_key(&lsn(item))).collect();
        assert_same(&played, &recorded, scenario);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_versions_bodies_match_the_real_triggers() {
    for (scenario, handling) in [("all-versions-default", None), ("all-versions-none", Some("None"))] {
        let played = played(scenario, TriggerMode::AllVersions, handling, utc()).await;
        assert_same(&played, &recorded(scenario), scenario);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_and_keys_that_look_like_dates_are_altered_as_by_the_real_trigger() {
    let play = Play::start(TriggerMode::AllVersions, &host_json(None), utc()).await;
    let (id, pk) = ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.500Z");
    for (note, status) in [("v1", 201), ("v2", 200)] {
        play.write(&json!({"op": "upsert", "status": status, "document": {"id": id, "pk": pk, "note": note}})).await;
    }
    play.write(&json!({"op": "delete", "id": id, "pk": pk})).await;
    let second = json!({"id": "2021-01-01T00:00:00+02:00", "pk": "x", "note": "v1"});
    play.write(&json!({"op": "upsert", "status": 201, "document": second})).await;
    assert_same(&play.items().await, &recorded("all-versions-default-date-ids"), "all-versions-default-date-ids");
    play.trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_delivered_as_by_the_real_trigger() {
    let scenario = "all-versions-expiry";
    let play = Play::start(TriggerMode::AllVersions, &host_json(Some("None")), utc()).await;
    let writes = writes(scenario);
    for operation in &writes[..2] {
        play.write(operation).await;
    }
    play.cosmos.advance_clock(Duration::from_secs(3));
    play.trigger.wait_until_drained(SOON).await.unwrap();
    play.write(&writes[2]).await;
    assert_same(&play.items().await, &recorded(scenario), scenario);
    play.trigger.stop().await;
}

/// A document with this many nested objects, itself included.
fn nested(id: &str, levels: usize) -> Value {
    let inner = (0..levels - 1).fold(json!(1), |inner, _| json!({ "a": inner }));
    json!({"id": id, "pk": "p", "v": inner})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_nested_too_deeply_stops_its_lease_forever() {
    let upsert = |document: Value| json!({"op": "upsert", "status": 201, "document": document});
    for mode in [TriggerMode::Latest, TriggerMode::AllVersions] {
        let play = Play::start(mode, &host_json(None), utc()).await;
        play.write(&upsert(nested("63", 63))).await;
        assert_eq!(play.items().await.len(), 1, "63 levels pass");
        play.write(&upsert(nested("64", 64))).await;
        play.write(&upsert(json!({"id": "behind it", "pk": "p"}))).await;
        play.trigger.wait_until_drained(Duration::from_millis(500)).await.unwrap_err();
        assert_eq!(play.bodies.lock().unwrap().len(), 1, "the handler does not receive it");
        let stats = play.trigger.stats().await;
        let error = stats.last_error.unwrap();
        assert!(error.contains("\"64\"") && error.contains("64 levels"), "{error}");
        assert_eq!(stats.pending, 2);
        play.trigger.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lease_documents_match_the_change_feed_processors() {
    for (file, mode) in [("latest.json", TriggerMode::Latest), ("all-versions.json", TriggerMode::AllVersions)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/leases").join(file);
        let theirs: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let cosmos = LocalCosmos::start(LocalOptions { partitions: 3, ..LocalOptions::default() }).await.unwrap();
        cosmos.create_database("dev").await.unwrap();
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        cosmos.create_container("dev", json!({"id": "events", "partitionKey": key})).await.unwrap();
        let (_, handler) = handler().await;
        let app = tempfile::tempdir().unwrap();
        let mut options = TriggerOptions::new(app.path());
        options.handler = handler;
        options.mode = Some(mode);
        let trigger = Trigger::start(&cosmos, options).await.unwrap();
        let http = crate::support::http_client();
        let url = format!("{}dbs/dev/colls/leases/docs", cosmos.endpoint());
        let body: Value =
            http.get(url).send().await.unwrap().bytes().await.map(|b| serde_json::from_slice(&b)).unwrap().unwrap();
        let ours = body["Documents"].as_array().unwrap();
        let of = |all: &[Value], token: Option<&str>| {
            let mut found = all.iter().filter(|lease| lease["LeaseToken"].as_str() == token).cloned();
            (found.next().unwrap(), found.count())
        };
        for token in [Some("0"), Some("1"), Some("2"), None] {
            let (ours, more) = of(ours, token);
            let (theirs, _) = of(&theirs, token);
            assert_eq!(more, 0);
            let shape = |lease: &Value| {
                let mut names: Vec<String> = lease.as_object().unwrap().keys().cloned().collect();
                names.sort();
                names
            };
            assert_eq!(shape(&ours), shape(&theirs));
            for member in ["version", "FeedRange", "properties", "Mode"] {
                assert_eq!(ours[member], theirs[member], "{member}");
            }
            let tail = |lease: &Value| lease["id"].as_str().unwrap().rsplit_once("=.").unwrap().1.to_owned();
            assert_eq!(tail(&ours), tail(&theirs));
            if token.is_some() {
                let text = ours["ContinuationToken"].as_str().unwrap();
                assert!(text.starts_with('"') && text.ends_with('"'), "{text}");
                assert!(ours["timestamp"].as_str().unwrap().ends_with('Z'));
            }
        }
        trigger.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_source_is_captured() {
    for mode in [TriggerMode::Latest, TriggerMode::AllVersions] {
        let play = Play::start(mode, &host_json(None), utc()).await;
        let upsert = |id: &str| json!({"op": "upsert", "status": 201, "document": {"id": id, "pk": "p"}});
        play.write(&upsert("before")).await;
        play.trigger.wait_until_drained(SOON).await.unwrap();
        assert!(play.cosmos.delete_container("dev", "events").await.unwrap());
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        play.cosmos.create_container("dev", json!({"id": "events", "partitionKey": key})).await.unwrap();
        // Written before the trigger can have noticed.
        play.write(&upsert("after")).await;
        let ids: Vec<String> = play
            .items()
            .await
            .iter()
            .map(|item| serde_json::from_str::<Value>(item).unwrap())
            .map(|item| item["id"].as_str().or(item["current"]["id"].as_str()).unwrap().to_owned())
            .collect();
        assert_eq!(ids, ["before", "after"]);
        play.write(&upsert("later")).await;
        assert_eq!(play.items().await.len(), 3);
        play.trigger.stop().await;
    }
}

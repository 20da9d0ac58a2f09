//! Real bodies of the Cosmos DB trigger, byte for byte (tests/fixtures/host-payloads), compared with the list of
//! writes. Every record is either exactly what was written or says that it may differ.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use cosmos_rewind::{
    capture::{Capture, CaptureLimits, Summary},
    host::invocation::Payload,
};
use serde_json::{Map, Value, json};

use crate::support::{Fault, Handler, Kind, TestApp, capture_into, feed_document, memory::MemoryHistory};

/// The recorded folders that also contain their writes.
const FOLDERS: [&str; 6] = [
    "all-versions-default",
    "all-versions-expiry",
    "all-versions-none",
    "latest-default",
    "latest-default-new-york",
    "latest-none",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/host-payloads").join(name)
}

/// The bodies in order.
fn bodies(name: &str) -> Vec<Vec<u8>> {
    (1..=3).map(|n| std::fs::read(folder(name).join(format!("batch-{n}.json"))).unwrap()).collect()
}

/// All writes in order: documents as the database returned them, and deletes.
fn writes(name: &str) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(folder(name).join("writes.json")).unwrap()).unwrap()
}

/// The written documents.
fn documents(name: &str) -> Vec<Value> {
    writes(name).into_iter().filter(|write| write["op"] == "upsert").map(|write| write["document"].clone()).collect()
}

/// A document without system properties.
fn plain(document: &Value) -> Map<String, Value> {
    let mut own = document.as_object().unwrap().clone();
    own.retain(|name, _| !["_rid", "_self", "_etag", "_attachments", "_ts"].contains(&name.as_str()));
    own
}

/// The document in a record by docs/history-format.md, independent of the program's own reader.
fn document_of(record: &Value) -> Map<String, Value> {
    let mut own = record.as_object().unwrap().clone();
    own.retain(|name, _| !["_originalId", "_change"].contains(&name.as_str()));
    own.insert("id".into(), record["_originalId"].clone());
    if let Some(ttl) = record["_change"].get("ttl") {
        own.insert("ttl".into(), ttl.clone());
    }
    own
}

fn is_tombstone(record: &Value) -> bool {
    ["delete", "expire"].contains(&record["_change"]["op"].as_str().unwrap())
}

/// Asserts that every record equals the write with its ETag, or says that it may differ. Returns the number of records
/// that are not exact, and of those with an uncertain identity.
fn compare(name: &str, history: &[Value]) -> (usize, usize) {
    let written = documents(name);
    let (mut normalized, mut unsure) = (0, 0);
    for record in history.iter().filter(|record| !is_tombstone(record)) {
        let change = &record["_change"];
        let of_etag: Vec<&Value> = written.iter().filter(|document| document["_etag"] == change["etag"]).collect();
        let [document] = of_etag[..] else { panic!("{name}: {} writes have the etag of {record}", of_etag.len()) };
        assert_eq!((&change["ts"], &change["rid"]), (&document["_ts"], &document["_rid"]), "{name}: {record}");
        match change["identity"].as_str() {
            Some(said) => {
                assert_eq!((said, &change["fidelity"]), ("unsure", &json!("normalized")), "{name}: {record}");
                unsure += 1;
            }
            None => {
                let own = |value: &Value| (value.get("id").cloned(), value.get("pk").cloned());
                let recorded = Value::Object(document_of(record));
                assert_eq!(own(&recorded), own(document), "{name}: wrong identity, not marked as unsure: {record}");
            }
        }
        match change["fidelity"].as_str() {
            Some("normalized") => normalized += 1,
            _ => {
                assert_eq!(change["fidelity"], "exact", "{name}: {record}");
                assert_eq!(document_of(record), plain(document), "{name}: altered, but not marked as normalized");
            }
        }
    }
    (normalized, unsure)
}

/// In all-versions mode every write has a record, with its operation and its previous version.
fn is_complete(name: &str, history: &[Value]) {
    let etags: BTreeSet<&str> = history.iter().filter_map(|record| record["_change"]["etag"].as_str()).collect();
    let written = documents(name);
    assert_eq!(etags, written.iter().map(|document| document["_etag"].as_str().unwrap()).collect(), "{name}");
    let deletes = writes(name).iter().filter(|write| write["op"] == "delete").count();
    let ops = |op: &str| history.iter().filter(|record| record["_change"]["op"] == op).count();
    let expired = usize::from(name == "all-versions-expiry");
    assert_eq!((ops("delete"), ops("expire"), ops("upsert")), (deletes, expired, 0), "{name}: {history:#?}");
    for record in history {
        let change = &record["_change"];
        assert_eq!(change.get("prevLsn").is_none(), change["op"] == "create", "{name}: {record}");
        assert!(change["ts"].is_i64() && change.get("tsFrom").is_none(), "{name}: {record}");
    }
    for record in history.iter().filter(|record| is_tombstone(record)) {
        // The previous version belongs to the same document.
        let before = history.iter().find(|before| before["_change"]["lsn"] == record["_change"]["prevLsn"]).unwrap();
        assert_eq!((&before["_originalId"], &before["pk"]), (&record["_originalId"], &record["pk"]), "{name}");
    }
}

/// A dead letter is captured as it was delivered, although its document is gone at the time of the replay.
#[tokio::test]
async fn a_letter_records_whether_its_dates_may_be_altered() {
    for (dates, fidelity) in [(Some("None"), "exact"), (None, "normalized")] {
        let app = TestApp::start().await;
        let handler = handler(&app, dates, &[]).await;
        app.proxy.fail_always(Some(Fault::Reject(403, 1014)));
        let mut document = feed_document("dated", "k", 1);
        document["at"] = "2020-01-01T00:00:00Z".into();
        let batch = [feed_document("plain", "k", 2), document];
        assert_eq!(handler.deliver(&batch).await.0, 200);
        app.proxy.fail_always(None);
        let replayed = app.run(&["replay"]).await;
        assert_eq!(replayed.code, 0, "{replayed:?}");
        let history = app.history().await;
        let of = |id: &str| {
            history.iter().find(|record| record["_originalId"] == id).unwrap()["_change"]["fidelity"].clone()
        };
        assert_eq!((of("dated"), of("plain")), (fidelity.into(), "exact".into()), "{dates:?}");
    }
}

/// The handler of an app whose host.json has this date setting.
async fn handler(app: &TestApp, dates: Option<&str>, more: &[(&str, &str)]) -> Handler {
    let mut host: Value = serde_json::from_str(&std::fs::read_to_string("host.json").unwrap()).unwrap();
    host["extensions"]["cosmosDB"]["serializerSettings"]["dateParseHandling"] = dates.into();
    std::fs::write(app.folder.path().join("host.json"), host.to_string()).unwrap();
    app.handler(more).await
}

#[tokio::test]
async fn with_the_date_setting_everything_is_captured_exactly_and_nothing_is_read_again() {
    for name in ["all-versions-none", "all-versions-expiry", "latest-none"] {
        let app = TestApp::start().await;
        let handler = handler(&app, Some("None"), &[]).await;
        for body in bodies(name) {
            let (status, answer) = handler.post("CaptureChanges", body).await;
            assert_eq!(status, 200, "{name}: {answer} {:#?}", handler.log());
            assert!(
                answer["Logs"][0].as_str().unwrap().contains(" 0 re-reads, 0 normalized, 0 dead letters"),
                "{answer}"
            );
        }
        let history = app.history().await;
        assert_eq!(compare(name, &history), (0, 0), "{name}");
        assert_eq!((app.proxy.reads(), app.proxy.seen(Kind::Query)), (0, 0), "{name}");
        if name.starts_with("all") {
            is_complete(name, &history);
        }
        let log = handler.log();
        assert!(!log.iter().any(|line| line.contains("WARN") || line.contains("rewrites dates")), "{log:#?}");
    }
}

#[tokio::test]
async fn without_the_date_setting_altered_records_are_marked_and_reported_once() {
    for name in ["all-versions-default", "latest-default", "latest-default-new-york"] {
        let app = TestApp::start().await;
        let handler = handler(&app, None, &[]).await;
        for _ in 0..2 {
            for body in bodies(name) {
                let (status, answer) = handler.post("CaptureChanges", body).await;
                assert_eq!(status, 200, "{name}: {answer} {:#?}", handler.log());
            }
        }
        let history = app.history().await;
        let (normalized, unsure) = compare(name, &history);
        // The documents are gone from the account: those with dates, and one whose id is a date.
        assert!(normalized >= 2 && unsure == 1, "{name}: {normalized} {unsure} {history:#?}");
        if name.starts_with("all") {
            is_complete(name, &history);
        }
        let told: Vec<String> = handler.log().into_iter().filter(|line| line.contains("dateParseHandling")).collect();
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(
            handler.log().iter().any(|line| line.contains("storing payloads as delivered")),
            "{:#?}",
            handler.log()
        );
    }
}

/// The writes of this recording are known, although they were not recorded.
#[tokio::test]
async fn a_document_whose_id_is_a_date_is_never_taken_for_another_one() {
    const NAME: &str = "all-versions-default-date-ids";
    let (id, pk) = ("2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00.500Z");
    for paths in [&["/pk", "/_originalId"][..], &["/pk"]] {
        let app = TestApp::with_changes_key(paths).await;
        let handler =
            handler(&app, None, &[("REWIND_FIDELITY", if paths.len() > 1 { "exact" } else { "payload" })]).await;
        for body in bodies(NAME) {
            assert_eq!(handler.post("CaptureChanges", body).await.0, 200, "{:#?}", handler.log());
        }
        let history = app.history().await;
        assert_eq!(history.len(), 4, "{history:#?}");
        for record in &history {
            assert_eq!(record["_change"]["identity"], "unsure", "{record}");
            // The altered fields are stored as they were delivered, and nothing is made up.
            assert_ne!(record["pk"], pk);
        }
        let gone = history.iter().find(|record| is_tombstone(record)).unwrap();
        assert_eq!((&gone["_originalId"], &gone["_change"]["op"]), (&json!(id), &json!("delete")), "{gone}");
        let told = handler.log().iter().filter(|line| line.contains("dateParseHandling")).count();
        assert_eq!(told, 1, "{:#?}", handler.log());
    }
}

fn capture(history: &MemoryHistory, letters: &Path) -> Capture<MemoryHistory> {
    capture_into(history.clone(), letters, CaptureLimits::new(4, 4, Duration::from_secs(10)))
}

async fn run(capture: &Capture<MemoryHistory>, body: &[u8]) -> Summary {
    let payload = Payload::from_body(body, "documents").unwrap();
    capture.run(&payload.items("documents").unwrap(), "invocation").await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_live_document_is_captured_exactly_whatever_the_host_altered() {
    for name in FOLDERS {
        let letters = tempfile::tempdir().unwrap();
        let history = MemoryHistory::new(&["/pk", "/_originalId"], Vec::new(), None);
        let capture = capture(&history, letters.path());
        let mut unread = 0;
        for body in bodies(name) {
            // The live documents are those that the batch contains by ETag, the last version of each.
            let text = String::from_utf8(body.clone()).unwrap();
            let is_in = |document: &&Value| text.contains(document["_etag"].as_str().unwrap().trim_matches('"'));
            let mut live: Vec<Value> = Vec::new();
            for document in documents(name).iter().filter(is_in) {
                live.retain(|other| other["_rid"] != document["_rid"]);
                live.push(document.clone());
            }
            history.live(live);
            unread += run(&capture, &body).await.normalized;
        }
        let records: Vec<Value> = history.stored().values().map(|text| serde_json::from_str(text).unwrap()).collect();
        let (normalized, unsure) = compare(name, &records);
        assert_eq!(unsure, 0, "{name}: {records:#?}");
        assert_eq!(normalized, unread, "{name}: versions that were outdated when their batch arrived");
        if name.starts_with("latest") {
            assert_eq!(normalized, 0, "{name}");
        } else {
            is_complete(name, &records);
        }
        // A document whose id and partition key are dates is stored under its original key.
        if let Some(date) = records.iter().find(|record| record["note"] == "id and partition key look like dates") {
            assert_eq!(
                (&date["_originalId"], &date["pk"], &date["_change"]["fidelity"]),
                (&json!("2020-01-01T00:00:00.000Z"), &json!("2020-01-01T00:00:00.500Z"), &json!("exact"))
            );
            let key = r#"["2020-01-01T00:00:00.500Z","2020-01-01T00:00:00.000Z"]"#;
            assert!(history.stored().keys().any(|(own, _)| own == key), "{:?}", history.stored().keys());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_version_from_a_stale_replica_is_not_taken_as_current() {
    let letters = tempfile::tempdir().unwrap();
    let history = MemoryHistory::new(&["/pk", "/_originalId"], Vec::new(), None);
    let capture = capture(&history, letters.path());
    let version = |etag: &str, ts: i64, when: &str| json!({"id": "x", "pk": "p", "when": when, "_rid": "r", "_etag": etag, "_ts": ts});
    let body = |etag: &str, ts: i64| {
        let array = json!([version(etag, ts, "2020-01-01T00:00:00Z")]).to_string();
        cosmos_rewind::host::invocation::encode("documents", &array, &json!({})).into_bytes()
    };
    let (old, new) = (version("\"1\"", 1, "2019"), version("\"2\"", 2, "2020-01-01T00:00:00.000Z"));
    history.live_in_turn([vec![old.clone()], vec![], vec![old.clone()], vec![new]]);
    assert_eq!(run(&capture, &body("\"2\"", 2)).await.normalized, 0);
    history.live(vec![old]);
    assert_eq!(run(&capture, &body("\"3\"", 3)).await.normalized, 1);
    // One that is certainly later is not read again.
    let later = version("\"5\"", 5, "2021");
    history.live_in_turn([vec![later], vec![version("\"4\"", 4, "2020-01-01T00:00:00.000Z")]]);
    assert_eq!(run(&capture, &body("\"4\"", 4)).await.normalized, 1);
}

//! The interface between capture and storage: one contract for the real container and for the fake, and the results of
//! capture under any order of deliveries and faults.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::{
    capture::{Capture, CaptureLimits},
    change::{
        Via,
        decode::decode,
        key::KeyPaths,
        record::{self, Record, RecordContext},
    },
    config::Settings,
    cosmos::Disposition,
    history::HistoryWriter,
    projection::Projection,
};
use proptest::prelude::*;
use serde_json::{Value, json, value::RawValue};

use crate::support::{
    TestApp, capture_into, feed_document,
    memory::{Fault, MemoryHistory},
};

fn records(item: &Value, paths: &KeyPaths) -> Vec<Record> {
    let raw: Box<RawValue> = serde_json::value::to_raw_value(item).unwrap();
    let mut changes = Vec::new();
    decode(&raw, &mut changes).unwrap();
    let context =
        RecordContext { via: Via::Trigger, at: "2026-11-20T15:00:00.000Z", at_seconds: 0, paths, source: None };
    changes.iter().map(|c| record::build(c, None, false, context).unwrap()).collect()
}

/// The contract of `HistoryWriter`; `count` returns the number of stored records.
async fn keeps_the_contract<W: HistoryWriter>(writer: &W, count: impl AsyncFn() -> usize) {
    let one = |id: &str, version| records(&feed_document(id, "shared", version), writer.key_paths()).remove(0);
    // Ok means durable; writing again is harmless.
    let first = one("a", 1);
    writer.write(&first).await.unwrap();
    writer.write(&first).await.unwrap();
    assert_eq!(count().await, 1);
    // A create-only write leaves an existing record alone, and returns Ok.
    let mut lesser = one("a", 1);
    (lesser.create_only, lesser.completes) = (true, false);
    writer.write(&lesser).await.unwrap();
    assert_eq!(count().await, 1);
    let mut new = one("a", 2);
    new.create_only = true;
    writer.write(&new).await.unwrap();
    assert_eq!(count().await, 2);
    // The largest batch that shares a full key; writing it again is harmless.
    let mut batch: Vec<Record> = (10..110).map(|v| one("a", v)).collect();
    batch.iter_mut().for_each(|record| record.create_only = false);
    let mut batch: Vec<&Record> = batch.iter().collect();
    writer.write_batch(&batch).await.unwrap();
    writer.write_batch(&batch).await.unwrap();
    assert_eq!(count().await, 102);
    // A batch with a create-only record that exists is a conflict, and none of its records is stored.
    let (more, existing) = (one("a", 111), one("a", 50));
    assert!(more.create_only && existing.create_only);
    batch = vec![&more, &existing];
    assert_eq!(writer.write_batch(&batch).await.unwrap_err().disposition, Disposition::Conflict);
    assert_eq!(count().await, 102);
    // Many concurrent writes, in any order.
    let many: Vec<Record> = (200..240).map(|v| one(&format!("b{v}"), v)).collect();
    let results = futures::future::join_all(many.iter().rev().map(|r| writer.write(r))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(count().await, 142);
}

#[tokio::test]
async fn the_fake_history_keeps_the_contract() {
    let history = MemoryHistory::new(&["/pk", "/_originalId"], Vec::new(), None);
    keeps_the_contract(&history, async || history.stored().len()).await;
}

#[tokio::test]
async fn a_container_keeps_the_contract() {
    let app = TestApp::start().await;
    let container = app.changes().await;
    keeps_the_contract(&container, async || app.history().await.len()).await;
}

fn capture(history: MemoryHistory, folder: &std::path::Path, piece: usize) -> Capture<MemoryHistory> {
    capture_into(history, folder, CaptureLimits::new(8, 8, Duration::from_secs(30)).in_pieces_of(piece))
}

/// A change of the all-versions feed: version `v` of document `d`, with its previous image.
fn envelope(d: usize, v: u64) -> Value {
    let image = |v: u64| json!({"id": format!("d{d}"), "pk": format!("p{}", d % 2), "v": v, "_etag": format!("\"{d}-{v}\""), "_ts": v / 2});
    let op = if v == 0 { "create" } else { "replace" };
    let mut item = json!({"current": image(v), "metadata": {"operationType": op, "lsn": v * 10, "crts": v / 2}});
    if v > 0 {
        item["previous"] = image(v - 1);
        item["metadata"]["previousImageLSN"] = ((v - 1) * 10).into();
    }
    item
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// The history is the same as after an undisturbed run, whatever is delivered twice, out of order, cut off or
    /// stored without an answer. Only poison is missing.
    #[test]
    fn the_history_does_not_depend_on_how_it_was_delivered(
        order in Just((0..4usize).flat_map(|d| (0..6u64).map(move |v| (d, v))).collect::<Vec<_>>()).prop_shuffle(),
        again in proptest::collection::vec((0..4usize, 0..6u64), 0..30),
        size in 1..12usize,
        faults in proptest::collection::vec(prop_oneof![
            3 => Just(Fault::None), 1 => Just(Fault::Reject(429)), 1 => Just(Fault::Reject(503)), 1 => Just(Fault::FailAfterWrite),
        ], 0..40),
        poisoned in proptest::option::of((0..4usize, 0..6u64)),
        restart_every in 1..4usize,
        piece in 1..2000usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let folder = tempfile::tempdir().unwrap();
            let quiet = MemoryHistory::new(&["/pk"], Vec::new(), None);
            let ordered: Vec<Value> = (0..4usize).flat_map(|d| (0..6u64).map(move |v| envelope(d, v))).collect();
            deliver(&capture(quiet.clone(), folder.path(), usize::MAX), &ordered).await;

            let poison = poisoned.map(|(d, v)| format!("d{d}~{d}-{v}"));
            let stormy = MemoryHistory::new(&["/pk"], faults, poison.clone());
            let deliveries: Vec<Value> = order.into_iter().chain(again).map(|(d, v)| envelope(d, v)).collect();
            let mut process = capture(stormy.clone(), folder.path(), piece);
            for (i, batch) in deliveries.chunks(size).enumerate() {
                if i % restart_every == 0 {
                    // A new process remembers nothing.
                    process = capture(stormy.clone(), folder.path(), piece);
                }
                deliver(&process, batch).await;
            }
            let mut expected = quiet.stored();
            expected.retain(|(_, id), _| Some(id) != poison.as_ref());
            assert_eq!(stormy.stored(), expected);
            let letters = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(letters > 0, poison.is_some());
        });
    }
}

/// Delivers like the host, until the batch is acknowledged.
async fn deliver(capture: &Capture<MemoryHistory>, batch: &[Value]) {
    let items: Vec<Box<RawValue>> = batch.iter().map(|i| serde_json::value::to_raw_value(i).unwrap()).collect();
    let items: Vec<&RawValue> = items.iter().map(AsRef::as_ref).collect();
    for _ in 0..100 {
        if capture.run(&items, "test").await.is_ok() {
            return;
        }
    }
    panic!("never acknowledged");
}

/// A payload taken in pieces has the same result as the whole: totals and dead letters.
#[tokio::test(start_paused = true)]
async fn a_payload_taken_in_pieces_gives_the_same_result() {
    let mut payload: Vec<Value> = (0..4usize).flat_map(|d| (0..6u64).map(move |v| envelope(d, v))).collect();
    // A version that an earlier piece contained, an item that is not a change, and a version that no earlier piece
    // contained.
    payload.extend([envelope(0, 3), json!({"secret": "s"}), envelope(3, 9)]);
    let poison = format!("d{}~{}-{}", 2, 2, 4);
    let settings = Settings::from_pairs([("REWIND_REDACT", "/v")]);
    let mut came_to = Vec::new();
    for piece in [usize::MAX, 1000, 1] {
        let folder = tempfile::tempdir().unwrap();
        let history = MemoryHistory::new(&["/pk"], Vec::new(), Some(poison.clone()));
        let capture = Capture {
            projection: Projection::from_settings(&settings, None).unwrap(),
            ..capture(history.clone(), folder.path(), piece)
        };
        let items: Vec<Box<RawValue>> = payload.iter().map(|i| serde_json::value::to_raw_value(i).unwrap()).collect();
        let items: Vec<&RawValue> = items.iter().map(AsRef::as_ref).collect();
        let summary = capture.run(&items, "test").await.unwrap();
        let letters = std::fs::read_dir(folder.path()).unwrap().map(|letter| {
            let letter: Value = serde_json::from_slice(&std::fs::read(letter.unwrap().path()).unwrap()).unwrap();
            (letter["item"].to_string(), letter["partial"].clone())
        });
        let letters: BTreeMap<_, _> = letters.collect();
        let sums = (summary.items, summary.records, summary.healed, summary.normalized, summary.dead_letters);
        came_to.push((sums, summary.lag.is_some(), letters, history.stored()));
    }
    let ((items, records, healed, _, dead), _, letters, _) = &came_to[0];
    // 25 versions and the healed one before the last, minus the one that can never be stored.
    assert_eq!((*items, *records, *healed, *dead, letters.len()), (27, 25, 1, 2, 2), "{letters:?}");
    assert!(letters.contains_key(r#"{"secret":"s"}"#) && letters.keys().all(|item| !item.contains("\"v\"")));
    assert_eq!(came_to[1], came_to[0]);
    assert_eq!(came_to[2], came_to[0]);
}

/// A history that is recreated while a payload is written receives all of it, whatever the process remembers.
#[tokio::test(start_paused = true)]
async fn a_history_recreated_in_the_middle_of_a_payload_gets_all_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let payload: Vec<Value> = (0..4).map(|d| envelope(d, 1)).collect();
    let quiet = MemoryHistory::new(&["/pk"], Vec::new(), None);
    deliver(&capture(quiet.clone(), folder.path(), usize::MAX), &payload).await;
    assert_eq!(quiet.stored().len(), 8);
    for (piece, writes) in [(1, 0), (1, 2), (1, 3), (usize::MAX, 0), (usize::MAX, 1)] {
        // The earlier versions first, which the process then remembers.
        let mut faults = vec![Fault::None; 4 + writes];
        faults.push(Fault::Remade);
        let history = MemoryHistory::new(&["/pk"], faults, None);
        let process = capture(history.clone(), folder.path(), piece);
        for d in 0..4 {
            deliver(&process, &[envelope(d, 0)]).await;
        }
        deliver(&process, &payload).await;
        assert_eq!(history.stored(), quiet.stored(), "in pieces of {piece} after {writes} writes");
    }
}

/// What is kept compressed is asked here instead of by the service, and must answer as its small twin does.
#[tokio::test]
async fn a_compressed_document_answers_as_the_service_would() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    for (id, size) in [("large", 2_200_000), ("small", 10)] {
        let mut item = feed_document(id, "p", 1);
        (item["city"], item["text"]) = ("Davidson".into(), "x".repeat(size).into());
        assert_eq!(handler.deliver(&[item]).await.0, 200);
    }
    let bodies = app.history().await.iter().filter(|record| record["_change"].get("body").is_some()).count();
    assert_eq!(bodies, 1);
    for (predicate, matches) in [
        ("c._ts > 0 AND IS_STRING(c._etag)", true),
        ("c._ts < 1000", false),
        ("c.city LIKE 'D[a-c]v%' AND c.city NOT LIKE '%[^n]'", true),
        ("c.city LIKE 'D[^a]v%'", false),
    ] {
        let found = app.run(&["history", "--where", predicate, "--format", "json"]).await.json();
        let versions = found.as_array().unwrap().iter().filter(|line| line["container"] == "changes");
        assert_eq!(versions.count(), if matches { 2 } else { 0 }, "{predicate}: {found}");
        let shown = app.run(&["show", "--where", predicate]).await;
        assert_eq!((shown.code, shown.stdout.lines().count()), if matches { (0, 2) } else { (1, 0) }, "{predicate}");
        let found = app.run(&["find", "--sql", predicate, "--format", "json"]).await.json();
        assert_eq!(found.as_array().unwrap().len(), if matches { 2 } else { 0 }, "{predicate}: {found}");
    }
}

//! The capture use case alone, in one thread without real time: the clock is paused and the history is in memory. The
//! seed decides the lives, the batches, who delivers them, which attempt of which write fails and how, kills, and when
//! dead letters can be written. Only the pauses between retries have randomness of their own.
//!
//! The same lives then run again through an account that takes packed writes.

mod packed;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use cosmos_rewind::{
    capture::Capture,
    change::{Op, Via, fidelity::Delivery, time::PointInTime, version::Version},
    history::{History, as_of},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json, value::RawValue};

use super::{limits, seed_after_seed};
use crate::support::{capture_into, memory::MemoryHistory};

const DOCUMENTS: usize = 6;
const LEASES: usize = 3;

/// A process with an empty write cache.
fn process(history: &MemoryHistory, letters: &Path, seed: u64) -> Capture<MemoryHistory> {
    let delivery = if rewrites(seed) { Delivery::DatesRewritten } else { Delivery::DatesKept };
    Capture { delivery, ..capture_into(history.clone(), letters, limits(seed)) }
}

/// Whether this seed's host rewrites dates.
fn rewrites(seed: u64) -> bool {
    seed % 4 > 1
}

/// An item after the host's date rewriting, which drops zero fractions, even in ids. Only the id in a delete's metadata
/// stays as it was.
fn rewritten(item: &Value) -> Value {
    let mut altered: Value = serde_json::from_str(&item.to_string().replace(".000Z", "Z")).unwrap();
    if let Some(id) = item["metadata"].get("id") {
        altered["metadata"]["id"] = id.clone();
    }
    altered
}

/// An id that looks like a date, and the same id after the host has rewritten it.
const DATE: [&str; 2] = ["2020-01-01T00:00:00.000Z", "2020-01-01T00:00:00Z"];

fn id_of(document: usize) -> String {
    if document == 0 { DATE[0].into() } else { format!("d{document}") }
}

/// A version as it happened: time, LSN, and the list if the document existed.
type Happened = (i64, i64, Option<Vec<u64>>);

/// What happened to each document, and the feed of each lease that delivers it.
fn lives(rng: &mut StdRng) -> (BTreeMap<String, Vec<Happened>>, Vec<Vec<Value>>) {
    let mut lives: BTreeMap<String, Vec<Happened>> = BTreeMap::new();
    let mut feed = vec![Vec::new(); LEASES];
    let mut images: BTreeMap<String, (Value, i64)> = BTreeMap::new();
    for lsn in 1..rng.random_range(20..70i64) {
        // Three versions share a second, so only the LSN orders them.
        let (document, ts) = (rng.random_range(0..DOCUMENTS), 1_700_000_000 + lsn / 3);
        let (id, pk) = (id_of(document), format!("p{}", document % 2));
        let before = images.remove(&id);
        // In the trigger's format: a float, and 0 where there was no earlier version.
        let prev = before.as_ref().map_or(0, |(_, prev)| *prev);
        let mut metadata = json!({"crts": ts as f64, "lsn": lsn, "previousImageLSN": prev, "timeToLiveExpired": false});
        let ends = before.is_some() && rng.random_bool(0.2);
        let life = lives.entry(id.clone()).or_default();
        let mut item = if ends {
            metadata["operationType"] = "delete".into();
            metadata["timeToLiveExpired"] = rng.random_bool(0.5).into();
            metadata["id"] = id.as_str().into();
            metadata["partitionKey"] = json!({ "pk": pk });
            life.push((ts, lsn, None));
            json!({"current": {}})
        } else {
            metadata["operationType"] = if before.is_some() { "replace" } else { "create" }.into();
            let mut list: Vec<u64> = before
                .as_ref()
                .map_or_else(Vec::new, |(image, _)| serde_json::from_value(image["list"].clone()).unwrap());
            list.push(lsn as u64);
            let mut image = json!({"id": id, "pk": pk, "list": list, "_rid": format!("rid-{document}"),
                "_etag": format!("\"{lsn}\""), "_ts": ts});
            if document == 1 {
                image["when"] = DATE[0].into();
            }
            images.insert(id.clone(), (image.clone(), lsn));
            life.push((ts, lsn, Some(list)));
            json!({"current": image})
        };
        if let Some((image, _)) = before {
            item["previous"] = image;
        }
        item["metadata"] = metadata;
        feed[document % LEASES].push(item);
    }
    (lives, feed)
}

/// What a follower in latest-version mode reads of the same items: the documents, without the operations.
fn latest(items: &[Value]) -> Vec<Value> {
    let document = |item: &Value| {
        let mut document = item["current"].clone();
        document.get("id")?;
        document["_lsn"] = item["metadata"]["lsn"].clone();
        Some(document)
    };
    items.iter().filter_map(document).collect()
}

async fn run<H: History>(capture: &Capture<H>, batch: &[Value]) -> bool {
    let items: Vec<Box<RawValue>> = batch.iter().map(|item| serde_json::value::to_raw_value(item).unwrap()).collect();
    let items: Vec<&RawValue> = items.iter().map(AsRef::as_ref).collect();
    let begun = tokio::time::Instant::now();
    // Boxed because debug builds need a large part of a thread's stack for it.
    let stored = Box::pin(capture.run(&items, "invocation")).await.is_ok();
    // The deadline plus whatever is in flight when it passes: an unresponsive account must not delay the answer.
    assert!(begun.elapsed() < Duration::from_secs(32), "answered after {:?}", begun.elapsed());
    stored
}

async fn play(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let (lives, written) = lives(&mut rng);
    let is_live = |id: &String| {
        let images = written.iter().flatten().filter_map(|item| item.get("current"));
        images
            .filter(|image| image["id"] == id.as_str())
            .max_by_key(|image| image["list"].as_array()?.last()?.as_u64())
            .cloned()
    };
    let live: Vec<Value> = lives.keys().filter_map(is_live).collect();
    let alter = |items: &Vec<Value>| items.iter().map(rewritten).collect();
    let feed: Vec<Vec<Value>> = if rewrites(seed) { written.iter().map(alter).collect() } else { written.clone() };
    let poisoned = rng.random_bool(0.4).then(|| {
        // Not the document whose id arrives in two forms.
        let (id, life) =
            lives.iter().filter(|(id, _)| *id != DATE[0]).nth(rng.random_range(0..lives.len() - 1)).unwrap();
        let (ts, lsn, list) = &life[rng.random_range(0..life.len())];
        match list {
            Some(_) => (format!("{id}~{lsn}"), *lsn),
            None => (format!("{id}~del-{lsn}-{ts}"), *lsn),
        }
    });
    let poison = poisoned.as_ref().map(|(id, _)| id.clone());
    let history = MemoryHistory::seeded(&["/pk", "/_originalId"], seed, poison.clone());
    history.live(live);
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    // A file in the place of the folder, until half of everything is done.
    let blocked = rng.random_bool(0.5);
    if blocked {
        std::fs::write(&letters, "").unwrap();
    }
    let follower = Capture { delivery: Delivery::Direct, via: Via::Follow, ..process(&history, &letters, seed) };
    let (mut current, mut stale) = (process(&history, &letters, seed), process(&history, &letters, seed));
    let mut done = [0; LEASES];
    let mut steps = 0;
    // The history is recreated under its name with the same number of key paths, so the refusals do not reveal it.
    let remade_at = rng.random_bool(0.3).then(|| rng.random_range(2..12));
    while (0..LEASES).any(|lease| done[lease] < feed[lease].len()) {
        steps += 1;
        assert!(steps < 5_000, "seed {seed}: it does not end: {done:?}");
        if steps == 60 && blocked {
            std::fs::remove_file(&letters).unwrap();
        }
        if Some(steps) == remade_at {
            history.remake(&["/_originalId", "/pk"]);
            // The old container's records are gone with it, so the leases start over.
            done = [0; LEASES];
        }
        let lease = rng.random_range(0..LEASES);
        let end = (done[lease] + rng.random_range(1..8)).min(feed[lease].len());
        let batch = &feed[lease][done[lease]..end];
        let from = rng.random_range(0..=done[lease]);
        let late = &feed[lease][from..(from + rng.random_range(0..6)).min(feed[lease].len())];
        let killed_after = Duration::from_millis(rng.random_range(0..40));
        let acknowledged = match rng.random_range(0..10) {
            // Killed in the middle, or after everything was stored but before the acknowledgement.
            0 | 1 => {
                let _ = tokio::time::timeout(killed_after, run(&current, batch)).await;
                current = process(&history, &letters, seed);
                false
            }
            // A host that does not know yet that it has lost its lease, delivering at the same time.
            2 | 3 => {
                let (ok, _) = tokio::join!(run(&current, batch), run(&stale, late));
                ok
            }
            // Acknowledged, but the host died before it saved the lease.
            4 => {
                run(&current, batch).await;
                stale = std::mem::replace(&mut current, process(&history, &letters, seed));
                false
            }
            // A second capture into the same history that knows less about what happened.
            5 | 6 => {
                let documents = latest(&written[lease][from..end]);
                let (ok, _) = tokio::join!(run(&current, batch), run(&follower, &documents));
                ok
            }
            _ => run(&current, batch).await,
        };
        if acknowledged {
            done[lease] = end;
        }
    }

    let mut captured: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    let last = |id: &str| lives.get(id)?.last()?.2.as_ref().map(|_| lives[id].last().unwrap().1);
    let mut sure: BTreeSet<String> = BTreeSet::new();
    let mut unsure: Vec<Version> = Vec::new();
    for record in history.stored().values() {
        let version = Version::parse(record).unwrap();
        let record: Value = serde_json::from_str(record).unwrap();
        let change = &record["_change"];
        // A rewritten date must be marked.
        let is_altered = record.get("when").is_some_and(|when| when != DATE[0]);
        assert!(!is_altered || change["fidelity"] == "normalized", "seed {seed}: {record}");
        // The text of a live document could be read again, however stale the replicas are.
        let is_live = version.lsn.is_some() && version.lsn == last(&version.id);
        assert!(!is_live || change["fidelity"] == "exact", "seed {seed}: {record}");
        assert!(rewrites(seed) || change["fidelity"] == "exact", "seed {seed}: {record}");
        assert_eq!(change.get("identity").is_some(), version.id == DATE[1], "seed {seed}: {record}");
        if version.id == DATE[1] {
            unsure.push(Version { id: DATE[0].into(), ..version });
            continue;
        }
        sure.extend(version.etag.clone());
        captured.entry(version.id.clone()).or_default().push(version);
    }
    // A version may also be known under its original id: from a delete, which names it, or from a batch that came
    // earlier.
    unsure.retain(|version| version.etag.as_ref().is_none_or(|etag| !sure.contains(etag)));
    captured.entry(DATE[0].into()).or_default().extend(unsure);
    captured.retain(|_, versions| !versions.is_empty());
    let list = |version: &Version| -> Option<Vec<u64>> {
        let document: Value = serde_json::from_str(version.document.as_ref()?).unwrap();
        Some(serde_json::from_value(document["list"].clone()).unwrap())
    };
    let names: BTreeSet<String> = lives.keys().chain(captured.keys()).cloned().collect();
    for id in &names {
        let mut versions = captured.remove(id).unwrap_or_default();
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
        let is: Vec<Happened> = versions.iter().map(|v| (v.ts, v.lsn.unwrap_or(-1), list(v))).collect();
        let mut wanted = lives[id].clone();
        wanted.retain(|(ts, lsn, list)| {
            let name = if list.is_some() { format!("{id}~{lsn}") } else { format!("{id}~del-{lsn}-{ts}") };
            Some(name) != poison
        });
        assert_eq!(is, wanted, "seed {seed}: {id}; poison: {poison:?}");
        for version in versions.iter().filter(|_| !(rewrites(seed) && id == DATE[0])) {
            // The operation is known, whoever wrote the record last. Under another id it is another record.
            let item = written.iter().flatten().find(|item| item["metadata"]["lsn"].as_i64() == version.lsn).unwrap();
            let (op, before) = (
                &item["metadata"]["operationType"],
                item["metadata"]["previousImageLSN"].as_i64().filter(|lsn| *lsn > 0),
            );
            let is = version.op.map(|op| if op == Op::Expire { Op::Delete } else { op }.as_str());
            assert_eq!((is, version.prev_lsn), (op.as_str(), before), "seed {seed}: {id}; poison: {poison:?}");
        }
        for (ts, _, _) in &wanted {
            for moment in [ts - 1, *ts] {
                let in_force = as_of::boundary(&versions, PointInTime::from_epoch(moment)).and_then(list);
                let model = wanted.iter().rfind(|(ts, _, _)| *ts <= moment).and_then(|(_, _, list)| list.clone());
                assert_eq!(in_force, model, "seed {seed}: {id} at {moment}");
            }
        }
    }
    // A dead letter holds the item that could not be stored, or the next one with its previous image.
    let letters = std::fs::read_dir(&letters).into_iter().flatten().map(|letter| {
        let letter: Value = serde_json::from_slice(&std::fs::read(letter.unwrap().path()).unwrap()).unwrap();
        let (item, metadata) = (&letter["item"], &letter["item"]["metadata"]);
        [metadata.get("lsn").or(item.get("_lsn")), metadata.get("previousImageLSN")].map(|lsn| lsn?.as_i64())
    });
    let letters: Vec<_> = letters.collect();
    let lsn = poisoned.map(|(_, lsn)| lsn);
    let told = letters.iter().any(|[own, _]| *own == lsn) && letters.iter().all(|lsns| lsns.contains(&lsn));
    assert_eq!(
        (letters.is_empty(), told),
        (lsn.is_none(), lsn.is_some()),
        "seed {seed}: {letters:?}, poison: {poison:?}"
    );
}

#[test]
fn whatever_happens_in_no_time_every_version_is_captured_once() {
    seed_after_seed("CAPTURE", 60, async |seed| {
        play(seed).await;
        packed::play(seed).await;
    });
}

//! The contract for reading piece by piece with the texts of all versions, for both implementations.

use std::collections::BTreeMap;

use cosmos_rewind::{
    change::time::PointInTime,
    cosmos::RuLimiter,
    history::{
        live::LiveDetail,
        scan::{Scan, ScanTexts, Scope, text_of},
    },
};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use super::{DOCUMENTS, LAYOUTS, START, Side, empty, filled, item};

/// The records of each document in order, with the text of each version.
type Lives = BTreeMap<String, Vec<(String, Option<Value>)>>;

/// The expected result, derived from what was written.
fn expected(side: &Side, wanted: impl Fn(&Value) -> bool) -> Lives {
    let mut lives = Lives::new();
    for record in side.records.iter().filter(|record| record["_originalId"].as_str().unwrap().starts_with("doc-")) {
        let Some(change) = record.get("_change") else { continue };
        let mut document = record.clone();
        let members = document.as_object_mut().unwrap();
        members.remove("_change");
        let id = members.remove("_originalId").unwrap();
        members.insert("id".into(), id.clone());
        let text = (change["op"] != "delete").then_some(document);
        lives.entry(id.as_str().unwrap().into()).or_default().push((record["id"].as_str().unwrap().into(), text));
    }
    lives.retain(|id, _| side.records.iter().any(|record| record["_originalId"] == id.as_str() && wanted(record)));
    lives
}

/// Runs a scan. Returns what it found and how many texts were read along with the versions.
async fn found(side: &Side, scope: &Scope, piece_rows: usize, live: LiveDetail) -> (Lives, usize) {
    found_with(side, scope, piece_rows, live, ScanTexts::All).await
}

async fn found_with(
    side: &Side,
    scope: &Scope,
    piece_rows: usize,
    live: LiveDetail,
    texts: ScanTexts<'_>,
) -> (Lives, usize) {
    let pace = RuLimiter::new(&cosmos_rewind::cosmos::RuMeter::default(), None);
    let scan = Scan {
        containers: &side.containers,
        wanted: scope,
        at: PointInTime::END,
        hash_ranges: &side.containers.hash_ranges(None).unwrap(),
        live,
        piece_rows,
        pace: &pace,
        texts,
    };
    let (mut lives, mut along) = (Lives::new(), 0);
    let mut pieces = std::pin::pin!(scan.pieces());
    while let Some(piece) = pieces.try_next().await.unwrap() {
        for one in piece.found.iter().filter(|one| one.item.id.starts_with("doc-")) {
            assert_eq!(one.live.is_some(), live != LiveDetail::No, "{}: {:?}", side.name, one.item);
            let mut life = Vec::new();
            for version in one.versions.iter().filter(|version| version.op.is_some()) {
                along += usize::from(version.document.is_some());
                let text = match texts {
                    ScanTexts::All => text_of(&side.containers, &one.item, version).await.unwrap(),
                    _ => None,
                };
                let text = text.map(|text| serde_json::from_str(&text).unwrap());
                life.push((version.record_id.clone(), text));
            }
            if !matches!(texts, ScanTexts::All) {
                life.sort_by(|one, other| one.0.cmp(&other.0));
            }
            assert!(lives.insert(one.item.id.clone(), life).is_none(), "{}: {:?} twice", side.name, one.item);
        }
    }
    (lives, along)
}

#[tokio::test]
async fn every_item_has_all_versions_in_order_with_their_texts() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let expected = expected(&side, |_| true);
            let texts: usize = expected.values().flatten().filter(|(_, text)| text.is_some()).count();
            for (piece_rows, live) in [(4000, LiveDetail::No), (10, LiveDetail::Text), (1, LiveDetail::No)] {
                let (lives, along) = found(&side, &Scope::All, piece_rows, live).await;
                assert_eq!(lives, expected, "{}, {piece_rows}", side.name);
                assert_eq!(along, texts, "{}, {piece_rows}", side.name);
            }
            let named = Scope::Items((0..DOCUMENTS).map(item).collect());
            assert_eq!(found(&side, &named, 1, LiveDetail::Etag).await, (expected, texts), "{}", side.name);
        }
    }
}

#[tokio::test]
async fn a_time_range_selects_items_written_in_it_with_all_their_versions() {
    for layout in LAYOUTS {
        for mut side in filled(layout).await {
            for number in [3, 9] {
                let change = json!({"v": 1, "op": "replace", "ts": START + 500 + number, "lsn": 900 + number,
                                    "prevLsn": number * 10 + 2, "etag": format!("\"late{number}\""),
                                    "key": [format!("key-{}", number / 2)], "fidelity": "exact", "via": "trigger"});
                let record = json!({"id": format!("doc-{number}~late"), "pk": format!("key-{}", number / 2),
                                    "n": number, "round": 7, "_originalId": format!("doc-{number}"), "_change": change});
                side.put(layout, record).await;
            }
            for (first, last) in [(400, 505), (503, 509), (504, 508), (61, 119), (120, 120), (60, 9_000)] {
                let (from, to) = (PointInTime::from_epoch(START + first), PointInTime::from_epoch(START + last));
                let within = |record: &Value| {
                    record["_change"]["ts"].as_i64().is_some_and(|ts| (from.seconds()..=to.seconds()).contains(&ts))
                };
                let expected = expected(&side, within);
                for (piece_rows, live) in [(4000, LiveDetail::No), (5, LiveDetail::Text)] {
                    let scope = Scope::Written { from, to };
                    let (lives, _) = found(&side, &scope, piece_rows, live).await;
                    assert_eq!(lives, expected, "{}, {first} to {last}, {piece_rows}", side.name);
                }
            }
        }
    }
}

/// More items in a piece than are looked up one by one.
#[tokio::test]
async fn many_items_in_a_time_range_are_found_like_few() {
    const MANY: i64 = 540;
    for layout in [LAYOUTS[0], LAYOUTS[3]] {
        let [mut side, _] = empty(layout).await;
        for number in 0..MANY {
            let id = format!("doc-{number}");
            for (round, ts) in [(0, START), (1, START + 100 + number % 2)] {
                let op = if round == 0 { "create" } else { "replace" };
                let change = json!({"v": 1, "op": op, "ts": ts, "lsn": number * 10 + round, "key": [number],
                                    "etag": format!("\"e{number}-{round}\""), "fidelity": "exact", "via": "trigger"});
                let record = json!({"id": format!("{id}~{round}"), "pk": number, "round": round, "_originalId": id,
                                    "_change": change});
                side.put(layout, record).await;
            }
        }
        for (first, last, count) in [(100, 100, MANY / 2), (0, 101, MANY), (1, 99, 0)] {
            let (from, to) = (PointInTime::from_epoch(START + first), PointInTime::from_epoch(START + last));
            let (lives, along) = found(&side, &Scope::Written { from, to }, 100_000, LiveDetail::No).await;
            let expected = expected(&side, |record| {
                record["_change"]["ts"].as_i64().is_some_and(|ts| (from.seconds()..=to.seconds()).contains(&ts))
            });
            assert_eq!(lives.len() as i64, count);
            assert_eq!(lives, expected, "{}, {first} to {last}", side.name);
            assert!(along as i64 >= count, "the texts in this time range are read along");
            let scope = Scope::Written { from, to };
            let facts = found_with(&side, &scope, 100_000, LiveDetail::No, ScanTexts::No).await;
            let mut without = expected;
            without.values_mut().flatten().for_each(|(_, text)| *text = None);
            assert_eq!(facts, (without, 0), "{}, {first} to {last}", side.name);
        }
    }
}

#[tokio::test]
async fn a_record_with_an_unreadable_document_is_still_a_version() {
    for layout in LAYOUTS {
        for mut side in filled(layout).await {
            let body = json!({"encoding": "gzip+base64", "size": 5, "sha256": "00", "data": "AAAA"});
            let change = json!({"v": 1, "op": "replace", "ts": START + 300, "lsn": 999, "etag": "\"damaged\"",
                                "key": ["key-1"], "fidelity": "exact", "via": "trigger", "body": body});
            let record = json!({"id": "doc-3~damaged", "pk": "key-1", "_originalId": "doc-3", "_change": change});
            side.put(layout, record).await;
            for scope in [
                Scope::All,
                Scope::Items(vec![item(3)]),
                Scope::Written { from: PointInTime::from_epoch(START + 300), to: PointInTime::END },
            ] {
                let pace = RuLimiter::new(&cosmos_rewind::cosmos::RuMeter::default(), None);
                let scan = Scan {
                    containers: &side.containers,
                    wanted: &scope,
                    at: PointInTime::END,
                    hash_ranges: &side.containers.hash_ranges(None).unwrap(),
                    live: LiveDetail::No,
                    piece_rows: 4000,
                    pace: &pace,
                    texts: ScanTexts::All,
                };
                let pieces: Vec<_> = scan.pieces().try_collect().await.unwrap();
                let bad: Vec<&str> =
                    pieces.iter().flat_map(|piece| &piece.bad).map(|bad| bad.record_id.as_str()).collect();
                assert_eq!(bad.iter().filter(|id| **id == "doc-3~damaged").count(), 1, "{}: {bad:?}", side.name);
                let mut all = pieces.iter().flat_map(|piece| &piece.found);
                let one = all.find(|one| one.item == item(3)).unwrap();
                let last = one.versions.last().unwrap();
                assert_eq!((one.versions.len(), last.record_id.as_str()), (4, "doc-3~damaged"), "{}", side.name);
                assert!(text_of(&side.containers, &one.item, last).await.unwrap_err().is_own(), "{}", side.name);
            }
        }
    }
}

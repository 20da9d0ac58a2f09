//! Reading a history piece by piece: whatever the containers' keys, the size of a piece and the number of machines,
//! each item is found once, with all its versions and its live state in the target.

use std::collections::BTreeMap;

use cosmos_rewind::{
    change::{key::ItemKey, time::PointInTime},
    cosmos::{Param, RuLimiter},
    history::{
        Containers, CosmosContainers,
        as_of::boundary,
        histories::Histories,
        live::LiveDetail,
        scan::{Scan, ScanTexts, ScannedItem, Scope},
    },
};
use futures::TryStreamExt as _;
use serde_json::{Value, json};

use crate::support::TestApp;

const DOCUMENTS: u64 = 60;
const START: i64 = 1_700_000_000;

/// Documents with three versions a minute apart. The newest version of every seventh is not captured, every tenth is
/// deleted, and the last one has no history at all.
async fn filled(paths: &[&str]) -> TestApp {
    let app = TestApp::with_changes_key(paths).await;
    for round in 0..3 {
        let mut batch = Vec::new();
        for i in 0..DOCUMENTS {
            let document = json!({"id": format!("doc-{i}"), "pk": format!("key-{}", i / 2), "round": round, "n": i});
            let mut stored = app.put(document).await;
            stored["_ts"] = (START + round * 60).into();
            let captured = i != DOCUMENTS - 1 && (round < 2 || i % 7 != 0);
            batch.extend(captured.then_some(stored));
        }
        app.capture(&batch).await;
    }
    for i in (0..DOCUMENTS).step_by(10) {
        let key = cosmos_rewind::change::key::PartitionKey::parse(&format!("key-{}", i / 2)).unwrap();
        app.events().await.delete(&key, &format!("doc-{i}"), None).await.unwrap();
    }
    app
}

async fn containers(app: &TestApp) -> Containers {
    let source = app.events().await;
    CosmosContainers { changes: app.changes().await, source }.containers()
}

/// The result of reading everything naively: record ids, text in force, live ETag.
type Facts = BTreeMap<(String, String), (Vec<String>, Option<String>, Option<String>)>;

async fn naive(app: &TestApp, containers: &Containers, at: PointInTime) -> Facts {
    let records = app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
    let found = Histories::group(records.iter().map(|r| r.get()), containers.changes.layout());
    let mut facts = Facts::new();
    for item in found.items {
        let mut ids: Vec<String> = item.versions.iter().map(|v| v.record_id.clone()).collect();
        ids.sort();
        let text = boundary(&item.versions, at).and_then(|v| v.document.clone());
        facts.insert(item.key.sort_key(), (ids, text, None));
    }
    for document in app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap() {
        let document: Value = serde_json::from_str(document.get()).unwrap();
        let key = (document["id"].as_str().unwrap().to_owned(), json!([document["pk"]]).to_string());
        facts.entry(key).or_default().2 = Some(document["_etag"].as_str().unwrap().to_owned());
    }
    facts
}

fn facts(found: &[ScannedItem], at: PointInTime, text_of: impl Fn(&ScannedItem) -> Option<String>) -> Facts {
    let mut facts = Facts::new();
    for one in found {
        let mut ids: Vec<String> = one.versions.iter().map(|v| v.record_id.clone()).collect();
        ids.sort();
        let inside = boundary(&one.versions, at).and_then(|v| v.document.clone());
        let text = inside.or_else(|| text_of(one));
        let live = one.live.as_ref().map(|l| l.etag.clone());
        assert!(facts.insert(one.item.sort_key(), (ids, text, live)).is_none(), "{:?} twice", one.item);
    }
    facts
}

async fn all(scan: &Scan<'_>) -> Vec<ScannedItem> {
    let pieces: Vec<_> = scan.pieces().try_collect().await.unwrap();
    pieces.into_iter().flat_map(|piece| piece.found).collect()
}

#[tokio::test]
async fn every_item_is_found_once_whatever_the_layout_and_the_size_of_a_piece() {
    let at = PointInTime::from_epoch(START + 90);
    let mut texts = 0;
    for paths in [&["/pk", "/_originalId"][..], &["/pk"], &["/_originalId"], &["/id"]] {
        let app = filled(paths).await;
        let containers = containers(&app).await;
        let expected = naive(&app, &containers, at).await;
        assert_eq!(expected.len() as u64, DOCUMENTS);
        let pace = RuLimiter::new(app.events().await.cosmos().meter(), None);
        for (piece_rows, needed) in [(4000, false), (15, false), (15, true), (1, true)] {
            let scan = Scan {
                containers: &containers,
                wanted: &Scope::All,
                at,
                hash_ranges: &containers.hash_ranges(None).unwrap(),
                live: LiveDetail::Text,
                piece_rows,
                pace: &pace,
                texts: ScanTexts::InForce(&|_| needed),
            };
            let found = all(&scan).await;
            texts += found.iter().filter(|f| boundary(&f.versions, at).is_some_and(|v| v.document.is_some())).count();
            // A text that was not read along equals the one that would be read later, so it is not compared.
            let same = |f: &ScannedItem| expected[&f.item.sort_key()].1.clone();
            assert_eq!(facts(&found, at, same), expected, "{paths:?} {piece_rows} {needed}");
            for live in found.iter().filter_map(|f| f.live.as_ref()) {
                assert!(live.text.as_ref().is_none_or(|t| t.contains(&live.etag.replace('"', "\\\""))), "{live:?}");
            }
        }
        let shares = containers.hash_ranges(Some("1/3".parse().unwrap()));
        assert_eq!(shares.is_ok(), paths[0] == "/pk", "{paths:?}: {shares:?}");
        if shares.is_err() {
            continue;
        }
        let mut shared = Vec::new();
        for share in ["1/3", "2/3", "3/3"] {
            let scan = Scan {
                containers: &containers,
                wanted: &Scope::All,
                at,
                hash_ranges: &containers.hash_ranges(Some(share.parse().unwrap())).unwrap(),
                live: LiveDetail::Etag,
                piece_rows: 15,
                pace: &pace,
                texts: ScanTexts::No,
            };
            let found = all(&scan).await;
            assert!(found.len() < shared.len() + DOCUMENTS as usize, "one share has everything");
            shared.extend(found);
        }
        let same = |f: &ScannedItem| expected[&f.item.sort_key()].1.clone();
        assert_eq!(facts(&shared, at, same), expected, "{paths:?}");
    }
    assert!(texts > 100, "documents were never read along");
}

#[tokio::test]
async fn a_predicate_selects_documents_that_matched_at_the_moment() {
    let app = filled(&["/pk", "/_originalId"]).await;
    let containers = containers(&app).await;
    let pace = RuLimiter::new(app.events().await.cosmos().meter(), None);
    let keys = |items: Vec<ItemKey>| {
        let mut ids: Vec<String> = items.into_iter().map(|i| i.id).collect();
        ids.sort();
        ids
    };
    for (after, round) in [(0, 0), (59, 0), (60, 1), (90, 1), (120, 2), (500, 2)] {
        let scope = Scope::Where {
            predicate: "c.round = @round AND c.n < 20 -- all of them".into(),
            params: vec![Param::new("round", round)],
        };
        let scan = Scan {
            containers: &containers,
            wanted: &scope,
            at: PointInTime::from_epoch(START + after),
            hash_ranges: &containers.hash_ranges(None).unwrap(),
            live: LiveDetail::No,
            piece_rows: 10,
            pace: &pace,
            texts: ScanTexts::No,
        };
        let found = all(&scan).await;
        let missed = |n: u64| round == 2 && n.is_multiple_of(7);
        let mut expected: Vec<String> = (0..20).filter(|n| !missed(*n)).map(|n| format!("doc-{n}")).collect();
        expected.sort();
        assert_eq!(keys(found.into_iter().map(|f| f.item).collect()), expected, "{after}");
        let ever = scan.ever_matched().await.unwrap().0;
        assert_eq!(keys(ever.into_iter().collect()), expected);
    }
}

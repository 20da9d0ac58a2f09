//! Restore, undo and load under faults: storms of 429 and 412, answers that get lost, and a kill at every write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Fault, Kind, Output, TestApp, When};

const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// What the live container has: documents without system properties by id. The ids are their own keys here.
type Live = BTreeMap<String, Value>;

/// Documents that were good ten minutes ago. Since then `changed-*` were changed, `deleted-*` deleted and `new-*` made.
struct Damage {
    app: TestApp,
    /// The live container before anything is restored.
    before: Live,
    /// And as of the moment.
    good: Live,
    /// The moment, in epoch seconds: the same for every command, however long a test takes.
    at: String,
}

impl Damage {
    /// So many documents of each kind.
    async fn done(each: usize) -> Self {
        let app = TestApp::start().await;
        let now = Utc::now().timestamp();
        let changes = app.changes().await;
        let mut good = Live::new();
        let mut lsn = 0;
        let mut record = async |id: &str, op: &str, minutes: i64, etag: Option<&str>, document: Option<&Value>| {
            lsn += 1;
            let (ts, own) = (now - minutes * 60, etag.map_or(format!("\"old-{lsn}\""), str::to_owned));
            let mut record = document.cloned().unwrap_or_else(|| json!({"pk": id}));
            record["id"] = match document {
                Some(_) => format!("{id}~{}", own.trim_matches('"')).into(),
                None => format!("{id}~del-{lsn}").into(),
            };
            record["_originalId"] = id.into();
            record["_change"] = json!({"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": own});
            let key = PartitionKey::parse(&json!([id, id]).to_string()).unwrap();
            let record_id = record["id"].as_str().unwrap().to_owned();
            changes.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
        };
        for n in 0..each {
            let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city_name": city, "n": n});
            let id = format!("changed-{n:02}");
            record(&id, "create", 20, None, Some(&document(&id, "Davidson"))).await;
            good.insert(id.clone(), document(&id, "Davidson"));
            let stored = app.put(document(&id, "Ruined")).await;
            // Of every other document the newest version has not been captured yet.
            if n % 2 == 0 {
                record(&id, "replace", 5, stored["_etag"].as_str(), Some(&document(&id, "Ruined"))).await;
            }
            let id = format!("deleted-{n:02}");
            record(&id, "create", 20, None, Some(&document(&id, "Davidson"))).await;
            record(&id, "delete", 5, None, None).await;
            good.insert(id.clone(), document(&id, "Davidson"));
            let id = format!("new-{n:02}");
            let stored = app.put(document(&id, "Newer")).await;
            record(&id, "create", 5, stored["_etag"].as_str(), Some(&document(&id, "Newer"))).await;
        }
        let damage = Self { app, before: Live::new(), good, at: (now - 600).to_string() };
        let before = damage.live().await;
        Self { before, ..damage }
    }

    fn args<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let all = ["restore", "--all", "--at", &self.at, "--delete-newer", "--no-stamp", "--format", "json"];
        [&all[..], more].concat()
    }

    /// Etag and document by id, read apart from the program.
    async fn etags(&self) -> BTreeMap<String, (String, Value)> {
        let found = self.app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap();
        let documents = found.iter().map(|raw| {
            let mut document: Value = serde_json::from_str(raw.get()).unwrap();
            let etag = document["_etag"].as_str().unwrap().to_owned();
            SYSTEM.iter().for_each(|name| drop(document.as_object_mut().unwrap().shift_remove(*name)));
            (document["id"].as_str().unwrap().to_owned(), (etag, document))
        });
        documents.collect()
    }

    async fn live(&self) -> Live {
        self.etags().await.into_iter().map(|(id, (_, document))| (id, document)).collect()
    }

    /// Every version in the history, by id of the document and etag.
    async fn versions(&self) -> BTreeSet<(String, String)> {
        let sql = "SELECT c._originalId AS id, c._change.etag AS etag FROM c WHERE IS_DEFINED(c._change.etag)";
        let found = self.app.changes().await.query_all(sql, &[], None).await.unwrap();
        let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
        let rows = found.iter().map(|raw| serde_json::from_str::<Value>(raw.get()).unwrap());
        rows.map(|row| (text(&row, "id"), text(&row, "etag"))).collect()
    }

    /// The id of the newest restore, of those that planned to write.
    async fn newest(&self) -> Option<String> {
        let listed = self.app.run(&["undo", "--list", "--format", "json"]).await.json();
        listed.as_array().unwrap().last().map(|r| r["restore"].as_str().unwrap().to_owned())
    }
}

fn report(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// How many outcomes have each fate.
fn fates(report: &Value) -> BTreeMap<&str, usize> {
    let mut fates = BTreeMap::new();
    for outcome in report["outcomes"].as_array().unwrap() {
        *fates.entry(outcome["fate"].as_str().unwrap()).or_default() += 1;
    }
    fates
}

const EVERYTHING: [Kind; 5] = [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead, Kind::Query];

#[tokio::test]
async fn a_storm_of_429_delays_planning_applying_and_undoing_and_changes_nothing_else() {
    let damage = Damage::done(4).await;
    let proxy = &damage.app.proxy;
    let ids: Vec<String> = damage.good.keys().flat_map(|id| ["--id", id, "--pk", id].map(str::to_owned)).collect();
    for (status, sub) in [(429, 3200), (449, 0)] {
        // A query's page is asked for again by the client library, which does so for 429 only.
        let kinds = if status == 429 { &EVERYTHING[..] } else { &EVERYTHING[..4] };
        for all in [true, false] {
            let args = match all {
                true => damage.args(&["--yes"]),
                false => ["restore", "--at", &damage.at, "--no-stamp", "--format", "json", "--yes"]
                    .into_iter()
                    .chain(ids.iter().map(String::as_str))
                    .collect(),
            };
            proxy.storm(kinds, 3, Fault::Reject(status, sub));
            let restored = damage.app.run_through_proxy(&args).await;
            assert_eq!(restored.code, 0, "{restored:?}");
            assert!(proxy.calm() > 60, "no storm");
            let written = if all { 12 } else { 8 };
            assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", written)]));
            let mut expected = damage.good.clone();
            if !all {
                expected.extend(
                    damage.before.iter().filter(|(id, _)| id.starts_with("new")).map(|(i, d)| (i.clone(), d.clone())),
                );
            }
            assert_eq!(damage.live().await, expected);

            let id = report(&restored)["restore"].as_str().unwrap().to_owned();
            proxy.storm(kinds, 3, Fault::Reject(status, sub));
            let undone = damage.app.run_through_proxy(&["undo", &id, "--yes"]).await;
            assert_eq!(undone.code, 0, "{undone:?}");
            assert!(proxy.calm() > 40, "no storm");
            assert_eq!(damage.live().await, damage.before);
        }
    }
}

#[tokio::test]
async fn a_writer_that_is_always_quicker_loses_no_write_and_is_reported_document_by_document() {
    let damage = Damage::done(6).await;
    let events = damage.app.events().await;
    let moves = Arc::new(AtomicUsize::new(0));
    let counted = moves.clone();
    // Before each second document is written, somebody else writes it: also where there was none.
    damage.app.proxy.before_live_writes(Some(Arc::new(move |path| {
        let (events, moves) = (events.clone(), counted.clone());
        Box::pin(async move {
            // A document that is made is named in the body only; `deleted-*` are met by the test below.
            let Some(id) = path.rsplit_once("/docs/").map(|(_, id)| id.to_owned()) else { return };
            if id[id.len() - 1..].parse::<u32>().unwrap() % 2 == 0 {
                let key = PartitionKey::parse(&id).unwrap();
                let newer =
                    json!({"id": id, "pk": id, "city_name": "Quicker", "moves": moves.fetch_add(1, Ordering::SeqCst)});
                events.upsert(&key, &id, newer.to_string().into_bytes()).await.unwrap();
            }
        })
    })));
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.stderr.contains("12 written, 0 already so, 6 conflicts, 0 failed"), "{restored:?}");
    assert_eq!(moves.load(Ordering::SeqCst), 6, "each document was tried once");
    let told = report(&restored);
    let live = damage.live().await;
    for outcome in told["outcomes"].as_array().unwrap() {
        let id = outcome["id"].as_str().unwrap();
        let moved = !id.starts_with("deleted") && id[id.len() - 1..].parse::<u32>().unwrap() % 2 == 0;
        assert_eq!(outcome["fate"], if moved { "conflict" } else { "done" }, "{outcome}");
        if moved {
            assert_eq!(live[id]["city_name"], "Quicker", "{id}: a newer write is lost");
            assert!(outcome["message"].as_str().unwrap().contains("changed"), "{outcome}");
        } else {
            assert_eq!(live.get(id), damage.good.get(id));
        }
    }

    // Undone under the same storm: what the writer moves again stays, what it leaves alone goes back.
    let id = told["restore"].as_str().unwrap();
    let before_undo = live;
    let undone = damage.app.run_through_proxy(&["undo", id, "--yes", "--format", "json"]).await;
    let live = damage.live().await;
    let mut conflicts = 0;
    for outcome in report(&undone)["outcomes"].as_array().unwrap() {
        let id = outcome["id"].as_str().unwrap();
        if outcome["fate"] == "conflict" {
            conflicts += 1;
            assert_eq!(live[id]["city_name"], "Quicker");
        } else {
            assert_eq!(live.get(id), damage.before.get(id), "{outcome}");
        }
    }
    assert_eq!((undone.code, conflicts), (3, 3), "those that were made, of every second: {undone:?}");
    for (id, document) in before_undo.iter().filter(|(_, d)| d["city_name"] == "Quicker") {
        assert_eq!(live.get(id), Some(document), "the undo touched what the restore had not");
    }
}

#[tokio::test]
async fn a_document_that_somebody_made_first_is_a_conflict_of_its_recreation() {
    let damage = Damage::done(3).await;
    let events = damage.app.events().await;
    damage.app.proxy.before_live_writes(Some(Arc::new(move |path| {
        let events = events.clone();
        Box::pin(async move {
            if path.ends_with("/docs") {
                for n in 0..3 {
                    let id = format!("deleted-{n:02}");
                    let key = PartitionKey::parse(&id).unwrap();
                    // Only the first is quicker: a create that fails because it is there already is fine.
                    let own = json!({"id": id, "pk": id, "city_name": "Quicker"});
                    let _ = events.create(&key, &id, own.to_string().into_bytes()).await;
                }
            }
        })
    })));
    let restored = damage.app.run_through_proxy(&damage.args(&["--yes", "--concurrency", "1"])).await;
    assert_eq!(restored.code, 3, "{restored:?}");
    assert!(restored.stderr.contains("6 written, 0 already so, 3 conflicts"), "{restored:?}");
    let live = damage.live().await;
    for n in 0..3 {
        assert_eq!(live[&format!("deleted-{n:02}")]["city_name"], "Quicker");
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_done_and_can_be_undone() {
    for fault in [Fault::FailAfterWrite, Fault::CutAfterWrite, Fault::Cut] {
        let damage = Damage::done(3).await;
        let proxy = &damage.app.proxy;
        let kinds = [Kind::HistoryWrite, Kind::LiveWrite];
        proxy.storm(&kinds, 1, fault.clone());
        let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
        assert_eq!(restored.code, 0, "{fault:?}: {restored:?}");
        // Nine documents, and the six versions that are saved first.
        assert!(proxy.calm() >= 15, "{fault:?}");
        assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", 9)]), "{fault:?}");
        assert_eq!(damage.live().await, damage.good, "{fault:?}");
        let again = damage.app.run(&damage.args(&["--yes"])).await;
        assert_eq!(report(&again)["outcomes"], json!([]), "{fault:?}");

        let id = report(&restored)["restore"].as_str().unwrap().to_owned();
        proxy.storm(&kinds, 1, fault.clone());
        let undone = damage.app.run_through_proxy(&["undo", &id, "--yes", "--format", "json"]).await;
        assert_eq!(undone.code, 0, "{fault:?}: {undone:?}");
        assert!(proxy.calm() >= 9, "{fault:?}");
        assert_eq!(damage.live().await, damage.before, "{fault:?}");
    }
}

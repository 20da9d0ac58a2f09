//! Restore, undo and load under faults: storms of 429 and 412, answers that get lost, and a kill at every write.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chrono::Utc;
use cosmos_rewind::change::{VersionFidelity, key::PartitionKey};
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
        let all = ["restore", "--all", "--at", &self.at, "--delete-newer=99", "--no-stamp", "--format", "json"];
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

    /// The id of the newest restore that has begun its journal, which is when it may write: ids sort by time.
    async fn newest(&self) -> Option<String> {
        let sql = "SELECT VALUE c._originalId FROM c WHERE IS_DEFINED(c._restore)";
        let found = self.app.changes().await.query_all(sql, &[], None).await.unwrap();
        let groups = found.iter().map(|raw| serde_json::from_str::<String>(raw.get()).unwrap());
        groups.max().map(|group| group.strip_prefix("restore~").unwrap().to_owned())
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
        // Nine documents, and the one version that was not captured yet.
        assert!(proxy.calm() >= 10, "{fault:?}");
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

/// Starts a command that writes, and kills it when so many writes have passed: before or after the next one. False when
/// it came to its end before that.
pub async fn killed_at(app: &TestApp, args: &[&str], passing: usize, when: When) -> bool {
    let reached = app.proxy.hold_after(passing, when);
    let mut running = app.start_through_proxy(args);
    let held = tokio::select! {
        held = reached => held.unwrap(),
        code = running.code() => {
            assert_eq!(code, Some(0), "{args:?}");
            app.proxy.hold_nothing();
            return false;
        }
    };
    running.kill().await;
    drop(held);
    true
}

pub fn before_or_after(k: usize) -> When {
    // To the account, after one write and before the next are the same: each point of time comes up all the same.
    if k.is_multiple_of(2) { When::Before } else { When::After }
}

/// Whatever was live and is no more is in the history.
async fn nothing_is_lost(damage: &Damage, looks: &[BTreeMap<String, (String, Value)>], when: &str) {
    let kept = damage.versions().await;
    let now = damage.etags().await;
    for (id, (etag, _)) in looks.iter().flatten() {
        let is_live = now.get(id).is_some_and(|(live, _)| live == etag);
        assert!(is_live || kept.contains(&(id.clone(), etag.clone())), "{when}: {id} {etag} is lost");
    }
}

#[tokio::test]
async fn a_restore_killed_at_any_write_is_finished_by_running_it_again_and_undone() {
    let damage = Damage::done(3).await;
    let args = damage.args(&["--yes", "--concurrency", "2"]);
    let mut kills = 0;
    loop {
        let when = format!("write {kills}, {:?}", before_or_after(kills));
        let mut looks = vec![damage.etags().await];
        let last = damage.newest().await;
        if !killed_at(&damage.app, &args, kills, before_or_after(kills)).await {
            break;
        }
        looks.push(damage.etags().await);
        let killed = damage.newest().await.filter(|id| Some(id) != last.as_ref());
        let again = damage.app.run(&args).await;
        assert_eq!(again.code, 0, "{when}: {again:?}");
        assert_eq!(damage.live().await, damage.good, "{when}");
        looks.push(damage.etags().await);
        // DecodedBatch back, last one first, also what the killed one could not note any more.
        let told = report(&again);
        let wrote = told["outcomes"].as_array().is_some_and(|outcomes| !outcomes.is_empty());
        let finished = told["restore"].as_str().filter(|_| wrote).map(str::to_owned);
        for id in finished.into_iter().chain(killed) {
            let undone = damage.app.run(&["undo", &id, "--yes"]).await;
            assert_eq!(undone.code, 0, "{when}: {undone:?}");
        }
        assert_eq!(damage.live().await, damage.before, "{when}");
        nothing_is_lost(&damage, &looks, &when).await;
        kills += 1;
    }
    assert_eq!(damage.live().await, damage.good);
    assert!(kills >= 12, "nine documents, one version saved, the journal: only {kills} writes");
}

#[tokio::test]
async fn a_restore_killed_at_any_write_is_undone_without_being_finished() {
    let damage = Damage::done(2).await;
    let args = damage.args(&["--yes", "--concurrency", "1"]);
    let mut kills = 0;
    loop {
        let when = format!("write {kills}, {:?}", before_or_after(kills));
        let mut looks = vec![damage.etags().await];
        let last = damage.newest().await;
        if !killed_at(&damage.app, &args, kills, before_or_after(kills)).await {
            break;
        }
        looks.push(damage.etags().await);
        match damage.newest().await {
            Some(id) if Some(&id) != last.as_ref() => {
                // The second time there is nothing left to be taken back.
                for _ in 0..2 {
                    let undone = damage.app.run(&["undo", &id, "--yes"]).await;
                    assert_eq!(undone.code, 0, "{when}: {undone:?}");
                    assert_eq!(damage.live().await, damage.before, "{when}");
                }
            }
            _ => assert_eq!(damage.etags().await, looks[0], "{when}: without a journal something was written"),
        }
        nothing_is_lost(&damage, &looks, &when).await;
        kills += 1;
    }
    assert!(kills >= 8, "six documents and the journal: only {kills} writes");
}

#[tokio::test]
async fn an_undo_killed_at_any_write_is_finished_by_running_it_again() {
    let damage = Damage::done(2).await;
    let mut kills = 0;
    loop {
        let when = format!("write {kills}, {:?}", before_or_after(kills));
        let restored = damage.app.run(&damage.args(&["--yes"])).await;
        let id = report(&restored)["restore"].as_str().unwrap().to_owned();
        let undo = ["undo", &id, "--yes", "--concurrency", "2"];
        let mut looks = vec![damage.etags().await];
        if !killed_at(&damage.app, &undo, kills, before_or_after(kills)).await {
            break;
        }
        looks.push(damage.etags().await);
        let again = damage.app.run(&undo).await;
        assert_eq!(again.code, 0, "{when}: {again:?}");
        assert_eq!(damage.live().await, damage.before, "{when}");
        nothing_is_lost(&damage, &looks, &when).await;
        kills += 1;
    }
    assert_eq!(damage.live().await, damage.before);
    assert!(kills >= 8, "six documents and the journal: only {kills} writes");
}

#[tokio::test]
async fn a_load_killed_at_any_write_is_finished_by_running_it_again() {
    let app = TestApp::start().await;
    let document = |n: usize, city: &str| json!({"id": format!("d{n}"), "pk": format!("d{n}"), "city_name": city});
    let events = app.events().await;
    let reset = async || {
        for n in 0..6 {
            let id = format!("d{n}");
            let key = PartitionKey::parse(&id).unwrap();
            if n % 2 == 0 {
                app.put(document(n, "Newer")).await;
            } else if events.read(&key, &id).await.unwrap().is_some() {
                events.delete(&key, &id, None).await.unwrap();
            }
        }
    };
    for n in 0..6 {
        app.put(document(n, "Davidson")).await;
    }
    let file = app.folder.path().join("backup.jsonl");
    let path = file.to_str().unwrap();
    assert_eq!(app.run(&["backup", "--all", "--out", path]).await.code, 0);
    // Of a later moment, so that `if-newer` has something to replace.
    let lines = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, lines.replace("\"at\":null", "\"at\":\"2100-01-01T00:00:00Z\"")).unwrap();
    for (mode, existing, writes) in
        [("upsert", "Davidson", 6), ("create-only", "Newer", 6), ("if-newer", "Davidson", 6)]
    {
        let load = ["load", path, "--mode", mode, "--concurrency", "2"];
        let expected: Vec<Value> =
            (0..6).map(|n| document(n, if n % 2 == 0 { existing } else { "Davidson" })).collect();
        let mut kills = 0;
        loop {
            reset().await;
            let killed = killed_at(&app, &load, kills, before_or_after(kills)).await;
            if killed {
                let again = app.run(&load).await;
                assert_eq!(again.code, 0, "{mode}, write {kills}: {again:?}");
            }
            let found = events.query_all("SELECT c.id, c.pk, c.city_name FROM c", &[], None).await.unwrap();
            let mut live: Vec<Value> = found.iter().map(|raw| serde_json::from_str(raw.get()).unwrap()).collect();
            live.sort_by_key(|d| d["id"].to_string());
            assert_eq!(live, expected, "{mode}, write {kills}");
            if !killed {
                break;
            }
            kills += 1;
        }
        assert_eq!(kills, writes, "{mode}");
    }
}

#[tokio::test]
#[cfg(unix)]
async fn ctrl_c_ends_a_restore_with_a_true_report_and_undo_works() {
    let damage = Damage::done(4).await;
    let args = damage.args(&["--yes", "--concurrency", "1"]);
    // Held up at its third document, it gets the signal there.
    let reached = damage.app.proxy.hold_after(7, When::Before);
    let running = damage.app.start_through_proxy(&args);
    let held = reached.await.unwrap();
    running.interrupt();
    drop(held);
    let stopped = running.ended().await;
    assert_eq!(stopped.code, 3, "{stopped:?}");
    let told = report(&stopped);
    let (mut live, mut done) = (damage.before.clone(), 0);
    for outcome in told["outcomes"].as_array().unwrap() {
        assert_eq!(outcome["fate"], "done", "what had begun is finished: {outcome}");
        done += 1;
        let id = outcome["id"].as_str().unwrap();
        match damage.good.get(id) {
            Some(document) => live.insert(id.to_owned(), document.clone()),
            None => live.remove(id),
        };
    }
    assert!((1..12).contains(&done), "{told}");
    assert_eq!(damage.live().await, live, "the report is not what happened");
    assert!(
        stopped
            .stderr
            .contains(&format!("{done} written, 0 already so, 0 conflicts, 0 failed, {} not begun", 12 - done)),
        "{stopped:?}"
    );
    let undone = damage.app.run(&["undo", told["restore"].as_str().unwrap(), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(damage.live().await, damage.before);
}

#[tokio::test]
async fn a_saved_plan_that_was_applied_finds_everything_as_it_should_be() {
    let damage = Damage::done(2).await;
    let file = damage.app.folder.path().join("plan");
    let path = file.to_str().unwrap();
    let planned = damage.app.run(&damage.args(&["--dry-run", "--plan-out", path])).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    for fate in ["done", "already"] {
        let applied = damage.app.run(&["restore", "--plan", path, "--yes", "--format", "json"]).await;
        assert_eq!(applied.code, 0, "{applied:?}");
        assert_eq!(fates(&report(&applied)), BTreeMap::from([(fate, 6)]));
        assert_eq!(damage.live().await, damage.good);
    }
    // Each use has a journal of its own: the second one wrote nothing, and the first is taken back exactly.
    let uses = damage.app.run(&["undo", "--list", "--format", "json"]).await.json();
    let ids: Vec<&str> = uses.as_array().unwrap().iter().map(|use_of| use_of["restore"].as_str().unwrap()).collect();
    let [first, second] = ids[..] else { panic!("{uses}") };
    for (id, expected) in [(second, &damage.good), (first, &damage.before)] {
        let undone = damage.app.run(&["undo", id, "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        assert_eq!(damage.live().await, *expected);
    }
}

#[tokio::test]
async fn a_version_that_was_captured_with_altered_dates_is_saved_exactly_before_it_is_overwritten() {
    let app = TestApp::start().await;
    let now = Utc::now().timestamp();
    let exact = json!({"id": "a", "pk": "a", "day": "2020-01-01T00:00:00+02:00"});
    let stored = app.put(exact.clone()).await;
    let etag = stored["_etag"].as_str().unwrap().to_owned();
    let key = PartitionKey::parse(r#"["a","a"]"#).unwrap();
    for (record_id, ts, lsn, fidelity, day, etag) in [
        ("a~e1".to_owned(), now - 1200, 1, "exact", "2019-01-01", "\"e1\"".to_owned()),
        // What the host makes of the date.
        (format!("a~{}", etag.trim_matches('"')), now - 300, 2, "normalized", "2019-12-31T22:00:00Z", etag.clone()),
    ] {
        let op = if lsn == 1 { "create" } else { "replace" };
        let record = json!({"id": record_id, "pk": "a", "day": day, "_originalId": "a",
            "_change": {"v": 1, "op": op, "ts": ts, "lsn": lsn, "etag": etag, "via": "trigger", "fidelity": fidelity}});
        app.changes().await.upsert(&key, &record_id, record.to_string().into_bytes()).await.unwrap();
    }
    let at = (now - 600).to_string();
    for scope in [&["--all"][..], &["--id", "a"]] {
        let restored =
            app.run(&[&["restore", "--at", &at, "--no-stamp", "--yes", "--format", "json"], scope].concat()).await;
        assert_eq!(restored.code, 0, "{restored:?}");
        let undone = app.run(&["undo", report(&restored)["restore"].as_str().unwrap(), "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        let live = app.run(&["query", "SELECT c.id, c.pk, c.day FROM c", "--format", "json"]).await.json();
        assert_eq!(live, json!([exact]), "{scope:?}");
    }
    // The history keeps what it knew of that version: when it was, and in what order.
    let versions = app.versions("a").await;
    let kept = versions.iter().find(|v| v.etag.as_ref() == Some(&etag)).unwrap();
    assert_eq!(
        (kept.ts, kept.lsn, kept.fidelity.as_ref().map(VersionFidelity::as_str)),
        (now - 300, Some(2), Some("exact"))
    );
    assert_eq!(kept.document.as_deref(), Some(exact.to_string().as_str()));
}

#[tokio::test]
async fn two_restores_at_the_same_time_do_it_once_and_both_can_be_undone() {
    let damage = Damage::done(6).await;
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    // With a stamp, so that the two do not write the same.
    let args = ["restore", "--all", "--at", &damage.at, "--delete-newer=99", "--format", "json", "--yes"];
    let first = damage.app.start_through_proxy(&args);
    let second = damage.app.start_through_proxy(&[&args[..], &["--journal", other]].concat());
    let told = [first.ended().await, second.ended().await];
    let good = async || {
        let mut live = damage.live().await;
        live.values_mut().for_each(|d| drop(d.as_object_mut().unwrap().shift_remove("restored_at")));
        live
    };
    assert_eq!(good().await, damage.good, "{told:?}");
    for output in &told {
        assert!([0, 3].contains(&output.code), "{output:?}");
    }
    let last_first = told.iter().rev().map(report);
    for one in last_first.filter(|one| !one["outcomes"].as_array().unwrap().is_empty()) {
        let undone = damage.app.run(&["undo", one["restore"].as_str().unwrap(), "--yes"]).await;
        assert!([0, 3].contains(&undone.code), "{undone:?}");
    }
    assert_eq!(damage.live().await, damage.before, "{told:?}");
}

#[tokio::test]
async fn connections_that_break_and_a_service_that_is_away_for_a_moment_delay_and_change_nothing_else() {
    let damage = Damage::done(2).await;
    let proxy = &damage.app.proxy;
    for fault in [Fault::Cut, Fault::Reject(503, 0), Fault::Reject(408, 0), Fault::Reject(410, 1007)] {
        proxy.storm(&EVERYTHING, 1, fault.clone());
        let restored = damage.app.run_through_proxy(&damage.args(&["--yes"])).await;
        assert_eq!(restored.code, 0, "{fault:?}: {restored:?}");
        assert!(proxy.calm() > 10, "{fault:?}: no storm");
        assert_eq!(fates(&report(&restored)), BTreeMap::from([("done", 6)]), "{fault:?}");
        assert_eq!(damage.live().await, damage.good, "{fault:?}");
        proxy.storm(&EVERYTHING, 1, fault.clone());
        let id = report(&restored)["restore"].as_str().unwrap().to_owned();
        let undone = damage.app.run_through_proxy(&["undo", &id, "--yes"]).await;
        assert_eq!(undone.code, 0, "{fault:?}: {undone:?}");
        assert!(proxy.calm() > 10, "{fault:?}: no storm");
        assert_eq!(damage.live().await, damage.before, "{fault:?}");
    }
}

#[tokio::test]
async fn a_restore_of_single_fields_killed_at_any_write_is_finished_or_undone() {
    let damage = Damage::done(2).await;
    let ids = ["--id", "changed-00", "--pk", "changed-00", "--id", "changed-01", "--pk", "changed-01"];
    let how =
        ["restore", "--at", &damage.at, "--only", "/city_name", "--yes", "--concurrency", "1", "--format", "json"];
    let args = [&how[..], &ids].concat();
    let mut expected = damage.before.clone();
    for id in ["changed-00", "changed-01"] {
        expected.get_mut(id).unwrap()["city_name"] = "Davidson".into();
    }
    let stamped = |live: Live| -> Live {
        let plain = |(id, mut document): (String, Value)| {
            document.as_object_mut().unwrap().shift_remove("restored_at");
            (id, document)
        };
        live.into_iter().map(plain).collect()
    };
    let mut kills = 0;
    loop {
        let when = format!("write {kills}, {:?}", before_or_after(kills));
        let last = damage.newest().await;
        if !killed_at(&damage.app, &args, kills, before_or_after(kills)).await {
            break;
        }
        let killed = damage.newest().await.filter(|id| Some(id) != last.as_ref());
        // Every third time it is finished first.
        let mut restores: Vec<String> = killed.into_iter().collect();
        if kills % 3 == 2 {
            let again = damage.app.run(&args).await;
            assert_eq!(again.code, 0, "{when}: {again:?}");
            assert_eq!(stamped(damage.live().await), expected, "{when}");
            let told = report(&again);
            if !told["outcomes"].as_array().unwrap().is_empty() {
                restores.insert(0, told["restore"].as_str().unwrap().to_owned());
            }
        }
        for id in restores {
            let undone = damage.app.run(&["undo", &id, "--yes"]).await;
            assert_eq!(undone.code, 0, "{when}: {undone:?}");
        }
        assert_eq!(damage.live().await, damage.before, "{when}");
        kills += 1;
    }
    assert_eq!(stamped(damage.live().await), expected);
    assert!(kills >= 4, "two documents and the journal: only {kills} writes");
}

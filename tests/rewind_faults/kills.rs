//! Kills at every write.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use super::{Damage, Live, report};
use crate::support::{Fault, Kind, TestApp, When, eventually};

/// Starts a command that writes, and kills it after this many writes: before or after the next one. Returns false when
/// it ended first.
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
    // To the account, after one write and before the next are the same moment, so alternating still covers every
    // moment.
    if k.is_multiple_of(2) { When::Before } else { When::After }
}

/// Asserts that every version that was live and has been replaced is in the history.
async fn nothing_is_lost(damage: &Damage, looks: &[BTreeMap<String, (String, Value)>], when: &str) {
    let kept = damage.versions().await;
    let now = damage.etags().await;
    for (id, (etag, _)) in looks.iter().flatten() {
        let is_live = now.get(id).is_some_and(|(live, _)| live == etag);
        assert!(is_live || kept.contains(&(id.clone(), etag.clone())), "{when}: {id} {etag} is lost");
    }
}

/// A restore that was killed at a write.
struct Killed {
    when: String,
    /// The documents before and after it.
    looks: Vec<BTreeMap<String, (String, Value)>>,
    /// Its id, if it was killed after it had begun its journal.
    restore: Option<String>,
}

/// Runs a restore and kills it at its `kills`-th write; returns `None` when it ends first.
async fn killed_restore(damage: &Damage, args: &[&str], kills: usize) -> Option<Killed> {
    let when = format!("write {kills}, {:?}", before_or_after(kills));
    let mut looks = vec![damage.etags().await];
    let last = damage.newest().await;
    if !killed_at(&damage.app, args, kills, before_or_after(kills)).await {
        return None;
    }
    looks.push(damage.etags().await);
    let restore = damage.newest().await.filter(|id| Some(id) != last.as_ref());
    Some(Killed { when, looks, restore })
}

#[tokio::test]
async fn a_restore_killed_at_any_write_is_finished_by_running_it_again_and_undone() {
    let damage = Damage::done(3).await;
    let args = damage.args(&["--yes", "--concurrency", "2"]);
    let mut kills = 0;
    while let Some(Killed { when, mut looks, restore: killed }) = killed_restore(&damage, &args, kills).await {
        let again = damage.app.run(&args).await;
        assert_eq!(again.code, 0, "{when}: {again:?}");
        assert_eq!(damage.live().await, damage.good, "{when}");
        looks.push(damage.etags().await);
        // Undoes the restores from last to first, including writes that the killed one could not record.
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
    while let Some(Killed { when, looks, restore }) = killed_restore(&damage, &args, kills).await {
        match restore {
            Some(id) => {
                // The second undo has nothing left to do.
                for _ in 0..2 {
                    let undone = damage.app.run(&["undo", &id, "--yes"]).await;
                    assert_eq!(undone.code, 0, "{when}: {undone:?}");
                    assert_eq!(damage.live().await, damage.before, "{when}");
                }
            }
            None => assert_eq!(damage.etags().await, looks[0], "{when}: without a journal something was written"),
        }
        nothing_is_lost(&damage, &looks, &when).await;
        kills += 1;
    }
    assert!(kills >= 8, "six documents and the journal: only {kills} writes");
}

/// A killed restore must not claim a document that it had only begun to read, even if the document is in the planned
/// state.
#[tokio::test]
async fn undo_of_a_killed_restore_does_not_recreate_what_the_application_deleted() {
    let damage = Damage::done(1).await;
    let plan = damage.app.folder.path().join("plan.json").to_string_lossy().into_owned();
    let planned = damage.app.run_through_proxy(&damage.args(&["--dry-run", "--plan-out", &plan])).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let key = PartitionKey::parse("new-00").unwrap();
    damage.app.events().await.delete(&key, "new-00", None).await.unwrap();
    let left = damage.live().await;

    let (proxy, before) = (&damage.app.proxy, damage.app.proxy.reads());
    proxy.fail_always_of(Kind::LiveRead, Some(Fault::Hold(When::Before, Duration::from_secs(60))));
    let running = damage.app.start_through_proxy(&["restore", "--plan", &plan, "--yes", "--max-deletes", "1"]);
    eventually("both existing documents are read", async || (proxy.reads() >= before + 2).then_some(())).await;
    running.kill().await;
    proxy.fail_always_of(Kind::LiveRead, None);

    let undone = damage.app.run(&["undo", &damage.newest().await.unwrap(), "--yes"]).await;
    assert_eq!((undone.code, damage.live().await), (0, left), "{undone:?}");
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
    // A later timestamp, so that `if-newer` has something to replace.
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
    // The signal arrives while its third document is held up.
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
        assert_eq!(outcome["fate"], "done", "the step in progress is finished: {outcome}");
        done += 1;
        let id = outcome["id"].as_str().unwrap();
        match damage.good.get(id) {
            Some(document) => live.insert(id.to_owned(), document.clone()),
            None => live.remove(id),
        };
    }
    assert!((1..12).contains(&done), "{told}");
    assert_eq!(damage.live().await, live, "the report does not match what happened");
    assert!(
        stopped
            .stderr
            .contains(&format!("{done} written, 0 already up to date, 0 conflicts, 0 failed, {} not begun", 12 - done)),
        "{stopped:?}"
    );
    let undone = damage.app.run(&["undo", told["restore"].as_str().unwrap(), "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    assert_eq!(damage.live().await, damage.before);
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
        // In every third case it is finished first.
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

//! Some or all of the trigger's leases are lost while documents are written, and the trigger starts over there.
//! Afterwards, each statement about a document at a moment must be true or say that the state is unknown.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::{
    change::key::PartitionKey,
    local::trigger::{FunctionBinding, HandlerProgram, Trigger, TriggerMode, TriggerOptions},
};
use serde_json::{Value, json};

use super::captured::{drawn, next_second};
use crate::support::{Handler as Process, TestApp};

/// The state of each document by id, from the test's own log.
type World = BTreeMap<String, i64>;

struct Life {
    app: TestApp,
    handler: Process,
    seed: u64,
    now: World,
    moments: Vec<(i64, World)>,
}

impl Life {
    async fn start(seed: u64) -> Self {
        let app = TestApp::start().await;
        let handler = app.handler(&[("REWIND_FIDELITY", "payload")]).await;
        Self { app, handler, seed, now: World::new(), moments: Vec::new() }
    }

    fn draw(&mut self, below: u64) -> u64 {
        drawn(&mut self.seed, below)
    }

    async fn write(&mut self, times: u64) {
        for _ in 0..times {
            let id = format!("doc-{}", self.draw(24));
            if self.now.contains_key(&id) && self.draw(3) == 0 {
                self.app.events().await.delete(&key_of(&id), &id, None).await.unwrap();
                self.now.remove(&id);
            } else {
                let n = self.draw(1 << 30) as i64;
                self.app.put(json!({"id": id, "pk": id, "n": n})).await;
                self.now.insert(id, n);
            }
        }
    }

    async fn moment(&mut self) {
        let at = next_second().await;
        self.moments.push((at, self.now.clone()));
        next_second().await;
    }

    async fn trigger(&self) -> Trigger {
        let mut options = TriggerOptions::new(self.app.folder.path().to_owned());
        options.handler = HandlerProgram::Running(self.handler.url("").parse().unwrap());
        options.binding = Some(FunctionBinding::capture_changes(&[]));
        options.mode = Some(TriggerMode::AllVersions);
        options.poll_delay = Some(Duration::from_millis(20));
        Trigger::start(&self.app.local, options).await.unwrap()
    }

    async fn captured(&self, trigger: &Trigger) {
        trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
    }

    /// Deletes up to `most` leases.
    async fn lose(&self, most: usize) {
        let leases = self.app.cosmos.container("dev", "leases").await.unwrap();
        let found = leases.query_all("SELECT * FROM c WHERE IS_DEFINED(c.LeaseToken)", &[], None).await.unwrap();
        assert!(found.len() >= 4, "{found:?}");
        for lease in found.iter().take(most) {
            let lease: Value = serde_json::from_str(lease.get()).unwrap();
            let id = lease["id"].as_str().unwrap();
            leases.delete(&PartitionKey::parse(&json!([id]).to_string()).unwrap(), id, None).await.unwrap();
        }
    }

    /// Asserts that every command reports the true state at every moment, or reports it as unknown.
    async fn look(&self) -> [usize; 2] {
        let (mut known, mut unknown) = (0, 0);
        for (at, then) in &self.moments {
            let text = at.to_string();
            let restore = ["restore", "--all", "--at", &text, "--delete-newer=99", "--dry-run", "--format", "json"];
            let planned = self.app.run(&restore).await;
            let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|_| panic!("{planned:?}"));
            for step in plan["plan"]["steps"].as_array().unwrap() {
                let id = step["id"].as_str().unwrap();
                let (was, is) = (then.get(id), self.now.get(id));
                let action = step["action"].as_str().unwrap();
                let is_true = match action {
                    "unknown" => true,
                    "keep" => was == is,
                    "restore" => was.is_some() && is.is_some(),
                    "recreate" => was.is_some() && is.is_none(),
                    "delete" => was.is_none() && is.is_some(),
                    _ => false,
                };
                assert!(is_true, "at {at} {id} was {was:?}, but {is:?} is reported: {step}");
                *(if action == "unknown" { &mut unknown } else { &mut known }) += 1;
            }
            let out = format!("{at}-{}.jsonl", std::fs::read_dir(self.app.folder.path()).unwrap().count());
            let saved = self.app.run(&["backup", "--all", "--at", &text, "--out", &out, "--format", "json"]).await;
            let report: Value = serde_json::from_str(&saved.stdout).unwrap_or_else(|_| panic!("{saved:?}"));
            let file = std::fs::read_to_string(self.app.folder.path().join(&out)).unwrap();
            let documents: Vec<Value> = file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let ids: Vec<&str> = documents.iter().filter_map(|document| document["id"].as_str()).collect();
            for id in &ids {
                assert!(then.contains_key(*id), "{id} did not exist at {at}: {saved:?}");
            }
            let lacking = then.keys().filter(|id| !ids.contains(&id.as_str())).count() as u64;
            assert!(lacking <= report["unknown"].as_u64().unwrap(), "{lacking} are missing at {at}: {saved:?}");
        }
        [known, unknown]
    }
}

fn key_of(id: &str) -> PartitionKey {
    PartitionKey::parse(id).unwrap()
}

async fn live(seed: u64, lost: usize) {
    let mut life = Life::start(seed).await;
    let trigger = life.trigger().await;
    // Enough documents that every lease has a position.
    for n in 0..24 {
        let id = format!("doc-{n}");
        life.app.put(json!({"id": id, "pk": id, "n": n})).await;
        life.now.insert(id, n);
    }
    life.write(20).await;
    life.captured(&trigger).await;
    life.moment().await;
    life.write(20).await;
    life.captured(&trigger).await;
    trigger.stop().await;
    life.lose(lost).await;
    life.write(30).await;
    life.moment().await;
    life.write(10).await;
    // Checks before anything is captured again, and afterwards.
    life.look().await;
    let trigger = life.trigger().await;
    life.captured(&trigger).await;
    life.look().await;
    life.moment().await;
    life.write(30).await;
    life.captured(&trigger).await;
    life.moment().await;
    let [known, unknown] = life.look().await;
    assert!(known > unknown && unknown > 0, "{known} known, {unknown} unknown");
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_lost_lease_every_claim_is_true() {
    for seed in 1..=2 {
        live(seed, 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_all_leases_are_lost_every_claim_is_true() {
    for seed in 3..=4 {
        live(seed, usize::MAX).await;
    }
}

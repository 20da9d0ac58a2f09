//! Several followers write one history, each at times, and lose their checkpoints; in some lives the trigger is among
//! them, and loses its leases. Whatever a command says of a document at a moment is true, or it says that this is not
//! known.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    captured::{Captured, delete_positions, drawn, next_second},
    gaps::{follow, forget_one},
    leases_again::trigger,
};

/// The state of each document by id, from the test's own log.
type State = BTreeMap<String, i64>;

struct Life {
    world: Captured,
    seed: u64,
    /// Three followers, and maybe the trigger.
    readers: u64,
    now: State,
    moments: Vec<(i64, State)>,
    log: Vec<String>,
    known: usize,
    unknown: u64,
}

impl Life {
    fn draw(&mut self, below: u64) -> u64 {
        drawn(&mut self.seed, below)
    }

    async fn write(&mut self, times: u64) {
        for _ in 0..times {
            let id = format!("doc-{}", self.draw(8));
            if self.now.contains_key(&id) && self.draw(3) == 0 {
                self.world.delete(&id, &id).await;
                self.log.push(format!("deleted {id}"));
                self.now.remove(&id);
            } else {
                let n = self.draw(3) as i64;
                self.world.put(json!({"id": id, "pk": id, "n": n})).await;
                self.log.push(format!("{id} = {n}"));
                self.now.insert(id, n);
            }
        }
    }

    async fn moment(&mut self) {
        next_second().await;
        let at = next_second().await;
        self.moments.push((at, self.now.clone()));
        self.log.push(format!("at {at}"));
        next_second().await;
    }

    /// One of the readers goes on from where it stood, or begins.
    async fn capture(&mut self) {
        match self.draw(self.readers) {
            3 => {
                let handler = self.world.app.handler(&[]).await;
                let trigger = trigger(&self.world.app, &handler).await;
                trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
                trigger.stop().await;
                self.log.push("the trigger captured".to_owned());
            }
            follower => {
                let name = format!("follower-{follower}");
                follow(&self.world, &name).await;
                self.log.push(format!("{name} captured"));
            }
        }
    }

    async fn lose(&mut self) {
        match self.draw(self.readers) {
            3 => {
                delete_positions(&self.world.app, "NOT STARTSWITH(c.id, 'follow.')").await;
                self.log.push("the leases are lost".to_owned());
            }
            follower => self.lose_one(&format!("follower-{follower}")).await,
        }
    }

    async fn lose_one(&mut self, name: &str) {
        forget_one(&self.world, name).await;
        self.log.push(format!("{name} is lost"));
    }

    async fn look(&mut self) {
        for (at, then) in self.moments.clone() {
            let text = at.to_string();
            let restore = ["restore", "--all", "--at", &text, "--delete-newer=99", "--dry-run", "--format", "json"];
            let planned = self.world.run(&restore).await;
            let plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|_| panic!("{planned:?}"));
            for step in plan["plan"]["steps"].as_array().unwrap() {
                let id = step["id"].as_str().unwrap();
                let (was, is) = (then.get(id), self.now.get(id));
                let is_noted = step["notes"].as_array().is_some_and(|notes| !notes.is_empty());
                let is_true = match step["action"].as_str().unwrap() {
                    "unknown" => true,
                    // That a version in between is missing is noted.
                    "keep" => was == is || (was.is_some() && is.is_some() && is_noted),
                    "restore" => was.is_some() && is.is_some(),
                    "recreate" => was.is_some() && is.is_none(),
                    "delete" => was.is_none() && is.is_some(),
                    _ => false,
                };
                assert!(is_true, "at {at} {id} was {was:?}, but {is:?} is reported: {step}\n{:#?}", self.log);
            }
            let out = format!("{at}-{}.jsonl", std::fs::read_dir(self.world.app.folder.path()).unwrap().count());
            let saved = self.world.run(&["backup", "--all", "--at", &text, "--out", &out, "--format", "json"]).await;
            let report: Value = serde_json::from_str(&saved.stdout).unwrap_or_else(|_| panic!("{saved:?}"));
            let file = std::fs::read_to_string(self.world.app.folder.path().join(&out)).unwrap();
            for document in file.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
                let Some(id) = document["id"].as_str() else { continue };
                let is_right = then.get(id).is_some_and(|n| document["n"] == *n || saved.stderr.contains("caveat"));
                assert!(
                    is_right,
                    "at {at} {id} was {:?}, but {document} is in the file: {saved:?}\n{:#?}",
                    then.get(id),
                    self.log
                );
                self.known += 1;
            }
            self.unknown += report["unknown"].as_u64().unwrap();
        }
    }
}

/// Lives for some steps, and returns how much was known and how much was not.
async fn live(seed: u64, readers: u64) -> (usize, u64) {
    let world = Captured::start("all-versions").await;
    let (now, moments) = (State::new(), Vec::new());
    let mut life = Life { world, seed, readers, now, moments, log: Vec::new(), known: 0, unknown: 0 };
    life.write(12).await;
    life.world.capture().await;
    life.moment().await;
    for step in 0..12 {
        match life.draw(10) {
            0..=3 => {
                let times = life.draw(5) + 1;
                life.write(times).await;
                life.moment().await;
            }
            4..=6 => life.capture().await,
            _ => life.lose().await,
        }
        // The first follower is lost with what it stands before.
        if step == 6 {
            life.lose_one("capture").await;
        }
    }
    life.look().await;
    life.moment().await;
    life.capture().await;
    life.write(2).await;
    life.capture().await;
    life.look().await;
    (life.known, life.unknown)
}

#[tokio::test]
async fn after_checkpoints_are_lost_every_claim_is_true() {
    let (one, other) = tokio::join!(live(1, 3), live(2, 3));
    let (known, unknown) = (one.0 + other.0, one.1 + other.1);
    assert!(known > 0 && unknown > 0, "{known} known, {unknown} unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_checkpoints_and_leases_are_lost_every_claim_is_true() {
    let (known, unknown) = live(3, 4).await;
    assert!(known > 0 && unknown > 0, "{known} known, {unknown} unknown");
}

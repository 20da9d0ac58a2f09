//! Several followers write one history, each at times, and lose their checkpoints; in some lives the trigger is among
//! them, and loses its leases. Whatever a command says of a document at a moment is true, or it says that this is not
//! known.

use std::time::Duration;

use serde_json::Value;

use super::{
    captured::{Captured, delete_positions},
    gaps::{follow, forget_one},
    leases_again::trigger,
    writer::Writer,
};

struct Life {
    world: Captured,
    /// Three followers, and maybe the trigger.
    readers: u64,
    writer: Writer,
    known: usize,
    unknown: u64,
}

impl Life {
    async fn write(&mut self, times: u64) {
        self.writer.write(&self.world, times, 3, 3).await;
    }

    /// One of the readers goes on from where it stood, or begins.
    async fn capture(&mut self) {
        match self.writer.draw(self.readers) {
            3 => {
                let handler = self.world.app.handler(&[]).await;
                let trigger = trigger(&self.world.app, &handler).await;
                trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
                trigger.stop().await;
                self.writer.note("the trigger captured".to_owned());
            }
            follower => {
                let name = format!("follower-{follower}");
                follow(&self.world, &name).await;
                self.writer.note(format!("{name} captured"));
            }
        }
    }

    async fn lose(&mut self) {
        match self.writer.draw(self.readers) {
            3 => {
                delete_positions(&self.world.app, "NOT STARTSWITH(c.id, 'follow.')").await;
                self.writer.note("the leases are lost".to_owned());
            }
            follower => self.lose_one(&format!("follower-{follower}")).await,
        }
    }

    async fn lose_one(&mut self, name: &str) {
        forget_one(&self.world, name).await;
        self.writer.note(format!("{name} is lost"));
    }

    async fn look(&mut self) {
        for (at, then) in self.writer.moments.clone() {
            let text = at.to_string();
            self.writer.plan(&self.world, at, &then).await;
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
                    self.writer.log
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
    let mut life = Life { world, readers, writer: Writer::new(seed), known: 0, unknown: 0 };
    life.write(12).await;
    life.world.capture().await;
    life.writer.moment().await;
    for step in 0..12 {
        match life.writer.draw(10) {
            0..=3 => {
                let times = life.writer.draw(5) + 1;
                life.write(times).await;
                life.writer.moment().await;
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
    life.writer.moment().await;
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

//! A follower and its stand-by against a model: random writes, deletes and expiries, while partitions split and merge,
//! processes are killed and suspended, and the service fails. Every sink must end up with every version.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read as _,
    time::Duration,
};

use cosmos_rewind::{
    change::{Op, key::PartitionKey},
    cosmos::Container,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    follow::events,
    support::{Fault, FollowerProcess, Kind, Letterbox, Output, TestApp, eventually},
};

/// The history of each document in order: the appended list, or `None` for a delete.
type Lives = BTreeMap<String, Vec<Option<List>>>;
/// The numbers appended to a document so far.
type List = Vec<u64>;
/// The same by LSN, in any order.
type Found = BTreeMap<String, Vec<(i64, Option<List>)>>;

/// The segment sink is added at run time, when its address is known.
const FOLLOW: [&str; 15] = [
    "--source",
    "live",
    "--mode",
    "all-versions",
    "--lease",
    "2",
    "--sink",
    "changes",
    "--sink",
    "file:events.jsonl",
    "--name",
    "model",
    "--segments",
    "--segment-seconds",
    "1",
];

struct World {
    app: TestApp,
    /// The destination of segments.
    blobs: Letterbox,
    source: Container,
    rng: StdRng,
    lives: Lives,
    /// Unique within a run, so that a missing or duplicated version shows.
    counter: u64,
}

impl World {
    async fn start(seed: u64) -> Self {
        let app = TestApp::start().await;
        let live =
            json!({"id": "live", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": -1});
        assert!(app.local.create_container("dev", live).await.unwrap());
        let source = app.cosmos.container("dev", "live").await.unwrap();
        let (blobs, rng) = (Letterbox::start().await, StdRng::seed_from_u64(seed));
        Self { app, blobs, source, rng, lives: Lives::new(), counter: 0 }
    }

    fn start_follower(&self) -> FollowerProcess {
        let segments = format!("blob:{}", self.blobs.url());
        FollowerProcess::start(&self.app, &[&FOLLOW[..], &["--sink", &segments]].concat())
    }

    /// The contents of the segments.
    fn segments(&self) -> Lives {
        let texts = self.blobs.blobs().into_values().map(|bytes| {
            let mut text = String::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
            text
        });
        lives_of(&texts.collect::<String>())
    }

    /// Writes or deletes a random document.
    async fn write(&mut self) {
        let id = format!("doc-{:02}", self.rng.random_range(0..24));
        let key = PartitionKey::parse(&format!("key-{}", &id[4..])).unwrap();
        let life = self.lives.entry(id.clone()).or_default();
        let now = life.last().cloned().flatten();
        if now.is_some() && self.rng.random_bool(0.12) {
            self.source.delete(&key, &id, None).await.unwrap();
            life.push(None);
            return;
        }
        self.counter += 1;
        let list = [now.unwrap_or_default(), vec![self.counter]].concat();
        let document = json!({"id": id, "pk": key.to_string(), "list": list});
        self.source.upsert(&key, &id, document.to_string().into_bytes()).await.unwrap();
        life.push(Some(list));
    }

    /// Writes a document that expires.
    async fn write_short_lived(&mut self) {
        self.counter += 1;
        let id = format!("short-{}", self.counter);
        let document = json!({"id": id, "pk": "short", "ttl": 1, "list": [self.counter]});
        let key = PartitionKey::parse("short").unwrap();
        self.source.upsert(&key, &id, document.to_string().into_bytes()).await.unwrap();
        self.lives.insert(id, vec![Some(vec![self.counter]), None]);
    }

    async fn repartition(&mut self) {
        let ranges = self.app.local.ranges("dev", "live").await.unwrap();
        if ranges.len() > 2 && self.rng.random_bool(0.6) {
            let at = self.rng.random_range(0..ranges.len() - 1);
            self.app.local.merge("dev", "live", &ranges[at], &ranges[at + 1]).await.unwrap();
        } else if ranges.len() < 6 {
            let at = self.rng.random_range(0..ranges.len());
            self.app.local.split("dev", "live", &ranges[at]).await.unwrap();
        }
    }

    /// From now until the next round, each request fails once or twice.
    fn break_something(&mut self) {
        let fault = match self.rng.random_range(0..7) {
            0 => Fault::Reject(429, 3200),
            1 => Fault::Reject(503, 0),
            2 => Fault::Reject(449, 0),
            3 => Fault::Reject(408, 0),
            4 => Fault::FailAfterWrite,
            5 => Fault::CutAfterWrite,
            _ => Fault::Cut,
        };
        self.app.proxy.storm(&[Kind::HistoryWrite, Kind::Definition, Kind::Query], self.rng.random_range(1..3), fault);
    }

    /// The history in its own order.
    async fn history(&self) -> Lives {
        let mut found = Found::new();
        for record in self.app.history().await {
            let op = serde_json::from_value::<Op>(record["_change"]["op"].clone()).unwrap();
            let lsn = record["_change"]["lsn"].as_i64().unwrap();
            let list = (!op.is_tombstone()).then(|| serde_json::from_value(record["list"].clone()).unwrap());
            found.entry(record["_originalId"].as_str().unwrap().to_owned()).or_default().push((lsn, list));
        }
        in_order(found)
    }

    /// The contents of the file; repeated lines are merged because they are equal.
    fn file(&self) -> Lives {
        let text = std::fs::read_to_string(self.app.folder.path().join("events.jsonl")).unwrap_or_default();
        // After a process was killed within a line, the next one starts a new line.
        let whole: String = text
            .lines()
            .filter(|line| serde_json::from_str::<Value>(line).is_ok())
            .map(|line| format!("{line}\n"))
            .collect();
        lives_of(&whole)
    }
}

/// The histories in events, each version once.
fn lives_of(lines: &str) -> Lives {
    let mut seen = BTreeMap::new();
    for event in events(lines) {
        let version = event["version"].as_str().unwrap().to_owned();
        if let Some(before) = seen.insert(version, event.clone()) {
            assert_eq!(before, event, "a version has two different events");
        }
    }
    let mut found = Found::new();
    for event in seen.into_values() {
        let list = event["doc"].as_object().map(|doc| serde_json::from_value(doc["list"].clone()).unwrap());
        found.entry(event["id"].as_str().unwrap().to_owned()).or_default().push((event["lsn"].as_i64().unwrap(), list));
    }
    in_order(found)
}

fn in_order(found: Found) -> Lives {
    found
        .into_iter()
        .map(|(id, mut versions)| {
            versions.sort_by_key(|(lsn, _)| *lsn);
            (id, versions.into_iter().map(|(_, list)| list).collect())
        })
        .collect()
}

/// Runs a follower until it has caught up.
async fn run(world: &World) -> Output {
    let segments = format!("blob:{}", world.blobs.url());
    let more = ["--sink", &segments];
    world.app.run(&[&["follow", "--until-caught-up", "--poll", "50"], &FOLLOW[..], &more].concat()).await
}

/// One random run, reproducible from its seed.
async fn play(seed: u64, rounds: usize) {
    let mut world = World::start(seed).await;
    let begun = run(&world).await;
    assert_eq!(begun.code, 0, "seed {seed}: {begun:?}");
    let mut followers = [0, 1].map(|_| world.start_follower());
    let mut faults = 0;
    for round in 0..rounds {
        for _ in 0..world.rng.random_range(5..25) {
            world.write().await;
        }
        let which = world.rng.random_range(0..2);
        faults += world.app.proxy.calm();
        world.blobs.busy(false);
        match (round + seed as usize) % 6 {
            0 => {
                followers[which].kill();
                followers[which] = world.start_follower();
            }
            // Suspended for longer than the lease: the other follower takes the name and has written by the time this
            // one wakes up with unwritten events, and notices.
            1 => {
                // The follower has read the latest writes, and still buffers them.
                tokio::time::sleep(Duration::from_millis(300)).await;
                followers[which].signal("STOP");
                for _ in 0..10 {
                    world.write().await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                followers[which].signal("CONT");
            }
            2 => world.repartition().await,
            3 => world.write_short_lived().await,
            4 => {
                // Asked to stop, it finishes the work in progress.
                followers[which].signal("TERM");
                assert!(followers[which].ended().await.success(), "seed {seed}: {:#?}", followers[which].log());
                followers[which] = world.start_follower();
            }
            _ => {
                world.break_something();
                world.blobs.busy(world.rng.random_bool(0.5));
            }
        }
        tokio::time::sleep(Duration::from_millis(world.rng.random_range(0..300))).await;
    }
    faults += world.app.proxy.calm();
    world.blobs.busy(false);
    assert!(faults > 0, "seed {seed}: no request met a fault");
    for follower in &mut followers {
        follower.kill();
    }
    // Everything that was due has expired; a read makes sure of it.
    eventually("the short-lived documents have expired", async || {
        let left = world.source.query_all("SELECT c.id FROM c WHERE c.pk = 'short'", &[], None).await.unwrap();
        left.is_empty().then_some(())
    })
    .await;
    eventually("the name is free, and everything is read", async || (run(&world).await.code == 0).then_some(())).await;
    let wanted: BTreeSet<_> = world.lives.iter().collect();
    for (sink, found) in [("changes", world.history().await), ("file", world.file()), ("segments", world.segments())] {
        let found: BTreeSet<_> = found.iter().collect();
        let missing: Vec<_> = wanted.difference(&found).collect();
        let more: Vec<_> = found.difference(&wanted).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "again with: COSMOS_REWIND_SEED={seed} cargo test --test main follow_model\n\
             {sink} should have {missing:?}\nand has {more:?}"
        );
    }
    assert!(world.lives.len() > 20 && world.counter > 60, "seed {seed}: {} writes are too few", world.counter);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_each_sink_has_every_version() {
    let seeds = match std::env::var("COSMOS_REWIND_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        Some(seed) => seed..seed + 1,
        None => 1..4,
    };
    for seed in seeds {
        play(seed, 14).await;
    }
}

//! One run. The seed decides what is written, what fails and what is asked, but not the timing: the processes and their
//! clock are real.

mod commands;

use std::{collections::BTreeMap, ops::Range, time::Duration};

use chrono::Utc;
use cosmos_rewind::cosmos::{Disposition, Failure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::world::{Documents, Item, Lives, World, is_lasting, key, unless_moving};
use crate::support::{FollowerProcess, Handler, Kind, Letterbox, eventually};

const FOLLOW: [&str; 6] = ["--mode", "all-versions", "--name", "sim", "--lease", "2"];
const KEYS: [&str; 3] = ["hot", "ké\"y' ~%2F&", "key-2"];
/// The document that is erased. Its name is unique enough to be found anywhere.
const SUBJECT: &str = "jane-doe-4711";

pub struct Run {
    seed: u64,
    rng: StdRng,
    world: World,
    /// A second handler, for a host that does not know yet that it has lost its lease.
    stale: Handler,
    counter: u64,
    /// The latest list of each document.
    lists: BTreeMap<Item, Vec<u64>>,
    /// The ETags of acknowledged writes, in order.
    written: BTreeMap<Item, Vec<String>>,
    /// The last second of the container before this one.
    remade: Option<i64>,
    /// The seconds of which nobody knows whether all is in the history: from the last one of the container before until
    /// everything has begun to read the container of today.
    doubtful: Range<i64>,
}

/// The documents that do not expire.
fn lasting(container: &Documents) -> Documents {
    container.iter().filter(|(item, _)| is_lasting(item)).map(|(item, text)| (item.clone(), text.clone())).collect()
}

impl Run {
    pub async fn start(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let letterbox = if rng.random_bool(0.5) { Some(Letterbox::start().await) } else { None };
        let world = World::with_letters(letterbox).await;
        let stale = world.app.handler(&[]).await;
        Self {
            seed,
            rng,
            world,
            stale,
            counter: 0,
            lists: BTreeMap::new(),
            written: BTreeMap::new(),
            remade: None,
            doubtful: 0..0,
        }
    }

    fn item(&mut self) -> Item {
        if self.rng.random_bool(0.06) {
            return (SUBJECT.into(), KEYS[0].into());
        }
        // Half of all documents share one key; an id under two keys is two documents.
        let key = KEYS[[0, 0, 1, 2][self.rng.random_range(0..4)]];
        (format!("doc ö~{}", self.rng.random_range(0..6)), key.into())
    }

    /// Appends a number to a document, or deletes it.
    async fn write(&mut self) {
        let item = self.item();
        if self.lists.contains_key(&item) && self.rng.random_bool(0.12) {
            let key = key(&item);
            match unless_moving(|| self.world.events.delete(&key, &item.0, None)).await {
                Ok(_) => {}
                // A restore may have deleted it.
                Err(Failure { disposition: Disposition::NotFound, .. }) => {}
                Err(failure) => panic!("seed {}: {failure}", self.seed),
            }
            self.lists.remove(&item);
            return;
        }
        self.append(&item).await;
    }

    async fn append(&mut self, item: &Item) {
        self.counter += 1;
        let list = self.lists.entry(item.clone()).or_default();
        list.push(self.counter);
        let mut document = json!({"list": list, "pk": item.1, "id": item.0, "price": 0.1});
        if self.rng.random_bool(0.02) {
            let size = self.rng.random_range(100_000..1_900_000);
            document["pad"] = char::from(b'a' + (size % 26) as u8).to_string().repeat(size).into();
        }
        self.put(item, document).await;
    }

    async fn put(&mut self, item: &Item, document: Value) {
        let text = document.to_string();
        let (events, key) = (&self.world.events, key(item));
        let upsert = || events.upsert(&key, &item.0, text.clone().into_bytes());
        let done = unless_moving(upsert).await.unwrap();
        self.written.entry(item.clone()).or_default().push(done.etag.unwrap());
    }

    async fn write_short_lived(&mut self) {
        self.counter += 1;
        let item = (format!("short-{}", self.counter), KEYS[self.rng.random_range(0..3)].to_owned());
        let document = json!({"id": item.0, "pk": item.1, "list": [self.counter], "ttl": 1});
        self.put(&item, document).await;
    }

    /// Delivers part of the feed again from an earlier position, as a host whose lease was stolen.
    async fn deliver_again(&mut self) {
        let mut ranges = self.world.feed().await;
        ranges.retain(|items| !items.is_empty());
        if ranges.is_empty() {
            return;
        }
        let items = &ranges[self.rng.random_range(0..ranges.len())];
        let from = self.rng.random_range(0..items.len());
        let to = (from + self.rng.random_range(1..30)).min(items.len());
        for batch in items[from..to].chunks(10) {
            // Whether this is stored does not matter: the host that now holds the lease is responsible.
            self.stale.deliver_text(&format!("[{}]", batch.join(","))).await;
        }
    }

    async fn short_ones_are_gone(&self) {
        eventually("the short-lived documents have expired", async || {
            let sql = "SELECT VALUE c.id FROM c WHERE STARTSWITH(c.id, 'short')";
            self.world.events.query_all(sql, &[], None).await.unwrap().is_empty().then_some(())
        })
        .await;
    }

    /// Asserts that every acknowledged write happened, in order, and that the history contains exactly what happened.
    async fn settle(&mut self) -> Lives {
        self.short_ones_are_gone().await;
        let truth = self.world.is_all_captured(self.seed).await;
        for (item, etags) in &self.written {
            let mut told = truth[item].iter().filter_map(|told| told.etag.as_ref());
            for etag in etags {
                assert!(told.any(|t| t == etag), "seed {}: {item:?} {etag} was acknowledged", self.seed);
            }
        }
        truth
    }

    /// A second in which something happened, mostly.
    fn moment(&mut self, truth: &Lives) -> i64 {
        let mut all: Vec<i64> = truth.values().flatten().map(|told| told.ts).collect();
        all.retain(|ts| !self.doubtful.contains(ts));
        let mut moment = all[self.rng.random_range(0..all.len())];
        if self.rng.random_bool(0.2) && !self.doubtful.contains(&(moment - 1)) {
            moment -= 1;
        }
        // A history knows nothing about the time before its first change; `tests/truth` covers that.
        moment.max(all.iter().copied().min().unwrap_or_default())
    }

    /// Deletes and recreates the source container. The history has both, one after the other.
    async fn remake(&mut self) {
        let truth = self.settle().await;
        self.remade = truth.values().flatten().map(|told| told.ts).max();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        self.world.remake().await;
        self.lists.clear();
        for _ in 0..self.rng.random_range(5..25) {
            self.write().await;
        }
        self.settle().await;
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        self.doubtful = self.remade.unwrap_or_default()..Utc::now().timestamp();
        for _ in 0..self.rng.random_range(5..25) {
            self.write().await;
        }
    }

    pub async fn play(mut self) {
        let mut follow = [&["follow", "--until-caught-up"], &FOLLOW[..]].concat();
        let mut follower: Option<FollowerProcess> = None;
        for round in 0..7 {
            for _ in 0..self.rng.random_range(5..25) {
                self.write().await;
            }
            self.world.calm();
            match self.rng.random_range(0..9) {
                0 | 1 => self.world.kill_handler().await,
                2 => self.world.repartition(&mut self.rng).await,
                3 => self.write_short_lived().await,
                4 => self.deliver_again().await,
                5 if follower.is_none() => follower = Some(FollowerProcess::start(&self.world.app, &FOLLOW)),
                5 => drop(follower.take()),
                _ => self.world.storm_of(&[Kind::HistoryWrite, Kind::Definition], &mut self.rng),
            }
            if round == 3 {
                self.restore().await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..250))).await;
        }
        drop(follower);
        if self.rng.random_bool(0.35) {
            self.remake().await;
            // The checkpoint of the previous name belongs to the earlier container.
            follow.extend(["--name", "after"]);
            follow.retain(|arg| *arg != "sim");
            let first = follow.iter().position(|arg| *arg == "--name").unwrap();
            follow.remove(first);
        }
        let truth = self.settle().await;
        for _ in 0..2 {
            let moment = self.moment(&truth);
            self.the_past_is_the_model(&truth, moment).await;
        }
        self.restore().await;
        if self.rng.random_bool(0.5) {
            self.deliver_again().await;
        }
        if self.rng.random_bool(0.3) {
            self.poison().await;
        }
        self.settle().await;
        let verified = self.world.app.run(&["verify", "--content", "--deep", "20", "--grace", "0s"]).await;
        // Versions from an earlier container cause a warning of their own, which should be the only one.
        let wrong = verified.stdout.lines().filter(|line| line.contains("FAILURE") || line.contains("WARNING"));
        let alone = wrong.filter(|line| !line.starts_with("container")).count() == 0;
        let code = if self.remade.is_some() { 3 } else { 0 };
        assert!(verified.code == code && alone, "seed {}: {verified:?}", self.seed);
        if self.rng.random_bool(0.3) {
            // The name of a killed follower becomes free when its lease expires.
            let caught_up = eventually("a follower reads all of it again", async || {
                (self.world.app.run(&follow).await.code == 0).then_some(())
            });
            caught_up.await;
            self.settle().await;
        }
        self.prune().await;
        self.erase().await;
        self.world.end().await;
    }
}

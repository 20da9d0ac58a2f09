//! Writes, and their capture through the host's leases and through a follower.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use cosmos_rewind::{
    capture::Capture,
    change::{
        Via,
        fidelity::Delivery,
        key::{KeyValue, PartitionKey},
    },
    clock::Clock,
    config::{Fidelity, Names},
    console::Exit,
    cosmos::{FeedMode, FeedStart},
    follow::{
        CheckpointStore, Follower, Metrics, Options, Pipeline,
        sink::{HistorySink, Sink},
    },
    history::CosmosHistory,
    local::Inside,
};
use rand::RngExt as _;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HISTORIES, KEYS, LEASE, Run, SUBJECT, cosmos};
use crate::{
    simulation::{
        limits,
        world::{self, Item, Lives, assert_captured, key},
    },
    support::capture_into,
};

pub(super) fn process(
    way: &Inside,
    letters: &Path,
    via: Via,
    seed: u64,
    clock: Arc<dyn Clock>,
) -> Capture<CosmosHistory> {
    let history = HISTORIES[usize::from(via == Via::Follow)];
    let [database, source, changes, leases] = ["dev", "events", history, "leases"].map(String::from);
    let history = CosmosHistory::new(cosmos(way, seed), Names { database, source, changes, leases });
    Capture {
        clock,
        fidelity: Fidelity::Payload,
        delivery: Delivery::Direct,
        via,
        ..capture_into(history, letters, limits(seed))
    }
}

async fn deliver(capture: &Capture<CosmosHistory>, batch: &[String]) -> bool {
    let items: Vec<&RawValue> = batch.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    // Boxed because debug builds need a large part of a thread's stack for it.
    Box::pin(capture.run(&items, "invocation")).await.is_ok()
}

pub(super) fn events_of() -> Value {
    json!({"id": "events", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": -1})
}

impl Run {
    fn item(&mut self) -> Item {
        if self.rng.random_bool(0.06) {
            return (SUBJECT.into(), KEYS[0].into());
        }
        let key = KEYS[[0, 0, 1, 2][self.rng.random_range(0..4)]];
        (format!("doc ö~{}", self.rng.random_range(0..5)), key.into())
    }

    pub(super) async fn put(&mut self, item: &Item, document: Value) {
        let done = self.events.upsert(&key(item), &item.0, document.to_string().into_bytes()).await.unwrap();
        self.written.entry(item.clone()).or_default().push(done.etag.unwrap());
    }

    pub(super) async fn append(&mut self, item: &Item) {
        self.counter += 1;
        let list = self.lists.entry(item.clone()).or_default();
        list.push(self.counter);
        let mut document = json!({"list": list, "pk": item.1, "id": item.0, "price": 0.1});
        if self.rng.random_bool(0.004) {
            let size = self.rng.random_range(100_000..1_900_000);
            document["pad"] = "p".repeat(size).into();
        }
        self.put(item, document).await;
    }

    /// Starts every container with the same life, whose last version has the same LSN in each container.
    pub(super) async fn first_life(&mut self) {
        let item: Item = ("first".into(), KEYS[0].into());
        self.append(&item).await;
        self.events.delete(&key(&item), &item.0, None).await.unwrap();
        self.lists.remove(&item);
    }

    pub(super) async fn write(&mut self) {
        let item = self.item();
        match self.rng.random_range(0..100) {
            0..12 if self.lists.contains_key(&item) => {
                // A restore may have deleted it.
                let _ = self.events.delete(&key(&item), &item.0, None).await;
                self.lists.remove(&item);
            }
            12..16 => {
                self.counter += 1;
                let item = (format!("short-{}", self.counter), item.1);
                let document = json!({"id": item.0, "pk": item.1, "list": [self.counter], "ttl": 2});
                self.put(&item, document).await;
            }
            _ => self.append(&item).await,
        }
        // Often several writes share a second.
        if self.rng.random_bool(0.3) {
            self.pause(1_500).await;
        }
    }

    /// The host delivers part of a lease's feed, and advances the lease once all of it was acknowledged.
    pub(super) async fn lease(&mut self, lease: usize) -> bool {
        let (range, token) = self.leases[lease].clone();
        let (items, next) = world::read_from(&self.events, &range, &token).await;
        if items.is_empty() {
            return true;
        }
        let size = self.rng.random_range(1..20);
        for batch in items.chunks(size) {
            let killed_after = Duration::from_millis(self.rng.random_range(0..60));
            let acknowledged = match self.rng.random_range(0..12) {
                // Killed in the middle, or after everything was stored but before the acknowledgement.
                0 if self.capturing.1.state.lock().unwrap().bad > 0 => {
                    self.count("handler killed");
                    let _ = tokio::time::timeout(killed_after, deliver(&self.handler, batch)).await;
                    self.handler = process(
                        &self.capturing.0,
                        &self.letters(),
                        Via::Trigger,
                        self.seed,
                        self.machine.clock.clone(),
                    );
                    false
                }
                // A host whose lease was stolen delivers at the same time.
                1 => {
                    self.count("delivered twice at once");
                    let (ok, _) = tokio::join!(deliver(&self.handler, batch), deliver(&self.stale, batch));
                    ok
                }
                _ => deliver(&self.handler, batch).await,
            };
            if !acknowledged {
                // The host retries later from the lease's position.
                self.count("batch refused");
                return false;
            }
        }
        self.leases[lease].1 = next;
        true
    }

    /// Saves the host's leases in the format of Microsoft's change feed processor: how far each range was delivered.
    pub(super) async fn save_leases(&self) {
        let container = cosmos(&self.clean, self.seed).container("dev", "leases").await.unwrap();
        let group = format!("Capture127.0.0.1_{}", self.events.rid());
        let mut kept = BTreeSet::new();
        for (_, token) in &self.leases {
            let state = URL_SAFE_NO_PAD.decode(token.strip_prefix("c1.").unwrap()).unwrap();
            let state: Value = serde_json::from_slice(&state).unwrap();
            for part in state["root"]["active_tokens"].as_array().unwrap() {
                let (min, max) = (&part["min_epk"], &part["max_epk"]);
                let id = format!("{group}..{}-{}", min.as_str().unwrap(), max.as_str().unwrap());
                let lease = json!({"id": id, "LeaseToken": "0", "FeedRange": {"Range": {"min": min, "max": max}},
                    "Owner": "host", "ContinuationToken": part["server_continuation"], "Mode": "Full-Fidelity Feed",
                    "timestamp": "2023-11-14T22:13:20.0000000Z"});
                container.upsert(&lease_key(&id), &id, lease.to_string().into_bytes()).await.unwrap();
                kept.insert(id);
            }
        }
        for row in container.query_all("SELECT c.id FROM c WHERE IS_DEFINED(c.LeaseToken)", &[], None).await.unwrap() {
            let row: Value = serde_json::from_str(row.get()).unwrap();
            let id = row["id"].as_str().unwrap();
            if !kept.contains(id) {
                container.delete(&lease_key(id), id, None).await.unwrap();
            }
        }
    }

    /// After the faults end, everything is delivered in time.
    pub(super) async fn drain(&mut self) {
        self.capturing.1.set(0);
        let begun = Instant::now();
        for lease in 0..self.leases.len() {
            while !self.lease(lease).await {
                assert!(begun.elapsed() < Duration::from_secs(300), "seed {}: the lag does not end", self.seed);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Everything that happened in all containers of this name.
    pub(super) async fn truth(&self) -> Lives {
        let mut truth = self.past.clone();
        let feed = world::feed(&self.events, &self.beginning).await;
        for (item, life) in world::happened(feed.iter().flatten()) {
            truth.entry(item).or_default().extend(life);
        }
        truth
    }

    /// Asserts that every acknowledged write happened, in order, and that the history contains exactly what happened.
    pub(super) async fn settle(&mut self) -> Lives {
        // Short-lived documents expire, and each expiry is delivered.
        tokio::time::sleep(Duration::from_secs(4)).await;
        self.drain().await;
        let truth = self.truth().await;
        for (item, etags) in &self.written {
            let mut told = truth[item].iter().filter_map(|told| told.etag.as_ref());
            for etag in etags {
                assert!(told.any(|t| t == etag), "seed {}: {item:?} {etag} was acknowledged", self.seed);
            }
        }
        assert_captured(&truth, &world::captured(&self.changes).await, &format!("seed {}", self.seed));
        // Followers that are killed while they hold a page.
        for _ in 0..self.rng.random_range(0..3) {
            self.capturing.1.set(60);
            self.end_follower().await;
            self.start_follower(false);
            self.pause(9_000).await;
            if let Some((task, _)) = self.follower.take() {
                self.count("follower killed");
                task.abort();
                let _ = task.await;
            }
        }
        self.capturing.1.set(0);
        self.follow_up().await;
        let followed = world::captured(&self.followed).await;
        assert_captured(&truth, &followed, &format!("seed {}: the follower", self.seed));
        truth
    }

    /// Runs a follower until it has caught up.
    pub(super) async fn follow_up(&mut self) {
        self.end_follower().await;
        self.start_follower(true);
        if let Some((task, _)) = self.follower.take() {
            tokio::time::timeout(Duration::from_secs(300), task).await.expect("its lag ends").unwrap();
        }
    }

    pub(super) fn start_follower(&mut self, until_caught_up: bool) {
        self.followers += 1;
        let (way, letters, holder) =
            (cosmos(&self.capturing.0, self.seed), self.letters(), format!("f{}", self.followers));
        let capture = process(&self.capturing.0, &letters, Via::Follow, self.seed, self.machine.clock.clone());
        let name = if self.remade.is_some() { "after" } else { "before" };
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            let (Ok(source), Ok(leases)) = (way.container("dev", "events").await, way.container("dev", "leases").await)
            else {
                return;
            };
            let metrics = Arc::new(Metrics::default());
            let clock = capture.clock.clone();
            let pipeline = Pipeline {
                via: capture.via,
                name: name.into(),
                paths: source.key_paths().clone(),
                filter: None,
                shape: None,
                dead_letters: capture.dead_letters.clone(),
                sinks: vec![Sink::Changes(Box::new(HistorySink::new(capture)))],
                metrics: metrics.clone(),
                clock: clock.clone(),
            };
            let options = Options {
                name: name.into(),
                mode: FeedMode::AllVersions,
                start: FeedStart::Now,
                part: None,
                until_caught_up,
                poll: Duration::from_secs(3),
                lease: LEASE,
                holder,
            };
            let store = CheckpointStore::Container(leases);
            let follower = Follower {
                earlier: None,
                source: Arc::new(source),
                options: Arc::new(options),
                store,
                pipeline: Arc::new(pipeline),
                metrics,
                clock,
            };
            let _ = follower.run(&ended).await;
        });
        self.follower = Some((task, stop));
    }

    pub(super) async fn end_follower(&mut self) {
        let Some((task, stop)) = self.follower.take() else { return };
        if self.rng.random_bool(0.5) {
            self.count("follower killed");
            task.abort();
        } else {
            stop.cancel();
        }
        let _ = task.await;
    }

    /// A record that can never be stored, first without a place for its dead letter, then with one; finally it can be
    /// stored.
    pub(super) async fn poison(&mut self) {
        self.count("dead letter");
        self.drain().await;
        self.end_follower().await;
        let letters = self.letters();
        let _ = std::fs::remove_dir_all(&letters);
        std::fs::write(&letters, "a file where a directory should be").unwrap();
        self.capturing.1.poison(Some("poisonous"));
        self.append(&("poisonous".to_owned(), KEYS[0].to_owned())).await;
        let mut refused = false;
        for lease in 0..self.leases.len() {
            refused |= !self.lease(lease).await;
        }
        assert!(refused, "seed {}: acknowledged without a letter", self.seed);
        std::fs::remove_file(&letters).unwrap();
        self.drain().await;
        assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 1, "seed {}", self.seed);
        self.capturing.1.poison(None);
        let replayed = self.command(&["replay", "--dead-letters", letters.to_str().unwrap()]).await;
        assert!(replayed.0 == Exit::Done, "seed {}: {replayed:?}", self.seed);
        assert_eq!(std::fs::read_dir(&letters).unwrap().count(), 0, "seed {}: {replayed:?}", self.seed);
    }
}

fn lease_key(id: &str) -> PartitionKey {
    PartitionKey(vec![KeyValue::String(id.to_owned())])
}

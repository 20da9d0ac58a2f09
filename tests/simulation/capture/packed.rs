//! The same lives with packed writes: the account is in memory and has no socket, and some operations in a request fail
//! independently of each other.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use cosmos_rewind::{
    capture::{Capture, CaptureLimits},
    chance::simulated,
    change::fidelity::Delivery,
    config::{AccountSettings, Names, Settings},
    cosmos::Cosmos,
    history::{CosmosHistory, History as _},
    local::{Call, Connection, Inside, LocalCosmos, LocalOptions, Partly, RequestOutcome},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{Happened, LEASES, capture_into, lives, run};
use crate::simulation::world;

/// How single operations are answered, and whether they are applied all the same.
const FAILURES: [(u16, u16, bool); 6] =
    [(429, 3200, false), (429, 3200, false), (449, 0, false), (503, 0, false), (408, 0, true), (424, 0, false)];

/// A connection on which bulk requests are often applied in part.
#[derive(Debug)]
struct Busy(Mutex<StdRng>);

impl Connection for Busy {
    fn fate(&self, call: &Call<'_>) -> RequestOutcome {
        let mut rng = self.0.lock().unwrap();
        if !call.is_bulk || rng.random_bool(0.6) {
            return RequestOutcome::Done(Duration::from_millis(rng.random_range(0..15)));
        }
        let (status, sub, done) = FAILURES[rng.random_range(0..FAILURES.len())];
        RequestOutcome::Partly(Partly { which: rng.random(), status, sub, done })
    }
}

/// A process with an empty write cache.
fn process(way: &Inside, letters: &Path) -> Capture<CosmosHistory> {
    let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", way.address().as_str())]);
    let cosmos = Cosmos::new(AccountSettings::from_settings(&settings).unwrap());
    let [database, source, changes, leases] = ["dev", "events", "changes", "leases"].map(String::from);
    let history = CosmosHistory::new(cosmos, Names { database, source, changes, leases });
    let limits = CaptureLimits::new(100, 4, Duration::from_secs(30));
    Capture { delivery: Delivery::DatesKept, ..capture_into(history, letters, limits) }
}

/// Delivers every batch until it is acknowledged, and checks what is stored.
pub(super) async fn play(seed: u64) {
    let _chance = simulated::begin(seed);
    let mut rng = StdRng::seed_from_u64(seed);
    let (lives, feed) = lives(&mut rng);
    let local = LocalCosmos::simulated(1_700_000_000, LocalOptions::default()).unwrap();
    local.create_database("dev").await.unwrap();
    for (name, paths) in [("events", &["/pk"][..]), ("changes", &["/pk", "/_originalId"])] {
        let kind = if paths.len() > 1 { "MultiHash" } else { "Hash" };
        let key = json!({"paths": paths, "kind": kind, "version": 2});
        local.create_container("dev", json!({"id": name, "partitionKey": key})).await.unwrap();
    }
    let way = local.inside(Arc::new(Busy(Mutex::new(StdRng::seed_from_u64(seed.rotate_left(20))))));
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters");
    let mut capture = process(&way, &letters);
    let mut done = [0; LEASES];
    while (0..LEASES).any(|lease| done[lease] < feed[lease].len()) {
        let lease = rng.random_range(0..LEASES);
        let end = (done[lease] + rng.random_range(1..20)).min(feed[lease].len());
        if run(&capture, &feed[lease][done[lease]..end]).await {
            done[lease] = end;
        }
        if rng.random_bool(0.1) {
            capture = process(&way, &letters);
        }
    }
    let changes = capture.history.writer().await.unwrap();
    let list = |text: &String| -> Vec<u64> {
        serde_json::from_value(serde_json::from_str::<Value>(text).unwrap()["list"].clone()).unwrap()
    };
    let of = |told: world::Told| -> Happened { (told.ts, told.lsn, told.text.as_ref().map(list)) };
    let captured = world::captured(&changes).await.into_iter();
    let captured: BTreeMap<String, Vec<Happened>> =
        captured.map(|((id, _), told)| (id, told.into_iter().map(of).collect())).collect();
    assert_eq!(captured, lives, "seed {seed}: packed");
    assert!(!letters.exists(), "seed {seed}: nothing here is poison");
}

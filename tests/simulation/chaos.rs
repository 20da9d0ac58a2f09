//! Kills the real handler and a real follower repeatedly while a list-append workload runs through a proxy that delays,
//! cuts and truncates. `scripts/chaos.sh` runs it at full size.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cosmos_rewind::{change::key::PartitionKey, cosmos::Container};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    number,
    world::{World, unless_moving},
};
use crate::support::{FollowerProcess, Kind};

/// Documents of one partition key, written in one transaction.
const OF_A_KEY: usize = 10;
/// The approximate number of entries in a document's list.
const APPENDS: usize = 50;
/// The follower has its own history, so that neither it nor the handler hides what the other misses.
const FOLLOWED: &str = "followed";
const FOLLOW: [&str; 8] = ["--mode", "all-versions", "--name", "chaos", "--lease", "2", "--changes", FOLLOWED];

/// The appended and acknowledged numbers by document.
type Lists = BTreeMap<String, Vec<u64>>;

struct Workload {
    counter: AtomicUsize,
    wanted: usize,
    out_of_time: AtomicBool,
    lists: Mutex<Lists>,
}

/// Appends unique numbers to the documents of some keys until there are enough of them.
async fn append(work: Arc<Workload>, events: Container, keys: Vec<usize>, mut rng: StdRng) {
    let mut own = Lists::new();
    'all: loop {
        let key = keys[rng.random_range(0..keys.len())];
        let pk = format!("key-{key}");
        let mut operations = Vec::new();
        for _ in 0..rng.random_range(1..60) {
            let n = work.counter.fetch_add(1, Ordering::SeqCst);
            if n >= work.wanted || work.out_of_time.load(Ordering::SeqCst) {
                // A number that was drawn but not used is in no list.
                if operations.is_empty() {
                    break 'all;
                }
                break;
            }
            let id = format!("doc-{key}-{}", rng.random_range(0..OF_A_KEY));
            let list = own.entry(id.clone()).or_default();
            list.push(n as u64);
            operations.push(json!({"operationType": "Upsert", "resourceBody": {"id": id, "pk": pk, "list": list}}));
        }
        let body = Value::from(operations).to_string();
        let key = PartitionKey::parse(&pk).unwrap();
        unless_moving(|| events.upsert_batch(&key, body.clone().into_bytes())).await.unwrap();
    }
    work.lists.lock().unwrap().extend(own);
}

/// Asserts that each document's history is its list, one number longer in each version, and that there is nothing else.
async fn assert_whole(lists: &Lists, history: &Container, who: &str) {
    let mut found: BTreeMap<String, Vec<(i64, Vec<u64>)>> = BTreeMap::new();
    let sql = "SELECT c._originalId AS id, c._change.lsn AS lsn, c.list AS list FROM c";
    for row in history.query_all(sql, &[], None).await.unwrap() {
        let row: Value = serde_json::from_str(row.get()).unwrap();
        let list = serde_json::from_value(row["list"].clone()).unwrap();
        found.entry(row["id"].as_str().unwrap().to_owned()).or_default().push((row["lsn"].as_i64().unwrap(), list));
    }
    for (id, list) in lists {
        let mut own = found.remove(id).unwrap_or_default();
        own.sort();
        assert_eq!(own.len(), list.len(), "{who}: versions of {id}");
        for (n, (lsn, is)) in own.iter().enumerate() {
            assert_eq!(is, &list[..=n], "{who}: version {n} of {id}, LSN {lsn}");
        }
    }
    assert!(found.is_empty(), "{who}: never written: {:?}", found.keys());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: scripts/chaos.sh"]
async fn nothing_is_lost_or_duplicated_while_processes_are_killed() {
    let wanted = number("COSMOS_REWIND_CHAOS_CHANGES").unwrap_or(5_000) as usize;
    let minutes = number("COSMOS_REWIND_CHAOS_MINUTES").unwrap_or(60);
    let seed = number("COSMOS_REWIND_SEED").unwrap_or(1);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = World::start().await;
    let key = json!({"paths": ["/pk", "/_originalId"], "kind": "MultiHash", "version": 2});
    world.app.local.create_container("dev", json!({"id": FOLLOWED, "partitionKey": key})).await.unwrap();
    let begun = world.app.run(&[&["follow", "--until-caught-up"], &FOLLOW[..]].concat()).await;
    assert_eq!(begun.code, 0, "{begun:?}");

    let start = Instant::now();
    let keys = (wanted / APPENDS / OF_A_KEY).max(4);
    let work = Arc::new(Workload {
        counter: AtomicUsize::new(0),
        wanted,
        out_of_time: AtomicBool::new(false),
        lists: Mutex::default(),
    });
    let mut writers = Vec::new();
    for writer in 0..4 {
        let own = (0..keys).filter(|key| key % 4 == writer).collect();
        let rng = StdRng::seed_from_u64(seed * 1000 + writer as u64);
        writers.push(tokio::spawn(append(work.clone(), world.events.clone(), own, rng)));
    }
    let mut follower = FollowerProcess::start(&world.app, &FOLLOW);
    let (mut follower_kills, mut splits, mut said) = (0, 0, Instant::now());
    let mut written = None;
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(200..2_000))).await;
        world.calm();
        match rng.random_range(0..8) {
            0 | 1 => world.kill_handler().await,
            2 => {
                follower.kill();
                follower_kills += 1;
                follower = FollowerProcess::start(&world.app, &FOLLOW);
            }
            3 => {
                world.repartition(&mut rng).await;
                splits += 1;
            }
            4 => {}
            _ => world.storm_of(&[Kind::HistoryWrite, Kind::Definition], &mut rng),
        }
        if start.elapsed() > Duration::from_secs(60 * minutes) {
            work.out_of_time.store(true, Ordering::SeqCst);
        }
        if said.elapsed() > Duration::from_secs(10) {
            said = Instant::now();
            println!(
                "{:>5.0} s  {} written, {} kills of the handler, {follower_kills} of the follower, {} hosts, {} faults",
                start.elapsed().as_secs_f64(),
                work.counter.load(Ordering::SeqCst).min(wanted),
                world.handler_kills,
                world.host_restarts + 1,
                world.faults
            );
        }
        if writers.iter().all(tokio::task::JoinHandle::is_finished) {
            written.get_or_insert_with(|| start.elapsed());
            // The kills go on until everything is captured; the writers finish earlier.
            if work.out_of_time.load(Ordering::SeqCst) || !world.is_behind().await {
                break;
            }
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let lists = std::mem::take(&mut *work.lists.lock().unwrap());
    let changes: usize = lists.values().map(Vec::len).sum();
    world.drained(Duration::from_secs(900)).await;
    let captured = start.elapsed();
    follower.kill();
    let caught_up = crate::support::eventually("the follower's name is free, and everything is read", async || {
        let end = world.app.run(&[&["follow", "--until-caught-up"], &FOLLOW[..]].concat()).await;
        (end.code == 0).then_some(())
    });
    caught_up.await;
    let followed = world.app.cosmos.container("dev", FOLLOWED).await.unwrap();
    for (who, history) in [("the handler", &world.changes), ("the follower", &followed)] {
        assert_whole(&lists, history, &format!("seed {seed}: {who}")).await;
    }
    println!(
        "proved     {changes} changes of {} documents, each in the handler's history exactly once and in order, and so in the follower's\n\
         kills      {} of the handler, {follower_kills} of the follower; {} hosts, {splits} splits and merges\n\
         faults     {} requests\n\
         seconds    {:.0} writing, {:.0} until all was captured",
        lists.len(),
        world.handler_kills,
        world.host_restarts + 1,
        world.faults,
        written.unwrap_or_default().as_secs_f64(),
        captured.as_secs_f64()
    );
    world.end().await;
}

//! The whole product in one thread without real time: the account is in memory and has no socket, the clock is paused,
//! and the simulation controls the machine's clock and random numbers. It runs capture, a follower, and the commands
//! through their command line: `show`, `restore`, `undo`, `verify`, `prune`, `replay`, `erase`.

mod capturing;
mod commands;
mod weather;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser as _;
use cosmos_rewind::{
    capture::Capture,
    change::Via,
    cli::Cli,
    config::{AccountSettings, Settings},
    console::{Exit, Ui},
    cosmos::{Container, Cosmos, FeedRange},
    history::CosmosHistory,
    local::{Inside, LocalCosmos, LocalOptions},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{
    capturing::{events_of, process},
    weather::{Done, Machine, Weather},
};
use super::{
    seed_after_seed,
    world::{Item, Lives},
};
use crate::support;

/// When a run begins, by the account's clock.
const BEGIN: u64 = 1_700_000_000;
const KEYS: [&str; 3] = ["hot", "ké\"y' ~%2F&", "key-2"];
const SUBJECT: &str = "jane-doe-4711";
/// How long a silent follower keeps its name.
const LEASE: Duration = Duration::from_secs(15);

type Tally = Arc<Mutex<BTreeMap<&'static str, u64>>>;

struct Run {
    seed: u64,
    rng: StdRng,
    machine: Machine,
    local: LocalCosmos,
    /// The connection of the handler and the follower, and that of the commands.
    capturing: (Inside, Arc<Weather>),
    operating: (Inside, Arc<Weather>),
    /// The connection of the application's writers and of the comparisons; it never fails.
    clean: Inside,
    events: Container,
    changes: Container,
    followed: Container,
    folder: tempfile::TempDir,
    handler: Capture<CosmosHistory>,
    stale: Capture<CosmosHistory>,
    /// The delivered position of each range.
    leases: Vec<(FeedRange, String)>,
    beginning: Vec<(FeedRange, String)>,
    /// What happened in earlier containers of this name.
    past: Lives,
    /// The last second of the container before this one.
    remade: Option<i64>,
    follower: Option<(tokio::task::JoinHandle<()>, CancellationToken)>,
    followers: u32,
    counter: u64,
    lists: BTreeMap<Item, Vec<u64>>,
    written: BTreeMap<Item, Vec<String>>,
    tally: Tally,
}

/// Some seeds pack writes, others do not.
fn cosmos(way: &Inside, seed: u64) -> Cosmos {
    let bulk = ["auto", "off"][seed as usize / LAYOUTS.len() % 2];
    let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", way.address().as_str()), ("REWIND_BULK", bulk)]);
    Cosmos::new(AccountSettings::from_settings(&settings).unwrap())
}

/// The handler's history and the follower's. They are separate so that neither hides what the other misses.
const HISTORIES: [&str; 2] = ["changes", "followed"];

/// The partition keys of the histories, alternating by seed. Capture refuses layouts that separate a document from its
/// deletes; `tests/truth` covers old histories of that kind.
const LAYOUTS: [&[&str]; 2] = [&["/pk", "/_originalId"], &["/pk"]];

impl Run {
    async fn start(seed: u64, tally: Tally) -> Self {
        let machine = Machine::new(seed);
        let local = LocalCosmos::simulated(BEGIN, LocalOptions::default()).unwrap();
        assert!(local.create_database("dev").await.unwrap());
        let hash = |paths: &[&str]| json!({"paths": paths, "kind": if paths.len() > 1 { "MultiHash" } else { "Hash" }, "version": 2});
        let layout = LAYOUTS[seed as usize % LAYOUTS.len()];
        for description in [
            events_of(),
            json!({"id": HISTORIES[0], "partitionKey": hash(layout)}),
            json!({"id": HISTORIES[1], "partitionKey": hash(layout)}),
            json!({"id": "leases", "partitionKey": hash(&["/id"])}),
        ] {
            assert!(local.create_container("dev", description).await.unwrap());
        }
        let way = |weather: &Arc<Weather>| local.inside(weather.clone());
        let [calm, capturing, operating] =
            [(1, true), (2, true), (3, false)].map(|(n, all)| Weather::new(seed.rotate_left(20) ^ n, all, &tally));
        let (clean, to_capture, to_operate) = (way(&calm), way(&capturing), way(&operating));
        let own = cosmos(&clean, seed);
        let open = async |name: &str| own.container("dev", name).await.unwrap();
        let (events, changes, followed) = (open("events").await, open(HISTORIES[0]).await, open(HISTORIES[1]).await);
        let beginning = support::beginning(&events).await;
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("letters");
        let mut run = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            handler: process(&to_capture, &letters, Via::Trigger, seed, machine.clock.clone()),
            stale: process(&to_capture, &letters, Via::Trigger, seed, machine.clock.clone()),
            machine,
            local,
            capturing: (to_capture, capturing),
            operating: (to_operate, operating),
            clean,
            events,
            changes,
            followed,
            folder,
            leases: beginning.clone(),
            beginning,
            past: Lives::new(),
            remade: None,
            follower: None,
            followers: 0,
            counter: 0,
            lists: BTreeMap::new(),
            written: BTreeMap::new(),
            tally,
        };
        run.follow_up().await;
        Box::pin(run.first_life()).await;
        run
    }

    fn letters(&self) -> PathBuf {
        self.folder.path().join("letters")
    }

    fn count(&self, what: &'static str) {
        *self.tally.lock().unwrap().entry(what).or_default() += 1;
    }

    /// Runs a command as from the command line, with the machine's clock as it is.
    async fn command(&self, args: &[&str]) -> Done {
        let address = self.operating.0.address().as_str();
        let line = ["cosmos-rewind"].into_iter().chain(args.iter().copied()).chain(["--endpoint", address]);
        let cli = Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let ui = Ui::kept(self.machine.clock.clone());
        let exit = Box::pin(cosmos_rewind::cli::run(cli, &ui)).await;
        let (printed, noted) = ui.said();
        (exit, printed, noted)
    }

    async fn pause(&mut self, most: u64) {
        let millis = self.rng.random_range(0..=most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    /// Sets the machine's clock hours forward or back, or corrects it.
    fn jump(&mut self) {
        self.count("clock set");
        let hours = self.rng.random_range(-30..30);
        self.machine.clock.set_ahead(if self.rng.random_bool(0.3) { 0 } else { hours * 3600 });
    }

    /// Corrects the clock while a point in time is chosen.
    fn set_right(&self) {
        self.machine.clock.set_ahead(0);
    }

    async fn reshape(&mut self) {
        let ranges = self.local.ranges("dev", "events").await.unwrap();
        if ranges.len() > 2 && self.rng.random_bool(0.5) {
            let at = self.rng.random_range(0..ranges.len() - 1);
            self.local.merge("dev", "events", &ranges[at], &ranges[at + 1]).await.unwrap();
        } else if ranges.len() < 8 {
            let at = self.rng.random_range(0..ranges.len());
            self.local.split("dev", "events", &ranges[at]).await.unwrap();
        }
        self.count("split or merge");
    }

    /// Deletes the source container and recreates it under its name.
    async fn remake(&mut self) {
        self.end_follower().await;
        self.past = self.settle().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.remade = Some(self.local.now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(self.local.delete_container("dev", "events").await.unwrap());
        assert!(self.local.create_container("dev", events_of()).await.unwrap());
        self.events = cosmos(&self.clean, self.seed).container("dev", "events").await.unwrap();
        self.beginning = support::beginning(&self.events).await;
        self.leases = self.beginning.clone();
        self.lists.clear();
        self.follow_up().await;
        Box::pin(self.first_life()).await;
        self.count("container made again");
    }

    fn moment(&mut self, truth: &Lives) -> i64 {
        let all: Vec<i64> = truth.values().flatten().map(|told| told.ts).collect();
        let moment = all[self.rng.random_range(0..all.len())] - i64::from(self.rng.random_bool(0.2));
        // A history knows nothing about the time before its first change; `tests/truth` covers that.
        moment.max(all.iter().copied().min().unwrap_or_default())
    }

    async fn play(mut self) {
        let rounds = self.rng.random_range(4..9);
        for round in 0..rounds {
            self.capturing.1.set(self.rng.random_range(0..40));
            for _ in 0..self.rng.random_range(3..20) {
                self.write().await;
            }
            match self.rng.random_range(0..8) {
                0 | 1 => self.jump(),
                2 => self.reshape().await,
                3 if self.follower.is_none() => self.start_follower(false),
                3 => self.end_follower().await,
                4 if round > 1 => Box::pin(self.restore()).await,
                6 if round > 1 => Box::pin(self.restore_behind()).await,
                5 if round > 1 && self.remade.is_none() && self.rng.random_bool(0.5) => self.remake().await,
                _ => {}
            }
            for _ in 0..self.rng.random_range(0..4) {
                let lease = self.rng.random_range(0..self.leases.len());
                self.lease(lease).await;
            }
            self.pause(3_000).await;
        }
        if self.truth().await.is_empty() {
            return;
        }
        let truth = self.settle().await;
        Box::pin(self.save_leases()).await;
        self.the_past_is_the_model(&truth).await;
        Box::pin(self.restore_behind()).await;
        Box::pin(self.restore()).await;
        if self.rng.random_bool(0.3) {
            self.poison().await;
        }
        self.end_follower().await;
        self.settle().await;
        self.set_right();
        let verified = self.command(&["verify", "--content", "--deep", "20", "--grace", "0s"]).await;
        // Versions from an earlier container cause a warning of their own, which should be the only one.
        let wrong = verified.1.lines().filter(|line| line.contains("FAILURE") || line.contains("WARNING"));
        let alone = wrong.filter(|line| !line.starts_with("container")).count() == 0;
        let code = if self.remade.is_some() { Exit::Incomplete } else { Exit::Done };
        assert!(verified.0 == code && alone, "seed {}: {verified:?}", self.seed);
        self.prune().await;
        self.erase().await;
    }
}

#[test]
fn whatever_happens_in_one_thread_commands_keep_their_word() {
    // The commands and the account, unoptimized and in one stack, need more than a test thread has.
    let play = || {
        let tally = Tally::default();
        seed_after_seed("ALONE", 1, async |seed| Run::start(seed, tally.clone()).await.play().await);
        println!("{:?}", tally.lock().unwrap());
    };
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(play).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

//! All of it in one thread and in no time: the account is in memory and without a socket, the clock is paused, the
//! machine's own clock and chance are the simulation's. Capture, a follower, and the commands themselves as they are
//! called: `show`, `restore`, `undo`, `verify`, `prune`, `replay`, `erase`.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::DateTime;
use clap::Parser as _;
use cosmos_rewind::{
    capture::{Capture, Recent},
    change::{
        Via,
        fidelity::Delivery,
        key::{KeyValue, PartitionKey},
    },
    cli::{Cli, Exit},
    config::{Account, Credential, DeadLetterLocation, Fidelity, Names, Secret, Settings},
    cosmos::{Container, Cosmos, FeedMode, FeedRange, FeedStart},
    dead_letters::DeadLetterStore,
    follow::{CheckpointStore, Follower, Metrics, Options, Pipeline, sink::Sink},
    history::CosmosHistory,
    local::{Call, Fate, Inside, Line, LocalCosmos, LocalOptions},
    surroundings::simulated::{self, Simulated},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support;

use super::{
    limits, seed_after_seed,
    world::{self, Documents, Item, Lives, assert_captured, assert_same, at, is_lasting, key, live, settled},
};

/// When a run begins, by the account's clock.
const BEGIN: u64 = 1_700_000_000;
const KEYS: [&str; 3] = ["hot", "ké\"y' ~%2F&", "key-2"];
const SUBJECT: &str = "jane-doe-4711";
/// How long a follower's name stays with one that is silent.
const LEASE: Duration = Duration::from_secs(15);

type Tally = Arc<Mutex<BTreeMap<&'static str, u64>>>;

/// A line that is good or bad.
#[derive(Debug)]
struct Weather {
    state: Mutex<State>,
    tally: Tally,
}

#[derive(Debug)]
struct State {
    rng: StdRng,
    /// How many of a hundred requests meet a fault.
    bad: u32,
    /// Whether definitions and feeds meet them as well: a command that cannot open a container ends.
    all: bool,
    /// No write with this text is ever accepted.
    poison: Option<&'static str>,
    /// Everything is answered with this until then: one request that fails the client library hides by itself.
    outage: Option<(u16, u16, Instant)>,
}

impl Weather {
    fn new(seed: u64, all: bool, tally: &Tally) -> Arc<Self> {
        let state = State { rng: StdRng::seed_from_u64(seed), bad: 0, all, poison: None, outage: None };
        Arc::new(Self { state: Mutex::new(state), tally: tally.clone() })
    }

    fn set(&self, bad: u32) {
        let mut state = self.state.lock().unwrap();
        (state.bad, state.outage) = (bad, None);
    }

    fn poison(&self, text: Option<&'static str>) {
        self.state.lock().unwrap().poison = text;
    }
}

impl Line for Weather {
    fn fate(&self, call: &Call<'_>) -> Fate {
        let mut state = self.state.lock().unwrap();
        let has = |text: &str| call.body.windows(text.len()).any(|part| part == text.as_bytes());
        let is_document = call.path.contains("/docs");
        if call.path.contains("/colls/changes/docs") && !call.is_query && state.poison.is_some_and(has) {
            return Fate::Rejected(400, 0);
        }
        if call.is_query || !(state.all || (is_document && !call.is_feed)) || call.path == "/" {
            return Fate::Done(Duration::ZERO);
        }
        if let Some((status, sub, until)) = state.outage {
            if Instant::now() < until {
                return Fate::Rejected(status, sub);
            }
            state.outage = None;
        }
        let bad = state.bad;
        if bad > 0 && state.rng.random_bool(0.01) {
            // Not 410: the client library tries again at once, for as long as its own clock says, which is not simulated.
            let (status, sub) = [(503, 0), (429, 3200), (449, 0)][state.rng.random_range(0..3)];
            // Capture gives up after half a minute, a command after a whole one.
            let most = if state.all && state.rng.random_bool(0.3) { 50 } else { 10 };
            let seconds = state.rng.random_range(most / 2..most);
            state.outage = Some((status, sub, Instant::now() + Duration::from_secs(seconds)));
            *self.tally.lock().unwrap().entry("outage").or_default() += 1;
            return Fate::Rejected(status, sub);
        }
        if bad == 0 || state.rng.random_range(0..100) >= bad {
            return Fate::Done(Duration::from_millis(state.rng.random_range(0..15)));
        }
        let (name, fate) = match state.rng.random_range(0..14) {
            0 | 1 => ("429", Fate::Rejected(429, 3200)),
            2 => ("503", Fate::Rejected(503, 0)),
            3 | 4 => ("449", Fate::Rejected(449, 0)),
            5 => ("408", Fate::Rejected(408, 0)),
            6 => ("410", Fate::Rejected(410, 1002)),
            7 => ("done, answered 408", Fate::DoneAndFailed),
            8 => ("done, cut", Fate::DoneAndCut),
            9 => ("cut", Fate::Cut),
            10 => ("done, held", Fate::DoneAndHeld),
            11 => ("held", Fate::Held),
            _ => ("slow", Fate::Done(Duration::from_millis(state.rng.random_range(200..5_000)))),
        };
        *self.tally.lock().unwrap().entry(name).or_default() += 1;
        fate
    }
}

/// The machine on which the product runs.
struct Machine {
    simulated: Simulated,
    /// Seconds by which its clock is ahead of the account's.
    ahead: Rc<Cell<i64>>,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let ahead = Rc::new(Cell::new(0));
        let (begun, shift) = (Instant::now(), ahead.clone());
        let now = move || {
            let then = BEGIN as i64 + begun.elapsed().as_secs() as i64 + shift.get();
            DateTime::from_timestamp(then, begun.elapsed().subsec_nanos()).unwrap()
        };
        Self { simulated: simulated::begin(seed, now), ahead }
    }
}

/// A command's end: code, standard output, standard error.
type Done = (Exit, String, String);

struct Run {
    seed: u64,
    rng: StdRng,
    machine: Machine,
    local: LocalCosmos,
    /// The way of the product's handler and follower, and that of its commands.
    capturing: (Inside, Arc<Weather>),
    operating: (Inside, Arc<Weather>),
    /// The way of those who write and of those who compare; always good.
    clean: Inside,
    events: Container,
    changes: Container,
    followed: Container,
    folder: tempfile::TempDir,
    handler: Capture<CosmosHistory>,
    stale: Capture<CosmosHistory>,
    /// What was delivered of each range.
    leases: Vec<(FeedRange, String)>,
    beginning: Vec<(FeedRange, String)>,
    /// What happened in containers of this name that are no more.
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

fn cosmos(way: &Inside) -> Cosmos {
    let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", way.address().as_str())]);
    Cosmos::new(Account::from_settings(&settings).unwrap())
}

/// The history that the handler writes, and the follower's own: what one misses the other may not hide.
const HISTORIES: [&str; 2] = ["changes", "followed"];

/// How the histories are keyed, seed after seed. What lies apart from its own deletes, as a history that is keyed by
/// other paths, capture refuses; `truth` has those of before.
const LAYOUTS: [&[&str]; 2] = [&["/pk", "/_originalId"], &["/pk"]];

fn process(way: &Inside, letters: &Path, via: Via, seed: u64) -> Capture<CosmosHistory> {
    let location = DeadLetterLocation::Directory(letters.to_owned());
    let credential = Credential::Key(Secret::new("none"));
    let history = HISTORIES[usize::from(via == Via::Follow)];
    let [database, source, changes, leases] = ["dev", "events", history, "leases"].map(String::from);
    Capture {
        function: "CaptureChanges".into(),
        history: CosmosHistory::new(cosmos(way), Names { database, source, changes, leases }),
        dead_letters: Arc::new(DeadLetterStore::open(&location, &credential).unwrap()),
        fidelity: Fidelity::Payload,
        delivery: Delivery::Direct,
        identity_told: AtomicBool::new(false),
        limits: limits(seed),
        via,
        recent: Recent::default(),
        partial: None,
        projection: None,
    }
}

async fn deliver(capture: &Capture<CosmosHistory>, batch: &[String]) -> bool {
    let items: Vec<&RawValue> = batch.iter().map(|item| serde_json::from_str(item).unwrap()).collect();
    // Debug builds need much of a thread's stack otherwise.
    Box::pin(capture.run(&items, "invocation")).await.is_ok()
}

fn events_of() -> Value {
    json!({"id": "events", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": -1})
}

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
        let own = cosmos(&clean);
        let open = async |name: &str| own.container("dev", name).await.unwrap();
        let (events, changes, followed) = (open("events").await, open(HISTORIES[0]).await, open(HISTORIES[1]).await);
        let beginning = support::beginning(&events).await;
        let folder = tempfile::tempdir().unwrap();
        let letters = folder.path().join("letters");
        let mut run = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            machine,
            handler: process(&to_capture, &letters, Via::Trigger, seed),
            stale: process(&to_capture, &letters, Via::Trigger, seed),
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

    /// A command, called as from the command line, with the machine's clock as it is.
    async fn command(&self, args: &[&str]) -> Done {
        let _ = self.machine.simulated.said();
        let address = self.operating.0.address().as_str();
        let line = ["cosmos-rewind"].into_iter().chain(args.iter().copied()).chain(["--endpoint", address]);
        let cli = Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        let exit = Box::pin(cosmos_rewind::cli::run(cli)).await;
        let (printed, noted) = self.machine.simulated.said();
        (exit, printed, noted)
    }

    async fn pause(&mut self, most: u64) {
        let millis = self.rng.random_range(0..=most);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn item(&mut self) -> Item {
        if self.rng.random_bool(0.06) {
            return (SUBJECT.into(), KEYS[0].into());
        }
        let key = KEYS[[0, 0, 1, 2][self.rng.random_range(0..4)]];
        (format!("doc ö~{}", self.rng.random_range(0..5)), key.into())
    }

    async fn put(&mut self, item: &Item, document: Value) {
        let done = self.events.upsert(&key(item), &item.0, document.to_string().into_bytes()).await.unwrap();
        self.written.entry(item.clone()).or_default().push(done.etag.unwrap());
    }

    async fn append(&mut self, item: &Item) {
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

    /// Every container begins with the same life, whose end has the same LSN in each.
    async fn first_life(&mut self) {
        let item: Item = ("first".into(), KEYS[0].into());
        self.append(&item).await;
        self.events.delete(&key(&item), &item.0, None).await.unwrap();
        self.lists.remove(&item);
    }

    async fn write(&mut self) {
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
        // Often several in a second.
        if self.rng.random_bool(0.3) {
            self.pause(1_500).await;
        }
    }

    /// The host delivers a part of a lease's feed, and moves its lease on when all of that was acknowledged.
    async fn lease(&mut self, lease: usize) -> bool {
        let (range, token) = self.leases[lease].clone();
        let (items, next) = world::read_from(&self.events, &range, &token).await;
        if items.is_empty() {
            return true;
        }
        let size = self.rng.random_range(1..20);
        for batch in items.chunks(size) {
            let killed_after = Duration::from_millis(self.rng.random_range(0..60));
            let acknowledged = match self.rng.random_range(0..12) {
                // Killed in the middle, or when all was done and nobody had been told.
                0 if self.capturing.1.state.lock().unwrap().bad > 0 => {
                    self.count("handler killed");
                    let _ = tokio::time::timeout(killed_after, deliver(&self.handler, batch)).await;
                    self.handler = process(&self.capturing.0, &self.letters(), Via::Trigger, self.seed);
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
                // The host tries again later, from where the lease stands.
                self.count("batch refused");
                return false;
            }
        }
        self.leases[lease].1 = next;
        true
    }

    /// What the host keeps of its leases, as Microsoft's change feed processor writes it: how far each range was delivered.
    async fn save_leases(&self) {
        let container = cosmos(&self.clean).container("dev", "leases").await.unwrap();
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

    /// A restore while capture is behind. Whatever it does to a document, that is what the document was: nobody's later
    /// write is rolled back, no uncaptured delete undone, nothing deleted that had been made again. And when it says that
    /// all is done, all is. And a document that nobody wrote since is not called unknown: that it lives tells what it was.
    async fn restore_behind(&mut self) {
        self.set_right();
        for _ in 0..self.rng.random_range(1..8) {
            self.write().await;
        }
        let then = self.live().await.1;
        let moment = self.local.now();
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..self.rng.random_range(0..4) {
            self.write().await;
        }
        Box::pin(self.save_leases()).await;
        let wanted = at(&self.truth().await, moment);
        let (before, now) = self.live().await;
        let time = moment.to_string();
        let delete_newer = self.remade.is_none() && self.rng.random_bool(0.7);
        let mut args = vec!["restore", "--all", "--at", &time, "--no-stamp", "--yes", "--format", "json"];
        args.extend(delete_newer.then_some("--delete-newer=1000"));
        let journal = self.folder.path().join("journal");
        args.extend(["--journal", journal.to_str().unwrap()]);
        let done = self.command(&args).await;
        assert!(matches!(done.0, Exit::Done | Exit::Incomplete), "seed {}: {args:?}: {done:?}", self.seed);
        let report: Value = serde_json::from_str(&done.1).unwrap();
        let undecided = |item: &Item| {
            let same = |step: &&Value| step["id"] == *item.0 && step["pk"] == json!([item.1]);
            report["plan"]["steps"]
                .as_array()
                .unwrap()
                .iter()
                .find(same)
                .is_some_and(|step| step["action"] == "unknown")
        };
        let after = self.live().await.0;
        let items: BTreeSet<&Item> = before.keys().chain(after.keys()).chain(wanted.keys()).collect();
        for item in items.into_iter().filter(|item| is_lasting(item)) {
            let (was, is, should) = (before.get(item), after.get(item), wanted.get(item));
            assert!(
                is == was || is == should,
                "seed {}: behind, {args:?}: {item:?} was {was:?}, is {is:?}, should be {should:?}: {done:?}",
                self.seed
            );
            // What lives since before the moment is what was in force then, whatever capture knows.
            assert!(
                then.get(item).is_none_or(|etag| now.get(item) != Some(etag)) || !undecided(item),
                "seed {}: behind, {args:?}: {item:?} is as it was, and not known: {done:?}",
                self.seed
            );
            let settled = is == should || (should.is_none() && !delete_newer);
            assert!(
                done.0 == Exit::Incomplete || settled,
                "seed {}: behind and done, {args:?}: {item:?} is {is:?}, should be {should:?}: {done:?}",
                self.seed
            );
        }
        self.count(if done.0 == Exit::Done { "restored behind: done" } else { "restored behind: incomplete" });
    }

    /// Faults are over: everything is delivered, in time.
    async fn drain(&mut self) {
        self.capturing.1.set(0);
        let begun = Instant::now();
        for lease in 0..self.leases.len() {
            while !self.lease(lease).await {
                assert!(begun.elapsed() < Duration::from_secs(300), "seed {}: the lag does not end", self.seed);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
    }

    /// Everything that happened, in all containers of the name.
    async fn truth(&self) -> Lives {
        let mut truth = self.past.clone();
        let feed = world::feed(&self.events, &self.beginning).await;
        for (item, life) in world::happened(feed.iter().flatten()) {
            truth.entry(item).or_default().extend(life);
        }
        truth
    }

    /// Everything that was acknowledged happened, in its order, and the history has exactly what happened.
    async fn settle(&mut self) -> Lives {
        // The short-lived ones end, and the end of each is delivered.
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
        // Followers that are killed with a page in their hands.
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

    /// A follower reads what is left, and ends.
    async fn follow_up(&mut self) {
        self.end_follower().await;
        self.start_follower(true);
        if let Some((task, _)) = self.follower.take() {
            tokio::time::timeout(Duration::from_secs(300), task).await.expect("its lag ends").unwrap();
        }
    }

    fn start_follower(&mut self, until_caught_up: bool) {
        self.followers += 1;
        let (way, letters, holder) = (cosmos(&self.capturing.0), self.letters(), format!("f{}", self.followers));
        let capture = process(&self.capturing.0, &letters, Via::Follow, self.seed);
        let name = if self.remade.is_some() { "after" } else { "before" };
        let stop = CancellationToken::new();
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            let (Ok(source), Ok(leases)) = (way.container("dev", "events").await, way.container("dev", "leases").await)
            else {
                return;
            };
            let metrics = Arc::new(Metrics::default());
            let pipeline = Pipeline {
                name: name.into(),
                paths: source.key_paths().clone(),
                filter: None,
                shape: None,
                dead_letters: capture.dead_letters.clone(),
                sinks: vec![Sink::Changes(Box::new(capture))],
                metrics: metrics.clone(),
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
            let follower =
                Follower { source, options: Arc::new(options), store, pipeline: Arc::new(pipeline), metrics };
            let _ = follower.run(&ended).await;
        });
        self.follower = Some((task, stop));
    }

    async fn end_follower(&mut self) {
        let Some((task, stop)) = self.follower.take() else { return };
        if self.rng.random_bool(0.5) {
            self.count("follower killed");
            task.abort();
        } else {
            stop.cancel();
        }
        let _ = task.await;
    }

    /// The machine's clock is set hours forward or back, or right again.
    fn jump(&mut self) {
        self.count("clock set");
        let hours = self.rng.random_range(-30..30);
        self.machine.ahead.set(if self.rng.random_bool(0.3) { 0 } else { hours * 3600 });
    }

    /// The clock is right while a point in time is named.
    fn set_right(&self) {
        self.machine.ahead.set(0);
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

    /// The source container is deleted and made again under its name.
    async fn remake(&mut self) {
        self.end_follower().await;
        self.past = self.settle().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.remade = Some(self.local.now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(self.local.delete_container("dev", "events").await.unwrap());
        assert!(self.local.create_container("dev", events_of()).await.unwrap());
        self.events = cosmos(&self.clean).container("dev", "events").await.unwrap();
        self.beginning = support::beginning(&self.events).await;
        self.leases = self.beginning.clone();
        self.lists.clear();
        self.follow_up().await;
        Box::pin(self.first_life()).await;
        self.count("container made again");
    }

    fn moment(&mut self, truth: &Lives) -> i64 {
        let all: Vec<i64> = truth.values().flatten().map(|told| told.ts).collect();
        all[self.rng.random_range(0..all.len())] - i64::from(self.rng.random_bool(0.2))
    }

    /// `show --at` says what the model says; and that a version is of a container that was made again since.
    async fn the_past_is_the_model(&mut self, truth: &Lives) {
        self.set_right();
        let items: Vec<Item> = truth.keys().cloned().collect();
        for _ in 0..4 {
            let moment = self.moment(truth);
            let item = &items[self.rng.random_range(0..items.len())];
            let expected = at(truth, moment).remove(item);
            let time = moment.to_string();
            let done = self.command(&["show", "--id", &item.0, "--pk", &item.1, "--at", &time]).await;
            let text = expected.clone().map(|text| format!("{text}\n")).unwrap_or_default();
            assert!(
                (done.0 == Exit::Done) == expected.is_some() && done.1 == text,
                "seed {}: show {item:?} --at {time}: {done:?}, should be {text}",
                self.seed
            );
            if self.remade.is_some_and(|last| moment <= last) && expected.is_some() {
                assert!(done.2.contains("deleted since"), "seed {}: {item:?} at {moment}: {done:?}", self.seed);
            }
        }
        self.predicates_are_the_model(truth).await;
        // A clock that is wrong changes nothing: what time it is, the service says.
        let (item, now) = (&items[0], self.local.now());
        for hours in [-2, 2] {
            self.machine.ahead.set(hours * 3600);
            let (then, later) = (now.to_string(), (now + 3600).to_string());
            let expected = at(truth, now).remove(item);
            let done = self.command(&["show", "--id", &item.0, "--pk", &item.1, "--at", &then]).await;
            assert_eq!(done.0 == Exit::Done, expected.is_some(), "seed {}: {hours} h ahead: {done:?}", self.seed);
            let done = self.command(&["show", "--id", &item.0, "--pk", &item.1, "--at", &later]).await;
            // A moment that this machine takes to be past is what it is whatever the time: the service is not asked.
            assert!(
                hours > 0 || (done.0 == Exit::Usage && done.2.contains("in the future")),
                "seed {}: {done:?}",
                self.seed
            );
        }
        self.set_right();
    }

    /// A predicate finds documents as they were: by their own ids, whole, and no deletes.
    async fn predicates_are_the_model(&mut self, truth: &Lives) {
        let moment = self.moment(truth);
        let id = truth.keys().nth(self.rng.random_range(0..truth.len())).unwrap().0.clone();
        let (param, time) = (format!("id={}", Value::from(id.clone())), moment.to_string());
        type Matches<'m> = &'m dyn Fn(&Item, &str) -> bool;
        let others: Matches<'_> = &|item, text| item.0 != id && !text.contains(r#""pad":"#);
        let itself: Matches<'_> = &|item, _| item.0 == id;
        for (predicate, matches) in [("c.id != @id AND NOT IS_DEFINED(c.pad)", others), ("c.id = @id", itself)] {
            let then = at(truth, moment);
            let expected: BTreeSet<String> =
                then.into_iter().filter(|(item, text)| matches(item, text)).map(|(_, text)| text).collect();
            let done = self.command(&["show", "--where", predicate, "--param", &param, "--at", &time]).await;
            let shown: BTreeSet<String> = done.1.lines().map(String::from).collect();
            assert_eq!(shown, expected, "seed {}: {predicate}, {id:?}, at {time}: {done:?}", self.seed);
            let code = if expected.is_empty() { Exit::Failed } else { Exit::Done };
            assert_eq!(done.0, code, "seed {}: {predicate}, {id:?}, at {time}: {done:?}", self.seed);
            let texts = |(item, life): (&Item, &Vec<world::Told>)| {
                life.iter().filter(|told| told.text.as_ref().is_some_and(|text| matches(item, text))).count()
            };
            let versions: usize = truth.iter().map(texts).sum();
            let done = self.command(&["history", "--where", predicate, "--param", &param, "--format", "jsonl"]).await;
            let rows = done.1.lines().filter(|row| row.contains(r#""container":"changes""#)).count();
            assert_eq!(rows, versions, "seed {}: history of {predicate}, {id:?}: {done:?}", self.seed);
        }
        self.count("predicates");
    }

    /// The live container: texts, and etags.
    async fn live(&self) -> (Documents, BTreeMap<Item, String>) {
        live(&self.events).await
    }

    /// A plan; a writer that is quicker; the plan applied under faults, and again; and all of it taken back.
    async fn restore(&mut self) {
        let truth = self.settle().await;
        self.set_right();
        Box::pin(self.save_leases()).await;
        let moment = self.moment(&truth);
        let time = moment.to_string();
        let wanted = at(&truth, moment);
        // Some that capture has not seen yet: only the restore itself can save what it replaces.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let known: Vec<Item> = self.live().await.0.into_keys().filter(|item| truth.contains_key(item)).collect();
        for _ in 0..self.rng.random_range(0..4) {
            if let Some(item) = known.get(self.rng.random_range(0..known.len().max(1))) {
                self.append(&item.clone()).await;
            }
        }
        let before = self.live().await.0;
        // A document of a container before this one may have been there, which cannot be known.
        let delete_newer = self.remade.is_none() && self.rng.random_bool(0.7);
        let mut expected = before.clone();
        for item in truth.keys() {
            match wanted.get(item) {
                Some(text) => drop(expected.insert(item.clone(), text.clone())),
                None if delete_newer => drop(expected.remove(item)),
                None => {}
            }
        }
        let ephemeral = expected.keys().any(|item| !is_lasting(item));
        expected.retain(|item, _| is_lasting(item));
        let items: BTreeSet<&Item> = before.keys().chain(expected.keys()).collect();
        let changed: Vec<Item> =
            items.into_iter().filter(|item| before.get(*item) != expected.get(*item)).cloned().collect();
        if changed.is_empty() {
            return;
        }
        self.count("restore");
        let plan = self.folder.path().join(format!("plan-{}.jsonl", self.rng.random::<u64>()));
        let (plan, journal) = (plan.to_str().unwrap(), self.folder.path().join("journal"));
        let journal = journal.to_str().unwrap();
        let bad = self.rng.random_range(0..30);
        self.operating.1.set(bad);
        let mut args = vec!["restore", "--all", "--at", &time, "--no-stamp", "--format", "json", "--dry-run"];
        args.extend(["--plan-out", plan]);
        args.extend(delete_newer.then_some("--delete-newer=1000"));
        let planned = self.command(&args).await;
        assert!(matches!(planned.0, Exit::Done), "seed {}: {args:?}: {planned:?}", self.seed);

        let mut moved = BTreeSet::new();
        for _ in 0..self.rng.random_range(0..3) {
            let item = changed[self.rng.random_range(0..changed.len())].clone();
            self.append(&item).await;
            moved.insert(item);
        }
        // An application that does by itself what the restore is to do: those are its writes then.
        let mut theirs = moved.clone();
        // Often a delete, of which nothing is left that would tell whose it was.
        let to_go: Vec<&Item> = changed.iter().filter(|item| !expected.contains_key(*item)).collect();
        for _ in 0..self.rng.random_range(0..3) {
            let item = match to_go.as_slice() {
                [_, ..] if self.rng.random_bool(0.5) => to_go[self.rng.random_range(0..to_go.len())].clone(),
                _ => changed[self.rng.random_range(0..changed.len())].clone(),
            };
            if !theirs.insert(item.clone()) {
                continue;
            }
            match expected.get(&item) {
                Some(text) => self.put(&item, serde_json::from_str(text).unwrap()).await,
                None => drop(self.events.delete(&key(&item), &item.0, None).await),
            }
            self.count("restored by others");
        }
        if self.rng.random_bool(0.5) {
            self.drain().await;
        }
        // In the second in which it begins itself, a restore cannot tell.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quicker = self.live().await.0;
        let settled = |is: &Documents| settled(is, &theirs, &quicker);
        // The plan may be old, or from tomorrow.
        self.jump();
        let apply = ["restore", "--plan", plan, "--yes", "--format", "json", "--journal", journal];
        let done = self.command(&apply).await;
        let code = if moved.is_empty() { Exit::Done } else { Exit::Incomplete };
        assert!(ephemeral || done.0 == code, "seed {}: {args:?}: {done:?}", self.seed);
        let what = format!("{args:?}; moved before: {moved:?}");
        let (after, etags) = self.live().await;
        assert_same(self.seed, &after, &settled(&expected), &format!("applied {what}"));

        self.command(&apply).await;
        assert_eq!(self.live().await.1, etags, "seed {}: applied again {what}", self.seed);

        let report: Value = serde_json::from_str(&done.1).unwrap();
        let wrote = |one: &Value| one["fate"] == "done";
        if report["outcomes"].as_array().is_some_and(|all| all.iter().any(wrote)) {
            // Work that goes on after the restore is nobody's to take back.
            let mut since = BTreeSet::new();
            for _ in 0..[0, 0, 1, 2][self.rng.random_range(0..4)] {
                let item = changed[self.rng.random_range(0..changed.len())].clone();
                if self.rng.random_bool(0.3) {
                    let _ = self.events.delete(&key(&item), &item.0, None).await;
                    self.lists.remove(&item);
                } else {
                    self.append(&item).await;
                }
                since.insert(item);
            }
            let later = self.live().await.0;
            self.jump();
            let undo = ["undo", report["restore"].as_str().unwrap(), "--yes", "--format", "json", "--journal", journal];
            let undone = self.command(&undo).await;
            // Gone already, and to go: that is done. All else that somebody moved since is a conflict.
            let conflict = since
                .iter()
                .any(|item| !theirs.contains(item) && (later.contains_key(item) || before.contains_key(item)));
            let code = if conflict { Exit::Incomplete } else { Exit::Done };
            assert!(ephemeral || undone.0 == code, "seed {}: {what}; since: {since:?}: {undone:?}", self.seed);
            let untouched = settled(&before);
            let should = world::settled(&untouched, &since, &later);
            assert_same(
                self.seed,
                &self.live().await.0,
                &should,
                &format!("undo of {what}; theirs: {theirs:?}; since: {since:?}; {} {}", done.1, undone.1),
            );
            self.count("undo");
        }
        self.operating.1.set(0);
    }

    /// A record that can never be stored, while there is no place for its letter; then there is; then it can be stored.
    async fn poison(&mut self) {
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

    /// What is kept is answered as before, and what is in force stays, whatever the machine's own clock says.
    async fn prune(&mut self) {
        let truth = self.settle().await;
        let hours = [0, 0, -3, 5][self.rng.random_range(0..4)];
        self.machine.ahead.set(hours * 3600);
        let span = self.rng.random_range(5..40);
        let window = self.local.now() - span;
        let done = self.command(&["prune", "--older-than", &format!("{span}s"), "--yes", "--format", "json"]).await;
        assert!(done.0 == Exit::Done, "seed {}: {done:?}", self.seed);
        let left = world::captured(&self.changes).await;
        // A command takes a moment.
        let now = self.local.now();
        let mut kept: Vec<i64> = truth.values().flatten().map(|told| told.ts).filter(|ts| *ts > window + 2).collect();
        kept.extend([window + 2, now]);
        for moment in kept.into_iter().filter(|moment| *moment <= now) {
            let what = format!("{moment} after prune {span}s, clock {hours} h ahead");
            assert_same(self.seed, &at(&left, moment), &at(&truth, moment), &what);
        }
        assert_same(self.seed, &at(&left, i64::MAX), &at(&truth, i64::MAX), "in force after prune");
        if window - 2 > BEGIN as i64 {
            let most: usize = truth.values().map(Vec::len).sum();
            let is: usize = left.values().map(Vec::len).sum();
            assert!(is <= most, "seed {}: prune made versions", self.seed);
        }
        self.set_right();
    }

    async fn erase(&mut self) {
        self.drain().await;
        let (letters, journal) = (self.letters(), self.folder.path().join("journal"));
        let places = ["--dead-letters", letters.to_str().unwrap(), "--journal", journal.to_str().unwrap()];
        let item = ["erase", "--id", SUBJECT, "--pk", KEYS[0], "--live", "--settle", "0s", "--yes", "--format", "json"];
        let erase: Vec<&str> = item.into_iter().chain(places).collect();
        for round in 0.. {
            assert!(round < 5, "seed {}: something is always left", self.seed);
            let done = self.command(&erase).await;
            assert!(matches!(done.0, Exit::Done | Exit::Incomplete), "seed {}: {done:?}", self.seed);
            let receipt: Value = serde_json::from_str(&done.1).unwrap();
            if receipt["versions"] == 0 && done.0 == Exit::Done {
                break;
            }
            // What capture delivers later than that is found by the next run.
            self.drain().await;
        }
        for container in [&self.events, &self.changes] {
            for raw in container.query_all("SELECT * FROM c", &[], None).await.unwrap() {
                assert!(!raw.get().contains(SUBJECT), "seed {}: left: {}", self.seed, raw.get());
            }
        }
        for folder in [letters, journal] {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                assert!(!text.contains(SUBJECT), "seed {}: left in {folder:?}: {text}", self.seed);
            }
        }
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
        // That a part of the history is of a container before is a warning of its own, and should be the only one.
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
    // Commands and the account, unoptimised and in one stack: more than a test's thread has.
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

fn lease_key(id: &str) -> PartitionKey {
    PartitionKey(vec![KeyValue::String(id.to_owned())])
}

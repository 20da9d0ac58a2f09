//! What every simulated run has: an account, the Functions host played by the trigger, the real handler behind a proxy
//! that fails requests, and the account's own feed as the truth that the history is compared to.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cosmos_rewind::{
    change::{key::PartitionKey, version::Version},
    config::{Account, Settings},
    cosmos::{Container, Cosmos, Failure, FeedMode, FeedRange, FeedStart, Status},
    local::trigger::{self, FunctionBinding, RetryPolicy, Trigger, TriggerOptions},
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{self, BINARY, Fault, Kind, Letterbox, Output, TestApp, When};

const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];
/// Errors of the handler after which the host gives up, and the platform starts another host.
const HOST_ENDURES: u32 = 2;

/// Id and partition key.
pub type Item = (String, String);

/// What a container holds.
pub type Documents = BTreeMap<Item, String>;

/// Stops with the items in which two states of a container differ.
#[track_caller]
pub fn assert_same(seed: u64, is: &Documents, should: &Documents, what: &str) {
    let short = |text: Option<&String>| text.map(|text| text.chars().take(120).collect::<String>());
    let items: BTreeSet<&Item> = is.keys().chain(should.keys()).collect();
    let differ: Vec<_> = items
        .into_iter()
        .filter(|item| is.get(*item) != should.get(*item))
        .map(|item| (item, short(is.get(item)), short(should.get(item))))
        .collect();
    assert!(differ.is_empty(), "seed {seed}: {what}: (item, is, should be) {differ:#?}");
}

/// Whether a document does not end by itself.
pub fn is_lasting(item: &Item) -> bool {
    !item.0.starts_with("short")
}

/// An item's partition key.
pub fn key(item: &Item) -> PartitionKey {
    PartitionKey::parse(&json!([item.1]).to_string()).unwrap()
}

/// What there was at a moment.
pub fn at(truth: &Lives, moment: i64) -> Documents {
    let in_force = truth.iter().filter_map(|(item, life)| {
        let told = life.iter().rfind(|told| told.ts <= moment)?;
        Some((item.clone(), told.text.clone()?))
    });
    in_force.collect()
}

/// What lasts in a live container: texts, and etags.
pub async fn live(events: &Container) -> (Documents, BTreeMap<Item, String>) {
    let (mut texts, mut etags) = (Documents::new(), BTreeMap::new());
    for raw in events.query_all("SELECT * FROM c", &[], None).await.unwrap() {
        let document: Value = serde_json::from_str(raw.get()).unwrap();
        let text = |name: &str| document[name].as_str().unwrap().to_owned();
        let item = (text("id"), text("pk"));
        if is_lasting(&item) {
            etags.insert(item.clone(), text("_etag"));
            texts.insert(item, plain(document));
        }
    }
    (texts, etags)
}

/// What a restore has to leave: what it is to come to, but for the documents that another writer moved before.
pub fn settled(is: &Documents, moved: &BTreeSet<Item>, quicker: &Documents) -> Documents {
    let untouched = is.iter().filter(|(item, _)| !moved.contains(*item));
    let others = quicker.iter().filter(|(item, _)| moved.contains(*item));
    untouched.chain(others).map(|(item, text)| (item.clone(), text.clone())).collect()
}

/// A version, told by the account or found in the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub ts: i64,
    pub lsn: i64,
    /// `None` for a delete or an expiry.
    pub text: Option<String>,
    pub etag: Option<String>,
}

/// All versions by item, in order.
pub type Lives = BTreeMap<Item, Vec<Told>>;

pub struct World {
    pub app: TestApp,
    pub events: Container,
    pub changes: Container,
    trigger: Option<Trigger>,
    /// Kills that this host has seen.
    kills: u32,
    /// Where each range stood before the first write.
    beginning: Vec<(FeedRange, String)>,
    /// What happened in a container of this name that is no more.
    past: Lives,
    /// Where dead letters go instead of a folder.
    pub letterbox: Option<Letterbox>,
    pub handler_kills: usize,
    pub host_restarts: usize,
    pub faults: usize,
}

impl World {
    pub async fn start() -> Self {
        Self::with_letters(None).await
    }

    pub async fn with_letters(letterbox: Option<Letterbox>) -> Self {
        let app = TestApp::with_events(&["/pk", "/_originalId"], description()).await;
        let (events, changes) = (app.events().await, app.changes().await);
        let beginning = support::beginning(&events).await;
        let mut world = Self {
            app,
            events,
            changes,
            trigger: None,
            kills: 0,
            beginning,
            past: Lives::new(),
            letterbox,
            handler_kills: 0,
            host_restarts: 0,
            faults: 0,
        };
        world.start_host().await;
        world
    }

    /// The host with the real handler, which reaches the account through the proxy.
    async fn start_host(&mut self) {
        let mut settings = self.app.settings();
        settings.extend(self.letters().map(|(name, place)| (name.to_owned(), place.to_owned())));
        settings.push(("SSL_CERT_FILE".into(), crate::support::AUTHORITY.into()));
        let binding = FunctionBinding {
            poll_delay: Duration::from_millis(50),
            max_items: Some(100),
            mode: trigger::FeedMode::AllVersions,
            retry: Some(RetryPolicy {
                max_retries: None,
                first_delay: Duration::from_millis(50),
                max_delay: Duration::from_millis(500),
            }),
            ..FunctionBinding::capture_changes(&settings)
        };
        let handler = trigger::Handler::Program { executable: BINARY.into(), arguments: Some(vec!["serve".into()]) };
        let folder = self.app.folder.path();
        let options = TriggerOptions { handler, settings, binding: Some(binding), ..TriggerOptions::new(folder) };
        self.trigger = Some(Trigger::start(&self.app.local, options).await.unwrap());
        self.kills = 0;
    }

    /// The setting for the place of dead letters, when that is not the default.
    fn letters(&self) -> Option<(&'static str, &str)> {
        self.letterbox.as_ref().map(|letterbox| ("REWIND_DEAD_LETTERS", letterbox.url()))
    }

    /// Runs a command that has to do with dead letters.
    pub async fn run(&self, args: &[&str]) -> Output {
        self.app.run_with_settings(args, self.letters().as_slice()).await
    }

    /// The texts of all dead letters.
    pub fn dead_letters(&self) -> Vec<String> {
        match &self.letterbox {
            Some(letterbox) => letterbox.texts(),
            None => self.app.dead_letters().iter().map(Value::to_string).collect(),
        }
    }

    /// The source container is deleted and made again under its name; what happened in it must be captured by now.
    pub async fn remake(&mut self) {
        self.past = self.truth().await;
        if let Some(trigger) = self.trigger.take() {
            trigger.stop().await;
        }
        assert!(self.app.local.delete_container("dev", "events").await.unwrap());
        let mut events = description();
        events["id"] = "events".into();
        assert!(self.app.local.create_container("dev", events).await.unwrap());
        let settings = Settings::from_pairs([("CosmosDB", self.app.local.connection_string())]);
        self.app.cosmos = Cosmos::new(Account::from_settings(&settings).unwrap());
        self.events = self.app.events().await;
        self.beginning = support::beginning(&self.events).await;
        self.start_host().await;
    }

    /// Ends the host, and with it the handler, without notice; another one goes on with its leases.
    pub async fn restart_host(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.stop().await;
        }
        self.host_restarts += 1;
        self.start_host().await;
    }

    /// SIGKILL to the handler. The host starts it again, or gives up and is replaced.
    pub async fn kill_handler(&mut self) {
        let Some(id) = self.trigger.as_ref().and_then(Trigger::handler_pid) else { return };
        let killed = std::process::Command::new("kill").args(["-9", &id.to_string()]).status().unwrap();
        if killed.success() {
            self.handler_kills += 1;
            self.kills += 1;
        }
        if self.kills >= HOST_ENDURES {
            self.restart_host().await;
        }
    }

    /// From now on each request of these kinds through the proxy meets a fault once or more before it passes.
    pub fn storm_of(&self, kinds: &[Kind], rng: &mut StdRng) {
        let fault = match rng.random_range(0..12) {
            0 => Fault::Reject(429, 3200),
            1 => Fault::Reject(503, 0),
            2 => Fault::Reject(449, 0),
            3 => Fault::Reject(408, 0),
            4 => Fault::Reject(410, 1002),
            5 => Fault::FailAfterWrite,
            6 => Fault::CutAfterWrite,
            7 => Fault::TruncateAfterWrite,
            8 => Fault::RespondSlowly(Duration::from_millis(rng.random_range(20..700))),
            // Some longer than the client waits.
            9 | 10 => {
                let when = if rng.random_bool(0.7) { When::After } else { When::Before };
                let long = rng.random_bool(0.15);
                Fault::Hold(when, Duration::from_millis(if long { 7_000 } else { rng.random_range(200..1_000) }))
            }
            _ => Fault::Cut,
        };
        let times = if matches!(fault, Fault::Hold(..)) { 1 } else { rng.random_range(1..3) };
        self.app.proxy.storm(kinds, times, fault);
    }

    pub fn calm(&mut self) {
        self.faults += self.app.proxy.calm();
    }

    pub async fn repartition(&self, rng: &mut StdRng) {
        let ranges = self.app.local.ranges("dev", "events").await.unwrap();
        if ranges.len() > 2 && rng.random_bool(0.5) {
            let at = rng.random_range(0..ranges.len() - 1);
            self.app.local.merge("dev", "events", &ranges[at], &ranges[at + 1]).await.unwrap();
        } else if ranges.len() < 8 {
            let at = rng.random_range(0..ranges.len());
            self.app.local.split("dev", "events", &ranges[at]).await.unwrap();
        }
    }

    /// The envelopes that the account has, by the range that they were in at the beginning.
    pub async fn feed(&self) -> Vec<Vec<String>> {
        feed(&self.events, &self.beginning).await
    }

    /// What happened, as the account tells it.
    pub async fn truth(&self) -> Lives {
        let mut truth = self.past.clone();
        for (item, life) in happened(self.feed().await.iter().flatten()) {
            truth.entry(item).or_default().extend(life);
        }
        truth
    }

    /// What the history has, in the history's own order; every record of a version counts.
    pub async fn history(&self) -> Lives {
        captured(&self.changes).await
    }

    /// Waits, with all faults over, until everything is captured; then the history is exactly the truth.
    pub async fn is_all_captured(&mut self, seed: u64) -> Lives {
        self.calm();
        let truth = self.truth().await;
        let start = std::time::Instant::now();
        let mut history = self.history().await;
        while history != truth && start.elapsed() < Duration::from_secs(40) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            history = self.history().await;
        }
        if history != truth {
            let stats = match &self.trigger {
                Some(trigger) => Some(trigger.stats().await),
                None => None,
            };
            assert_captured(&truth, &history, &format!("seed {seed}: {stats:?}"));
        }
        truth
    }

    /// Whether the host has something left to deliver.
    pub async fn is_behind(&self) -> bool {
        match &self.trigger {
            // Not its figure of what is pending: a host that begins has none yet.
            Some(trigger) => trigger.wait_until_drained(Duration::from_millis(100)).await.is_err(),
            None => true,
        }
    }

    /// Batches that the handler did not acknowledge.
    pub async fn failures(&self) -> u64 {
        self.trigger.as_ref().unwrap().stats().await.failures
    }

    /// Waits, with all faults over, until the host has delivered everything.
    pub async fn drained(&mut self, patience: Duration) {
        self.calm();
        let (trigger, start) = (self.trigger.as_ref().unwrap(), std::time::Instant::now());
        while let Err(problem) = trigger.wait_until_drained(Duration::from_secs(10)).await {
            assert!(start.elapsed() < patience, "{problem}");
            println!("{:>5.0} s  {problem}", start.elapsed().as_secs_f64());
        }
    }

    pub async fn end(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.stop().await;
        }
    }
}

fn description() -> Value {
    json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": -1})
}

/// The envelopes that a container has, by the range that they were in at the beginning.
pub async fn feed(events: &Container, beginning: &[(FeedRange, String)]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (range, token) in beginning {
        all.push(read_from(events, range, token).await.0);
    }
    all
}

/// The envelopes of a range from a token on, and the token after them.
pub async fn read_from(events: &Container, range: &FeedRange, token: &str) -> (Vec<String>, String) {
    let partitions = events.feed_ranges(true).await.unwrap();
    let below = partitions.iter().filter(|part| part.intersection(range).is_some()).count();
    let open = events.change_feed(range, FeedMode::AllVersions, FeedStart::Now, Some(token));
    let mut feed = open.await.unwrap();
    let (mut items, mut empty) = (Vec::new(), 0);
    // An empty page is about one of the partitions below.
    while empty < below {
        let page = feed.next().await.unwrap();
        let found = page.items().unwrap();
        empty = if found.is_empty() { empty + 1 } else { 0 };
        items.extend(found.into_iter().map(|item| item.get().to_owned()));
    }
    (items, feed.token().unwrap())
}

/// What happened, as envelopes tell it.
pub fn happened<'a>(envelopes: impl Iterator<Item = &'a String>) -> Lives {
    let mut lives = Lives::new();
    for item in envelopes {
        let (item, told) = told(&serde_json::from_str(item).unwrap());
        lives.entry(item).or_default().push(told);
    }
    for life in lives.values_mut() {
        life.sort_by_key(|told| told.lsn);
    }
    lives
}

/// What a history has, in its own order; every record of a version counts.
pub async fn captured(changes: &Container) -> Lives {
    let sql = "SELECT * FROM c WHERE NOT IS_DEFINED(c._restore)";
    let mut found: BTreeMap<Item, Vec<Version>> = BTreeMap::new();
    for record in changes.query_all(sql, &[], None).await.unwrap() {
        let key: Value = serde_json::from_str(record.get()).unwrap();
        let version = Version::parse(record.get()).unwrap();
        let item = (version.id.clone(), key["pk"].as_str().unwrap().to_owned());
        found.entry(item).or_default().push(version);
    }
    let lives = found.into_iter().map(|(item, mut versions)| {
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
        let told = versions.into_iter().map(|v| Told {
            ts: v.ts,
            lsn: v.lsn.unwrap_or(-1),
            etag: v.etag.filter(|_| v.document.is_some()),
            text: v.document,
        });
        (item, told.collect())
    });
    lives.collect()
}

/// Stops with the first items in which two histories differ.
#[track_caller]
pub fn assert_captured(truth: &Lives, history: &Lives, what: &str) {
    let items: std::collections::BTreeSet<&Item> = truth.keys().chain(history.keys()).collect();
    let short = |lives: &Lives, item: &Item| {
        let life = lives.get(item).into_iter().flatten();
        life.map(|t| (t.ts, t.lsn, t.text.as_ref().map(|x| x.chars().take(90).collect::<String>()))).collect::<Vec<_>>()
    };
    let differ: Vec<_> = items
        .into_iter()
        .filter(|item| truth.get(*item) != history.get(*item))
        .map(|item| (item, short(truth, item), short(history, item)))
        .take(3)
        .collect();
    let count = |lives: &Lives| lives.values().map(Vec::len).sum::<usize>();
    let (happened, captured) = (count(truth), count(history));
    assert!(
        differ.is_empty(),
        "{what}: {happened} versions happened, {captured} are in the history\n(item, happened, captured): {differ:#?}"
    );
}

/// A write, again while its partition is being split or merged: the account refuses it then, and has not done it.
pub async fn unless_moving<T, F>(mut write: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    loop {
        match write().await {
            Err(failure) if failure.status == Status::new(410, 1007) => {
                tokio::time::sleep(Duration::from_millis(20)).await
            }
            done => return done,
        }
    }
}

/// A document's text as it was written: without what the service adds.
pub fn plain(mut document: Value) -> String {
    let object = document.as_object_mut().unwrap();
    SYSTEM.iter().for_each(|name| drop(object.shift_remove(*name)));
    document.to_string()
}

fn told(envelope: &Value) -> (Item, Told) {
    let (current, metadata) = (&envelope["current"], &envelope["metadata"]);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let exists = current.get("id").is_some();
    let item = match exists {
        true => (text(&current["id"]), text(&current["pk"])),
        false => (text(&metadata["id"]), text(&metadata["partitionKey"]["pk"])),
    };
    let told = Told {
        ts: if exists { &current["_ts"] } else { &metadata["crts"] }.as_i64().unwrap(),
        lsn: metadata["lsn"].as_i64().unwrap(),
        etag: exists.then(|| text(&current["_etag"])),
        text: exists.then(|| plain(current.clone())),
    };
    (item, told)
}

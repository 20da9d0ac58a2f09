//! The parts of every simulated run: an account, the Functions host as simulated by the trigger, the real handler
//! behind a proxy that fails requests, and the account's own feed as the truth to compare the history with.

mod truth;

use std::time::Duration;

use cosmos_rewind::{
    config::{AccountSettings, Settings},
    cosmos::{Container, Cosmos, FeedRange},
    local::trigger::{self, FunctionBinding, RetryPolicy, Trigger, TriggerOptions},
};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value, json};

use crate::support::{self, BINARY, Fault, Kind, Letterbox, Output, TestApp, When};

pub use self::truth::{
    Documents, Item, Lives, Told, assert_captured, assert_same, at, captured, feed, gone_with_their_container,
    happened, is_lasting, key, live, read_from, settled, unless_moving,
};

/// The number of handler failures after which the host gives up and the platform starts another host.
const HOST_ENDURES: u32 = 2;

pub struct World {
    pub app: TestApp,
    pub events: Container,
    pub changes: Container,
    trigger: Option<Trigger>,
    /// The number of kills that this host has seen.
    kills: u32,
    /// The position of each range before the first write.
    beginning: Vec<(FeedRange, String)>,
    /// What happened in an earlier container of this name.
    past: Lives,
    /// The dead-letter store, if it is not a folder.
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

    /// Starts the host with the real handler, which reaches the account through the proxy.
    async fn start_host(&mut self) {
        let mut settings = self.app.settings();
        settings.extend(self.letters().map(|(name, place)| (name.to_owned(), place.to_owned())));
        settings.extend(crate::support::AUTHORITIES.map(|(name, value)| (name.into(), value.into())));
        // Alternate hosts pack their writes.
        settings.push(("REWIND_BULK".into(), ["auto", "off"][self.host_restarts % 2].into()));
        let binding = FunctionBinding {
            poll_delay: Duration::from_millis(50),
            max_items: Some(100),
            mode: trigger::TriggerMode::AllVersions,
            retry: Some(RetryPolicy {
                max_retries: None,
                first_delay: Duration::from_millis(50),
                max_delay: Duration::from_millis(500),
            }),
            ..FunctionBinding::capture_changes(&settings)
        };
        let handler =
            trigger::HandlerProgram::Program { executable: BINARY.into(), arguments: Some(vec!["serve".into()]) };
        let folder = self.app.folder.path();
        let options = TriggerOptions { handler, settings, binding: Some(binding), ..TriggerOptions::new(folder) };
        self.trigger = Some(Trigger::start(&self.app.local, options).await.unwrap());
        self.kills = 0;
    }

    /// The setting for the dead-letter store, unless it is the default.
    fn letters(&self) -> Option<(&'static str, &str)> {
        self.letterbox.as_ref().map(|letterbox| ("REWIND_DEAD_LETTERS", letterbox.url()))
    }

    /// Runs a command that uses dead letters.
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

    /// Deletes the source container and recreates it under its name. Everything in it must be captured by now.
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
        self.app.cosmos = Cosmos::new(AccountSettings::from_settings(&settings).unwrap());
        self.events = self.app.events().await;
        self.beginning = support::beginning(&self.events).await;
        self.start_host().await;
    }

    /// Kills the host and its handler; another host takes over its leases.
    pub async fn restart_host(&mut self) {
        if let Some(trigger) = self.trigger.take() {
            trigger.stop().await;
        }
        self.host_restarts += 1;
        self.start_host().await;
    }

    /// Sends SIGKILL to the handler. The host restarts it, or gives up and is replaced.
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

    /// From now on, each request of these kinds through the proxy fails at least once before it passes.
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
            // Some take longer than the client waits.
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

    /// The account's feed items, by the range they were in at the beginning.
    pub async fn feed(&self) -> Vec<Vec<String>> {
        feed(&self.events, &self.beginning).await
    }

    /// What happened, according to the account.
    pub async fn truth(&self) -> Lives {
        let mut truth = self.past.clone();
        for (item, life) in happened(self.feed().await.iter().flatten()) {
            truth.entry(item).or_default().extend(life);
        }
        truth
    }

    /// The history in its own order; every record of a version counts.
    pub async fn history(&self) -> Lives {
        captured(&self.changes).await
    }

    /// Waits, without faults, until everything is captured; asserts that the history equals the truth.
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
            // The host's own figure of pending changes does not help: a host that is starting has none yet.
            Some(trigger) => trigger.wait_until_drained(Duration::from_millis(100)).await.is_err(),
            None => true,
        }
    }

    /// The number of batches that the handler did not acknowledge.
    pub async fn failures(&self) -> u64 {
        self.trigger.as_ref().unwrap().stats().await.failures
    }

    /// Waits, without faults, until the host has delivered everything.
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

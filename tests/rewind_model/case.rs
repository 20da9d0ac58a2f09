//! A random history, and the live container at its end.

use std::collections::{BTreeMap, BTreeSet};

use cosmos_rewind::change::key::PartitionKey;
use futures::{StreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::{Value, json};

use super::{
    DOCUMENTS, SECONDS, START, SYSTEM,
    model::{Container, Item, Model, Version, assert_same, text},
};
use crate::support::{Output, TestApp};

/// One case: an account, its changes, and the real binary.
pub(super) struct Case {
    pub(super) app: TestApp,
    pub(super) model: Model,
    pub(super) rng: StdRng,
    pub(super) lsn: i64,
    /// ETag and text of each live document at the last read.
    pub(super) live: BTreeMap<Item, (String, String)>,
    /// Every version that was ever live; none may be lost.
    pub(super) seen: BTreeMap<(Item, String), String>,
    /// The ETag of each document that capture saw last.
    captured: BTreeMap<Item, String>,
    /// Versions that capture has not delivered yet.
    late: Vec<Version>,
}

impl Case {
    pub(super) async fn start(seed: u64) -> Self {
        let app = TestApp::start().await;
        let mut case = Self {
            app,
            model: Model::default(),
            rng: StdRng::seed_from_u64(seed),
            lsn: 0,
            live: BTreeMap::new(),
            seen: BTreeMap::new(),
            captured: BTreeMap::new(),
            late: Vec::new(),
        };
        case.invent().await;
        case
    }

    /// Generates histories and the live container at their end.
    async fn invent(&mut self) {
        let mut history = Vec::new();
        for number in 0..DOCUMENTS {
            // Some ids exist under two keys: they are two documents.
            let name = ["doc", "d~o~c", "d\"ö'c %20+&", "[doc]"][number / 5 % 4];
            let item = (
                format!("{name} {:02}", number / 5 * 5 + number % 5 / 2 * 2),
                ["key-0", "ké\"y' ~%2F&"][number % 2].to_owned(),
            );
            if self.model.items().contains(&item) {
                continue;
            }
            let latest_mode = self.rng.random_range(0..5) == 0;
            let mut ts = START + self.rng.random_range(0..SECONDS);
            let mut prev: Option<(i64, bool)> = None;
            let mut own = Vec::new();
            for n in 0..self.rng.random_range(1..10) {
                self.lsn += 1;
                let exists = prev.is_some_and(|(_, exists)| exists);
                let delete = !latest_mode && exists && self.rng.random_range(0..3) == 0;
                let version = Version {
                    item: item.clone(),
                    ts,
                    lsn: self.lsn,
                    text: (!delete).then(|| text(&mut self.rng, &item, n)),
                    create: !latest_mode && !exists,
                    etag: format!("\"{}-{}\"", self.rng.random::<u32>(), self.lsn),
                    prev: prev.filter(|_| !latest_mode && exists).map(|(lsn, _)| lsn),
                };
                prev = Some((self.lsn, !delete));
                own.push(version);
                // Half of all versions share a second with the previous one.
                ts = (ts + (self.rng.random_range(0..4i64) - 1).max(0)).min(START + SECONDS);
            }
            let last = own.last_mut().unwrap();
            if let Some(text) = &last.text {
                last.etag = self.put(&item, text.clone()).await;
            }
            history.extend(own);
        }
        for number in 0..2 {
            let item = (format!("stranger {number}"), "key-0".to_owned());
            let text = text(&mut self.rng, &item, number);
            self.put(&item, text).await;
            self.model.strangers.insert(item);
        }
        self.model.versions = history.clone();
        self.deliver(history).await;
        self.look().await;
        self.captured = self.etags();
    }

    fn etags(&self) -> BTreeMap<Item, String> {
        self.live.iter().map(|(item, (etag, _))| (item.clone(), etag.clone())).collect()
    }

    async fn put(&self, item: &Item, text: String) -> String {
        let key = PartitionKey::parse(&item.1).unwrap();
        self.app.events().await.upsert(&key, &item.0, text.into_bytes()).await.unwrap().etag.unwrap()
    }

    /// Delivers versions as capture does: some twice, in any order.
    async fn deliver(&mut self, versions: Vec<Version>) {
        let again = versions.iter().filter(|_| self.rng.random_range(0..4) == 0).cloned().collect::<Vec<_>>();
        let mut all: Vec<Version> = versions.into_iter().chain(again).collect();
        all.shuffle(&mut self.rng);
        let changes = self.app.changes().await;
        stream::iter(all)
            .for_each_concurrent(8, |version| {
                let changes = &changes;
                async move {
                    let (id, body) = version.record();
                    let key = PartitionKey::parse(&json!([version.item.1, version.item.0]).to_string()).unwrap();
                    changes.upsert(&key, &id, body.into_bytes()).await.unwrap();
                }
            })
            .await;
    }

    /// Reads the live container independently of the program.
    pub(super) async fn look(&mut self) -> Container {
        self.live.clear();
        for raw in self.app.events().await.query_all("SELECT * FROM c", &[], None).await.unwrap() {
            let mut document: Value = serde_json::from_str(raw.get()).unwrap();
            let object = document.as_object_mut().unwrap();
            let etag = object["_etag"].as_str().unwrap().to_owned();
            SYSTEM.iter().for_each(|name| drop(object.shift_remove(*name)));
            let item = (object["id"].as_str().unwrap().to_owned(), object["pk"].as_str().unwrap().to_owned());
            self.seen.insert((item.clone(), etag.clone()), document.to_string());
            self.live.insert(item, (etag, document.to_string()));
        }
        self.live.iter().map(|(item, (_, text))| (item.clone(), text.clone())).collect()
    }

    /// Delivers the changes since the last call as the all-versions feed would, with a chosen second.
    async fn capture(&mut self, ts: i64) {
        self.look().await;
        let now = self.etags();
        let before = std::mem::replace(&mut self.captured, now);
        let mut happened = Vec::new();
        for item in before.keys().chain(self.live.keys()).cloned().collect::<BTreeSet<Item>>() {
            let (old, new) = (before.get(&item), self.live.get(&item));
            if old == new.map(|(etag, _)| etag) {
                continue;
            }
            self.lsn += 1;
            let newest = self.model.versions.iter().filter(|v| v.item == item).max_by_key(|v| (v.ts, v.lsn));
            happened.push(Version {
                ts,
                lsn: self.lsn,
                text: new.map(|(_, text)| text.clone()),
                create: old.is_none(),
                etag: new.map_or_else(String::new, |(etag, _)| etag.clone()),
                prev: newest.filter(|_| old.is_some()).map(|v| v.lsn),
                item,
            });
        }
        self.model.versions.extend(happened.iter().cloned());
        // Capture lags: some versions are delivered only after the next command, which must work without them.
        let (now, late): (Vec<_>, Vec<_>) = happened.into_iter().partition(|_| self.rng.random_range(0..3) > 0);
        self.late.extend(late);
        self.deliver(now).await;
    }

    async fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.deliver(late).await;
    }

    pub(super) async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }

    /// A moment, mostly one in which something happened.
    pub(super) fn moment(&mut self) -> i64 {
        START + self.rng.random_range(-1..=SECONDS)
    }

    pub(super) async fn play(&mut self) {
        for _ in 0..4 {
            self.show_is_the_model().await;
        }
        self.backup_is_the_model().await;
        self.backup_is_the_model().await;
        self.restore_where_is_the_model().await;
        let original = self.look().await;

        let at = self.moment();
        let first = self.restore(at).await;
        let undone = self.undo(first.as_ref()).await;
        assert!(undone.as_ref().is_none_or(|u| u.code == 0), "{undone:?}");
        assert_same(&self.look().await, &original, &format!("undo of restore --at {at}"));

        // Repeats the restore, then restores what a restore left behind.
        let first = self.restore(at).await;
        let after_first = self.look().await;
        let first_etags = self.etags();
        self.capture(START + 100).await;
        let at = self.moment();
        self.restore(at).await;
        self.catch_up().await;
        let after_second = self.look().await;
        self.capture(START + 200).await;
        self.catch_up().await;

        // To the moment between the two restores.
        let third = self.restore(START + 150).await;
        assert_same(&self.look().await, &after_first, "restore to the moment between two restores");
        let undone = self.undo(third.as_ref()).await;
        assert!(undone.as_ref().is_none_or(|u| u.code == 0), "{undone:?}");
        assert_same(&self.look().await, &after_second, "undo of that");
        self.backup_is_the_model().await;

        // Documents changed since the first restore are conflicts of its undo and stay; the others are reverted.
        let second_etags = self.etags();
        let undone = self.undo(first.as_ref()).await;
        let mut conflicts = 0;
        let mut expected = after_second.clone();
        for item in original.keys().chain(after_first.keys()).collect::<BTreeSet<_>>() {
            let (was, made, is) = (original.get(item), after_first.get(item), after_second.get(item));
            let untouched = first_etags.get(item) == second_etags.get(item);
            if was == made || was == is {
                continue;
            }
            if untouched {
                match was {
                    Some(text) => expected.insert(item.clone(), text.clone()),
                    None => expected.remove(item),
                };
            } else {
                conflicts += 1;
            }
        }
        assert_same(&self.look().await, &expected, &format!("undo of the first restore: {undone:?}"));
        let code = undone.as_ref().map_or(0, |u| u.code);
        assert_eq!(code, if conflicts > 0 { 3 } else { 0 }, "{conflicts} conflicts: {undone:?}");
        if conflicts > 0 {
            assert!(
                undone.as_ref().is_some_and(|u| u.stderr.contains(&format!("{conflicts} conflicts"))),
                "{undone:?}"
            );
        }
        self.nothing_is_lost().await;
    }
}

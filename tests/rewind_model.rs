//! An executable model of a container through time, and random histories against which the commands are compared.
//!
//! The model is the plainest there is: it plays the versions in order and stops at T. Histories are written in the
//! documented format (docs/history-format.md), so that the model shares no code with what it is compared to.

use std::collections::{BTreeMap, BTreeSet};

use cosmos_rewind::change::key::PartitionKey;
use futures::{StreamExt as _, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom as _};
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

/// 2023-11-14T22:13:20Z, the second before the stories begin.
const START: i64 = 1_700_000_000;
/// Seconds in which the documents live; each has many versions, so ties are everywhere.
const SECONDS: i64 = 12;
/// Histories in one case.
const DOCUMENTS: usize = 40;
const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];

/// Id and partition key.
type Item = (String, String);
/// What a container has: texts by item.
type Container = BTreeMap<Item, String>;

/// A version as it happened.
#[derive(Debug, Clone)]
struct Version {
    item: Item,
    ts: i64,
    lsn: i64,
    /// `None` for a delete.
    text: Option<String>,
    /// Whether its record says that the document came into being with it.
    create: bool,
    etag: String,
    prev: Option<i64>,
}

/// What is known of an item at a moment.
#[derive(Debug, Clone, PartialEq)]
enum Known {
    Document(String),
    Absent,
    Unknown,
}

/// Everything that happened, and what of it is in the history.
#[derive(Default)]
struct Model {
    versions: Vec<Version>,
    /// Items that the history does not know.
    strangers: BTreeSet<Item>,
}

impl Model {
    fn items(&self) -> BTreeSet<Item> {
        self.versions.iter().map(|v| v.item.clone()).chain(self.strangers.iter().cloned()).collect()
    }

    fn known(&self, item: &Item, at: i64) -> Known {
        let mut own: Vec<&Version> = self.versions.iter().filter(|v| v.item == *item).collect();
        own.sort_by_key(|v| (v.ts, v.lsn));
        let Some(first) = own.first() else { return Known::Unknown };
        match own.iter().rev().find(|v| v.ts <= at) {
            Some(version) => version.text.clone().map_or(Known::Absent, Known::Document),
            None if first.create => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// What the container had; and the items of which nothing is known.
    fn at(&self, at: i64) -> (Container, BTreeSet<Item>) {
        let (mut container, mut unknown) = (Container::new(), BTreeSet::new());
        for item in self.items() {
            match self.known(&item, at) {
                Known::Document(text) => {
                    container.insert(item, text);
                }
                Known::Absent => {}
                Known::Unknown => {
                    unknown.insert(item);
                }
            }
        }
        (container, unknown)
    }

    /// What a restore leaves: what was, and what nothing is known of as it is.
    fn after_restore(&self, at: i64, live: &Container) -> (Container, bool) {
        let (mut wanted, unknown) = self.at(at);
        for item in &unknown {
            if let Some(text) = live.get(item) {
                wanted.insert(item.clone(), text.clone());
            }
        }
        (wanted, unknown.is_empty())
    }
}

impl Version {
    /// The record, as docs/history-format.md has it.
    fn record(&self) -> (String, String) {
        let (id, pk) = &self.item;
        let mut change = json!({"v": 1, "op": "upsert", "ts": self.ts, "lsn": self.lsn});
        let original = Value::from(id.as_str());
        let record_id = match &self.text {
            Some(_) => format!("{id}~{}", self.etag.trim_matches('"')),
            None => format!("{id}~del-{}", self.lsn),
        };
        if self.text.is_none() {
            change["op"] = "delete".into();
        } else if self.create {
            change["op"] = "create".into();
        } else if self.prev.is_some() {
            change["op"] = "replace".into();
        }
        if let Some(prev) = self.prev {
            change["prevLsn"] = prev.into();
        }
        change["via"] = "trigger".into();
        change["fidelity"] = "exact".into();
        change["at"] = "2023-11-14T23:00:00.000Z".into();
        let Some(text) = &self.text else {
            return (
                record_id.clone(),
                json!({"id": record_id, "pk": pk, "_originalId": original, "_change": change}).to_string(),
            );
        };
        change["etag"] = self.etag.as_str().into();
        // At top level the history would expire with its document.
        let text = match text.split_once(",\"ttl\":") {
            Some((rest, ttl)) => {
                change["ttl"] = ttl.trim_end_matches('}').parse::<i64>().unwrap().into();
                format!("{rest}}}")
            }
            None => text.clone(),
        };
        let own = format!("\"id\":{original}");
        assert_eq!(text.matches(&own).count(), 1, "{text}");
        let text = text.replace(&own, &format!("\"id\":{}", json!(record_id)));
        (record_id, format!("{},\"_originalId\":{original},\"_change\":{change}}}", &text[..text.len() - 1]))
    }
}

/// A document's text: the members of documents as they are, in any order.
fn text(rng: &mut StdRng, item: &Item, n: usize) -> String {
    let mut members = vec![
        ("pk", json!(item.1)),
        ("n", json!(n)),
        ("city_name", json!(["Davidson", "Cornelius", "Zürich", "大阪 \u{1f600}", "q\"uote\\d\n"][n % 5])),
        ("price", json!([1.25, 0.1, -3.5e-7, 1e21, 12_345_678.9][n % 5])),
        ("big", json!([9_007_199_254_740_993_i64, -1, 0, i64::MAX, 42][n % 5])),
        ("when", json!(["2020-01-01T00:00:00.000Z", "2020-06-23T12:34:56+02:00", "today"][n % 3])),
        ("location", json!({"type": "Point", "coordinates": [-80.8, 35.5], "deep": [null, {}, [], {"z": 1, "a": 2}]})),
    ];
    members.truncate(2 + rng.random_range(0..6));
    members.push(("id", json!(item.0)));
    members.shuffle(rng);
    if rng.random_range(0..4) == 0 {
        // At the end, where the format needs no note of its place.
        members.push(("ttl", json!(1_000_000 + n)));
    }
    let members: Vec<String> = members.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    format!("{{{}}}", members.join(","))
}

/// The items in which two containers differ: what differs among forty documents is what one wants to see.
#[track_caller]
fn assert_same(is: &Container, should: &Container, what: &str) {
    let items: BTreeSet<&Item> = is.keys().chain(should.keys()).collect();
    let differ: Vec<_> =
        items.into_iter().filter(|i| is.get(*i) != should.get(*i)).map(|i| (i, is.get(i), should.get(i))).collect();
    assert!(differ.is_empty(), "{what}: (item, is, should be) {differ:#?}");
}

/// One case: an account, what happened in it, and the real binary.
struct Case {
    app: TestApp,
    model: Model,
    rng: StdRng,
    lsn: i64,
    /// Etag and text of each live document, as of the last look.
    live: BTreeMap<Item, (String, String)>,
    /// Every version that was ever live: it may never be lost.
    seen: BTreeMap<(Item, String), String>,
    /// Etag of each document as capture saw it last.
    captured: BTreeMap<Item, String>,
    /// Versions that capture has not delivered yet.
    late: Vec<Version>,
}

impl Case {
    async fn start(seed: u64) -> Self {
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

    /// Histories, and the live container that they end in.
    async fn invent(&mut self) {
        let mut history = Vec::new();
        for number in 0..DOCUMENTS {
            // Some ids under two keys: two documents.
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
                // Half of all versions share their second with the one before.
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

    /// The live container as it is now, read apart from the program.
    async fn look(&mut self) -> Container {
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

    /// What happened since capture looked last, as the feed of all versions tells it, at a second of our choosing.
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
        // Capture lags: some are delivered only after the next command, which must get along without them.
        let (now, late): (Vec<_>, Vec<_>) = happened.into_iter().partition(|_| self.rng.random_range(0..3) > 0);
        self.late.extend(late);
        self.deliver(now).await;
    }

    async fn catch_up(&mut self) {
        let late = std::mem::take(&mut self.late);
        self.deliver(late).await;
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }

    /// A moment: mostly one in which something happened.
    fn moment(&mut self) -> i64 {
        START + self.rng.random_range(-1..=SECONDS)
    }

    async fn show_is_the_model(&mut self) {
        let at = self.moment();
        let items: Vec<Item> = self.model.items().into_iter().collect();
        let item = &items[self.rng.random_range(0..items.len())];
        let args = ["show", "--id", &item.0, "--pk", &item.1, "--at", &at.to_string()];
        let shown = self.run(&args).await;
        let expected = match self.model.known(item, at) {
            Known::Document(text) => (0, format!("{text}\n")),
            _ => (1, String::new()),
        };
        assert_eq!((shown.code, shown.stdout.as_str()), (expected.0, expected.1.as_str()), "{args:?}: {shown:?}");
    }

    async fn backup_is_the_model(&mut self) {
        let at = self.moment();
        let file = self.app.folder.path().join(format!("{at}-{}.jsonl", self.rng.random::<u64>()));
        let done = self.run(&["backup", "--all", "--at", &at.to_string(), "--out", file.to_str().unwrap()]).await;
        let (container, unknown) = self.model.at(at);
        assert_eq!(done.code, if unknown.is_empty() { 0 } else { 3 }, "--at {at}: {done:?}");
        let text = std::fs::read_to_string(&file).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        let trailer: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
        assert_eq!(trailer["_backup"]["documents"], json!(container.len()));
        lines.sort_unstable();
        let mut expected: Vec<&str> = container.values().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected, "backup --at {at}");
    }

    /// Restores everything to a moment; returns its id when something was written.
    async fn restore(&mut self, at: i64) -> Option<String> {
        let before = self.look().await;
        let (expected, whole) = self.model.after_restore(at, &before);
        let time = at.to_string();
        let mut args = vec!["restore", "--all", "--at", &time, "--delete-newer=1000", "--no-stamp", "--format", "json"];
        let etags = self.live.clone();
        // Not each time: a case has many restores.
        let thorough = self.rng.random_range(0..3) == 0;
        if thorough {
            let planned = self.run(&[&args[..], &["--dry-run"]].concat()).await;
            assert_eq!(planned.code, if whole { 0 } else { 3 }, "{planned:?}");
            self.look().await;
            assert_eq!(self.live, etags, "planning wrote something");
        }

        args.push("--yes");
        let done = self.run(&args).await;
        assert_eq!(done.code, if whole { 0 } else { 3 }, "--at {at}: {done:?}");
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_same(&self.look().await, &expected, &format!("restore --at {at}"));
        let moved = etags.keys().chain(self.live.keys()).collect::<BTreeSet<_>>();
        let moved = moved.into_iter().filter(|item| etags.get(*item) != self.live.get(*item)).count();
        assert_eq!(report["outcomes"].as_array().unwrap().len(), moved, "{report}");
        assert!(report["outcomes"].as_array().unwrap().iter().all(|o| o["fate"] == "done"), "{report}");

        if thorough {
            let etags = self.live.clone();
            let again = self.run(&args).await;
            let again: Value = serde_json::from_str(&again.stdout).unwrap();
            assert_eq!(again["outcomes"], json!([]), "the second time");
            self.look().await;
            assert_eq!(self.live, etags, "the second time wrote something");
        }
        (moved > 0).then(|| report["restore"].as_str().unwrap().to_owned())
    }

    /// Restores what matched a predicate then, and only that; takes it back.
    async fn restore_where_is_the_model(&mut self) {
        let (at, least) = (self.moment(), self.rng.random_range(0..4u64));
        let before = self.look().await;
        let mut expected = before.clone();
        for (item, text) in self.model.at(at).0 {
            if serde_json::from_str::<Value>(&text).unwrap()["n"].as_u64().is_some_and(|n| n >= least) {
                expected.insert(item, text);
            }
        }
        let (time, predicate) = (at.to_string(), format!("c.n >= {least}"));
        let args = ["restore", "--where", &predicate, "--at", &time, "--no-stamp", "--yes", "--format", "json"];
        let done = self.run(&args).await;
        // Nothing in scope is no success.
        assert!(done.code == 0 || (done.code == 1 && expected == before), "{args:?}: {done:?}");
        assert_same(&self.look().await, &expected, &format!("{args:?}"));
        let report: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        if report["outcomes"].as_array().is_some_and(|all| !all.is_empty()) {
            let undone = self.run(&["undo", report["restore"].as_str().unwrap(), "--yes"]).await;
            assert_eq!(undone.code, 0, "{undone:?}");
        }
        assert_same(&self.look().await, &before, &format!("undo of {args:?}"));
    }

    /// Takes a restore back; one that wrote nothing has left nothing to take back.
    async fn undo(&self, id: Option<&String>) -> Option<Output> {
        match id {
            Some(id) => Some(self.run(&["undo", id, "--yes"]).await),
            None => None,
        }
    }

    /// Every version that was ever live is in the history, exactly.
    async fn nothing_is_lost(&self) {
        let mut kept: BTreeMap<(Item, String), String> = BTreeMap::new();
        for raw in self.app.changes().await.query_all("SELECT * FROM c", &[], None).await.unwrap() {
            let mut record: Value = serde_json::from_str(raw.get()).unwrap();
            let object = record.as_object_mut().unwrap();
            let Some(etag) = object.get("_change").and_then(|c| c["etag"].as_str()).map(str::to_owned) else {
                continue;
            };
            SYSTEM.iter().for_each(|name| drop(object.shift_remove(*name)));
            let change = object.shift_remove("_change").unwrap();
            object["id"] = object.shift_remove("_originalId").unwrap();
            if let Some(ttl) = change.get("ttl") {
                object.insert("ttl".to_owned(), ttl.clone());
            }
            let item = (object["id"].as_str().unwrap().to_owned(), object["pk"].as_str().unwrap().to_owned());
            kept.insert((item, etag), record.to_string());
        }
        let now: BTreeSet<&str> = self.live.values().map(|(etag, _)| etag.as_str()).collect();
        for ((item, etag), text) in &self.seen {
            if !now.contains(etag.as_str()) {
                assert_eq!(kept.get(&(item.clone(), etag.clone())), Some(text), "{item:?} {etag} was live");
            }
        }
    }

    async fn play(&mut self) {
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

        // Again, and then a restore of what a restore left.
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

        // What was changed since the first restore is a conflict of its undo, and stays; the rest goes back.
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

/// Seeds of the cases; one alone with `REWIND_MODEL_SEED=7 cargo test --test main rewind_model`, more of them with
/// `REWIND_MODEL_SEEDS=100`.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("REWIND_MODEL_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("REWIND_MODEL_SEEDS").unwrap_or(4)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_agrees_with_the_model_of_random_histories() {
    let cases = stream::iter(seeds()).map(|seed| async move {
        let case = tokio::spawn(async move { Case::start(seed).await.play().await });
        (seed, case.await)
    });
    let failed: Vec<u64> = cases
        .buffer_unordered(2)
        .filter_map(|(seed, result)| async move { result.is_err().then_some(seed) })
        .collect()
        .await;
    let again: Vec<String> =
        failed.iter().map(|s| format!("REWIND_MODEL_SEED={s} cargo test --test main rewind_model")).collect();
    assert!(failed.is_empty(), "repeat with:\n{}", again.join("\n"));
}

//! One run: what is written, what goes wrong and what is asked is drawn from its seed. When it happens is not: the
//! processes are real, and so is their clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::Utc;
use cosmos_rewind::cosmos::{Disposition, Failure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::world::{Documents, Item, Lives, World, assert_same, at, is_lasting, key, live, settled, unless_moving};
use crate::support::{FollowerProcess, Handler, Kind, Letterbox, eventually};

const FOLLOW: [&str; 6] = ["--mode", "all-versions", "--name", "sim", "--lease", "2"];
const KEYS: [&str; 3] = ["hot", "ké\"y' ~%2F&", "key-2"];
/// The one that is erased: a name that is found wherever it is.
const SUBJECT: &str = "jane-doe-4711";

pub struct Run {
    seed: u64,
    rng: StdRng,
    world: World,
    /// Another handler: what a host delivers that does not know yet that it has lost its lease.
    stale: Handler,
    counter: u64,
    /// The list of each document, as it was written last.
    lists: BTreeMap<Item, Vec<u64>>,
    /// Acknowledged writes in order: their etags.
    written: BTreeMap<Item, Vec<String>>,
    /// The last second of the container before this one.
    remade: Option<i64>,
}

/// Documents that do not end by themselves.
fn lasting(container: &Documents) -> Documents {
    container.iter().filter(|(item, _)| is_lasting(item)).map(|(item, text)| (item.clone(), text.clone())).collect()
}

impl Run {
    pub async fn start(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let letterbox = if rng.random_bool(0.5) { Some(Letterbox::start().await) } else { None };
        let world = World::with_letters(letterbox).await;
        let stale = world.app.handler(&[]).await;
        Self { seed, rng, world, stale, counter: 0, lists: BTreeMap::new(), written: BTreeMap::new(), remade: None }
    }

    fn item(&mut self) -> Item {
        if self.rng.random_bool(0.06) {
            return (SUBJECT.into(), KEYS[0].into());
        }
        // Half of everything is in one key; an id under two keys is two documents.
        let key = KEYS[[0, 0, 1, 2][self.rng.random_range(0..4)]];
        (format!("doc ö~{}", self.rng.random_range(0..6)), key.into())
    }

    /// A number appended to a document, or its end.
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

    /// Part of the feed once more, from somewhere in the past, by a host whose lease was stolen.
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
            // Whether it is stored is the business of the host that has the lease now.
            self.stale.deliver_text(&format!("[{}]", batch.join(","))).await;
        }
    }

    /// The live container: texts, and etags.
    async fn live(&self) -> (Documents, BTreeMap<Item, String>) {
        live(&self.world.events).await
    }

    async fn short_ones_are_gone(&self) {
        eventually("the short-lived ones are gone", async || {
            let sql = "SELECT VALUE c.id FROM c WHERE STARTSWITH(c.id, 'short')";
            self.world.events.query_all(sql, &[], None).await.unwrap().is_empty().then_some(())
        })
        .await;
    }

    /// Everything that was acknowledged happened, in its order, and the history has exactly what happened.
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
        let all: Vec<i64> = truth.values().flatten().map(|told| told.ts).collect();
        all[self.rng.random_range(0..all.len())] - i64::from(self.rng.random_bool(0.2))
    }

    async fn the_past_is_the_model(&mut self, truth: &Lives, moment: i64) {
        let expected = at(truth, moment);
        let time = moment.to_string();
        let items: Vec<Item> = truth.keys().cloned().collect();
        for _ in 0..2 {
            let item = &items[self.rng.random_range(0..items.len())];
            let shown = self.world.app.run(&["show", "--id", &item.0, "--pk", &item.1, "--at", &time]).await;
            let text = expected.get(item).map(|text| format!("{text}\n"));
            if text.is_some() && self.remade.is_some_and(|last| moment <= last) {
                assert!(shown.stderr.contains("deleted since"), "seed {}: {item:?} at {time}: {shown:?}", self.seed);
            }
            assert!(
                (shown.code == 0) == text.is_some() && shown.stdout == text.unwrap_or_default(),
                "seed {}: show {item:?} --at {time}: {shown:?}",
                self.seed
            );
        }
        self.backup_is(&expected, &time).await;
    }

    async fn backup_is(&mut self, expected: &Documents, time: &str) {
        let file = self.world.app.folder.path().join(format!("{time}-{}.jsonl", self.rng.random::<u64>()));
        let done = self.world.app.run(&["backup", "--all", "--at", time, "--out", file.to_str().unwrap()]).await;
        assert!([0, 3].contains(&done.code), "seed {}: {done:?}", self.seed);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let documents = lines.filter(|line| line.get("_backup").is_none()).map(|line| {
            let name = |name: &str| line[name].as_str().unwrap().to_owned();
            ((name("id"), name("pk")), line.to_string())
        });
        assert_same(self.seed, &documents.collect(), expected, &format!("backup --at {time}"));
    }

    /// A plan; a writer that is quicker; the plan applied under faults, and again; and all of it taken back.
    async fn restore(&mut self) {
        let truth = self.settle().await;
        let moment = self.moment(&truth);
        let time = moment.to_string();
        let (before, _) = self.live().await;
        let wanted = at(&truth, moment);
        let plan = self.world.app.folder.path().join(format!("plan-{}.jsonl", self.rng.random::<u64>()));
        let plan = plan.to_str().unwrap();

        // A document may have been in a container before this one, which cannot be known.
        let delete_newer = self.rng.random_bool(0.7) && self.remade.is_none();
        let scope: Option<BTreeSet<Item>> = self.rng.random_bool(0.3).then(|| {
            let items: Vec<&Item> = truth.keys().filter(|item| is_lasting(item)).collect();
            (0..4).map(|_| items[self.rng.random_range(0..items.len())].clone()).collect()
        });
        let mut args =
            vec!["restore", "--at", &time, "--no-stamp", "--format", "json", "--dry-run", "--plan-out", plan];
        match &scope {
            Some(items) => args.extend(items.iter().flat_map(|item| ["--id", &item.0, "--pk", &item.1])),
            None => args.push("--all"),
        }
        if delete_newer {
            args.push("--delete-newer=1000");
        }
        let mut expected = before.clone();
        for item in truth.keys().filter(|item| scope.as_ref().is_none_or(|scope| scope.contains(*item))) {
            match wanted.get(item) {
                Some(text) => drop(expected.insert(item.clone(), text.clone())),
                None if delete_newer => drop(expected.remove(item)),
                None => {}
            }
        }
        let ephemeral = expected.keys().any(|item| !is_lasting(item));
        let expected = lasting(&expected);
        let items: BTreeSet<&Item> = before.keys().chain(expected.keys()).collect();
        let changed: Vec<Item> =
            items.into_iter().filter(|item| before.get(*item) != expected.get(*item)).cloned().collect();
        if changed.is_empty() {
            return;
        }
        let planned = self.world.app.run_through_proxy(&args).await;
        assert!(planned.code == 0, "seed {}: {planned:?}", self.seed);
        let what = format!("{args:?}");

        let mut moved = BTreeSet::new();
        for _ in 0..self.rng.random_range(0..3) {
            let item = changed[self.rng.random_range(0..changed.len())].clone();
            self.append(&item).await;
            moved.insert(item);
        }
        let (quicker, _) = self.live().await;
        let settled = |is: &Documents| settled(is, &moved, &quicker);

        // A query that fails is not asked again for every one of these, and says so.
        let kinds = [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead];
        self.world.storm_of(&kinds, &mut self.rng);
        let apply = ["restore", "--plan", plan, "--yes", "--format", "json"];
        let done = self.world.app.run_through_proxy(&apply).await;
        self.world.calm();
        let conflicts = !moved.is_empty();
        assert!(
            ephemeral || done.code == if conflicts { 3 } else { 0 },
            "seed {}: {conflicts} {what}: {done:?}",
            self.seed
        );
        let (after, etags) = self.live().await;
        assert_same(self.seed, &after, &settled(&expected), &format!("applied {what}; moved before: {moved:?}"));

        let again = self.world.app.run_through_proxy(&apply).await;
        assert!([0, 1, 3].contains(&again.code), "seed {}: {again:?}", self.seed);
        assert_eq!(self.live().await.1, etags, "seed {}: applied again {what}: {again:?}", self.seed);

        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        if report["outcomes"].as_array().is_some_and(|all| all.iter().any(|one| one["fate"] == "done")) {
            let id = report["restore"].as_str().unwrap();
            self.world.storm_of(&kinds, &mut self.rng);
            let undone = self.world.app.run_through_proxy(&["undo", id, "--yes"]).await;
            self.world.calm();
            assert!(ephemeral || undone.code == 0, "seed {}: {what}: {undone:?}", self.seed);
            let (after, _) = self.live().await;
            assert_same(self.seed, &after, &settled(&before), &format!("undo of {what}; moved before: {moved:?}"));
        }
    }

    /// A record that can never be stored, while the store of dead letters fails, too: the batch waits. Then the letter
    /// is written; and when its cause is gone, it is captured.
    async fn poison(&mut self) {
        let letters = self.world.app.folder.path().join(".dead-letters");
        match &self.world.letterbox {
            Some(letterbox) => letterbox.busy(true),
            None => {
                let _ = std::fs::remove_dir(&letters);
                std::fs::write(&letters, "a file where a directory should be").unwrap();
            }
        }
        self.world.app.proxy.only_if_body_has("poisonous");
        self.world.app.proxy.fail_always(Some(crate::support::Fault::Reject(400, 0)));
        let failures = self.world.failures().await;
        let item = ("poisonous".to_owned(), KEYS[0].to_owned());
        self.append(&item).await;
        eventually("the batch is refused", async || (self.world.failures().await > failures).then_some(())).await;
        assert_eq!(self.world.dead_letters(), Vec::<String>::new(), "seed {}", self.seed);
        match &self.world.letterbox {
            Some(letterbox) => {
                assert!(letterbox.refused() > 1, "seed {}: it is tried again at once", self.seed);
                letterbox.busy(false);
            }
            None => std::fs::remove_file(&letters).unwrap(),
        }
        eventually("the letter is written", async || (!self.world.dead_letters().is_empty()).then_some(())).await;
        self.world.app.proxy.fail_always(None);
        let replayed = self.world.run(&["replay"]).await;
        assert_eq!(replayed.code, 0, "seed {}: {replayed:?}", self.seed);
        assert_eq!(self.world.dead_letters(), Vec::<String>::new(), "seed {}: {replayed:?}", self.seed);
    }

    async fn prune(&mut self) {
        let truth = self.settle().await;
        let done = self.world.app.run(&["prune", "--older-than", "4s", "--yes", "--format", "json"]).await.json();
        assert_eq!(done["failed"], 0, "seed {}: {done}", self.seed);
        let now = Utc::now().timestamp();
        for _ in 0..2 {
            let moment = now - self.rng.random_range(0..=4);
            self.backup_is(&at(&truth, moment), &moment.to_string()).await;
        }
    }

    async fn erase(&mut self) {
        let erase =
            ["erase", "--id", SUBJECT, "--pk", KEYS[0], "--live", "--settle", "1s", "--yes", "--format", "json"];
        // What capture delivers later than that is found by the next run.
        eventually("nothing is left of the subject", async || {
            let done = self.world.run(&erase).await;
            assert!([0, 3].contains(&done.code), "seed {}: {done:?}", self.seed);
            let receipt: Value = serde_json::from_str(&done.stdout).unwrap();
            (receipt["versions"] == 0 && done.code == 0).then_some(())
        })
        .await;
        for container in [&self.world.events, &self.world.changes] {
            for raw in container.query_all("SELECT * FROM c", &[], None).await.unwrap() {
                assert!(!raw.get().contains(SUBJECT), "seed {}: left: {}", self.seed, raw.get());
            }
        }
        for text in self.world.dead_letters() {
            assert!(!text.contains(SUBJECT), "seed {}: left in a letter: {text}", self.seed);
        }
        for folder in [".dead-letters", ".cosmos-rewind"] {
            let Ok(entries) = std::fs::read_dir(self.world.app.folder.path().join(folder)) else { continue };
            for entry in entries {
                let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
                assert!(!text.contains(SUBJECT), "seed {}: left in {folder}: {text}", self.seed);
            }
        }
    }

    /// The source container is deleted and made again: both are in the history, one after the other.
    async fn remake(&mut self) {
        let truth = self.settle().await;
        self.remade = truth.values().flatten().map(|told| told.ts).max();
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        self.world.remake().await;
        self.lists.clear();
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
            // The checkpoint of that name is of the container before.
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
        // That a part of the history is of a container before is a warning of its own, and should be the only one.
        let wrong = verified.stdout.lines().filter(|line| line.contains("FAILURE") || line.contains("WARNING"));
        let alone = wrong.filter(|line| !line.starts_with("container")).count() == 0;
        let code = if self.remade.is_some() { 3 } else { 0 };
        assert!(verified.code == code && alone, "seed {}: {verified:?}", self.seed);
        if self.rng.random_bool(0.3) {
            // A follower's name that was killed a moment ago is free when its lease is over.
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

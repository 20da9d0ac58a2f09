//! Compares each command's result with what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cosmos_rewind::console::Exit;
use rand::RngExt as _;
use serde_json::{Value, json};

use super::{BEGIN, KEYS, Run, SUBJECT};
use crate::simulation::world::{
    self, Documents, Item, Lives, assert_same, at, gone_with_their_container, is_lasting, key, live, settled,
};

impl Run {
    /// A restore while capture is behind. Every document that it changes must end up in its true state: no later write
    /// is rolled back, no uncaptured delete is undone, and no recreated document is deleted. When it reports success,
    /// all documents are restored. A document that nobody has written since is not reported as unknown, because the
    /// live document proves what it was.
    pub(super) async fn restore_behind(&mut self) {
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
            // A document that has not changed since before the moment was in force then, whatever capture knows.
            assert!(
                then.get(item).is_none_or(|etag| now.get(item) != Some(etag)) || !undecided(item),
                "seed {}: behind, {args:?}: {item:?} is unchanged, but reported as unknown: {done:?}",
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

    /// Asserts that `show --at` agrees with the model and reports versions of a container that was recreated since.
    pub(super) async fn the_past_is_the_model(&mut self, truth: &Lives) {
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
        // A wrong machine clock makes no difference: the service tells the time.
        let (item, now) = (&items[0], self.local.now());
        for hours in [-2, 2] {
            self.machine.clock.set_ahead(hours * 3600);
            let (then, later) = (now.to_string(), (now + 3600).to_string());
            let expected = at(truth, now).remove(item);
            let done = self.command(&["show", "--id", &item.0, "--pk", &item.1, "--at", &then]).await;
            assert_eq!(done.0 == Exit::Done, expected.is_some(), "seed {}: {hours} h ahead: {done:?}", self.seed);
            let done = self.command(&["show", "--id", &item.0, "--pk", &item.1, "--at", &later]).await;
            // The service is not asked about a moment that lies in the past by the machine's clock.
            assert!(
                hours > 0 || (done.0 == Exit::Usage && done.2.contains("in the future")),
                "seed {}: {done:?}",
                self.seed
            );
        }
        self.set_right();
    }

    /// Asserts that a predicate finds documents as they were: with their own ids, complete, and without deletes.
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

    /// The live container: texts and ETags.
    async fn live(&self) -> (Documents, BTreeMap<Item, String>) {
        live(&self.events).await
    }

    /// Plans a restore, lets another writer change some of its documents, applies the plan under faults, applies it
    /// again, and undoes it.
    pub(super) async fn restore(&mut self) {
        let truth = self.settle().await;
        self.set_right();
        Box::pin(self.save_leases()).await;
        let moment = self.moment(&truth);
        let time = moment.to_string();
        let wanted = at(&truth, moment);
        // Capture has not seen some of these yet, so only the restore itself can save what it replaces.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let known: Vec<Item> = self.live().await.0.into_keys().filter(|item| truth.contains_key(item)).collect();
        for _ in 0..self.rng.random_range(0..4) {
            if let Some(item) = known.get(self.rng.random_range(0..known.len().max(1))) {
                self.append(&item.clone()).await;
            }
        }
        let before = self.live().await.0;
        // Whether a document existed in the earlier container is unknown.
        let delete_newer = self.remade.is_none() && self.rng.random_bool(0.7);
        let gone = gone_with_their_container(&truth, moment, self.remade);
        let mut expected = before.clone();
        for item in truth.keys().filter(|item| !gone.contains(*item)) {
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
        let code = if gone.is_empty() { Exit::Done } else { Exit::Incomplete };
        assert_eq!(planned.0, code, "seed {}: {args:?}: {planned:?}", self.seed);

        let mut moved = BTreeSet::new();
        for _ in 0..self.rng.random_range(0..3) {
            let item = changed[self.rng.random_range(0..changed.len())].clone();
            self.append(&item).await;
            moved.insert(item);
        }
        // An application that makes the same changes as the restore owns those writes.
        let mut theirs = moved.clone();
        // Often a delete, which leaves nothing behind that tells whose it was.
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
        // A restore cannot attribute writes within its own starting second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let quicker = self.live().await.0;
        let settled = |is: &Documents| settled(is, &theirs, &quicker);
        // The plan may be old, or come from a clock that is ahead.
        self.jump();
        let apply = ["restore", "--plan", plan, "--yes", "--format", "json", "--journal", journal];
        let done = self.command(&apply).await;
        let code = if moved.is_empty() && gone.is_empty() { Exit::Done } else { Exit::Incomplete };
        assert!(ephemeral || done.0 == code, "seed {}: {args:?}: {done:?}", self.seed);
        let what = format!("{args:?}; moved before: {moved:?}");
        let (after, etags) = self.live().await;
        assert_same(self.seed, &after, &settled(&expected), &format!("applied {what}"));

        self.command(&apply).await;
        assert_eq!(self.live().await.1, etags, "seed {}: applied again {what}", self.seed);

        let report: Value = serde_json::from_str(&done.1).unwrap();
        let wrote = |one: &Value| one["fate"] == "done";
        if report["outcomes"].as_array().is_some_and(|all| all.iter().any(wrote)) {
            // Undo must not revert work that was done after the restore.
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
            // A document that should be deleted and is already gone counts as done. Every other document that changed
            // since is a conflict.
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

    /// Asserts that kept moments have the same answers as before, and that versions in force remain, whatever the
    /// machine's clock says.
    pub(super) async fn prune(&mut self) {
        let truth = self.settle().await;
        let hours = [0, 0, -3, 5][self.rng.random_range(0..4)];
        self.machine.clock.set_ahead(hours * 3600);
        let span = self.rng.random_range(5..40);
        let window = self.local.now() - span;
        let done = self.command(&["prune", "--older-than", &format!("{span}s"), "--yes", "--format", "json"]).await;
        assert!(done.0 == Exit::Done, "seed {}: {done:?}", self.seed);
        let left = world::captured(&self.changes).await;
        // A command takes time, so the clock is read again.
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
            assert!(is <= most, "seed {}: prune added versions", self.seed);
        }
        self.set_right();
    }

    pub(super) async fn erase(&mut self) {
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
            // Whatever capture delivers later is found by the next run.
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
}

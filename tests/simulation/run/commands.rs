//! Compares each command's result with what happened.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use rand::RngExt as _;
use serde_json::Value;

use super::{KEYS, Run, SUBJECT, lasting};
use crate::{
    simulation::world::{
        Documents, Item, Lives, assert_same, at, gone_with_their_container, is_lasting, live, settled,
    },
    support::{Kind, eventually},
};

impl Run {
    /// The live container: texts and ETags.
    async fn live(&self) -> (Documents, BTreeMap<Item, String>) {
        live(&self.world.events).await
    }

    pub(super) async fn the_past_is_the_model(&mut self, truth: &Lives, moment: i64) {
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
        self.backup_is(truth, moment).await;
    }

    async fn backup_is(&mut self, truth: &Lives, moment: i64) {
        let (mut expected, time) = (at(truth, moment), moment.to_string());
        for item in gone_with_their_container(truth, moment, self.remade) {
            expected.remove(&item);
        }
        let file = self.world.app.folder.path().join(format!("{time}-{}.jsonl", self.rng.random::<u64>()));
        let done = self.world.app.run(&["backup", "--all", "--at", &time, "--out", file.to_str().unwrap()]).await;
        assert!([0, 3].contains(&done.code), "seed {}: {done:?}", self.seed);
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let documents = lines.filter(|line| line.get("_backup").is_none()).map(|line| {
            let name = |name: &str| line[name].as_str().unwrap().to_owned();
            ((name("id"), name("pk")), line.to_string())
        });
        assert_same(self.seed, &documents.collect(), &expected, &format!("backup --at {time}"));
    }

    /// Plans a restore, lets another writer change some of its documents, applies the plan under faults, applies it
    /// again, and undoes it.
    pub(super) async fn restore(&mut self) {
        let truth = self.settle().await;
        let moment = self.moment(&truth);
        let time = moment.to_string();
        let (before, _) = self.live().await;
        let wanted = at(&truth, moment);
        let plan = self.world.app.folder.path().join(format!("plan-{}.jsonl", self.rng.random::<u64>()));
        let plan = plan.to_str().unwrap();

        // Whether a document existed in an earlier container is unknown.
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
        // Documents that are named are recreated all the same.
        let gone = match &scope {
            Some(_) => BTreeSet::new(),
            None => gone_with_their_container(&truth, moment, self.remade),
        };
        let in_scope = |item: &&Item| !gone.contains(*item) && scope.as_ref().is_none_or(|scope| scope.contains(*item));
        let mut expected = before.clone();
        for item in truth.keys().filter(in_scope) {
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
        // Where the trigger passed over a time because the container was made again, a document of the new one may have
        // existed in the earlier one before anything was captured.
        let may_doubt = self.remade.is_some_and(|last| moment <= last);
        let is_sure = planned.code == if gone.is_empty() { 0 } else { 3 };
        assert!(is_sure || (may_doubt && planned.code == 3), "seed {}: {planned:?}", self.seed);
        let what = format!("{args:?}");

        let mut moved = BTreeSet::new();
        for _ in 0..self.rng.random_range(0..3) {
            let item = changed[self.rng.random_range(0..changed.len())].clone();
            self.append(&item).await;
            moved.insert(item);
        }
        let (quicker, _) = self.live().await;
        let settled = |is: &Documents| settled(is, &moved, &quicker);

        // A failed query is not retried for each of these, and the command reports that.
        let kinds = [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead];
        self.world.storm_of(&kinds, &mut self.rng);
        let apply = ["restore", "--plan", plan, "--yes", "--format", "json"];
        let done = self.world.app.run_through_proxy(&apply).await;
        self.world.calm();
        let conflicts = !moved.is_empty() || planned.code == 3;
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

    /// A record that can never be stored, first while the dead-letter store fails as well: the batch waits. Then the
    /// letter is written, and once the cause is gone, the record is captured.
    pub(super) async fn poison(&mut self) {
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
                assert!(letterbox.refused() > 1, "seed {}: it was not retried at once", self.seed);
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

    pub(super) async fn prune(&mut self) {
        let truth = self.settle().await;
        let done = self.world.app.run(&["prune", "--older-than", "4s", "--yes", "--format", "json"]).await.json();
        assert_eq!(done["failed"], 0, "seed {}: {done}", self.seed);
        let now = Utc::now().timestamp();
        for _ in 0..2 {
            let moment = now - self.rng.random_range(0..=4);
            self.backup_is(&truth, moment).await;
        }
    }

    pub(super) async fn erase(&mut self) {
        let erase =
            ["erase", "--id", SUBJECT, "--pk", KEYS[0], "--live", "--settle", "1s", "--yes", "--format", "json"];
        // Whatever capture delivers later is found by the next run.
        eventually("the subject is erased", async || {
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
}

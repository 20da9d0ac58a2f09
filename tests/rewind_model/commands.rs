//! Compares each command with the model.

use rand::RngExt as _;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    SYSTEM,
    case::Case,
    model::{Item, Known, assert_same},
};
use crate::support::Output;

impl Case {
    pub(super) async fn show_is_the_model(&mut self) {
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

    pub(super) async fn backup_is_the_model(&mut self) {
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

    /// Restores everything to a moment; returns the restore's id if something was written.
    pub(super) async fn restore(&mut self, at: i64) -> Option<String> {
        let before = self.look().await;
        let (expected, whole) = self.model.after_restore(at, &before);
        let time = at.to_string();
        let mut args = vec!["restore", "--all", "--at", &time, "--delete-newer=1000", "--no-stamp", "--format", "json"];
        let etags = self.live.clone();
        // Only sometimes, because a case has many restores.
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
            assert_eq!(again["outcomes"], json!([]), "second restore");
            self.look().await;
            assert_eq!(self.live, etags, "the second restore wrote something");
        }
        (moved > 0).then(|| report["restore"].as_str().unwrap().to_owned())
    }

    /// Restores only the documents that matched a predicate at the moment, and undoes it.
    pub(super) async fn restore_where_is_the_model(&mut self) {
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
        // An empty scope is not a success.
        assert!(done.code == 0 || (done.code == 1 && expected == before), "{args:?}: {done:?}");
        assert_same(&self.look().await, &expected, &format!("{args:?}"));
        let report: Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        if report["outcomes"].as_array().is_some_and(|all| !all.is_empty()) {
            let undone = self.run(&["undo", report["restore"].as_str().unwrap(), "--yes"]).await;
            assert_eq!(undone.code, 0, "{undone:?}");
        }
        assert_same(&self.look().await, &before, &format!("undo of {args:?}"));
    }

    /// Undoes a restore, if it wrote something.
    pub(super) async fn undo(&self, id: Option<&String>) -> Option<Output> {
        match id {
            Some(id) => Some(self.run(&["undo", id, "--yes"]).await),
            None => None,
        }
    }

    /// Asserts that the history contains every version that was ever live, exactly.
    pub(super) async fn nothing_is_lost(&self) {
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
}

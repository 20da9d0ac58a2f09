//! A writer of random documents that keeps a log of its own, and what that log says of a command's claims.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::captured::{Captured, drawn, next_second};

/// The state of each document by id, from the test's own log.
pub(super) type State = BTreeMap<String, i64>;

/// What was written, and how the documents were at some moments.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) seed: u64,
    pub(super) now: State,
    pub(super) moments: Vec<(i64, State)>,
    pub(super) log: Vec<String>,
}

impl Writer {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(super) fn draw(&mut self, below: u64) -> u64 {
        drawn(&mut self.seed, below)
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        self.log.push(what.into());
    }

    /// Writes one of a few documents so many times, or deletes it when it is there, one time in `deletes`.
    pub(super) async fn write(&mut self, world: &Captured, times: u64, deletes: u64, values: u64) {
        for _ in 0..times {
            let id = format!("doc-{}", self.draw(8));
            if self.now.contains_key(&id) && self.draw(deletes) == 0 {
                world.delete(&id, &id).await;
                self.note(format!("deleted {id}"));
                self.now.remove(&id);
            } else {
                let n = self.draw(values) as i64;
                world.put(json!({"id": id, "pk": id, "n": n})).await;
                self.note(format!("{id} = {n}"));
                self.now.insert(id, n);
            }
        }
    }

    pub(super) async fn moment(&mut self) {
        next_second().await;
        let at = next_second().await;
        self.moments.push((at, self.now.clone()));
        self.note(format!("at {at}"));
        next_second().await;
    }

    /// Plans to restore everything to a moment, and checks each step against what was then and is now. Returns the
    /// steps.
    pub(super) async fn plan(&self, world: &Captured, at: i64, then: &State) -> Vec<Value> {
        let text = at.to_string();
        let restore = ["restore", "--all", "--at", &text, "--delete-newer=99", "--dry-run", "--format", "json"];
        let planned = world.run(&restore).await;
        let mut plan: Value = serde_json::from_str(&planned.stdout).unwrap_or_else(|_| panic!("{planned:?}"));
        let Value::Array(steps) = plan["plan"]["steps"].take() else { panic!("{planned:?}") };
        for step in &steps {
            let id = step["id"].as_str().unwrap();
            let (was, is) = (then.get(id), self.now.get(id));
            let is_noted = step["notes"].as_array().is_some_and(|notes| !notes.is_empty());
            let is_true = match step["action"].as_str().unwrap() {
                "unknown" => true,
                // That a version in between is missing is noted.
                "keep" => was == is || (was.is_some() && is.is_some() && is_noted),
                "restore" => was.is_some() && is.is_some(),
                "recreate" => was.is_some() && is.is_none(),
                "delete" => was.is_none() && is.is_some(),
                _ => false,
            };
            assert!(is_true, "at {at} {id} was {was:?}, but {is:?} is reported: {step}\n{:#?}", self.log);
        }
        steps
    }
}

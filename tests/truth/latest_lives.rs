//! A trigger captures every version at first, loses its leases, and goes on in latest-version mode; in some lives a
//! follower in that mode helps, and in others there never was another mode. Whatever a plan says of a document at a
//! moment is true, or it says that this is not known; and `backup --at`, `at` and `show` know the same documents as the
//! plan.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::local::trigger::TriggerMode;
use serde_json::{Value, json};

use super::{
    captured::{Captured, delete_positions},
    leases_again::trigger_in,
    lost::follow,
    writer::{State, Writer},
};

struct Life {
    world: Captured,
    mode: TriggerMode,
    writer: Writer,
    /// How many times a plan named each action.
    actions: BTreeMap<String, usize>,
}

impl Life {
    async fn write(&mut self, times: u64) {
        self.writer.write(&self.world, times, 2, 100).await;
    }

    async fn capture(&mut self) {
        if self.mode == TriggerMode::Latest && self.writer.draw(3) == 0 {
            follow(&self.world, "helper", "latest").await;
            self.writer.note("a follower captured".to_owned());
            return;
        }
        let handler = self.world.app.handler(&[]).await;
        let trigger = trigger_in(&self.world.app, &handler, self.mode).await;
        trigger.wait_until_drained(Duration::from_secs(30)).await.unwrap();
        trigger.stop().await;
        self.writer.note(format!("the trigger captured, {:?}", self.mode));
    }

    async fn look(&mut self) {
        for (at, then) in self.writer.moments.clone() {
            let text = at.to_string();
            let steps = self.writer.plan(&self.world, at, &then).await;
            let (mut known, mut unknown) = (State::new(), 0);
            for step in &steps {
                let (id, action) = (step["id"].as_str().unwrap(), step["action"].as_str().unwrap());
                *self.actions.entry(action.to_owned()).or_default() += 1;
                unknown += u64::from(action == "unknown");
                known.extend(then.get(id).filter(|_| action != "unknown").map(|n| (id.to_owned(), *n)));
            }
            let out = format!("{at}.jsonl");
            let saved = self.world.run(&["backup", "--all", "--at", &text, "--out", &out, "--format", "json"]).await;
            let report: Value = serde_json::from_str(&saved.stdout).unwrap_or_else(|_| panic!("{saved:?}"));
            assert_eq!(report["unknown"], unknown, "at {at} {saved:?}\n{steps:?}\n{:#?}", self.writer.log);
            let file = std::fs::read_to_string(self.world.app.folder.path().join(&out)).unwrap();
            let documents = file.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let found: State = documents
                .filter_map(|document| Some((document["id"].as_str()?.to_owned(), document["n"].as_i64().unwrap())))
                .collect();
            // A version in between may be missing, which is a caveat.
            let is_right = found.keys().eq(known.keys()) && (found == known || saved.stderr.contains("caveat"));
            assert!(is_right, "at {at} {found:?} is in the file, not {known:?}: {saved:?}\n{:#?}", self.writer.log);
            self.show(&text, &steps).await;
            let mut program = self.world.app.start_program(&["at", &text]);
            program.line().await;
            let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
            let count = json!(known.len());
            assert_eq!(
                (&loaded["documents"], &loaded["unknown"]),
                (&count, &json!(unknown)),
                "at {at} {:#?}",
                self.writer.log
            );
        }
    }

    /// Whether `show` knows of the same documents what they were.
    async fn show(&self, at: &str, steps: &[Value]) {
        let list: Vec<String> =
            steps.iter().map(|step| json!({"id": step["id"], "pk": step["id"]}).to_string()).collect();
        let show = ["show", "--ids-file", "-", "--at", at, "--format", "json"];
        let output = self.world.app.run_with_input(&show, &list.join("\n")).await;
        let shown: BTreeMap<String, bool> = output
            .lines()
            .iter()
            .map(|line| {
                let is_known = line["state"] != "unknown" && line["doubt"].is_null();
                (line["id"].as_str().unwrap().to_owned(), is_known)
            })
            .collect();
        for step in steps {
            let id = step["id"].as_str().unwrap();
            let is_known = shown.get(id).copied().unwrap_or_default();
            assert_eq!(
                is_known,
                step["action"] != "unknown",
                "at {at} {id}: {step} {output:?}\n{:#?}",
                self.writer.log
            );
        }
    }
}

/// Lives for some steps. Returns how many times a plan named each action.
async fn live(seed: u64, first: TriggerMode) -> BTreeMap<String, usize> {
    // The trigger is the only reader.
    let world = Captured { app: crate::support::TestApp::start().await, mode: "latest" };
    let mut life = Life { world, mode: first, writer: Writer::new(seed), actions: BTreeMap::new() };
    life.capture().await;
    life.write(10).await;
    for step in 0..10 {
        match life.writer.draw(5) {
            0..=2 => {
                let times = life.writer.draw(5) + 1;
                life.write(times).await;
                life.writer.moment().await;
            }
            _ => life.capture().await,
        }
        if step == 3 && first == TriggerMode::AllVersions {
            life.capture().await;
            life.writer.moment().await;
            delete_positions(&life.world.app, "true").await;
            life.mode = TriggerMode::Latest;
            life.writer.note("the leases are lost".to_owned());
        }
    }
    life.capture().await;
    life.look().await;
    life.actions
}

#[tokio::test(flavor = "multi_thread")]
async fn in_latest_version_mode_every_claim_is_true_and_commands_agree() {
    let (one, other, third) = tokio::join!(
        live(1, TriggerMode::AllVersions),
        live(2, TriggerMode::AllVersions),
        live(3, TriggerMode::Latest)
    );
    for action in ["keep", "restore", "unknown"] {
        assert!(
            [&one, &other, &third].iter().any(|actions| actions.contains_key(action)),
            "{one:?} {other:?} {third:?}"
        );
    }
}

//! Runs commands next to independent writers (Microsoft's Python SDK, tests/sdk/writers.py) while partitions split. The
//! writes that the service acknowledged to the writers are the expected result.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, ChildStdin, Command},
    task::JoinHandle,
};

use crate::support::{FollowerProcess, TestApp, peers};

type Key = (String, String);

/// Running writers.
struct Writers {
    child: Child,
    stdin: ChildStdin,
    told: JoinHandle<Vec<Value>>,
}

impl Writers {
    /// Returns `None` where the SDK is not installed.
    fn start(app: &TestApp, seed: &str) -> Option<Self> {
        let mut command = Command::new(peers::python()?);
        command.args(["tests/sdk/writers.py", app.local.endpoint().as_str(), app.local.key(), "dev", "events", seed]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let told = tokio::spawn(async move {
            let (mut lines, mut told) = (BufReader::new(stdout).lines(), Vec::new());
            while let Some(line) = lines.next_line().await.unwrap() {
                told.push(serde_json::from_str(&line).unwrap());
            }
            told
        });
        Some(Self { child, stdin, told })
    }

    /// Stops the writers and returns the acknowledged writes of each document, in order. A write without an answer has
    /// an unknown outcome, so its document is left out.
    async fn end(self) -> BTreeMap<Key, Vec<Value>> {
        let Self { mut child, stdin, told } = self;
        drop(stdin);
        assert!(child.wait().await.unwrap().success());
        let text = |write: &Value, name: &str| write[name].as_str().unwrap().to_owned();
        let (mut lives, mut unsure) = (BTreeMap::<Key, Vec<Value>>::new(), BTreeSet::new());
        for write in told.await.unwrap() {
            let key = (text(&write, "id"), text(&write, "pk"));
            if write["op"] == "maybe" {
                unsure.insert(key.clone());
            }
            lives.entry(key).or_default().push(write);
        }
        lives.retain(|key, _| !unsure.contains(key));
        assert!(lives.len() > 50, "{} documents, unknown outcomes for {}", lives.len(), unsure.len());
        lives
    }
}

async fn split(app: &TestApp, round: usize) {
    let container = ["events", "changes"][round % 2];
    let ranges = app.local.ranges("dev", container).await.unwrap();
    app.local.split("dev", container, &ranges[round % ranges.len()]).await.unwrap();
}

/// The records of the history by document, in feed order; records without a position in the feed come last.
async fn records(app: &TestApp) -> BTreeMap<Key, Vec<Value>> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let mut all = BTreeMap::<Key, Vec<Value>>::new();
    for record in app.history().await {
        all.entry((text(&record, "_originalId"), text(&record, "pk"))).or_default().push(record);
    }
    all.values_mut().for_each(|records| {
        records.sort_by_key(|record| record["_change"]["lsn"].as_i64().unwrap_or(i64::MAX));
    });
    all
}

/// The document in a record.
fn held(record: &Value, id: &str) -> Value {
    let mut document = record.clone();
    let members = document.as_object_mut().unwrap();
    for name in ["_originalId", "_change"] {
        members.remove(name);
    }
    members["id"] = id.into();
    document
}

/// Saves baselines and repairs at the same time, repeatedly, while partitions split.
async fn saved_and_repaired_beside_splits(app: &TestApp) {
    for round in 0..4 {
        let (saved, repaired, ()) =
            tokio::join!(app.run(&["backfill", "--all"]), app.run(&["verify", "--repair", "--grace", "0s"]), async {
                tokio::time::sleep(Duration::from_millis(200)).await;
                split(app, round).await;
            },);
        assert_eq!(saved.code, 0, "{saved:?}");
        assert!(matches!(repaired.code, 0 | 3), "{repaired:?}");
    }
}

#[tokio::test]
async fn a_baseline_beside_writers_and_splits_has_every_live_document_once() {
    let app = TestApp::start().await;
    let Some(writers) = Writers::start(&app, "baseline") else { return };
    saved_and_repaired_beside_splits(&app).await;
    let lives = writers.end().await;
    assert_eq!(app.run(&["backfill", "--all"]).await.code, 0);
    let records = records(&app).await;
    for (key, writes) in &lives {
        let found = records.get(key).map_or(&[][..], Vec::as_slice);
        let etags: Vec<&str> = found.iter().map(|record| record["_change"]["etag"].as_str().unwrap()).collect();
        assert_eq!(etags.iter().collect::<BTreeSet<_>>().len(), etags.len(), "{key:?} twice: {etags:?}");
        for (record, etag) in found.iter().zip(&etags) {
            let write = writes.iter().find(|write| write["etag"] == **etag);
            let write = write.unwrap_or_else(|| panic!("{key:?}: nobody wrote {record}"));
            assert_eq!(held(record, &key.0), write["document"], "{key:?}");
        }
        let last = writes.last().unwrap();
        assert!(last["op"] == "delete" || etags.contains(&last["etag"].as_str().unwrap()), "{key:?} lacks {last}");
    }
    let verified = app.run(&["verify", "--content", "--grace", "0s"]).await;
    assert!(verified.stdout.contains("missing    OK"), "{verified:?}");
}

#[tokio::test]
async fn repairs_and_baselines_beside_capture_never_weaken_what_the_feed_delivered() {
    let app = TestApp::start().await;
    let follow = ["--mode", "all-versions", "--from", "now"];
    let begun = app.run(&[&["follow", "--until-caught-up"], &follow[..]].concat()).await;
    assert_eq!(begun.code, 0, "{begun:?}");
    let Some(writers) = Writers::start(&app, "capture") else { return };
    let mut follower = FollowerProcess::start(&app, &follow);
    saved_and_repaired_beside_splits(&app).await;
    follower.signal("TERM");
    follower.ended().await;
    let lives = writers.end().await;
    let ended = app.run(&[&["follow", "--until-caught-up"], &follow[..]].concat()).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let records = records(&app).await;
    for (key, writes) in &lives {
        let found = &records[key];
        let seen: Vec<(&str, Option<&str>)> = found
            .iter()
            .map(|record| {
                let op = record["_change"]["op"].as_str().unwrap();
                (op, record["_change"]["etag"].as_str().filter(|_| op != "delete"))
            })
            .collect();
        let mut is_live = false;
        let expected: Vec<(&str, Option<&str>)> = writes
            .iter()
            .map(|write| {
                let was_live = std::mem::replace(&mut is_live, write["op"] == "put");
                let op = if !is_live {
                    "delete"
                } else if was_live {
                    "replace"
                } else {
                    "create"
                };
                (op, write["etag"].as_str())
            })
            .collect();
        assert_eq!(seen, expected, "{key:?}");
        for (record, write) in found.iter().zip(writes).filter(|(_, write)| write["op"] == "put") {
            assert_eq!(held(record, &key.0), write["document"], "{key:?}");
        }
    }
    let verified = app.run(&["verify", "--content", "--grace", "0s"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");
}

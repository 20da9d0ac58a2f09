//! Complete histories in memory at thousands of writes per second: an application writes, the real capture use case
//! stores, and restore, undo, verification, retention and erasure work on the result. The oracle replays the
//! container's own write log in a minimal model and shares no code with its subject.

use std::{collections::BTreeMap, time::Duration};

use cosmos_rewind::{
    archive::Archive,
    capture::Capture,
    change::{
        fidelity::Delivery,
        key::{ItemKey, KeyPaths, PartitionKey},
        time::PointInTime,
    },
    config::{Names, Settings},
    context::Context,
    cosmos::{Items, Status},
    erase,
    history::{
        AnyContext,
        baseline::Extent,
        memory::{Fault, FeedWrite, MemoryAccount, MemoryContainer, MemoryHistory},
    },
    restore::{self, Approval, PlanLimits, Report, Request, RunOptions, Targets, UndoRequest, Use},
    retention::{self, Policy},
    verify::{self, Verdict},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json, value::RawValue};
use tempfile::TempDir;

use super::{limits, seed_after_seed};
use crate::support::{capture_into, letters};

const START: i64 = 1_700_000_000;
const DOCUMENTS: u64 = 9;
const SYSTEM: [&str; 5] = ["_rid", "_self", "_etag", "_attachments", "_ts"];
/// The layouts that capture accepts for a source keyed by `/pk`.
pub(super) const LAYOUTS: [&[&str]; 3] = [&["/pk", "/_originalId"], &["/pk"], &["/_originalId", "/pk"]];

/// Id and partition key.
pub type Place = (String, String);
/// A container's documents as values, without the service's own fields.
pub(super) type Contents = BTreeMap<Place, Value>;

/// A small world with one account.
pub(super) struct World {
    pub(super) account: MemoryAccount,
    names: Names,
    capture: Capture<MemoryHistory>,
    folder: TempDir,
    pub(super) now: i64,
    /// How much of the log was captured.
    captured: usize,
}

fn paths(texts: &[&str]) -> KeyPaths {
    KeyPaths::parse(texts).unwrap()
}

/// A document as its user wrote it.
fn own(text: &str) -> Value {
    let mut document: Value = serde_json::from_str(text).unwrap();
    document.as_object_mut().unwrap().retain(|name, _| !SYSTEM.contains(&name.as_str()));
    document
}

pub(super) fn contents(container: &MemoryContainer) -> Contents {
    let place = |document: &Value| (document["id"].as_str().unwrap().to_owned(), document["pk"].to_string());
    container.texts().iter().map(|text| own(text)).map(|document| (place(&document), document)).collect()
}

/// The container's contents at the end of a second, from its log.
fn at(log: &[FeedWrite], ts: i64) -> Contents {
    let mut contents = Contents::new();
    for write in log.iter().filter(|write| write.ts <= ts) {
        let place = (write.item.id.clone(), write.item.partition_key.to_json()[0].to_string());
        match &write.now {
            Some(text) => contents.insert(place, own(text)),
            None => contents.remove(&place),
        };
    }
    contents
}

/// The log as the trigger delivers it in all-versions mode.
fn feed(log: &[FeedWrite]) -> Vec<Value> {
    let mut last: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut items = Vec::new();
    for write in log {
        let place = (write.item.id.clone(), write.item.partition_key.to_json().to_string());
        let prev = last.insert(place.clone(), write.lsn).filter(|_| write.before.is_some()).unwrap_or(0);
        let mut metadata = json!({"operationType": "create", "crts": write.ts as f64, "lsn": write.lsn,
            "previousImageLSN": prev, "timeToLiveExpired": false});
        let mut item = json!({"current": {}});
        match (&write.before, &write.now) {
            (before, Some(now)) => {
                item["current"] = serde_json::from_str(now).unwrap();
                if before.is_some() {
                    metadata["operationType"] = "replace".into();
                }
            }
            (_, None) => {
                metadata["operationType"] = "delete".into();
                metadata["id"] = write.item.id.as_str().into();
                metadata["partitionKey"] = json!({"pk": write.item.partition_key.to_json()[0]});
            }
        }
        if let Some(before) = &write.before {
            item["previous"] = serde_json::from_str(before).unwrap();
        }
        item["metadata"] = metadata;
        items.push(item);
    }
    items
}

impl World {
    pub(super) fn new(layout: &[&str], seed: u64) -> Self {
        let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
        let account = MemoryAccount::new(&names, paths(&["/pk"]), paths(layout));
        account.set_time(START);
        let folder = TempDir::new().unwrap();
        let capture = Capture {
            delivery: Delivery::DatesKept,
            ..capture_into(account.history(), &folder.path().join("letters"), limits(seed))
        };
        Self { account, names, capture, folder, now: START, captured: 0 }
    }

    pub(super) fn cx(&self) -> AnyContext<'_> {
        Context::new(&self.account, &self.names).any()
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now += seconds;
        self.account.set_time(self.now);
    }

    /// An application makes random writes.
    async fn live(&mut self, rng: &mut StdRng, writes: usize) {
        for _ in 0..writes {
            self.later(rng.random_range(0..3));
            let number = rng.random_range(0..DOCUMENTS);
            // One id under two keys, and an id that cannot be part of an address.
            let id = match number {
                0 => "..".to_owned(),
                n => format!("doc-{}", n / 2),
            };
            let pk = json!(number % 3);
            let key = PartitionKey::parse(&json!([pk]).to_string()).unwrap();
            let source = &self.account.source;
            if rng.random_bool(0.25) {
                let _ = source.delete(&key, &id, None).await;
            } else {
                let n: u32 = rng.random_range(0..1000);
                let body = json!({"id": id, "pk": pk, "n": n, "nested": {"a": [n, null, "ü"]}}).to_string();
                source.upsert(&key, &id, body.into_bytes()).await.unwrap();
            }
        }
    }

    /// Captures everything written since the last call, in batches, some of them twice.
    pub(super) async fn capture(&mut self, rng: &mut StdRng) {
        let items: Vec<Box<RawValue>> = feed(&self.account.source.written())
            .iter()
            .map(|item| serde_json::value::to_raw_value(item).unwrap())
            .collect();
        while self.captured < items.len() {
            let from = self.captured.saturating_sub(rng.random_range(0..4));
            let to = (self.captured + rng.random_range(1..12)).min(items.len());
            let batch: Vec<&RawValue> = items[from..to].iter().map(AsRef::as_ref).collect();
            self.capture.run(&batch, "invocation").await.unwrap();
            self.captured = to;
        }
    }

    fn request(&self, at: i64) -> Request<'static> {
        Request {
            delete_newer: true,
            max_deletes: Some(100),
            stamp: false,
            concurrency: 4,
            ..Request::at(Targets::All, PointInTime::from_epoch(at))
        }
    }

    pub(super) fn options(&self) -> RunOptions {
        RunOptions { force: false, concurrency: 4, ru_limit: None, journal: self.folder.path().join("journal") }
    }

    /// Plans and applies a restore; returns its id and report.
    async fn restore(&self, request: &Request<'_>, into: Option<&str>) -> (String, Report) {
        let cx = self.cx();
        let containers = restore::open(into, &cx).await.unwrap();
        let plan = restore::plan(request, &containers, &cx).await.unwrap().plan;
        let approval = Approval::of(&plan, &PlanLimits { max: 100, max_deletes: None }).unwrap();
        let this = Use { run: &plan.head.id, made_now: true, texts: None };
        let report = restore::apply(&plan, &approval, this, &self.options(), &containers, &cx).await.unwrap();
        (plan.head.id.clone(), report)
    }

    /// Undoes a restore and returns the report.
    pub(super) async fn undo(&self, restore: &str) -> Report {
        let cx = self.cx();
        let journal = self.folder.path().join("journal");
        let request = UndoRequest { restore: restore.into(), journal, concurrency: 4, ru_limit: None };
        let (plan, containers) = restore::undo(&request, &cx).await.unwrap();
        let approval = Approval::of(&plan, &PlanLimits { max: 100, max_deletes: None }).unwrap();
        let this = Use { run: &plan.head.id, made_now: true, texts: None };
        restore::apply(&plan, &approval, this, &self.options(), &containers, &cx).await.unwrap()
    }

    async fn verify(&self) -> verify::Report {
        let request = verify::Request {
            content: true,
            sample: 5,
            repair: false,
            extent: Extent::Whole,
            grace: 0,
            since: None,
            named: 5,
            shard: None,
            ru_limit: None,
            concurrency: 4,
        };
        verify::run(request, self.cx()).await.unwrap()
    }
}

/// Transient failures that the client library passes on.
fn faults(rng: &mut StdRng) -> Vec<Fault> {
    (0..rng.random_range(0..6))
        .map(|_| {
            let status = Status::new([408, 429, 449, 503][rng.random_range(0..4)], 0);
            if rng.random_bool(0.5) { Fault::Refused(status) } else { Fault::Unanswered(status) }
        })
        .collect()
}

async fn play(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let layout = LAYOUTS[rng.random_range(0..LAYOUTS.len())];
    let mut world = World::new(layout, seed);
    let writes = rng.random_range(20..60);
    world.live(&mut rng, writes).await;
    world.capture(&mut rng).await;
    let story = format!("seed {seed}, history keyed {layout:?}");

    // Restores to any second since the first captured change, and undoes it.
    world.later(5);
    let then = rng.random_range(world.account.source.written()[0].ts..world.now);
    let expected = at(&world.account.source.written(), then);
    let before = contents(&world.account.source);
    world.account.source.fail_next(faults(&mut rng));
    let request = world.request(then);
    if expected.is_empty() && before.is_empty() {
        return;
    }
    let (restore, report) = world.restore(&request, None).await;
    assert!(report.is_complete(), "{story}: {report:?}");
    assert_eq!(contents(&world.account.source), expected, "{story}: restored to {then}");
    world.later(2);
    world.capture(&mut rng).await;
    let found = world.verify().await;
    assert_eq!(found.result(), Verdict::Ok, "{story}: {:?}", found.checks);
    if report.outcomes.is_some() {
        world.account.source.fail_next(faults(&mut rng));
        let undone = world.undo(&restore).await;
        assert!(undone.is_complete(), "{story}: {undone:?}");
        assert_eq!(contents(&world.account.source), before, "{story}: undone");
        // What the first undo wrote does not belong to the restore any more.
        let again = world.undo(&restore).await;
        assert_eq!(again.results.done, 0, "{story}: {again:?}");
        assert_eq!(contents(&world.account.source), before, "{story}: undone twice");
    }

    // After more writes, old versions are pruned, and every kept moment still has the same answer.
    world.later(1);
    world.live(&mut rng, 20).await;
    world.capture(&mut rng).await;
    let within = rng.random_range(1..world.now - START);
    let policy = Policy { within, daily: None, monthly: None, drop_deleted: false };
    let prune = retention::Request { policy, shard: None, ru_limit: None, concurrency: 4 };
    let pruned = retention::plan(prune, world.cx()).await.unwrap().apply().await.unwrap();
    assert!(pruned.fatal.is_none() && pruned.sums.failed == 0 && pruned.bad.is_empty(), "{story}: {pruned:?}");
    let kept = rng.random_range(world.now - within..=world.now);
    let expected = at(&world.account.source.written(), kept);
    let copy = world.account.add("copy");
    if !expected.is_empty() {
        let (_, report) = world.restore(&world.request(kept), Some("copy")).await;
        assert!(report.results.failed == 0 && report.given_up.is_none(), "{story}: {report:?}");
    }
    assert_eq!(contents(&copy), expected, "{story}: {kept} of the last {within} s, pruned");

    // One document is erased without a trace.
    let item = ItemKey { id: "..".into(), partition_key: PartitionKey::parse("[0]").unwrap() };
    let request = erase::Request {
        item,
        live: true,
        settle: Duration::ZERO,
        dead_letters: letters(&world.folder.path().join("letters")),
        journals: world.folder.path().join("journal"),
        archives: Vec::<Archive>::new(),
    };
    let receipt = erase::plan(request, world.cx()).await.unwrap().apply().await.unwrap();
    assert_eq!(receipt.left, 0, "{story}: {receipt:?}");
    for text in [world.account.source.texts(), world.account.changes.texts()].concat() {
        assert!(!text.contains("\"..\"") && !text.contains("..~") && !text.contains("\\\"..\\\""), "{story}: {text}");
    }
}

#[test]
fn in_memory_every_second_can_be_restored_undone_pruned_around_and_erased() {
    seed_after_seed("MEMORY", 40, play);
}

/// A document that the plan deletes because it was created after the moment.
async fn to_be_deleted() -> (World, Request<'static>, PartitionKey) {
    let mut world = World::new(LAYOUTS[0], 0);
    let key = PartitionKey::parse("[1]").unwrap();
    let body = |id: &str| json!({"id": id, "pk": 1}).to_string().into_bytes();
    world.account.source.upsert(&key, "old", body("old")).await.unwrap();
    world.later(10);
    world.account.source.upsert(&key, "new", body("new")).await.unwrap();
    world.capture(&mut StdRng::seed_from_u64(0)).await;
    world.later(10);
    let request = world.request(START + 5);
    (world, request, key)
}

/// After a delete whose answer was lost, a 404 does not tell who deleted the document. Here another writer did,
/// earlier. The restore must not claim the delete, or its undo would recreate the document.
#[tokio::test(start_paused = true)]
async fn undo_does_not_recreate_a_document_that_someone_else_deleted() {
    let (world, request, key) = to_be_deleted().await;
    let cx = world.cx();
    let containers = restore::open(None, &cx).await.unwrap();
    let plan = restore::plan(&request, &containers, &cx).await.unwrap().plan;
    assert_eq!(plan.totals.writes, 1);
    world.account.source.delete(&key, "new", None).await.unwrap();
    world.account.source.fail_next([Fault::Refused(Status::new(503, 0))]);
    let approval = Approval::of(&plan, &PlanLimits { max: 9, max_deletes: None }).unwrap();
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    let report = restore::apply(&plan, &approval, this, &world.options(), &containers, &cx).await.unwrap();
    assert_eq!((report.results.done, report.results.already), (0, 1), "{report:?}");
    assert_eq!(world.undo(&plan.head.id).await.results.done, 0);
    assert_eq!(contents(&world.account.source).len(), 1);
}

/// The same delete, applied by the restore although the answer was a failure. It is the restore's own work, and undo
/// reverts it.
#[tokio::test(start_paused = true)]
async fn a_delete_whose_answer_was_lost_is_the_restores_own() {
    let (world, request, _) = to_be_deleted().await;
    let before = contents(&world.account.source);
    // The read before the delete is answered; the delete is applied, but its answer is lost.
    let cx = world.cx();
    let containers = restore::open(None, &cx).await.unwrap();
    let plan = restore::plan(&request, &containers, &cx).await.unwrap().plan;
    let approval = Approval::of(&plan, &PlanLimits { max: 9, max_deletes: None }).unwrap();
    let this = Use { run: &plan.head.id, made_now: true, texts: None };
    let lost = Fault::Unanswered(Status::new(408, 0));
    world.account.source.fail_next([Fault::Refused(Status::new(503, 0)), lost]);
    let report = restore::apply(&plan, &approval, this, &world.options(), &containers, &cx).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(contents(&world.account.source).len(), 1);
    assert!(world.undo(&plan.head.id).await.is_complete());
    assert_eq!(contents(&world.account.source), before);
}

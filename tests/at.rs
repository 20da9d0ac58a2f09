//! `at`: any SDK reads from the account of a moment what was written until then. The test's own list of writes is the
//! oracle.

use std::{collections::BTreeMap, process::Command, time::Duration};

use cosmos_rewind::{
    change::{key::PartitionKey, time::PointInTime},
    config::{AccountSettings, Names, Secret, Settings},
    context::Context,
    cosmos::{Container, Cosmos},
    local::past::{PastAccount, PastError, PastRequest},
    progress::{Progress as _, Silent},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fork::Plain,
    rewind_revert::Life,
    support::{TestApp, eventually, peers},
};

/// A write: time, document id, and the stored document; `None` for a delete.
type Write = (i64, String, Option<Value>);

fn plain(mut document: Value) -> Value {
    for name in ["_rid", "_self", "_attachments"] {
        document.as_object_mut().unwrap().shift_remove(name);
    }
    document
}

/// The documents at a moment, from the list of writes.
fn then(writes: &[Write], at: i64) -> BTreeMap<String, Value> {
    let mut documents = BTreeMap::new();
    for (_, id, stored) in writes.iter().filter(|(ts, ..)| *ts <= at) {
        match stored {
            Some(stored) => documents.insert(id.clone(), plain(stored.clone())),
            None => documents.remove(id),
        };
    }
    documents
}

/// Writes random changes to some documents over an hour.
async fn life(seed: u64, writes: usize) -> (Life, Vec<Write>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut life = Life::start().await;
    let mut ts = life.now - 3600;
    let mut log: Vec<Write> = Vec::new();
    for n in 0..writes {
        ts += rng.random_range(0..3600 / i64::try_from(writes).unwrap());
        let id = ["a", "b", "ü ö", "..", "e"][rng.random_range(0..5)].to_owned();
        let exists = then(&log, ts).contains_key(&id);
        let document = (!exists || rng.random_bool(0.75))
            .then(|| json!({"n": n, "nested": {"big": 12345678901_i64, "x": 1.5}, "list": [null, "ä"]}));
        // The service's address cannot name `..` in a delete; another test covers that.
        let document = if id == ".." && document.is_none() { Some(json!({"n": n})) } else { document };
        let stored = life.write_at(ts, &id, document).await;
        log.push((ts, id, stored));
    }
    life.app.captured_from_now().await;
    (life, log)
}

fn names(app_settings: &[(&str, &str)]) -> Names {
    Names::from_settings(&Settings::from_pairs(app_settings.iter().copied()), None).unwrap()
}

fn request(at: i64) -> PastRequest {
    PastRequest {
        at: PointInTime::from_epoch(at),
        sources: vec![names(&[("COSMOS_DATABASE", "dev")])],
        predicate: None,
        params: Vec::new(),
        port: 0,
        writable: false,
        partial: false,
        max_memory: 1 << 30,
        mask: Vec::new(),
        mask_key: Secret::new("key".to_owned()),
        wait: false,
        concurrency: 8,
        ru_limit: None,
    }
}

async fn started(life: &Life, request: &PastRequest) -> Result<PastAccount, PastError> {
    let names = request.sources[0].clone();
    PastAccount::start(request, &Context::new(&life.app.cosmos, &names)).await
}

async fn opened(past: &PastAccount, name: &str) -> Container {
    let settings = Settings::from_pairs([("CosmosDB", past.account().connection_string())]);
    Cosmos::new(AccountSettings::from_settings(&settings).unwrap()).container("dev", name).await.unwrap()
}

fn key(id: &str) -> PartitionKey {
    PartitionKey::parse(&json!([id]).to_string()).unwrap()
}

async fn queried(container: &Container) -> BTreeMap<String, Value> {
    let found = container.query_all("SELECT * FROM c", &[], None).await.unwrap();
    let documents = found.iter().map(|raw| plain(serde_json::from_str(raw.get()).unwrap()));
    documents.map(|document| (document["id"].as_str().unwrap().to_owned(), document)).collect()
}

async fn read(container: &Container, id: &str) -> Option<Value> {
    let text = container.read(&key(id), id).await.unwrap()?;
    Some(plain(serde_json::from_slice(&text).unwrap()))
}

#[tokio::test]
async fn a_hundred_moments_are_read_as_they_were() {
    for seed in 0..4 {
        let (life, writes) = life(seed, 30).await;
        let mut rng = StdRng::seed_from_u64(seed);
        for _ in 0..25 {
            let at = rng.random_range(life.now - 3600..life.now);
            let (expected, told) = (then(&writes, at), format!("seed {seed}, at {at}"));
            let past = started(&life, &request(at)).await.unwrap();
            let events = opened(&past, "events").await;
            // By id, before anything is loaded.
            for id in ["a", "ü ö", "e", "never"] {
                assert_eq!(read(&events, id).await.as_ref(), expected.get(id), "{told}: {id}, fetched");
            }
            let loaded = past.load(&*Silent.begin("loading", None)).await.unwrap();
            assert_eq!((loaded.documents, loaded.unknown), (expected.len() as u64, 0), "{told}");
            assert_eq!(queried(&events).await, expected, "{told}");
            for id in ["a", "b", "ü ö", "..", "e"] {
                if id != ".." {
                    assert_eq!(read(&events, id).await.as_ref(), expected.get(id), "{told}: {id}");
                }
            }
            past.shutdown().await;
        }
    }
}

#[tokio::test]
async fn only_a_copy_can_be_changed() {
    let (life, writes) = life(7, 20).await;
    let at = life.now - 600;
    let expected = then(&writes, at);
    let past = started(&life, &request(at)).await.unwrap();
    past.load(&*Silent.begin("loading", None)).await.unwrap();
    let events = opened(&past, "events").await;
    let body = || json!({"id": "new", "pk": "new"}).to_string().into_bytes();
    let refused = events.upsert(&key("new"), "new", body()).await.unwrap_err();
    assert!(refused.to_string().contains("cannot be changed") && refused.status.code == 403, "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("--writable") && !hint.contains("role")), "{refused:?}");
    assert_eq!(queried(&events).await, expected);

    let copy = started(&life, &PastRequest { writable: true, ..request(at) }).await.unwrap();
    let events = opened(&copy, "events").await;
    // A write waits until everything is loaded, so that a document that it deletes is not loaded again.
    let id = expected.keys().find(|id| *id != "..").unwrap().clone();
    let (step, gone) = (Silent.begin("loading", None), key(&id));
    let (loaded, deleted) = tokio::join!(copy.load(&*step), events.delete(&gone, &id, None));
    loaded.unwrap();
    deleted.unwrap();
    events.upsert(&key("new"), "new", body()).await.unwrap();
    let mut documents = queried(&events).await;
    assert!(documents.remove("new").is_some() && !documents.contains_key(&id));
    let times = |documents: &BTreeMap<String, Value>| -> Vec<Value> {
        documents.values().filter(|d| d["id"] != id.as_str()).map(|d| json!([d["id"], d["n"], d["_ts"]])).collect()
    };
    assert_eq!(times(&documents), times(&expected));
    // Conditions are honoured.
    let other = documents.keys().find(|id| *id != "..").cloned();
    if let Some(other) = other {
        let etag = documents[&other]["_etag"].as_str().unwrap();
        let body = || json!({"id": other, "pk": other, "m": 1}).to_string().into_bytes();
        assert!(events.replace(&key(&other), &other, body(), "\"no\"").await.is_err());
        events.replace(&key(&other), &other, body(), etag).await.unwrap();
        assert_eq!(read(&events, &other).await.unwrap()["m"], 1);
    }
    assert!(!queried(&life.app.events().await).await.contains_key("new"), "the source account is not touched");
}

#[tokio::test]
async fn unknown_documents_are_listed_and_too_many_are_refused_up_front() {
    let life = Life::start().await;
    // Captured in latest-version mode after the moment, so its state at the moment is unknown.
    let mut stored = life.app.put(json!({"id": "late", "pk": "late", "ssn": "1", "n": 1})).await;
    stored["_ts"] = (life.now - 60).into();
    life.app.capture(&[stored]).await;
    life.app.captured_from_now().await;
    let at = life.now - 600;
    let past = started(&life, &request(at)).await.unwrap();
    let loaded = past.load(&*Silent.begin("loading", None)).await.unwrap();
    assert_eq!((loaded.documents, loaded.unknown), (0, 1));
    assert_eq!(queried(&opened(&past, "events").await).await, BTreeMap::new());
    let listed = queried(&opened(&past, "_unknown").await).await;
    let listed = listed.values().next().unwrap();
    assert_eq!(
        [&listed["container"], &listed["documentId"], &listed["pk"]],
        [&json!("events"), &json!("late"), &json!(["late"])]
    );
    let refused = started(&life, &PastRequest { max_memory: 100, ..request(at) }).await.unwrap_err();
    assert!(matches!(refused, PastError::TooLarge { most: 100, .. }), "{refused}");
    // Values can be left out or hashed.
    let mask = vec!["/ssn".parse().unwrap(), "/n=hash".parse().unwrap()];
    let masked = started(&life, &PastRequest { mask, ..request(life.now) }).await.unwrap();
    masked.load(&*Silent.begin("loading", None)).await.unwrap();
    let document = read(&opened(&masked, "events").await, "late").await.unwrap();
    assert!(document.get("ssn").is_none() && document["n"].is_string(), "{document}");
    let wrong = PastRequest { mask: vec!["/pk".parse().unwrap()], ..request(life.now) };
    assert!(matches!(started(&life, &wrong).await, Err(PastError::Mask(_))));
}

/// The version that was in force is at hand, and the next one names another before it that nobody captured.
#[tokio::test]
async fn what_may_have_been_changed_unseen_is_shown_and_counted() {
    let life = Life::start().await;
    let mut items = Vec::new();
    for (op, n, ts, lsn, before) in [("create", 1, life.now - 1200, 1, 0), ("replace", 3, life.now - 300, 5, 3)] {
        let mut stored = life.app.put(json!({"id": "a", "pk": "a", "n": n})).await;
        stored["_ts"] = ts.into();
        let metadata = json!({"lsn": lsn, "crts": ts, "previousImageLSN": before, "operationType": op});
        items.push(json!({"current": stored, "metadata": metadata}));
    }
    life.app.capture(&items).await;
    life.app.captured_from_now().await;
    let at = (life.now - 600).to_string();
    // The other commands take it for what it was, and say what they do not know.
    let shown = life.app.run(&["show", "--id", "a", "--at", &at]).await;
    assert!(
        shown.code == 0 && shown.stderr.contains("note: a version is missing from the history (LSN 3)"),
        "{shown:?}"
    );
    let planned = life.app.run(&["restore", "--all", "--at", &at, "--dry-run"]).await;
    assert!(
        planned.code == 0 && planned.stdout.contains("a version is missing from the history (LSN 3)"),
        "{planned:?}"
    );
    let saved = life.app.run(&["backup", "--all", "--at", &at, "--out", "then.jsonl"]).await;
    assert!(saved.code == 0 && saved.stderr.contains("note: 1 document with the caveat gap"), "{saved:?}");
    for more in [&[][..], &["--where", "c.n = 1"]] {
        let mut program = life.app.start_program(&[&["at", &at], more].concat());
        let ready: Value = serde_json::from_str(&program.line().await).unwrap();
        // Fetched by name or loaded: it is counted once.
        let document = Plain::new(ready["endpoint"].as_str().unwrap()).get("a").await;
        let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
        assert_eq!((&loaded["documents"], &loaded["caveats"]), (&json!(1), &json!({"gap": 1})), "{document:?}");
        program.interrupt();
        let ended = program.ended().await;
        assert!(ended.code == 0 && ended.stderr.contains("note: 1 document with the caveat gap"), "{ended:?}");
    }
    let past = started(&life, &request(life.now - 600)).await.unwrap();
    let loaded = past.load(&*Silent.begin("loading", None)).await.unwrap();
    assert_eq!((loaded.is_complete(), loaded.caveats["gap"]), (true, 1));
    assert_eq!(read(&opened(&past, "events").await, "a").await.unwrap()["n"], 1);
    // That nothing is to be written is no surer than what would be.
    life.app.put(json!({"id": "a", "pk": "a", "n": 1})).await;
    let planned = life.app.run(&["restore", "--all", "--at", &at, "--dry-run"]).await;
    let is_noted = ["has that content already", "a version is missing from the history (LSN 3)"]
        .iter()
        .all(|note| planned.stdout.contains(note));
    assert!(planned.code == 0 && is_noted, "{planned:?}");
}

/// A container's description as an HTTP client reads it.
async fn described(account: &Plain) -> Value {
    let (status, description) = account.ask(Method::GET, "events", "", None).await;
    assert_eq!(status, 200, "{description}");
    let names = ["partitionKey", "uniqueKeyPolicy", "indexingPolicy", "defaultTtl"];
    names.iter().map(|name| ((*name).to_owned(), description[*name].clone())).collect()
}

#[tokio::test]
async fn the_container_of_the_past_has_the_policies_of_the_live_one_and_nothing_expires_in_it() {
    const TTL: u64 = 3;
    let path = |path: &str, order: &str| json!({"path": path, "order": order});
    let composite = json!([[path("/mail", "ascending"), path("/n", "descending")]]);
    let indexing = json!({"indexingMode": "consistent", "automatic": true, "includedPaths": [{"path": "/mail/?"}],
        "excludedPaths": [{"path": "/*"}], "compositeIndexes": composite});
    let description = json!({"partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}, "defaultTtl": TTL,
        "uniqueKeyPolicy": {"uniqueKeys": [{"paths": ["/mail"]}]}, "indexingPolicy": indexing});
    let mut life = Life::of(TestApp::with_events(&["/pk", "/_originalId"], description).await).await;
    for id in ["a", "b"] {
        life.write_at(life.now - 1200, id, Some(json!({"mail": format!("{id}@x"), "n": 1, "ttl": TTL}))).await;
    }
    life.app.captured_from_now().await;
    let (live, at) = (Plain::new(life.app.local.endpoint().as_str()), (life.now - 600).to_string());
    let mut programs = Vec::new();
    let mut start = async |more: &[&str]| {
        let mut program = life.app.start_program(&[&["at", &at], more].concat());
        let ready: Value = serde_json::from_str(&program.line().await).unwrap();
        let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
        assert_eq!((&loaded["documents"], &loaded["unknown"]), (&json!(2), &json!(0)), "{more:?}");
        programs.push(program);
        Plain::new(ready["endpoint"].as_str().unwrap())
    };
    let (shown, copy, masked) =
        (start(&[]).await, start(&["--writable"]).await, start(&["--writable", "--mask", "/mail"]).await);
    let expected = described(&live).await;
    assert_eq!(expected["indexingPolicy"]["compositeIndexes"], composite);
    assert_eq!((&expected["defaultTtl"], expected["uniqueKeyPolicy"].is_null()), (&json!(TTL), false));
    assert_eq!((described(&shown).await, described(&copy).await), (expected.clone(), expected));
    // Unique keys are enforced in a copy, except for one with masked values, which may all be equal.
    let write = async |account: &Plain, mail: &str| {
        let document = json!({"id": mail, "pk": "a", "mail": mail});
        account.ask(Method::POST, "events/docs", "a", Some(&document)).await.0
    };
    assert_eq!((write(&copy, "a@x").await, write(&copy, "c@x").await, write(&copy, "b@x").await), (409, 201, 201));
    assert_eq!(described(&masked).await["uniqueKeyPolicy"], Value::Null);
    assert_eq!(write(&masked, "a@x").await, 201);
    // Live documents expire. Documents of the past do not, nor does one that is written in the copy.
    copy.edit("b", json!({"n": 2})).await;
    let gone = async || live.get("a").await.is_none().then_some(());
    eventually("the live document expires", gone).await;
    tokio::time::sleep(Duration::from_secs(TTL + 1)).await;
    assert_eq!(shown.get("a").await.unwrap()["mail"], "a@x");
    assert_eq!(
        (copy.get("a").await.unwrap()["n"].clone(), copy.get("b").await.unwrap()["n"].clone()),
        (1.into(), 2.into())
    );
    assert_eq!(copy.ask(Method::GET, "events/docs/c@x", "a", None).await.0, 200);
}

async fn run(mut command: Command) -> std::process::Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// The real program, and what two other SDKs read from it: documents by query and by id, and the status of a write.
#[tokio::test]
async fn the_program_shows_the_past_to_other_sdks() {
    let (life, writes) = life(3, 40).await;
    let at = life.now - 900;
    let expected = then(&writes, at);
    let mut program = life.app.start_program(&["at", &at.to_string()]);
    let line = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let (ready, loaded) = (line(program.line().await), line(program.line().await));
    assert_eq!(
        [&ready["event"], &ready["containers"][0], &ready["writable"]],
        [&json!("ready"), &json!("events"), &json!(false)]
    );
    assert_eq!([&loaded["documents"], &loaded["unknown"]], [&json!(expected.len()), &json!(0)]);
    let (endpoint, account_key) = (ready["endpoint"].as_str().unwrap(), ready["key"].as_str().unwrap());
    let expected: Vec<&Value> = expected.values().collect();
    let agrees = |output: std::process::Output, who: &str| {
        assert!(output.status.success(), "{who}: {}", String::from_utf8_lossy(&output.stderr));
        let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut queried: Vec<Value> = seen["queried"].as_array().unwrap().iter().cloned().map(plain).collect();
        queried.sort_by_key(|document| document["id"].as_str().unwrap().to_owned());
        assert_eq!(queried.iter().collect::<Vec<_>>(), expected, "{who}");
        let mut read: Vec<Value> = seen["read"].as_array().unwrap().iter().cloned().map(plain).collect();
        read.sort_by_key(|document| document["id"].as_str().unwrap().to_owned());
        let named: Vec<&Value> = expected.iter().copied().filter(|document| document["id"] != "..").collect();
        assert_eq!(read.iter().collect::<Vec<_>>(), named, "{who}");
        assert_eq!((&seen["missing"], &seen["write"]), (&json!(404), &json!(403)), "{who}");
    };
    if let Some(python) = peers::python() {
        let mut command = Command::new(python);
        command.args(["tests/sdk/past.py", endpoint, account_key]);
        agrees(run(command).await, "Python");
    }
    if let Some(folder) = peers::node_folder() {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk/past.mjs")).args([endpoint, account_key]);
        command.current_dir(folder);
        agrees(run(command).await, "JavaScript");
    }
    program.interrupt();
    let ended = program.ended().await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

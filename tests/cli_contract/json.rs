//! Fields and types of the JSON output.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use cosmos_rewind::{
    change::key::PartitionKey,
    config::{AccountSettings, Settings},
    cosmos::{Container, Cosmos},
    history::{
        CosmosReader,
        removals::{self, Hole},
    },
};
use serde_json::{Value, json};

use super::world::World;

/// The documented shapes, keyed by the text after `json` at the code fence: a command and the case that it shows.
pub(super) fn documented() -> BTreeMap<String, Value> {
    let text = std::fs::read_to_string("docs/reference/json-output.md").unwrap();
    let blocks = text.split("\n```json ").skip(1).map(|block| {
        let (name, rest) = block.split_once('\n').unwrap();
        let body = rest.split("\n```").next().unwrap();
        (
            name.to_owned(),
            serde_json::from_str(body).unwrap_or_else(|e| panic!("docs/reference/json-output.md, {name}: {e}")),
        )
    });
    blocks.collect()
}

/// Compares values with a shape and records which types occurred where, so that a shape that allows more than ever
/// occurs is noticed as well.
#[derive(Default)]
struct Met(BTreeMap<String, BTreeSet<&'static str>>);

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

impl Met {
    fn compare(&mut self, shape: &Value, value: &Value, place: &str) {
        self.0.entry(place.to_owned()).or_default().insert(kind(value));
        match (shape, value) {
            (Value::String(wanted), _) => {
                let plain = wanted.trim_end_matches('?');
                let fits = plain == "any" || plain == kind(value) || (wanted.ends_with('?') && value.is_null());
                assert!(fits, "{place}: documented as {wanted}, is {value}");
            }
            (Value::Array(shapes), Value::Array(values)) => {
                for value in values {
                    self.compare(&shapes[0], value, &format!("{place}[]"));
                }
            }
            (Value::Object(members), Value::Object(object)) => {
                let optional = |name: &str| name.ends_with('?');
                let names: Vec<&str> = members
                    .keys()
                    .filter(|name| !optional(name) || object.contains_key(name.trim_end_matches('?')))
                    .map(|name| name.trim_end_matches('?'))
                    .collect();
                let own: Vec<&str> = object.keys().map(String::as_str).collect();
                assert_eq!(own, names, "{place}: printed fields (left) and documented fields (right)");
                for (name, shape) in members {
                    let plain = name.trim_end_matches('?');
                    let place = format!("{place}.{plain}");
                    match object.get(plain) {
                        Some(value) => self.compare(shape, value, &place),
                        None => drop(self.0.entry(place).or_default().insert("missing")),
                    }
                }
            }
            // A missing list or object; the documentation says so in words.
            (Value::Array(_) | Value::Object(_), Value::Null) => {}
            _ => panic!("{place}: documented as {shape}, is {value}"),
        }
    }

    /// Asserts that everything documented has occurred: every list had an element, and every type and every `?` came
    /// up.
    fn everything(&self, shape: &Value, place: &str) {
        let Some(met) = self.0.get(place) else { panic!("{place} never came up") };
        match shape {
            Value::String(wanted) => {
                let plain = wanted.trim_end_matches('?');
                assert!(plain == "any" || met.contains(plain), "{place}: documented as {wanted}, was only {met:?}");
                let null = wanted.ends_with('?');
                assert!(!null || met.contains("null"), "{place}: documented as {wanted}, was never null");
            }
            Value::Array(shapes) => self.everything(&shapes[0], &format!("{place}[]")),
            Value::Object(members) => {
                for (name, shape) in members {
                    let place = format!("{place}.{}", name.trim_end_matches('?'));
                    self.everything(shape, &place);
                    let missing = self.0[&place].contains("missing");
                    assert_eq!(name.ends_with('?'), missing, "{place}: optional in the document or in the output only");
                }
            }
            _ => unreachable!("{shape}"),
        }
    }
}

#[tokio::test]
async fn the_json_output_has_exactly_the_documented_fields() {
    let world = World::start().await;
    let shapes = documented();
    let mut met: BTreeMap<String, Met> = BTreeMap::new();
    let mut compare = async |name: &str, codes: &[i32], args: &[&str]| {
        let shape = shapes.get(name).unwrap_or_else(|| panic!("docs/reference/json-output.md has no block for {name}"));
        let output = world.run(&[args, &["--format", "json"]].concat()).await;
        assert!(codes.contains(&output.code), "{args:?}: {output:?}");
        let value: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {args:?}: {output:?}"));
        met.entry(name.to_owned()).or_default().compare(shape, &value, name);
        value
    };
    let (good, file) = (world.minutes_ago(40), world.app.folder.path().join("b.jsonl"));
    let (later, file, other) = (world.minutes_ago(15), file.to_str().unwrap(), format!("{}.gz", file.display()));

    compare("provision", &[0], &["provision", "--changes", "more-changes"]).await;
    compare("provision", &[0], &["provision", "--source", "more-events", "--changes", "more-changes"]).await;
    compare("provision", &[0], &["provision"]).await;

    compare("history --id", &[0], &["history", "--id", "28036"]).await;
    compare("history --id", &[0], &["history", "--id", "hand"]).await;
    compare("history --changes-of", &[0], &["history", "--id", "28036", "--changes-of", "/city_name"]).await;
    compare("history --changes-of", &[0], &["history", "--id", "hand", "--changes-of", "/city_name"]).await;
    compare("history --where", &[0], &["history", "--where", "c.seq > 0", "--columns", "city_name"]).await;

    for city in ["Davidson", "Davidsen"] {
        let when = format!("doc.city_name == '{city}'");
        compare("find", &[0], &["find", "--when", &when, "--actor", "/note"]).await;
    }
    compare("find", &[0], &["find", "--containers", "events=changes", "--when", "doc.city_name == 'Davidson'"]).await;

    for id in ["28036", "28031", "28035", "hand"] {
        for at in [&good, &later, "now"] {
            compare("show", &[0, 1], &["show", "--id", id, "--at", at]).await;
        }
    }
    for (from, to) in [(&good, "now"), (&good, "live"), (&later, "now")] {
        compare("diff", &[0], &["diff", "--id", "28036", "--from", from, "--to", to]).await;
    }

    let list = world.app.folder.path().join("list.jsonl");
    std::fs::write(&list, "{\"id\":\"28036\",\"pk\":\"28036\",\"before\":\"28036~e1\"}\n").unwrap();
    let all = ["restore", "--all", "--delete-newer=9", "--at", &good];
    // The plan is documented in a block of its own.
    let planned = world.run(&[&all[..], &["--dry-run", "--format", "json"]].concat()).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(planned.as_object().unwrap().keys().collect::<Vec<_>>(), ["plan"]);
    let restored = compare("restore", &[3], &[&all[..], &["--yes"]].concat()).await;
    // A plan that is only shown has the same fields.
    let names = |plan: &Value| plan.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&planned["plan"]), names(&restored["plan"]));
    assert_eq!(names(&planned["plan"]["steps"][0]), names(&restored["plan"]["steps"][0]));
    world.app.put(json!({"id": "28031", "pk": "28031", "city_name": "Later"})).await;
    let id = restored["restore"].as_str().unwrap();
    compare("restore", &[3], &["undo", id, "--yes"]).await;
    // Nothing captures any more, so the history ends before this moment.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let now = Utc::now().timestamp().to_string();
    for id in ["28036", "28031", "hand"] {
        compare("show", &[0, 1], &["show", "--id", id, "--at", &now]).await;
    }
    compare("restore", &[3], &["restore", "--all", "--at", &now, "--yes"]).await;

    let alone = world.run(&["undo", id, "--dry-run", "--format", "json"]).await.json();
    assert_eq!(alone.as_object().unwrap().keys().collect::<Vec<_>>(), ["plan"]);
    let only = [
        "restore",
        "--where",
        "c.id LIKE '28036%'",
        "--at",
        &good,
        "--only",
        "/city_name",
        "--no-stamp",
        "--feed-range",
        "1/1",
    ];
    compare("restore", &[0], &[&only[..], &["--yes"]].concat()).await;
    compare("restore", &[0], &["restore", "--ids-file", list.to_str().unwrap(), "--yes"]).await;
    compare(
        "restore",
        &[3],
        &[&["restore", "--containers", "events=changes", "--all", "--at", &good][..], &["--yes"]].concat(),
    )
    .await;
    world.bad_writes().await;
    let window = ["revert", "--from", &world.minutes_ago(35), "--to", &world.minutes_ago(25)];
    let filtered = [&window[..], &["--where", "c.kind = 'reverted'", "--filter", "doc.by == 'job'"]].concat();
    compare("restore", &[3], &[&filtered[..], &["--yes"]].concat()).await;
    compare("restore", &[0], &[&window[..], &["--id", "r3", "--delete-created=1", "--yes"]].concat()).await;
    let mut fork = world.app.start_program(&["at", &world.minutes_ago(0), "--writable"]);
    let ready: Value = serde_json::from_str(&fork.line().await).unwrap();
    fork.line().await;
    let there = ready["endpoint"].as_str().unwrap();
    let body = json!({"id": "forked", "pk": "forked"}).to_string().into_bytes();
    let account = Settings::from_pairs([("CosmosDB__accountEndpoint", there)]);
    let copy = Cosmos::new(AccountSettings::from_settings(&account).unwrap()).container("dev", "events").await.unwrap();
    copy.upsert(&PartitionKey::parse("forked").unwrap(), "forked", body).await.unwrap();
    let (saved, folder) = ("forked.json", world.app.folder.path());
    let planned = world.run(&["diff", "--fork", there, "--plan-out", saved, "--format", "json"]).await.json();
    assert_eq!(planned.as_object().unwrap().keys().collect::<Vec<_>>(), ["plan", "fields"]);
    assert!(folder.join(saved).is_file());
    compare("restore", &[0], &["restore", "--plan", saved, "--yes"]).await;
    // A journal written by a newer or unrelated program.
    let foreign = json!({"kind": "plan", "writes": "many"});
    let outcomes = json!({"kind": "outcomes", "outcomes": [{"fate": "better"}]});
    for (name, entry) in [("plan", foreign), ("outcomes-1-0", outcomes)] {
        let (group, id) = ("restore~foreign", format!("restore~foreign~{name}"));
        let changes = world.app.changes().await;
        let key = cosmos_rewind::history::layout::key_of_other(changes.key_paths(), group, &id);
        let item = json!({"id": id, "_originalId": group, "_restore": entry}).to_string();
        changes.upsert(&key, &id, item.into_bytes()).await.unwrap();
    }
    compare("undo --list", &[0], &["undo", "--list"]).await;

    compare("backup", &[0], &["backup", "--all", "--out", file]).await;
    compare("backup", &[3], &["backup", "--all", "--at", &good, "--out", &other]).await;
    compare("load", &[0], &["load", file]).await;
    compare("verify", &[3], &["verify", "--deep", "5", "--grace", "0s"]).await;
    compare("backfill", &[0], &["backfill", "--all"]).await;
    compare("coverage", &[0], &["coverage"]).await;
    let empty = ["--source", "more-events", "--changes", "more-changes", "--leases", "nowhere"];
    compare("status", &[0], &[&["status", "--dead-letters", file][..], &empty].concat()).await;
    for lease in [
        json!({"id": "a..0", "LeaseToken": "0"}),
        json!({"id": "a..1", "LeaseToken": "1", "Owner": "me", "timestamp": "2026-11-20T15:00:00Z"}),
        // A lease that never advances from the beginning of the feed.
        json!({"id": format!("a127.0.0.1_{}..2", world.app.events().await.rid()), "LeaseToken": "2", "Mode": "Full-Fidelity Feed",
            "ContinuationToken": "\"0\"", "FeedRange": {"Range": {"min": "", "max": "FF"}}, "Owner": "me",
            "timestamp": "2026-11-20T15:00:00Z"}),
    ] {
        let (id, leases) = (lease["id"].as_str().unwrap(), world.app.cosmos.container("dev", "leases").await.unwrap());
        leases.upsert(&PartitionKey::parse(id).unwrap(), id, lease.to_string().into_bytes()).await.unwrap();
    }
    let followed = ["follow", "--until-caught-up", "--from", "beginning", "--sink", "file:archive/events.jsonl"];
    std::fs::create_dir(world.app.folder.path().join("archive")).unwrap();
    assert_eq!(world.app.run(&followed).await.code, 0);
    let archived = ["restore", "--from-archive", "archive", "--all", "--at", "now", "--into", "more-events", "--yes"];
    compare("restore", &[0, 3], &archived).await;
    let leases = world.app.cosmos.container("dev", "leases").await.unwrap();
    leases.delete(&PartitionKey::parse("follow.reader").unwrap(), "follow.reader", None).await.unwrap();
    let history = CosmosReader::new(world.app.changes().await, Container::key_paths(&world.app.events().await));
    let holes = vec![Hole { after: None, before: 7 }, Hole { after: Some(1000), before: 2000 }];
    removals::note_holes(&history, holes).await.unwrap();
    compare("status", &[0, 3], &["status", "--count", "--stalled-after", "0s"]).await;
    compare("erase", &[0], &["erase", "--id", "28036", "--pk", "28036", "--yes"]).await;
    compare("prune", &[0], &["prune", "--older-than", "1h", "--dry-run"]).await;
    compare("query", &[0], &["query", "SELECT * FROM c"]).await;
    compare("query --count", &[0], &["query", "--count", "SELECT * FROM c"]).await;
    compare("populate", &[0], &["populate", "--count", "3", "--seed", "1"]).await;
    compare("doctor", &[3], &["doctor"]).await;
    std::fs::write(world.app.folder.path().join("host.json"), "{}").unwrap();
    let orders = ["--name", "CaptureOrders", "--source", "orders", "--changes", "orders-changes"];
    compare("new-function", &[0], &[&["new-function"][..], &orders].concat()).await;
    compare("cost", &[0], &["cost", "--docs-per-day", "1000"]).await;
    compare("cost", &[0], &["cost", "--docs-per-day", "1000", "--price-ru", "1", "--price-gb", "1"]).await;
    compare("truncate", &[0], &["truncate", "source", "--yes"]).await;
    // Deleted without being captured.
    compare("show", &[0, 1], &["show", "--id", "28031", "--at", &now]).await;

    for (name, shape) in &shapes {
        met.get(name).unwrap_or_else(|| panic!("{name} is documented and was not tried")).everything(shape, name);
    }
}

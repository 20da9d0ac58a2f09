//! What scripts may rely on: members and types of the JSON output, exit codes, and what people see.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use chrono::Utc;
use cosmos_rewind::change::key::PartitionKey;
use serde_json::{Value, json};

use crate::support::{Output, TestApp};

/// The documented shapes, by what stands behind `json` at the fence: a command and what makes it print that.
fn documented() -> BTreeMap<String, Value> {
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

/// Compares values with a shape, and remembers which types have been met where, so that a shape that allows more than
/// ever happens is noticed as well.
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
                assert_eq!(own, names, "{place}: members printed (left) and documented (right)");
                for (name, shape) in members {
                    let plain = name.trim_end_matches('?');
                    let place = format!("{place}.{plain}");
                    match object.get(plain) {
                        Some(value) => self.compare(shape, value, &place),
                        None => drop(self.0.entry(place).or_default().insert("missing")),
                    }
                }
            }
            // Said in words: a list or an object that is not there at all.
            (Value::Array(_) | Value::Object(_), Value::Null) => {}
            _ => panic!("{place}: documented as {shape}, is {value}"),
        }
    }

    /// Everything that is documented has happened: each list had an element, each type and each `?` came up.
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
                    assert_eq!(name.ends_with('?'), missing, "{place}: whether it may be missing");
                }
            }
            _ => unreachable!("{shape}"),
        }
    }
}

/// An account with a little of everything: a document that lived, one from a hand-made payload, one without history.
struct World {
    app: TestApp,
    now: i64,
}

impl World {
    async fn start() -> Self {
        let world = Self { app: TestApp::start().await, now: Utc::now().timestamp() };
        let document = |id: &str, city: &str| json!({"id": id, "pk": id, "city_name": city, "seq": 1});
        let mut more = document("28036", "Davidson");
        more["note"] = "gone later".into();
        world.record(&more, "create", 60, 1, "\"e1\"").await;
        let mut replaced = document("28036", "Davidsen");
        replaced["zone"] = json!(null);
        world.record(&replaced, "replace", 30, 2, "\"e2\"").await;
        world.record(&json!({"id": "28036", "pk": "28036"}), "delete", 20, 3, "").await;
        let stored = world.app.put(document("28036", "Ruined")).await;
        world.record(&document("28036", "Ruined"), "create", 10, 4, stored["_etag"].as_str().unwrap()).await;

        world.record(&document("28031", "Cornelius"), "create", 60, 5, "\"e5\"").await;
        world.record(&json!({"id": "28031", "pk": "28031"}), "delete", 10, 6, "").await;
        world.record(&document("28035", "Davidson"), "create", 10, 7, "\"e7\"").await;
        world.app.put(document("28035", "Davidson")).await;
        // Without time and LSN: what stands in is marked, and neither entrance nor fidelity is known.
        let timeless = json!({"id": "hand~made", "pk": "hand", "_originalId": "hand", "city_name": "Davidson",
            "_change": {"v": 1, "op": "upsert", "ts": world.now - 3600, "tsFrom": "capture"}});
        world.write("hand", "hand~made", &timeless).await;
        world.app.put(json!({"id": "stranger", "pk": "stranger", "seq": 9})).await;
        world.app.captured_from_now().await;
        world
    }

    async fn write(&self, id: &str, record_id: &str, record: &Value) {
        let key = PartitionKey::parse(&json!([record["pk"], id]).to_string()).unwrap();
        self.app.changes().await.upsert(&key, record_id, record.to_string().into_bytes()).await.unwrap();
    }

    async fn record(&self, document: &Value, op: &str, minutes: i64, lsn: i64, etag: &str) {
        let id = document["id"].as_str().unwrap();
        let mut record = document.clone();
        let mut change = json!({"v": 1, "op": op, "ts": self.now - minutes * 60, "lsn": lsn});
        let record_id = match op {
            "delete" => format!("{id}~del-{lsn}"),
            _ => {
                change["etag"] = etag.into();
                format!("{id}~{}", etag.trim_matches('"'))
            }
        };
        change["via"] = "trigger".into();
        change["fidelity"] = "exact".into();
        change["at"] = "2026-11-20T15:00:00.123Z".into();
        record["id"] = record_id.as_str().into();
        record["_originalId"] = id.into();
        record["_change"] = change;
        self.write(id, &record_id, &record).await;
    }

    fn minutes_ago(&self, minutes: i64) -> String {
        (self.now - minutes * 60).to_string()
    }

    async fn run(&self, args: &[&str]) -> Output {
        self.app.run(args).await
    }
}

#[tokio::test]
async fn the_json_output_has_exactly_the_members_that_are_documented() {
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

    for id in ["28036", "28031", "28035", "hand"] {
        for at in [&good, &later, "now"] {
            compare("show", &[0, 1], &["show", "--id", id, "--at", at]).await;
        }
    }
    for (from, to) in [(&good, "now"), (&good, "live"), (&later, "now")] {
        compare("diff", &[0], &["diff", "--id", "28036", "--from", from, "--to", to]).await;
    }

    let all = ["restore", "--all", "--delete-newer=9", "--at", &good];
    // Its own block names what is alone in it.
    let planned = world.run(&[&all[..], &["--dry-run", "--format", "json"]].concat()).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    let planned: Value = serde_json::from_str(&planned.stdout).unwrap();
    assert_eq!(planned.as_object().unwrap().keys().collect::<Vec<_>>(), ["plan"]);
    let restored = compare("restore", &[3], &[&all[..], &["--yes"]].concat()).await;
    // The same members in the plan that is only shown.
    let names = |plan: &Value| plan.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&planned["plan"]), names(&restored["plan"]));
    assert_eq!(names(&planned["plan"]["steps"][0]), names(&restored["plan"]["steps"][0]));
    world.app.put(json!({"id": "28031", "pk": "28031", "city_name": "Later"})).await;
    let id = restored["restore"].as_str().unwrap();
    compare("restore", &[3], &["undo", id, "--yes"]).await;
    // Nobody captures any more: the history ends before this moment.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let now = Utc::now().timestamp().to_string();
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
    // A journal of a newer program, or of somebody else.
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
        // One that stands still at the beginning of the feed.
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
    // Gone, and nobody captured that.
    compare("show", &[0, 1], &["show", "--id", "28031", "--at", &now]).await;

    for (name, shape) in &shapes {
        met.get(name).unwrap_or_else(|| panic!("{name} is documented and was not tried")).everything(shape, name);
    }
}

#[tokio::test]
async fn exit_codes_mean_what_is_documented() {
    let text = std::fs::read_to_string("docs/reference/exit-codes.md").unwrap();
    let table = text.split("| exit code | meaning |\n|---|---|\n").nth(1).unwrap();
    let documented: BTreeSet<i32> =
        table.lines().map_while(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    let world = World::start().await;
    let good = world.minutes_ago(40);
    let mut seen = BTreeSet::new();
    for (code, args) in [
        (0, vec!["history", "--id", "28036"]),
        (0, vec!["restore", "--id", "28036", "--at", &good, "--dry-run"]),
        (3, vec!["restore", "--all", "--at", &good, "--dry-run"]),
        (1, vec!["show", "--id", "nobody"]),
        (1, vec!["history", "--id", "28036", "--database", "none"]),
        (2, vec!["restore", "--all"]),
        (2, vec!["restore", "--all", "--at", "noon"]),
        (2, vec!["nonsense"]),
        (2, vec!["restore", "--all", "--at", &good]),
        (3, vec!["restore", "--all", "--at", &good, "--yes"]),
        (3, vec!["restore", "--id", "28036", "--at", "2020-01-01T00:00:00Z", "--pk", "nobody", "--yes"]),
    ] {
        let output = world.run(&args).await;
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        // What went wrong is on stderr, and a wrong command line says what to write instead.
        assert!(code == 0 || !output.stderr.is_empty(), "{args:?}: {output:?}");
        assert!(code != 2 || output.stdout.is_empty() || output.stderr.contains("--yes"), "{args:?}: {output:?}");
        seen.insert(code);
    }
    let mut handler = world.app.handler(&[]).await;
    handler.terminate();
    seen.extend(handler.exit_code(std::time::Duration::from_secs(60)).await);
    assert_eq!(seen, documented);
}

/// Code, stdout and stderr, without what differs from run to run: times, ids of restores, request units, seconds.
fn shown(world: &World, output: &Output) -> String {
    let mut text = format!("exit {}\n", output.code);
    // The order of documents is no promise: rows of a plan are sorted, below the heads of their tables.
    let mut lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
    let is_head = |line: &str| line.starts_with("action ") || line.starts_with("outcome ");
    if lines.first().is_some_and(|line| is_head(line)) {
        lines.split_mut(|line| is_head(line)).for_each(<[&str]>::sort_unstable);
    }
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    for line in output.stderr.lines() {
        let _ = writeln!(text, "! {line}");
    }
    let mut text = redacted(&text, "were expected", |c| c.is_ascii_digit() || c == '.');
    text = redacted(&text, "RU", |c| c.is_ascii_digit() || c == '.');
    text = redacted(&text, " s\n", |c| c.is_ascii_digit() || c == '.');
    for minutes in [60, 40, 30, 20, 15, 10] {
        let time = chrono::DateTime::from_timestamp(world.now - minutes * 60, 0).unwrap();
        text = text.replace(&time.format("%Y-%m-%dT%H:%M:%SZ").to_string(), &format!("<{minutes} minutes ago>"));
    }
    match text.split_once("the live document, written at ") {
        Some((before, after)) => format!("{before}the live document, written at <now>{}", &after[20..]),
        None => text,
    }
}

/// Replaces the number before each `unit`.
fn redacted(text: &str, unit: &str, is_number: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(unit).map(str::to_owned).collect::<Vec<_>>();
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        let trimmed = part.trim_end_matches(' ');
        let kept = trimmed.trim_end_matches(&is_number);
        if kept.len() < trimmed.len() {
            *part = format!("{kept}<n>{}", &part[trimmed.len()..]);
        }
    }
    parts.join(unit)
}

/// The id of a restore, replaced: it is made of the time and chance.
fn without_id(text: &str) -> String {
    let Some(start) = text.find("cosmos-rewind undo ") else { return text.to_owned() };
    let id: String = text[start + 19..].chars().take_while(|c| !c.is_whitespace()).collect();
    text.replace(&id, "<id>")
}

#[tokio::test]
async fn people_see_the_plan_the_conflicts_the_history_and_the_differences() {
    let world = World::start().await;
    let good = world.minutes_ago(40);
    let see = async |args: &[&str]| without_id(&shown(&world, &world.run(args).await));

    insta::assert_snapshot!(see(&["history", "--id", "28036"]).await, @r#"
    exit 0
    time                  op       lsn  size  changed                  fidelity
    <60 minutes ago>  create   1    78                             exact
    <30 minutes ago>  replace  2    70    city_name, +zone, -note  exact
    <20 minutes ago>  delete   3                                   exact
    <10 minutes ago>  create   4    56                             exact
    ! 4 versions, <n> RU, <n> s
    "#);
    insta::assert_snapshot!(see(&["diff", "--id", "28036", "--from", &good, "--to", "live"]).await, @r#"
    exit 0
    ~ /city_name  "Davidson" -> "Ruined"
    - /note       "gone later"
    ! from: version of <60 minutes ago> (create, via trigger, exact), 20m before <40 minutes ago>
    ! to: the live document, written at <now>
    ! 2 differences, <n> RU, <n> s
    "#);
    let all = ["restore", "--all", "--delete-newer=9", "--at", &good];
    insta::assert_snapshot!(see(&[&all[..], &["--dry-run"]].concat()).await, @r#"
    exit 3
    action    id        pk        version                                   changed                          notes
    delete    28035     28035
    recreate  28031     28031     <60 minutes ago> create, via trigger                                   20m before the point in time
    recreate  hand      hand      <60 minutes ago> upsert                                                20m before the point in time; captured in latest-version mode: versions between this one and the next, and deletes, may be missing; the change came without a time: that of its capture stands in
    restore   28036     28036     <60 minutes ago> create, via trigger  /city_name, /note, /restored_at  20m before the point in time
    unknown   stranger  stranger                                                                             no version in the history
    ! plan       events to <40 minutes ago>: 1 restore, 2 recreate, 1 delete, 0 keep, 1 unknown; about <n> RU
    ! planned, nothing written, <n> RU, <n> s
    "#);

    let plan = world.app.folder.path().join("plan");
    let plan = plan.to_str().unwrap();
    let saved = world.run(&[&all[..], &["--dry-run", "--plan-out", plan]].concat()).await;
    assert_eq!(saved.code, 3, "{saved:?}");
    world.app.put(json!({"id": "28036", "pk": "28036", "city_name": "Moved on"})).await;
    world.app.put(json!({"id": "28031", "pk": "28031", "city_name": "Made again"})).await;
    insta::assert_snapshot!(see(&["restore", "--plan", plan, "--yes"]).await, @r#"
    exit 3
    action    id        pk        version                                   changed                          notes
    delete    28035     28035
    recreate  28031     28031     <60 minutes ago> create, via trigger                                   20m before the point in time
    recreate  hand      hand      <60 minutes ago> upsert                                                20m before the point in time; captured in latest-version mode: versions between this one and the next, and deletes, may be missing; the change came without a time: that of its capture stands in
    restore   28036     28036     <60 minutes ago> create, via trigger  /city_name, /note, /restored_at  20m before the point in time
    unknown   stranger  stranger                                                                             no version in the history
    outcome   id     pk         action    message
    conflict  28031  ["28031"]  recreate  was created since the plan was made
    conflict  28036  ["28036"]  restore   was changed since the plan was made
    ! plan       events to <40 minutes ago>: 1 restore, 2 recreate, 1 delete, 0 keep, 1 unknown; about <n> RU
    ! applied    <n> RU, <n> were expected
    ! 2 written, 0 already so, 2 conflicts, 0 failed, 0 not begun, 1 unknown, <n> RU, <n> s
    ! undo       cosmos-rewind undo <id>   (journal .cosmos-rewind/<id>.jsonl)
    "#);
    insta::assert_snapshot!(see(&["restore", "--id", "28035", "--at", &good, "--yes"]).await, @r#"
    exit 0
    action  id     pk     version  changed  notes
    keep    28035  28035
    ! plan       events to <40 minutes ago>: 0 restore, 0 recreate, 0 delete, 1 keep, 0 unknown; about <n> RU
    ! nothing to write, <n> RU, <n> s
    "#);
}

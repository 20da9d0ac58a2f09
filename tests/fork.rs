//! A repair is tried in a fork and brought into the live container: the real program, with plain HTTP for all other
//! reads and writes.

use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::{
    rewind_faults::kills::{before_or_after, killed_at},
    rewind_revert::Life,
    support::{Output, Running},
};

/// An account over plain HTTP, which accepts any key.
pub struct Plain {
    http: Client,
    endpoint: String,
}

impl Plain {
    pub fn new(endpoint: &str) -> Self {
        Self {
            http: Client::builder().no_proxy().build().unwrap(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
        }
    }

    pub async fn ask(&self, method: Method, path: &str, id: &str, body: Option<&Value>) -> (u16, Value) {
        let mut ask = self.http.request(method, format!("{}/dbs/dev/colls/{path}", self.endpoint));
        ask = ask.header("x-ms-version", "2018-12-31").header("x-ms-date", "Thu, 01 Jan 2026 00:00:00 GMT");
        ask = ask.header("authorization", "type%3dmaster%26ver%3d1.0%26sig%3dnone");
        ask = ask.header("x-ms-documentdb-partitionkey", json!([id]).to_string());
        if let Some(body) = body {
            ask = ask.header("content-type", "application/json").body(body.to_string());
        }
        let answer = ask.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    pub async fn get(&self, id: &str) -> Option<Value> {
        let (status, mut document) = self.ask(Method::GET, &format!("events/docs/{id}"), id, None).await;
        assert!([200, 404].contains(&status), "{status} {document}");
        for name in ["id", "pk", "_rid", "_self", "_etag", "_attachments", "_ts"] {
            document.as_object_mut().unwrap().remove(name);
        }
        (status == 200).then_some(document)
    }

    /// Changes some fields as an application does: read and replace.
    pub async fn edit(&self, id: &str, fields: Value) {
        let mut document = self.get(id).await.unwrap();
        let own = json!({"id": id, "pk": id});
        for (name, value) in own.as_object().unwrap().iter().chain(fields.as_object().unwrap()) {
            document[name] = value.clone();
        }
        let (status, answer) = self.ask(Method::PUT, &format!("events/docs/{id}"), id, Some(&document)).await;
        assert_eq!(status, 200, "{answer}");
    }

    async fn create(&self, id: &str, mut document: Value) {
        (document["id"], document["pk"]) = (id.into(), id.into());
        let (status, answer) = self.ask(Method::POST, "events/docs", id, Some(&document)).await;
        assert_eq!(status, 201, "{answer}");
    }

    async fn delete(&self, id: &str) {
        let (status, answer) = self.ask(Method::DELETE, &format!("events/docs/{id}"), id, None).await;
        assert_eq!(status, 204, "{answer}");
    }

    /// The list of changed documents by name.
    async fn changed(&self) -> Vec<(String, Value)> {
        let (status, answer) = self.ask(Method::GET, "_changed/docs", "events", None).await;
        assert_eq!(status, 200, "{answer}");
        let listed = answer["Documents"].as_array().unwrap().iter();
        let mut listed: Vec<_> =
            listed.map(|one| (one["documentId"].as_str().unwrap().to_owned(), one["before"].clone())).collect();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        listed
    }
}

/// A shop whose prices a job ruined, a fork of a moment after that, and both over plain HTTP.
struct Shop {
    life: Life,
    program: Option<Running>,
    live: Plain,
    fork: Plain,
}

impl Shop {
    async fn start(more: &[&str]) -> Self {
        Self::started(more, false).await
    }

    /// Starts a fork that reaches the account directly or through the proxy.
    async fn started(more: &[&str], through_proxy: bool) -> Self {
        let mut life = Life::start().await;
        let (early, bad) = (life.now - 3600, life.now - 1500);
        for id in ["desk", "lamp", "sofa", "rug", "gone", "quiet"] {
            life.write_at(early, id, Some(json!({"price": 9.5, "city": "Davidson", "stock": {"n": 1}}))).await;
            life.write_at(bad, id, Some(json!({"price": -1, "city": "Davidson", "stock": {"n": 1}}))).await;
        }
        life.app.captured_from_now().await;
        let at = (life.now - 600).to_string();
        let args = [&["at", &at, "--writable"], more].concat();
        let app = &life.app;
        let mut program = if through_proxy { app.start_through_proxy(&args) } else { app.start_program(&args) };
        let ready: Value = serde_json::from_str(&program.line().await).unwrap();
        assert_eq!((&ready["writable"], &ready["changed"]), (&json!(true), &json!("_changed")), "{ready}");
        let loaded: Value = serde_json::from_str(&program.line().await).unwrap();
        assert_eq!(loaded["documents"], 6, "{loaded}");
        let (live, fork) =
            (Plain::new(life.app.local.endpoint().as_str()), Plain::new(ready["endpoint"].as_str().unwrap()));
        Self { life, program: Some(program), live, fork }
    }

    async fn diff(&self, more: &[&str]) -> Output {
        let endpoint = format!("{}/", self.fork.endpoint);
        self.life.app.run(&[&["diff", "--fork", &endpoint][..], more].concat()).await
    }

    /// Stops the fork; a saved plan does not need it.
    async fn end(&mut self) {
        let program = self.program.take().unwrap();
        program.interrupt();
        assert_eq!(program.ended().await.code, 0);
    }

    async fn all(&self) -> Vec<Option<Value>> {
        let mut all = Vec::new();
        for id in ["desk", "lamp", "sofa", "rug", "gone", "quiet", "new"] {
            all.push(self.live.get(id).await);
        }
        all
    }
}

/// The actions of a plan by id.
fn actions(output: &Output) -> Vec<(String, String)> {
    let shown: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    shown["plan"]["steps"].as_array().unwrap().iter().map(|step| (text(&step["id"]), text(&step["action"]))).collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn a_repair_tried_in_a_fork_is_merged_next_to_honest_edits() {
    let mut shop = Shop::start(&[]).await;
    assert_eq!(shop.fork.changed().await, []);
    // The repair in the fork: prices, one document less, one more. A document that is written without a change does not
    // count.
    for id in ["desk", "lamp", "rug"] {
        shop.fork.edit(id, json!({"price": 9.5})).await;
    }
    shop.fork.edit("sofa", json!({"price": 9.5})).await;
    shop.fork.edit("sofa", json!({"price": -1})).await;
    shop.fork.delete("gone").await;
    shop.fork.create("new", json!({"price": 3})).await;
    // Meanwhile live documents change: another field of a repaired document, and a document that is unchanged in the
    // fork.
    shop.live.edit("lamp", json!({"city": "Cornelius"})).await;
    shop.live.edit("quiet", json!({"price": 77})).await;

    let changed = shop.fork.changed().await;
    let ids: Vec<&str> = changed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["desk", "gone", "lamp", "new", "rug", "sofa"]);
    assert_eq!((&changed[2].1["price"], &changed[3].1), (&json!(-1), &Value::Null));
    let list = json!({"id": "x", "container": "events"});
    assert_eq!(shop.fork.ask(Method::POST, "_changed/docs", "events", Some(&list)).await.0, 403);

    let before = shop.all().await;
    let planned = shop.diff(&["--plan-out", "plan.json", "--delete-removed=1", "--format", "json"]).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let expected =
        [("desk", "restore"), ("gone", "delete"), ("lamp", "restore"), ("new", "recreate"), ("rug", "restore")];
    assert_eq!(actions(&planned), pairs(&expected));
    assert_eq!(shop.all().await, before, "a diff writes nothing");
    let file = std::fs::read_to_string(shop.life.app.folder.path().join("plan.json")).unwrap();
    assert!(!file.contains("quiet") && !file.contains("sofa"), "{file}");
    shop.end().await;

    // A write between plan and use must not be lost.
    shop.live.edit("rug", json!({"city": "Denver"})).await;
    let more = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes", "--max", "4"]).await;
    assert_eq!((more.code, more.stderr.contains("5 documents would be written")), (2, true), "{more:?}");
    let done = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
    assert_eq!(done.code, 3, "{done:?}");
    assert!(done.stderr.contains("4 written, 0 already up to date, 1 conflicts"), "{done:?}");
    let document = |price: Value, city: &str| Some(json!({"price": price, "city": city, "stock": {"n": 1}}));
    let repaired = [
        document(json!(9.5), "Davidson"),
        document(json!(9.5), "Cornelius"),
        document(json!(-1), "Davidson"),
        document(json!(-1), "Denver"),
        None,
        document(json!(77), "Davidson"),
        Some(json!({"price": 3})),
    ];
    assert_eq!(shop.all().await, repaired);
    // The journal contains no values; the plan's values are only in its file.
    let journals = shop.life.app.folder.path().join(".cosmos-rewind");
    for entry in std::fs::read_dir(journals).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("9.5") && !text.contains("Davidson"), "{text}");
    }

    let run = done.stderr.lines().find(|line| line.starts_with("undo  ")).unwrap();
    let run = run.split_whitespace().nth(3).unwrap().to_owned();
    let undone = shop.life.app.run(&["undo", &run, "--yes"]).await;
    assert_eq!(undone.code, 0, "{undone:?}");
    let mut then = before;
    then[3] = document(json!(-1), "Denver");
    assert_eq!(shop.all().await, then);
    // A plan can be used again.
    let again = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
    assert_eq!(again.code, 3, "{again:?}");
}

#[tokio::test]
async fn a_bookkeeping_field_is_not_a_conflict() {
    let shop = Shop::start(&[]).await;
    shop.fork.edit("desk", json!({"price": 9.5, "by": "ann"})).await;
    shop.fork.edit("rug", json!({"price": 9.5, "by": "ann"})).await;
    shop.live.edit("desk", json!({"city": "Oslo", "by": "bob"})).await;
    let plain = shop.diff(&["--format", "json"]).await;
    assert_eq!(plain.code, 3, "{plain:?}");
    assert_eq!(serde_json::from_str::<Value>(&plain.stdout).unwrap()["plan"]["steps"][0]["conflicts"], json!(["/by"]));
    let planned = shop.diff(&["--bookkeeping", "/by", "--plan-out", "plan.json"]).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let done = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let document = |city: &str, by: &str| json!({"price": 9.5, "city": city, "stock": {"n": 1}, "by": by});
    assert_eq!(shop.live.get("desk").await, Some(document("Oslo", "bob")));
    assert_eq!(shop.live.get("rug").await, Some(document("Davidson", "ann")));
    let wrong = shop.diff(&["--bookkeeping", "by"]).await;
    assert_eq!((wrong.code, wrong.stderr.contains("--bookkeeping")), (2, true), "{wrong:?}");
}

#[tokio::test]
async fn a_field_changed_on_both_sides_is_a_conflict_and_deletes_need_approval() {
    let mut shop = Shop::start(&[]).await;
    shop.fork.edit("desk", json!({"price": 9.5, "city": "Oslo"})).await;
    shop.fork.delete("gone").await;
    shop.fork.edit("rug", json!({"price": 9.5})).await;
    shop.fork.delete("lamp").await;
    shop.live.edit("desk", json!({"price": 8})).await;
    shop.live.edit("lamp", json!({"price": 8})).await;
    shop.live.delete("rug").await;

    let planned = shop.diff(&["--format", "json"]).await;
    assert_eq!(planned.code, 3, "{planned:?}");
    let kept = [("desk", "restore"), ("gone", "keep"), ("lamp", "keep"), ("rug", "keep")];
    assert_eq!(actions(&planned), pairs(&kept));
    let shown: Value = serde_json::from_str(&planned.stdout).unwrap();
    // The history is not needed: the fork has the earlier state, and live documents are read directly.
    assert_eq!((shown["plan"].get("frontier"), shown["plan"].get("beyond")), (None, None), "{shown}");
    let field = |id: &str, path: &str| {
        let fields = shown["fields"].as_array().unwrap();
        let found = fields.iter().find(|f| f["id"] == id && f["path"] == path);
        found.unwrap_or_else(|| panic!("{id} {path}: {fields:#?}")).clone()
    };
    let desk = field("desk", "/price");
    assert_eq!(
        [&desk["fate"], &desk["base"], &desk["theirs"], &desk["ours"]],
        [&json!("conflict"), &json!(-1), &json!(9.5), &json!(8)]
    );
    assert_eq!(field("desk", "/city")["fate"], "fork");
    assert_eq!((&field("rug", "/")["fate"], &field("lamp", "/")["fate"]), (&json!("conflict"), &json!("conflict")));
    let table = shop.diff(&[]).await;
    for words in ["--delete-removed deletes it", "then", "fork", "--prefer fork takes the fork's", "nothing written"] {
        assert!(format!("{}{}", table.stdout, table.stderr).contains(words), "{words}: {table:?}");
    }

    // Only these fields, whatever else was changed in the fork.
    let city = shop.diff(&["--only", "/city", "--delete-removed", "--prefer", "fork", "--format", "json"]).await;
    assert_eq!(city.code, 0, "{city:?}");
    assert_eq!(actions(&city), pairs(&[("desk", "restore"), ("gone", "keep"), ("lamp", "keep")]));
    let shown: Value = serde_json::from_str(&city.stdout).unwrap();
    let fields: Vec<_> = shown["fields"].as_array().unwrap().iter().map(|f| [&f["id"], &f["path"]]).collect();
    assert_eq!(fields, [[&json!("desk"), &json!("/city")]]);
    assert!(city.stdout.contains("/ was changed as a whole; --only leaves it alone"), "{city:?}");
    for (field, words) in [("/pk", "key"), ("city", "--only")] {
        let refused = shop.diff(&["--only", field]).await;
        assert_eq!((refused.code, refused.stderr.contains(words)), (2, true), "{field}: {refused:?}");
    }

    let wish = ["--delete-removed", "--prefer", "fork", "--plan-out", "plan.json", "--format", "json"];
    let planned = shop.diff(&wish).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let all = [("desk", "restore"), ("gone", "delete"), ("lamp", "delete"), ("rug", "recreate")];
    assert_eq!(actions(&planned), pairs(&all));
    shop.end().await;
    let before = shop.all().await;
    // The number of deletes was not approved.
    let refused = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
    assert_eq!((refused.code, refused.stderr.contains("2 documents would be deleted")), (2, true), "{refused:?}");
    assert_eq!(shop.all().await, before);
    let done = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes", "--max-deletes", "2"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(shop.live.get("desk").await.unwrap(), json!({"price": 9.5, "city": "Oslo", "stock": {"n": 1}}));
    assert_eq!(shop.live.get("rug").await.unwrap(), json!({"price": 9.5, "city": "Davidson", "stock": {"n": 1}}));
    assert_eq!((shop.live.get("gone").await, shop.live.get("lamp").await), (None, None));
}

#[tokio::test]
async fn an_edited_or_unrelated_plan_of_a_fork_is_refused() {
    let shop = Shop::start(&["--mask", "/city=hash"]).await;
    shop.fork.edit("desk", json!({"price": 9.5})).await;
    let masked = shop.diff(&["--prefer", "fork"]).await;
    assert_eq!((masked.code, masked.stderr.contains("masked")), (2, true), "{masked:?}");
    // Masked fields stay unchanged.
    let planned = shop.diff(&["--plan-out", "plan.json"]).await;
    assert_eq!(planned.code, 0, "{planned:?}");
    let path = shop.life.app.folder.path().join("plan.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let without =
        |at: usize| lines.iter().enumerate().filter(|(n, _)| *n != at).map(|(_, l)| format!("{l}\n")).collect();
    let (last, texts): (usize, String) = (lines.len() - 1, lines[..lines.len() - 2].join("\n"));
    for (damaged, words) in [
        (text.replace("9.5", "1.5"), "edited or damaged"),
        (without(last), "texts of its documents are missing"),
        (without(last - 1), "edited or damaged"),
        (texts, "texts of its documents are missing"),
        (format!("{text}{text}"), "incomplete"),
    ] {
        std::fs::write(&path, &damaged).unwrap();
        let refused = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
        assert_eq!((refused.code, refused.stderr.contains(words)), (2, true), "{words}: {refused:?}");
    }
    std::fs::write(&path, &text).unwrap();
    let done = shop.life.app.run(&["restore", "--plan", "plan.json", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(shop.live.get("desk").await.unwrap(), json!({"price": 9.5, "city": "Davidson", "stock": {"n": 1}}));
    // Not a fork: the account itself, one on another machine, and one of another account.
    let own = shop.life.app.run(&["diff", "--fork", &format!("{}/", shop.live.endpoint)]).await;
    assert_eq!((own.code, own.stderr.contains("at --writable")), (2, true), "{own:?}");
    let far = shop.life.app.run(&["diff", "--fork", "https://example.documents.azure.com/"]).await;
    assert_eq!((far.code, far.stderr.contains("another machine")), (2, true), "{far:?}");
    let through = ["diff", "--fork", &shop.fork.endpoint];
    let other = shop.life.app.run_through_proxy(&through).await;
    assert_eq!((other.code, other.stderr.contains("the fork is of")), (2, true), "{other:?}");
}

/// A restore of a fork's plan that is killed at any write is undone as far as it got, although no journal contains the
/// fork's texts.
#[tokio::test]
async fn a_killed_restore_of_a_forks_plan_is_undone() {
    let shop = Shop::started(&[], true).await;
    for id in ["desk", "rug"] {
        shop.fork.edit(id, json!({"price": 9.5})).await;
    }
    shop.fork.create("new", json!({"price": 3})).await;
    let app = &shop.life.app;
    let before = shop.all().await;
    let (mut seen, mut written, mut ended) = (Vec::new(), 0, false);
    for kills in 0..40 {
        let file = format!("plan-{kills}.json");
        let endpoint = format!("{}/", shop.fork.endpoint);
        let planned = app.run_through_proxy(&["diff", "--fork", &endpoint, "--plan-out", &file]).await;
        assert_eq!(planned.code, 0, "{planned:?}");
        let apply = ["restore", "--plan", &file, "--yes", "--concurrency", "1"];
        ended = !killed_at(app, &apply, kills, before_or_after(kills)).await;
        let now = shop.all().await;
        let changed = now.iter().zip(&before).filter(|(now, before)| now != before).count();
        written += usize::from(!ended && changed > 0);
        let list: Value = app.run(&["undo", "--list", "--format", "json"]).await.json();
        let ids = list.as_array().unwrap().iter().map(|restore| restore["restore"].as_str().unwrap().to_owned());
        let new: Vec<String> = ids.filter(|id| !seen.contains(id)).collect();
        assert!(changed == 0 || new.len() == 1, "killed at write {kills}: {new:?}");
        if let [id] = new.as_slice() {
            let undone = app.run(&["undo", id, "--yes"]).await;
            assert_eq!(undone.code, 0, "killed at write {kills}: {undone:?}");
            let list: Value = app.run(&["undo", "--list", "--format", "json"]).await.json();
            seen = list.as_array().unwrap().iter().map(|r| r["restore"].as_str().unwrap().to_owned()).collect();
        }
        assert_eq!(shop.all().await, before, "killed at write {kills}");
        if ended {
            break;
        }
    }
    assert!(ended && written > 2, "{written}");
}

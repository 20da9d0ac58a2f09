//! What a prune keeps of days, as sure as before: the real binary on the local account.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use serde_json::{Value, json};

use crate::support::TestApp;

const DAY: i64 = 86_400;

/// Resource ids of the lives of one document, in the app's source container.
async fn resource_ids(app: &TestApp) -> impl Fn(u8) -> String {
    let other = app.put(json!({"id": "other", "pk": "p"})).await;
    let id = STANDARD.decode(other["_rid"].as_str().unwrap().replace('-', "/")).unwrap();
    move |life| STANDARD.encode([&id[..8], &[0, 0, 0, 0, 0, 0, 1, life]].concat()).replace('/', "-")
}

#[tokio::test]
async fn a_kept_day_is_as_sure_as_before_of_a_document_that_was_made_again() {
    let app = TestApp::start().await;
    let rid = resource_ids(&app).await;
    let midnight = Utc::now().timestamp().div_euclid(DAY) * DAY;
    let image = |life: u8, lsn: i64, ts: i64| json!({"id": "a", "pk": "p", "n": lsn, "_rid": rid(life), "_ts": ts, "_etag": format!("\"a-{lsn}\"")});
    let metadata = |op: &str, lsn: i64, ts: i64| {
        let previous = if op == "create" { 0 } else { lsn - 1 };
        let key = json!({"pk": "p"});
        json!({"operationType": op, "lsn": lsn, "previousImageLSN": previous, "crts": ts, "id": "a", "partitionKey": key})
    };
    let write = |op: &str, life, lsn, ts| json!({"current": image(life, lsn, ts), "metadata": metadata(op, lsn, ts)});
    let delete = |life, lsn, ts, written| json!({"current": {}, "previous": image(life, lsn - 1, written), "metadata": metadata("delete", lsn, ts)});
    // The second life has no end of a day.
    let [long_ago, day] = [midnight - 7 * DAY, midnight - 5 * DAY];
    app.capture(&[
        write("create", 1, 1, long_ago),
        delete(1, 2, day + 100, long_ago),
        write("create", 2, 3, day + 200),
        write("replace", 2, 4, day + 300),
        delete(2, 5, day + 400, day + 300),
        write("create", 3, 6, day + 500),
    ])
    .await;
    app.captured_from_now().await;
    let at = (day - 1).to_string();
    let answers = async || {
        let plan = ["restore", "--id", "a", "--pk", "p", "--at", &at, "--dry-run", "--format", "json"];
        let (plan, shown) =
            (app.run(&plan).await, app.run(&["show", "--id", "a", "--at", &at, "--format", "json"]).await);
        let (code, plan, shown): (_, Value, _) = (plan.code, serde_json::from_str(&plan.stdout).unwrap(), shown.json());
        let step = &plan["plan"]["steps"][0];
        json!([code, step["action"], step["version"], shown["state"], shown["document"], shown["doubt"]])
    };
    let before = answers().await;
    assert_eq!((&before[0], &before[4]["n"], &before[5]), (&json!(0), &json!(1), &json!(null)), "{before}");
    let pruned = ["prune", "--keep-within", "2d", "--keep-daily", "30d", "--yes", "--format", "json"];
    let pruned = app.run(&pruned).await.json();
    assert_eq!(answers().await, before);
    assert_eq!(pruned["removed"], 1, "{pruned}");
}

//! The clock of a backup.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use cosmos_rewind::{
    backup::{self, Request},
    clock::Clock,
    config::{Names, Settings},
    context::Context,
};
use serde_json::{Value, json};

use crate::support::TestApp;

/// A machine whose clock is an hour ahead.
#[derive(Debug)]
struct Ahead;

impl Clock for Ahead {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::hours(1)
    }
}

/// With the machine's clock, `--mode if-newer` would overwrite documents written within an hour after the backup.
#[tokio::test]
async fn a_backup_uses_the_accounts_time() {
    let app = TestApp::start().await;
    app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let path = app.folder.path().join("ahead.jsonl");
    let (predicate, params, at, at_text, feed_range, ru_limit) = (None, Vec::new(), None, None, None, None);
    let (wait, out, concurrency) = (false, path.clone(), 4);
    let request = Request { predicate, params, at, at_text, wait, feed_range, out, concurrency, ru_limit };
    let names = Names::from_settings(&Settings::from_pairs([("COSMOS_DATABASE", "dev")]), None).unwrap();
    let cx = Context { clock: Arc::new(Ahead), ..Context::new(&app.cosmos, &names) };
    assert_eq!(backup::write(request, &cx.any()).await.unwrap().documents, 1);
    let text = std::fs::read_to_string(&path).unwrap();
    let trailer: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let made = DateTime::parse_from_rfc3339(trailer["_backup"]["made"].as_str().unwrap()).unwrap().timestamp();
    assert!((Utc::now().timestamp() - made).abs() < 60, "{made}");
    app.put(json!({"id": "a", "pk": "p", "n": 2})).await;
    let loaded = app.run(&["load", path.to_str().unwrap(), "--mode", "if-newer", "--format", "json"]).await.json();
    assert_eq!((&loaded["updated"], &loaded["skipped"]), (&json!(0), &json!(1)));
}

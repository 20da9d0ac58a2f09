//! Requests that nobody polls. A stream that reads ahead stands still while its caller does something else, and with it
//! what it has asked for. Nobody else may have to wait for that.

use std::{pin::pin, sync::Arc, time::Duration};

use cosmos_rewind::{
    change::key::PartitionKey,
    config::{AccountSettings, Settings},
    cosmos::{Cosmos, Failure},
    local::{Call, Connection, RequestOutcome},
};
use serde_json::json;
use tokio::time::timeout;

use crate::support::TestApp;

/// How long each request takes.
const ON_THE_WAY: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Slow;

impl Connection for Slow {
    fn fate(&self, _: &Call<'_>) -> RequestOutcome {
        RequestOutcome::Done(ON_THE_WAY)
    }
}

/// Everything that a command may ask for first.
async fn asked(cosmos: &Cosmos) -> Result<(), Failure> {
    let events = cosmos.container("dev", "events").await?;
    events.default_ttl().await?;
    let found = events.query_all("SELECT * FROM c WHERE c.n = 1", &[], None).await?;
    assert_eq!(found.len(), 1);
    events.feed_ranges(true).await?;
    assert!(events.read_text(&PartitionKey::parse("p").unwrap(), "a").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_request_that_nobody_polls_holds_up_no_other() {
    let app = TestApp::start().await;
    app.put(json!({"id": "a", "pk": "p", "n": 1})).await;
    let inside = app.local.inside(Arc::new(Slow));
    let settings = Settings::from_pairs([("CosmosDB__accountEndpoint", inside.address().as_str())]);
    let account = AccountSettings::from_settings(&settings).unwrap();
    // It stands still after each of its requests in turn: half way, and when the answer has just come.
    for halves in 1_u32.. {
        let cosmos = Cosmos::new(account.clone());
        let mut standing = pin!(asked(&cosmos));
        if let Ok(ended) = timeout(ON_THE_WAY / 2 * halves, &mut standing).await {
            ended.unwrap();
            assert!(halves > 12, "it asked for too little");
            break;
        }
        let other = timeout(Duration::from_secs(20), asked(&cosmos)).await;
        other.unwrap_or_else(|_| panic!("after {halves} half requests, another one waits for ever")).unwrap();
        timeout(Duration::from_secs(20), standing).await.expect("it goes on").unwrap();
    }
}

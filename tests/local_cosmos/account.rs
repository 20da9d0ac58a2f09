//! An account for a single test, and a client for it.

use futures::StreamExt as _;

use azure_data_cosmos::{
    AccountReference, CosmosClient, FeedScope, Query, RoutingStrategy,
    clients::ContainerClient,
    models::ChangeFeedItem,
    options::{ChangeFeedMode, ChangeFeedOptions, ChangeFeedStartFrom, MaxItemCountHint, QueryOptions},
};
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use serde_json::{Value, json};

/// An account with the database `dev` and a container `events`, keyed `/pk`.
pub(super) struct TestAccount {
    pub(super) cosmos: LocalCosmos,
    pub(super) http: reqwest::Client,
}

impl TestAccount {
    pub(super) async fn start(options: LocalOptions) -> Self {
        let account = Self { cosmos: LocalCosmos::start(options).await.unwrap(), http: crate::support::http_client() };
        assert!(account.cosmos.create_database("dev").await.unwrap());
        account
            .container(json!({"id": "events", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}}))
            .await;
        account
    }

    pub(super) async fn container(&self, description: Value) {
        assert!(self.cosmos.create_container("dev", description).await.unwrap());
    }

    pub(super) async fn client(&self, container: &str) -> ContainerClient {
        let key = azure_core::credentials::Secret::new(self.cosmos.key().to_owned());
        let account = AccountReference::with_authentication_key(self.cosmos.endpoint().as_str().parse().unwrap(), key);
        let client =
            CosmosClient::builder().build(account, RoutingStrategy::ProximityTo("Local".into())).await.unwrap();
        client.database_client("dev").container_client(container, None).await.unwrap()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}dbs/dev/colls/{path}", self.cosmos.endpoint())
    }

    /// Reads one page of the feed of `events` without an SDK.
    pub(super) async fn feed(&self, mode: &str, headers: &[(&str, &str)]) -> (u16, String, Vec<Value>) {
        let mut request = self.http.get(self.url("events/docs")).header("A-IM", mode);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let etag = answer.headers().get("etag").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
        (status, etag, body["Documents"].as_array().cloned().unwrap_or_default())
    }

    pub(super) async fn upsert(&self, document: Value) {
        let answer = self
            .http
            .post(self.url("events/docs"))
            .header("x-ms-documentdb-is-upsert", "True")
            .header("x-ms-documentdb-partitionkey", json!([document["pk"]]).to_string())
            .body(document.to_string())
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    pub(super) async fn delete(&self, id: &str, pk: &str) -> u16 {
        let answer = self
            .http
            .delete(self.url(&format!("events/docs/{id}")))
            .header("x-ms-documentdb-partitionkey", json!([pk]).to_string())
            .send()
            .await
            .unwrap();
        answer.status().as_u16()
    }
}

pub(super) fn limit(items: u32) -> MaxItemCountHint {
    MaxItemCountHint::Limit(items.try_into().unwrap())
}

pub(super) async fn queried(client: &ContainerClient, query: &str, options: Option<QueryOptions>) -> Vec<Value> {
    let mut pages =
        client.query_items::<Value>(Query::from(query), FeedScope::full_container(), options).await.unwrap();
    let mut found = Vec::new();
    while let Some(item) = pages.next().await {
        found.push(item.unwrap());
    }
    found
}

/// Reads the feed through the SDK until `ranges` pages in a row were empty.
pub(super) async fn feed_items(
    client: &ContainerClient,
    mode: ChangeFeedMode,
    start: ChangeFeedStartFrom,
) -> Vec<ChangeFeedItem<Value>> {
    let options = ChangeFeedOptions::default().with_mode(mode);
    let mut pages = client.query_change_feed::<Value>(FeedScope::full_container(), start, Some(options)).await.unwrap();
    let mut found = Vec::new();
    let mut empty = 0;
    while empty < 6 {
        let items = pages.next().await.unwrap().unwrap().into_items();
        empty = if items.is_empty() { empty + 1 } else { 0 };
        found.extend(items);
    }
    found
}

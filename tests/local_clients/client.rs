//! Requests without an SDK, signed in the service's format.

use base64::Engine as _;
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

pub(super) const DATE: &str = "tue, 24 nov 2026 20:00:00 gmt";

/// The header of a request for the account's description, signed with a key.
pub(super) fn signed(key: &str) -> String {
    let base64 = base64::engine::general_purpose::STANDARD;
    let mut mac = Hmac::<Sha256>::new_from_slice(&base64.decode(key).unwrap()).unwrap();
    mac.update(format!("get\n\n\n{DATE}\n\n").as_bytes());
    let signature = base64.encode(mac.finalize().into_bytes());
    let token = format!("type=master&ver=1.0&sig={signature}");
    percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC).to_string()
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(super) fn documents(&self) -> &Vec<Value> {
        self.body["Documents"].as_array().unwrap_or_else(|| panic!("{}", self.body))
    }
}

pub(super) struct Client {
    pub(super) cosmos: LocalCosmos,
    http: reqwest::Client,
}

impl Client {
    pub(super) async fn start(partitions: u32) -> Self {
        let cosmos = LocalCosmos::start(LocalOptions { partitions, ..LocalOptions::default() }).await.unwrap();
        Self { cosmos, http: crate::support::http_client() }
    }

    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let url = format!("{}{}", self.cosmos.endpoint(), path.trim_start_matches('/'));
        let mut request = self.http.request(method.parse().unwrap(), url).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
        Answer { status, headers, body }
    }

    /// An account with the container `dev/events`, keyed `/pk`.
    pub(super) async fn with_events(partitions: u32) -> Self {
        let client = Self::start(partitions).await;
        client.cosmos.create_database("dev").await.unwrap();
        let key = json!({"paths": ["/pk"], "kind": "Hash", "version": 2});
        let description = json!({"id": "events", "partitionKey": key, "defaultTtl": -1});
        client.cosmos.create_container("dev", description).await.unwrap();
        client
    }

    pub(super) async fn create(&self, document: Value, headers: &[(&str, &str)]) -> Answer {
        self.send("POST", "/dbs/dev/colls/events/docs", headers, document.to_string().into_bytes()).await
    }

    pub(super) async fn query(&self, text: &str) -> Answer {
        let headers = [("x-ms-documentdb-isquery", "True"), ("x-ms-documentdb-query-enablecrosspartition", "True")];
        let body = json!({"query": text}).to_string().into_bytes();
        self.send("POST", "/dbs/dev/colls/events/docs", &headers, body).await
    }
}

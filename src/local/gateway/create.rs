//! Creates databases and containers, and checks their descriptions.

use axum::http::Method;
use serde_json::{Value, json};

use super::{Gateway, MAX_NAME};
use crate::local::{
    message::{Ask, ContainerName, GatewayAnswer, encode_segment},
    offers, sql,
};

/// The throughput in RU/s for which the service creates one physical partition.
const THROUGHPUT_OF_A_PARTITION: u64 = 6000;
/// The largest number of physical partitions of a container here.
const MAX_PARTITIONS: u32 = 100;

/// The largest number of levels of a hierarchical partition key.
const MAX_LEVELS: usize = 3;

impl Gateway {
    pub(super) async fn create_database(&self, ask: &Ask) -> GatewayAnswer {
        let throughput = match offers::asked(ask) {
            Ok(throughput) => throughput,
            Err(answer) => return *answer,
        };
        let description: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        if let Err(message) = check_id(&description) {
            return GatewayAnswer::bad_request(message);
        }
        let answer = self.emulator.execute(ask).await;
        if let Some(content) = throughput.filter(|_| answer.status == 201) {
            let path = format!("/dbs/{}", encode_segment(description["id"].as_str().unwrap_or_default()));
            let made = self.emulator.execute(&Ask::new(Method::GET, path)).await;
            let made: Value = serde_json::from_slice(&made.body).unwrap_or_default();
            self.offers.note(&made, content, self.clock.now());
        }
        answer
    }

    pub(super) async fn create_container(&self, database: &str, ask: &Ask) -> GatewayAnswer {
        let content = match offers::asked(ask) {
            Ok(content) => content,
            Err(answer) => return *answer,
        };
        let mut body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        if let Err(message) = check_description(&body) {
            return GatewayAnswer::bad_request(message);
        }
        indexing(&mut body);
        let mut create = ask.clone();
        create.body = body.to_string().into();
        let mut answer = self.emulator.execute(&create).await;
        if answer.status != 201 {
            return answer;
        }
        let name = ContainerName::new(database, body["id"].as_str().unwrap_or_default());
        let throughput = ask.headers.get("x-ms-offer-throughput").and_then(|text| text.trim().parse().ok());
        let partitions = self.partitions.max(partitions_for(content.as_ref()));
        if let Err(error) = self.emulator.repartition(&name, partitions, throughput).await {
            return GatewayAnswer::error(500, None, "InternalServerError", error.to_string());
        }
        // The container may have been recreated, so its description is read again.
        let now = self.emulator.execute(&Ask::new(Method::GET, name.path())).await;
        if let Some(etag) = now.headers.get("etag") {
            answer.headers.set("etag", etag);
        }
        let made: Value = serde_json::from_slice(&now.body).unwrap_or_default();
        self.offers.note(&made, content.unwrap_or_else(offers::default_content), self.clock.now());
        if ask.wants_content() {
            answer.body = now.body;
        }
        answer
    }
}

/// Returns the number of physical partitions that the service creates initially for a throughput.
fn partitions_for(content: Option<&Value>) -> u32 {
    let settings = content.map(|content| {
        content["offerAutopilotSettings"]["maxThroughput"].as_u64().or_else(|| content["offerThroughput"].as_u64())
    });
    let partitions = settings.flatten().unwrap_or(1).div_ceil(THROUGHPUT_OF_A_PARTITION);
    u32::try_from(partitions).unwrap_or(MAX_PARTITIONS).min(MAX_PARTITIONS)
}

/// Checks a container's description.
pub(super) fn check_description(description: &Value) -> Result<(), String> {
    check_id(description)?;
    if description["partitionKey"]["paths"].as_array().is_some_and(|paths| paths.len() > MAX_LEVELS) {
        return Err(format!("Too many partition key paths: at most {MAX_LEVELS}"));
    }
    for name in ["defaultTtl", "analyticalStorageTtl"] {
        match &description[name] {
            Value::Null => {}
            ttl if ttl.as_i64().is_some_and(|ttl| ttl == -1 || (1..=i64::from(i32::MAX)).contains(&ttl)) => {}
            ttl => return Err(format!("The input {name} {ttl} is invalid: a positive whole number, or -1 for never")),
        }
    }
    sql::check_computed(&description["computedProperties"])
}

/// Checks the name of a database or container by the service's rules.
fn check_id(description: &Value) -> Result<(), String> {
    let id = description["id"].as_str().unwrap_or_default();
    let is_fine = !id.is_empty()
        && id.chars().count() <= MAX_NAME
        && !id.ends_with(' ')
        && !id.contains(['/', '\\', '?', '#', '\t', '\r', '\n']);
    if is_fine {
        return Ok(());
    }
    Err(format!(
        "The name {id:?} is invalid. Ensure to provide a unique non-empty string less than '{MAX_NAME}' characters. \
         It has none of / \\ ? # and no space at its end."
    ))
}

/// System properties are never indexed; the policy says so even if the request did not.
fn indexing(description: &mut Value) {
    let etag = json!({ "path": "/\"_etag\"/?" });
    let Some(description) = description.as_object_mut() else { return };
    let policy = description.entry("indexingPolicy").or_insert_with(|| json!({}));
    let Some(policy) = policy.as_object_mut() else { return };
    let mode = policy.entry("indexingMode").or_insert_with(|| "consistent".into());
    let is_indexed = mode.as_str().is_some_and(|mode| !mode.eq_ignore_ascii_case("none"));
    policy.entry("automatic").or_insert(is_indexed.into());
    policy.entry("includedPaths").or_insert_with(|| if is_indexed { json!([{ "path": "/*" }]) } else { json!([]) });
    // Index kinds are obsolete: the service accepts and discards them.
    for path in policy.get_mut("includedPaths").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(path) = path.as_object_mut() {
            path.remove("indexes");
        }
    }
    let excluded = policy.entry("excludedPaths").or_insert_with(|| json!([]));
    if let Some(excluded) = excluded.as_array_mut()
        && is_indexed
        && !excluded.iter().any(|path| path["path"] == etag["path"])
    {
        excluded.push(etag);
    }
}

//! Offers: the throughput of databases and containers. It does not throttle anything.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;
use bytes::Bytes;
use serde_json::{Value, json};

use super::list;
use super::message::{Ask, GatewayAnswer};

/// The service's default throughput for a container, in request units per second.
const DEFAULT_THROUGHPUT: i64 = 400;
const MIN_THROUGHPUT: i64 = 400;
const MIN_AUTOSCALE: i64 = 1000;

const THROUGHPUT: &str = "x-ms-offer-throughput";
const AUTOSCALE: &str = "x-ms-cosmos-offer-autopilot-settings";

/// The offers of the account, by the resource id of the database or container.
#[derive(Debug, Default)]
pub(super) struct Offers {
    known: Mutex<BTreeMap<String, Value>>,
}

/// Reads the requested throughput from the headers of a create request; `None` when none is requested.
pub(super) fn asked(ask: &Ask) -> Result<Option<Value>, Box<GatewayAnswer>> {
    let invalid = |name: &str| Box::new(GatewayAnswer::bad_request(format!("The header {name} is not understood")));
    if let Some(text) = ask.headers.get(AUTOSCALE) {
        let settings: Value = serde_json::from_str(text).map_err(|_| invalid(AUTOSCALE))?;
        return checked(json!({ "offerAutopilotSettings": settings })).map(Some);
    }
    let Some(text) = ask.headers.get(THROUGHPUT) else { return Ok(None) };
    let throughput: i64 = text.trim().parse().map_err(|_| invalid(THROUGHPUT))?;
    checked(json!({ "offerThroughput": throughput })).map(Some)
}

/// The offer of a container that was created without one.
pub(super) fn default_content() -> Value {
    json!({ "offerThroughput": DEFAULT_THROUGHPUT })
}

fn checked(mut content: Value) -> Result<Value, Box<GatewayAnswer>> {
    let too_little = |asked: i64, least: i64| {
        Box::new(GatewayAnswer::bad_request(format!(
            "Requested throughput {asked} is less than required minimum throughput {least}"
        )))
    };
    if let Some(settings) = content.get("offerAutopilotSettings").filter(|settings| !settings.is_null()) {
        let most = settings["maxThroughput"].as_i64();
        let most = most
            .ok_or_else(|| Box::new(GatewayAnswer::bad_request("Autoscale needs a maxThroughput, a whole number")))?;
        if most < MIN_AUTOSCALE {
            return Err(too_little(most, MIN_AUTOSCALE));
        }
        content["offerThroughput"] = (most / 10).into();
        return Ok(content);
    }
    let throughput = content["offerThroughput"].as_i64();
    let throughput =
        throughput.ok_or_else(|| Box::new(GatewayAnswer::bad_request("An offer needs an offerThroughput")))?;
    if throughput < MIN_THROUGHPUT {
        return Err(too_little(throughput, MIN_THROUGHPUT));
    }
    if throughput % 100 != 0 {
        return Err(Box::new(GatewayAnswer::bad_request(format!(
            "Throughput comes in steps of 100: {throughput} is none"
        ))));
    }
    Ok(content)
}

/// Derives an offer's id from its resource. Alphanumeric, like the service's.
fn offer_id(resource: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(resource.as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

impl Offers {
    /// Records the offer of a resource after its creation.
    pub fn note(&self, resource: &Value, content: Value, now: u64) {
        let (Some(rid), Some(link)) = (resource["_rid"].as_str(), resource["_self"].as_str()) else { return };
        let id = offer_id(rid);
        let offer = json!({
            "resource": link,
            "offerType": "Invalid",
            "offerResourceId": rid,
            "offerVersion": "V2",
            "content": content,
            "id": id,
            "_rid": id,
            "_self": format!("offers/{id}/"),
            "_etag": format!("\"{:032x}\"", rand::random::<u128>()),
            "_ts": now,
        });
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(rid.to_owned(), offer);
    }

    /// Drops the offers of resources that were deleted.
    pub fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|rid, _| exists(rid));
    }

    /// Answers requests below `/offers`; `id` addresses a single offer.
    pub fn answer(&self, ask: &Ask, id: Option<&str>, now: u64) -> GatewayAnswer {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = id else {
            let all: Vec<Bytes> = known.values().map(|offer| offer.to_string().into()).collect();
            return list::answer(ask, "Offers", "", all);
        };
        let Some(offer) = known.values_mut().find(|offer| offer["id"] == id) else {
            return GatewayAnswer::error(404, None, "NotFound", format!("There is no offer {id}"));
        };
        match ask.method {
            Method::GET => GatewayAnswer::json(200, offer.to_string()),
            Method::PUT => {
                let sent: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
                let content = match checked(sent["content"].clone()) {
                    Ok(content) => content,
                    Err(answer) => return *answer,
                };
                offer["content"] = content;
                offer["_etag"] = format!("\"{:032x}\"", rand::random::<u128>()).into();
                offer["_ts"] = now.into();
                GatewayAnswer::json(200, offer.to_string())
            }
            _ => GatewayAnswer::error(405, None, "MethodNotAllowed", "An offer can be read and replaced"),
        }
    }
}

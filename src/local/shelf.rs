//! Resources that are stored and listed but have no effect: users and permissions, stored procedures, triggers,
//! functions, conflicts. Requests to run a script are refused.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::http::Method;
use base64::Engine as _;
use bytes::Bytes;
use serde_json::Value;

use super::list;
use super::message::{Ask, GatewayAnswer, header};

/// All resources by path: `dbs/d/users/u/permissions/p`.
#[derive(Debug, Default)]
pub(super) struct ResourceTree {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u32,
    by_path: BTreeMap<String, Value>,
}

/// The lists, and the field that holds their items in a response.
const LISTS: &[(&str, &str)] = &[
    ("users", "Users"),
    ("permissions", "Permissions"),
    ("sprocs", "StoredProcedures"),
    ("triggers", "Triggers"),
    ("udfs", "UserDefinedFunctions"),
    ("conflicts", "Conflicts"),
];

fn member_of(list: &str) -> Option<&'static str> {
    LISTS.iter().find(|(known, _)| *known == list).map(|(_, member)| *member)
}

/// Whether a decoded path addresses one of these lists or an item in it.
pub(super) fn has(segments: &[&str]) -> bool {
    let below_a_database = matches!(segments, ["dbs", _, "users", rest @ ..]
        if matches!(rest, [] | [_] | [_, "permissions"] | [_, "permissions", _]));
    let below_a_container = matches!(segments, ["dbs", _, "colls", _, list, rest @ ..]
        if matches!(*list, "sprocs" | "triggers" | "udfs" | "conflicts") && rest.len() < 2);
    below_a_database || below_a_container
}

impl ResourceTree {
    /// Answers requests for a list (`dbs/d/users`) or an item of it. `segments` is the decoded path. The parent exists
    /// and has this resource id.
    pub fn answer(&self, ask: &Ask, segments: &[&str], parent_rid: &str, now: u64) -> GatewayAnswer {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_list = segments.len() % 2 == 1;
        let path = segments.join("/");
        let list_segments = if is_list { segments } else { &segments[..segments.len() - 1] };
        let list_path = list_segments.join("/");
        let list = list_segments.last().copied().unwrap_or_default();
        let Some(member) = member_of(list) else { return GatewayAnswer::bad_request("The path is not understood") };
        let parent = list_segments[..list_segments.len() - 1].join("/");
        if list == "permissions" && !kept.by_path.contains_key(&parent) {
            return GatewayAnswer::error(404, None, "NotFound", format!("There is no {parent}"));
        }
        let is_query = ask.headers.is_true("x-ms-documentdb-isquery") || ask.headers.is_true("x-ms-documentdb-query");
        match (&ask.method, is_list) {
            (&Method::GET, true) | (&Method::POST, true) if ask.method == Method::GET || is_query => {
                let inside = format!("{list_path}/");
                let all = kept
                    .by_path
                    .iter()
                    .filter(|(path, _)| path.strip_prefix(&inside).is_some_and(|rest| !rest.contains('/')));
                let all: Vec<Bytes> = all.map(|(_, item)| item.to_string().into()).collect();
                list::answer(ask, member, parent_rid, all)
            }
            (&Method::POST, true) if list == "conflicts" => {
                GatewayAnswer::error(405, None, "MethodNotAllowed", "Conflicts are made by the service alone")
            }
            (&Method::POST, false) if list == "sprocs" => GatewayAnswer::error(
                501,
                None,
                "NotImplemented",
                "The local account keeps stored procedures and runs none",
            ),
            (&Method::POST, true) => {
                let sent: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
                let Some(id) = sent["id"].as_str().filter(|id| !id.is_empty()) else {
                    return GatewayAnswer::bad_request("The request's body has no id");
                };
                let path = format!("{list_path}/{id}");
                let exists = kept.by_path.contains_key(&path);
                if exists && !ask.headers.is_true(header::IS_UPSERT) {
                    return GatewayAnswer::error(409, None, "Conflict", format!("{path} is there already"));
                }
                let item = kept.put(&path, sent, member, now);
                GatewayAnswer::json(if exists { 200 } else { 201 }, item.to_string())
            }
            (&Method::GET, false) => match kept.by_path.get(&path) {
                Some(item) => GatewayAnswer::json(200, item.to_string()),
                None => GatewayAnswer::error(404, None, "NotFound", format!("There is no {path}")),
            },
            (&Method::PUT, false) => {
                if kept.by_path.remove(&path).is_none() {
                    return GatewayAnswer::error(404, None, "NotFound", format!("There is no {path}"));
                }
                let sent: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
                let id = sent["id"].as_str().unwrap_or_default().to_owned();
                let item = kept.put(&format!("{list_path}/{id}"), sent, member, now);
                GatewayAnswer::json(200, item.to_string())
            }
            (&Method::DELETE, false) => {
                let inside = format!("{path}/");
                if kept.by_path.remove(&path).is_none() {
                    return GatewayAnswer::error(404, None, "NotFound", format!("There is no {path}"));
                }
                kept.by_path.retain(|known, _| !known.starts_with(&inside));
                GatewayAnswer::json(204, Bytes::new())
            }
            _ => GatewayAnswer::error(405, None, "MethodNotAllowed", "this method is not known here"),
        }
    }

    /// Drops everything that belonged to a deleted database or container; `path` is its decoded path.
    pub fn forget(&self, path: &str) {
        let inside = format!("{path}/");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.by_path.retain(|path, _| !path.starts_with(&inside));
    }
}

impl Kept {
    fn put(&mut self, path: &str, mut item: Value, member: &str, now: u64) -> Value {
        self.next += 1;
        let rid = base64::engine::general_purpose::STANDARD.encode(u64::from(self.next).to_be_bytes());
        let rid = rid.replace('/', "-");
        item["_rid"] = rid.as_str().into();
        item["_self"] = format!("{path}/").into();
        item["_etag"] = format!("\"{:032x}\"", rand::random::<u128>()).into();
        item["_ts"] = now.into();
        match member {
            "Users" => item["_permissions"] = "permissions/".into(),
            "Permissions" => item["_token"] = format!("type=resource&ver=1&sig=local-{rid}").into(),
            _ => {}
        }
        self.by_path.insert(path.to_owned(), item.clone());
        item
    }
}

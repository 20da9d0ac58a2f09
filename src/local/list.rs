//! Lists of resources other than documents: databases, containers, offers, users; complete, or filtered by a query.

use axum::http::Method;
use bytes::Bytes;

use super::message::{Ask, GatewayAnswer, header};
use super::sql::{self, Computed, SqlError, Statement};

/// The prefix of this module's continuation tokens.
const TOKEN: &str = "local-list:";

/// Answers a read or a query of a list, page by page.
pub(super) fn answer(ask: &Ask, member: &str, rid: &str, all: Vec<Bytes>) -> GatewayAnswer {
    let found = if ask.method == Method::GET {
        all
    } else {
        match Statement::read(&ask.body).and_then(|query| sql::run(&query, &Computed::default(), all.into_iter())) {
            Ok(found) => found,
            Err(error) => return SqlError::into_answer(error),
        }
    };
    let from = match ask.headers.get(header::CONTINUATION).filter(|text| !text.is_empty()) {
        None => 0,
        Some(token) => match token.strip_prefix(TOKEN).and_then(|text| text.parse::<usize>().ok()) {
            Some(from) => from.min(found.len()),
            None => return GatewayAnswer::bad_request("The continuation token is not one of this list"),
        },
    };
    let end = ask.max_items().map_or(found.len(), |most| from.saturating_add(most).min(found.len()));
    let page: Vec<&str> = found[from..end].iter().filter_map(|item| std::str::from_utf8(item).ok()).collect();
    let rid = serde_json::Value::from(rid);
    let body = format!("{{\"_rid\":{rid},\"{member}\":[{}],\"_count\":{}}}", page.join(","), page.len());
    let mut answer = GatewayAnswer::json(200, body);
    answer.headers.set(header::ITEM_COUNT, page.len().to_string());
    if end < found.len() {
        answer.headers.set(header::CONTINUATION, format!("{TOKEN}{end}"));
    }
    answer
}

/// Returns the items of a list in a response body: `{"Databases": [..]}`.
pub(super) fn items(body: &[u8], member: &str) -> Vec<serde_json::Value> {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body[member].as_array().cloned().unwrap_or_default()
}

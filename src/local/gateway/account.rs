//! Requests about the account and its contents other than containers.

use axum::http::Method;
use serde_json::{Value, json};

use super::{
    Gateway,
    documents::{CROSS_PARTITION, NOT_CROSS_PARTITION, detached, names_keys},
};
use crate::local::{
    list,
    message::{Ask, ContainerName, GatewayAnswer, encode_segment, header, segments},
    shelf, signature,
};

impl Gateway {
    pub(super) async fn on_others(&self, ask: &Ask) -> GatewayAnswer {
        let segments = segments(&ask.path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (segments.as_slice(), &ask.method) {
            ([], &Method::GET) => self.account(ask).await,
            (["offers"], &Method::GET | &Method::POST) => self.offers.answer(ask, None, self.clock.now()),
            (["offers", id], _) => self.offers.answer(ask, Some(id), self.clock.now()),
            (["dbs"], &Method::POST) if !ask.is_query() => self.create_database(ask).await,
            (["dbs"], &Method::GET | &Method::POST) => self.listed(ask, "/dbs", "Databases", "").await,
            (["dbs", database, "colls", container, "operations", "partitionkeydelete"], &Method::POST) => {
                match self.containers.get(&ContainerName::new(*database, *container)).await {
                    Ok(container) => {
                        detached(&container, ask, |container, ask| async move { container.delete_key(&ask).await })
                            .await
                    }
                    Err(answer) => answer,
                }
            }
            (["dbs", _, "colls", _, "conflicts"], &Method::POST)
                if ask.is_query() && !names_keys(ask) && !ask.headers.is_true(CROSS_PARTITION) =>
            {
                GatewayAnswer::bad_request(NOT_CROSS_PARTITION)
            }
            (path, _) if shelf::has(path) => {
                let parent = if path[2] == "colls" { &path[..4] } else { &path[..2] };
                let parent: Vec<String> = parent.iter().map(|segment| encode_segment(segment)).collect();
                let found = self.emulator.execute(&Ask::new(Method::GET, format!("/{}", parent.join("/")))).await;
                if !found.is_success() {
                    return found;
                }
                let found: Value = serde_json::from_slice(&found.body).unwrap_or_default();
                self.shelf.answer(ask, path, found["_rid"].as_str().unwrap_or_default(), self.clock.now())
            }
            _ => self.emulator.execute(ask).await,
        }
    }

    /// Returns the account's description. Every client reads it first, so a wrong key is reported here.
    async fn account(&self, ask: &Ask) -> GatewayAnswer {
        if !signature::allows(ask) {
            return GatewayAnswer::error(
                401,
                None,
                "Unauthorized",
                "The input authorization token can't serve the request: it is missing, or not made with the local account's key",
            );
        }
        let mut answer = self.emulator.execute(ask).await;
        if let Ok(mut account) = serde_json::from_slice::<Value>(&answer.body)
            && answer.is_success()
        {
            account["queryEngineConfiguration"] = query_engine_configuration().to_string().into();
            answer.body = account.to_string().into();
        }
        answer
    }

    /// Answers a read or a query of a list that the emulator keeps.
    pub(super) async fn listed(&self, ask: &Ask, path: &str, member: &str, parent: &str) -> GatewayAnswer {
        let all = self.emulator.execute(&Ask::new(Method::GET, path)).await;
        if !all.is_success() {
            return all;
        }
        let mut rid = String::new();
        if !parent.is_empty() {
            let parent = self.emulator.execute(&Ask::new(Method::GET, parent)).await;
            let parent: Value = serde_json::from_slice(&parent.body).unwrap_or_default();
            parent["_rid"].as_str().unwrap_or_default().clone_into(&mut rid);
        }
        let items = list::items(&all.body, member).into_iter().map(|item| item.to_string().into());
        let mut answer = list::answer(ask, member, &rid, items.collect());
        if let Some(session) = all.headers.get(header::SESSION) {
            answer.headers.set(header::SESSION, session);
        }
        answer
    }
}

/// The engine configuration for clients that plan queries themselves.
fn query_engine_configuration() -> Value {
    json!({
        "maxSqlQueryInputLength": 262_144,
        "maxJoinsPerSqlQuery": 10,
        "maxLogicalAndPerSqlQuery": 2000,
        "maxLogicalOrPerSqlQuery": 2000,
        "maxUdfRefPerSqlQuery": 10,
        "maxInExpressionItemsCount": 16_000,
        "queryMaxGroupByTableCellCount": 500_000,
        "queryMaxInMemorySortDocumentCount": 500,
        "maxQueryRequestTimeoutFraction": 0.90,
        "sqlAllowNonFiniteNumbers": false,
        "sqlAllowAggregateFunctions": true,
        "sqlAllowSubQuery": true,
        "sqlAllowScalarSubQuery": true,
        "allowNewKeywords": true,
        "sqlAllowLike": true,
        "sqlAllowGroupByClause": true,
        "sqlDisableOptimizationFlags": 0,
        "sqlDisableQueryILOptimization": false,
        "sqlDisableFilterPlanOptimization": false,
        "sqlAllowTop": true,
        "spatialMaxGeometryPointCount": 256,
        "enableSpatialIndexing": true,
    })
}

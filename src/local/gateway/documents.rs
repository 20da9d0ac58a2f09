//! Requests about the documents of a container.

use std::sync::Arc;

use axum::http::Method;
use serde_json::Value;

use super::Gateway;
use crate::local::{
    addresses, batch,
    container::LocalContainer,
    feed,
    message::{Ask, GatewayAnswer, Target, header},
    sql::{self, SqlError, Statement},
};

pub(super) const CROSS_PARTITION: &str = "x-ms-documentdb-query-enablecrosspartition";
pub(super) const NOT_CROSS_PARTITION: &str = "Cross partition query is required but disabled. Please set \
    x-ms-documentdb-query-enablecrosspartition to true, or specify x-ms-documentdb-partitionkey";

impl Gateway {
    pub(super) async fn on_documents(
        &self,
        container: &Arc<LocalContainer>,
        target: &Target,
        ask: &Ask,
    ) -> GatewayAnswer {
        let is_document = matches!(target, Target::Document(..));
        match ask.method {
            Method::GET if is_document => {
                if let Err(answer) = container.check_key(ask) {
                    return *answer;
                }
                let _reading = container.read().await;
                self.emulator.execute(ask).await
            }
            Method::GET if ask.headers.get("a-im").is_some() => feed::read(container, ask).await,
            Method::GET => self.pages.read(container, ask).await,
            Method::POST if !is_document && ask.headers.is_true(header::IS_QUERY_PLAN) => planned(container, ask),
            Method::POST if !is_document && ask.is_query() && !names_keys(ask) => {
                match for_the_client(container, ask) {
                    Some(answer) => answer,
                    None => self.pages.read(container, ask).await,
                }
            }
            Method::POST if !is_document && ask.is_query() => self.pages.read(container, ask).await,
            Method::POST if !is_document && ask.headers.is_true(header::IS_BATCH) => {
                detached(container, ask, |container, ask| async move { batch::run(&container, &ask).await }).await
            }
            _ if names_script(ask) => GatewayAnswer::error(
                501,
                None,
                "NotImplemented",
                "The local account keeps triggers and runs none: leave the trigger headers out",
            ),
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE => {
                detached(container, ask, |container, ask| async move {
                    let mut log = container.write().await;
                    container.point_write(&mut log, &ask, true).await
                })
                .await
            }
            _ => self.emulator.execute(ask).await,
        }
    }
}

/// Runs a write to completion even if the client disconnects: the emulator and the log must agree.
pub(super) async fn detached<F, W>(container: &Arc<LocalContainer>, ask: &Ask, write: W) -> GatewayAnswer
where
    W: FnOnce(Arc<LocalContainer>, Ask) -> F,
    F: Future<Output = GatewayAnswer> + Send + 'static,
{
    let work = write(Arc::clone(container), ask.clone());
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| GatewayAnswer::error(500, None, "InternalServerError", "the write was interrupted"))
}

/// Returns the plan of a query.
fn planned(container: &LocalContainer, ask: &Ask) -> GatewayAnswer {
    let plan = || {
        let statement = Statement::read(&ask.body)?;
        let features = ask.headers.get("x-ms-cosmos-supported-query-features").unwrap_or_default();
        if let Some(feature) = sql::missing_feature(&statement, features) {
            return Err(SqlError::Unsupported(format!("the client does not know how to put together: {feature}")));
        }
        sql::plan(&statement, container.partitioning())
    };
    plan().map_or_else(SqlError::into_answer, |plan| GatewayAnswer::json(200, plan.to_string()))
}

/// Whether a query is restricted to a partition key or a range.
pub(super) fn names_keys(ask: &Ask) -> bool {
    [header::PARTITION_KEY, header::RANGE_ID, header::START_EPK].iter().any(|name| ask.headers.get(name).is_some())
}

/// Returns the response of the service's gateway to a cross-partition query that it does not merge itself: the client
/// should ask for a plan and run it. Without the cross-partition header, the response says that it is needed.
fn for_the_client(container: &LocalContainer, ask: &Ask) -> Option<GatewayAnswer> {
    let statement = Statement::read(&ask.body).ok()?;
    let plan = sql::plan(&statement, container.partitioning()).unwrap_or_default();
    let range = &plan["queryRanges"][0];
    let features = ask.headers.get("x-ms-cosmos-supported-query-features").unwrap_or_default();
    let is_plain = sql::missing_feature(&statement, features).is_none();
    if is_plain && range["min"].is_string() && range["min"] == range["max"] {
        // The filter selects a single partition key.
        return None;
    }
    if !ask.headers.is_true(CROSS_PARTITION) {
        return Some(GatewayAnswer::bad_request(NOT_CROSS_PARTITION));
    }
    if container.ranges().len() < 2 || !sql::needs_merging(&statement) {
        return None;
    }
    let mut answer = GatewayAnswer::error(
        400,
        Some(1004),
        "BadRequest",
        "The provided cross partition query can not be directly served by the gateway. This is a first chance (internal) \
         exception that all newer clients will know how to handle gracefully.",
    );
    let mut body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    body["additionalErrorInfo"] = plan.to_string().into();
    answer.body = body.to_string().into();
    Some(answer)
}

/// Clients resolve `.` and `..` at the end of a path, even percent-encoded, so a request for an item with that id
/// arrives at the container. It can be recognized by its partition key, which requests about a container do not have.
pub(super) fn way_up(target: &Target, ask: &Ask) -> Option<GatewayAnswer> {
    let is_of_documents = match target {
        Target::Container(_) => !matches!(ask.method, Method::GET | Method::HEAD),
        Target::Documents(_) => matches!(ask.method, Method::PUT | Method::PATCH | Method::DELETE),
        _ => false,
    };
    (is_of_documents && ask.headers.get(header::PARTITION_KEY).is_some()).then(|| {
        GatewayAnswer::bad_request(
            "This request names a partition key and no item. A client takes an item's id . or .. for a way up in the URL and \
             leaves it out; the container stays as it is. Send such an item in a batch, which has its id in the body",
        )
    })
}

/// Whether a write asks for triggers; without them it would be a different write.
fn names_script(ask: &Ask) -> bool {
    ["x-ms-documentdb-pre-trigger-include", "x-ms-documentdb-post-trigger-include"]
        .iter()
        .any(|name| ask.headers.get(name).is_some_and(|value| !value.is_empty()))
}

/// Reports sub-status 1024 to a client that addresses an earlier container of this name by its resource id.
pub(super) fn of_another_container(container: &LocalContainer, ask: &Ask) -> Option<GatewayAnswer> {
    let intended = ask.headers.get("x-ms-cosmos-intended-collection-rid").filter(|rid| !rid.is_empty())?;
    (intended != container.rid()).then(|| {
        GatewayAnswer::error(
            400,
            Some(1024),
            "BadRequest",
            "The container with the intended resource id was deleted or made again",
        )
    })
}

/// Replaces a document's resource id with its id.
pub(super) async fn with_name(container: &LocalContainer, target: Target, ask: &mut Ask) -> Target {
    let Target::Document(name, id) = &target else { return target };
    if !addresses::could_be_document(id) {
        return target;
    }
    let Some(found) = container.id_of(id).await else { return target };
    ask.path = name.document(&found);
    Target::Document(name.clone(), found)
}

/// Adds the metrics that a client asked for. Nothing is measured here, so everything is reported as one step.
pub(super) fn metrics(ask: &Ask, answer: &mut GatewayAnswer) {
    if answer.status != 200 || !ask.is_query() {
        return;
    }
    if ask.headers.is_true("x-ms-documentdb-populatequerymetrics") {
        let count = answer.headers.get(header::ITEM_COUNT).unwrap_or("0");
        let size = answer.body.len();
        let is_count = Statement::read(&ask.body).is_ok_and(|statement| sql::is_count(&statement));
        let (loaded, loaded_size) = if is_count { ("0", 0) } else { (count, size) };
        let text = format!(
            "totalExecutionTimeInMs=0.10;queryCompileTimeInMs=0.01;queryLogicalPlanBuildTimeInMs=0.01;\
             queryPhysicalPlanBuildTimeInMs=0.01;queryOptimizationTimeInMs=0.01;VMExecutionTimeInMs=0.05;\
             indexLookupTimeInMs=0.00;instructionCount=0;documentLoadTimeInMs=0.01;systemFunctionExecuteTimeInMs=0.00;\
             userFunctionExecuteTimeInMs=0.00;retrievedDocumentCount={loaded};retrievedDocumentSize={loaded_size};\
             outputDocumentCount={count};outputDocumentSize={size};writeOutputTimeInMs=0.01;indexUtilizationRatio=1.00"
        );
        answer.headers.set("x-ms-documentdb-query-metrics", text);
    }
    if ask.headers.is_true("x-ms-cosmos-populateindexmetrics") {
        use base64::Engine as _;
        let none = r#"{"UtilizedSingleIndexes":[],"PotentialSingleIndexes":[],"UtilizedCompositeIndexes":[],"PotentialCompositeIndexes":[]}"#;
        answer.headers.set("x-ms-cosmos-index-utilization", base64::engine::general_purpose::STANDARD.encode(none));
    }
}

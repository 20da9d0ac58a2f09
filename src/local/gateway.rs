//! The account's front: decides for each request what the emulator does and what is added here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Method;

use bytes::Bytes;
use serde_json::{Value, json};

use super::addresses;
use super::batch;
use super::container::{Clock, Container, Containers};
use super::emulator::Emulator;
use super::feed;
use super::list;
use super::message::{Answer, Ask, ContainerName, Target, encode_segment, header, segments};
use super::offers::{self, Offers};
use super::pages::Pages;
use super::shelf::{self, Shelf};
use super::signature;
use super::sql::{self, SqlError, Statement};

/// Request units a second for which the service makes one physical partition.
const THROUGHPUT_OF_A_PARTITION: u64 = 6000;
/// As many as a container here may have.
const MAX_PARTITIONS: u32 = 100;
const CROSS_PARTITION: &str = "x-ms-documentdb-query-enablecrosspartition";
const NOT_CROSS_PARTITION: &str = "Cross partition query is required but disabled. Please set \
    x-ms-documentdb-query-enablecrosspartition to true, or specify x-ms-documentdb-partitionkey";

/// Characters of a database's or container's name.
const MAX_NAME: usize = 255;
/// Levels of a hierarchical partition key.
const MAX_LEVELS: usize = 3;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Gateway {
    emulator: Arc<Emulator>,
    containers: Containers,
    pages: Pages,
    offers: Offers,
    shelf: Shelf,
    clock: Arc<Clock>,
    partitions: u32,
    /// Request units charged for documents, by container, in thousandths.
    charges: Mutex<BTreeMap<String, u64>>,
}

impl Gateway {
    pub fn new(emulator: Emulator, partitions: u32, retained_bytes: usize) -> Self {
        let emulator = Arc::new(emulator);
        let clock = Arc::clone(emulator.clock());
        Self {
            containers: Containers::new(Arc::clone(&emulator), Arc::clone(&clock), retained_bytes),
            emulator,
            pages: Pages::default(),
            offers: Offers::default(),
            shelf: Shelf::default(),
            clock,
            partitions,
            charges: Mutex::default(),
        }
    }

    /// Request units charged so far for the documents of a container.
    pub fn charged(&self, name: &ContainerName) -> f64 {
        let charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
        charges.get(&name.to_string()).map_or(0.0, |thousandths| *thousandths as f64 / 1000.0)
    }

    fn charge(&self, name: &ContainerName, answer: &Answer) {
        let charge = answer.headers.get("x-ms-request-charge").and_then(|text| text.parse::<f64>().ok());
        if let Some(charge) = charge.filter(|charge| *charge > 0.0) {
            let mut charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
            *charges.entry(name.to_string()).or_default() += (charge * 1000.0).round() as u64;
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    pub async fn container(&self, name: &ContainerName) -> Result<Arc<Container>, Answer> {
        self.containers.get(name).await
    }

    /// Deletes every document whose time has come.
    pub async fn sweep(&self) {
        for container in self.containers.all() {
            container.sweep().await;
        }
    }

    /// Answers one request.
    pub async fn handle(&self, ask: Ask) -> Answer {
        let mut answer = self.answer(ask).await;
        answer.headers.set("x-ms-activity-id", super::guid());
        answer
    }

    async fn answer(&self, mut ask: Ask) -> Answer {
        while ask.path.len() > 1 && ask.path.ends_with('/') {
            ask.path.pop();
        }
        // Every read sees every write, whatever session it is in; the token may be of a container before this one.
        ask.headers.remove(header::SESSION);
        // Answers are always text: the SDKs recognise it, and the log works on text.
        ask.headers.remove(header::FORMATS);
        let named = addresses::by_name(&self.emulator, &ask.path).await;
        // A link has either names or resource ids: an item's name may look like the resource id of another one.
        let has_rids = named.is_some();
        if let Some(path) = named {
            ask.path = path;
        }
        let target = Target::of(&ask.path);
        match (&target, &ask.method) {
            (Target::Documents(name), _) | (Target::Document(name, _), _) => {
                let container = match self.containers.get(name).await {
                    Ok(container) => container,
                    Err(answer) => return answer,
                };
                if let Some(answer) = of_another_container(&container, &ask) {
                    return answer;
                }
                let target =
                    if has_rids { with_name(&container, target.clone(), &mut ask).await } else { target.clone() };
                let mut answer = self.on_documents(&container, &target, &ask).await;
                self.charge(name, &answer);
                metrics(&ask, &mut answer);
                answer.headers.set("x-ms-alt-content-path", format!("dbs/{}/colls/{}", name.database, name.container));
                answer.headers.set("x-ms-content-path", container.rid());
                answer
            }
            (Target::Containers(database), &Method::POST) if !is_query(&ask) => {
                self.create_container(database, &ask).await
            }
            (Target::Containers(database), &Method::POST | &Method::GET) => {
                self.listed(&ask, &ask.path, "DocumentCollections", &format!("/dbs/{}", encode_segment(database))).await
            }
            (Target::Container(name), &Method::DELETE) => {
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success() {
                    self.containers.forget(|known| known == name);
                    self.forget(&ask.path).await;
                }
                answer
            }
            (Target::Container(name), &Method::PUT) => {
                let description: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
                if let Err(message) = check_description(&description) {
                    return Answer::bad_request(message);
                }
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success()
                    && let Ok(container) = self.containers.get(name).await
                {
                    let now = self.emulator.execute(&Ask::new(Method::GET, name.path())).await;
                    container.described(&now.body).await;
                }
                answer
            }
            (Target::Container(name), &Method::GET) => {
                let mut answer = self.emulator.execute(&ask).await;
                if ask.headers.is_true("x-ms-documentdb-populatepartitionstatistics") && answer.is_success() {
                    answer.body = self.with_statistics(name, &answer.body).await;
                }
                // Every index is complete at once.
                answer.headers.set("x-ms-documentdb-collection-index-transformation-progress", "100");
                answer
            }
            (Target::Database(database), &Method::DELETE) => {
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success() {
                    self.containers.forget(|known| known.database == *database);
                    self.forget(&ask.path).await;
                }
                answer
            }
            _ => self.on_others(&ask).await,
        }
    }

    async fn on_others(&self, ask: &Ask) -> Answer {
        let segments = segments(&ask.path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (segments.as_slice(), &ask.method) {
            ([], &Method::GET) => self.account(ask).await,
            (["offers"], &Method::GET | &Method::POST) => self.offers.answer(ask, None, self.clock.now()),
            (["offers", id], _) => self.offers.answer(ask, Some(id), self.clock.now()),
            (["dbs"], &Method::POST) if !is_query(ask) => self.create_database(ask).await,
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
                if is_query(ask) && !names_keys(ask) && !ask.headers.is_true(CROSS_PARTITION) =>
            {
                Answer::bad_request(NOT_CROSS_PARTITION)
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

    /// The account's description. It is the first thing that every client reads, so a wrong key is told here.
    async fn account(&self, ask: &Ask) -> Answer {
        if !signature::allows(ask) {
            return Answer::error(
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

    /// A list that the emulator has, read or queried.
    async fn listed(&self, ask: &Ask, path: &str, member: &str, parent: &str) -> Answer {
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

    /// Drops what was kept for a database or container that is gone.
    async fn forget(&self, path: &str) {
        self.shelf.forget(&segments(path).join("/"));
        let mut rids = Vec::new();
        let databases = self.emulator.execute(&Ask::new(Method::GET, "/dbs")).await;
        for database in list::items(&databases.body, "Databases") {
            let path = format!("/dbs/{}/colls", encode_segment(database["id"].as_str().unwrap_or_default()));
            let containers = self.emulator.execute(&Ask::new(Method::GET, path)).await;
            let containers = list::items(&containers.body, "DocumentCollections");
            rids.extend(
                containers.into_iter().chain([database]).filter_map(|item| item["_rid"].as_str().map(str::to_owned)),
            );
        }
        self.offers.retain(|rid| rids.iter().any(|known| known == rid));
    }

    /// A container's description with how many documents its physical partitions have.
    async fn with_statistics(&self, name: &ContainerName, description: &Bytes) -> Bytes {
        let (Ok(container), Ok(mut description)) =
            (self.containers.get(name).await, serde_json::from_slice::<Value>(description))
        else {
            return description.clone();
        };
        let log = container.read().await;
        let statistics = container.ranges().into_iter().map(|range| {
            let documents = log.documents_in(&range.range);
            let bytes: usize = documents.iter().map(|(_, document)| document.text.len()).sum();
            json!({"id": range.id, "sizeInKB": bytes.div_ceil(1024), "documentCount": documents.len(), "partitionKeys": []})
        });
        description["statistics"] = statistics.collect();
        description.to_string().into()
    }

    async fn create_database(&self, ask: &Ask) -> Answer {
        let throughput = match offers::asked(ask) {
            Ok(throughput) => throughput,
            Err(answer) => return *answer,
        };
        let description: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        if let Err(message) = check_id(&description) {
            return Answer::bad_request(message);
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

    async fn on_documents(&self, container: &Arc<Container>, target: &Target, ask: &Ask) -> Answer {
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
            Method::POST if !is_document && is_query(ask) && !names_keys(ask) => match for_the_client(container, ask) {
                Some(answer) => answer,
                None => self.pages.read(container, ask).await,
            },
            Method::POST if !is_document && is_query(ask) => self.pages.read(container, ask).await,
            Method::POST if !is_document && ask.headers.is_true(header::IS_BATCH) => {
                detached(container, ask, |container, ask| async move { batch::run(&container, &ask).await }).await
            }
            _ if names_script(ask) => Answer::error(
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

    async fn create_container(&self, database: &str, ask: &Ask) -> Answer {
        let content = match offers::asked(ask) {
            Ok(content) => content,
            Err(answer) => return *answer,
        };
        let mut body: Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        if let Err(message) = check_description(&body) {
            return Answer::bad_request(message);
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
            return Answer::error(500, None, "InternalServerError", error.to_string());
        }
        // The container may have been made again: its description is what is there now.
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

/// Runs a write to its end even when the client goes away in the middle: the emulator and the log must agree.
async fn detached<F, W>(container: &Arc<Container>, ask: &Ask, write: W) -> Answer
where
    W: FnOnce(Arc<Container>, Ask) -> F,
    F: Future<Output = Answer> + Send + 'static,
{
    let work = write(Arc::clone(container), ask.clone());
    tokio::spawn(work)
        .await
        .unwrap_or_else(|_| Answer::error(500, None, "InternalServerError", "the write was interrupted"))
}

/// How many physical partitions the service makes at first for a throughput.
fn partitions_for(content: Option<&Value>) -> u32 {
    let settings = content.map(|content| {
        content["offerAutopilotSettings"]["maxThroughput"].as_u64().or_else(|| content["offerThroughput"].as_u64())
    });
    let partitions = settings.flatten().unwrap_or(1).div_ceil(THROUGHPUT_OF_A_PARTITION);
    u32::try_from(partitions).unwrap_or(MAX_PARTITIONS).min(MAX_PARTITIONS)
}

/// The plan of a query.
fn planned(container: &Container, ask: &Ask) -> Answer {
    let plan = || {
        let statement = Statement::read(&ask.body)?;
        let features = ask.headers.get("x-ms-cosmos-supported-query-features").unwrap_or_default();
        if let Some(feature) = sql::missing_feature(&statement, features) {
            return Err(SqlError::Unsupported(format!("the client does not know how to put together: {feature}")));
        }
        sql::plan(&statement, container.partitioning())
    };
    plan().map_or_else(SqlError::into_answer, |plan| Answer::json(200, plan.to_string()))
}

/// Whether a query is bound to a partition key or a range of them.
fn names_keys(ask: &Ask) -> bool {
    [header::PARTITION_KEY, header::RANGE_ID, header::START_EPK].iter().any(|name| ask.headers.get(name).is_some())
}

/// What the service's front says to a query over all partitions that it does not put together: the client shall ask
/// for a plan and do it. Without the permission to ask all partitions it says that one is needed.
fn for_the_client(container: &Container, ask: &Ask) -> Option<Answer> {
    let statement = Statement::read(&ask.body).ok()?;
    let plan = sql::plan(&statement, container.partitioning()).unwrap_or_default();
    let range = &plan["queryRanges"][0];
    let features = ask.headers.get("x-ms-cosmos-supported-query-features").unwrap_or_default();
    let is_plain = sql::missing_feature(&statement, features).is_none();
    if is_plain && range["min"].is_string() && range["min"] == range["max"] {
        // Its filter names the partition key.
        return None;
    }
    if !ask.headers.is_true(CROSS_PARTITION) {
        return Some(Answer::bad_request(NOT_CROSS_PARTITION));
    }
    if container.ranges().len() < 2 || !sql::needs_merging(&statement) {
        return None;
    }
    let mut answer = Answer::error(
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

/// Whether a write asks for triggers: without them it would be another write.
fn names_script(ask: &Ask) -> bool {
    ["x-ms-documentdb-pre-trigger-include", "x-ms-documentdb-post-trigger-include"]
        .iter()
        .any(|name| ask.headers.get(name).is_some_and(|value| !value.is_empty()))
}

/// A client that knows a container by its resource id is told when it was made again under its name: sub-status 1024.
fn of_another_container(container: &Container, ask: &Ask) -> Option<Answer> {
    let intended = ask.headers.get("x-ms-cosmos-intended-collection-rid").filter(|rid| !rid.is_empty())?;
    (intended != container.rid()).then(|| {
        Answer::error(
            400,
            Some(1024),
            "BadRequest",
            "The container with the intended resource id was deleted or made again",
        )
    })
}

/// What a description of a container may say.
fn check_description(description: &Value) -> Result<(), String> {
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

/// What the service takes for the name of a database or container.
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

/// A document that is addressed by its resource id gets its name.
async fn with_name(container: &Container, target: Target, ask: &mut Ask) -> Target {
    let Target::Document(name, id) = &target else { return target };
    if !addresses::could_be_document(id) {
        return target;
    }
    let Some(found) = container.id_of(id).await else { return target };
    ask.path = name.document(&found);
    Target::Document(name.clone(), found)
}

/// The figures that a client asked for: there is nothing to measure here, so all of it is one step.
fn metrics(ask: &Ask, answer: &mut Answer) {
    if answer.status != 200 || !is_query(ask) {
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

/// What clients that plan queries themselves read of the service's engine.
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

/// The system's own members are never indexed, and a policy says so even when nobody asked.
fn indexing(description: &mut Value) {
    let etag = json!({ "path": "/\"_etag\"/?" });
    let Some(description) = description.as_object_mut() else { return };
    let policy = description.entry("indexingPolicy").or_insert_with(|| json!({}));
    let Some(policy) = policy.as_object_mut() else { return };
    let mode = policy.entry("indexingMode").or_insert_with(|| "consistent".into());
    let is_indexed = mode.as_str().is_some_and(|mode| !mode.eq_ignore_ascii_case("none"));
    policy.entry("automatic").or_insert(is_indexed.into());
    policy.entry("includedPaths").or_insert_with(|| if is_indexed { json!([{ "path": "/*" }]) } else { json!([]) });
    // Kinds of index are a thing of the past: the service takes and forgets them.
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

fn is_query(ask: &Ask) -> bool {
    ask.headers.is_true("x-ms-documentdb-isquery") || ask.headers.is_true("x-ms-documentdb-query")
}

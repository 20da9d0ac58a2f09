//! The entry point of the account: decides for each request whether the emulator or this module handles it.

mod account;
mod create;
mod documents;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use axum::http::Method;
use bytes::Bytes;
use serde_json::{Value, json};

use self::{
    create::check_description,
    documents::{metrics, of_another_container, way_up, with_name},
};
use super::{
    addresses,
    container::{Clock, Containers, LocalContainer},
    emulator::Emulator,
    list,
    message::{Ask, ContainerName, GatewayAnswer, Target, encode_segment, header, segments},
    offers::Offers,
    pages::PageCache,
    shelf::ResourceTree,
};
use crate::cosmos::Status;

/// The maximum length of a database's or container's name.
const MAX_NAME: usize = 255;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Gateway {
    emulator: Arc<Emulator>,
    containers: Containers,
    pages: PageCache,
    offers: Offers,
    shelf: ResourceTree,
    clock: Arc<Clock>,
    partitions: u32,
    /// Why changes are refused, if they are.
    frozen: OnceLock<String>,
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
            pages: PageCache::default(),
            offers: Offers::default(),
            shelf: ResourceTree::default(),
            clock,
            partitions,
            frozen: OnceLock::new(),
            charges: Mutex::default(),
        }
    }

    /// Returns the request units charged so far for the documents of a container.
    pub fn charged(&self, name: &ContainerName) -> f64 {
        let charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
        charges.get(&name.to_string()).map_or(0.0, |thousandths| *thousandths as f64 / 1000.0)
    }

    fn charge(&self, name: &ContainerName, answer: &GatewayAnswer) {
        let charge = answer.headers.get("x-ms-request-charge").and_then(|text| text.parse::<f64>().ok());
        if let Some(charge) = charge.filter(|charge| *charge > 0.0) {
            let mut charges = self.charges.lock().unwrap_or_else(PoisonError::into_inner);
            *charges.entry(name.to_string()).or_default() += (charge * 1000.0).round() as u64;
        }
    }

    /// From now on, refuses changes for this reason.
    pub fn freeze(&self, reason: String) {
        let _ = self.frozen.set(reason);
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    pub async fn container(&self, name: &ContainerName) -> Result<Arc<LocalContainer>, GatewayAnswer> {
        self.containers.get(name).await
    }

    /// Deletes every expired document.
    pub async fn sweep(&self) {
        for container in self.containers.all() {
            container.sweep().await;
        }
    }

    /// Answers one request.
    pub async fn handle(&self, ask: Ask) -> GatewayAnswer {
        let mut answer = self.answer(ask).await;
        answer.headers.set("x-ms-activity-id", super::guid());
        answer
    }

    async fn answer(&self, mut ask: Ask) -> GatewayAnswer {
        if let Some(reason) = self.frozen.get().filter(|_| ask.is_write()) {
            let Status { code, sub } = Status::OF_A_MOMENT;
            return GatewayAnswer::error(code, Some(sub.into()), "Forbidden", reason);
        }
        while ask.path.len() > 1 && ask.path.ends_with('/') {
            ask.path.pop();
        }
        // Every read sees every write, whatever session it belongs to. The token may also come from an earlier
        // container.
        ask.headers.remove(header::SESSION);
        // Responses are always text: the SDKs recognize it, and the log works on text.
        ask.headers.remove(header::FORMATS);
        let named = addresses::by_name(&self.emulator, &ask.path).await;
        // A link consists of names only or of resource ids only, because an item's name may look like another item's
        // resource id.
        let has_rids = named.is_some();
        if let Some(path) = named {
            ask.path = path;
        }
        let target = Target::of(&ask.path);
        if let Some(answer) = way_up(&target, &ask) {
            return answer;
        }
        match (&target, &ask.method) {
            (Target::Documents(name), _) | (Target::Document(name, _), _) => {
                let container = match self.containers.get(name).await {
                    Ok(container) => container,
                    // By this a client tells a container that is gone from a document that is.
                    Err(mut answer) if answer.status == Status::NO_OWNER.code => {
                        answer.headers.set(header::SUBSTATUS, Status::NO_OWNER.sub.to_string());
                        return answer;
                    }
                    Err(answer) => return answer,
                };
                if let Some(answer) = of_another_container(&container, &ask) {
                    return answer;
                }
                let target =
                    if has_rids { with_name(&container, target.clone(), &mut ask).await } else { target.clone() };
                let early = match container.past() {
                    Some(past) => past.answer(&container, &target, &ask).await,
                    None => None,
                };
                let mut answer = match early {
                    Some(answer) => answer,
                    None => self.on_documents(&container, &target, &ask).await,
                };
                if let Some(past) = container.past() {
                    past.label(&mut answer);
                }
                self.charge(name, &answer);
                metrics(&ask, &mut answer);
                answer.headers.set("x-ms-alt-content-path", format!("dbs/{}/colls/{}", name.database, name.container));
                answer.headers.set("x-ms-content-path", container.rid());
                answer
            }
            (Target::Containers(database), &Method::POST) if !ask.is_query() => {
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
                    return GatewayAnswer::bad_request(message);
                }
                let known = self.emulator.execute(&Ask::new(Method::GET, name.path())).await;
                let known: Value = serde_json::from_slice(&known.body).unwrap_or_default();
                if known["id"].is_string() && known["uniqueKeyPolicy"] != description["uniqueKeyPolicy"] {
                    return GatewayAnswer::error(
                        403,
                        None,
                        "Forbidden",
                        "Container unique key policy cannot be changed",
                    );
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
                // Every index is always complete.
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

    /// Drops the state of a database or container that was deleted.
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

    /// Returns a container's description with the number of documents in its physical partitions.
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
}

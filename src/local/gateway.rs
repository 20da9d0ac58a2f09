//! The account's front: decides for each request what the emulator does and what is added here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::Method;

use super::batch;
use super::container::{Clock, Container, Containers};
use super::emulator::Emulator;
use super::feed;
use super::message::{Answer, Ask, ContainerName, Target, header};
use super::pages::Pages;

/// See the module's description.
#[derive(Debug)]
pub(super) struct Gateway {
    emulator: Arc<Emulator>,
    containers: Containers,
    pages: Pages,
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
    pub async fn handle(&self, mut ask: Ask) -> Answer {
        while ask.path.len() > 1 && ask.path.ends_with('/') {
            ask.path.pop();
        }
        // Answers are always text: the SDKs recognise it, and the log works on text.
        ask.headers.remove(header::FORMATS);
        let target = Target::of(&ask.path);
        match (&target, &ask.method) {
            (Target::Documents(name), _) | (Target::Document(name, _), _) => {
                let container = match self.containers.get(name).await {
                    Ok(container) => container,
                    Err(answer) => return answer,
                };
                let answer = self.on_documents(&container, &target, &ask).await;
                self.charge(name, &answer);
                answer
            }
            (Target::Containers(database), &Method::POST) if !is_query(&ask) => {
                self.create_container(database, &ask).await
            }
            (Target::Container(name), &Method::DELETE) => {
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success() {
                    self.containers.forget(|known| known == name);
                }
                answer
            }
            (Target::Container(name), &Method::PUT) => {
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success()
                    && let Ok(container) = self.containers.get(name).await
                {
                    let now = self.emulator.execute(&Ask::new(Method::GET, name.path())).await;
                    container.described(&now.body).await;
                }
                answer
            }
            (Target::Database(database), &Method::DELETE) => {
                let answer = self.emulator.execute(&ask).await;
                if answer.is_success() {
                    self.containers.forget(|known| known.database == *database);
                }
                answer
            }
            _ => self.emulator.execute(&ask).await,
        }
    }

    async fn on_documents(&self, container: &Arc<Container>, target: &Target, ask: &Ask) -> Answer {
        let is_document = matches!(target, Target::Document(..));
        match ask.method {
            Method::GET if is_document => {
                let _reading = container.read().await;
                self.emulator.execute(ask).await
            }
            Method::GET if ask.headers.get("a-im").is_some() => feed::read(container, ask).await,
            Method::GET => self.pages.read(container, ask).await,
            Method::POST if !is_document && ask.headers.is_true(header::IS_QUERY_PLAN) => {
                self.emulator.execute(ask).await
            }
            Method::POST if !is_document && is_query(ask) => self.pages.read(container, ask).await,
            Method::POST if !is_document && ask.headers.is_true(header::IS_BATCH) => {
                detached(container, ask, |container, ask| async move { batch::run(&container, &ask).await }).await
            }
            Method::PATCH if is_document && batch::has_condition(&ask.body) => {
                Answer::bad_request("A patch with a condition is not evaluated here: read, check and use If-Match")
            }
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
        let mut answer = self.emulator.execute(ask).await;
        if answer.status != 201 {
            return answer;
        }
        let body: serde_json::Value = serde_json::from_slice(&ask.body).unwrap_or_default();
        let name = ContainerName::new(database, body["id"].as_str().unwrap_or_default());
        let throughput = ask.headers.get("x-ms-offer-throughput").and_then(|text| text.trim().parse().ok());
        if let Err(error) = self.emulator.repartition(&name, self.partitions, throughput).await {
            return Answer::error(500, None, "InternalServerError", error.to_string());
        }
        // The container may have been made again: its description is what is there now.
        let now = self.emulator.execute(&Ask::new(Method::GET, name.path())).await;
        if let Some(etag) = now.headers.get("etag") {
            answer.headers.set("etag", etag);
        }
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

fn is_query(ask: &Ask) -> bool {
    ask.headers.is_true("x-ms-documentdb-isquery") || ask.headers.is_true("x-ms-documentdb-query")
}

//! The embedded Azure Cosmos DB, and the trigger that simulates the Azure Functions host.
//!
//! A client's request goes `server` -> `gateway` -> `emulator`. Every write is also recorded in the container's `log`.
//! The log serves the change feed (`feed`), queries (`sql`) and TTL, because the emulator has neither a feed nor
//! expiry, and its queries differ from the service's. `addresses` turns resource ids into names; `offers` and `shelf`
//! keep resources that have no effect here.
//!
//! Nothing is kept on disk: the account is empty after every start.

mod addresses;
mod batch;
mod container;
pub mod demo;
mod emulator;
pub mod environment;
mod feed;
mod gateway;
mod inside;
mod keys;
mod list;
mod log;
mod message;
mod offers;
mod pages;
pub mod past;
mod patch;
mod server;
mod shelf;
mod signature;
mod sql;
pub mod trigger;
mod unique;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::config::EMULATOR_KEY;
use container::Clock;
use emulator::Emulator;
pub use emulator::EmulatorError;
use gateway::Gateway;
pub use inside::{Call, Connection, Inside, Partly, RequestOutcome};
use message::{Ask, ContainerName};

/// How often to look for expired documents.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The settings of the local account.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// TCP port on 127.0.0.1; 0 takes any free one.
    pub port: u16,
    /// Physical partitions of containers created through the account (1 to 100). This is also the number of leases that
    /// can be processed in parallel.
    pub partitions: u32,
    /// How many bytes of document versions each container keeps for the all-versions-and-deletes mode; the oldest
    /// are dropped first. The latest version of every document is always kept.
    pub retained_bytes: usize,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self { port: 0, partitions: 4, retained_bytes: 512 * 1024 * 1024 }
    }
}

/// Why the local account failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// The port could not be opened.
    #[error("open port {port} on 127.0.0.1 (another program may use it: choose another port, or 0 for any free one)")]
    Listen {
        /// The requested port.
        port: u16,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// An option has an invalid value.
    #[error("{0}")]
    Option(String),
    /// The emulator failed.
    #[error(transparent)]
    Emulator(#[from] EmulatorError),
    /// A request to the account failed.
    #[error("{what}: status {status}, {message}")]
    Refused {
        /// The attempt.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The account's message.
        message: String,
    },
}

impl LocalError {
    fn refused(what: impl Into<String>, answer: &message::GatewayAnswer) -> Self {
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let message = body["message"].as_str().unwrap_or("no reason given").to_owned();
        Self::Refused { what: what.into(), status: answer.status, message }
    }
}

/// An Azure Cosmos DB account on this machine, for any SDK: in memory, on loopback, gone with the process.
#[derive(Debug)]
pub struct LocalCosmos {
    endpoint: Url,
    gateway: Arc<Gateway>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl LocalCosmos {
    /// Opens the port and starts answering.
    pub async fn start(options: LocalOptions) -> Result<Self, LocalError> {
        if !(1..=100).contains(&options.partitions) {
            return Err(LocalError::Option(format!("partitions: 1 to 100, not {}", options.partitions)));
        }
        let listen = |source| LocalError::Listen { port: options.port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port)).await.map_err(listen)?;
        let port = listener.local_addr().map_err(listen)?.port();
        let endpoint = Url::parse(&format!("http://127.0.0.1:{port}/"))
            .map_err(|error| LocalError::Option(format!("endpoint: {error}")))?;
        let emulator = Emulator::new(endpoint.clone(), Clock::default())?;
        let gateway = Arc::new(Gateway::new(emulator, options.partitions, options.retained_bytes));
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(server::serve(listener, Arc::clone(&gateway), stop.clone())),
            tokio::spawn(sweep(Arc::clone(&gateway), stop.clone())),
        ];
        Ok(Self { endpoint, gateway, stop, tasks })
    }

    /// Creates an account without a port, for simulations in one thread. Its time starts at `now` and follows the
    /// runtime's clock. It can only be reached through [`LocalCosmos::inside`].
    ///
    /// # Errors
    /// When the emulator cannot be created.
    pub fn simulated(now: u64, options: LocalOptions) -> Result<Self, LocalError> {
        let endpoint = inside::address();
        let emulator = Emulator::new(endpoint.clone(), Clock::simulated(now))?;
        let gateway = Arc::new(Gateway::new(emulator, options.partitions, options.retained_bytes));
        Ok(Self { endpoint, gateway, stop: CancellationToken::new(), tasks: Vec::new() })
    }

    /// Connects clients in this process to the account without a socket. They use the connection's address until it is
    /// dropped. `line` decides the outcome of each request.
    pub fn inside(&self, line: Arc<dyn Connection>) -> Inside {
        Inside::open(Arc::clone(&self.gateway), self.endpoint.clone(), line)
    }

    /// Returns the account's time in epoch seconds.
    pub fn now(&self) -> i64 {
        i64::try_from(self.gateway.clock().now()).unwrap_or(i64::MAX)
    }

    /// The endpoint for SDKs: `http://127.0.0.1:<port>/`.
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The account key. It is public and not checked: the account can only be reached from this machine.
    pub fn key(&self) -> &str {
        EMULATOR_KEY
    }

    /// The connection string: endpoint and key in the format that settings accept.
    pub fn connection_string(&self) -> String {
        format!("AccountEndpoint={};AccountKey={EMULATOR_KEY};", self.endpoint)
    }

    /// Splits a physical partition in two, as the service does when it grows; returns the children's range ids.
    pub async fn split(&self, database: &str, container: &str, range_id: &str) -> Result<Vec<String>, LocalError> {
        let name = ContainerName::new(database, container);
        let range = number(range_id)?;
        let found = self.gateway.container(&name).await;
        let found = found.map_err(|answer| LocalError::refused(format!("open {name}"), &answer))?;
        let done = found.reshape(self.gateway.emulator().split(&name, range)).await;
        let done = done.map_err(|answer| LocalError::refused("read the partition key ranges", &answer))?;
        Ok(done?.iter().map(ToString::to_string).collect())
    }

    /// Merges two adjacent physical partitions; returns the new range id.
    pub async fn merge(&self, database: &str, container: &str, left: &str, right: &str) -> Result<String, LocalError> {
        let name = ContainerName::new(database, container);
        let (left, right) = (number(left)?, number(right)?);
        let found = self.gateway.container(&name).await;
        let found = found.map_err(|answer| LocalError::refused(format!("open {name}"), &answer))?;
        let done = found.reshape(self.gateway.emulator().merge(&name, left, right)).await;
        let done = done.map_err(|answer| LocalError::refused("read the partition key ranges", &answer))?;
        Ok(done?.to_string())
    }

    /// Returns the ids of a container's physical partitions.
    pub async fn ranges(&self, database: &str, container: &str) -> Result<Vec<String>, LocalError> {
        let name = ContainerName::new(database, container);
        let found = self.gateway.container(&name).await;
        let found = found.map_err(|answer| LocalError::refused(format!("open {name}"), &answer))?;
        Ok(found.ranges().into_iter().map(|range| range.id).collect())
    }

    /// Returns the request units charged so far for the documents of a container, by the emulator's pricing model.
    pub fn charged(&self, database: &str, container: &str) -> f64 {
        self.gateway.charged(&ContainerName::new(database, container))
    }

    /// Moves the clock that decides about expiry forward, for tests that cannot wait.
    pub fn advance_clock(&self, by: Duration) {
        self.gateway.clock().advance(by);
    }

    /// Creates a database or container; returns false if it exists.
    async fn create(&self, path: &str, body: serde_json::Value) -> Result<bool, LocalError> {
        let ask = Ask::new(Method::POST, path).with_body(body.to_string());
        let answer = self.gateway.handle(ask).await;
        match answer.status {
            201 => Ok(true),
            409 => Ok(false),
            _ => Err(LocalError::refused(format!("create in {path}"), &answer)),
        }
    }

    /// Creates a database unless it exists; returns whether it was created.
    pub async fn create_database(&self, database: &str) -> Result<bool, LocalError> {
        self.create("/dbs", serde_json::json!({ "id": database })).await
    }

    /// Creates a container from its REST description (`id`, `partitionKey`, ...) unless it exists; returns whether it
    /// was created.
    pub async fn create_container(&self, database: &str, description: serde_json::Value) -> Result<bool, LocalError> {
        let path = format!("{}/colls", ContainerName::new(database, "x").path().trim_end_matches("/colls/x"));
        self.create(&path, description).await
    }

    /// Deletes a container with everything in it; returns whether there was one.
    ///
    /// # Errors
    /// When the account refuses.
    pub async fn delete_container(&self, database: &str, container: &str) -> Result<bool, LocalError> {
        let path = ContainerName::new(database, container).path();
        let answer = self.gateway.handle(Ask::new(Method::DELETE, &path)).await;
        match answer.status {
            204 => Ok(true),
            404 => Ok(false),
            _ => Err(LocalError::refused(format!("delete {path}"), &answer)),
        }
    }

    /// Closes the port and stops background tasks.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::debug!(%error, "a task of the local account ended badly");
            }
        }
    }
}

impl Drop for LocalCosmos {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Returns a random GUID in .NET's spelling.
fn guid() -> String {
    let hex = format!("{:032x}", rand::random::<u128>());
    format!("{}-{}-4{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

fn number(range_id: &str) -> Result<u32, LocalError> {
    range_id.parse().map_err(|_| LocalError::Option(format!("{range_id} is not a partition key range id: a number is")))
}

async fn sweep(gateway: Arc<Gateway>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP_EVERY)).await.is_some() {
        gateway.sweep().await;
    }
}

//! A connection to a MongoDB deployment.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use bson::{Document, Timestamp, doc};
use chrono::{DateTime, Utc};
use mongodb::{
    Client, Database,
    event::{EventHandler, sdam::SdamEvent},
    options::ClientOptions,
};

use super::{Address, Dialect, failure::failure};
use crate::cosmos::{Disposition, Failure, RETRY_TIMEOUT, Retry, require_time};

/// How long a command waits for a server that does not answer, unless the address says otherwise.
const SELECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The oldest wire version that the driver supports (4.4).
const OLDEST: i32 = 9;
/// Servers below this do not support `$changeStreamSplitLargeEvent` (7.0).
const SPLITS: i32 = 21;
/// Servers below this do not keep images (6.0).
const IMAGES: i32 = 17;

/// The connections of this process.
static OPEN: Mutex<Vec<Client>> = Mutex::new(Vec::new());

/// Closes the connections of this process, for callers that end its runtime. The driver's tasks depend on each other:
/// one that is still closing a cursor then would panic.
pub async fn close() {
    let open = std::mem::take(&mut *OPEN.lock().unwrap_or_else(PoisonError::into_inner));
    for client in open {
        // A cursor that is still in use prevents an orderly end.
        let _ = tokio::time::timeout(GOOD_ORDER, client.shutdown()).await;
    }
}

/// How long connections may take to close.
const GOOD_ORDER: Duration = Duration::from_secs(1);

/// One deployment. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Mongo {
    pub(super) client: Client,
    pub(super) address: Address,
    /// The kind of server.
    pub dialect: Dialect,
    wire: i32,
    has_transactions: bool,
    is_sharded: bool,
}

impl Mongo {
    /// Connects, and asks the server what it is unless the dialect is given.
    ///
    /// # Errors
    /// When the address is wrong, the server cannot be reached or refuses, or it is too old for the driver.
    pub async fn connect(address: Address, dialect: Option<Dialect>) -> Result<Self, Failure> {
        let fail = |e: &mongodb::error::Error| failure(&address, &format!("connect to {address}"), e);
        let mut options = ClientOptions::parse(address.uri()).await.map_err(|e| fail(&e))?;
        options.app_name.get_or_insert_with(|| "cosmos-rewind".into());
        options.server_selection_timeout.get_or_insert(SELECTION_TIMEOUT);
        // For a server that is too old, as for one that does not answer, the driver only gives up after a while.
        let spoken = Arc::new(AtomicI32::new(0));
        let seen = spoken.clone();
        options.sdam_event_handler = Some(EventHandler::callback(move |event| {
            if let SdamEvent::ServerDescriptionChanged(change) = event
                && let Some(wire) = change.new_description.max_wire_version()
            {
                seen.store(wire, Ordering::Relaxed);
            }
        }));
        let client = Client::with_options(options).map_err(|e| fail(&e))?;
        OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(client.clone());
        let admin = client.database("admin");
        let hello = match admin.run_command(doc! { "hello": 1 }).await {
            Ok(hello) => hello,
            Err(_) if (1..OLDEST).contains(&spoken.load(Ordering::Relaxed)) => {
                return Err(Failure::invalid(
                    format!("connect to {address}"),
                    format!(
                        "the server speaks wire version {}, and {OLDEST} (MongoDB 4.4) is the oldest that is understood; \
                         an Azure account of server version 3.6 to 4.2 has to be upgraded first",
                        spoken.load(Ordering::Relaxed)
                    ),
                ));
            }
            Err(e) => return Err(fail(&e)),
        };
        let build = match dialect {
            None => match admin.run_command(doc! { "buildInfo": 1 }).await.map_err(|e| fail(&e)) {
                // A caller without the right to ask does not need the answer.
                Err(failure) if failure.disposition != Disposition::Transient => Document::new(),
                build => build?,
            },
            Some(_) => Document::new(),
        };
        let dialect = dialect.unwrap_or_else(|| Dialect::recognised(&address, &hello, &build));
        let is_sharded = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let in_set = hello.contains_key("setName") || is_sharded;
        Ok(Self {
            wire: hello.get_i32("maxWireVersion").unwrap_or(0),
            has_transactions: in_set
                && hello.contains_key("logicalSessionTimeoutMinutes")
                && dialect != Dialect::CosmosRu,
            is_sharded,
            client,
            address,
            dialect,
        })
    }

    /// The address, without any secret.
    pub fn shown(&self) -> &str {
        self.address.shown()
    }

    pub(super) fn database(&self, name: &str) -> Database {
        self.client.database(name)
    }

    pub(super) fn fail(&self, context: &str, error: &mongodb::error::Error) -> Failure {
        failure(&self.address, context, error)
    }

    /// Whether events of more than 16 MB are split into parts.
    pub(super) fn splits_events(&self) -> bool {
        self.dialect == Dialect::MongoDb && self.wire >= SPLITS
    }

    /// Whether it keeps what documents were before and after a change, for collections that ask for it.
    pub(super) fn keeps_images(&self) -> bool {
        self.dialect == Dialect::MongoDb && self.wire >= IMAGES
    }

    /// Whether it supports transactions.
    pub(super) fn has_transactions(&self) -> bool {
        self.has_transactions
    }

    /// Whether collections may be sharded: only a router says that it is one.
    pub(super) fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    /// The server's current time, by which changes are dated: that of its clock, or of its last operation when another
    /// member's clock is ahead of it. `None` when it dates no changes: capture does.
    ///
    /// # Errors
    /// When it does not answer, or does not say.
    pub async fn now(&self) -> Result<Option<DateTime<Utc>>, Failure> {
        if self.dialect == Dialect::CosmosRu {
            return Ok(None);
        }
        let ask = async || {
            let hello = self.database("admin").run_command(doc! { "hello": 1 }).await;
            hello.map_err(|e| self.fail("ask for the time", &e))
        };
        let hello = Retry::for_at_most(RETRY_TIMEOUT).run(ask).await?;
        let clock = hello.get_datetime("localTime").ok().map(|at| at.timestamp_millis().div_euclid(1000));
        let last = hello.get_timestamp("operationTime").ok().map(|at| i64::from(at.time));
        require_time(clock.max(last).and_then(|second| DateTime::from_timestamp(second, 0))).map(Some)
    }

    /// The time of the deployment's last operation; `None` when it has none.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn operation_time(&self) -> Result<Option<Timestamp>, Failure> {
        let answer = self.database("admin").run_command(doc! { "ping": 1 }).await.map_err(|e| self.fail("ping", &e))?;
        Ok(answer.get_timestamp("operationTime").ok())
    }
}

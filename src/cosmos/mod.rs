//! Azure Cosmos DB as this product uses it: one lazily opened connection, raw JSON in and out, errors turned into
//! decisions. Documents travel as text through the driver, never as trees of values.

pub mod bulk;
mod change_feed;
mod clock;
mod container;
mod credentials;
mod definition;
mod failure;
mod feed;
mod feed_page;
mod feed_range;
mod gate;
mod hash_range;
mod items;
mod late;
mod opening;
pub(crate) mod own_task;
pub mod provision;
mod query;
mod remedy;
mod retry;
mod ru_limiter;
mod status;
pub mod transport;
mod writers;

use std::sync::Arc;

use azure_data_cosmos::{AccountEndpoint, AccountReference, CosmosClient, CosmosClientBuilder, RoutingStrategy};
use azure_data_cosmos_driver::{
    CosmosDriver, CosmosDriverRuntimeBuilder, DriverOptions,
    models::AccountReference as DriverAccount,
    options::{
        BinaryEncodingOptions, ConnectionPoolOptions, OperationOptions, ServerCertificateValidation,
        ThrottlingRetryOptions, UserAgentSuffix,
    },
};
use futures::FutureExt as _;

pub use change_feed::{ChangeFeed, FeedMode, FeedStart};
pub use clock::{point_in_time, require_time};
pub use container::{Container, Page, Written};
pub(crate) use credentials::token as token_credential;
pub use failure::{Disposition, Failure, RuMeter};
pub use feed::{Feed, FeedSource};
pub use feed_page::{FeedItem, FeedPage};
pub use feed_range::FeedRange;
pub use gate::Gate;
pub use hash_range::{HashPlace, HashRange, HashSpace, RangeWalk, Shard};
pub use items::{Answer, InContainer, Items, PageStream};
pub(crate) use late::late_transport;
pub use opening::Opening;
pub use query::{Pages, Param, sql_path};
pub use remedy::Remedy;
pub use retry::{RETRY_TIMEOUT, Retry};
pub use ru_limiter::RuLimiter;
pub use status::Status;
pub use writers::{Concurrency, Observer, WriteAction, WriteJob, WriteTally, Writers};

use crate::{
    change::key::KeyPaths,
    config::{AccountSettings, Credential, is_loopback},
};

/// One account. Cloning shares the connection; nothing is contacted until the first operation.
#[derive(Clone)]
pub struct Cosmos {
    shared: Arc<Shared>,
}

struct Shared {
    account: AccountSettings,
    sessions: bool,
    switch: bulk::Switch,
    driver: Opening<Arc<CosmosDriver>>,
    client: Opening<CosmosClient>,
    meter: RuMeter,
}

impl std::fmt::Debug for Cosmos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cosmos").field("endpoint", &self.shared.account.endpoint.as_str()).finish_non_exhaustive()
    }
}

impl Cosmos {
    /// Stores the account's settings; contacts nobody.
    pub fn new(account: AccountSettings) -> Self {
        Self::open(account, true)
    }

    /// The same for a process that only writes: nothing is read back, so session tokens are not kept.
    pub fn for_writing(account: AccountSettings) -> Self {
        Self::open(account, false)
    }

    fn open(account: AccountSettings, sessions: bool) -> Self {
        let (driver, client) = (Opening::default(), Opening::default());
        let switch = bulk::Switch::new(account.packs);
        let shared = Shared { account, sessions, switch, driver, client, meter: RuMeter::default() };
        Self { shared: Arc::new(shared) }
    }

    /// The account's address, without any secret.
    pub fn endpoint(&self) -> &str {
        self.shared.account.endpoint.as_str()
    }

    /// Request units used through this connection so far.
    pub fn meter(&self) -> &RuMeter {
        &self.shared.meter
    }

    pub(self) fn switch(&self) -> &bulk::Switch {
        &self.shared.switch
    }

    /// Opens a container: reads its definition, so that key paths are never assumed.
    ///
    /// # Errors
    /// When the account cannot be reached, refuses the caller, or has no such container.
    pub async fn container(&self, database: &str, container: &str) -> Result<Container, Failure> {
        let context = || format!("open container {database}/{container}");
        let open = async || {
            let driver = self.driver().await?;
            let (asked, database, container) = (driver.clone(), database.to_owned(), container.to_owned());
            let resolve =
                async move { asked.resolve_container(&database, &container, OperationOptions::default()).await };
            Ok((own_task::run(resolve).await?.map_err(|e| Failure::from_driver(&e, context()))?, driver))
        };
        let (reference, driver) = Retry::for_at_most(RETRY_TIMEOUT).run_answered(&open).await?;
        let key_paths = KeyPaths::parse(reference.partition_key_definition().paths())
            .map_err(|problem| Failure::invalid(context(), problem))?;
        Ok(Container::new(self.clone(), driver, reference, key_paths))
    }

    /// The official client, to make databases and containers: it opens the account anew.
    ///
    /// # Errors
    /// When the account cannot be reached or refuses the caller.
    pub async fn client(&self) -> Result<CosmosClient, Failure> {
        let cosmos = self.clone();
        self.shared.client.get(|| async move { cosmos.connect_client().await }.boxed()).await
    }

    async fn connect_client(&self) -> Result<CosmosClient, Failure> {
        let account = &self.shared.account;
        let endpoint: AccountEndpoint = account.endpoint.as_str().parse().map_err(|_| {
            Failure::invalid("connect".into(), "the endpoint is not accepted by the client library".into())
        })?;
        let reference = match &account.credential {
            Credential::Key(key) => AccountReference::with_authentication_key(endpoint, key.expose().to_owned()),
            other => AccountReference::with_credential(endpoint, credentials::token(other)?),
        };
        let fail = |e| Failure::from_driver(&e, "connect".into());
        let runtime = azure_data_cosmos::CosmosRuntimeBuilder::from(self.runtime()?).build().await.map_err(fail)?;
        CosmosClientBuilder::new()
            .with_runtime(runtime)
            .with_binary_encoding_options(BinaryEncodingOptions::new().with_enabled(false))
            .build(reference, RoutingStrategy::PreferredRegions(Vec::new()))
            .await
            .map_err(fail)
    }

    /// The same account over a new connection without any cached state.
    pub fn afresh(&self) -> Self {
        Self::open(self.shared.account.clone(), self.shared.sessions)
    }

    /// Drops the driver, and with it every cached container definition: the next operation starts afresh. Used when the
    /// service says that something cached is no longer true (a container was deleted and recreated).
    pub fn reset(&self) {
        self.shared.driver.forget();
    }

    async fn driver(&self) -> Result<Arc<CosmosDriver>, Failure> {
        let cosmos = self.clone();
        self.shared.driver.get(|| async move { cosmos.connect().await }.boxed()).await
    }

    async fn connect(&self) -> Result<Arc<CosmosDriver>, Failure> {
        let account = &self.shared.account;
        let reference = match &account.credential {
            Credential::Key(key) => DriverAccount::with_account_key(account.endpoint.clone(), key.expose().to_owned()),
            other => DriverAccount::with_credential(account.endpoint.clone(), credentials::token(other)?),
        };
        let fail = |e| Failure::from_driver(&e, "connect".into());
        let runtime = self.runtime()?.build().await.map_err(fail)?;
        runtime.create_driver(DriverOptions::builder(reference).build()).await.map_err(fail)
    }

    fn runtime(&self) -> Result<CosmosDriverRuntimeBuilder, Failure> {
        let endpoint = &self.shared.account.endpoint;
        let fail = |e| Failure::from_driver(&e, "connect".into());
        let mut pool = ConnectionPoolOptions::builder();
        if endpoint.scheme() == "http" {
            pool = pool.with_is_http2_allowed(false);
        }
        if is_loopback(endpoint) {
            // The emulators sign their own certificates; a real account's certificate is always checked.
            pool = pool
                .with_server_certificate_validation(ServerCertificateValidation::RequiredUnlessEmulator)
                .with_proxy_allowed(false);
        }
        let mut builder = CosmosDriverRuntimeBuilder::new()
            .with_connection_pool(pool.build().map_err(fail)?)
            .with_default_operation_options(operation_options(self.shared.sessions));
        if let Some(transport) = transport::of(endpoint) {
            builder = transport.install(builder);
        }
        if let Ok(suffix) = UserAgentSuffix::try_from("cosmos-rewind") {
            builder = builder.with_user_agent_suffix(suffix);
        }
        Ok(builder)
    }
}

/// Asks for text on the wire and turns off hidden retries of 429: [`Retry`] does them, so that they are counted and
/// obey a deadline.
fn operation_options(sessions: bool) -> OperationOptions {
    let mut options = OperationOptions::default();
    options.session_capturing_disabled = Some(!sessions);
    options.binary_encoding = Some(BinaryEncodingOptions::new().with_enabled(false));
    let mut throttling = ThrottlingRetryOptions::default();
    throttling.max_retry_count = Some(0);
    options.throttling_retry_options = Some(throttling);
    options
}

//! Connects clients in this process to the account without a socket. With a paused clock, a request takes exactly as
//! long as a simulation decides.
//!
//! The driver's interface for this is internal, like the emulator's: when it changes, only this file and `emulator` do.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers as WireHeaders};
use azure_data_cosmos_driver::CosmosError;
use azure_data_cosmos_driver::diagnostics::RequestSentStatus;
use azure_data_cosmos_driver::driver::CosmosDriverRuntimeBuilder;
use azure_data_cosmos_driver::error::status_codes::TRANSPORT_IO_FAILED;
use azure_data_cosmos_driver::test::{
    ConnectionPoolOptions, HttpClientConfig, HttpClientFactory, HttpRequest, HttpResponse, TransportClient,
    TransportError,
};
use bytes::Bytes;
use serde_json::value::RawValue;
use url::Url;

use super::gateway::Gateway;
use super::message::{Ask, GatewayAnswer, Headers};
use crate::cosmos::transport::{self, Transport};

/// The properties of a request that simulations distinguish.
#[derive(Debug)]
pub struct Call<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path, percent-encoded.
    pub path: &'a str,
    /// Whether it is a page of a query, or a query plan request.
    pub is_query: bool,
    /// Whether its operations are independent, as in a bulk request.
    pub is_bulk: bool,
    /// Whether it reads a change feed.
    pub is_feed: bool,
    /// The body.
    pub body: &'a [u8],
}

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Applied, and answered after this time.
    Done(Duration),
    /// Answered with this status and sub-status, but not applied.
    Rejected(u16, u16),
    /// Applied, but answered with a 408.
    DoneAndFailed,
    /// Applied; the connection is cut before the response.
    DoneAndCut,
    /// Not applied; the connection is cut.
    Cut,
    /// Applied; no response arrives before the client's own timeout.
    DoneAndHeld,
    /// Not applied; no response arrives before the client's own timeout.
    Held,
    /// Some operations of a bulk request fail individually. Any other request is [`RequestOutcome::Rejected`].
    Partly(Partly),
}

/// Which operations of a bulk request fail, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partly {
    /// A bit for each operation, starting with the lowest.
    pub which: u128,
    /// The status of their results.
    pub status: u16,
    /// The sub-status.
    pub sub: u16,
    /// Whether they are applied all the same.
    pub done: bool,
}

impl Partly {
    fn has(self, place: usize) -> bool {
        self.which.checked_shr(u32::try_from(place).unwrap_or(u32::MAX)).is_some_and(|rest| rest & 1 == 1)
    }
}

/// The connection between a client and the account.
pub trait Connection: Send + Sync + fmt::Debug {
    /// Decides the outcome of one request.
    fn fate(&self, call: &Call<'_>) -> RequestOutcome;
}

/// A connection to the account. While it exists, clients that connect to its address use it.
#[derive(Debug)]
pub struct Inside {
    address: Url,
}

static OPEN: Mutex<Option<HashMap<String, Arc<Way>>>> = Mutex::new(None);
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The number of addresses: local ports at which no account listens.
const ADDRESSES: u32 = 1000;

/// Returns the next address; each is reused only after all others.
pub(super) fn address() -> Url {
    let port = 1 + NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
    let mut url = Url::parse("http://127.0.0.1/").expect("a constant address");
    // The port of an http URL can always be set.
    let _ = url.set_port(u16::try_from(port).ok());
    url
}

fn open<T>(with: impl FnOnce(&mut HashMap<String, Arc<Way>>) -> T) -> T {
    with(OPEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

impl Inside {
    pub(super) fn open(gateway: Arc<Gateway>, account: Url, line: Arc<dyn Connection>) -> Self {
        let address = address();
        let way = Way { gateway, account, address: address.clone(), line };
        let way = Arc::new(way);
        open(|all| all.insert(address.to_string(), way.clone()));
        transport::inject(&address, way);
        Self { address }
    }

    /// The address for clients.
    pub fn address(&self) -> &Url {
        &self.address
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        transport::withdraw(&self.address);
        open(|all| all.remove(self.address.as_str()));
    }
}

#[derive(Debug)]
struct Way {
    gateway: Arc<Gateway>,
    /// The address in the account's description.
    account: Url,
    address: Url,
    line: Arc<dyn Connection>,
}

impl Transport for Way {
    fn install(self: Arc<Self>, client: CosmosDriverRuntimeBuilder) -> CosmosDriverRuntimeBuilder {
        client.with_mock_http_client_factory(self)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.gateway.clock().now()).unwrap_or(i64::MAX)
    }
}

impl HttpClientFactory for Way {
    fn build(
        &self,
        pool: &ConnectionPoolOptions,
        _: HttpClientConfig,
    ) -> azure_data_cosmos_driver::Result<Arc<dyn TransportClient>> {
        let Some(way) = open(|all| all.get(self.address.as_str()).cloned()) else {
            return Err(broken("the way to the account is closed"));
        };
        Ok(Arc::new(Client { way, patience: pool.max_dataplane_request_timeout() }))
    }
}

#[derive(Debug)]
struct Client {
    way: Arc<Way>,
    /// The real client's timeout.
    patience: Duration,
}

fn broken(message: &str) -> CosmosError {
    CosmosError::builder().with_status(TRANSPORT_IO_FAILED).with_message(message.to_owned()).build()
}

#[async_trait]
impl TransportClient for Client {
    async fn send(&self, request: &HttpRequest) -> Result<HttpResponse, TransportError> {
        let cut = |why: &str| TransportError::new(broken(why), RequestSentStatus::Unknown);
        let headers: Headers =
            request.headers.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_str().to_owned())).collect();
        let is_query = ["x-ms-documentdb-isquery", "x-ms-documentdb-query", "x-ms-cosmos-is-query-plan-request"].iter();
        let ask = Ask {
            method: Method::from_bytes(request.method.as_str().as_bytes()).unwrap_or(Method::GET),
            path: request.url.path().to_owned(),
            body: request.body.clone().unwrap_or_default(),
            headers,
        };
        let fate = self.way.line.fate(&Call {
            method: ask.method.as_str(),
            path: &ask.path,
            is_query: is_query.clone().any(|name| ask.headers.is_true(name)),
            is_bulk: ask.headers.is_bulk(),
            is_feed: ask.headers.get("a-im").is_some(),
            body: &ask.body,
        });
        match fate {
            RequestOutcome::Rejected(status, sub) => return Ok(rejected(status, sub)),
            RequestOutcome::Cut => return Err(cut("cut")),
            RequestOutcome::Held => {
                tokio::time::sleep(self.patience).await;
                return Err(cut("no answer"));
            }
            RequestOutcome::Partly(partly) => {
                return match self.partly(ask, partly).await {
                    Some(answer) => Ok(self.answered(request.url.path(), answer)),
                    None => Ok(rejected(partly.status, partly.sub)),
                };
            }
            RequestOutcome::Done(_)
            | RequestOutcome::DoneAndFailed
            | RequestOutcome::DoneAndCut
            | RequestOutcome::DoneAndHeld => {}
        }
        let answer = self.way.gateway.handle(ask).await;
        match fate {
            RequestOutcome::DoneAndFailed => Ok(rejected(408, 0)),
            RequestOutcome::DoneAndCut => Err(cut("cut")),
            RequestOutcome::DoneAndHeld => {
                tokio::time::sleep(self.patience).await;
                Err(cut("no answer"))
            }
            RequestOutcome::Done(wait) => {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                Ok(self.answered(request.url.path(), answer))
            }
            RequestOutcome::Rejected(..) | RequestOutcome::Partly(_) | RequestOutcome::Cut | RequestOutcome::Held => {
                Err(cut("cut"))
            }
        }
    }
}

impl Client {
    /// Applies a part of a bulk request and answers the whole; `None` when it is not a bulk request.
    async fn partly(&self, ask: Ask, partly: Partly) -> Option<GatewayAnswer> {
        let operations: Vec<&RawValue> =
            ask.headers.is_bulk().then(|| serde_json::from_slice(&ask.body).ok()).flatten()?;
        let passed = |place: usize| partly.done || !partly.has(place);
        let sent: Vec<&str> =
            operations.iter().enumerate().filter(|(n, _)| passed(*n)).map(|(_, one)| one.get()).collect();
        let mut answers: Vec<Box<RawValue>> = Vec::new();
        if !sent.is_empty() {
            let ask = Ask { body: format!("[{}]", sent.join(",")).into(), ..ask.clone() };
            let answer = self.way.gateway.handle(ask).await;
            if !matches!(answer.status, 200 | 207) {
                return Some(answer);
            }
            answers = serde_json::from_slice(&answer.body).ok()?;
        }
        let mut answers = answers.into_iter();
        let failed = format!(
            r#"{{"statusCode":{},"subStatusCode":{},"requestCharge":0,"retryAfterMilliseconds":5}}"#,
            partly.status, partly.sub
        );
        let mut all = Vec::with_capacity(operations.len());
        for place in 0..operations.len() {
            let own = if passed(place) { answers.next() } else { None };
            all.push(own.filter(|_| !partly.has(place)).map_or_else(|| failed.clone(), |one| one.get().to_owned()));
        }
        Some(GatewayAnswer::json(207, format!("[{}]", all.join(",")).into_bytes()))
    }

    fn answered(&self, path: &str, answer: GatewayAnswer) -> HttpResponse {
        let mut body = if matches!(answer.status, 204 | 304) { Bytes::new() } else { answer.body };
        if path == "/" {
            // The account returns its own address, and clients would bypass this connection.
            let text = String::from_utf8_lossy(&body);
            let (account, own) = (self.way.account.as_str(), self.way.address.as_str());
            body = text.replace(account.trim_end_matches('/'), own.trim_end_matches('/')).into();
        }
        HttpResponse { status: answer.status, headers: wire(answer.headers.iter()), body: body.to_vec() }
    }
}

fn wire<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> WireHeaders {
    let mut all = WireHeaders::new();
    for (name, value) in headers {
        all.insert(HeaderName::from(name.to_owned()), HeaderValue::from(value.to_owned()));
    }
    all
}

fn rejected(status: u16, sub: u16) -> HttpResponse {
    let body = format!("{{\"code\":\"{status}\",\"message\":\"refused by the simulation\"}}");
    let sub = sub.to_string();
    let headers = [("x-ms-substatus", sub.as_str()), ("x-ms-retry-after-ms", "5"), ("x-ms-request-charge", "0")];
    HttpResponse { status, headers: wire(headers.into_iter()), body: body.into_bytes() }
}

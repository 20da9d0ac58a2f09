//! A proxy in front of the account that injects faults. A fault that was never used fails the test.

mod forward;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Method},
};
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use url::Url;

use self::forward::forward;

/// A fault that a request meets.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answered with a status and sub-status; the account never sees the request.
    Reject(u16, u16),
    /// Applied by the account, but answered with 408: the outcome is ambiguous for the caller.
    FailAfterWrite,
    /// Applied by the account; the answer is delayed.
    RespondSlowly(Duration),
    /// Not applied; the connection is cut without an answer.
    Cut,
    /// Applied by the account; the connection is cut without an answer.
    CutAfterWrite,
    /// Applied by the account; the connection is cut in the middle of the body, if there is one.
    TruncateAfterWrite,
    /// No answer for this long, then the connection is cut. Whether the account has applied it depends on `When`.
    Hold(When, Duration),
    /// Answered with a status as a gateway would. Whether the account has applied it depends on `When`.
    Stranger(When, u16),
    /// No fault: lets one request pass.
    Pass,
}

/// The kinds of requests that faults distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A write to `changes`: a version, or an item of a journal.
    HistoryWrite,
    /// A write to `events`.
    LiveWrite,
    /// A point read of `changes`.
    HistoryRead,
    /// A point read of `events`.
    LiveRead,
    /// A page of a query.
    Query,
    /// Anything else: reads of account, containers and partition key ranges, query plans.
    Definition,
}

/// Where a write is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The account has not seen it, and never will.
    Before,
    /// It is stored, but not answered.
    After,
}

/// A write that is held up until this is dropped.
pub struct Held {
    _let_go: oneshot::Sender<()>,
}

/// Called with the path of a document in `events` before a write to it is forwarded.
pub type Hook = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Each distinct request of these kinds meets the fault `times` times before it passes.
struct Storm {
    kinds: Vec<Kind>,
    fault: Fault,
    times: usize,
    met: HashMap<u64, usize>,
}

/// A budget of request units per second. A request beyond it is told how long to wait.
struct Budget {
    rate: f64,
    /// Charged up front, so that concurrent requests cannot pass before one of them has been answered.
    each: f64,
    left: f64,
    at: std::time::Instant,
    /// Request units used so far.
    used: f64,
}

impl Budget {
    /// Admits an operation, or returns how long to wait.
    fn admit(&mut self) -> Option<std::time::Duration> {
        let now = std::time::Instant::now();
        // Unused request units do not accumulate beyond one second.
        self.left = (self.left + (now - self.at).as_secs_f64() * self.rate).min(self.rate);
        self.at = now;
        if self.left < 0.0 {
            return Some(std::time::Duration::from_secs_f64(-self.left / self.rate));
        }
        self.left -= self.each;
        None
    }
}

/// How each distinct operation of a bulk request is answered the first time.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    pub status: (u16, u16),
    /// Whether it is carried out all the same.
    pub carried_out: bool,
    /// Whether the answer has an etag for what is written.
    pub etags: bool,
}

struct HoldAt {
    /// The number of writes that still pass before it.
    left: usize,
    when: When,
    reached: oneshot::Sender<Held>,
}

struct Shared {
    target: Url,
    own: Url,
    faults: Mutex<HashMap<Kind, VecDeque<Fault>>>,
    always: Mutex<HashMap<Kind, Fault>>,
    only_if_body_has: Mutex<Option<String>>,
    storm: Mutex<Option<Storm>>,
    hold: Mutex<Option<HoldAt>>,
    before_live_write: Mutex<Option<Hook>>,
    /// A text to replace in answers, and its replacement.
    rewrite: Mutex<Option<(String, String)>>,
    /// The throughput, if it is limited.
    budget: Mutex<Option<Budget>>,
    /// The status for requests with operations of several partition keys.
    bulk: Mutex<Option<u16>>,
    /// How their operations are answered, and those that were answered so.
    trouble: Mutex<Option<(Trouble, HashSet<String>)>>,
    /// How many questions for the time are still not answered.
    untold: AtomicUsize,
    seen: Mutex<HashMap<Kind, usize>>,
    /// The number of operations that met a fault.
    faulted: AtomicUsize,
    http: reqwest::Client,
}

/// The proxy; its port closes on drop.
pub struct Proxy {
    endpoint: Url,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(target: Url) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let shared = Arc::new(Shared {
            target,
            own: endpoint.clone(),
            faults: Mutex::default(),
            always: Mutex::default(),
            only_if_body_has: Mutex::default(),
            storm: Mutex::default(),
            hold: Mutex::default(),
            before_live_write: Mutex::default(),
            rewrite: Mutex::default(),
            bulk: Mutex::default(),
            trouble: Mutex::default(),
            budget: Mutex::default(),
            untold: AtomicUsize::new(0),
            seen: Mutex::default(),
            faulted: AtomicUsize::new(0),
            http: crate::support::http_client(),
        });
        let router = Router::new().fallback(forward).with_state(shared.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, shared, task }
    }

    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }

    /// The next writes to `changes` meet these faults, in order.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.fail_next_of(Kind::HistoryWrite, faults);
    }

    /// Every write to `changes` meets this fault until it is reset.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.fail_always_of(Kind::HistoryWrite, fault);
    }

    /// The next requests of a kind meet these faults, in order.
    pub fn fail_next_of(&self, kind: Kind, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().entry(kind).or_default().extend(faults);
    }

    /// Every request of a kind meets this fault until it is reset.
    pub fn fail_always_of(&self, kind: Kind, fault: Option<Fault>) {
        let mut always = self.shared.always.lock().unwrap();
        match fault {
            Some(fault) => always.insert(kind, fault),
            None => always.remove(&kind),
        };
    }

    /// Each distinct request of these kinds meets the fault `times` times before it passes, until [`Self::calm`].
    pub fn storm(&self, kinds: &[Kind], times: usize, fault: Fault) {
        *self.shared.storm.lock().unwrap() = Some(Storm { kinds: kinds.to_vec(), fault, times, met: HashMap::new() });
    }

    /// Ends the storm. Returns the number of operations that met a fault since the last call.
    pub fn calm(&self) -> usize {
        *self.shared.storm.lock().unwrap() = None;
        self.shared.faulted.swap(0, Ordering::SeqCst)
    }

    /// Limits faults to writes whose body contains this text.
    pub fn only_if_body_has(&self, text: &str) {
        *self.shared.only_if_body_has.lock().unwrap() = Some(text.to_owned());
    }

    /// Runs a hook before each write to `events` is forwarded: a concurrent writer that always wins the race.
    pub fn before_live_writes(&self, hook: Option<Hook>) {
        *self.shared.before_live_write.lock().unwrap() = hook;
    }

    /// Replaces a text in every answer, for documents that the test account does not accept.
    pub fn rewrite(&self, from: &str, to: &str) {
        *self.shared.rewrite.lock().unwrap() = Some((from.to_owned(), to.to_owned()));
    }

    /// Limits the containers to this many request units per second; a write costs `each`.
    pub fn throttle(&self, rate: f64, each: f64) {
        let at = std::time::Instant::now();
        *self.shared.budget.lock().unwrap() = Some(Budget { rate, each, left: 0.0, at, used: 0.0 });
    }

    /// Request units used by writes since [`Self::throttle`].
    pub fn used(&self) -> f64 {
        self.shared.budget.lock().unwrap().as_ref().unwrap().used
    }

    /// Answers bulk requests with this status, as an account without support for them does.
    pub fn refuse_bulk(&self, status: Option<u16>) {
        *self.shared.bulk.lock().unwrap() = status;
    }

    /// Answers each operation of bulk requests this way once. Returns how many were since the last call.
    pub fn trouble_operations(&self, trouble: Option<Trouble>) -> usize {
        let before = std::mem::replace(
            &mut *self.shared.trouble.lock().unwrap(),
            trouble.map(|trouble| (trouble, HashSet::new())),
        );
        before.map_or(0, |(_, met)| met.len())
    }

    /// Leaves the next questions for the account's time without an answer.
    pub fn tell_no_time(&self, times: usize) {
        self.shared.untold.store(times, Ordering::SeqCst);
    }

    /// Holds up a write to `changes` or `events` after `passing` others. The receiver fires when the write arrives.
    pub fn hold_after(&self, passing: usize, when: When) -> oneshot::Receiver<Held> {
        let (reached, wait) = oneshot::channel();
        *self.shared.hold.lock().unwrap() = Some(HoldAt { left: passing, when, reached });
        wait
    }

    /// Cancels a hold that no write has reached yet.
    pub fn hold_nothing(&self) {
        *self.shared.hold.lock().unwrap() = None;
    }

    /// The number of requests of a kind so far.
    pub fn seen(&self, kind: Kind) -> usize {
        self.shared.seen.lock().unwrap().get(&kind).copied().unwrap_or(0)
    }

    /// The number of writes to `changes` so far.
    pub fn writes(&self) -> usize {
        self.seen(Kind::HistoryWrite)
    }

    /// The number of point reads of `events` so far.
    pub fn reads(&self) -> usize {
        self.seen(Kind::LiveRead)
    }

    /// Ends the faults that no request has met. Returns whether there were any.
    pub fn forget_faults(&self) -> bool {
        self.shared.faults.lock().unwrap().drain().any(|(_, faults)| !faults.is_empty())
    }

    /// Whether every fault was used.
    pub fn all_used(&self) -> bool {
        self.shared.faults.lock().unwrap().values().all(VecDeque::is_empty)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            assert!(self.all_used(), "unused faults: {:?}", self.shared.faults.lock().unwrap());
        }
    }
}

impl Shared {
    fn kind_of(&self, method: &Method, path: &str, headers: &HeaderMap) -> Kind {
        let documents = |container: &str| path.contains(&format!("/colls/{container}/docs"));
        let kind = if headers.contains_key("x-ms-cosmos-is-query-plan-request") {
            Kind::Definition
        } else if headers.contains_key("x-ms-documentdb-isquery") {
            Kind::Query
        } else if documents("changes") {
            if method == Method::GET { Kind::HistoryRead } else { Kind::HistoryWrite }
        } else if documents("events") {
            if method == Method::GET { Kind::LiveRead } else { Kind::LiveWrite }
        } else {
            Kind::Definition
        };
        *self.seen.lock().unwrap().entry(kind).or_default() += 1;
        kind
    }

    fn fault_of(&self, kind: Kind, path: &str, headers: &HeaderMap, body: &[u8]) -> Fault {
        if let Some(text) = self.only_if_body_has.lock().unwrap().as_deref()
            && !String::from_utf8_lossy(body).contains(text)
        {
            return Fault::Pass;
        }
        if let Some(storm) = self.storm.lock().unwrap().as_mut()
            && storm.kinds.contains(&kind)
        {
            let mut same = DefaultHasher::new();
            (path, body).hash(&mut same);
            for name in ["x-ms-documentdb-partitionkey", "x-ms-documentdb-partitionkeyrangeid", "x-ms-continuation"] {
                headers.get(name).map(|value| value.as_bytes()).hash(&mut same);
            }
            let met = storm.met.entry(same.finish()).or_default();
            if *met < storm.times {
                *met += 1;
                return storm.fault.clone();
            }
        }
        let next = self.faults.lock().unwrap().get_mut(&kind).and_then(VecDeque::pop_front);
        next.or_else(|| self.always.lock().unwrap().get(&kind).cloned()).unwrap_or(Fault::Pass)
    }

    /// Returns the hold if this write is the one to be held up.
    fn held(&self) -> Option<HoldAt> {
        let mut hold = self.hold.lock().unwrap();
        match hold.as_mut() {
            Some(at) if at.left > 0 => {
                at.left -= 1;
                None
            }
            _ => hold.take(),
        }
    }
}

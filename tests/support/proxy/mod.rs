//! A proxy before the account that fails requests on purpose. Strict: a fault that was never used fails the test.

mod forward;

use std::{
    collections::{HashMap, VecDeque},
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

/// What happens to a request instead of the usual.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answered with a status and sub-status; the account never sees it.
    Reject(u16, u16),
    /// Done by the account, but the answer is a 408: the caller cannot know.
    FailAfterWrite,
    /// Done by the account; the answer comes late.
    RespondSlowly(Duration),
    /// Not done; the connection is cut without an answer.
    Cut,
    /// Done by the account; the connection is cut without an answer.
    CutAfterWrite,
    /// Done by the account; the connection is cut in the middle of the answer, if that has any text.
    TruncateAfterWrite,
    /// No answer for so long, then the connection is cut; done by the account before, or not at all.
    Hold(When, Duration),
    /// Answered with a status in the account's place, as a gateway does; done by the account before, or not at all.
    Stranger(When, u16),
    /// Nothing happens: counts as one request that passes.
    Pass,
}

/// What a request does, as far as faults tell requests apart.
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
    /// Anything else: definitions of the account, of containers and their partitions, plans of queries.
    Definition,
}

/// Where a write is held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// The account has not seen it, and never will.
    Before,
    /// It is stored, and not answered.
    After,
}

/// A write that is held up: it goes no further until this is dropped.
pub struct Held {
    _let_go: oneshot::Sender<()>,
}

/// Called with the path of a document in `events` before a write to it is passed on.
pub type Hook = Arc<dyn Fn(String) -> BoxFuture<'static, ()> + Send + Sync>;

/// Each different request of these kinds meets the fault so many times before it passes.
struct Storm {
    kinds: Vec<Kind>,
    fault: Fault,
    times: usize,
    met: HashMap<u64, usize>,
}

/// Request units as a container has them that is given so many a second: who asks for more is told when there are some.
struct Budget {
    rate: f64,
    /// What an operation takes: what comes at the same time must not pass because nothing has been answered yet.
    each: f64,
    left: f64,
    at: std::time::Instant,
    /// What was used so far.
    used: f64,
}

impl Budget {
    /// How long to wait until there are some; `None` when there are.
    fn admit(&mut self) -> Option<std::time::Duration> {
        let now = std::time::Instant::now();
        // What is not used is not saved for later.
        self.left = (self.left + (now - self.at).as_secs_f64() * self.rate).min(self.rate);
        self.at = now;
        if self.left < 0.0 {
            return Some(std::time::Duration::from_secs_f64(-self.left / self.rate));
        }
        self.left -= self.each;
        None
    }
}

struct HoldAt {
    /// Writes that still pass before it.
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
    /// What is replaced in answers, by what.
    rewrite: Mutex<Option<(String, String)>>,
    /// How many request units there are.
    budget: Mutex<Option<Budget>>,
    /// What a request is answered that has operations of several partition keys.
    bulk: Mutex<Option<u16>>,
    seen: Mutex<HashMap<Kind, usize>>,
    /// Requests that met a fault.
    faulted: AtomicUsize,
    http: reqwest::Client,
}

/// The proxy; its port closes when it is dropped.
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
            budget: Mutex::default(),
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

    /// Every write to `changes` meets this fault until it is taken back.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.fail_always_of(Kind::HistoryWrite, fault);
    }

    /// The next requests of a kind meet these faults, in order.
    pub fn fail_next_of(&self, kind: Kind, faults: impl IntoIterator<Item = Fault>) {
        self.shared.faults.lock().unwrap().entry(kind).or_default().extend(faults);
    }

    /// Every request of a kind meets this fault until it is taken back.
    pub fn fail_always_of(&self, kind: Kind, fault: Option<Fault>) {
        let mut always = self.shared.always.lock().unwrap();
        match fault {
            Some(fault) => always.insert(kind, fault),
            None => always.remove(&kind),
        };
    }

    /// Each different request of these kinds meets the fault so many times before it passes, until it is taken back.
    pub fn storm(&self, kinds: &[Kind], times: usize, fault: Fault) {
        *self.shared.storm.lock().unwrap() = Some(Storm { kinds: kinds.to_vec(), fault, times, met: HashMap::new() });
    }

    /// How many requests met a fault since this was asked last; ends the storm.
    pub fn calm(&self) -> usize {
        *self.shared.storm.lock().unwrap() = None;
        self.shared.faulted.swap(0, Ordering::SeqCst)
    }

    /// Faults concern only writes whose body contains this text.
    pub fn only_if_body_has(&self, text: &str) {
        *self.shared.only_if_body_has.lock().unwrap() = Some(text.to_owned());
    }

    /// Runs before each write to `events` is passed on: a writer that is always a little quicker.
    pub fn before_live_writes(&self, hook: Option<Hook>) {
        *self.shared.before_live_write.lock().unwrap() = hook;
    }

    /// Replaces a text in every answer: for documents that the account in the test does not take.
    pub fn rewrite(&self, from: &str, to: &str) {
        *self.shared.rewrite.lock().unwrap() = Some((from.to_owned(), to.to_owned()));
    }

    /// Gives the containers so many request units a second, of which a write takes `each`.
    pub fn throttle(&self, rate: f64, each: f64) {
        let at = std::time::Instant::now();
        *self.shared.budget.lock().unwrap() = Some(Budget { rate, each, left: 0.0, at, used: 0.0 });
    }

    /// Request units used by writes since then.
    pub fn used(&self) -> f64 {
        self.shared.budget.lock().unwrap().as_ref().unwrap().used
    }

    /// Answers bulk requests with this status, as an account that does not know them.
    pub fn refuse_bulk(&self, status: Option<u16>) {
        *self.shared.bulk.lock().unwrap() = status;
    }

    /// Holds up a write, to `changes` or `events`, after `passing` others; the receiver tells when it has come.
    pub fn hold_after(&self, passing: usize, when: When) -> oneshot::Receiver<Held> {
        let (reached, wait) = oneshot::channel();
        *self.shared.hold.lock().unwrap() = Some(HoldAt { left: passing, when, reached });
        wait
    }

    /// Nothing is held up any more that has not come yet.
    pub fn hold_nothing(&self) {
        *self.shared.hold.lock().unwrap() = None;
    }

    /// Requests of a kind that were seen.
    pub fn seen(&self, kind: Kind) -> usize {
        self.shared.seen.lock().unwrap().get(&kind).copied().unwrap_or(0)
    }

    /// Writes to `changes` that were seen.
    pub fn writes(&self) -> usize {
        self.seen(Kind::HistoryWrite)
    }

    /// Point reads of `events` that were seen.
    pub fn reads(&self) -> usize {
        self.seen(Kind::LiveRead)
    }

    /// Whether every fault was met.
    pub fn all_used(&self) -> bool {
        self.shared.faults.lock().unwrap().values().all(VecDeque::is_empty)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        if !std::thread::panicking() {
            assert!(self.all_used(), "faults that no request met: {:?}", self.shared.faults.lock().unwrap());
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

    /// The write to be held up, when it is this one.
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

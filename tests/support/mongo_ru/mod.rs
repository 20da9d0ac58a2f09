//! A small, strict server that behaves like Azure Cosmos DB for MongoDB (RU) as seen by a reader of its change streams.
//! No such account is available offline.
//!
//! Like the service, it accepts one pipeline only. An event tells neither the kind of operation nor its time. A change
//! that is overwritten before it is read is never delivered, nor is a delete. All documents of a page carry the same
//! token, which stands for the end of the page. A throttled read is an empty page, and a missing collection is an
//! error. Users, TLS, indexes and queries beyond equality are not implemented.

mod commands;
mod feed;
mod store;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bson::{Document, RawDocumentBuf};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

use self::{
    feed::Place,
    store::{Collection, Collections},
    wire::Message,
};

/// A fault that replaces one of the next pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageFault {
    /// An empty page, as for a throttled read.
    Throttled,
    /// Error 16500 with a retry interval.
    TooManyRequests,
    /// Half of the page, then a closed connection.
    Cut,
}

/// The server; stops on drop.
pub struct MongoRu {
    address: SocketAddr,
    world: Arc<Mutex<World>>,
    task: AbortHandle,
}

impl MongoRu {
    /// Starts a server with a wire version that current drivers accept.
    pub async fn start() -> Self {
        Self::of_wire_version(13).await
    }

    /// Starts a server with an older wire version; 6 is MongoDB 3.6.
    pub async fn of_wire_version(version: i32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(Mutex::new(World { wire_version: version, address: Some(address), ..World::default() }));
        let shared = world.clone();
        let task = tokio::spawn(async move {
            // The connections are closed with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, world, task: task.abort_handle() }
    }

    /// A URI like the service's connection strings, without TLS and a user.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?replicaSet=globaldb&retryWrites=false", self.address)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Creates a collection; an existing one of this name is dropped.
    pub fn create(&self, database: &str, name: &str, shard_key: &str, partitions: usize) {
        self.world().create(database, name, shard_key, partitions);
    }

    pub fn drop_collection(&self, database: &str, name: &str) {
        self.world().collections.remove(&(database.to_owned(), name.to_owned()));
    }

    /// Inserts a document, or replaces the one with its `_id`.
    pub fn put(&self, database: &str, name: &str, document: &Document) {
        self.put_raw(database, name, RawDocumentBuf::try_from(document).unwrap());
    }

    /// Like [`Self::put`], with raw bytes.
    pub fn put_raw(&self, database: &str, name: &str, raw: RawDocumentBuf) {
        let mut world = self.world();
        let collection = world.collections.get_mut(&(database.to_owned(), name.to_owned())).expect("it was created");
        let filter = bson::doc! { "_id": bson::Bson::try_from(raw.get("_id").unwrap().unwrap()).unwrap() };
        if !collection.change(&filter, |_| Ok(raw.clone())).unwrap().0 {
            assert!(collection.insert(raw));
        }
    }

    /// Replaces the next pages of change streams with these faults.
    pub fn fail_next(&self, faults: &[PageFault]) {
        self.world().faults.extend(faults);
    }

    /// Answers a command as a server does that never had it.
    pub fn forget_command(&self, command: &str) {
        self.world().unknown.push(command.to_owned());
    }

    /// Refuses the next commands of this name: too many requests.
    pub fn throttle_next(&self, command: &str, times: usize) {
        self.world().throttled.insert(command.to_owned(), times);
    }

    /// The number of faults that have not been used yet.
    pub fn faults_left(&self) -> usize {
        self.world().faults.len()
    }

    /// Limits a page of a change stream to this many documents.
    pub fn page_size(&self, most: usize) {
        self.world().page_size = most;
    }

    /// Delays every page of a change stream.
    pub fn page_time(&self, time: Duration) {
        self.world().page_time = time;
    }

    /// The commands received so far, without greetings.
    pub fn commands(&self) -> Vec<Document> {
        self.world().log.clone()
    }
}

impl Drop for MongoRu {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state that all connections share.
struct World {
    address: Option<SocketAddr>,
    wire_version: i32,
    collections: Collections,
    cursors: HashMap<i64, Cursor>,
    last_cursor: i64,
    last_rid: u64,
    faults: VecDeque<PageFault>,
    /// How many of the next commands of a name are refused.
    throttled: HashMap<String, usize>,
    /// Commands that it does not know.
    unknown: Vec<String>,
    page_size: usize,
    page_time: Duration,
    log: Vec<Document>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            address: None,
            wire_version: 13,
            collections: Collections::new(),
            cursors: HashMap::new(),
            last_cursor: 0,
            last_rid: 0,
            faults: VecDeque::new(),
            throttled: HashMap::new(),
            unknown: Vec::new(),
            page_size: 100,
            page_time: Duration::ZERO,
            log: Vec::new(),
        }
    }
}

impl World {
    fn create(&mut self, database: &str, name: &str, shard_key: &str, partitions: usize) {
        self.last_rid += 1;
        let collection = Collection::new(format!("rid{:05}==", self.last_rid), shard_key, partitions);
        self.collections.insert((database.to_owned(), name.to_owned()), collection);
    }

    fn keep(&mut self, cursor: Cursor) -> i64 {
        self.last_cursor += 1;
        self.cursors.insert(self.last_cursor, cursor);
        self.last_cursor
    }
}

/// The remainder of a cursor.
enum Cursor {
    Documents { namespace: (String, String), left: VecDeque<RawDocumentBuf> },
    Feed { namespace: (String, String), place: Place },
}

/// The outcome of a command.
enum Answer {
    Reply(RawDocumentBuf),
    /// Half of the reply, then a closed connection.
    Cut(RawDocumentBuf),
    /// Nothing new in a change stream: polled again until the client's time is over.
    Wait(RawDocumentBuf),
}

async fn serve(mut stream: TcpStream, world: Arc<Mutex<World>>) {
    while let Some(message) = wire::read(&mut stream).await {
        let (reply, cut) = answer(&message, &world).await;
        if message.wants_reply && wire::send(&mut stream, &message.reply(&reply), cut).await.is_err() {
            return;
        }
    }
}

async fn answer(message: &Message, world: &Mutex<World>) -> (RawDocumentBuf, bool) {
    let command = message.command();
    let name = message.name();
    let is_page = name == "getMore" || name == "aggregate";
    let page_time = world.lock().unwrap().page_time;
    if is_page && !page_time.is_zero() {
        tokio::time::sleep(page_time).await;
    }
    // Without maxTimeMS, the client gets the current result at once.
    let patience = command.get_i64("maxTimeMS").or_else(|_| command.get_i32("maxTimeMS").map(i64::from)).unwrap_or(0);
    let until = tokio::time::Instant::now() + Duration::from_millis(u64::try_from(patience).unwrap().clamp(10, 1000));
    if !commands::is_greeting(&name) {
        world.lock().unwrap().log.push(command.clone());
    }
    loop {
        // A separate binding, so that the lock is released before the pause.
        let answer = commands::run(&mut world.lock().unwrap(), message, &name, &command);
        match answer {
            Answer::Reply(reply) => return (reply, false),
            Answer::Cut(reply) => return (reply, true),
            Answer::Wait(reply) if tokio::time::Instant::now() >= until => return (reply, false),
            Answer::Wait(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

//! Single items of a container, whatever holds them: the service, or the memory of a test.

use std::sync::{Arc, atomic::Ordering};

use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};

use super::{
    Container, Disposition, Failure, HashSpace, Written,
    bulk::{OperationResult, Verb},
};
use crate::change::{
    key::{KeyPaths, PartitionKey},
    raw::etag_of,
};

/// The result of an operation on one item.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Failure>>;
/// The pages of a read. A page is requested when it is polled, so a caller may wait before it; a stream may be dropped
/// at any page.
pub type PageStream<'a, T> = BoxStream<'a, Result<Vec<T>, Failure>>;

/// Items of one container as JSON text, each addressed by its full partition key and its id.
///
/// Contract:
/// - A write that succeeds is durable, and every later read sees it.
/// - `Err` leaves unknown whether a write was stored, unless the failure says that the item conflicts, has moved or is gone.
/// - Nothing is retried here.
/// - An id is any text that Cosmos takes, `..` and `/` among them.
pub trait Items: Send + Sync + 'static {
    /// The container's name.
    fn name(&self) -> &str;
    /// The container's resource id: another one under the same name is another container.
    fn rid(&self) -> &str;
    /// The partition key paths of the container.
    fn key_paths(&self) -> &KeyPaths;
    /// How partition keys are hashed; `None` for a container that is not partitioned by a hash.
    fn hash_space(&self) -> Option<HashSpace>;
    /// Whether concurrent writes are packed into common requests.
    fn packs(&self) -> bool {
        false
    }
    /// Whether documents must differ in more than their id: then a conflict may be another document's.
    fn has_unique_keys(&self) -> Answer<'_, bool> {
        std::future::ready(Ok(false)).boxed()
    }
    /// Reads an item with its system properties; `None` when there is none.
    fn read<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>>;
    /// The same for an item that no longer changes: the answer may be a moment old. For many at once.
    fn read_settled<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        self.read(key, id)
    }
    /// The same for an item that is assumed to have this etag. If it has, the answer may be a moment old, so whatever
    /// is done about it needs the etag as its condition. For many at once.
    fn read_assumed<'a>(&'a self, key: &'a PartitionKey, id: &'a str, _etag: &'a str) -> Answer<'a, Option<String>> {
        self.read(key, id)
    }
    /// Creates an item; a [`Disposition::Conflict`](super::Disposition::Conflict) when it exists, or when another one has
    /// its values of a unique key.
    fn create<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written>;
    /// Creates or replaces an item.
    fn upsert<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written>;
    /// Replaces an item that still has this etag; a
    /// [`Disposition::PreconditionFailed`](super::Disposition::PreconditionFailed) when it has moved,
    /// [`Status::NO_ITEM`](super::Status::NO_ITEM) when it is gone.
    fn replace<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>, etag: &'a str) -> Answer<'a, Written>;
    /// Deletes an item, only while it has `etag` when one is given; [`Status::NO_ITEM`](super::Status::NO_ITEM) when
    /// there is none.
    fn delete<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: Option<&'a str>) -> Answer<'a, Written>;
}

impl Items for Container {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn rid(&self) -> &str {
        Self::rid(self)
    }

    fn key_paths(&self) -> &KeyPaths {
        Self::key_paths(self)
    }

    fn hash_space(&self) -> Option<HashSpace> {
        Self::hash_space(self)
    }

    fn packs(&self) -> bool {
        Self::packs(self)
    }

    fn has_unique_keys(&self) -> Answer<'_, bool> {
        Self::has_unique_keys(self).boxed()
    }

    // Never packed: a packed read has no session token, and may miss what this process has just written. It is only
    // asked for what is then recognized.
    fn read<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        self.read_text(key, id).boxed()
    }

    fn read_settled<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        async move {
            let done = self.read_packed(key, id).await?;
            // A replica may not have it yet.
            if done.packed && done.text.is_none() { Items::read(self, key, id).await } else { Ok(done.text) }
        }
        .boxed()
    }

    fn read_assumed<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: &'a str) -> Answer<'a, Option<String>> {
        async move {
            let done = self.read_packed(key, id).await?;
            let is_sure = !done.packed || done.text.as_deref().and_then(etag_of).as_deref() == Some(etag);
            // A replica may be behind.
            if is_sure { Ok(done.text) } else { Items::read(self, key, id).await }
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        self.written(key, id, Verb::Create(body.into())).boxed()
    }

    fn upsert<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        self.written(key, id, Verb::Upsert(body.into())).boxed()
    }

    fn replace<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>, etag: &'a str) -> Answer<'a, Written> {
        self.written(key, id, Verb::Replace(body.into(), etag.to_owned().into())).boxed()
    }

    fn delete<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: Option<&'a str>) -> Answer<'a, Written> {
        self.written(key, id, Verb::Delete(etag.map(|etag| etag.to_owned().into()))).boxed()
    }
}

impl Container {
    /// Reads an item together with others, unless that is refused: a key that may only read may not be allowed to send
    /// such a request.
    async fn read_packed(&self, key: &PartitionKey, id: &str) -> Result<OperationResult, Failure> {
        if !self.reads_alone().load(Ordering::Relaxed) {
            match self.packed(key, id, Verb::Read).await {
                Err(failure) if failure.disposition == Disposition::Denied => {
                    self.reads_alone().store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        Ok(OperationResult { written: Written::default(), text: self.read_text(key, id).await?, packed: false })
    }

    async fn written(&self, key: &PartitionKey, id: &str, verb: Verb<'static>) -> Result<Written, Failure> {
        self.packed(key, id, verb).await.map(|done| done.written)
    }
}

/// Something built around a container, which exposes the container's items.
pub trait InContainer: Send + Sync + 'static {
    /// The container.
    fn container(&self) -> &impl Items;
}

impl<T: InContainer> Items for T {
    fn name(&self) -> &str {
        self.container().name()
    }

    fn rid(&self) -> &str {
        self.container().rid()
    }

    fn key_paths(&self) -> &KeyPaths {
        self.container().key_paths()
    }

    fn hash_space(&self) -> Option<HashSpace> {
        self.container().hash_space()
    }

    fn packs(&self) -> bool {
        self.container().packs()
    }

    fn has_unique_keys(&self) -> Answer<'_, bool> {
        self.container().has_unique_keys()
    }

    fn read<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        self.container().read(key, id)
    }

    fn read_settled<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        self.container().read_settled(key, id)
    }

    fn read_assumed<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: &'a str) -> Answer<'a, Option<String>> {
        self.container().read_assumed(key, id, etag)
    }

    fn create<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        self.container().create(key, id, body)
    }

    fn upsert<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        self.container().upsert(key, id, body)
    }

    fn replace<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>, etag: &'a str) -> Answer<'a, Written> {
        self.container().replace(key, id, body, etag)
    }

    fn delete<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: Option<&'a str>) -> Answer<'a, Written> {
        self.container().delete(key, id, etag)
    }
}

/// For those who write many items.
impl From<&Container> for Arc<dyn Items> {
    fn from(container: &Container) -> Self {
        Arc::new(container.clone())
    }
}

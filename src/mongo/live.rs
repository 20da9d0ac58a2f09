//! A collection as a live container: its documents as text, and writes that keep what others have written since.

use std::sync::Arc;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, doc};
use chrono::{DateTime, Utc};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::ready, stream};
use mongodb::{ClientSession, Collection, raw_batch_cursor::RawBatch, results::UpdateResult};

use super::{
    Mongo,
    document::{as_pipeline, document_of, has_same_id, id_of, key_of, live_text},
    failure::{WRITE_CONFLICT, gone, precondition, present},
    kind, shards,
};
use crate::{
    bson_text::{fingerprint, id_text, text_of},
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        plain::plain,
    },
    cosmos::{Answer, Failure, FeedRange, HashRange, HashSpace, Items, PageStream, Param, Status, Written, own_task},
    history::{
        live::Live,
        predicate::evaluate::Predicate,
        reading::{AxisEnd, LiveContainer},
    },
};

/// Documents per page.
const PAGE: u32 = 1000;
/// How often a transaction that conflicted with others is attempted.
const ATTEMPTS: usize = 5;

/// One collection.
#[derive(Debug, Clone)]
pub struct MongoCollection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    mongo: Mongo,
    collection: Collection<RawDocumentBuf>,
    rid: String,
    key_paths: KeyPaths,
    /// Paths of the shard key, dotted; empty when the collection is not sharded, as far as the server says.
    shard_key: Vec<String>,
    unfit: Option<&'static str>,
}

/// The change of a document that is still as it was read.
enum Change {
    Replace(RawDocumentBuf),
    Delete,
}

impl MongoCollection {
    /// Opens a collection, which may not exist yet.
    ///
    /// # Errors
    /// When the server cannot be asked what it is, and how it is sharded.
    pub async fn open(mongo: Mongo, database: &str, name: &str) -> Result<Self, Failure> {
        let shard_key = shards::key(&mongo, database, name).await?;
        let unfit = kind::unfit(&mongo, database, name).await?;
        let collection = mongo.database(database).collection(name);
        let rid = format!("mongodb:{database}.{name}");
        Ok(Self { shared: Arc::new(Shared { mongo, collection, rid, key_paths: KeyPaths::id(), shard_key, unfit }) })
    }

    fn collection(&self) -> &Collection<RawDocumentBuf> {
        &self.shared.collection
    }

    fn fail(&self, context: &str, error: &mongodb::error::Error) -> Failure {
        self.shared.mongo.fail(context, error)
    }

    /// The document with an id, within a session if there is one.
    async fn find(&self, id: &Bson, session: Option<&mut ClientSession>) -> Result<Option<RawDocumentBuf>, Failure> {
        let fail = |e: mongodb::error::Error| self.fail("read document", &e);
        let filter = doc! { "_id": { "$eq": id.clone() } };
        let collection = self.collection().clone();
        let mut found: Vec<RawDocumentBuf> = match session {
            Some(session) => {
                let mut cursor = collection.find(filter).limit(2).session(&mut *session).await.map_err(fail)?;
                cursor.stream(session).try_collect().await.map_err(fail)?
            }
            // There are few connections.
            None => {
                let read = async move { collection.find(filter).limit(2).await?.try_collect().await };
                own_task::run(read).await?.map_err(fail)?
            }
        };
        if found.len() > 1 {
            return Err(Failure::invalid(
                "read document".into(),
                "two documents under different shard keys have this _id; which of them is meant is not known".into(),
            ));
        }
        Ok(found.pop())
    }

    /// A filter for a document: its `_id` and its shard key.
    fn filter(&self, id: &Bson, document: &RawDocument) -> Result<Document, Failure> {
        let mut filter = doc! { "_id": { "$eq": id.clone() } };
        if self.shared.shard_key.is_empty() {
            return Ok(filter);
        }
        let whole =
            Document::try_from(document).map_err(|e| Failure::invalid("read document".into(), e.to_string()))?;
        for path in self.shared.shard_key.iter().filter(|path| *path != "_id") {
            filter.insert(path, shards::value(&whole, path));
        }
        Ok(filter)
    }

    /// Inserts a document. Where the shard key does not begin with the `_id`, a server takes a second document with the
    /// same `_id` under another shard key: so the first one is looked for.
    async fn insert(&self, context: &str, document: &RawDocumentBuf) -> Result<(), Failure> {
        if self.shared.shard_key.iter().any(|path| path != "_id") {
            let id = document.get("_id").ok().flatten().and_then(|id| Bson::try_from(id).ok()).unwrap_or(Bson::Null);
            if self.find(&id, None).await?.is_some() {
                return Err(present(context));
            }
        }
        self.collection().insert_one(document).await.map(drop).map_err(|e| self.fail(context, &e))
    }

    /// Changes a document only while it has these bytes.
    async fn change(
        &self,
        context: &str,
        (key, id): (&PartitionKey, &str),
        etag: Option<&str>,
        change: Change,
    ) -> Result<Written, Failure> {
        let id = id_of(key, id).ok_or_else(|| gone(context))?;
        let Some(etag) = etag else { return self.unconditional(context, &id, change).await };
        if !self.shared.mongo.has_transactions() {
            return self.compared(context, &id, etag, &change).await;
        }
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match self.in_transaction(context, &id, etag, &change).await {
                // Somebody else is writing the document: the next look sees the result.
                Err(failure) if failure.status == WRITE_CONFLICT => last = Some(failure),
                done => return done,
            }
        }
        Err(last.unwrap_or_else(|| precondition(context)))
    }

    async fn in_transaction(&self, context: &str, id: &Bson, etag: &str, change: &Change) -> Result<Written, Failure> {
        let fail = |e: mongodb::error::Error| self.fail(context, &e);
        let mut session = self.shared.mongo.client.start_session().await.map_err(fail)?;
        session.start_transaction().await.map_err(fail)?;
        let done = async {
            let live = self.find(id, Some(&mut session)).await?.ok_or_else(|| gone(context))?;
            if fingerprint(live.as_bytes()) != etag {
                return Err(precondition(context));
            }
            let filter = self.filter(id, &live)?;
            let (count, after) = match change {
                Change::Replace(document) if has_same_id(&live, document) => {
                    let done = self.put(filter, document, false, Some(&mut session)).await.map_err(fail)?;
                    (done.matched_count, Some(document))
                }
                Change::Replace(document) => {
                    let done = self.collection().delete_one(filter).session(&mut session).await.map_err(fail)?;
                    self.collection().insert_one(document).session(&mut session).await.map_err(fail)?;
                    (done.deleted_count, Some(document))
                }
                Change::Delete => {
                    let done = self.collection().delete_one(filter).session(&mut session).await.map_err(fail)?;
                    (done.deleted_count, None)
                }
            };
            // What was not found was not written, whatever the transaction says.
            if count == 0 { Err(precondition(context)) } else { Ok(written(after, false)) }
        };
        match done.await {
            Ok(written) => {
                session.commit_transaction().await.map_err(fail)?;
                Ok(written)
            }
            Err(failure) => {
                // Otherwise it ends by itself, without having written anything.
                let _ = session.abort_transaction().await;
                Err(failure)
            }
        }
    }

    /// The same without transactions: the server compares the whole document while it writes.
    async fn compared(&self, context: &str, id: &Bson, etag: &str, change: &Change) -> Result<Written, Failure> {
        let fail = |e: mongodb::error::Error| self.fail(context, &e);
        let live = self.find(id, None).await?.ok_or_else(|| gone(context))?;
        if fingerprint(live.as_bytes()) != etag {
            return Err(precondition(context));
        }
        let mut filter = self.filter(id, &live)?;
        let whole = Document::try_from(&*live).map_err(|e| Failure::invalid(context.into(), e.to_string()))?;
        filter.insert("$expr", doc! { "$eq": ["$$ROOT", { "$literal": whole }] });
        let (count, written) = match change {
            Change::Replace(document) if !has_same_id(&live, document) => {
                let problem =
                    "its _id is written as another number now, and the server has no transactions to change that";
                return Err(Failure::invalid(context.into(), problem.into()));
            }
            Change::Replace(document) => {
                let done = self.put(filter, document, false, None).await.map_err(fail)?;
                (done.matched_count, written(Some(document), false))
            }
            Change::Delete => {
                let done = self.collection().delete_one(filter).await.map_err(fail)?;
                (done.deleted_count, written(None, false))
            }
        };
        if count == 0 { Err(precondition(context)) } else { Ok(written) }
    }

    async fn unconditional(&self, context: &str, id: &Bson, change: Change) -> Result<Written, Failure> {
        let fail = |e: mongodb::error::Error| self.fail(context, &e);
        match change {
            Change::Replace(document) => {
                let filter = self.filter(id, &document)?;
                let done = self.put(filter, &document, true, None).await.map_err(fail)?;
                Ok(written(Some(&document), done.matched_count == 0))
            }
            Change::Delete => {
                let live = self.find(id, None).await?.ok_or_else(|| gone(context))?;
                let done = self.collection().delete_one(self.filter(id, &live)?).await.map_err(fail)?;
                if done.deleted_count == 0 { Err(gone(context)) } else { Ok(written(None, false)) }
            }
        }
    }

    /// Replaces a document.
    async fn put(
        &self,
        filter: Document,
        document: &RawDocumentBuf,
        upsert: bool,
        session: Option<&mut ClientSession>,
    ) -> mongodb::error::Result<UpdateResult> {
        if let Some(pipeline) = as_pipeline(document) {
            let update = self.collection().update_one(filter, pipeline).upsert(upsert);
            return match session {
                Some(session) => update.session(session).await,
                None => update.await,
            };
        }
        let replace = self.collection().replace_one(filter, document).upsert(upsert);
        match session {
            Some(session) => replace.session(session).await,
            None => replace.await,
        }
    }

    fn rows(
        &self,
        batch: &RawBatch,
        with_text: bool,
        predicate: Option<&Predicate>,
    ) -> Result<Vec<(ItemKey, Live)>, Failure> {
        let wrong = |e: String| Failure::invalid("read collection".into(), e);
        let mut rows = Vec::new();
        for document in batch.doc_slices().map_err(|e| wrong(e.kind.to_string()))? {
            let document =
                document.map_err(|e| wrong(e.to_string()))?.as_document().ok_or_else(|| wrong("no document".into()))?;
            let id = document.get("_id").ok().flatten().map(id_text).ok_or_else(|| wrong("it has no _id".into()))?;
            let text = if with_text || predicate.is_some() { Some(live_text(document)?) } else { None };
            if let (Some(predicate), Some(text)) = (predicate, &text)
                && !plain(text).is_some_and(|value| predicate.matches(&value))
            {
                continue;
            }
            let live = Live { etag: fingerprint(document.as_bytes()), ts: None, text: text.filter(|_| with_text) };
            rows.push((ItemKey { partition_key: key_of(&id), id }, live));
        }
        Ok(rows)
    }
}

fn written(document: Option<&RawDocumentBuf>, created: bool) -> Written {
    Written { charge: 0.0, etag: document.map(|document| fingerprint(document.as_bytes())), created }
}

impl Items for MongoCollection {
    fn name(&self) -> &str {
        self.collection().name()
    }

    fn rid(&self) -> &str {
        &self.shared.rid
    }

    fn key_paths(&self) -> &KeyPaths {
        &self.shared.key_paths
    }

    fn hash_space(&self) -> Option<HashSpace> {
        None
    }

    fn read<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        async move {
            let Some(id) = id_of(key, id) else { return Ok(None) };
            self.find(&id, None).await?.map(|found| live_text(&found)).transpose()
        }
        .boxed()
    }

    fn create<'a>(&'a self, _: &'a PartitionKey, _: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        async move {
            let document = document_of("create document", &body)?;
            self.insert("create document", &document).await?;
            Ok(written(Some(&document), true))
        }
        .boxed()
    }

    fn upsert<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, Written> {
        async move {
            let document = document_of("upsert document", &body)?;
            self.change("upsert document", (key, id), None, Change::Replace(document)).await
        }
        .boxed()
    }

    fn replace<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>, etag: &'a str) -> Answer<'a, Written> {
        async move {
            let document = document_of("replace document", &body)?;
            self.change("replace document", (key, id), Some(etag), Change::Replace(document)).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: Option<&'a str>) -> Answer<'a, Written> {
        self.change("delete document", (key, id), etag, Change::Delete).boxed()
    }
}

impl LiveContainer for MongoCollection {
    fn documents_in<'a>(
        &'a self,
        _: HashRange,
        with_text: bool,
        matching: Option<(&'a str, &'a [Param])>,
    ) -> PageStream<'a, (ItemKey, Live)> {
        let value = |params: &'a [Param]| move |name: &str| params.iter().find(|p| p.name == name).map(|p| &p.value);
        let predicate = matching.map(|(predicate, params)| Predicate::parse(predicate, value(params))).transpose();
        let predicate = match predicate {
            Ok(predicate) => predicate,
            Err(e) => {
                let refused = Failure::from_status("read collection".into(), Status::new(400, 0), &e.to_string(), None);
                return stream::once(ready(Err(refused))).boxed();
            }
        };
        let opened = async move {
            let found = self.collection().find(doc! {}).batch_size(PAGE).batch();
            let cursor = found.await.map_err(|e| self.fail("read collection", &e))?;
            Ok::<_, Failure>(cursor.map(move |batch| {
                let batch = batch.map_err(|e| self.fail("read collection", &e))?;
                self.rows(&batch, with_text, predicate.as_ref())
            }))
        };
        stream::once(opened).try_flatten().boxed()
    }

    fn as_stored(&self, text: &str) -> Result<Option<String>, Failure> {
        let document = document_of("compose document", text.as_bytes())?;
        text_of(document.as_bytes()).map(Some).map_err(|e| Failure::invalid("compose document".into(), e.to_string()))
    }

    fn unfit(&self) -> Option<&str> {
        self.shared.unfit
    }

    fn namespace(&self) -> Option<&str> {
        self.shared.rid.split_once(':').map(|(_, ns)| ns)
    }

    fn now(&self) -> Answer<'_, Option<DateTime<Utc>>> {
        self.shared.mongo.now().boxed()
    }

    /// MongoDB documents have no time.
    fn newest(&self) -> Answer<'_, Option<AxisEnd>> {
        ready(Ok(None)).boxed()
    }

    fn range_of(&self, _: &PartitionKey) -> Result<FeedRange, Failure> {
        Ok(FeedRange::full())
    }
}

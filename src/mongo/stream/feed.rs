//! Reads one change stream.

use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::time::Instant;

use super::{
    StreamScope,
    baseline::Baseline,
    batch::DocumentBatch,
    event::{EventOptions, StreamEvent, UnusableEvent, push_odd},
    position::{StreamPosition, Time, time, time_of},
    ru,
};
use crate::{
    change::streamed::ChangeBuffer,
    cosmos::{Failure, Feed, FeedPage},
    mongo::{Dialect, Mongo},
};

/// Events in an answer.
const BATCH: u32 = 1000;
/// After this many empty pages in this time nothing is left, when the server does not say how far it is. A throttled read
/// is an empty page, too: request units are budgeted by the second, however often the server is asked in it.
const QUIET: (u32, Duration) = (4, Duration::from_secs(2));
/// The same when it says that there is more: the number of a delete, which the stream does not have, looks like that.
const LONG_QUIET: (u32, Duration) = (12, Duration::from_secs(3));
/// The size of the text at which a page is full, when it may end anywhere.
const PAGE: usize = 4 << 20;

/// The watched scope, and how it is watched.
#[derive(Debug, Clone)]
pub(super) struct WatchedScope {
    pub mongo: Mongo,
    pub scope: StreamScope,
    pub manner: EventOptions,
    pub keeps_images: bool,
    /// How long the server waits for news before it sends an empty page.
    pub wait: Duration,
}

/// See the module's description.
pub(super) struct StreamFeed {
    watched: WatchedScope,
    position: StreamPosition,
    baseline: Option<Baseline>,
    cursor: Option<RawBatchCursor>,
    batch: Option<DocumentBatch>,
    /// Empty pages in a row after which the caller asked whether anything is left, and when it asked after the first.
    quiet: Option<(u32, Instant)>,
    /// How far the server had to read when it was first asked whether anything is left, and how far it had read then.
    looking: Option<(Option<Time>, Time)>,
    /// The parts so far of a split event.
    parts: Option<RawDocumentBuf>,
}

impl WatchedScope {
    fn is_ru(&self) -> bool {
        self.mongo.dialect == Dialect::CosmosRu
    }

    /// The collection into which an event brings documents that no event reports, and the event's time.
    fn brought_by(&self, event: &StreamEvent<'_>) -> Option<(Time, (String, String))> {
        let to = event.renamed_to()?;
        let is_watched = match &self.scope {
            StreamScope::Collection { database, collection } => to == (database, collection),
            StreamScope::Database(database) => to.0 == database,
            StreamScope::Deployment => true,
        };
        is_watched.then_some((event.time?, (to.0.to_owned(), to.1.to_owned())))
    }

    /// Opens the stream at its position.
    async fn open(&self, position: &StreamPosition) -> Result<RawBatchCursor, Failure> {
        let mut stream = Document::new();
        let look_up = if self.keeps_images { "whenAvailable" } else { "updateLookup" };
        stream.insert("fullDocument", look_up);
        if self.mongo.keeps_images() {
            stream.insert("fullDocumentBeforeChange", "whenAvailable");
        }
        match (position.token()?, position.start) {
            (Some(token), _) => {
                stream.insert(if position.ended { "startAfter" } else { "resumeAfter" }, token);
            }
            (None, Some((time, increment))) => {
                stream.insert("startAtOperationTime", Bson::Timestamp(Timestamp { time, increment }));
            }
            (None, None) => {}
        }
        if self.scope == StreamScope::Deployment {
            stream.insert("allChangesForCluster", true);
        }
        let mut pipeline = vec![doc! { "$changeStream": stream }];
        if self.is_ru() {
            pipeline.extend(ru::pipeline());
        } else if self.mongo.splits_events() {
            pipeline.push(doc! { "$changeStreamSplitLargeEvent": {} });
        }
        let opened = match &self.scope {
            StreamScope::Collection { database, collection } => {
                let collection = self.mongo.database(database).collection::<Document>(collection);
                collection.aggregate(pipeline).batch_size(BATCH).max_await_time(self.wait).batch().await
            }
            StreamScope::Database(database) => {
                self.mongo
                    .database(database)
                    .aggregate(pipeline)
                    .batch_size(BATCH)
                    .max_await_time(self.wait)
                    .batch()
                    .await
            }
            StreamScope::Deployment => {
                self.mongo
                    .database("admin")
                    .aggregate(pipeline)
                    .batch_size(BATCH)
                    .max_await_time(self.wait)
                    .batch()
                    .await
            }
        };
        opened.map_err(|e| self.mongo.fail("open the change stream", &e))
    }
}

impl StreamFeed {
    pub fn new(watched: WatchedScope, position: StreamPosition) -> Self {
        Self { watched, position, baseline: None, cursor: None, batch: None, quiet: None, looking: None, parts: None }
    }

    /// The next part of the documents that existed before, as long as there is any.
    async fn before(&mut self) -> Result<Option<FeedPage>, Failure> {
        if self.baseline.is_none() {
            let start = self.position.start.unwrap_or_default();
            // The stream may begin long before this reading, which a kill may have restarted.
            let now = self.watched.mongo.operation_time().await?.map_or(start, time);
            let begun = (start, now.max(start));
            let mongo = &self.watched.mongo;
            self.baseline = Some(match (&self.position.renamed, &self.watched.scope) {
                (Some(renamed), StreamScope::Database(_) | StreamScope::Deployment) => {
                    Baseline::of_one(renamed.clone(), begun)
                }
                (_, scope) => Baseline::of(mongo, scope, begun).await?,
            });
        }
        let Some(baseline) = &mut self.baseline else { return Ok(None) };
        let mut page = ChangeBuffer::default();
        if baseline.push(&self.watched.mongo, self.watched.manner, &mut page, PAGE).await? {
            return Ok(Some(FeedPage::of_sheet(page)));
        }
        self.baseline = None;
        self.position.filled();
        Ok(None)
    }

    /// The next answer of the stream; `None` when the stream has ended.
    async fn read(&mut self) -> Result<Option<FeedPage>, Failure> {
        if self.cursor.is_none() {
            self.parts = None;
            let mut cursor = self.watched.open(&self.position).await?;
            // The answer to the opening does not say whether there is news, unless it contains some.
            let first = cursor.next().await;
            let first = self.answer(first)?;
            self.cursor = Some(cursor);
            if let Some(mut batch) = first
                && !batch.is_empty()?
            {
                return self.page(batch).map(Some);
            }
        }
        let next = match &mut self.cursor {
            Some(cursor) => cursor.next().await,
            None => None,
        };
        match self.answer(next) {
            Ok(Some(batch)) => self.page(batch).map(Some),
            Ok(None) => {
                self.cursor = None;
                Ok(None)
            }
            Err(failure) => {
                self.cursor = None;
                Err(failure)
            }
        }
    }

    /// Whether the server has read everything from before it was asked. It sends an empty page when its time is over,
    /// however much of other collections it has still to pass over. One that does not get on has reached the end.
    async fn has_looked_at_all(&mut self, token: &Document) -> Result<bool, Failure> {
        let Some(read) = time_of(token) else { return Ok(true) };
        let end = match self.looking {
            Some((end, before)) if before < read => end,
            Some(_) => None,
            None => self.watched.mongo.operation_time().await?.map(time),
        };
        let is_end = end.is_none_or(|end| read >= end);
        self.looking = Some((end, read)).filter(|_| !is_end);
        Ok(is_end)
    }

    fn answer(&self, next: Option<mongodb::error::Result<RawBatch>>) -> Result<Option<DocumentBatch>, Failure> {
        let batch = next.transpose().map_err(|e| self.watched.mongo.fail("read the change stream", &e))?;
        batch.map(DocumentBatch::new).transpose()
    }

    /// Makes a page of the rest of an answer.
    fn page(&mut self, mut batch: DocumentBatch) -> Result<FeedPage, Failure> {
        // A document's text is a little longer than its bytes, and these are in it a second time, as base64.
        let mut page = ChangeBuffer::with_room((batch.left() * 3).min(PAGE + PAGE / 4));
        // All documents in an answer of Azure share one token, which is after the last of them.
        let most = if self.watched.is_ru() { usize::MAX } else { PAGE };
        if !batch.is_empty()? {
            self.quiet = None;
        }
        // The documents that a rename brought are read before the events after it.
        while page.bytes() < most && !self.position.baseline {
            let Some(raw) = batch.next()? else {
                self.end_of(&batch);
                return Ok(FeedPage::of_sheet(page));
            };
            let event = StreamEvent::read(raw);
            let several = event.as_ref().ok().and_then(|event| event.part).filter(|(_, of)| *of > 1);
            let whole;
            let (raw, event) = match several {
                None => (raw, event),
                Some((part, of)) => {
                    let parts = self.parts.get_or_insert_with(RawDocumentBuf::new);
                    add_part(parts, raw, part == of);
                    if part < of {
                        continue;
                    }
                    whole = self.parts.take().unwrap_or_default();
                    (&*whole, StreamEvent::read(&whole))
                }
            };
            let brought = event.as_ref().ok().and_then(|event| self.watched.brought_by(event));
            push(raw, event, &mut page, self.watched.manner, &mut self.position);
            if let Some((time, collection)) = brought {
                self.position.fill(time, collection);
            }
        }
        self.batch = Some(batch);
        Ok(FeedPage::of_sheet(page))
    }

    /// The whole answer was consumed.
    fn end_of(&mut self, batch: &DocumentBatch) {
        // The server's token for the end also covers the parts that have arrived so far.
        if let (Some(token), None, false) = (batch.token(), &self.parts, self.position.ended) {
            self.position.pass(token);
        }
    }
}

/// Adds the change that an event is, if it is one, and advances past it.
fn push(
    raw: &RawDocument,
    event: Result<StreamEvent<'_>, UnusableEvent>,
    page: &mut ChangeBuffer,
    manner: EventOptions,
    position: &mut StreamPosition,
) {
    let begin = page.bytes();
    let event = match event {
        Ok(event) => event,
        Err(problem) => return push_odd(page, raw, &problem),
    };
    if let Err(problem) = event.push(page, manner, position) {
        page.take_back(begin);
        push_odd(page, raw, &problem);
    }
    if let Some(token) = event.token {
        position.pass(token);
        position.ended = event.is_end();
    }
}

/// Adds the members of a part to the earlier ones.
fn add_part(parts: &mut RawDocumentBuf, raw: &RawDocument, is_last: bool) {
    for (name, value) in raw.iter().flatten() {
        let skipped = name.as_str() == "splitEvent" || (name.as_str() == "_id" && !is_last);
        if !skipped {
            parts.append(name, value);
        }
    }
}

#[async_trait]
impl Feed for StreamFeed {
    async fn next(&mut self) -> Result<FeedPage, Failure> {
        if self.position.baseline
            && let Some(page) = self.before().await?
        {
            return Ok(page);
        }
        if let Some(batch) = self.batch.take() {
            return self.page(batch);
        }
        // A stream that ended with its collection continues after that; one that ends at once is left alone for a
        // while.
        for _ in 0..2 {
            if let Some(page) = self.read().await? {
                return Ok(page);
            }
        }
        Ok(FeedPage::default())
    }

    /// An empty page from Azure may be one that was throttled.
    async fn is_caught_up(&mut self) -> Result<bool, Failure> {
        // The rest of a partly received event is on its way.
        if self.parts.is_some() {
            return Ok(false);
        }
        let Some(token) = self.position.token()? else { return Ok(true) };
        if !self.watched.is_ru() {
            return self.has_looked_at_all(&token).await;
        }
        let StreamScope::Collection { database, collection } = &self.watched.scope else { return Ok(true) };
        let now = ru::streams(&self.watched.mongo, database, collection, None).await?;
        let enough = match ru::is_up_to(&token, &now) {
            Some(true) => return Ok(true),
            Some(false) => LONG_QUIET,
            None => QUIET,
        };
        // Several empty pages in a row are the best sign there is.
        let (before, since) = self.quiet.unwrap_or_else(|| (0, Instant::now()));
        self.quiet = Some((before + 1, since));
        Ok(before + 1 >= enough.0 && since.elapsed() >= enough.1)
    }

    fn position(&self) -> Result<String, Failure> {
        Ok(self.position.text())
    }

    fn waits(&self) -> bool {
        // Azure answers at once, but need not be asked again at once.
        !self.watched.is_ru()
    }
}

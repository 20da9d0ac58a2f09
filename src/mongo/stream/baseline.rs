//! Reads the documents that exist before a stream begins.

use std::collections::VecDeque;

use bson::{RawDocument, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::{
    StreamScope,
    batch::DocumentBatch,
    event::{EventOptions, lsn, push_bytes, push_image, push_odd},
    position::Time,
};
use crate::{
    bson_text::{fingerprint, push_id},
    change::{
        Op,
        streamed::{ChangeBuffer, Streamed},
    },
    cosmos::Failure,
    mongo::Mongo,
};

/// Documents in an answer.
const BATCH: u32 = 1000;

/// Reads collections one after another.
pub(super) struct Baseline {
    /// The databases and collections that are left; the first one is being read.
    left: VecDeque<(String, String)>,
    cursor: Option<RawBatchCursor>,
    batch: Option<DocumentBatch>,
    /// When the stream begins. A reading that is restarted has the same start, a different reading does not.
    start: Time,
    /// Whether documents of several collections may share an `_id`.
    is_of_several: bool,
    /// A time before the documents are read, which they are given. A later one might come after a change that the text
    /// does not have yet.
    time: Time,
}

impl Baseline {
    /// Lists the collections of a scope. The stream begins at `start`, and the reading does not begin before `time`.
    pub async fn of(mongo: &Mongo, scope: &StreamScope, (start, time): (Time, Time)) -> Result<Self, Failure> {
        let fail = |e: mongodb::error::Error| mongo.fail("list the collections", &e);
        let baseline = |left, is_of_several| Self { left, cursor: None, batch: None, start, is_of_several, time };
        let databases = match scope {
            StreamScope::Collection { database, collection } => {
                return Ok(baseline(VecDeque::from([(database.clone(), collection.clone())]), false));
            }
            StreamScope::Database(database) => vec![database.clone()],
            StreamScope::Deployment => mongo.client.list_database_names().await.map_err(fail)?,
        };
        let mut left = VecDeque::new();
        for database in databases.iter().filter(|name| !["admin", "config", "local"].contains(&name.as_str())) {
            let plain = doc! { "type": "collection" };
            let names = mongo.database(database).list_collection_names().filter(plain).await.map_err(fail)?;
            let own = names.into_iter().filter(|name| !name.starts_with("system."));
            left.extend(own.map(|name| (database.clone(), name)));
        }
        Ok(baseline(left, true))
    }

    /// One of the collections in a scope.
    pub fn of_one(collection: (String, String), (start, time): (Time, Time)) -> Self {
        let left = VecDeque::from([collection]);
        Self { left, cursor: None, batch: None, start, is_of_several: true, time }
    }

    /// Adds the documents of the next part, up to this many bytes; false when everything was read.
    pub async fn push(
        &mut self,
        mongo: &Mongo,
        manner: EventOptions,
        page: &mut ChangeBuffer,
        most: usize,
    ) -> Result<bool, Failure> {
        let fail = |e: mongodb::error::Error| mongo.fail("read the collection", &e);
        while let Some((database, collection)) = self.left.front() {
            let ns = format!("{database}.{collection}");
            let place = Place { ns: &ns, start: self.start, is_one_of_several: self.is_of_several };
            if let Some(batch) = &mut self.batch {
                while page.bytes() < most {
                    let Some(document) = batch.next()? else {
                        self.time = batch.operation_time().unwrap_or(self.time);
                        self.batch = None;
                        break;
                    };
                    push(document, &place, self.time, manner, page);
                }
                if !page.is_empty() {
                    return Ok(true);
                }
                continue;
            }
            let cursor = match &mut self.cursor {
                Some(cursor) => cursor,
                None => {
                    let found = mongo.database(database).collection::<bson::Document>(collection);
                    self.cursor.insert(found.find(doc! {}).batch_size(BATCH).batch().await.map_err(fail)?)
                }
            };
            match cursor.next().await {
                Some(batch) => self.batch = Some(DocumentBatch::new(batch.map_err(fail)?)?),
                None => {
                    self.cursor = None;
                    self.left.pop_front();
                }
            }
        }
        Ok(false)
    }
}

/// Where a document was read.
struct Place<'a> {
    ns: &'a str,
    start: Time,
    is_one_of_several: bool,
}

impl Place<'_> {
    /// The version of a document. A text that returns, and is found by another reading, is another version: otherwise
    /// the history would take what was in between for the newest one. So is the same document in another collection.
    fn version_of(&self, document: &RawDocument, time: Time, manner: EventOptions) -> String {
        let mut version = match manner.with_bytes {
            true => {
                let print = fingerprint(document.as_bytes());
                format!("base-{}-{:07}-{}", self.start.0, self.start.1, print.trim_matches('"'))
            }
            // For a document with fields left out, nothing is derived from the whole.
            false => format!("base-{}-{:07}", time.0, time.1),
        };
        if self.is_one_of_several {
            version.push('-');
            version.push_str(fingerprint(self.ns.as_bytes()).trim_matches('"'));
        }
        version
    }
}

/// Adds an existing document.
fn push(document: &RawDocument, place: &Place<'_>, time: Time, manner: EventOptions, page: &mut ChangeBuffer) {
    let begin = page.bytes();
    let current = match push_image(page, document, manner) {
        Ok(current) => current,
        Err(problem) => {
            page.take_back(begin);
            return push_odd(page, document, &problem);
        }
    };
    // Its text is there, so it has one.
    let id = page.write(|out| _ = push_id(out, document.as_bytes()));
    let change = Streamed {
        op: Op::Baseline,
        ts: Some(i64::from(time.0)),
        // After the change of that very time, which the text includes.
        lsn: Some(lsn(time, u32::MAX)),
        id,
        named: Some(id),
        version: page.write(|out| out.push_str(&place.version_of(document, time, manner))),
        ns: page.write(|out| out.push_str(place.ns)),
        current: Some(current),
        previous: None,
        changed: None,
        bson: manner.with_bytes.then(|| page.write(|out| push_bytes(out, document))),
        looked_up: false,
    };
    page.push(change);
}

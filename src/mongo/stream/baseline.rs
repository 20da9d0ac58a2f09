//! Reads the documents that exist before a stream begins.

use std::collections::VecDeque;

use bson::{RawDocument, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::{
    Scope,
    batch::Batch,
    event::{Facts, Manner, Odd, lsn, push_bytes, push_image, push_odd},
    position::Time,
};
use crate::{
    bson_text::{fingerprint, id_text},
    change::Op,
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
    batch: Option<Batch>,
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
    pub async fn of(mongo: &Mongo, scope: &Scope, (start, time): (Time, Time)) -> Result<Self, Failure> {
        let fail = |e: mongodb::error::Error| mongo.fail("list the collections", &e);
        let baseline = |left, is_of_several| Self { left, cursor: None, batch: None, start, is_of_several, time };
        let databases = match scope {
            Scope::Collection { database, collection } => {
                return Ok(baseline(VecDeque::from([(database.clone(), collection.clone())]), false));
            }
            Scope::Database(database) => vec![database.clone()],
            Scope::Deployment => mongo.client.list_database_names().await.map_err(fail)?,
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

    /// Appends the items of the next part, up to this many bytes, and returns their number; `None` when everything was
    /// read.
    pub async fn push(
        &mut self,
        mongo: &Mongo,
        manner: Manner,
        out: &mut String,
        most: usize,
    ) -> Result<Option<usize>, Failure> {
        let fail = |e: mongodb::error::Error| mongo.fail("read the collection", &e);
        let mut count = 0;
        while let Some((database, collection)) = self.left.front() {
            let ns = format!("{database}.{collection}");
            let place = Place { ns: &ns, start: self.start, is_one_of_several: self.is_of_several };
            if let Some(batch) = &mut self.batch {
                while out.len() < most {
                    let Some(document) = batch.next()? else {
                        self.time = batch.operation_time().unwrap_or(self.time);
                        self.batch = None;
                        break;
                    };
                    if count > 0 {
                        out.push(',');
                    }
                    push(document, &place, self.time, manner, out);
                    count += 1;
                }
                if count > 0 {
                    return Ok(Some(count));
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
                Some(batch) => self.batch = Some(Batch::new(batch.map_err(fail)?)),
                None => {
                    self.cursor = None;
                    self.left.pop_front();
                }
            }
        }
        Ok(None)
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
    fn version_of(&self, document: &RawDocument, time: Time, manner: Manner) -> String {
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

/// Appends an existing document.
fn push(document: &RawDocument, place: &Place<'_>, time: Time, manner: Manner, out: &mut String) {
    let begin = out.len();
    let id = document.get("_id").ok().flatten().map(id_text);
    // After the change of that very time, which the text includes.
    let (ts, lsn) = (Some(i64::from(time.0)), Some(lsn(time, u32::MAX)));
    let facts = Facts { op: Op::Baseline, ts, lsn, id, ns: place.ns.to_owned(), looked_up: false };
    let version = place.version_of(document, time, manner);
    out.push_str("{\"current\":");
    if let Err(problem) = push_image(out, document, manner) {
        out.truncate(begin);
        push_odd(out, document, &Odd(problem.to_string()));
        return;
    }
    out.push(',');
    facts.push(out, &version);
    if manner.with_bytes {
        push_bytes(out, document);
    }
    out.push_str("}}");
}

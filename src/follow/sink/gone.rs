//! A dropped collection takes its documents along. A change stream reports the drop without a single delete, so the
//! deletes are made from the documents that the history takes for alive.

use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use serde_json::value::RawValue;
use tracing::warn;

use super::{Batch, SinkError};
use crate::{
    capture::{Capture, CaptureError},
    change::{Native, decode::decode, time::PointInTime},
    config::Names,
    cosmos::{Cosmos, Failure, RuLimiter},
    follow::Event,
    history::{
        CosmosHistory,
        removals::{self, Hole},
        scan::{Scan, Scope},
    },
    mongo::{Mongo, MongoCollection, delete_item},
};

/// How many deletes are handed to the history at once.
const AT_ONCE: usize = 500;

/// A collection whose history is being written.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Where the history is.
    pub account: Cosmos,
    /// Its names.
    pub names: Names,
    /// Where the collection was.
    pub mongo: Mongo,
    /// Its database.
    pub database: String,
    /// Its own name.
    pub collection: String,
    /// When another collection took its name, epoch seconds, until the documents that came with it are read.
    pub unread: Arc<Mutex<Option<i64>>>,
}

impl Collection {
    /// Database and collection, separated by a dot.
    fn namespace(&self) -> String {
        format!("{}.{}", self.database, self.collection)
    }

    /// Whether an event says that this collection is gone, or that another one has taken its name.
    pub(super) fn ends_with(&self, event: &Event<'_>) -> bool {
        let own = self.namespace();
        let is_own = |native: &Native<'_>| native.ns == own || native.to.as_deref() == Some(&own);
        event.op.ends_collection() && event.native.as_ref().is_some_and(is_own)
    }

    /// Writes the delete of each document that the history takes for alive, as of the event. Doing it again finds none.
    ///
    /// # Errors
    /// When the history cannot be read or written.
    pub(super) async fn delete_all(
        &self,
        event: &Event<'_>,
        capture: &Capture<CosmosHistory>,
        range: &str,
    ) -> Result<(), SinkError> {
        let service = |e: Failure| SinkError::from(CaptureError::Service(e));
        let invalid = |what: &str, e: &dyn std::fmt::Display| service(Failure::invalid(what.into(), e.to_string()));
        let documents = MongoCollection::open(self.mongo.clone(), &self.database, &self.collection).await;
        let containers = documents.map_err(service)?.with_history(&self.account, &self.names).await.map_err(service)?;
        let hash_ranges = containers.hash_ranges(None).map_err(|e| invalid("read the history", &e))?;
        // The event's place in the stream: each document changes only once there.
        let (ns, version) = (self.namespace(), event.version.rsplit('~').next().unwrap_or_default());
        let pace = RuLimiter::new(self.account.meter(), None);
        let scan = Scan::facts(&containers, &Scope::All, &hash_ranges, &pace);
        let (mut count, mut is_repeated) = (0_usize, false);
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(service)?;
            is_repeated |=
                piece.found.iter().flat_map(|found| &found.versions).any(|version| Some(version.ts) > event.ts);
            // What came after the event belongs to a collection that was created again.
            let alive = piece.found.iter().filter(|found| {
                found.document_at(PointInTime::END).is_some_and(|newest| newest.lsn.is_none() || newest.lsn < event.lsn)
            });
            let deletes = alive.map(|found| delete_item(&found.item.id, (&ns, version), (event.ts, event.lsn)));
            let deletes: Vec<Box<RawValue>> =
                deletes.collect::<Result<_, _>>().map_err(|e| invalid("make a delete", &e))?;
            for some in deletes.chunks(AT_ONCE) {
                let items: Vec<&RawValue> = some.iter().map(|item| &**item).collect();
                capture.run(&items, range).await?;
            }
            count += deletes.len();
        }
        let is_onto = event.native.as_ref().is_some_and(|native| native.to.as_deref() == Some(ns.as_str()));
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = event.ts.filter(|_| is_onto && !is_repeated);
        warn!(
            follower = capture.function,
            collection = ns,
            documents = count,
            "the collection is gone, and its documents with it; the history has their deletes"
        );
        Ok(())
    }

    /// Notes that nobody knows what was there from when another collection took the name of this one until its documents
    /// were read, or the next change: what was gone again by then left no trace.
    ///
    /// # Errors
    /// When the history cannot be read or written.
    pub(super) async fn note_unread(&self, batch: &Batch<'_>) -> Result<(), SinkError> {
        let Some(since) = *self.unread.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        let mut changes = Vec::new();
        for item in &batch.items {
            // What cannot be read becomes a dead letter.
            let _ = decode(item, &mut changes);
        }
        let times =
            changes.iter().filter_map(|change| change.ts).chain(batch.events.iter().filter_map(|event| event.ts));
        let Some(before) = times.min() else { return Ok(()) };
        // A hole of less than a second, in which a baseline is, would make that one unknown.
        if before > since {
            let service = |e: Failure| SinkError::from(CaptureError::Service(e));
            let history = self.account.container(&self.names.database, &self.names.changes).await.map_err(service)?;
            let hole = Hole { after: Some(since.saturating_sub(1)), before };
            removals::note_holes(&history, vec![hole]).await.map_err(service)?;
        }
        *self.unread.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}

//! Fills a container with what there was: all of it in the background, and by name what is asked for before.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::request::{OVERHEAD, PastError};
use crate::{
    causes::chain,
    change::{
        key::{ItemKey, PartitionKey},
        record::hex,
        shape::Redactor,
        time::PointInTime,
    },
    cosmos::{HashRange, RuLimiter},
    history::{
        Containers,
        as_of::Caveat,
        frontier::Frontier,
        live::{LiveDetail, look_at},
        moment::{Moment, Then},
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, facts_of_id},
    },
    local::container::{Container, Fetch, Import},
    progress::ProgressStep,
};

/// Fills one container.
pub(super) struct Loader {
    pub(super) source: String,
    pub(super) at: PointInTime,
    pub(super) containers: Containers,
    pub(super) frontier: Frontier,
    pub(super) beyond: bool,
    pub(super) limiter: RuLimiter,
    pub(super) scope: Scope,
    pub(super) redactor: Option<Redactor>,
    pub(super) writable: bool,
    pub(super) container: Arc<Container>,
    pub(super) unknown: Arc<Container>,
    pub(super) most: u64,
    pub(super) documents: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) unknowns: AtomicU64,
}

impl Loader {
    pub(super) async fn load(&self, concurrency: usize, step: &dyn ProgressStep) -> Result<(), PastError> {
        if self.beyond {
            step.note(&format!("warning: {}: {}, before {}", self.source, self.frontier.describe(), self.at));
        }
        let scan = Scan {
            containers: &self.containers,
            wanted: &self.scope,
            at: self.at,
            hash_ranges: &HashRange::WHOLE.cut(4),
            live: LiveDetail::Etag,
            piece_rows: PIECE_ROWS,
            pace: &self.limiter,
            texts: ScanTexts::InForce(&|found| found.document_at(self.at).is_some()),
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            for bad in &piece.bad {
                self.is_unknown(&bad.record_id, &Value::Null, &bad.to_string(), Some(step)).await;
            }
            let found = stream::iter(&piece.found)
                .map(|found| async move { self.take(found, Some(step)).await })
                .buffer_unordered(concurrency.max(1));
            found.try_for_each(|()| std::future::ready(Ok(()))).await?;
            step.advance(piece.found.len() as u64);
        }
        Ok(())
    }

    /// Takes in what a document was.
    async fn take(&self, found: &ScannedItem, step: Option<&dyn ProgressStep>) -> Result<(), PastError> {
        let all = matches!(self.scope, Scope::All);
        let moment = Moment::new(self.at, all, &self.containers, &self.frontier, &self.limiter);
        let key = found.item.partition_key.to_json();
        let mut chosen = match moment.choose(found) {
            Then::Nothing => return Ok(()),
            Then::Unknown(doubt) => {
                self.is_unknown(&found.item.id, &key, &doubt, step).await;
                return Ok(());
            }
            Then::Document(chosen) => chosen,
        };
        let text = match moment.text_of(&mut chosen).await? {
            Ok(text) => text,
            Err(problem) => {
                self.is_unknown(&found.item.id, &key, &problem.to_string(), step).await;
                return Ok(());
            }
        };
        if let Some(partial) = chosen.caveats.iter().find(|c| matches!(c, Caveat::Partial)) {
            self.is_unknown(&found.item.id, &key, &partial.to_string(), step).await;
            return Ok(());
        }
        let text = match self.redactor.as_ref().map_or(Ok(text.clone()), |redactor| redactor.shaped(&text)) {
            Ok(text) => text,
            Err(problem) => {
                self.is_unknown(&found.item.id, &key, &problem.to_string(), step).await;
                return Ok(());
            }
        };
        let needed = self.bytes.load(Ordering::Relaxed) + text.len() as u64 + OVERHEAD;
        if needed > self.most {
            return Err(PastError::TooLarge { needed, most: self.most });
        }
        let document = Import { text, etag: chosen.etag, ts: u64::try_from(chosen.ts).unwrap_or_default() };
        match self.container.import(document, self.writable).await {
            Ok(0) => {}
            Ok(bytes) => {
                self.bytes.fetch_add(bytes as u64 + OVERHEAD, Ordering::Relaxed);
                self.documents.fetch_add(1, Ordering::Relaxed);
            }
            Err(problem) => self.is_unknown(&found.item.id, &key, &problem, step).await,
        }
        Ok(())
    }

    /// Lists a document of which nobody knows what it was.
    async fn is_unknown(&self, id: &str, key: &Value, reason: &str, step: Option<&dyn ProgressStep>) {
        /// So many are named; a query finds all.
        const NAMED: u64 = 10;
        let name = format!("{id} {key}");
        let listed = json!({
            "id": hex(&Sha256::digest(name.as_bytes())),
            "container": self.source, "documentId": id, "pk": key, "reason": reason,
        });
        let (text, etag) = (listed.to_string(), None);
        let ts = u64::try_from(self.at.seconds()).unwrap_or_default();
        // Fetched by name and loaded, it is listed once.
        if !matches!(self.unknown.import(Import { text, etag, ts }, self.writable).await, Ok(bytes) if bytes > 0) {
            return;
        }
        let count = self.unknowns.fetch_add(1, Ordering::Relaxed);
        if let Some(step) = step.filter(|_| count < NAMED) {
            step.note(&format!("unknown    {}: {id} {key}: {reason}", self.source));
        }
    }

    async fn fetch(&self, id: &str, key: &str) -> Result<(), String> {
        let item = ItemKey { id: id.to_owned(), partition_key: PartitionKey::parse(key)? };
        let failed = |e: &dyn std::error::Error| chain(e);
        let found = facts_of_id(&self.containers, &self.limiter, id, Some(&item.partition_key)).await;
        let (found, _) = found.map_err(|e| failed(&e))?;
        let mut found =
            found.into_iter().find(|found| found.item == item).unwrap_or_else(|| ScannedItem::new(item.clone()));
        let live = look_at(&*self.containers.source, &self.limiter, &item, false).await;
        found.live = live.map_err(|e| failed(&e))?;
        if found.versions.is_empty() && found.live.is_none() {
            return Ok(());
        }
        self.take(&found, None).await.map_err(|e| failed(&e))
    }
}

/// Fetches by name while the account lives.
pub(super) struct Fetching(pub(super) std::sync::Weak<Loader>);

impl fmt::Debug for Fetching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetching")
    }
}

impl Fetch for Fetching {
    fn fetch<'a>(&'a self, id: &'a str, key: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            match self.0.upgrade() {
                Some(loader) => loader.fetch(id, key).await,
                None => Err("the account is being closed".into()),
            }
        }
        .boxed()
    }
}

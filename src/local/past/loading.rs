//! Fills a container with the documents of the moment: all of them in the background, requested ones first.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
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
    config::Names,
    cosmos::{Cosmos, HashRange, RuLimiter},
    history::{
        Containers,
        as_of::Caveat,
        frontier::Frontier,
        gone::DeleteSearch,
        live::{LiveDetail, look_at},
        moment::{DocumentState, Moment},
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope, facts_of_id},
    },
    local::container::{Fetch, Import, LocalContainer},
    progress::ProgressStep,
};

/// Fills one container.
pub(super) struct Loader {
    pub(super) account: Cosmos,
    pub(super) names: Names,
    pub(super) database: String,
    pub(super) source: String,
    pub(super) at: PointInTime,
    pub(super) containers: Containers,
    pub(super) frontier: Frontier,
    pub(super) beyond: bool,
    pub(super) limiter: RuLimiter,
    pub(super) scope: Scope,
    pub(super) redactor: Option<Redactor>,
    pub(super) writable: bool,
    pub(super) container: Arc<LocalContainer>,
    pub(super) unknown: Arc<LocalContainer>,
    pub(super) most: u64,
    pub(super) documents: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) unknowns: AtomicU64,
    /// Documents with each caveat, by the caveat's name.
    pub(super) caveats: Mutex<BTreeMap<&'static str, u64>>,
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
        let gone = self.gone();
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let mut piece = piece?;
            gone.mark(&mut piece.found, self.at).await?;
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

    fn gone(&self) -> DeleteSearch<'_> {
        let containers = (&*self.containers.changes, &*self.containers.source);
        DeleteSearch::new(&self.account, &self.names, containers, &self.frontier, &self.limiter)
    }

    /// Adds a document as it was, or lists it when its state is unknown.
    async fn take(&self, found: &ScannedItem, step: Option<&dyn ProgressStep>) -> Result<(), PastError> {
        let mut caveats = Vec::new();
        let imported = match self.then(found).await? {
            Ok(None) => Ok(0),
            Ok(Some((document, known))) => {
                caveats = known;
                let needed = self.bytes.load(Ordering::Relaxed) + document.text.len() as u64 + OVERHEAD;
                if needed > self.most {
                    return Err(PastError::TooLarge { needed, most: self.most });
                }
                self.container.import(document, self.writable).await
            }
            Err(reason) => Err(reason),
        };
        match imported {
            Ok(0) => {}
            Ok(bytes) => {
                self.bytes.fetch_add(bytes as u64 + OVERHEAD, Ordering::Relaxed);
                self.documents.fetch_add(1, Ordering::Relaxed);
                let mut counts = self.caveats.lock().unwrap_or_else(PoisonError::into_inner);
                caveats.iter().for_each(|caveat| *counts.entry(caveat.name()).or_default() += 1);
            }
            Err(reason) => {
                self.is_unknown(&found.item.id, &found.item.partition_key.to_json(), &reason, step).await;
            }
        }
        Ok(())
    }

    /// Returns a document as it was, masked, and what cannot be known about it; `None` when it did not exist; a reason
    /// when its state is unknown.
    async fn then(&self, found: &ScannedItem) -> Result<Result<Option<(Import, Vec<Caveat>)>, String>, PastError> {
        let all = matches!(self.scope, Scope::All);
        let moment = Moment::new(self.at, all, &self.containers, &self.frontier, &self.limiter);
        let mut chosen = match moment.choose(found) {
            DocumentState::Nothing => return Ok(Ok(None)),
            DocumentState::Unknown(doubt) => return Ok(Err(doubt)),
            DocumentState::Document(chosen) => chosen,
        };
        if let Some(partial) = chosen.caveats.iter().find(|c| matches!(c, Caveat::Partial)) {
            return Ok(Err(partial.to_string()));
        }
        let text = match (moment.text_of(&mut chosen).await?, &self.redactor) {
            (Ok(text), None) => text,
            (Ok(text), Some(redactor)) => match redactor.shaped(&text) {
                Ok(text) => text,
                Err(problem) => return Ok(Err(problem.to_string())),
            },
            (Err(problem), _) => return Ok(Err(problem.to_string())),
        };
        let document = Import { text, etag: chosen.etag, ts: u64::try_from(chosen.ts).unwrap_or_default() };
        Ok(Ok(Some((document, chosen.caveats))))
    }

    /// Lists a document whose state is unknown.
    async fn is_unknown(&self, id: &str, key: &Value, reason: &str, step: Option<&dyn ProgressStep>) {
        /// Only this many are named in messages; a query finds all of them.
        const NAMED: u64 = 10;
        let name = format!("{id} {key}");
        let listed = json!({
            "id": hex(&Sha256::digest(name.as_bytes())),
            "container": self.source, "documentId": id, "pk": key, "reason": reason,
        });
        let (text, etag) = (listed.to_string(), None);
        let ts = u64::try_from(self.at.seconds()).unwrap_or_default();
        // A document that is both fetched by id and loaded is listed only once.
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
        let live = look_at(&*self.containers.source, &self.limiter, &item, None, false).await;
        found.live = live.map_err(|e| failed(&e))?;
        if found.versions.is_empty() && found.live.is_none() {
            return Ok(());
        }
        let looked_at = std::slice::from_mut(&mut found);
        self.gone().mark(looked_at, self.at).await.map_err(|e| failed(&e))?;
        self.take(&found, None).await.map_err(|e| failed(&e))
    }
}

/// Fetches documents by id while the account exists.
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

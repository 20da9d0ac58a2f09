//! Reads the live documents for a backup.

use futures::{StreamExt as _, stream};

use super::write::{BackupJob, BackupSink, Interruption, LIVE_RANGES};
use crate::{
    change::{key::ItemKey, record},
    cosmos::{Failure, HashRange, RETRY_TIMEOUT, RangeWalk, Retry},
};

/// The size that a piece of a range should have, in bytes.
const PIECE_BYTES: usize = 4 << 20;

impl BackupJob<'_> {
    /// Saves the documents that match now.
    pub(super) async fn live(&self, sink: &mut BackupSink) -> Result<(), Interruption> {
        let in_pieces = self.containers.source.hash_space().is_some();
        let hash_ranges = sink.state.left.clone();
        let walks = stream::iter(hash_ranges).enumerate().flat_map_unordered(LIVE_RANGES as usize, |(number, left)| {
            Box::pin(stream::try_unfold(RangeWalk::new(left, in_pieces), move |mut walk| async move {
                let Some(piece) = walk.next_piece() else { return Ok(None) };
                let retry = Retry::for_at_most(RETRY_TIMEOUT);
                let documents = retry.run(|| self.live_piece(piece)).await?;
                let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
                walk.adapt(bytes as f64 / PIECE_BYTES as f64);
                Ok(Some(((documents, number, walk.rest()), walk)))
            }))
        });
        let mut walks = std::pin::pin!(walks);
        while let Some(piece) = walks.next().await {
            let (documents, number, rest) = piece.map_err(|f| self.explain(f))?;
            self.step.advance(documents.len() as u64);
            for (item, text) in documents {
                sink.push(item, text).map_err(|e| self.disk(e))?;
            }
            sink.walked(number, rest).map_err(|e| self.disk(e))?;
        }
        Ok(())
    }

    /// The documents of a piece, without system properties.
    async fn live_piece(&self, piece: HashRange) -> Result<Vec<(ItemKey, String)>, Failure> {
        let matching = self.request.predicate.as_deref().map(|predicate| (predicate, self.request.params.as_slice()));
        let mut pages = self.containers.source.documents_in(piece, true, matching);
        let mut documents = Vec::new();
        loop {
            self.limiter.wait().await;
            let Some(page) = pages.next().await else { return Ok(documents) };
            for (item, live) in page? {
                let wrong = |e| Failure::invalid("read document".into(), format!("a document is not understood: {e}"));
                documents.push((item, record::own_text(&live.text.unwrap_or_default()).map_err(wrong)?));
            }
        }
    }
}

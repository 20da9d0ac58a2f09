//! Reads the live documents for a backup.

use futures::{StreamExt as _, stream};

use super::write::{Interruption, Job, LIVE_RANGES, Sink};
use crate::{
    change::{key::ItemKey, raw::RawDocument, record},
    cosmos::{Failure, HashRange, RETRY_TIMEOUT, Retry, Walk},
};

/// Bytes that a piece of a range should have.
const PIECE_BYTES: usize = 4 << 20;

impl Job<'_> {
    /// Saves the documents that match now.
    pub(super) async fn live(&self, sink: &mut Sink) -> Result<(), Interruption> {
        let in_pieces = self.containers.source.hash_space().is_some();
        let sql = match &self.request.predicate {
            // On lines of its own, so that a comment in it cannot swallow the parenthesis.
            Some(predicate) => format!("SELECT * FROM c WHERE (\n{predicate}\n)"),
            None => "SELECT * FROM c".to_owned(),
        };
        let sql = &sql;
        let hash_ranges = sink.state.left.clone();
        let walks = stream::iter(hash_ranges).enumerate().flat_map_unordered(LIVE_RANGES as usize, |(number, left)| {
            Box::pin(stream::try_unfold(Walk::new(left, in_pieces), move |mut walk| async move {
                let Some(piece) = walk.next_piece() else { return Ok(None) };
                let retry = Retry::for_at_most(RETRY_TIMEOUT);
                let documents = retry.run(|| self.live_piece(sql, piece)).await?;
                let bytes: usize = documents.iter().map(|(_, text)| text.len()).sum();
                walk.had(bytes as f64 / PIECE_BYTES as f64);
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
    async fn live_piece(&self, sql: &str, piece: HashRange) -> Result<Vec<(ItemKey, String)>, Failure> {
        let source = &self.containers.source;
        let mut pages = source.query_hash_range(sql, &self.request.params, piece).await?;
        let mut documents = Vec::new();
        loop {
            self.limiter.wait().await;
            let Some(page) = pages.next().await else { return Ok(documents) };
            for document in page?.documents {
                let wrong = |e| Failure::invalid("read document".into(), format!("a document is not understood: {e}"));
                let text = record::own_text(document.get()).map_err(wrong)?;
                let parsed = RawDocument::parse(&text).map_err(wrong)?;
                let id = parsed.get_str("id").unwrap_or_default().into_owned();
                let item = ItemKey { id, partition_key: source.key_paths().extract(&parsed) };
                drop(parsed);
                documents.push((item, text));
            }
        }
    }
}

//! Reads the documents of a moment for a backup: from the history, and from the live container those that only it has.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::write::{BackupJob, BackupSink, Interruption};
use crate::{
    change::{key::ItemKey, time::PointInTime},
    frontier::waiting::reach,
    history::{
        as_of::Caveat,
        gone::DeleteSearch,
        live::LiveDetail,
        moment::{DocumentState, InForce, Moment, NoText},
        scan::{PIECE_ROWS, Scan, ScanTexts, Scope},
    },
};

impl BackupJob<'_> {
    /// Saves the documents that matched at the moment, as they were then.
    pub(super) async fn moment(&self, sink: &mut BackupSink, at: PointInTime) -> Result<(), Interruption> {
        let scope = match &self.request.predicate {
            Some(predicate) => Scope::Then { predicate: predicate.clone(), params: self.request.params.clone() },
            None => Scope::All,
        };
        let hash_ranges = sink.state.left.clone();
        let frontier = reach(at, self.request.wait, &self.limiter, self.cx).await?;
        if !frontier.covers(at) {
            self.step.note(&format!("warning: {}, before the point in time", frontier.describe()));
            sink.state.beyond = true;
        }
        let scan = Scan {
            containers: self.containers,
            wanted: &scope,
            at,
            hash_ranges: &hash_ranges,
            // Documents without a known version, and those of them that were in force already.
            live: LiveDetail::Etag,
            piece_rows: PIECE_ROWS,
            pace: &self.limiter,
            texts: ScanTexts::InForce(&|found| found.document_at(at).is_some()),
        };
        let then = Moment::new(at, self.request.predicate.is_none(), self.containers, &frontier, &self.limiter);
        let then = &then;
        let (changes, source) = (&*self.containers.changes, &*self.containers.source);
        let gone = DeleteSearch::new(self.cx.account, self.cx.names, (changes, source), &frontier, &self.limiter);
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let mut piece = piece.map_err(|f| self.explain(f))?;
            gone.mark(&mut piece.found, at).await?;
            for bad in &piece.bad {
                sink.leave_out(self.step, || format!("{bad}; it is set aside"));
            }
            let mut chosen = Vec::new();
            for found in &piece.found {
                match then.choose(found) {
                    DocumentState::Nothing => {}
                    DocumentState::Unknown(doubt) => sink.unknown(&found.item, &doubt, self.step),
                    // Loaded again, a part would replace the whole document.
                    DocumentState::Document(InForce { item, part: Some(why), .. }) => {
                        sink.unknown(&item, why, self.step)
                    }
                    DocumentState::Document(version) => {
                        sink.count(&version.caveats);
                        chosen.push(version);
                    }
                }
            }
            let texts: Vec<(ItemKey, Result<String, NoText>)> = stream::iter(chosen)
                .map(|mut chosen| async move {
                    match then.text_of(&mut chosen).await {
                        Ok(text) => Ok((chosen.item, text)),
                        Err(failure) => Err(Interruption::Document { item: chosen.item, failure }),
                    }
                })
                .buffered(self.request.concurrency)
                .try_collect()
                .await?;
            for (item, text) in texts {
                match text {
                    Ok(text) => sink.push(item, text).map_err(|e| self.disk(e))?,
                    Err(bad) => sink.unknown(&item, &bad.to_string(), self.step),
                }
                self.step.advance(1);
            }
            // For other layouts it is known only at the very end which documents exist without a version.
            if let Some((number, rest)) = piece.walked.filter(|_| self.containers.is_aligned()) {
                sink.walked(number, rest).map_err(|e| self.disk(e))?;
            }
        }
        Ok(())
    }
}

impl BackupSink {
    fn count(&mut self, caveats: &[Caveat]) {
        for caveat in caveats {
            *self.state.caveats.entry(caveat.name().to_owned()).or_default() += 1;
        }
    }
}

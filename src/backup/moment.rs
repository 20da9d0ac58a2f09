//! Reads the documents of a moment for a backup: from the history, and from the live container what only that has.

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::write::{Interruption, Job, Sink};
use crate::{
    change::{key::ItemKey, record, time::PointInTime, version::container_of},
    cosmos::{Disposition, Failure},
    frontier::waiting::reach,
    history::{
        Containers,
        as_of::{State, as_of},
        frontier::Frontier,
        known::{Facts, with_live},
        live::{LiveDetail, look_at},
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope},
    },
    progress::ProgressStep,
};

impl Job<'_> {
    /// Saves the documents that matched at the moment, as they were then.
    pub(super) async fn moment(&self, sink: &mut Sink, at: PointInTime) -> Result<(), Interruption> {
        let scope = match &self.request.predicate {
            Some(predicate) => Scope::Where { predicate: predicate.clone(), params: self.request.params.clone() },
            None => Scope::All,
        };
        let hash_ranges = sink.state.left.clone();
        let today = container_of(self.containers.source.rid());
        let frontier = reach(at, self.request.wait, &self.limiter, &self.cx.any()).await?;
        if !frontier.covers(at) {
            self.step.note(&format!("warning: {}, before the point in time", frontier.describe()));
            sink.state.beyond = true;
        }
        let scan = Scan {
            containers: self.containers,
            wanted: &scope,
            at,
            hash_ranges: &hash_ranges,
            // Which documents exist that no version is known of, and which were in force already.
            live: LiveDetail::Etag,
            piece_rows: PIECE_ROWS,
            pace: &self.limiter,
            texts: ScanTexts::InForce(&|found| found.document_at(at).is_some()),
        };
        let asked = Asked {
            at,
            today,
            all: self.request.predicate.is_none(),
            frontier: &frontier,
            containers: self.containers,
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|f| self.explain(f))?;
            for bad in &piece.bad {
                sink.leave_out(self.step, || format!("{bad}; it is set aside"));
            }
            let chosen: Vec<Chosen> =
                piece.found.into_iter().filter_map(|found| sink.choose(found, &asked, self.step)).collect();
            let texts: Vec<(ItemKey, Result<String, NoText>)> = stream::iter(chosen)
                .map(|chosen| self.text_of(chosen))
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
            // Elsewhere, what exists without a version is known only at the very end.
            if let Some((number, rest)) = piece.walked.filter(|_| self.containers.is_aligned()) {
                sink.walked(number, rest).map_err(|e| self.disk(e))?;
            }
        }
        Ok(())
    }

    /// The text of a version; a failure of its own is no reason to leave the others out.
    async fn text_of(&self, chosen: Chosen) -> Result<(ItemKey, Result<String, NoText>), Interruption> {
        let Chosen { item, record_id, text, live } = chosen;
        if let Some(text) = text {
            return Ok((item, Ok(text)));
        }
        if let Some(etag) = live {
            let now = look_at(&*self.containers.source, &self.limiter, &item, true).await?;
            let text = now.filter(|now| now.etag == etag).and_then(|now| now.text);
            let text = text.ok_or(NoText::Moved).and_then(|text| Ok(record::own_text(&text)?));
            return Ok((item, text));
        }
        self.limiter.wait().await;
        match self.containers.document(&item, &record_id).await {
            Err(failure) if failure.disposition != Disposition::Poison => Err(Interruption::Document { item, failure }),
            text => Ok((item, text.map_err(NoText::Record))),
        }
    }
}

/// Why a document's version cannot be in the file; that is no reason to leave the others out.
#[derive(Debug, thiserror::Error)]
enum NoText {
    /// Only the live document had it.
    #[error("it was changed meanwhile, and its version is not in the history yet")]
    Moved,
    /// The live document is no JSON object.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Its record cannot be used.
    #[error("{}", .0.message)]
    Record(Failure),
}

/// The version of a document that goes into the file.
struct Chosen {
    item: ItemKey,
    record_id: String,
    text: Option<String>,
    /// The etag of the live document, when that is the version in force and the history does not have it.
    live: Option<String>,
}

/// What is asked of each document.
struct Asked<'a> {
    at: PointInTime,
    today: Option<u64>,
    /// Whether documents count of which the history has nothing.
    all: bool,
    frontier: &'a Frontier,
    containers: &'a Containers,
}

impl Sink {
    /// Chooses the version of a document that goes into the file; counts and names a document of which none is known.
    fn choose(&mut self, found: ScannedItem, asked: &Asked<'_>, step: &dyn ProgressStep) -> Option<Chosen> {
        if found.versions.is_empty()
            && !asked.all
            && found.live.as_ref().is_none_or(|live| live.ts.is_none_or(|ts| ts > asked.at.seconds()))
        {
            return None;
        }
        let all = with_live(&found.item.id, &found.versions, found.live.as_ref());
        let state = as_of(&all, asked.at).today(asked.today);
        let facts = Facts {
            versions: &found.versions,
            unkeyed: &found.unkeyed,
            target: found.live.as_ref(),
            source: found.live.as_ref(),
            reach: asked.frontier.reach(&*asked.containers.source, &found.item.partition_key),
        };
        let doubt = found
            .undecided
            .clone()
            .or_else(|| facts.doubt(&found.item, &state, found.live.as_ref().map(|live| live.etag.as_str())));
        if let Some(doubt) = doubt {
            self.unknown(&found.item, &doubt, step);
            return None;
        }
        match state.state {
            State::Document(version) => {
                for caveat in &state.caveats {
                    *self.state.caveats.entry(caveat.name().to_owned()).or_default() += 1;
                }
                let (record_id, text) = (version.record_id.clone(), version.document.clone());
                let live = version.etag.clone().filter(|_| version.is_live());
                Some(Chosen { item: found.item.clone(), record_id, text, live })
            }
            State::Deleted(_) => None,
            State::NotYet { .. } if state.created_later() => None,
            State::NotYet { .. } | State::Empty => {
                self.unknown(&found.item, "nothing is known of that time", step);
                None
            }
        }
    }
}

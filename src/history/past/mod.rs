//! Use cases that look at what documents were: `show` at a moment, `diff` between two, `versions` of a document's whole
//! life, and `report` over all versions that match a predicate. Nothing is written.
//!
//! ```no_run
//! use cosmos_rewind::{
//!     change::time::PointInTime,
//!     context::Context,
//!     history::past::{Selection, ShowRequest, RequestedState, show},
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let which = Selection::One { id: "order-1".into(), key: None };
//! let at = PointInTime::from_epoch(1_700_000_000);
//! let mut found = show(&ShowRequest { which, at: RequestedState::At(at) }, &cx.any()).await?;
//! while let Some(then) = found.next().await? {
//!     println!("{:?}: {}", then.item.key.id, then.text.as_deref().unwrap_or("no document"));
//! }
//! # Ok(())
//! # }
//! ```

mod diff;
mod documents;
mod error;
mod report;
mod show;
mod versions;

use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};

pub use self::{
    diff::{Comparison, DiffRequest, Diffs, LiveSide, Seen, Side, diff},
    documents::{Matching, Selection, matched},
    error::LookError,
    report::{FoundDocuments, ReportLine, ReportRequest, report},
    show::{RequestedState, ShowRequest, Shown, Shows, show},
    versions::{FieldChange, ListedVersion, Remark, VersionLists, VersionsRequest, is_first_unknown, versions},
};
use super::{
    AnyContext, Containers,
    as_of::{self, as_of},
    containers::record,
    frontier::Frontier,
    gone::{DeleteSearch, UnknownDelete},
    histories::Item,
    known::{Facts, is_followed, with_live},
    live::{self, read_live},
    reading::{HistoryReader, LiveContainer},
    removals::{self, BlindSpots, MadeAgain},
    scan::ScannedItem,
    timeline::Timeline,
};
use crate::{
    change::{
        Op, VersionFidelity,
        key::ItemKey,
        record::{RecordFidelity, own_text},
        time::PointInTime,
        version::{Version, container_of},
    },
    config::Names,
    cosmos::{Disposition, Failure, RuLimiter},
    history::Account,
    progress::Progress,
};

/// How many documents are read ahead of the requested one.
const AHEAD: usize = 16;

/// A document at a moment, from its versions and, when that tells more, from the live document.
#[derive(Debug, Clone)]
pub struct KnownState {
    /// The versions, with the live one.
    pub versions: Vec<Version>,
    /// Why the truth may be different.
    pub doubt: Option<String>,
}

/// The live text of a document, with its system properties. It is read at most once for a document, so that two of
/// its states are judged by the same.
type LiveText = OnceCell<Option<String>>;

/// A history, and its source if it still exists.
struct Past<'a> {
    account: &'a dyn Account,
    names: &'a Names,
    progress: &'a dyn Progress,
    changes: Arc<dyn HistoryReader>,
    /// The failure that says it is gone.
    source: Result<Arc<dyn LiveContainer>, Failure>,
    pace: RuLimiter,
    /// Read once for each moment. A history that was complete up to a moment stays so.
    frontiers: Mutex<Vec<(PointInTime, Arc<Frontier>)>>,
    /// Each is read once, when there is no source and so no frontier; the second only when it may matter.
    removed: OnceCell<BlindSpots>,
    blind_spots: OnceCell<BlindSpots>,
    /// Today's source container, or the last one, which identifies versions of earlier ones.
    today: Option<u64>,
    /// The containers so far, when the source is gone; otherwise the frontier has them.
    ended: Vec<MadeAgain>,
}

impl<'a> Past<'a> {
    /// Opens the history, and warns when its source is gone.
    async fn open(cx: &AnyContext<'a>) -> Result<Self, Failure> {
        let (changes, source) = match cx.account.containers(cx.names, None).await {
            Ok(Containers { changes, source, .. }) => (changes, Ok(source)),
            Err(failure) if failure.disposition == Disposition::NotFound => {
                let changes = cx.account.history(cx.names).await?;
                cx.progress.note(&format!("note: there is no container {}/{}", cx.names.database, cx.names.source));
                (changes, Err(failure))
            }
            Err(failure) => return Err(failure),
        };
        let pace = RuLimiter::new(cx.account.meter(), None);
        let (frontiers, removed, blind_spots) = (Mutex::default(), OnceCell::new(), OnceCell::new());
        let (today, ended) = match &source {
            Ok(source) => (container_of(source.rid()), Vec::new()),
            Err(_) => {
                let ended = removals::made_again(&*changes, None).await?;
                (ended.first().map(|last| last.container), ended)
            }
        };
        let (account, names, progress) = (cx.account, cx.names, cx.progress);
        Ok(Self { account, names, progress, changes, source, pace, frontiers, removed, blind_spots, today, ended })
    }

    /// A version's text, read when it is not at hand; `None` for a delete, and for a document that was too large for
    /// the history.
    async fn text_of(&self, item: &ItemKey, version: &Version) -> Result<Option<String>, LookError> {
        if version.document.is_some() || version.op.is_some_and(Op::is_tombstone) || version.is_absent() {
            return Ok(version.document.clone());
        }
        let text = record(&*self.changes, item, &version.record_id).await?;
        match text.and_then(|record| record.document) {
            Some(text) => Ok(Some(text)),
            None => Err(LookError::RecordGone(version.record_id.clone())),
        }
    }

    async fn frontier(&self, at: PointInTime) -> Result<Arc<Frontier>, Failure> {
        let mut known = self.frontiers.lock().await;
        if let Some((_, frontier)) = known.iter().find(|(of, _)| *of == at) {
            return Ok(frontier.clone());
        }
        let frontier = Arc::new(self.account.frontier(self.names, Some(at), &self.pace).await?);
        if known.is_empty() {
            frontier.report_problems(self.progress);
        }
        known.push((at, frontier.clone()));
        Ok(frontier)
    }

    /// These versions, with the doubt that removals from the history cast on them, and times that nobody captured.
    async fn unless_dropped(&self, versions: Vec<Version>, at: PointInTime) -> Result<KnownState, Failure> {
        let known = as_of(&versions, at);
        let frontier;
        let blind_spots = if self.source.is_ok() {
            frontier = self.frontier(at).await?;
            &frontier.blind_spots
        } else if known.created_later() {
            self.blind_spots.get_or_try_init(|| removals::blind_spots(&*self.changes)).await?
        } else {
            let removed = async || Ok::<_, Failure>(removals::read(&*self.changes).await?.blind_spots());
            self.removed.get_or_try_init(removed).await?
        };
        let doubt = removals::doubt(&known, blind_spots, &self.ended).or_else(|| known.remade());
        Ok(KnownState { versions, doubt })
    }

    /// Why no delete says when a document went.
    async fn lost(
        &self,
        item: &Item,
        live: Option<live::Live>,
        at: PointInTime,
        (source, known): (&dyn LiveContainer, &Frontier),
    ) -> Result<Option<UnknownDelete>, Failure> {
        let (versions, unkeyed) = (item.versions.clone(), item.unkeyed.clone());
        let mut found = [ScannedItem { versions, unkeyed, live, ..ScannedItem::new(item.key.clone()) }];
        let gone = DeleteSearch::new(self.account, self.names, (&*self.changes, source), known, &self.pace);
        gone.mark(&mut found, at).await?;
        Ok(found[0].lost)
    }

    /// Reads the live text of a document.
    async fn live_text<'t>(
        &self,
        source: &dyn LiveContainer,
        item: &Item,
        read: &'t LiveText,
    ) -> Result<Option<&'t str>, Failure> {
        let assumed = live::assumed(&item.versions);
        Ok(read.get_or_try_init(|| read_live(source, &self.pace, &item.key, assumed)).await?.as_deref())
    }

    /// Adds to a document's history what its live document tells about a moment.
    async fn known_at(&self, item: &Item, live: &LiveText, at: PointInTime) -> Result<KnownState, LookError> {
        let (chosen, is_settled, remade) = {
            let known = as_of(&item.versions, at);
            let may_be_back = matches!(known.state, as_of::State::Deleted(_)) && !known.caveats.is_empty();
            // Its container may have been gone by then.
            let is_of_before = known.version().is_some_and(|v| v.is_of_another(self.today));
            // A reader of every version may be behind one that is not.
            let is_followed = known.next.is_some_and(|next| is_followed(known.version(), next, true));
            let is_settled = is_followed && item.unkeyed.is_empty() && !may_be_back && !is_of_before;
            (known.version().cloned(), is_settled, known.remade())
        };
        // A later version from the same feed proves that everything before it is there, unless deletes cannot be told
        // apart, or nothing proves that a deleted document was not recreated: a whole life may be missing.
        if is_settled && chosen.as_ref().is_some_and(|chosen| !chosen.op.is_some_and(Op::is_tombstone)) {
            return Ok(KnownState { versions: item.versions.clone(), doubt: remade });
        }
        let source = match &self.source {
            Ok(source) if !is_settled => source,
            _ => return Ok(self.unless_dropped(item.versions.clone(), at).await?),
        };
        let live = self.live_text(&**source, item, live).await?;
        let live = live.and_then(|text| Some(live::Live { text: own_text(text).ok(), ..live::of_text(text)? }));
        let mut versions = with_live(&item.key.id, &item.versions, live.as_ref()).into_owned();
        let proved = {
            let (now, _) = Timeline::of(&versions).at(at);
            let now = now.zip(live.as_ref()).filter(|(v, live)| v.etag.as_deref() == Some(live.etag.as_str()));
            now.map(|(v, _)| v.record_id.clone())
        };
        let is_proof = live.as_ref().is_some_and(|live| live.is_proof(at));
        if let Some(record_id) = &proved {
            // The live document is that version: its text is at hand.
            let whole = |v: &&mut Version| {
                v.record_id == *record_id && (v.is_absent() || !v.is_partial()) && !v.is_normalized()
            };
            if let (Some(version), Some(live)) = (versions.iter_mut().find(whole), &live) {
                if version.is_absent() && live.text.is_some() {
                    version.fidelity = Some(VersionFidelity::Known(RecordFidelity::Exact));
                }
                version.document = version.document.take().or_else(|| live.text.clone());
            }
        }
        if proved.is_some() && is_proof {
            return Ok(KnownState { versions, doubt: None });
        }
        if chosen.is_none() {
            return Ok(self.unless_dropped(versions, at).await?);
        }
        let frontier = self.frontier(at).await?;
        let lost = self.lost(item, live.clone(), at, (&**source, &frontier)).await?;
        let facts = Facts {
            versions: &item.versions,
            unkeyed: &item.unkeyed,
            target: live.as_ref(),
            source: live.as_ref(),
            reach: frontier.reach(&**source, &item.key.partition_key),
            lost,
        };
        let doubt = {
            let answer = as_of(&versions, at).today(self.today);
            let is_earlier = answer.version().is_some_and(|version| version.is_of_another(self.today));
            let unseen = || facts.unseen_delete(&answer, &versions, is_earlier).map(str::to_owned);
            facts.doubt(&item.key, &answer, live.as_ref().map(|live| live.etag.as_str())).or_else(unseen)
        };
        Ok(KnownState { versions, doubt })
    }
}

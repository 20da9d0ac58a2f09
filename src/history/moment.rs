//! Documents as they were at a moment: which version was in force, and its text, from the history or, where only that
//! has it, from the live container.

use super::{
    as_of::{Caveat, State, as_of},
    containers::Containers,
    frontier::Frontier,
    known::{Facts, with_live},
    live::look_at,
    scan::ScannedItem,
};
use crate::{
    causes::chain,
    change::{key::ItemKey, record, time::PointInTime, version::container_of},
    cosmos::{Disposition, Failure, RuLimiter},
};

/// A moment of a source.
pub struct Moment<'a> {
    at: PointInTime,
    /// The source container of today.
    today: Option<u64>,
    /// Whether documents count that the history does not have at all.
    all: bool,
    containers: &'a Containers,
    frontier: &'a Frontier,
    pace: &'a RuLimiter,
}

/// The state of a document.
#[derive(Debug)]
pub enum DocumentState {
    /// It did not exist, or was not asked for.
    Nothing,
    /// Unknown, for this reason.
    Unknown(String),
    /// This version was in force.
    Document(InForce),
}

/// The version of a document that was in force.
#[derive(Debug)]
pub struct InForce {
    /// Which document.
    pub item: ItemKey,
    /// Its etag then.
    pub etag: Option<String>,
    /// When it was written, epoch seconds.
    pub ts: i64,
    /// The caveats.
    pub caveats: Vec<Caveat>,
    /// Why its text is not the whole document, where it is not.
    pub part: Option<&'static str>,
    record_id: String,
    text: Option<String>,
    /// Whether only the live container has it.
    is_live: bool,
}

/// Why a document's version cannot be read, which is no reason to leave out the others.
#[derive(Debug, thiserror::Error)]
pub enum NoText {
    /// Only the live document had it.
    #[error("it was changed meanwhile, and its version is not in the history yet")]
    Moved,
    /// The live document is not a JSON object.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Its record cannot be used.
    #[error("{}", .0.message)]
    Record(Failure),
}

impl<'a> Moment<'a> {
    /// A moment of these containers, as far as the frontier allows. With `all`, documents count that the history does
    /// not have at all.
    pub fn new(
        at: PointInTime,
        all: bool,
        containers: &'a Containers,
        frontier: &'a Frontier,
        pace: &'a RuLimiter,
    ) -> Self {
        Self { at, today: container_of(containers.source.rid()), all, containers, frontier, pace }
    }

    /// Determines the state of a document.
    pub fn choose(&self, found: &ScannedItem) -> DocumentState {
        let at = self.at;
        if found.versions.is_empty()
            && !self.all
            && found.live.as_ref().is_none_or(|live| live.ts.is_none_or(|ts| ts > at.seconds()))
        {
            return DocumentState::Nothing;
        }
        let all = with_live(&found.item.id, &found.versions, found.live.as_ref());
        let state = as_of(&all, at).today(self.today);
        let facts = Facts {
            versions: &found.versions,
            unkeyed: &found.unkeyed,
            target: found.live.as_ref(),
            source: found.live.as_ref(),
            reach: self.frontier.reach(&*self.containers.source, &found.item.partition_key),
            lost: found.lost,
        };
        let live = found.live.as_ref().map(|live| live.etag.as_str());
        if let Some(doubt) =
            found.undecided.as_ref().map(|why| chain(why)).or_else(|| facts.doubt(&found.item, &state, live))
        {
            return DocumentState::Unknown(doubt);
        }
        let is_earlier = state.version().is_some_and(|version| version.is_of_another(self.today));
        if let Some(unseen) = facts.unseen_delete(&state, &all, is_earlier) {
            return DocumentState::Unknown(unseen.into());
        }
        match state.state {
            State::Document(version) if version.is_absent() && (live.is_none() || version.etag.as_deref() != live) => {
                DocumentState::Unknown(version.why_partial().into())
            }
            State::Document(version) => {
                // What the history has nothing of, or a part, is whole while it is live.
                let is_part = version.is_partial();
                let is_live = version.is_live() || (is_part && live.is_some() && version.etag.as_deref() == live);
                let counts = |caveat: &Caveat| !(is_live && matches!(caveat, Caveat::Absent | Caveat::Partial));
                DocumentState::Document(InForce {
                    item: found.item.clone(),
                    etag: version.etag.clone(),
                    ts: version.ts,
                    caveats: state.caveats.iter().copied().filter(counts).collect(),
                    part: (is_part && !is_live).then(|| version.why_partial()),
                    record_id: version.record_id.clone(),
                    text: version.document.clone().filter(|_| !(is_part && is_live)),
                    is_live,
                })
            }
            State::Deleted(_) => DocumentState::Nothing,
            State::NotYet { .. } if state.created_later() => DocumentState::Nothing,
            State::NotYet { .. } | State::Empty => DocumentState::Unknown("nothing is known of that time".into()),
        }
    }

    /// The text of a version.
    ///
    /// # Errors
    /// When the account cannot be used. A problem with this version alone is part of the result.
    pub async fn text_of(&self, chosen: &mut InForce) -> Result<Result<String, NoText>, Failure> {
        if let Some(text) = chosen.text.take() {
            return Ok(Ok(text));
        }
        if chosen.is_live {
            let now = look_at(&*self.containers.source, self.pace, &chosen.item, chosen.etag.as_deref(), true).await?;
            let text = now.filter(|now| Some(&now.etag) == chosen.etag.as_ref()).and_then(|now| now.text);
            return Ok(text.ok_or(NoText::Moved).and_then(|text| Ok(record::own_text(&text)?)));
        }
        self.pace.wait().await;
        match self.containers.document(&chosen.item, &chosen.record_id).await {
            Err(failure) if failure.disposition != Disposition::Poison => Err(failure),
            text => Ok(text.map_err(NoText::Record)),
        }
    }
}

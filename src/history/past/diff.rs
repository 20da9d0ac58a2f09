//! Documents at two moments, side by side.

use std::sync::Arc;

use super::{
    AnyContext, KnownState, LiveText, LookError, Past,
    documents::{DocumentStream, Matching, Selection},
};
use crate::{
    change::{Op, diff::same, raw::RawDocument, record::own_text, time::PointInTime, version::Version},
    history::{
        as_of::{AsOf, State, as_of, boundary},
        histories::{Item, TextDetail},
        version::named,
    },
};

/// Which documents, and which two of their states.
#[derive(Debug, Clone)]
pub struct DiffRequest {
    /// Which documents; for a predicate, those that matched at the first of the two states that is a moment.
    pub which: Selection,
    /// The first state.
    pub from: Side,
    /// The second state.
    pub to: Side,
}

/// One of the two states to compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    /// The live document.
    Live,
    /// The version in force at a moment; [`PointInTime::END`] means the newest version in the history.
    At(PointInTime),
    /// A single version: a record's id, an LSN or an etag.
    Version(String),
}

/// One document's two states.
#[derive(Debug)]
pub struct Comparison {
    /// The document, with its versions.
    pub item: Item,
    /// The first state.
    pub from: Seen,
    /// The second.
    pub to: Seen,
}

/// One state of a document.
#[derive(Debug)]
pub enum Seen {
    /// The live document.
    Live(LiveSide),
    /// A version that was named.
    Version(Box<Version>, Option<String>),
    /// The version in force at a moment.
    At {
        /// The moment.
        at: PointInTime,
        /// The versions together with the live document, and any doubt.
        known: KnownState,
        /// The text of the version in force.
        text: Option<String>,
        /// The source container of today.
        today: Option<u64>,
    },
}

/// A live document, and what the history knows of it.
#[derive(Debug, Default)]
pub struct LiveSide {
    /// Its text without system properties; `None` when there is no document.
    pub text: Option<String>,
    /// Its `_ts`, epoch seconds.
    pub ts: Option<i64>,
    /// Whether the newest version in the history is a different one: a document, or no delete when there is no
    /// document.
    pub is_uncaptured: bool,
}

impl Seen {
    /// The document's text; `None` when there was none, or nothing is known about the moment.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Live(live) => live.text.as_deref(),
            Self::Version(_, text) | Self::At { text, .. } => text.as_deref(),
        }
    }

    /// The state at the moment; `None` for a state that is not one of a moment.
    pub fn answer(&self) -> Option<AsOf<'_>> {
        match self {
            Self::At { at, known, today, .. } => Some(as_of(&known.versions, *at).today(*today)),
            Self::Live(_) | Self::Version(..) => None,
        }
    }

    /// The version that was there but was too large for the history, which has nothing of it. Its missing text must not
    /// pass for a document that did not exist.
    pub fn absent(&self) -> Option<&Version> {
        let version = match self {
            Self::Live(_) => None,
            Self::Version(version, text) => text.is_none().then_some(&**version),
            Self::At { at, known, text, .. } => boundary(&known.versions, *at).filter(|_| text.is_none()),
        };
        version.filter(|version| version.is_absent())
    }

    /// Whether it is known what the document was, or that there was none.
    pub fn is_known(&self) -> bool {
        self.absent().is_none()
            && self.answer().is_none_or(|answer| match answer.state {
                State::Document(_) | State::Deleted(_) => true,
                State::NotYet { .. } => answer.created_later(),
                State::Empty => false,
            })
    }
}

/// Comparisons of documents, one after another.
pub struct Diffs<'a>(DocumentStream<'a, Comparison>);

impl Diffs<'_> {
    /// The next document. A requested document without versions is reported.
    ///
    /// # Errors
    /// When the account cannot be used, or none of the documents has a version.
    pub async fn next(&mut self) -> Result<Option<Comparison>, LookError> {
        self.0.next().await
    }

    /// How many documents were requested.
    pub fn asked(&self) -> u64 {
        self.0.asked
    }

    /// How many of them were reported and left out, because a record or a live document cannot be read.
    pub fn unreadable(&self) -> u64 {
        self.0.unreadable
    }

    /// Whether something was reported that is not in the results.
    pub fn is_incomplete(&self) -> bool {
        self.0.incomplete
    }
}

/// Compares documents in two states.
///
/// # Errors
/// When the account cannot be used, no document is found, or the live state is requested and there is no source.
pub async fn diff<'a>(request: &DiffRequest, cx: &AnyContext<'a>) -> Result<Diffs<'a>, LookError> {
    let past = Arc::new(Past::open(cx).await?);
    let then = match (&request.from, &request.to) {
        // Now is the newest version in the history: the live document is a state of its own.
        (Side::At(PointInTime::END), _) => Matching::Newest,
        (Side::At(at), _) => Matching::At(*at),
        (_, Side::At(at)) if *at != PointInTime::END => Matching::At(*at),
        _ => Matching::Newest,
    };
    let documents = past.documents(&request.which, then, TextDetail::None, cx.progress).await?;
    let sides = (request.from.clone(), request.to.clone());
    Ok(Diffs(documents.each(past, TextDetail::None, cx.progress, move |past, item| look(past, item, sides.clone()))))
}

async fn look(past: Arc<Past<'_>>, item: Item, sides: (Side, Side)) -> Result<Comparison, LookError> {
    let live = LiveText::new();
    let from = seen(&past, (&item, &live), &sides.0).await?;
    let to = seen(&past, (&item, &live), &sides.1).await?;
    Ok(Comparison { item, from, to })
}

async fn seen(past: &Past<'_>, (item, live): (&Item, &LiveText), side: &Side) -> Result<Seen, LookError> {
    match side {
        Side::Live => live_side(past, item, live).await.map(Seen::Live),
        Side::Version(wanted) => {
            let version = named(&item.versions, wanted)?;
            let text = past.text_of(&item.key, version).await?;
            Ok(Seen::Version(Box::new(version.clone()), text))
        }
        Side::At(at) => {
            let known = match *at {
                PointInTime::END => KnownState { versions: item.versions.clone(), doubt: None },
                at => past.known_at(item, live, at).await?,
            };
            let text = match as_of(&known.versions, *at).version() {
                Some(version) => past.text_of(&item.key, version).await?,
                None => None,
            };
            Ok(Seen::At { at: *at, known, text, today: past.today })
        }
    }
}

async fn live_side(past: &Past<'_>, item: &Item, live: &LiveText) -> Result<LiveSide, LookError> {
    let source = past.source()?;
    let newest = item.versions.last();
    let Some(text) = past.live_text(&**source, item, live).await? else {
        let is_uncaptured = newest.is_some_and(|version| !version.op.is_some_and(Op::is_tombstone));
        return Ok(LiveSide { is_uncaptured, ..LiveSide::default() });
    };
    let document = RawDocument::parse(text).map_err(LookError::NotJson)?;
    let own = own_text(text).map_err(LookError::NotJson)?;
    let is_uncaptured = newest.is_none_or(|version| !is_version(version, &document, &own));
    Ok(LiveSide { ts: document.get_i64("_ts"), text: Some(own), is_uncaptured })
}

/// Whether a live document is this version; when the version has no etag, by its content.
fn is_version(version: &Version, live: &RawDocument<'_>, own: &str) -> bool {
    match (&version.etag, live.get_str("_etag")) {
        (Some(a), Some(b)) => *a == b,
        _ => version.document.as_deref().is_some_and(|text| same(text, own)),
    }
}

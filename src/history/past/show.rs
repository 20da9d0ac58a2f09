//! Documents as they were at a moment.

use std::sync::Arc;

use super::{
    AnyContext, KnownState, LiveText, LookError, Past,
    documents::{DocumentStream, Matching, Selection},
};
use crate::{
    change::{Op, time::PointInTime, version::Version},
    history::{
        as_of::{self, AsOf, as_of},
        histories::{Item, TextDetail},
        timeline::Timeline,
        version::named,
    },
};

/// Which documents, and when.
#[derive(Debug, Clone)]
pub struct ShowRequest {
    /// Which documents; for a predicate, those that matched at the moment.
    pub which: Selection,
    /// When.
    pub at: RequestedState,
}

/// Which state of documents is requested.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestedState {
    /// As of a moment.
    At(PointInTime),
    /// A single version: a record's id, an LSN or an etag.
    Version(String),
}

/// One document, as of a moment or as a single version.
#[derive(Debug)]
pub struct Shown {
    /// The document, with its versions.
    pub item: Item,
    /// The versions together with the live document, and any doubt.
    pub known: KnownState,
    /// The document's text; `None` when there was none.
    pub text: Option<String>,
    at: PointInTime,
    today: Option<u64>,
    /// The record of the version that was requested by name.
    version: Option<String>,
}

impl Shown {
    /// Returns the document as of the moment, with the caveats.
    pub fn answer(&self) -> AsOf<'_> {
        let versions = &self.known.versions;
        match versions.iter().find(|version| self.version.as_ref() == Some(&version.record_id)) {
            Some(version) => of_version(versions, version),
            None => as_of(versions, self.at).today(self.today),
        }
    }
}

/// The answer that consists of one version, whenever it was in force.
fn of_version<'v>(versions: &'v [Version], version: &'v Version) -> AsOf<'v> {
    let is_gone = version.op.is_some_and(Op::is_tombstone);
    let state = if is_gone { as_of::State::Deleted(version) } else { as_of::State::Document(version) };
    let next = Timeline::of(versions).versions().skip_while(|v| v.record_id != version.record_id).nth(1);
    AsOf { at: PointInTime::from_epoch(version.ts), state, next, caveats: Vec::new() }
}

/// Documents as they were, one after another.
pub struct Shows<'a>(DocumentStream<'a, Shown>);

impl Shows<'_> {
    /// The next document. A requested document without versions is reported.
    ///
    /// # Errors
    /// When the account cannot be used, or none of the documents has a version.
    pub async fn next(&mut self) -> Result<Option<Shown>, LookError> {
        self.0.next().await
    }

    /// Whether something was reported that is not in the results.
    pub fn is_incomplete(&self) -> bool {
        self.0.incomplete
    }
}

/// Reads documents as they were.
///
/// # Errors
/// When the account cannot be used, or no document is found.
pub async fn show<'a>(request: &ShowRequest, cx: &AnyContext<'a>) -> Result<Shows<'a>, LookError> {
    let past = Arc::new(Past::open(cx).await?);
    let (at, version) = match &request.at {
        RequestedState::At(at) => (*at, None),
        RequestedState::Version(version) => (PointInTime::END, Some(version.clone())),
    };
    let documents = past.documents(&request.which, Matching::At(at), TextDetail::None, cx.progress).await?;
    Ok(Shows(
        documents.each(past, TextDetail::None, cx.progress, move |past, item| look(past, item, at, version.clone())),
    ))
}

async fn look(past: Arc<Past<'_>>, item: Item, at: PointInTime, version: Option<String>) -> Result<Shown, LookError> {
    let (known, version) = match version {
        None => (past.known_at(&item, &LiveText::new(), at).await?, None),
        Some(wanted) => {
            let record_id = named(&item.versions, &wanted)?.record_id.clone();
            (KnownState { versions: item.versions.clone(), doubt: None }, Some(record_id))
        }
    };
    let mut shown = Shown { item, known, text: None, at, today: past.today, version };
    if let Some(version) = shown.answer().version() {
        shown.text = past.text_of(&shown.item.key, version).await?;
    }
    Ok(shown)
}

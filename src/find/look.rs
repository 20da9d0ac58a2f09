//! Examines the versions of one document after another for the first one that the condition is true for.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    condition::{Condition, Decision},
    walk::{Bisection, VersionWalk, Window},
};
use crate::{
    change::{
        Op, diff,
        key::ItemKey,
        record::own_text,
        time::PointInTime,
        version::{BadRecord, RecordProblem, Version},
    },
    cosmos::{Failure, RuLimiter},
    follow::NoAnswer,
    history::{
        Containers,
        as_of::{Caveat, unseen},
        live::{assumed, etag_of, read_live},
        predicate::asked::Undecided,
        scan::{Piece, ScannedItem, text_of},
        timeline::Timeline,
    },
};

/// Documents of a piece that are examined together, while their texts are being read.
const AHEAD: usize = 32;
/// How many texts of one document are read ahead.
const TEXTS_AHEAD: usize = 16;

/// A write that made the condition true.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundWrite {
    /// The document.
    pub item: ItemKey,
    /// The version, without its text.
    pub version: Version,
    /// The version before it, without its text; a delete when the document was recreated. `None` for the first known
    /// version.
    pub before: Option<Version>,
    /// Whether the condition is true for the live document.
    pub still: Still,
    /// Paths of the fields in which the two versions differ.
    pub changed: Vec<String>,
    /// The value that names the writer, as JSON text.
    pub actor: Option<String>,
    /// The caveats.
    pub notes: Vec<String>,
}

/// Whether the condition is true now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Still {
    /// It is.
    Yes,
    /// Not any more.
    No,
    /// The document no longer exists.
    Gone,
    /// There is no answer.
    Unknown,
}

impl Still {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
        }
    }
}

/// Figures about the examined versions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchTally {
    /// Documents with a version in the window.
    pub documents: u64,
    /// Versions that were tested.
    pub asked: u64,
    /// Documents for which it was true before the window.
    pub already: u64,
    /// Versions of which the history holds only a part.
    pub partial: u64,
    /// Versions from latest-version mode, before which others may be missing.
    pub latest: u64,
    /// Versions without an answer, by reason.
    pub no_answer: BTreeMap<String, u64>,
    /// Versions whose text cannot be read.
    pub unreadable: Vec<BadRecord>,
    /// An unknown name in the expression.
    pub undeclared: Option<NoAnswer>,
    /// Documents for which it is not true at the end, although it should have become true once and stayed true.
    pub not_at_end: u64,
}

impl SearchTally {
    /// Adds other figures.
    pub(super) fn add(&mut self, other: Self) {
        self.documents += other.documents;
        self.asked += other.asked;
        self.already += other.already;
        self.partial += other.partial;
        self.latest += other.latest;
        for (why, count) in other.no_answer {
            *self.no_answer.entry(why).or_default() += count;
        }
        self.unreadable.extend(other.unreadable);
        self.undeclared = self.undeclared.take().or(other.undeclared);
        self.not_at_end += other.not_at_end;
    }
}

/// The search: its condition, and its containers.
pub(super) struct Inspector {
    pub(super) containers: Containers,
    pub(super) condition: std::sync::Arc<Condition>,
    pub(super) window: Window,
    pub(super) pace: RuLimiter,
    pub(super) actor: Option<Vec<String>>,
    /// Whether the condition becomes true once and stays true.
    pub(super) flips_once: bool,
    /// The time of the earliest write found so far, when only that one is asked for: later ones are not examined.
    pub(super) earliest: Option<AtomicI64>,
}

/// A version's text; nothing when it cannot be read.
type Text<'v> = Option<Cow<'v, str>>;

impl Inspector {
    /// Examines the documents of a piece.
    pub(super) async fn look_all(&self, piece: Piece) -> Result<(Vec<FoundWrite>, SearchTally), Failure> {
        let (mut writes, mut tally) = (Vec::new(), SearchTally::default());
        let mut looks = stream::iter(piece.found).map(|found| self.look(found)).buffer_unordered(AHEAD);
        while let Some((write, of_one)) = looks.try_next().await? {
            writes.extend(write);
            tally.add(of_one);
        }
        Ok((writes, tally))
    }

    pub(super) async fn look(&self, found: ScannedItem) -> Result<(Option<FoundWrite>, SearchTally), Failure> {
        let mut tally = SearchTally::default();
        let places = self.window.asked(&found.versions);
        if places.is_empty() {
            return Ok((None, tally));
        }
        tally.documents = 1;
        let write =
            if self.flips_once { self.halve(&found, &mut tally).await? } else { self.walk(&found, &mut tally).await? };
        let write = match write {
            Some((place, before, after)) => {
                let (before, after) = (before.as_deref(), after.as_deref());
                Some(self.write(&found, place, before, after, &mut tally).await?)
            }
            None => None,
        };
        Ok((write, tally))
    }

    /// The first place at which the condition became true, with the texts before and at it.
    async fn walk<'v>(
        &self,
        found: &'v ScannedItem,
        tally: &mut SearchTally,
    ) -> Result<Option<(usize, Text<'v>, Text<'v>)>, Failure> {
        let places = self.window.asked(&found.versions);
        let mut walk = VersionWalk::default();
        let first = places.start.saturating_sub(usize::from(self.condition.needs_previous()));
        let texts = (first..places.end).map(|place| async move {
            let version = &found.versions[place];
            (place, self.text(&found.item, version).await)
        });
        // Texts that are not at hand are read ahead.
        let mut texts = std::pin::pin!(stream::iter(texts).buffered(TEXTS_AHEAD));
        let mut before = None;
        let mut write = None;
        while let Some((place, text)) = texts.next().await {
            let version = &found.versions[place];
            let text = noted(text, version, tally)?;
            if place < places.start {
                before = text.unwrap_or_default();
                continue;
            }
            if self.earliest.as_ref().is_some_and(|earliest| version.ts > earliest.load(Ordering::Relaxed)) {
                break;
            }
            let is = match &text {
                Ok(text) => self.ask(&found.item, version, text.as_deref(), before.as_deref(), tally),
                Err(Unreadable) => false,
            };
            let text = text.unwrap_or_default();
            if walk.step(self.window.has(version), is) {
                if let Some(earliest) = &self.earliest {
                    earliest.fetch_min(version.ts, Ordering::Relaxed);
                }
                write = Some((place, before, text));
                break;
            }
            before = text;
        }
        tally.already = u64::from(walk.already);
        Ok(write)
    }

    /// The same for a condition that becomes true once and stays true: only a few versions are tested.
    async fn halve<'v>(
        &self,
        found: &'v ScannedItem,
        tally: &mut SearchTally,
    ) -> Result<Option<(usize, Text<'v>, Text<'v>)>, Failure> {
        let places = self.window.asked(&found.versions);
        let mut low: Text<'v> = None;
        let (last, mut first) = (places.end - 1, places.start);
        let is_at = async |place: usize, tally: &mut SearchTally| {
            let version = &found.versions[place];
            let text = noted(self.text(&found.item, version).await, version, tally)?;
            let is = match &text {
                Ok(text) => self.ask(&found.item, version, text.as_deref(), None, tally),
                Err(Unreadable) => false,
            };
            Ok::<_, Failure>((is, text.unwrap_or_default()))
        };
        let (is, mut high) = is_at(last, tally).await?;
        if !is {
            tally.not_at_end = 1;
            return Ok(None);
        }
        if !self.window.has(&found.versions[first]) {
            let (is, text) = is_at(first, tally).await?;
            if is {
                tally.already = 1;
                return Ok(None);
            }
            (first, low) = (first + 1, text);
        }
        let mut halving = Bisection::new(first..last + 1);
        loop {
            match halving.next() {
                Err(place) => return Ok(place.map(|place| (place, low, high))),
                Ok(place) => {
                    let (is, text) = is_at(place, tally).await?;
                    halving.told(place, is);
                    *(if is { &mut high } else { &mut low }) = text;
                }
            }
        }
    }

    async fn text<'v>(&self, item: &ItemKey, version: &'v Version) -> Result<Text<'v>, Failure> {
        if version.document.is_none() && !version.op.is_some_and(Op::is_tombstone) {
            self.pace.wait().await;
        }
        text_of(&self.containers, item, version).await
    }

    fn ask(
        &self,
        item: &ItemKey,
        version: &Version,
        text: Option<&str>,
        before: Option<&str>,
        tally: &mut SearchTally,
    ) -> bool {
        tally.asked += 1;
        tally.partial += u64::from(version.is_partial());
        tally.latest += u64::from(version.op == Some(Op::Upsert) && self.window.has(version));
        match self.condition.ask(item, version, text, before) {
            Decision::Yes => true,
            Decision::No => false,
            Decision::None(why) => {
                *tally.no_answer.entry(why.to_string()).or_default() += 1;
                if matches!(why, NoAnswer::Undeclared(_)) {
                    tally.undeclared = Some(why);
                }
                false
            }
        }
    }

    async fn write(
        &self,
        found: &ScannedItem,
        place: usize,
        before: Option<&str>,
        after: Option<&str>,
        tally: &mut SearchTally,
    ) -> Result<FoundWrite, Failure> {
        let bare = |version: &Version| Version { document: None, ..version.clone() };
        let version = &found.versions[place];
        let previous = place.checked_sub(1).map(|place| &found.versions[place]);
        let changed = match before.zip(after) {
            Some((before, after)) => diff::between(before, after).iter().map(diff::Difference::path_text).collect(),
            None => Vec::new(),
        };
        let value = |path: &Vec<String>| after.and_then(|text| diff::value_at(text, path)).map(str::to_owned);
        Ok(FoundWrite {
            item: found.item.clone(),
            version: bare(version),
            before: previous.map(bare),
            still: self.still(found, version, tally).await?,
            changed,
            actor: self.actor.as_ref().and_then(value),
            notes: notes(found, version, previous),
        })
    }

    /// Whether the condition is true for the live document.
    async fn still(&self, found: &ScannedItem, version: &Version, tally: &mut SearchTally) -> Result<Still, Failure> {
        let live = read_live(&*self.containers.target, &self.pace, &found.item, assumed(&found.versions)).await?;
        let Some(live) = live else { return Ok(Still::Gone) };
        let etag = etag_of(&live).unwrap_or_default();
        if version.etag.as_ref() == Some(&etag) {
            return Ok(Still::Yes);
        }
        let Ok(text) = own_text(&live) else { return Ok(Still::Unknown) };
        let known = found.versions.iter().rposition(|v| v.etag.as_ref() == Some(&etag));
        let newest = match known {
            Some(known) => found.versions[known].clone(),
            None => Version::live(&found.item.id, &etag, version.ts, None),
        };
        let earlier = known.map_or(found.versions.len(), |known| known).checked_sub(1);
        let before = match earlier.filter(|_| self.condition.needs_previous()) {
            Some(place) => {
                let version = &found.versions[place];
                noted(self.text(&found.item, version).await, version, tally)?.unwrap_or_default()
            }
            None => None,
        };
        Ok(match self.condition.ask(&found.item, &newest, Some(&text), before.as_deref()) {
            Decision::Yes => Still::Yes,
            Decision::No => Still::No,
            Decision::None(_) => Still::Unknown,
        })
    }
}

/// A version whose text cannot be read.
#[derive(Debug)]
struct Unreadable;

/// A text, once read; notes why it cannot be read.
fn noted<'v>(
    text: Result<Text<'v>, Failure>,
    version: &Version,
    tally: &mut SearchTally,
) -> Result<Result<Text<'v>, Unreadable>, Failure> {
    match text {
        Ok(text) => Ok(Ok(text)),
        Err(failure) if failure.is_own() => {
            let problem = RecordProblem::Asked(Undecided::Record(failure).into());
            tally.unreadable.push(BadRecord::new(version.record_id.clone(), problem));
            Ok(Err(Unreadable))
        }
        Err(failure) => Err(failure),
    }
}

/// The caveats of a write.
fn notes(found: &ScannedItem, version: &Version, before: Option<&Version>) -> Vec<String> {
    let mut notes = Vec::new();
    match before {
        None if version.op != Some(Op::Create) => notes.push("what it was before is not known".to_owned()),
        None => {}
        Some(before) => {
            notes.extend(unseen(&found.versions, before, Some(version)).map(|caveat| caveat.to_string()));
            if before.is_partial() {
                notes.push("the history holds only a part of the version before".to_owned());
            }
        }
    }
    if version.is_partial() {
        notes.push("the history holds only a part of that version".to_owned());
    }
    if Timeline::of(&found.versions).is_unordered(version.ts) {
        notes.push(Caveat::Unordered { ts: version.ts }.to_string());
    }
    let since = before.map_or(i64::MIN, |before| before.ts);
    let doubtful = found.unkeyed.iter().filter(|delete| (since..=version.ts).contains(&delete.ts));
    notes.extend(doubtful.map(|delete| {
        format!(
            "a document with this id was deleted at {}, and the history does not say under which partition key",
            PointInTime::from_epoch(delete.ts)
        )
    }));
    notes
}

//! One document: which of its versions are writes to take back, and what the document is without them.

use crate::{
    change::{
        Op,
        key::ItemKey,
        merge::{EditError, MergeRules, MergeWalk, Merged, VersionAuthor},
        record::own_text,
        time::PointInTime,
        version::Version,
    },
    cosmos::Failure,
    follow::{Filter, NoAnswer, Subject},
    history::{
        as_of::{Caveat, unseen},
        frontier::Reach,
        live::Live,
        timeline::Timeline,
    },
};

/// Which writes are taken back, and how; the same for every document.
pub(super) struct RevertRules<'a> {
    pub from: PointInTime,
    pub to: PointInTime,
    pub filter: Option<&'a Filter>,
    pub rules: &'a MergeRules,
    pub assume_no_gaps: bool,
    /// Whether the caller named each document: then doubts about its identity are reported, and it is reverted all the
    /// same.
    pub named: bool,
}

/// A document with everything that is known about it.
pub(super) struct KnownDocument<'a> {
    pub item: &'a ItemKey,
    /// Its versions in the history and the live one, in any order; with their texts as far as they are in memory.
    pub versions: &'a [Version],
    /// Deletes of its id that may or may not be its own.
    pub unkeyed: &'a [Version],
    /// The live document, with its text.
    pub live: Option<&'a Live>,
    /// How far the history is complete.
    pub reach: Reach<'a>,
}

/// The result for a document.
#[derive(Debug)]
pub(super) enum RevertOutcome<'a> {
    /// No write of it is taken back.
    Untouched,
    /// Something about it is unknown, so it stays as it is.
    Unknown(String),
    /// It is merged.
    Merged {
        merged: Merged,
        /// The version before the first write that is taken back.
        base: Option<&'a Version>,
        notes: Vec<String>,
    },
}

/// Why a document cannot be examined at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error(transparent)]
    Cosmos(#[from] Failure),
    #[error(transparent)]
    Filter(NoAnswer),
}

/// Reads a version's text that is not in memory.
pub(super) trait TextReader {
    async fn text(&self, item: &ItemKey, version: &Version) -> Result<Option<String>, Failure>;
}

/// The number of versions for which an expression had no answer.
pub(super) type NoAnswers = u64;

impl<'a> KnownDocument<'a> {
    /// Walks the versions. `no_answers` counts those for which the expression has no answer; they are not taken back.
    pub(super) async fn merged(
        &self,
        wish: &RevertRules<'_>,
        reader: &impl TextReader,
        no_answers: &mut NoAnswers,
    ) -> Result<RevertOutcome<'a>, DocumentError> {
        let line = Timeline::of(self.versions);
        let order: Vec<&'a Version> = line.versions().collect();
        let Some(first) = order.iter().position(|v| (wish.from.seconds()..=wish.to.seconds()).contains(&v.ts)) else {
            return Ok(RevertOutcome::Untouched);
        };
        let before = first.checked_sub(1).map(|place| order[place]);
        let mut text = match before {
            Some(version) => self.text(version, reader).await?,
            None => None,
        };
        let mut walk: Option<Begun<'_, 'a>> = None;
        let mut last_is_undone = false;
        for (place, version) in order.iter().copied().enumerate().skip(first) {
            let is_in = version.ts <= wish.to.seconds();
            // Versions after the window that cannot conflict with anything need not be read.
            match &walk {
                None if !is_in => return Ok(RevertOutcome::Untouched),
                Some(begun) if !is_in && begun.walk.is_settled() => break,
                _ => {}
            }
            let previous = std::mem::replace(&mut text, self.text(version, reader).await?);
            let is_undone = is_in
                && match wish.filter {
                    // Nobody wrote an expiry, unless an expression names it.
                    None => version.op != Some(Op::Expire),
                    // It asks the text of another write, by somebody else perhaps.
                    Some(_) if order.get(place + 1).is_some_and(|next| is_looked_up_late(version, next)) => {
                        *no_answers += 1;
                        false
                    }
                    Some(filter) => {
                        match filter.answer(&Subject::of(self.item, version, text.as_deref(), previous.as_deref())) {
                            Ok(matches) => matches,
                            Err(e @ NoAnswer::Undeclared(_)) => return Err(DocumentError::Filter(e)),
                            Err(NoAnswer::Unknown(_)) => {
                                *no_answers += 1;
                                false
                            }
                        }
                    }
                };
            let is_changed_hands = std::mem::replace(&mut last_is_undone, is_undone) != is_undone;
            if walk.is_none() && !is_undone {
                continue;
            }
            let last = place.checked_sub(1).map(|place| order[place]);
            if let Some(problem) = self.problem(&line, last, version, is_undone, wish) {
                return Ok(RevertOutcome::Unknown(problem));
            }
            if let Some(last) = last.filter(|last| is_changed_hands && is_looked_up_late(last, version)) {
                return Ok(RevertOutcome::Unknown(format!(
                    "the text of the write of {} was looked up after the next one: which of them changed what is not known",
                    at(last.ts)
                )));
            }
            let begun = match &mut walk {
                Some(begun) => begun,
                None => {
                    let base = last.filter(|v| !v.op.is_some_and(Op::is_tombstone));
                    let from = base.and_then(|v| Some((v.record_id.clone(), previous.clone()?)));
                    walk.insert(Begun {
                        walk: MergeWalk::from(from, wish.rules),
                        base,
                        undone: 0,
                        first: version.ts,
                        gaps: 0,
                        looked_up: base.is_some_and(Version::is_looked_up),
                    })
                }
            };
            begun.undone += u64::from(is_undone);
            begun.gaps += u64::from(!version.is_live() && self.unseen(last, version).is_some());
            begun.looked_up |= version.is_looked_up();
            let by = match (is_undone, version.op) {
                (true, _) => VersionAuthor::Undone,
                (false, Some(Op::Expire)) => VersionAuthor::Expiry,
                _ => VersionAuthor::Kept,
            };
            if let Err(e) = begun.walk.step(by, version.record_id.clone(), text.clone()) {
                return Ok(RevertOutcome::Unknown(e.to_string()));
            }
        }
        let Some(begun) = walk else { return Ok(RevertOutcome::Untouched) };
        Ok(self.finished(begun, order.last().copied(), wish).unwrap_or_else(|e| RevertOutcome::Unknown(e.to_string())))
    }

    fn finished(
        &self,
        begun: Begun<'_, 'a>,
        last: Option<&Version>,
        wish: &RevertRules<'_>,
    ) -> Result<RevertOutcome<'a>, EditError> {
        let Begun { mut walk, base, undone, first, gaps, looked_up } = begun;
        let today = self.own_live()?;
        let is_last = match (self.live, last) {
            (Some(live), Some(last)) => last.etag.as_deref() == Some(&live.etag),
            _ => true,
        };
        if !is_last {
            return Ok(RevertOutcome::Unknown(
                "which version the live document is, the history does not tell; plan again when capture has it".into(),
            ));
        }
        let mut notes = vec![format!(
            "{undone} {} taken back, the first of {}",
            if undone == 1 { "write" } else { "writes" },
            at(first)
        )];
        if last.is_some_and(Version::is_live) {
            notes.push("its newest version is not in the history yet; it counts as a write that is kept".into());
        }
        if gaps > 0 {
            notes.push("versions may be missing: what an unseen write changed stays".into());
        }
        if looked_up {
            notes.push(Caveat::LookedUp.to_string());
        }
        if today.is_none() && last.is_some_and(|v| !v.op.is_some_and(Op::is_tombstone)) {
            notes.push("was deleted since, or has expired, which the history does not have".into());
        }
        walk.today(today)?;
        let merged = walk.finish()?;
        if merged.expired {
            notes.push("has expired since, and stays gone".into());
        } else if merged.taken.is_empty() && merged.conflicts.is_empty() && wish.rules.only.is_empty() {
            notes.push("nothing is left of what was changed".into());
        }
        notes
            .extend(merged.above.iter().map(|place| format!("{place} was changed as a whole; --only leaves it alone")));
        Ok(RevertOutcome::Merged { merged, base, notes })
    }

    fn own_live(&self) -> Result<Option<String>, EditError> {
        let text = self.live.and_then(|live| live.text.as_deref());
        text.map(own_text).transpose().map_err(|_| EditError::NoObject)
    }

    /// Why it is unknown what a write changed, or why what it changed may not be set back.
    fn problem(
        &self,
        line: &Timeline<'_>,
        last: Option<&Version>,
        version: &Version,
        is_undone: bool,
        wish: &RevertRules<'_>,
    ) -> Option<String> {
        let unordered = last.into_iter().chain([version]).find(|v| line.is_unordered(v.ts));
        if let Some(v) = unordered {
            return Some(format!("several versions are of the second {}, and nothing tells their order", at(v.ts)));
        }
        if let Some(part) = last.into_iter().chain([version]).find(|v| v.is_partial()) {
            return Some(part.why_partial().into());
        }
        if version.identity_unsure && !wish.named {
            return Some(format!("{}; --id with --pk reverts it", Caveat::Identity));
        }
        if let Some(delete) = self.unkeyed.iter().find(|delete| delete.ts >= wish.from.seconds()) {
            return Some(format!(
                "a document with this id was deleted at {}, and the history does not say under which partition key",
                at(delete.ts)
            ));
        }
        let Some(last) = last else {
            return (is_undone && version.op != Some(Op::Create)).then(|| {
                format!("the history begins with the write of {}: what was before is not known", at(version.ts))
            });
        };
        match self.unseen(Some(last), version) {
            Some(caveat @ Caveat::Recreated { .. }) => Some(format!("its version of {} is {caveat}", at(last.ts))),
            Some(_) if is_undone && version.is_live() && !wish.assume_no_gaps => {
                Some(format!("its write of {} is not in the history yet; --wait waits for it", at(version.ts)))
            }
            Some(caveat) if is_undone && !wish.assume_no_gaps => Some(format!(
                "the write of {} cannot be told from others before it ({}); --assume-no-gaps takes them for one",
                at(version.ts),
                caveat.name()
            )),
            _ => None,
        }
    }

    /// What tells that versions may lie unseen between two. One of MongoDB names no predecessor, so nothing looks missing
    /// where nobody captured.
    fn unseen(&self, last: Option<&Version>, version: &Version) -> Option<Caveat> {
        let last = last?;
        let (until, reach) = (at(version.ts), self.reach);
        let may_lack = || {
            let waits = || !reach.covers(until) && reach.may_lack_since(self.item, self.versions, last.ts);
            reach.blind_spots.hole_between(last.ts, until).is_some() || waits()
        };
        let gap = Caveat::Gap { lsn: None, until: version.ts };
        unseen(self.versions, last, Some(version)).or_else(|| (version.is_native && may_lack()).then_some(gap))
    }

    /// The text of a version; for the live one, exactly what is live.
    async fn text(&self, version: &Version, reader: &impl TextReader) -> Result<Option<String>, Failure> {
        if version.op.is_some_and(Op::is_tombstone) {
            return Ok(None);
        }
        if let Some(live) = self.live.filter(|live| version.etag.as_deref() == Some(&live.etag))
            && let Some(own) = live.text.as_deref().and_then(|text| own_text(text).ok())
        {
            return Ok(Some(own));
        }
        match &version.document {
            Some(text) => Ok(Some(text.clone())),
            // Nothing is merged with it.
            None if version.is_absent() => Ok(None),
            None => reader.text(self.item, version).await,
        }
    }
}

/// A walk in progress.
struct Begun<'r, 'a> {
    walk: MergeWalk<'r>,
    base: Option<&'a Version>,
    undone: u64,
    /// When the first write that is taken back was made, epoch seconds.
    first: i64,
    /// Versions before which one may be missing.
    gaps: u64,
    /// Whether a text was looked up, and may be of a later write.
    looked_up: bool,
}

/// Whether a version has the text of the next one: no write leaves a document as it was.
fn is_looked_up_late(version: &Version, next: &Version) -> bool {
    version.is_looked_up() && version.etag.is_some() && version.etag == next.etag
}

fn at(ts: i64) -> PointInTime {
    PointInTime::from_epoch(ts)
}

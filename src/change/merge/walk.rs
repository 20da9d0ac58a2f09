//! Walks the versions of a document, and notes what the undone writes changed and where kept writes changed it again.

use std::collections::HashMap;

use super::{
    compare::{Changed, changes, changes_at},
    edit::{Edit, EditError, edited},
    place::{ArrayKey, Place, get},
};
use crate::change::diff::same_value;

/// How a document is merged.
#[derive(Debug, Clone, Default)]
pub struct MergeRules {
    /// Arrays whose elements are told apart.
    pub array_keys: Vec<ArrayKey>,
    /// Paths of members that every writer sets, such as who wrote last: a later value stays and is not a conflict.
    pub bookkeeping: Vec<Vec<String>>,
    /// Only values at or below these paths are taken back; empty means everything.
    pub only: Vec<Vec<String>>,
    /// How conflicts are settled; `None` leaves the field alone and reports it.
    pub prefer: Option<Prefer>,
}

/// Whose value a conflicting field gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefer {
    /// Today's: the later write stands.
    Ours,
    /// The one before the first undone write: the later write is lost.
    Base,
}

/// Who made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionAuthor {
    /// A write that is undone.
    Undone,
    /// A write that is kept.
    Kept,
    /// The service, which deleted the document because its time to live had passed.
    Expiry,
}

/// A field that is set back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevertedField {
    /// Where.
    pub place: Place,
    /// Its value today, as JSON text; `None` when it does not exist.
    pub from: Option<String>,
    /// Its value afterwards.
    pub to: Option<String>,
}

/// A field that an undone write changed and a kept write changed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub place: Place,
    /// Its value before the first undone write of it.
    pub base: Option<String>,
    /// The value that the last undone write gave it before it was changed again.
    pub theirs: Option<String>,
    /// Its value today.
    pub ours: Option<String>,
}

/// The result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// The resulting document; `None` when there is to be none.
    pub text: Option<String>,
    /// The edits that turn today's document into it.
    pub edits: Vec<Edit>,
    /// The fields that are set back.
    pub taken: Vec<RevertedField>,
    /// The fields that are left alone because of a conflict.
    pub conflicts: Vec<Conflict>,
    /// How many conflicts were settled as the rules prefer.
    pub settled: usize,
    /// Fields that changed as a part of something larger than `only` names.
    pub above: Vec<Place>,
    /// Whether the document expired, and with it what the undone writes had changed.
    pub expired: bool,
}

/// A value that is set back, and what it is.
#[derive(Debug, Clone)]
struct Noted {
    edit: Edit,
    base: Option<String>,
}

impl Noted {
    fn place(&self) -> &Place {
        &self.edit.place
    }
}

#[derive(Debug)]
struct Clash {
    noted: Noted,
    theirs: Option<String>,
}

/// A walk through the versions of one document.
#[derive(Debug)]
pub struct MergeWalk<'r> {
    rules: &'r MergeRules,
    /// The newest version: its record and its text.
    record: Option<String>,
    text: Option<String>,
    /// The places to set back, in the order in which they were changed first. None contains another one.
    noted: Vec<Noted>,
    /// No place covers another one.
    clashes: Vec<Clash>,
    /// Texts of the versions that edits name.
    texts: HashMap<String, String>,
    expired: bool,
}

impl<'r> MergeWalk<'r> {
    /// Begins before the first undone write: with the record and the text of that version, or with no document.
    pub fn from(base: Option<(String, String)>, rules: &'r MergeRules) -> Self {
        let (record, text) = base.unzip();
        let (noted, clashes, texts) = (Vec::new(), Vec::new(), HashMap::new());
        Self { rules, record, text, noted, clashes, texts, expired: false }
    }

    /// The next version: who made it, its record, and its text unless it is a delete.
    ///
    /// # Errors
    /// When a text is not a document.
    pub fn step(&mut self, by: VersionAuthor, record: String, text: Option<String>) -> Result<(), EditError> {
        let before = self.text.take();
        // A delete has no text that a value could come from.
        let before_record = std::mem::replace(&mut self.record, text.as_ref().map(|_| record));
        let walked = self.between(by, before.as_deref(), text.as_deref(), before_record.as_deref());
        self.text = text;
        walked
    }

    /// Notes the changes of a write, between one text and the next; `record` is that of the first.
    fn between(
        &mut self,
        by: VersionAuthor,
        old: Option<&str>,
        new: Option<&str>,
        record: Option<&str>,
    ) -> Result<(), EditError> {
        let by = match by {
            VersionAuthor::Expiry if self.touches_ttl() => VersionAuthor::Undone,
            by => by,
        };
        if by == VersionAuthor::Expiry {
            self.expired |= !self.noted.is_empty();
            self.noted.clear();
            return Ok(());
        }
        // Nothing is noted that a kept write could conflict with.
        if by == VersionAuthor::Kept && self.noted.is_empty() {
            return Ok(());
        }
        for change in changes(old, new, &self.rules.array_keys) {
            match by {
                VersionAuthor::Undone => self.note(&change, old, record)?,
                _ => self.keep(&change, (old, new), record)?,
            }
        }
        if by == VersionAuthor::Undone {
            let noted = std::mem::take(&mut self.noted);
            self.noted = noted.into_iter().flat_map(|noted| self.told_apart(noted, new)).collect();
        }
        Ok(())
    }

    /// Returns the differences within a value that was replaced as a whole, once it can be compared member by member
    /// again: a document that was deleted and recreated was changed, field by field. Nothing when it was put back.
    fn told_apart(&self, noted: Noted, now: Option<&str>) -> Vec<Noted> {
        let value = value_at(now, noted.place());
        let changes = changes_at(noted.place(), noted.base.as_deref(), value, &self.rules.array_keys);
        if changes.iter().any(|change| change.place == *noted.place()) {
            return vec![noted];
        }
        let part = |change: &Changed<'_>| Noted {
            edit: noted.edit.narrowed(&change.place),
            base: change.before.map(str::to_owned),
        };
        changes.iter().map(part).collect()
    }

    /// Whether the document would not have expired without the undone writes.
    fn touches_ttl(&self) -> bool {
        self.noted.iter().any(|noted| noted.place().is_at(&["ttl".to_owned()], true))
    }

    /// An undone write changed a value.
    fn note(&mut self, change: &Changed<'_>, old: Option<&str>, record: Option<&str>) -> Result<(), EditError> {
        if self.noted.iter().any(|noted| noted.place().covers(&change.place)) {
            return Ok(());
        }
        let noted = self.composed(change, old, record)?;
        self.noted.push(noted);
        Ok(())
    }

    /// The value before a change, with what is noted below it as parts.
    fn composed(&mut self, change: &Changed<'_>, old: Option<&str>, record: Option<&str>) -> Result<Noted, EditError> {
        let (below, rest) = std::mem::take(&mut self.noted).into_iter().partition(|n| change.place.covers(n.place()));
        self.noted = rest;
        let parts = Vec::from_iter::<Vec<Noted>>(below).into_iter().rev().map(|noted| noted.edit).collect();
        if let (Some(record), Some(text)) = (record, old) {
            self.texts.entry(record.to_owned()).or_insert_with(|| text.to_owned());
        }
        let edit = Edit { place: change.place.clone(), record: record.map(str::to_owned), parts };
        let base = edit.value(&self.texts)?;
        Ok(Noted { edit, base })
    }

    /// A kept write changed a value.
    fn keep(
        &mut self,
        change: &Changed<'_>,
        (old, new): (Option<&str>, Option<&str>),
        record: Option<&str>,
    ) -> Result<(), EditError> {
        let noted = match self.noted.iter().position(|noted| noted.place().covers(&change.place)) {
            Some(at) => self.noted.remove(at),
            None => {
                let below = self.noted.iter().filter(|noted| change.place.covers(noted.place()));
                let (count, only_bookkeeping) =
                    below.fold((0, true), |(n, all), noted| (n + 1, all && self.is_bookkeeping(noted.place())));
                if count == 0 {
                    return Ok(());
                }
                let noted = self.composed(change, old, record)?;
                if only_bookkeeping {
                    return Ok(());
                }
                noted
            }
        };
        if self.is_bookkeeping(noted.place()) || self.is_back(&noted, value_at(new, noted.place())) {
            return Ok(());
        }
        let theirs = value_at(old, noted.place()).map(str::to_owned);
        self.clash(noted, theirs)
    }

    fn is_bookkeeping(&self, place: &Place) -> bool {
        self.rules.bookkeeping.iter().any(|path| place.is_at(path, false))
    }

    /// Whether a value is what it was, apart from what every writer sets.
    fn is_back(&self, noted: &Noted, value: Option<&str>) -> bool {
        let differ = changes_at(noted.place(), noted.base.as_deref(), value, &self.rules.array_keys);
        differ.iter().all(|change| self.is_bookkeeping(&change.place))
    }

    fn clash(&mut self, mut noted: Noted, theirs: Option<String>) -> Result<(), EditError> {
        if let Some(known) = self.clashes.iter_mut().find(|known| known.noted.place().covers(noted.place())) {
            // Its value before the first undone write is known; and a part of a conflicting value is not a conflict of
            // its own.
            if known.noted.place() == noted.place() {
                known.theirs = theirs;
            }
            return Ok(());
        }
        let (below, rest): (Vec<Clash>, Vec<Clash>) =
            std::mem::take(&mut self.clashes).into_iter().partition(|known| noted.place().covers(known.noted.place()));
        self.clashes = rest;
        noted.edit.parts.retain(|part| !below.iter().any(|known| known.noted.place().covers(&part.place)));
        noted.edit.parts.extend(below.into_iter().map(|known| known.noted.edit));
        // A part whose surroundings are gone keeps what the outer value has.
        let base = match noted.edit.value(&self.texts) {
            Ok(base) => base,
            Err(_) => {
                noted.edit.parts.clear();
                noted.edit.value(&self.texts)?
            }
        };
        self.clashes.push(Clash { noted: Noted { base, ..noted }, theirs });
        Ok(())
    }

    /// Whether nothing is to be set back, so that no later write can conflict.
    pub fn is_settled(&self) -> bool {
        self.noted.is_empty()
    }

    /// Today's document, when it is not the newest version: a later write, which is kept.
    ///
    /// # Errors
    /// When a text is not a document.
    pub fn today(&mut self, text: Option<String>) -> Result<(), EditError> {
        if same_value(self.text.as_deref(), text.as_deref()) {
            self.text = text;
            return Ok(());
        }
        self.step(VersionAuthor::Kept, String::new(), text)
    }

    /// The result, when the newest version is today's document.
    ///
    /// # Errors
    /// When a text is not a document.
    pub fn finish(mut self) -> Result<Merged, EditError> {
        let above = self.restrict();
        let today = self.text.take();
        let mut stuck = Vec::new();
        let (kept, noted) = loop {
            // What went last comes back first: its version tells its place among what was left then.
            let edits: Vec<Edit> = self.noted.iter().rev().map(|noted| noted.edit.clone()).collect();
            match edited(today.as_deref(), &edits, &self.texts) {
                Ok(text) => break (text, edits),
                Err(EditError::NoParent(place)) if self.noted.iter().any(|n| n.place().covers(&place)) => {
                    let at = self.noted.iter().position(|n| n.place().covers(&place)).unwrap_or_default();
                    stuck.push(Clash { noted: self.noted.remove(at), theirs: None });
                }
                Err(e) => return Err(e),
            }
        };
        let mut merged = Merged {
            text: kept,
            edits: noted,
            taken: Vec::new(),
            conflicts: Vec::new(),
            settled: 0,
            above,
            expired: self.expired,
        };
        let clashes = std::mem::take(&mut self.clashes);
        for clash in clashes.into_iter().chain(stuck) {
            self.settle(clash, today.as_deref(), &mut merged)?;
        }
        merged.taken = taken(today.as_deref(), &merged);
        Ok(merged)
    }

    /// Leaves out changes that were not asked for, and names the parts of something larger.
    fn restrict(&mut self) -> Vec<Place> {
        let only = &self.rules.only;
        if only.is_empty() {
            return Vec::new();
        }
        let is_in = |place: &Place| only.iter().any(|path| place.is_at(path, false));
        let places = self.noted.iter().chain(self.clashes.iter().map(|clash| &clash.noted)).map(Noted::place);
        let above = places.filter(|place| !is_in(place) && only.iter().any(|path| place.is_at(path, true)));
        let above = above.cloned().collect();
        self.noted.retain(|noted| is_in(noted.place()));
        self.clashes.retain(|clash| is_in(clash.noted.place()));
        above
    }

    fn settle(&self, clash: Clash, today: Option<&str>, merged: &mut Merged) -> Result<(), EditError> {
        let Clash { noted, theirs } = clash;
        let ours = value_at(merged.text.as_deref(), noted.place()).map(str::to_owned);
        if self.is_back(&noted, ours.as_deref()) {
            return Ok(());
        }
        match self.rules.prefer {
            Some(Prefer::Ours) => {
                merged.settled += 1;
                return Ok(());
            }
            Some(Prefer::Base) => {
                let others = merged.edits.iter().filter(|edit| !noted.place().covers(&edit.place));
                let edits: Vec<Edit> = others.chain([&noted.edit]).cloned().collect();
                if let Ok(text) = edited(today, &edits, &self.texts) {
                    (merged.text, merged.edits) = (text, edits);
                    merged.settled += 1;
                    return Ok(());
                }
            }
            None => {}
        }
        merged.conflicts.push(Conflict { place: noted.edit.place, base: noted.base, theirs, ours });
        Ok(())
    }
}

/// The fields that the edits change in today's document; for a whole document, its fields.
fn taken(today: Option<&str>, merged: &Merged) -> Vec<RevertedField> {
    let text = |value: Option<&str>| value.map(str::to_owned);
    let after = merged.text.as_deref();
    let is_whole = merged.edits.iter().any(|edit| edit.place.0.is_empty());
    if is_whole {
        let each = changes(today, after, &[]).into_iter();
        return each.map(|c| RevertedField { place: c.place, from: text(c.before), to: text(c.after) }).collect();
    }
    let each = merged.edits.iter().rev().map(|edit| &edit.place);
    each.map(|at| RevertedField { place: at.clone(), from: text(value_at(today, at)), to: text(value_at(after, at)) })
        .filter(|taken| !same_value(taken.from.as_deref(), taken.to.as_deref()))
        .collect()
}

fn value_at<'t>(text: Option<&'t str>, place: &Place) -> Option<&'t str> {
    get(text?, &place.0)
}

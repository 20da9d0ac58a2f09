//! Finds the version of each document that was in force at a moment. It keeps one place for each document, whatever the
//! size of the archive.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{
    Archive, Damage, InputDocument, NoDocument, Problem, ReadCounts, WantedEvent,
    event::EventHead,
    file::FileKind,
    index::{Collect, CollectionEnd, Reading, reading_of},
};
use crate::change::{knowledge::worth, order::Position, record::RecordFidelity};

/// Whether a version can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Document,
    Gone,
    Partial,
    /// There was such a version, and nobody knows its text.
    Unknown,
    /// Another collection took the name of its own, and was not read to its end.
    Replaced,
}

/// The newest version of a document so far.
#[derive(Debug)]
struct Best {
    ts: i64,
    lsn: Option<i64>,
    place: WantedEvent,
    state: State,
    /// How good its text is.
    worth: u8,
}

impl Best {
    fn position(&self) -> Position<'_> {
        Position { ts: self.ts, lsn: self.lsn, record_id: &self.place.version }
    }
}

/// Stands for a document; those of two collections may share an id.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Place {
    /// A digest of its key and id.
    item: [u8; 16],
    /// Its collection, where there may be several.
    ns: Option<Arc<str>>,
}

#[derive(Default)]
struct Index {
    at: Option<i64>,
    items: HashMap<Place, Best>,
    newest: i64,
    /// Each name, stored once.
    collections: BTreeSet<Arc<str>>,
    ends: Vec<CollectionEnd>,
    /// The readings of collections, and whether the moment lies behind all that is known of them.
    readings: HashMap<String, bool>,
}

impl Index {
    fn collection(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.collections.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.collections.insert(new.clone());
        new
    }

    /// Collections that have documents with the same id now: a container would take one for the other.
    fn mixed_up(&self) -> Option<Damage> {
        if self.collections.is_empty() {
            return None;
        }
        let mut owners: HashMap<[u8; 16], &Place> = HashMap::new();
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for (place, _) in self.items.iter().filter(|(_, best)| best.state != State::Gone) {
            if let Some(other) = owners.insert(place.item, place) {
                names.extend([place, other].into_iter().filter_map(|place| place.ns.as_deref()));
            }
        }
        let names: Vec<&str> = names.into_iter().collect();
        (!names.is_empty()).then(|| Damage::new("it", Problem::MixedUp(names.join(", "))))
    }

    /// Documents that were in a collection when it ended are gone. Those of the collection that took its name are known
    /// when it was read.
    fn ended(&mut self) {
        for (place, best) in &mut self.items {
            let ends = self.ends.iter().filter(|end| place.ns.as_ref() == Some(&end.ns));
            let after = ends.filter(|end| best.position() < end.position());
            if let Some(last) = after.max_by(|left, right| left.position().cmp(&right.position())) {
                let is_known = !last.is_replaced || self.readings.get(last.reading()) == Some(&true);
                best.state = if is_known { State::Gone } else { State::Replaced };
            }
        }
    }
}

impl Collect for Index {
    fn add(&mut self, file: &Arc<str>, line: u64, head: &EventHead<'_>) -> Result<(), Damage> {
        let ts = head.time(file, line)?;
        if let Some(reading) = reading_of(head) {
            let is_before = self.at.is_none_or(|at| ts <= at);
            *self.readings.entry(reading.to_owned()).or_insert(true) &= is_before;
        }
        if self.at.is_some_and(|at| ts > at) {
            return Ok(());
        }
        let fidelity = head.fidelity();
        let state = match fidelity {
            _ if head.op.is_tombstone() => State::Gone,
            RecordFidelity::Absent => State::Unknown,
            RecordFidelity::Partial => State::Partial,
            _ => State::Document,
        };
        self.newest = self.newest.max(ts);
        let mut digest = Sha256::new();
        digest.update(head.pk.get().as_bytes());
        digest.update([0]);
        digest.update(head.id.as_bytes());
        let mut item = [0; 16];
        item.copy_from_slice(&digest.finalize()[..16]);
        let place = Place { item, ns: head.ns.as_deref().map(|ns| self.collection(ns)) };
        let seen = Position { ts, lsn: head.lsn, record_id: &head.version };
        let worth = worth(fidelity);
        if self.items.get(&place).is_none_or(|best| (best.position(), best.worth) < (seen, worth)) {
            let wanted = WantedEvent { file: file.clone(), line, version: head.version.as_ref().into() };
            self.items.insert(place, Best { ts, lsn: head.lsn, place: wanted, state, worth });
        }
        Ok(())
    }

    fn end(&mut self, end: CollectionEnd) {
        if self.at.is_none_or(|at| end.ts <= at) {
            self.newest = self.newest.max(end.ts);
            self.ends.push(end);
        }
    }
}

/// The place of each document's newest version in one file.
pub(super) fn places_in(name: &str, kind: FileKind, bytes: &[u8]) -> Result<Vec<WantedEvent>, Damage> {
    let mut reading = Reading { into: Index::default(), ns: None, counts: ReadCounts::default() };
    reading.add_all(name, kind, bytes)?;
    Ok(reading.into.items.into_values().map(|best| best.place).collect())
}

/// The place of the text of each document's version.
pub struct Newest {
    archive: Archive,
    index: Index,
    /// The counts.
    pub counts: ReadCounts,
}

impl Newest {
    /// Reads an archive and picks, for each document, the version in force at `at` (epoch seconds), or the newest.
    ///
    /// # Errors
    /// When an entry is not an event or cannot be read: the lost entry may be a document's newest version. When
    /// documents of several collections have the same id.
    pub async fn of(archive: Archive, at: Option<i64>) -> Result<Self, Damage> {
        let (mut index, counts) = archive.read(Index { at, ..Index::default() }, None).await?;
        index.ended();
        if let Some(mixed_up) = index.mixed_up() {
            return Err(mixed_up);
        }
        Ok(Self { archive, index, counts })
    }

    /// Time of the newest version that was looked at, epoch seconds.
    pub fn time(&self) -> i64 {
        self.index.newest
    }

    /// The number of documents.
    pub fn documents(&self) -> u64 {
        self.index.items.values().filter(|best| best.state != State::Gone).count() as u64
    }

    /// Reads the chosen texts and passes them on, until the receiver is dropped. For a version that is only a part, or
    /// of which nobody knows the text, it passes on the reason why it cannot be used.
    ///
    /// # Errors
    /// When something that the first pass saw cannot be read now.
    pub async fn send(self, lines: mpsc::Sender<InputDocument>) -> Result<(), Damage> {
        let mut wanted = Vec::with_capacity(self.index.items.len());
        let mut unusable = Vec::new();
        for best in self.index.items.into_values() {
            match best.state {
                State::Document => wanted.push(best.place),
                State::Partial => unusable.push((best.place.place(), NoDocument::Partial)),
                State::Unknown => unusable.push((best.place.place(), NoDocument::Lost)),
                State::Replaced => unusable.push((best.place.place(), NoDocument::Replaced)),
                State::Gone => {}
            }
        }
        unusable.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        for (place, why) in unusable {
            if lines.send(InputDocument { place, text: Err(why) }).await.is_err() {
                return Ok(());
            }
        }
        let make = |wanted: &WantedEvent, head: Result<EventHead<'_>, NoDocument>| {
            let text = head.and_then(|head| match head.doc {
                Some(_) if head.is_altered() => Err(NoDocument::Altered),
                doc => doc.map(|doc| doc.get().to_owned()).ok_or(NoDocument::Gone),
            });
            InputDocument { place: wanted.place(), text }
        };
        self.archive.send(wanted, lines, make).await
    }
}

//! Reads all versions of an archive by document, for a restore. Facts go to temporary files first, so that memory does
//! not grow with the archive. The texts that are to be written are read afterwards (`texts`).

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher as _},
    io::{self, BufRead, BufReader, BufWriter, Seek as _, SeekFrom, Write as _},
    path::{Component, Path},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{
    Archive, Damage, Problem, ReadCounts, WantedEvent,
    event::EventHead,
    index::{Collect, CollectionEnd, reading_of},
    place,
};
use crate::{
    change::{
        Op, VersionFidelity, VersionVia,
        key::ItemKey,
        knowledge::worth,
        order::Position,
        record::{RecordFidelity, id_of_place},
        time::PointInTime,
        version::{ArchivePlace, Version},
    },
    history::as_of::boundary,
};

/// Facts are spread over this many files by document; one of them is in memory at a time.
const BUCKETS: usize = 32;

#[derive(Serialize, Deserialize)]
struct Fact {
    id: String,
    pk: serde_json::Value,
    op: Op,
    ts: i64,
    lsn: Option<i64>,
    version: String,
    fidelity: RecordFidelity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    file: usize,
    line: u64,
}

/// The versions of a document and their places.
#[derive(Debug)]
pub struct ArchivedVersions {
    /// Which document.
    pub item: ItemKey,
    /// Its versions without their texts, in any order, without duplicates.
    pub versions: Vec<Version>,
    places: HashMap<String, WantedEvent>,
}

impl ArchivedVersions {
    /// The place of a version.
    pub fn place_of(&self, record_id: &str) -> Option<&WantedEvent> {
        self.places.get(record_id)
    }

    /// Adds a version. A follower that was killed writes a line again, and two followers may write one version: the
    /// better text stays, and of two that were looked up the first one, which is nearer to the change.
    fn add(&mut self, fact: Fact, place: WantedEvent) {
        let name = fact.version.clone();
        let new = version(&self.item.id, (fact.version, fact.op), (fact.ts, fact.lsn), fact.etag, fact.fidelity);
        if !self.places.contains_key(&name) {
            self.versions.push(new);
        } else if let Some(known) = self.versions.iter_mut().find(|known| known.record_id == name)
            && worth_of(known) < worth(fact.fidelity)
        {
            *known = new;
        } else {
            return;
        }
        self.places.insert(name, place);
    }

    /// Adds the deletes that no event tells of: the document was in a collection when that ended. When another one took
    /// its name, nobody knows what it had under this id until it was read.
    fn end_with(&mut self, ends: &[CollectionEnd], readings: &HashMap<String, (i64, Option<i64>)>) {
        let told = self.versions.len();
        for end in ends {
            let Some(newest) = self.newest_before(&end.position()) else { continue };
            let (op, fidelity) = match (end.is_replaced, newest.op.is_some_and(Op::is_tombstone)) {
                (false, true) => continue,
                (false, false) => (Op::Delete, RecordFidelity::Exact),
                (true, true) => (Op::Create, RecordFidelity::Absent),
                (true, false) => (Op::Update, RecordFidelity::Absent),
            };
            let what = (id_of_place(&self.item.id, &end.version), op);
            self.versions.push(version(&self.item.id, what, (end.ts, end.lsn), None, fidelity));
        }
        for end in ends.iter().filter(|end| end.is_replaced) {
            let Some((ts, lsn)) = readings.get(end.reading()).copied() else { continue };
            let (own, name) = (id_of_place(&self.item.id, &end.version), format!("base-{}", end.reading()));
            let is_read = self.versions.iter().any(|version| version.record_id.contains(&format!("~{name}-")));
            let what = (id_of_place(&self.item.id, &name), Op::Delete);
            let delete = version(&self.item.id, what, (ts, lsn), None, RecordFidelity::Exact);
            let is_unknown = self.newest_before(&delete.position()).is_some_and(|newest| newest.record_id == own);
            if is_unknown && !is_read && !self.is_there(&delete.position(), told, ends) {
                self.versions.push(delete);
            }
        }
    }

    /// Whether the next of the first versions, those that events tell of, shows that the document is there. A reading
    /// takes its time, and does not have what is deleted meanwhile.
    fn is_there(&self, at: &Position<'_>, told: usize, ends: &[CollectionEnd]) -> bool {
        let after = self.versions.iter().take(told).filter(|version| version.position() > *at);
        after.min_by(|left, right| left.position().cmp(&right.position())).is_some_and(|next| {
            let is_of_another = ends.iter().any(|end| *at < end.position() && end.position() < next.position());
            next.op != Some(Op::Create) && !is_of_another
        })
    }

    fn newest_before(&self, position: &Position<'_>) -> Option<&Version> {
        let before = self.versions.iter().filter(|version| version.position() < *position);
        before.max_by(|left, right| left.position().cmp(&right.position()))
    }

    /// The document that was in force at a moment.
    pub fn document_at(&self, at: PointInTime) -> Option<&Version> {
        boundary(&self.versions, at).filter(|version| !version.op.is_some_and(Op::is_tombstone))
    }
}

fn worth_of(version: &Version) -> u8 {
    match version.fidelity {
        Some(VersionFidelity::Known(fidelity)) => worth(fidelity),
        _ => 0,
    }
}

/// A version of an archive, without its text.
fn version(
    id: &str,
    (record_id, op): (String, Op),
    (ts, lsn): (i64, Option<i64>),
    etag: Option<String>,
    fidelity: RecordFidelity,
) -> Version {
    Version {
        record_id,
        id: id.to_owned(),
        op: Some(op),
        ts,
        ts_from_capture: false,
        lsn,
        prev_lsn: None,
        is_native: etag.is_some(),
        etag,
        rid: None,
        life: None,
        container: None,
        via: Some(VersionVia::Archive),
        fidelity: Some(VersionFidelity::Known(fidelity)),
        at: None,
        captured: None,
        key: None,
        identity_unsure: false,
        document: None,
    }
}

/// The facts of an archive.
pub struct ArchiveFacts {
    archive: Archive,
    buckets: Vec<Mutex<File>>,
    files: Vec<Arc<str>>,
    ends: Vec<CollectionEnd>,
    /// When each reading of a collection began.
    readings: HashMap<String, (i64, Option<i64>)>,
    /// The first change, of any document, that came from a feed of every version.
    pub begins: Option<i64>,
    /// The counts.
    pub counts: ReadCounts,
}

struct Spill {
    only: Option<HashSet<ItemKey>>,
    components: usize,
    buckets: Vec<BufWriter<File>>,
    files: Vec<Arc<str>>,
    ends: Vec<CollectionEnd>,
    readings: HashMap<String, (i64, Option<i64>)>,
    begins: Option<i64>,
}

fn bucket_of(item: &ItemKey) -> usize {
    let mut hasher = DefaultHasher::new();
    item.hash(&mut hasher);
    (hasher.finish() % BUCKETS as u64) as usize
}

impl Collect for Spill {
    fn add(&mut self, file: &Arc<str>, line: u64, head: &EventHead<'_>) -> Result<(), Damage> {
        let wrong = |problem| Damage::new(place(file, line), problem);
        let ts = head.time(file, line)?;
        let partition_key = head.key().map_err(|e| wrong(Problem::Key(e)))?;
        if partition_key.0.len() != self.components {
            return Err(wrong(Problem::Components { found: partition_key.0.len(), wanted: self.components }));
        }
        if head.op != Op::Upsert {
            self.begins = Some(self.begins.map_or(ts, |begins| begins.min(ts)));
        }
        if let Some(reading) = reading_of(head) {
            let at = (ts, head.lsn);
            self.readings.entry(reading.to_owned()).and_modify(|begun| *begun = at.min(*begun)).or_insert(at);
        }
        let item = ItemKey { id: head.id.clone().into_owned(), partition_key };
        if self.only.as_ref().is_some_and(|only| !only.contains(&item)) {
            return Ok(());
        }
        if self.files.last() != Some(file) {
            self.files.push(file.clone());
        }
        let bucket = &mut self.buckets[bucket_of(&item)];
        let fact = Fact {
            pk: item.partition_key.to_json(),
            id: item.id,
            op: head.op,
            ts,
            lsn: head.lsn,
            version: head.version.clone().into_owned(),
            fidelity: head.fidelity(),
            // Records that are not MongoDB's have the etag in their id.
            etag: head.etag.as_deref().map(str::to_owned),
            file: self.files.len() - 1,
            line,
        };
        serde_json::to_writer(&mut *bucket, &fact)
            .map_err(io::Error::from)
            .and_then(|()| bucket.write_all(b"\n"))
            .map_err(|e| Damage::new("a temporary file", Problem::Write(e)))
    }

    fn end(&mut self, end: CollectionEnd) {
        self.ends.push(end);
    }
}

impl ArchiveFacts {
    /// Reads an archive; with `only`, just these documents. `components` is how many the source's partition key has;
    /// `ns` is the collection, when the archive may have several.
    ///
    /// # Errors
    /// When an entry is not an event or cannot be read: the lost entry may be the version in force.
    pub async fn of(
        archive: Archive,
        components: usize,
        only: Option<HashSet<ItemKey>>,
        ns: Option<&str>,
    ) -> Result<Self, Damage> {
        let unwritable = |e: io::Error| Damage::new("a temporary file", Problem::Make(e));
        let new = || Ok(BufWriter::with_capacity(1 << 14, tempfile::tempfile()?));
        let buckets = (0..BUCKETS).map(|_| new()).collect::<io::Result<_>>().map_err(unwritable)?;
        let (files, ends, readings) = (Vec::new(), Vec::new(), HashMap::new());
        let spill = Spill { only, components, buckets, files, ends, readings, begins: None };
        let (spill, counts) = archive.read(spill, ns).await?;
        let Spill { buckets, files, mut ends, readings, begins, .. } = spill;
        let buckets: Vec<Mutex<File>> = buckets
            .into_iter()
            .map(|bucket| bucket.into_inner().map(Mutex::new).map_err(|e| unwritable(e.into_error())))
            .collect::<Result<_, _>>()?;
        ends.sort_by(|left, right| left.position().cmp(&right.position()));
        Ok(Self { archive, buckets, files, ends, readings, begins, counts })
    }

    /// The documents, one part at a time. Each document is in exactly one part, which is sorted by id and key.
    ///
    /// # Errors
    /// When a temporary file cannot be read.
    pub fn parts(&self) -> impl Iterator<Item = io::Result<Vec<ArchivedVersions>>> + '_ {
        self.buckets.iter().map(|bucket| self.part(&mut bucket.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn part(&self, bucket: &mut File) -> io::Result<Vec<ArchivedVersions>> {
        bucket.seek(SeekFrom::Start(0))?;
        let mut items: HashMap<ItemKey, ArchivedVersions> = HashMap::new();
        for line in BufReader::new(bucket).lines() {
            let fact: Fact = serde_json::from_str(&line?)?;
            let item = ItemKey::parse_json(&fact.id, &fact.pk).map_err(io::Error::other)?;
            let of_item = items.entry(item).or_insert_with_key(|item| ArchivedVersions {
                item: item.clone(),
                versions: Vec::new(),
                places: HashMap::new(),
            });
            let Some(file) = self.files.get(fact.file) else { continue };
            let place = WantedEvent { file: file.clone(), line: fact.line, version: fact.version.as_str().into() };
            of_item.add(fact, place);
        }
        items.values_mut().for_each(|of_item| of_item.end_with(&self.ends, &self.readings));
        let mut items: Vec<ArchivedVersions> = items.into_values().collect();
        items.sort_by_cached_key(|v| v.item.sort_key());
        Ok(items)
    }

    /// A place as plans write it.
    pub fn place_below(&self, place: &WantedEvent) -> ArchivePlace {
        let root = self.archive.root();
        ArchivePlace { file: place.file.strip_prefix(&root).unwrap_or(&place.file).to_owned(), line: place.line }
    }
}

/// Whether a name cannot be that of a file in an archive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a file of an archive")]
pub struct NoFile(String);

impl Archive {
    /// The event that a plan names.
    ///
    /// # Errors
    /// When the name leads out of the archive: anybody may have edited the plan.
    pub fn wanted(&self, place: &ArchivePlace, version: &str) -> Result<WantedEvent, NoFile> {
        let below = Path::new(&place.file).components().all(|part| matches!(part, Component::Normal(_)));
        if !below || place.file.is_empty() {
            return Err(NoFile(place.file.clone()));
        }
        Ok(WantedEvent {
            file: format!("{}{}", self.root(), place.file).into(),
            line: place.line,
            version: version.into(),
        })
    }
}

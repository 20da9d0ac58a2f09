//! The write log of one container: everything that the emulator does not keep.
//!
//! Every write that reached the emulator is recorded here in order. The log provides the change feed in both modes,
//! `_lsn`, previous images and TTL. All lookups use ordered maps, so the cost of reading changes depends only on their
//! number.

mod expiry;
mod originals;
mod read;
mod version;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use serde_json::Value;

use self::{expiry::due_time, originals::Originals, version::cost};
use super::{
    keys::{DocumentKey, EpkRange},
    unique::UniqueKeys,
};

pub(super) use self::{
    read::{Dropped, PageLimit},
    version::{Document, Operation, Put, Version},
};

/// See the module's description.
#[derive(Debug)]
pub(super) struct WriteLog {
    lsn: u64,
    /// The position within the current transaction.
    place: u32,
    documents: BTreeMap<Arc<DocumentKey>, Document>,
    latest: BTreeMap<(u64, u32), Arc<DocumentKey>>,
    versions: VecDeque<Version>,
    retained: usize,
    bound: usize,
    dropped_to: u64,
    /// For every second with writes, the LSN before its first write.
    seconds: BTreeMap<u64, u64>,
    due: BTreeSet<(u64, Arc<DocumentKey>)>,
    default_ttl: Option<i64>,
    /// Set when the log keeps documents as they were before their first write.
    originals: Option<Originals>,
    /// The values of unique keys, if the container has any.
    unique: Option<UniqueKeys>,
}

impl WriteLog {
    /// Creates an empty log that keeps about `bound` bytes of versions.
    pub fn new(bound: usize, default_ttl: Option<i64>) -> Self {
        Self {
            lsn: 0,
            place: 0,
            documents: BTreeMap::new(),
            latest: BTreeMap::new(),
            versions: VecDeque::new(),
            retained: 0,
            bound,
            dropped_to: 0,
            seconds: BTreeMap::new(),
            due: BTreeSet::new(),
            default_ttl,
            originals: None,
            unique: None,
        }
    }

    /// Tracks the values of unique keys from now on.
    pub fn keep_unique(&mut self, keys: UniqueKeys) {
        self.unique = Some(keys);
    }

    /// The unique keys with the values in use.
    pub fn unique(&self) -> Option<&UniqueKeys> {
        self.unique.as_ref()
    }

    /// The LSN of the newest change.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    pub fn get(&self, key: &DocumentKey) -> Option<&Document> {
        self.documents.get(key)
    }

    /// Returns the documents in `range`, the oldest first: the order of ties under ORDER BY.
    pub fn documents_by_age(&self, range: &EpkRange) -> Vec<(&Arc<DocumentKey>, &Document)> {
        let mut found = self.documents_in(range);
        found.sort_by_key(|(_, document)| document.born);
        found
    }

    /// Returns the documents in `range` by position in the key space, then by age: the order of a query without ORDER
    /// BY.
    pub fn documents_in(&self, range: &EpkRange) -> Vec<(&Arc<DocumentKey>, &Document)> {
        let from = DocumentKey { epk: range.min.clone(), id: String::new() };
        let found = self.documents.range(from..).take_while(|(key, _)| range.contains(&key.epk));
        let mut found: Vec<_> = found.collect();
        found.sort_by(|(left, old), (right, new)| left.epk.cmp(&right.epk).then(old.born.cmp(&new.born)));
        found
    }

    /// Begins the next transaction. All records until the next call share one LSN.
    pub fn begin(&mut self) {
        self.lsn += 1;
        self.place = 0;
    }

    /// Records a created or replaced document.
    pub fn put(&mut self, put: Put) {
        for key in put.renamed_from.iter().chain([&put.key]) {
            self.note_original(key, Some(&put.partition_key));
        }
        let replaced = match &put.renamed_from {
            Some(before) => self.unlink(before).map(|(_, document)| (Arc::new(put.key.clone()), document)),
            None => self.unlink(&put.key),
        };
        let (key, previous) = match replaced {
            Some((key, document)) => (key, Some(document)),
            None => (Arc::new(put.key), None),
        };
        let partition_key = match &previous {
            Some(document) => Arc::clone(&document.partition_key),
            None => Arc::from(Value::Array(put.partition_key).to_string()),
        };
        let operation = if previous.is_some() { Operation::Replace } else { Operation::Create };
        let due = due_time(self.default_ttl, put.ttl, put.ts);
        if let Some(due) = due {
            self.due.insert((due, Arc::clone(&key)));
        }
        self.place += 1;
        let born = previous.as_ref().map_or((self.lsn, self.place), |document| document.born);
        self.latest.insert((self.lsn, self.place), Arc::clone(&key));
        self.push(Version {
            lsn: self.lsn,
            operation,
            key: Arc::clone(&key),
            text: Some(put.text.clone()),
            previous_lsn: previous.as_ref().map(|document| document.lsn),
            previous: previous.map(|document| document.text),
            ts: put.ts,
            expired: false,
            partition_key: Arc::clone(&partition_key),
        });
        let document = Document {
            lsn: self.lsn,
            place: self.place,
            born,
            text: put.text,
            etag: put.etag,
            ts: put.ts,
            ttl: put.ttl,
            due,
            partition_key,
        };
        if let Some(unique) = &mut self.unique {
            unique.put(&key, &document.text);
        }
        self.documents.insert(key, document);
    }

    /// Records a deletion at second `ts`.
    pub fn delete(&mut self, key: &DocumentKey, ts: u64, expired: bool) {
        self.note_original(key, None);
        let Some((key, document)) = self.unlink(key) else { return };
        self.push(Version {
            lsn: self.lsn,
            operation: Operation::Delete,
            key,
            text: None,
            previous_lsn: Some(document.lsn),
            previous: Some(document.text),
            ts,
            expired,
            partition_key: document.partition_key,
        });
    }

    fn unlink(&mut self, key: &DocumentKey) -> Option<(Arc<DocumentKey>, Document)> {
        let (key, document) = self.documents.remove_entry(key)?;
        self.latest.remove(&(document.lsn, document.place));
        if let Some(unique) = &mut self.unique {
            unique.remove(&key, &document.text);
        }
        if let Some(due) = document.due {
            self.due.remove(&(due, Arc::clone(&key)));
        }
        Some((key, document))
    }

    fn push(&mut self, version: Version) {
        // A clock that was set back must not hide a write from a reader that starts at an earlier second.
        let second = self.seconds.last_key_value().map_or(version.ts, |(last, _)| version.ts.max(*last));
        self.seconds.entry(second).or_insert(version.lsn - 1);
        self.retained += cost(&version);
        self.versions.push_back(version);
        while self.retained > self.bound && self.versions.len() > 1 {
            // A transaction is dropped as a whole: half of one must never be visible.
            let Some(oldest) = self.versions.front().map(|version| version.lsn) else { break };
            if oldest == self.lsn {
                break;
            }
            while self.versions.front().is_some_and(|version| version.lsn == oldest) {
                if let Some(version) = self.versions.pop_front() {
                    self.retained -= cost(&version);
                }
            }
            self.dropped_to = oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::{super::keys::Epk, version::ENTRY_BYTES};
    use super::{read::Page, *};

    const ALL: PageLimit = PageLimit { items: usize::MAX, bytes: usize::MAX };

    fn put(id: &str, ts: u64, text: &str) -> Put {
        let key = DocumentKey { epk: Epk::parse("10").unwrap(), id: id.to_owned() };
        let text = Bytes::copy_from_slice(text.as_bytes());
        Put { key, text, etag: "e".into(), ts, ttl: None, partition_key: vec![json!("p")], renamed_from: None }
    }

    fn write(log: &mut WriteLog, id: &str, ts: u64, text: &str) {
        log.begin();
        log.put(put(id, ts, text));
    }

    fn texts(page: &Page<&Document>) -> Vec<String> {
        page.items.iter().map(|document| String::from_utf8(document.text.to_vec()).unwrap()).collect()
    }

    #[test]
    fn latest_mode_shows_each_document_once_in_its_newest_version() {
        let mut log = WriteLog::new(usize::MAX, None);
        write(&mut log, "a", 1, "a1");
        write(&mut log, "b", 1, "b1");
        write(&mut log, "a", 2, "a2");
        let page = log.latest_after(0, &EpkRange::full(), ALL);
        assert_eq!((texts(&page), page.up_to), (vec!["b1".to_owned(), "a2".to_owned()], 3));
        log.begin();
        log.delete(&put("b", 0, "").key, 3, false);
        assert_eq!(texts(&log.latest_after(0, &EpkRange::full(), ALL)), ["a2"]);
        assert_eq!(log.latest_after(3, &EpkRange::full(), ALL).up_to, 4);
    }

    #[test]
    fn all_versions_have_their_previous_image() {
        let mut log = WriteLog::new(usize::MAX, None);
        write(&mut log, "a", 1, "a1");
        write(&mut log, "a", 2, "a2");
        log.begin();
        log.delete(&put("a", 0, "").key, 3, true);
        let page = log.versions_after(0, &EpkRange::full(), ALL).unwrap();
        let seen: Vec<_> = page
            .items
            .iter()
            .map(|v| (v.operation.as_str(), v.text.clone(), v.previous.clone(), v.previous_lsn, v.expired))
            .collect();
        let text = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(seen[0], ("create", text("a1"), None, None, false));
        assert_eq!(seen[1], ("replace", text("a2"), text("a1"), Some(1), false));
        assert_eq!(seen[2], ("delete", None, text("a2"), Some(2), true));
    }

    #[test]
    fn a_page_never_cuts_a_transaction() {
        let mut log = WriteLog::new(usize::MAX, None);
        write(&mut log, "a", 1, "a");
        log.begin();
        for id in ["b", "c", "d"] {
            log.put(put(id, 1, id));
        }
        write(&mut log, "e", 1, "e");
        let limit = PageLimit { items: 2, bytes: usize::MAX };
        let page = log.latest_after(0, &EpkRange::full(), limit);
        assert_eq!((texts(&page).len(), page.up_to), (4, 2));
        let page = log.latest_after(page.up_to, &EpkRange::full(), limit);
        assert_eq!((texts(&page), page.up_to), (vec!["e".to_owned()], 3));
    }

    #[test]
    fn the_oldest_versions_are_dropped_and_a_late_reader_gets_an_error() {
        let mut log = WriteLog::new(3 * ENTRY_BYTES, None);
        for second in 1..=10 {
            write(&mut log, "a", second, "");
        }
        assert_eq!(log.versions_after(2, &EpkRange::full(), ALL).unwrap_err(), Dropped(7));
        assert_eq!(log.versions_after(7, &EpkRange::full(), ALL).unwrap().items.len(), 3);
        assert_eq!(log.latest_after(0, &EpkRange::full(), ALL).items.len(), 1);
    }

    #[test]
    fn a_point_in_time_maps_to_the_lsn_before_its_second() {
        let mut log = WriteLog::new(usize::MAX, None);
        write(&mut log, "a", 10, "");
        write(&mut log, "b", 10, "");
        write(&mut log, "c", 12, "");
        assert_eq!([5, 10, 11, 12, 13].map(|ts| log.lsn_before(ts)), [0, 0, 2, 2, 3]);
        write(&mut log, "d", 11, "");
        assert_eq!([11, 12, 13].map(|ts| log.lsn_before(ts)), [2, 2, 4], "the clock was set back");
    }

    #[test]
    fn a_document_expires_according_to_its_ttl() {
        assert_eq!(due_time(None, Some(5), 100), None);
        assert_eq!(due_time(Some(10), None, 100), Some(110));
        assert_eq!(due_time(Some(-1), None, 100), None);
        assert_eq!(due_time(Some(-1), Some(5), 100), Some(105));
        assert_eq!(due_time(Some(10), Some(-1), 100), None);
    }

    #[test]
    fn a_new_default_ttl_moves_every_due_time() {
        let mut log = WriteLog::new(usize::MAX, None);
        write(&mut log, "a", 100, "");
        assert!(log.first_due(1_000).is_none());
        log.set_default_ttl(Some(10));
        assert!(log.first_due(109).is_none());
        assert_eq!(log.first_due(110).unwrap().id, "a");
        log.set_default_ttl(Some(-1));
        assert!(log.first_due(1_000).is_none());
    }

    proptest::proptest! {
        /// Whatever was written and wherever pages ended, the latest feed ends with the documents as they are, the
        /// all-versions feed delivers every change in order, and each half of the key space gets its own.
        #[test]
        fn every_reader_arrives_at_what_was_written(
            transactions in proptest::collection::vec(proptest::collection::vec((0..6_u8, proptest::bool::ANY), 1..4), 0..40),
            page in 1..5_usize,
        ) {
            let limit = PageLimit { items: page, bytes: usize::MAX };
            let middle = Epk::parse("30").unwrap();
            let halves = [
                EpkRange { min: Epk::min(), max: middle.clone() },
                EpkRange { min: middle, max: Epk::max() },
            ];
            let key = |id: u8| DocumentKey { epk: Epk::parse(&format!("{id}1")).unwrap(), id: id.to_string() };
            let mut log = WriteLog::new(usize::MAX, None);
            let mut model: BTreeMap<u8, String> = BTreeMap::new();
            let mut changes: Vec<(u8, Option<String>)> = Vec::new();
            let mut seen: BTreeMap<u8, String> = BTreeMap::new();
            let mut told: Vec<(u8, Option<String>)> = Vec::new();
            let mut cursors = [(0, 0); 2];
            let total = transactions.len();
            for (round, writes) in transactions.into_iter().enumerate() {
                log.begin();
                for (place, (id, deletes)) in writes.into_iter().enumerate() {
                    if deletes {
                        log.delete(&key(id), 0, false);
                        if model.remove(&id).is_some() {
                            changes.push((id, None));
                        }
                    } else {
                        let text = format!("{round}.{place}");
                        log.put(Put { key: key(id), ..put("", 0, &text) });
                        model.insert(id, text.clone());
                        changes.push((id, Some(text)));
                    }
                }
                // Readers poll occasionally, one page each; at the end until nothing is left.
                let polls = if round + 1 == total { 200 } else { 1 };
                for _ in 0..polls {
                    for (half, (latest, versions)) in halves.iter().zip(&mut cursors) {
                        let found = log.latest_after(*latest, half, limit);
                        for document in &found.items {
                            let id = log.documents.iter().find(|(_, known)| known.lsn == document.lsn
                                && known.place == document.place).map(|(key, _)| key.id.parse().unwrap()).unwrap();
                            seen.insert(id, String::from_utf8(document.text.to_vec()).unwrap());
                        }
                        *latest = found.up_to;
                        let found = log.versions_after(*versions, half, limit).unwrap();
                        for version in &found.items {
                            let text = version.text.as_ref().map(|text| String::from_utf8(text.to_vec()).unwrap());
                            told.push((version.key.id.parse().unwrap(), text));
                        }
                        *versions = found.up_to;
                    }
                }
            }
            seen.retain(|id, _| model.contains_key(id));
            proptest::prop_assert_eq!(seen, model);
            for id in 0..6 {
                let of = |list: &[(u8, Option<String>)]| list.iter().filter(|change| change.0 == id).cloned().collect::<Vec<_>>();
                proptest::prop_assert_eq!(of(&told), of(&changes));
            }
        }
    }
}

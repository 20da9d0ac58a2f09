//! A history in memory, for reading and writing.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, stream};
use serde::Deserialize;

use super::container::{MemoryContainer, compiled};
use crate::{
    change::{
        Op,
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::RawDocument,
        record::{ORIGINAL_ID, Record},
        shape::LeftOut,
        time::PointInTime,
        version::{Version, container_of},
    },
    cosmos::{Answer, Failure, HashRange, InContainer, Items, PageStream, Param},
    history::{
        History, HistoryWriter, SourceReader,
        entry::Entry,
        layout::Layout,
        reading::{AxisEnd, Detail, HistoryReader, JournalItem, Journals, Match, Part, WhichEnd},
        writing::write_record,
    },
};

/// A container of records, which knows how its source is keyed.
#[derive(Debug, Clone)]
pub struct MemoryHistory {
    pub(super) changes: Arc<MemoryContainer>,
    pub(super) source: Arc<MemoryContainer>,
    layout: Layout,
}

impl MemoryHistory {
    /// The history in a container, of this source.
    pub(super) fn new(changes: Arc<MemoryContainer>, source: Arc<MemoryContainer>) -> Self {
        let layout = Layout::new(Items::key_paths(&*changes).clone(), Items::key_paths(&*source).clone());
        Self { changes, source, layout }
    }

    fn entry(&self, text: &str, detail: Detail) -> Entry {
        let entry = Entry::of(text, &self.layout);
        if detail == Detail::Whole {
            return entry;
        }
        match entry {
            Entry::Version(item, version) => Entry::Version(item, Version { document: None, ..version }),
            // The facts are there, whatever happened to the document.
            Entry::Bad(bad) => match without_body(text).map(|facts| Entry::of(&facts, &self.layout)) {
                Some(Entry::Version(item, version)) => Entry::Version(item, Version { document: None, ..version }),
                _ => Entry::Bad(bad),
            },
            Entry::Unkeyed(version) => Entry::Unkeyed(version),
        }
    }

    fn entries(
        &self,
        range: HashRange,
        detail: Detail,
        wanted: impl Fn(&str) -> bool + Send + 'static,
    ) -> PageStream<'_, Entry> {
        self.changes
            .pages(range, None, move |text| Ok((!is_other(text) && wanted(text)).then(|| self.entry(text, detail))))
    }
}

/// A record without its compressed document.
fn without_body(text: &str) -> Option<String> {
    let mut record: serde_json::Value = serde_json::from_str(text).ok()?;
    record.get_mut("_change")?.as_object_mut()?.remove("body")?;
    Some(record.to_string())
}

/// Whether an item is not a record: a part of a journal, or a leftover of a check.
fn is_other(text: &str) -> bool {
    let Ok(item) = RawDocument::parse(text) else { return false };
    let group = item.get_str(ORIGINAL_ID).unwrap_or_default();
    item.get("_change").is_none()
        && item.get("_restore").is_some()
        && (group.starts_with("restore~") || group.starts_with("cosmos-rewind-doctor~"))
}

/// The time in a record, when that is a number.
fn time_of(text: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct Record {
        #[serde(rename = "_change")]
        change: Option<Change>,
    }
    #[derive(Deserialize)]
    struct Change {
        ts: serde_json::Value,
    }
    serde_json::from_str::<Record>(text).ok()?.change?.ts.as_f64()
}

/// The same; for a copy of the original demo, when it was written.
fn own_time(text: &str) -> Option<f64> {
    let record = RawDocument::parse(text).ok()?;
    if record.get("_change").is_some() { time_of(text) } else { record.get_i64("_ts").map(|ts| ts as f64) }
}

/// Whether a record is read as a whole when those up to a moment are: copies of the original demo are, whatever their
/// time.
fn is_until(text: &str, at: PointInTime) -> bool {
    if at == PointInTime::END {
        return true;
    }
    let has_change = RawDocument::parse(text).is_ok_and(|record| record.get("_change").is_some());
    !has_change || time_of(text).is_some_and(|ts| ts <= at.seconds() as f64)
}

fn journal_item(text: &str, with_text: bool) -> Result<JournalItem, Failure> {
    #[derive(Deserialize)]
    struct Item {
        id: String,
        #[serde(rename = "_originalId")]
        group: String,
        #[serde(rename = "_ts")]
        ts: i64,
        #[serde(rename = "_restore")]
        entry: serde_json::Value,
    }
    let wrong = |e| Failure::invalid("read journals".into(), format!("an item is not understood: {e}"));
    let Item { id, group, ts, entry } = serde_json::from_str(text).map_err(wrong)?;
    let kind = entry["kind"].as_str().map(String::from);
    Ok(JournalItem { id, group, kind, ts, text: with_text.then(|| text.to_owned()) })
}

impl HistoryReader for MemoryHistory {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn of_id<'a>(&'a self, id: &'a str, _: Option<&'a PartitionKey>, detail: Detail) -> PageStream<'a, Entry> {
        self.changes
            .pages(HashRange::WHOLE, Some(id), move |text| Ok((!is_other(text)).then(|| self.entry(text, detail))))
    }

    fn facts_in(&self, range: HashRange, after: Option<PointInTime>) -> PageStream<'_, Entry> {
        self.entries(range, Detail::Facts, move |text| after.is_none_or(|at| !is_until(text, at)))
    }

    fn records_in(&self, range: HashRange, until: PointInTime) -> PageStream<'_, Entry> {
        self.entries(range, Detail::Whole, move |text| is_until(text, until))
    }

    fn written_in(
        &self,
        range: HashRange,
        from: PointInTime,
        to: PointInTime,
        detail: Detail,
    ) -> PageStream<'_, Entry> {
        let within = from.seconds() as f64..=to.seconds() as f64;
        self.entries(range, detail, move |text| own_time(text).is_some_and(|ts| within.contains(&ts)))
    }

    fn matching<'a>(&'a self, range: HashRange, predicate: &'a str, params: &'a [Param]) -> PageStream<'a, Match> {
        let predicate = match compiled(predicate, params) {
            Ok(predicate) => predicate,
            Err(failure) => return stream::once(async { Err(failure) }).boxed(),
        };
        self.changes.pages(range, None, move |text| {
            if is_other(text) {
                return Ok(None);
            }
            let entry = Entry::of(text, &self.layout);
            let Entry::Version(_, version) = &entry else { return Ok(None) };
            if version.is_absent() {
                return Ok(Some(Match { entry: self.entry(text, Detail::Facts), undecided: true }));
            }
            let Some(document) = &version.document else { return Ok(None) };
            let matches = predicate.matches_version(version, document).unwrap_or_default();
            Ok(matches.then(|| Match { entry: self.entry(text, Detail::Facts), undecided: false }))
        })
    }

    fn parts(&self, range: HashRange) -> PageStream<'_, Part> {
        self.changes.pages(range, None, move |text| {
            let record: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
            if is_other(text) || record["_change"]["fidelity"] != "partial" {
                return Ok(None);
            }
            let left_out = LeftOut::parse(Some(&record["_change"]["partial"].to_string()));
            Ok(Some(Part { entry: self.entry(text, Detail::Facts), left_out }))
        })
    }

    fn record<'a>(&'a self, item: &'a ItemKey, record_id: &'a str) -> Answer<'a, Option<String>> {
        async move {
            match self.layout.record_key(item, record_id) {
                Some(key) => Items::read(&*self.changes, &key, record_id).await,
                None => Ok(self.changes.first(|text| {
                    RawDocument::parse(text).is_ok_and(|item| item.get_str("id").as_deref() == Some(record_id))
                })),
            }
        }
        .boxed()
    }

    fn end(&self, which: WhichEnd) -> Answer<'_, Option<AxisEnd>> {
        async move {
            let mut ends: Vec<(f64, String)> =
                self.changes.texts().into_iter().filter_map(|text| Some((time_of(&text)?, text))).collect();
            ends.sort_by(|one, other| one.0.total_cmp(&other.0));
            let parsed = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
            let told = |text: &String| {
                let change = &parsed(text)["_change"];
                match Op::deserialize(&change["op"]) {
                    Ok(Op::Baseline) => change["via"] == "follow",
                    op => op.is_ok_and(Op::is_of_every_version) && change["via"] != "filter",
                }
            };
            let end = match which {
                WhichEnd::Oldest => ends.first(),
                WhichEnd::OldestOfAll => ends.iter().find(|(_, text)| told(text)),
                WhichEnd::NewestOfAll => ends.iter().rfind(|(_, text)| told(text)),
                WhichEnd::NewestOfAllBefore(second) => {
                    ends.iter().rfind(|(ts, text)| *ts < second as f64 && told(text))
                }
                WhichEnd::OldestOf(container) => ends.iter().find(|(_, text)| {
                    parsed(text)["_change"]["rid"].as_str().and_then(container_of) == Some(container)
                }),
                WhichEnd::NewestBefore(second) => ends.iter().rfind(|(ts, _)| *ts < second as f64),
                WhichEnd::NewestPart => ends.iter().rfind(|(_, text)| !parsed(text)["_change"]["partial"].is_null()),
                WhichEnd::Newest => ends.last(),
            };
            Ok(end.map(|(ts, text)| {
                let change = parsed(text);
                AxisEnd { ts: *ts as i64, rid: change["_change"]["rid"].as_str().map(String::from) }
            }))
        }
        .boxed()
    }

    fn journal_items<'a>(&'a self, which: Journals<'a>) -> PageStream<'a, JournalItem> {
        self.changes.pages(HashRange::WHOLE, None, move |text| {
            let group = RawDocument::parse(text).ok().and_then(|item| Some(item.get_str(ORIGINAL_ID)?.into_owned()));
            if !is_other(text) || !group.is_some_and(|group| group.starts_with("restore~")) {
                return Ok(None);
            }
            let item = journal_item(text, matches!(which, Journals::Kind(..)))?;
            Ok(Some(item).filter(|item| match which {
                Journals::Index => true,
                Journals::Kind(kind, group) => {
                    item.kind.as_deref() == Some(kind) && group.is_none_or(|group| item.group == group)
                }
            }))
        })
    }
}

impl InContainer for MemoryHistory {
    fn container(&self) -> &impl Items {
        &*self.changes
    }
}

/// The history as capture uses it.
impl History for MemoryHistory {
    type Writer = MemoryContainer;
    type Source = MemoryContainer;

    async fn writer(&self) -> Result<Arc<MemoryContainer>, Failure> {
        Ok(self.changes.clone())
    }

    async fn source(&self) -> Result<Arc<MemoryContainer>, Failure> {
        Ok(self.source.clone())
    }

    async fn is_current(&self) -> Result<bool, Failure> {
        Ok(true)
    }

    async fn forget(&self) {}
}

impl HistoryWriter for MemoryContainer {
    fn key_paths(&self) -> &KeyPaths {
        Items::key_paths(self)
    }

    async fn write(&self, record: &Record) -> Result<f64, Failure> {
        write_record(self, record).await
    }

    async fn write_batch(&self, records: &[&Record]) -> Result<f64, Failure> {
        self.write_all(records)
    }
}

impl SourceReader for MemoryContainer {
    fn key_paths(&self) -> &KeyPaths {
        Items::key_paths(self)
    }

    async fn read(&self, key: &PartitionKey, id: &str) -> Result<Option<String>, Failure> {
        Items::read(self, key, id).await
    }

    async fn find(&self, rid: &str, key: Option<&PartitionKey>) -> Result<Option<String>, Failure> {
        Ok(self.first(|text| {
            RawDocument::parse(text).is_ok_and(|item| {
                let in_key = key.is_none_or(|key| Items::key_paths(self).extract(&item) == *key);
                in_key && item.get_str("_rid").as_deref() == Some(rid)
            })
        }))
    }
}

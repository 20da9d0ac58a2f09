//! One container's items in memory.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use base64::Engine as _;
use futures::{FutureExt as _, StreamExt as _, stream};

use crate::{
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::RawDocument,
        record::{ORIGINAL_ID, Record, own_text},
    },
    cosmos::{self, Answer, Failure, FeedRange, HashPlace, HashRange, HashSpace, Items, Param, RuMeter, Status},
    history::{
        live::Live,
        predicate::evaluate::Predicate,
        reading::{AxisEnd, LiveContainer},
    },
};

/// Request units of a read, and of a write; the service charges about that for 1 KB.
const READ: f64 = 1.0;
const WRITE: f64 = 5.0;
/// Items per page.
const PAGE: usize = 7;

/// Time, etags and charges of an account.
#[derive(Debug, Default)]
pub(super) struct SharedAccount {
    /// Epoch seconds.
    pub(super) now: AtomicI64,
    /// Counts writes; etags and LSNs are made from it.
    pub(super) writes: AtomicU64,
    pub(super) meter: RuMeter,
}

/// A fault that an operation on one item meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out, and answered with this status.
    Refused(Status),
    /// A write is carried out, and answered with this status.
    Unanswered(Status),
    /// Nothing unusual.
    No,
}

/// An item as it is stored.
#[derive(Debug, Clone)]
struct Stored {
    place: HashPlace,
    /// `_originalId`, if the item has one.
    group: Option<String>,
    /// With system properties.
    text: String,
    etag: String,
    rid: String,
    ts: i64,
}

/// A write, as a change feed of all versions delivers it.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedWrite {
    /// Which item.
    pub item: ItemKey,
    /// Its text now, with system properties; `None` for a delete.
    pub now: Option<String>,
    /// Its text before; `None` for a creation.
    pub before: Option<String>,
    /// The position in the feed.
    pub lsn: i64,
    /// When, epoch seconds.
    pub ts: i64,
}

/// Ordered by the key's JSON and the id.
type Place = (String, String);

/// The items of one container.
pub struct MemoryContainer {
    name: String,
    rid: String,
    number: u32,
    key_paths: KeyPaths,
    shared: Arc<SharedAccount>,
    items: Mutex<BTreeMap<Place, Stored>>,
    written: Mutex<Vec<FeedWrite>>,
    faults: Mutex<VecDeque<Fault>>,
}

impl std::fmt::Debug for MemoryContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryContainer").field("name", &self.name).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place(key: &PartitionKey, id: &str) -> Place {
    (key.to_json().to_string(), id.to_owned())
}

impl MemoryContainer {
    pub(super) fn new(name: &str, number: u32, key_paths: KeyPaths, shared: Arc<SharedAccount>) -> Self {
        Self {
            name: name.to_owned(),
            rid: rid(number, None),
            number,
            key_paths,
            shared,
            items: Mutex::default(),
            written: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// Lets the next operations on items meet these faults, in order. Later ones are carried out as usual.
    pub fn fail_next(&self, faults: impl IntoIterator<Item = Fault>) {
        locked(&self.faults).extend(faults);
    }

    /// All writes so far, in order.
    pub fn written(&self) -> Vec<FeedWrite> {
        locked(&self.written).clone()
    }

    /// The texts of all items, system properties included, in order of key and id.
    pub fn texts(&self) -> Vec<String> {
        locked(&self.items).values().map(|item| item.text.clone()).collect()
    }

    /// The items of a part of the hash space, or those of them with one `_originalId`, page by page, as a stream that
    /// reads when it is polled.
    pub(super) fn pages<'a, T: Send + 'a>(
        &'a self,
        range: HashRange,
        group: Option<&'a str>,
        pick: impl Fn(&str) -> Result<Option<T>, Failure> + Send + 'a,
    ) -> cosmos::PageStream<'a, T> {
        let read = move || {
            self.shared.meter.add(READ);
            let items = locked(&self.items);
            let places = HashPlace::within(range)?;
            let mut found = Vec::new();
            for item in items.values() {
                if group.is_none_or(|group| item.group.as_deref() == Some(group)) && places.contains(&item.place) {
                    found.extend(pick(&item.text)?);
                }
            }
            Ok(found)
        };
        let pages = stream::once(async move { read() }).flat_map(|found: Result<Vec<T>, Failure>| {
            let pages: Vec<Result<Vec<T>, Failure>> = match found {
                Err(failure) => vec![Err(failure)],
                Ok(found) => {
                    let mut pages = vec![Vec::new()];
                    for one in found {
                        match pages.last_mut() {
                            Some(page) if page.len() < PAGE => page.push(one),
                            _ => pages.push(vec![one]),
                        }
                    }
                    pages.into_iter().map(Ok).collect()
                }
            };
            stream::iter(pages)
        });
        pages.boxed()
    }

    /// The text of the first item that matches.
    pub(super) fn first(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.shared.meter.add(READ);
        locked(&self.items).values().find(|item| wanted(&item.text)).map(|item| item.text.clone())
    }

    /// Writes or deletes an item on a condition about what exists.
    fn change(
        &self,
        context: &'static str,
        key: &PartitionKey,
        id: &str,
        body: Option<Vec<u8>>,
        condition: impl Fn(Option<&Stored>) -> Result<(), Status>,
    ) -> Result<cosmos::Written, Failure> {
        let refused = |status: Status| Failure::from_status(context.into(), status, "refused", None);
        let fault = locked(&self.faults).pop_front();
        if let Some(Fault::Refused(status)) = fault {
            return Err(refused(status));
        }
        let mut items = locked(&self.items);
        let place = place(key, id);
        let before = items.get(&place).cloned();
        condition(before.as_ref()).map_err(refused)?;
        let number = self.shared.writes.fetch_add(1, Ordering::Relaxed) + 1;
        let ts = self.shared.now.load(Ordering::Relaxed);
        let (now, etag) = match body {
            None => {
                items.remove(&place);
                (None, None)
            }
            Some(body) => {
                let rid = before.as_ref().map_or_else(|| rid(self.number, Some(number)), |item| item.rid.clone());
                let etag = format!("\"{number:08x}-0000\"");
                let text = stored_text(context, body, &rid, &etag, ts)?;
                let item = Stored {
                    place: HashPlace::of(key, &self.key_paths)?,
                    group: group_of(&text),
                    text: text.clone(),
                    etag: etag.clone(),
                    rid,
                    ts,
                };
                items.insert(place, item);
                (Some(text), Some(etag))
            }
        };
        let created = before.is_none();
        locked(&self.written).push(FeedWrite {
            item: ItemKey { id: id.to_owned(), partition_key: key.clone() },
            now,
            before: before.map(|item| item.text),
            lsn: i64::try_from(number).unwrap_or(i64::MAX),
            ts,
        });
        self.shared.meter.add(WRITE);
        match fault {
            Some(Fault::Unanswered(status)) => Err(refused(status)),
            _ => Ok(cosmos::Written { charge: WRITE, etag, created }),
        }
    }
}

impl MemoryContainer {
    /// Writes records that share one key, all or none.
    pub(super) fn write_all(&self, records: &[&Record]) -> Result<f64, Failure> {
        // Nobody else can come in between: the records that are checked first are those that are written.
        let exists = |record: &&Record| {
            let items = locked(&self.items);
            record.create_only && items.contains_key(&place(&record.key, &record.id))
        };
        if records.iter().any(exists) {
            return Err(Failure::from_status("batch".into(), Status::new(409, 0), "one exists", None));
        }
        let mut charge = 0.0;
        for record in records {
            let body = Some(record.body.clone().into_bytes());
            charge += self.change("batch", &record.key, &record.id, body, |_| Ok(()))?.charge;
        }
        Ok(charge)
    }
}

/// The resource id of a container, or of an item in it, as the service writes it.
fn rid(container: u32, item: Option<u64>) -> String {
    let mut bytes = vec![0xe3, 0xb5, 0x1e, 0];
    bytes.extend((0x8000_0000 | container).to_be_bytes());
    bytes.extend(item.into_iter().flat_map(u64::to_le_bytes));
    base64::engine::general_purpose::STANDARD.encode(bytes).replace('/', "-")
}

fn group_of(text: &str) -> Option<String> {
    Some(RawDocument::parse(text).ok()?.get_str(ORIGINAL_ID)?.into_owned())
}

/// A document with what the service adds to it.
fn stored_text(context: &str, body: Vec<u8>, rid: &str, etag: &str, ts: i64) -> Result<String, Failure> {
    let wrong = |problem: String| Failure::from_status(context.into(), Status::new(400, 0), &problem, None);
    let body = String::from_utf8(body).map_err(|e| wrong(e.to_string()))?;
    let own = own_text(&body).map_err(|e| wrong(e.to_string()))?;
    let inner = own.trim_end().strip_suffix('}').unwrap_or_default().trim_end();
    let comma = if inner.ends_with('{') { "" } else { "," };
    let etag = etag.replace('"', "\\\"");
    Ok(format!(
        "{inner}{comma}\"_rid\":\"{rid}\",\"_self\":\"dbs/x/colls/x/docs/{rid}/\",\"_etag\":\"{etag}\",\"_attachments\":\"attachments/\",\"_ts\":{ts}}}"
    ))
}

impl Items for MemoryContainer {
    fn name(&self) -> &str {
        &self.name
    }

    fn rid(&self) -> &str {
        &self.rid
    }

    fn key_paths(&self) -> &KeyPaths {
        &self.key_paths
    }

    fn hash_space(&self) -> Option<HashSpace> {
        Some(HashSpace::V2)
    }

    fn read<'a>(&'a self, key: &'a PartitionKey, id: &'a str) -> Answer<'a, Option<String>> {
        async move {
            match locked(&self.faults).pop_front() {
                Some(Fault::Refused(status) | Fault::Unanswered(status)) => {
                    return Err(Failure::from_status("read item".into(), status, "refused", None));
                }
                Some(Fault::No) | None => {}
            }
            self.shared.meter.add(READ);
            Ok(locked(&self.items).get(&place(key, id)).map(|item| item.text.clone()))
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, cosmos::Written> {
        async move {
            let absent = |there: Option<&Stored>| there.map_or(Ok(()), |_| Err(Status::new(409, 0)));
            self.change("create item", key, id, Some(body), absent)
        }
        .boxed()
    }

    fn upsert<'a>(&'a self, key: &'a PartitionKey, id: &'a str, body: Vec<u8>) -> Answer<'a, cosmos::Written> {
        async move { self.change("upsert item", key, id, Some(body), |_| Ok(())) }.boxed()
    }

    fn replace<'a>(
        &'a self,
        key: &'a PartitionKey,
        id: &'a str,
        body: Vec<u8>,
        etag: &'a str,
    ) -> Answer<'a, cosmos::Written> {
        async move { self.change("replace item", key, id, Some(body), |there| still(there, Some(etag))) }.boxed()
    }

    fn delete<'a>(&'a self, key: &'a PartitionKey, id: &'a str, etag: Option<&'a str>) -> Answer<'a, cosmos::Written> {
        async move { self.change("delete item", key, id, None, |there| still(there, etag)) }.boxed()
    }
}

/// Whether an item exists and has this etag.
fn still(there: Option<&Stored>, etag: Option<&str>) -> Result<(), Status> {
    match there {
        None => Err(Status::NO_ITEM),
        Some(item) if etag.is_some_and(|etag| etag != item.etag) => Err(Status::new(412, 0)),
        Some(_) => Ok(()),
    }
}

impl LiveContainer for MemoryContainer {
    fn documents_in<'a>(
        &'a self,
        range: HashRange,
        with_text: bool,
        matching: Option<(&'a str, &'a [Param])>,
    ) -> cosmos::PageStream<'a, (ItemKey, Live)> {
        let predicate = match matching.map(|(predicate, params)| compiled(predicate, params)).transpose() {
            Ok(predicate) => predicate,
            Err(failure) => return stream::once(async { Err(failure) }).boxed(),
        };
        self.pages(range, None, move |text| {
            let wrong = |e: serde_json::Error| Failure::invalid("read target".into(), e.to_string());
            if let Some(predicate) = &predicate
                && !predicate.matches(&serde_json::from_str(text).map_err(wrong)?)
            {
                return Ok(None);
            }
            let document = RawDocument::parse(text).map_err(wrong)?;
            let id = document.get_str("id").unwrap_or_default().into_owned();
            let etag = document.get_str("_etag").unwrap_or_default().into_owned();
            let live = Live { etag, ts: document.get_i64("_ts"), text: with_text.then(|| text.to_owned()) };
            Ok(Some((ItemKey { id, partition_key: self.key_paths.extract(&document) }, live)))
        })
    }

    fn newest(&self) -> Answer<'_, Option<AxisEnd>> {
        async move {
            let items = locked(&self.items);
            let newest = items.values().max_by_key(|item| item.ts);
            Ok(newest.map(|item| AxisEnd { ts: item.ts, rid: Some(item.rid.clone()) }))
        }
        .boxed()
    }

    fn range_of(&self, key: &PartitionKey) -> Result<FeedRange, Failure> {
        FeedRange::of(key, &self.key_paths)
    }
}

/// Evaluates a predicate here; the service's answer when it cannot be parsed.
pub(super) fn compiled(predicate: &str, params: &[Param]) -> Result<Predicate, Failure> {
    let value = |name: &str| params.iter().find(|param| param.name == name).map(|param| &param.value);
    Predicate::parse(predicate, value)
        .map_err(|e| Failure::from_status("query".into(), Status::new(400, 0), &e.to_string(), None))
}

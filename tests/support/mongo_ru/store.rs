//! Collections: documents with the LSN of their newest version, partitioned by shard key.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocument, RawDocumentBuf, rawdoc};

/// The first LSN of a partition.
const FIRST_LSN: u64 = 1000;

/// The current version of a document.
pub struct Stored {
    pub raw: RawDocumentBuf,
    pub lsn: u64,
    /// The type and the bytes of its `_id`.
    id: Vec<u8>,
}

pub struct Collection {
    /// The collection's resource id; a later collection of the same name has another one.
    pub rid: String,
    pub shard_key: String,
    pub partitions: Vec<Partition>,
}

/// One physical partition.
#[derive(Default)]
pub struct Partition {
    pub documents: Vec<Stored>,
    lsn: u64,
    /// When each LSN was assigned, in epoch seconds.
    times: Vec<(u32, u64)>,
}

impl Partition {
    /// The last assigned LSN.
    pub fn last(&self) -> u64 {
        FIRST_LSN + self.lsn
    }

    /// The last LSN assigned before a point in time.
    pub fn before(&self, seconds: u32) -> u64 {
        self.times.iter().take_while(|(at, _)| *at < seconds).last().map_or(0, |(_, lsn)| *lsn)
    }

    fn next(&mut self) -> u64 {
        self.lsn += 1;
        let lsn = self.last();
        self.times.push((u32::try_from(chrono::Utc::now().timestamp()).unwrap(), lsn));
        lsn
    }
}

impl Collection {
    pub fn new(rid: String, shard_key: &str, partitions: usize) -> Self {
        let partitions = (0..partitions).map(|_| Partition::default()).collect();
        Self { rid, shard_key: shard_key.to_owned(), partitions }
    }

    /// The first and the last key of a partition.
    pub fn range(&self, at: usize) -> (String, String) {
        let edge = |n: usize| format!("{:02X}", n * 255 / self.partitions.len());
        (if at == 0 { String::new() } else { edge(at) }, edge(at + 1))
    }

    fn partition_of(&self, raw: &RawDocument) -> usize {
        let value = value_bytes(raw, &self.shard_key);
        let hash = value
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        // The values share their last bytes, so the high bits are mixed into the bits that select the partition.
        let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        usize::try_from((hash >> 32) % self.partitions.len() as u64).unwrap()
    }

    /// The document key: shard key and `_id`.
    pub fn document_key(&self, raw: &RawDocument) -> RawDocumentBuf {
        let mut key = RawDocumentBuf::new();
        for name in [self.shard_key.as_str(), "_id"] {
            let is_there = key.get(name).unwrap().is_some();
            if let (Some(value), false) = (raw.get(name).unwrap(), is_there) {
                key.append(bson::raw::CString::try_from(name).unwrap(), value);
            }
        }
        key
    }

    /// Inserts a document; returns whether it was new.
    pub fn insert(&mut self, raw: RawDocumentBuf) -> bool {
        let (at, id) = (self.partition_of(&raw), value_bytes(&raw, "_id"));
        let partition = &mut self.partitions[at];
        if partition.documents.iter().any(|stored| stored.id == id) {
            return false;
        }
        let lsn = partition.next();
        partition.documents.push(Stored { raw, lsn, id });
        true
    }

    /// Replaces the first document that matches; returns whether there was one and whether it changed.
    pub fn change(
        &mut self,
        filter: &Document,
        change: impl Fn(&RawDocument) -> Result<RawDocumentBuf, String>,
    ) -> Result<(bool, bool), String> {
        let filter = Filter::new(filter)?;
        for partition in &mut self.partitions {
            let Some(at) = filter.find(partition) else { continue };
            let raw = change(&partition.documents[at].raw)?;
            if raw == partition.documents[at].raw {
                return Ok((true, false));
            }
            let (lsn, id) = (partition.next(), value_bytes(&raw, "_id"));
            partition.documents[at] = Stored { raw, lsn, id };
            return Ok((true, true));
        }
        Ok((false, false))
    }

    /// Removes one or all matching documents. The feed does not show it, but a delete has a number as well.
    pub fn remove(&mut self, filter: &Document, one: bool) -> Result<i32, String> {
        let (mut removed, filter) = (0, Filter::new(filter)?);
        for partition in &mut self.partitions {
            while let Some(at) = filter.find(partition) {
                partition.documents.remove(at);
                partition.next();
                removed += 1;
                if one {
                    return Ok(removed);
                }
            }
        }
        Ok(removed)
    }

    pub fn find(&self, filter: &Document) -> Result<Vec<RawDocumentBuf>, String> {
        let filter = Filter::new(filter)?;
        let stored = self.partitions.iter().flat_map(|partition| &partition.documents);
        Ok(stored.filter(|stored| filter.matches(stored)).map(|stored| stored.raw.clone()).collect())
    }
}

/// Equality of fields, byte by byte, or of the whole document.
struct Filter {
    fields: Vec<(String, Vec<u8>)>,
    whole: Option<Vec<u8>>,
}

impl Filter {
    fn new(filter: &Document) -> Result<Self, String> {
        let (mut fields, mut whole) = (Vec::new(), None);
        for (name, wanted) in filter {
            match name.as_str() {
                "$expr" => whole = Some(literal(wanted)?),
                name if name.starts_with('$') => return Err(format!("unknown top level operator: {name}")),
                name => {
                    let wanted = RawDocumentBuf::try_from(&bson::doc! { "v": equal_to(wanted)? }).unwrap();
                    fields.push((name.to_owned(), wanted.into_bytes()));
                }
            }
        }
        Ok(Self { fields, whole })
    }

    fn matches(&self, stored: &Stored) -> bool {
        let same = |(name, wanted): &(String, Vec<u8>)| match name.as_str() {
            "_id" => stored.id == *wanted,
            name => value_bytes(&stored.raw, name) == *wanted,
        };
        self.fields.iter().all(same) && self.whole.as_ref().is_none_or(|whole| stored.raw.as_bytes() == whole)
    }

    fn find(&self, partition: &Partition) -> Option<usize> {
        partition.documents.iter().position(|stored| self.matches(stored))
    }
}

/// The type and the bytes of a field; empty when the field is missing.
fn value_bytes(raw: &RawDocument, name: &str) -> Vec<u8> {
    raw.get(name).unwrap().map_or_else(Vec::new, |value| rawdoc! { "v": value }.into_bytes())
}

fn equal_to(wanted: &Bson) -> Result<Bson, String> {
    let Bson::Document(document) = wanted else { return Ok(wanted.clone()) };
    match document.iter().next() {
        Some((name, value)) if name == "$eq" && document.len() == 1 => Ok(value.clone()),
        Some((name, _)) if name.starts_with('$') => Err(format!("unknown operator: {name}")),
        _ => Ok(wanted.clone()),
    }
}

/// The bytes of the document in `{$eq: ["$$ROOT", {$literal: document}]}`.
fn literal(expression: &Bson) -> Result<Vec<u8>, String> {
    let parts = expression.as_document().and_then(|e| e.get_array("$eq").ok());
    let literal = match parts.map(Vec::as_slice) {
        Some([Bson::String(root), Bson::Document(literal)]) if root == "$$ROOT" => {
            literal.get_document("$literal").ok()
        }
        _ => None,
    };
    literal.and_then(|literal| literal.to_vec().ok()).ok_or_else(|| format!("unknown expression: {expression}"))
}

/// All collections by database and name.
pub type Collections = BTreeMap<(String, String), Collection>;

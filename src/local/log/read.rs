//! The log as a change feed: the changes after an LSN, in both modes.

use bytes::Bytes;

use super::{
    WriteLog,
    version::{Document, Version, cost},
};
use crate::local::keys::EpkRange;

/// Where a page of the feed ended.
#[derive(Debug)]
pub(in crate::local) struct Page<T> {
    pub items: Vec<T>,
    /// Everything up to and including this LSN was examined.
    pub up_to: u64,
}

/// The limits of a page. A transaction is never cut, so its end may exceed both limits.
#[derive(Clone, Copy, Debug)]
pub(in crate::local) struct PageLimit {
    pub items: usize,
    pub bytes: usize,
}

/// The requested position has been dropped from the log; its LSN is part of the message.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::local) struct Dropped(pub u64);

impl WriteLog {
    /// Returns the LSN after which everything was written at or after second `ts`.
    pub fn lsn_before(&self, ts: u64) -> u64 {
        self.seconds.range(ts..).next().map_or(self.lsn, |(_, lsn)| *lsn)
    }

    /// Returns the newest version of every document in `range` that was written after LSN `after`.
    pub fn latest_after(&self, after: u64, range: &EpkRange, limit: PageLimit) -> Page<&Document> {
        let mut items: Vec<&Document> = Vec::new();
        let (mut bytes, mut up_to) = (0, after);
        for ((lsn, _), key) in self.latest.range((after + 1, 0)..) {
            if *lsn != up_to && (items.len() >= limit.items || bytes >= limit.bytes) {
                return Page { items, up_to };
            }
            up_to = *lsn;
            if range.contains(&key.epk)
                && let Some(document) = self.documents.get(key)
            {
                bytes += document.text.len();
                items.push(document);
            }
        }
        Page { items, up_to: self.lsn.max(after) }
    }

    /// Returns every change in `range` after LSN `after`.
    pub fn versions_after(&self, after: u64, range: &EpkRange, limit: PageLimit) -> Result<Page<&Version>, Dropped> {
        if after < self.dropped_to {
            return Err(Dropped(self.dropped_to));
        }
        let mut items: Vec<&Version> = Vec::new();
        let (mut bytes, mut up_to) = (0, after);
        let first = self.versions.partition_point(|version| version.lsn <= after);
        for version in self.versions.range(first..) {
            if version.lsn != up_to && (items.len() >= limit.items || bytes >= limit.bytes) {
                return Ok(Page { items, up_to });
            }
            up_to = version.lsn;
            if range.contains(&version.key.epk) {
                bytes += cost(version) + version.previous.as_ref().map_or(0, Bytes::len);
                items.push(version);
            }
        }
        Ok(Page { items, up_to: self.lsn.max(after) })
    }
}

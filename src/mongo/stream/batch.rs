//! An answer of the server, consumed in parts.

use std::ops::Range;

use bson::{RawDocument, Timestamp};
use mongodb::raw_batch_cursor::RawBatch;

use super::position::{Time, time};
use crate::cosmos::Failure;

/// A batch of documents, and how far it was consumed.
pub(super) struct DocumentBatch {
    batch: RawBatch,
    /// Where in the answer the rest of the array of documents is.
    rest: Range<usize>,
}

/// The bytes of a document's or array's length.
const LENGTH: usize = 4;

impl DocumentBatch {
    pub fn new(batch: RawBatch) -> Result<Self, Failure> {
        let array = batch.doc_slices().map_err(|e| damaged(&e.kind.to_string()))?.as_bytes();
        // The array is a slice of the answer, so the difference of the addresses is its offset.
        let begin = array.as_ptr() as usize - batch.as_raw_document().as_bytes().as_ptr() as usize;
        let rest = begin + LENGTH..begin + array.len();
        Ok(Self { batch, rest })
    }

    /// The bytes of the documents that are left.
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    fn rest(&self) -> &[u8] {
        self.batch.as_raw_document().as_bytes().get(self.rest.clone()).unwrap_or_default()
    }

    /// Whether it is exhausted.
    pub fn is_empty(&mut self) -> Result<bool, Failure> {
        let rest = self.rest.clone();
        let is_empty = self.next()?.is_none();
        self.rest = rest;
        Ok(is_empty)
    }

    /// The next document; `None` at the end.
    pub fn next(&mut self) -> Result<Option<&RawDocument>, Failure> {
        let wrong = || damaged("its batch is cut off");
        let bytes = self.rest();
        let (kind, named) = bytes.split_first().ok_or_else(wrong)?;
        if *kind == 0 {
            return Ok(None);
        }
        let name = memchr::memchr(0, named).ok_or_else(wrong)?;
        let begin = 1 + name + 1;
        let length = bytes.get(begin..begin + LENGTH).and_then(|length| length.first_chunk()).ok_or_else(wrong)?;
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| wrong())?;
        if *kind != 3 || length <= LENGTH {
            return Err(wrong());
        }
        let end = begin + length;
        if bytes.len() < end {
            return Err(wrong());
        }
        let from = self.rest.start;
        self.rest.start += end;
        let whole = self.batch.as_raw_document().as_bytes();
        let document = whole.get(from + begin..from + end).ok_or_else(wrong)?;
        RawDocument::from_bytes(document).map(Some).map_err(|e| damaged(&e.to_string()))
    }

    /// The token for the end of the batch, if the server gives one.
    pub fn token(&self) -> Option<&RawDocument> {
        self.batch.as_raw_document().get_document("cursor").ok()?.get_document("postBatchResumeToken").ok()
    }

    /// The server's time when it answered.
    pub fn operation_time(&self) -> Option<Time> {
        let found = self.batch.as_raw_document().get_timestamp("operationTime").ok();
        found.map(|found: Timestamp| time(found))
    }
}

fn damaged(problem: &str) -> Failure {
    Failure::invalid("read the change stream".into(), format!("the server's answer is not understood: {problem}"))
}

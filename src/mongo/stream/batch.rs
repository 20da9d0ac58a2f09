//! An answer of the server, consumed in parts.

use bson::{RawDocument, Timestamp};
use mongodb::raw_batch_cursor::RawBatch;

use super::position::{Time, time};
use crate::cosmos::Failure;

/// A batch of documents, and how far it was consumed.
pub(super) struct Batch {
    batch: RawBatch,
    /// How many bytes of the array were consumed.
    passed: usize,
}

/// The bytes of a document's or array's length.
const LENGTH: usize = 4;

impl Batch {
    pub fn new(batch: RawBatch) -> Self {
        Self { batch, passed: LENGTH }
    }

    fn bytes(&self) -> Result<&[u8], Failure> {
        let array = self.batch.doc_slices().map_err(|e| damaged(&e.kind.to_string()))?;
        Ok(array.as_bytes())
    }

    /// Whether it is exhausted.
    pub fn is_empty(&mut self) -> Result<bool, Failure> {
        let passed = self.passed;
        let is_empty = self.next()?.is_none();
        self.passed = passed;
        Ok(is_empty)
    }

    /// The next document; `None` at the end.
    pub fn next(&mut self) -> Result<Option<&RawDocument>, Failure> {
        let wrong = || damaged("its batch is cut off");
        let start = self.passed;
        let bytes = self.bytes()?;
        let kind = *bytes.get(start).ok_or_else(wrong)?;
        if kind == 0 {
            return Ok(None);
        }
        let name = memchr::memchr(0, bytes.get(start + 1..).ok_or_else(wrong)?).ok_or_else(wrong)?;
        let begin = start + 1 + name + 1;
        let length = bytes.get(begin..begin + LENGTH).and_then(|length| length.first_chunk()).ok_or_else(wrong)?;
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| wrong())?;
        if kind != 3 || length <= LENGTH {
            return Err(wrong());
        }
        let end = begin + length;
        if bytes.len() < end {
            return Err(wrong());
        }
        self.passed = end;
        let document = self.bytes()?.get(begin..end).ok_or_else(wrong)?;
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

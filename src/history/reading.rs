//! The seam for reading: what use cases need from a history and from the live container, whatever holds them.
//! Implemented by Cosmos DB and by the memory of tests; one suite holds both to the contracts (tests/contract).

use chrono::{DateTime, Utc};
use futures::{FutureExt as _, future::ready};

use super::{entry::Entry, layout::Layout, live::Live};
use crate::change::time::PointInTime;
use crate::{
    change::{
        key::{ItemKey, PartitionKey},
        shape::LeftOut,
    },
    cosmos::{Answer, Failure, FeedRange, HashRange, Items, PageStream, Param},
};

/// How much of a record is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The facts of the version, which suffice for decisions. `Version::document` is `None`, and so are `at` and `rid`,
    /// unless a caller asks for one document.
    Facts,
    /// The document with it.
    Whole,
}

/// A record that a predicate found.
#[derive(Debug)]
pub struct Match {
    /// The record.
    pub entry: Entry,
    /// Whether the document could not be examined, so that the record is listed whether it matches or not.
    pub undecided: bool,
}

/// A record of a part of a document.
#[derive(Debug)]
pub struct Part {
    /// The record.
    pub entry: Entry,
    /// What it lacks.
    pub left_out: LeftOut,
}

/// An item of the history that is not a record: a part of a restore's journal.
#[derive(Debug)]
pub struct JournalItem {
    /// Its own id.
    pub id: String,
    /// Takes the place of a document's id; all items of a restore share it.
    pub group: String,
    /// The kind of its content, if it has one.
    pub kind: Option<String>,
    /// When it was written, epoch seconds.
    pub ts: i64,
    /// Its JSON text, if that was requested.
    pub text: Option<String>,
}

/// Which items of journals.
#[derive(Debug, Clone, Copy)]
pub enum Journals<'a> {
    /// All, without their texts.
    Index,
    /// Those of a kind, with their texts; of one group, if it is given.
    Kind(&'a str, Option<&'a str>),
}

/// One end of a container's time axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AxisEnd {
    /// Epoch seconds.
    pub ts: i64,
    /// Resource id of the document.
    pub rid: Option<String>,
}

/// Which end of a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichEnd {
    /// The earliest version.
    Oldest,
    /// The earliest version from a feed that delivers every version, or from a collection that was read before one.
    /// Versions from latest-version mode, `backfill` or a repair do not count, nor those that came through a filter.
    OldestOfAll,
    /// The latest version of that kind.
    NewestOfAll,
    /// The latest version of that kind from before this second.
    NewestOfAllBefore(i64),
    /// The earliest version of a document of this container, as [`container_of`] tells it.
    ///
    /// [`container_of`]: crate::change::version::container_of
    OldestOf(u64),
    /// The latest version of before this second.
    NewestBefore(i64),
    /// The latest version of which the history has only a part, on purpose.
    NewestPart,
    /// The latest version.
    Newest,
}

/// Versions of documents, as records of a history.
///
/// Contract:
/// - Order: none. Versions of one document may come in any order, between those of others; [`Timeline`] orders them.
/// - Duplicates: none within a stream. Two records of one version are two entries; [`Timeline`] knows that they are one.
/// - Paging: pages of any size, empty ones too; a stream may be dropped at any page and asked for again.
/// - Unknown: a record that is not understood is an [`Entry::Bad`], a delete of an unknown document an [`Entry::Unkeyed`];
///   neither is an error. Items of journals are no entries.
/// - Ranges: the streams of disjoint ranges have nothing in common, and those of all ranges have everything. What of a
///   document lies in which range, [`Layout::is_cut_by_item`] says.
/// - Nothing is retried here: a stream that fails is asked for again from its beginning.
///
/// [`Timeline`]: super::timeline::Timeline
pub trait HistoryReader: Items {
    /// How the history and its source are keyed.
    fn layout(&self) -> &Layout;
    /// The records of documents with this id; with `key`, or its first components, only those under it. Records under
    /// other keys may be among them.
    fn of_id<'a>(&'a self, id: &'a str, key: Option<&'a PartitionKey>, detail: Detail) -> PageStream<'a, Entry>;
    /// The facts of the records of a range: of those after a moment if it is given, otherwise of all.
    fn facts_in(&self, range: HashRange, after: Option<PointInTime>) -> PageStream<'_, Entry>;
    /// The whole records of a range that [`HistoryReader::facts_in`] leaves out when it is asked for those after the
    /// moment; for the end, all.
    fn records_in(&self, range: HashRange, until: PointInTime) -> PageStream<'_, Entry>;
    /// The records of a range that were written in this period, both ends included. Records without a time are not
    /// among them.
    fn written_in(&self, range: HashRange, from: PointInTime, to: PointInTime, detail: Detail)
    -> PageStream<'_, Entry>;
    /// The facts of the records of a range whose documents match the operator's own SQL on `c`, without deletes; and
    /// those of records for which that cannot be evaluated here. The predicate is about the document as it was: its own
    /// id, its whole body.
    fn matching<'a>(&'a self, range: HashRange, predicate: &'a str, params: &'a [Param]) -> PageStream<'a, Match>;
    /// The facts of the records of a range that hold a part of a document only.
    fn parts(&self, range: HashRange) -> PageStream<'_, Part>;
    /// A record's text as stored; `None` when there is none (any more).
    fn record<'a>(&'a self, item: &'a ItemKey, record_id: &'a str) -> Answer<'a, Option<String>>;
    /// An end of the history; `None` when it is empty.
    fn end(&self, which: WhichEnd) -> Answer<'_, Option<AxisEnd>>;
    /// Items of journals.
    fn journal_items<'a>(&'a self, which: Journals<'a>) -> PageStream<'a, JournalItem>;
}

/// The documents as they are now.
///
/// Contract:
/// - Order: none. Duplicates: none, unless a document was moved while the stream was read.
/// - Paging, ranges and retries: as for [`HistoryReader`].
/// - Unknown: a document that is not understood is an error, since nothing would be restored right beside it.
/// - Writes (`Items`) are conditional wherever an etag is given, and say what they made of it.
pub trait LiveContainer: Items {
    /// The documents of a range; with a predicate, those that match the operator's own SQL on `c`; with their texts,
    /// system properties included, when `with_text`.
    fn documents_in<'a>(
        &'a self,
        range: HashRange,
        with_text: bool,
        matching: Option<(&'a str, &'a [Param])>,
    ) -> PageStream<'a, (ItemKey, Live)>;
    /// The text that a document will be read back with, if that differs: a JSON number gets a type in MongoDB.
    ///
    /// # Errors
    /// When the text cannot become a document.
    fn as_stored(&self, _text: &str) -> Result<Option<String>, Failure> {
        Ok(None)
    }
    /// Why documents cannot be put back into it one by one, if that is so.
    fn unfit(&self) -> Option<&str> {
        None
    }
    /// How events name the container of their document, when one stream may have several.
    fn namespace(&self) -> Option<&str> {
        None
    }
    /// The seconds after which documents expire that have no time to live of their own; -1 when they never do, `None`
    /// when no document expires.
    fn default_ttl(&self) -> Answer<'_, Option<i64>> {
        ready(Ok(Some(-1))).boxed()
    }
    /// The current time by the clock that dates the changes, where documents have no time of their own; `None` where
    /// they have one, or where capture dates them.
    ///
    /// # Errors
    /// When the source does not answer.
    fn now(&self) -> Answer<'_, Option<DateTime<Utc>>> {
        ready(Ok(None)).boxed()
    }
    /// The document that was written last; `None` when there is none.
    fn newest(&self) -> Answer<'_, Option<AxisEnd>>;
    /// Where a partition key lies among feed ranges.
    ///
    /// # Errors
    /// When the key does not fit the container.
    fn range_of(&self, key: &PartitionKey) -> Result<FeedRange, Failure>;
}

//! Reads a history in Cosmos DB.

use futures::{FutureExt as _, StreamExt as _};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    pages::{first_row, rows, rows_in},
    row::{QueryRow, select},
};
use crate::{
    change::{
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::RawDocument,
        record::layout::scope_of_others,
        shape::LeftOut,
        time::PointInTime,
        version::beginnings_of,
    },
    cosmos::{Answer, Container, Failure, HashRange, InContainer, Items, PageStream, Param},
    history::{
        entry::Entry,
        layout::Layout,
        predicate::{self, IS_JOURNAL, IS_RECORD},
        reading::{AxisEnd, Detail, HistoryReader, JournalItem, Journals, Match, Part, WhichEnd},
    },
};

/// Whole records up to the moment. A copy of the original demo has no `_change`, and the service's index does not know
/// its time as it knows ours.
const UNTIL: &str = "(NOT IS_DEFINED(c._change) OR c._change.ts <= @at)";
/// The other records.
const AFTER: &str = "IS_DEFINED(c._change) AND (c._change.ts > @at OR NOT IS_NUMBER(c._change.ts))";

/// Records that were written in a period.
const WITHIN: &str = "((c._change.ts >= @from AND c._change.ts <= @to) \
                      OR (NOT IS_DEFINED(c._change) AND c._ts >= @from AND c._ts <= @to))";

const OLDEST: &str = "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) ORDER BY c._change.ts ASC";
// The operations are those of `Op::is_of_every_version`.
macro_rules! of_all {
    ($order:literal) => {
        of_all!("IS_NUMBER(c._change.ts)", $order)
    };
    ($time:literal, $order:literal) => {
        concat!(
            "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE ",
            $time,
            " AND ((c._change.op IN ('create', 'replace', 'update', 'delete', 'expire') AND (NOT IS_DEFINED(c._change.via) OR c._change.via != 'filter')) OR (c._change.op = 'baseline' AND c._change.via = 'follow')) ORDER BY c._change.ts ",
            $order
        )
    };
}
const OLDEST_OF_ALL: &str = of_all!("ASC");
const NEWEST_OF_ALL: &str = of_all!("DESC");
const NEWEST_OF_ALL_BEFORE: &str = of_all!("IS_NUMBER(c._change.ts) AND c._change.ts < @before", "DESC");
const OLDEST_OF: &str = "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) AND (STARTSWITH(c._change.rid, @one) OR STARTSWITH(c._change.rid, @two) OR STARTSWITH(c._change.rid, @three) OR STARTSWITH(c._change.rid, @four)) ORDER BY c._change.ts ASC";
const NEWEST_BEFORE: &str = "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) AND c._change.ts < @before ORDER BY c._change.ts DESC";
const NEWEST_PART: &str = "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) AND IS_DEFINED(c._change.partial) ORDER BY c._change.ts DESC";
const NEWEST: &str = "SELECT TOP 1 c._change.ts AS ts, c._change.rid AS rid FROM c WHERE IS_NUMBER(c._change.ts) ORDER BY c._change.ts DESC";

/// A container of records, which knows how its source is keyed.
#[derive(Debug, Clone)]
pub struct CosmosReader {
    container: Container,
    layout: Layout,
}

impl CosmosReader {
    /// The history in a container, for a source with this key.
    pub fn new(container: Container, source: &KeyPaths) -> Self {
        let layout = Layout::new(container.key_paths().clone(), source.clone());
        Self { container, layout }
    }

    fn entries(&self, sql: String, params: Vec<Param>, range: HashRange) -> PageStream<'_, Entry> {
        rows_in(&self.container, sql, params, range, |row| Ok(QueryRow::entry(row.get(), &self.layout)))
    }

    fn records(&self, sql: String, params: Vec<Param>, range: HashRange) -> PageStream<'_, Entry> {
        rows_in(&self.container, sql, params, range, |row| Ok(Entry::of(row.get(), &self.layout)))
    }
}

fn moment(at: PointInTime) -> Vec<Param> {
    vec![Param::new("at", at.seconds())]
}

fn is_packed(row: &str) -> bool {
    RawDocument::parse(row).is_ok_and(|row| row.get("packed").is_some_and(|packed| packed.get() == "true"))
}

/// Reads a row of `ts` and `rid`.
pub(super) fn end(row: &RawValue) -> Result<AxisEnd, Failure> {
    #[derive(Deserialize)]
    struct Ends {
        // Accepts any number: one odd record must not stop anybody.
        ts: f64,
        rid: Option<String>,
    }
    let wrong = |e| Failure::invalid("read newest".into(), format!("a row is not understood: {e}"));
    serde_json::from_str(row.get()).map(|Ends { ts, rid }| AxisEnd { ts: ts as i64, rid }).map_err(wrong)
}

/// Reads an item of a journal, or the row of one.
fn journal_item(row: &RawValue, with_text: bool) -> Result<JournalItem, Failure> {
    #[derive(Deserialize)]
    struct Item {
        id: String,
        #[serde(rename = "_originalId")]
        group: String,
        #[serde(rename = "_ts")]
        ts: i64,
        kind: Option<String>,
    }
    let wrong = |e| Failure::invalid("read journals".into(), format!("an item is not understood: {e}"));
    let Item { id, group, ts, kind } = serde_json::from_str(row.get()).map_err(wrong)?;
    Ok(JournalItem { id, group, kind, ts, text: with_text.then(|| row.get().to_owned()) })
}

impl HistoryReader for CosmosReader {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn of_id<'a>(&'a self, id: &'a str, key: Option<&'a PartitionKey>, detail: Detail) -> PageStream<'a, Entry> {
        let scope = key.and_then(|key| self.layout.scope(key, Some(id)));
        let sql = match detail {
            Detail::Facts => format!("{} AND c._originalId = @id", select(&self.layout)),
            Detail::Whole => format!("SELECT * FROM c WHERE c._originalId = @id AND {IS_RECORD}"),
        };
        let query = async move { self.container.query(&sql, &[Param::new("id", id)], scope.as_ref(), None).await };
        rows(query, move |row| {
            Ok(match detail {
                Detail::Facts => QueryRow::entry(row.get(), &self.layout),
                Detail::Whole => Entry::of(row.get(), &self.layout),
            })
        })
    }

    fn facts_in(&self, range: HashRange, after: Option<PointInTime>) -> PageStream<'_, Entry> {
        let all = select(&self.layout);
        match after {
            None => self.entries(all, Vec::new(), range),
            Some(PointInTime::END) => futures::stream::empty().boxed(),
            Some(at) => self.entries(format!("{all} AND {AFTER}"), moment(at), range),
        }
    }

    fn records_in(&self, range: HashRange, until: PointInTime) -> PageStream<'_, Entry> {
        if until == PointInTime::END {
            return self.records(format!("SELECT * FROM c WHERE {IS_RECORD}"), Vec::new(), range);
        }
        self.records(format!("SELECT * FROM c WHERE {IS_RECORD} AND {UNTIL}"), moment(until), range)
    }

    fn written_in(
        &self,
        range: HashRange,
        from: PointInTime,
        to: PointInTime,
        detail: Detail,
    ) -> PageStream<'_, Entry> {
        let time = vec![Param::new("from", from.seconds()), Param::new("to", to.seconds())];
        match detail {
            Detail::Facts => self.entries(format!("{} AND {WITHIN}", select(&self.layout)), time, range),
            Detail::Whole => self.records(format!("SELECT * FROM c WHERE {IS_RECORD} AND {WITHIN}"), time, range),
        }
    }

    fn matching<'a>(&'a self, range: HashRange, predicate: &'a str, params: &'a [Param]) -> PageStream<'a, Match> {
        let sql = format!("{} AND {}", select(&self.layout), predicate::of_records(predicate));
        rows_in(&self.container, sql, params.to_vec(), range, |row| {
            Ok(Match { entry: QueryRow::entry(row.get(), &self.layout), undecided: is_packed(row.get()) })
        })
    }

    fn parts(&self, range: HashRange) -> PageStream<'_, Part> {
        let sql = format!("{} AND c._change.fidelity = 'partial'", select(&self.layout));
        rows_in(&self.container, sql, Vec::new(), range, |row| {
            let note = RawDocument::parse(row.get()).ok().and_then(|row| Some(row.get("partial")?.get().to_owned()));
            let left_out = LeftOut::parse(note.as_deref());
            Ok(Part { entry: QueryRow::entry(row.get(), &self.layout), left_out })
        })
    }

    fn record<'a>(&'a self, item: &'a ItemKey, record_id: &'a str) -> Answer<'a, Option<String>> {
        async move {
            if let Some(key) = self.layout.record_key(item, record_id) {
                // A record does not change once it exists.
                return self.container.read_settled(&key, record_id).await;
            }
            let scope = self.layout.scope(&item.partition_key, Some(&item.id));
            let params = [Param::new("id", record_id)];
            let found = self.container.query_all("SELECT * FROM c WHERE c.id = @id", &params, scope.as_ref()).await?;
            Ok(found.first().map(|record| record.get().to_owned()))
        }
        .boxed()
    }

    fn end(&self, which: WhichEnd) -> Answer<'_, Option<AxisEnd>> {
        let (sql, params) = match which {
            WhichEnd::Oldest => (OLDEST, Vec::new()),
            WhichEnd::OldestOfAll => (OLDEST_OF_ALL, Vec::new()),
            WhichEnd::NewestOfAll => (NEWEST_OF_ALL, Vec::new()),
            WhichEnd::NewestOfAllBefore(second) => (NEWEST_OF_ALL_BEFORE, vec![Param::new("before", second)]),
            WhichEnd::OldestOf(container) => {
                let names = ["one", "two", "three", "four"].into_iter().zip(beginnings_of(container));
                (OLDEST_OF, names.map(|(name, beginning)| Param::new(name, beginning)).collect())
            }
            WhichEnd::NewestBefore(second) => (NEWEST_BEFORE, vec![Param::new("before", second)]),
            WhichEnd::NewestPart => (NEWEST_PART, Vec::new()),
            WhichEnd::Newest => (NEWEST, Vec::new()),
        };
        first_row(&self.container, sql, params, end)
    }

    fn journal_items<'a>(&'a self, which: Journals<'a>) -> PageStream<'a, JournalItem> {
        let index = "c.id, c._originalId, c._ts, c._restore.kind AS kind";
        match which {
            Journals::Index => {
                let sql = format!("SELECT {index} FROM c WHERE {IS_JOURNAL}");
                rows_in(&self.container, sql, Vec::new(), HashRange::WHOLE, |row| journal_item(row, false))
            }
            Journals::Kind(kind, group) => {
                let scope = group.and_then(|group| scope_of_others(self.container.key_paths(), group));
                let of_group = if group.is_some() { " AND c._originalId = @group" } else { "" };
                let sql = format!(
                    "SELECT {index}, c._restore FROM c WHERE {IS_JOURNAL} AND c._restore.kind = @kind{of_group}"
                );
                let mut params = vec![Param::new("kind", kind)];
                params.extend(group.map(|group| Param::new("group", group)));
                let query = async move { self.container.query(&sql, &params, scope.as_ref(), None).await };
                rows(query, |row| journal_item(row, true))
            }
        }
    }
}

impl InContainer for CosmosReader {
    fn container(&self) -> &impl Items {
        &self.container
    }
}

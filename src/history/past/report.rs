//! Reports all live documents and versions that match a predicate, by time.

use std::{cmp::Ordering, collections::HashSet};

use futures::StreamExt as _;
use serde_json::Value;

use super::LookError;
use crate::{
    change::{
        diff::value_at,
        key::{ItemKey, KeyPaths, PartitionKey},
        raw::{RawDocument, unescape},
        version::{BadRecord, RecordProblem, key_of},
    },
    context::Context,
    cosmos::{HashRange, Param, sql_path},
    history::{
        Containers, CosmosContainers,
        entry::Entry,
        layout::Layout,
        predicate::{IS_RECORD, PACKED_COLUMN, asked::Undecided, evaluate::Predicate, of_records, partly},
        reading::Part,
    },
};

/// Which documents and versions to report, and with which values.
#[derive(Debug, Clone)]
pub struct ReportRequest {
    /// The operator's own SQL on `c`, the document as it is or was.
    pub predicate: String,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Only under this partition key.
    pub key: Option<PartitionKey>,
    /// Paths of further values.
    pub columns: Vec<Vec<String>>,
}

/// A live document or a version. There may be hundreds of thousands of them: what is only printed is kept as text.
#[derive(Debug)]
pub struct ReportLine {
    /// When it was written, epoch seconds.
    pub ts: i64,
    lsn: Option<i64>,
    /// Whether it is the live document.
    pub is_live: bool,
    /// Which document.
    pub item: ItemKey,
    /// The values of the columns, as a JSON array.
    values: Box<str>,
}

impl ReportLine {
    /// The values of the columns; null for missing ones.
    pub fn values(&self) -> Vec<Value> {
        serde_json::from_str(&self.values).unwrap_or_default()
    }

    /// Ordered by time; a version precedes the live document that equals it.
    fn order(&self, other: &Self) -> Ordering {
        let place = |line: &Self| (line.ts, line.is_live, line.lsn);
        place(self)
            .cmp(&place(other))
            .then_with(|| self.item.sort_key().cmp(&other.item.sort_key()))
            .then_with(|| self.values.cmp(&other.values))
    }
}

/// The matching documents.
#[derive(Debug)]
pub struct FoundDocuments {
    /// By time.
    pub lines: Vec<ReportLine>,
    /// Records that may or may not match.
    pub undecided: Vec<BadRecord>,
}

/// Reads all live documents and versions that match.
///
/// # Errors
/// When the service refuses the predicate, or a container cannot be read.
pub async fn report(request: &ReportRequest, cx: &Context<'_>) -> Result<FoundDocuments, LookError> {
    let opened = CosmosContainers::open(cx.account, cx.names).await?;
    let containers = opened.containers();
    let layout = containers.changes.layout();
    if let Some(key) = request.key.as_ref().filter(|key| key.0.len() > layout.source().len()) {
        let (key, container, paths) = (key.clone(), cx.names.source.clone(), layout.source().clone());
        return Err(LookError::Key { key, container, paths });
    }
    let mut found = FoundDocuments { lines: Vec::new(), undecided: Vec::new() };
    for (container, is_live) in [(&opened.source, true), (&opened.changes, false)] {
        let scope = match &request.key {
            Some(key) if is_live => Some(key.clone()),
            Some(key) => layout.scope(key, None),
            None => None,
        };
        let sql = sql(&request.predicate, layout, &request.columns, is_live);
        let pages = container.query(&sql, &request.params, scope.as_ref(), None).await;
        let mut pages = pages.map_err(LookError::of_predicate)?;
        while let Some(page) = pages.next().await {
            for row in page.map_err(LookError::of_predicate)?.documents {
                let row = Row::of(row.get(), is_live, layout.source().len(), request.columns.len());
                match row.map_err(LookError::Row)? {
                    Row { line, packed: None } => found.lines.push(line),
                    Row { line, packed: Some(record_id) } => {
                        found.decide(line, record_id, request, &containers).await?;
                    }
                }
            }
        }
    }
    found.set_aside_parts(request, &containers).await?;
    found.lines.sort_by(ReportLine::order);
    Ok(found)
}

impl FoundDocuments {
    /// Names the versions of which the history has a part only, when the predicate hinges on what it lacks: the service
    /// has answered for the part.
    async fn set_aside_parts(&mut self, request: &ReportRequest, containers: &Containers) -> Result<(), LookError> {
        let keys = containers.changes.layout().source().segments();
        let paths = partly::open_paths(&request.predicate, keys);
        if paths.is_empty() {
            return Ok(());
        }
        let predicate = Predicate::of(&request.predicate, &request.params);
        let mut open = HashSet::new();
        let mut parts = containers.changes.parts(HashRange::WHOLE);
        while let Some(page) = parts.next().await {
            for Part { entry, left_out } in page.map_err(LookError::of_predicate)? {
                let Entry::Version(item, version) = entry else { continue };
                let is_asked = request.key.as_ref().is_none_or(|key| item.partition_key.0.starts_with(&key.0));
                let is_hidden = |path: &[String]| partly::hides(&left_out, keys, path);
                if !is_asked || !paths.iter().any(|path| is_hidden(path)) {
                    continue;
                }
                let decided = match (&predicate, containers.version(&item, &version.record_id).await) {
                    (Ok(predicate), Ok((version, text))) => {
                        predicate.matches_part_of(&version, &text, &is_hidden).map(|_| ())
                    }
                    (Err(_), Ok(_)) => Err(Undecided::Part),
                    (_, Err(failure)) if failure.is_own() => Err(Undecided::Record(failure)),
                    (_, Err(failure)) => return Err(failure.into()),
                };
                if let Err(why) = decided {
                    open.insert((item, version.ts, version.lsn));
                    self.undecided.push(BadRecord::new(version.record_id, RecordProblem::Asked(why.into())));
                }
            }
        }
        self.lines.retain(|line| line.is_live || !open.contains(&(line.item.clone(), line.ts, line.lsn)));
        Ok(())
    }

    /// Adds a version whose document the service cannot see, when it matches.
    async fn decide(
        &mut self,
        line: ReportLine,
        record_id: String,
        request: &ReportRequest,
        containers: &Containers,
    ) -> Result<(), LookError> {
        let (version, text) = match containers.version(&line.item, &record_id).await {
            Ok(found) => found,
            Err(failure) if failure.is_own() => {
                let problem = RecordProblem::Asked(Undecided::Record(failure).into());
                self.undecided.push(BadRecord::new(record_id, problem));
                return Ok(());
            }
            Err(failure) => return Err(failure.into()),
        };
        let predicate = Predicate::of(&request.predicate, &request.params).map_err(Undecided::Predicate);
        match predicate.and_then(|predicate| Ok(predicate.matches_version(&version, &text)?)) {
            Ok(true) => {
                let value = |path: &Vec<String>| value_at(&text, path).map_or(Value::Null, shown);
                let values = request.columns.iter().map(value).collect();
                self.lines.push(ReportLine { values: kept(values), ..line });
            }
            Ok(false) => {}
            Err(why) => self.undecided.push(BadRecord::new(record_id, RecordProblem::Asked(why.into()))),
        }
        Ok(())
    }
}

fn kept(values: Vec<Value>) -> Box<str> {
    Value::from(values).to_string().into()
}

fn shown(text: &str) -> Value {
    if text.starts_with('"') {
        return Value::String(unescape(text).into_owned());
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// The operator's predicate in parentheses, on a line of its own so that a comment cannot swallow the closing one.
fn sql(predicate: &str, layout: &Layout, columns: &[Vec<String>], is_live: bool) -> String {
    let mut sql = String::from(
        "SELECT c._ts AS ts, c.id AS id, c._originalId AS original, c._change.ts AS changed, c._change.lsn AS lsn",
    );
    let keys: Vec<Vec<String>> = if is_live {
        layout.source().segments().to_vec()
    } else {
        sql.push_str(&format!(", c._change.key AS key, {PACKED_COLUMN}"));
        layout.members_of_source_key().collect()
    };
    for (i, path) in keys.iter().enumerate() {
        sql.push_str(&format!(", {} AS k{i}", sql_path(path)));
    }
    for (i, path) in columns.iter().enumerate() {
        sql.push_str(&format!(", {} AS v{i}", sql_path(path)));
    }
    if is_live {
        sql.push_str(&format!(" FROM c WHERE (\n{predicate}\n)"));
    } else {
        let matching = of_records(predicate);
        sql.push_str(&format!(" FROM c WHERE {IS_RECORD} AND {matching}"));
    }
    sql
}

/// A row of the report's queries.
struct Row {
    line: ReportLine,
    /// The id of the record, when it holds the document compressed.
    packed: Option<String>,
}

impl Row {
    fn of(row: &str, is_live: bool, components: usize, columns: usize) -> Result<Self, serde_json::Error> {
        let row = RawDocument::parse(row)?;
        let own_id = row.get_str("id").unwrap_or_default();
        let own_ts = row.get_i64("ts").unwrap_or_default();
        let value = |name: &str| row.get(name).map_or(Value::Null, |raw| shown(raw.get()));
        let own_key = row.get("key").and_then(key_of).filter(|own| own.0.len() == components);
        let partition_key = own_key.unwrap_or_else(|| {
            PartitionKey((0..components).map(|i| KeyPaths::extract_one(&[format!("k{i}")], &row)).collect())
        });
        let id = if is_live { None } else { row.get_str("original") };
        let line = ReportLine {
            ts: if is_live { own_ts } else { row.get_i64("changed").unwrap_or(own_ts) },
            lsn: row.get_i64("lsn"),
            is_live,
            item: ItemKey { id: id.unwrap_or_else(|| own_id.clone()).into_owned(), partition_key },
            values: kept((0..columns).map(|i| value(&format!("v{i}"))).collect()),
        };
        let packed = row.get("packed").is_some_and(|packed| packed.get() == "true").then(|| own_id.to_string());
        Ok(Self { line, packed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_asks_for_its_columns_only() {
        let paths = || KeyPaths::parse(&["/pk"]).unwrap();
        let layout = Layout::new(paths(), paths());
        insta::assert_snapshot!(sql("c.n = 1 -- x", &layout, &[vec!["city_name".into()]], true), @r"
        SELECT c._ts AS ts, c.id AS id, c._originalId AS original, c._change.ts AS changed, c._change.lsn AS lsn, c['pk'] AS k0, c['city_name'] AS v0 FROM c WHERE (
        c.n = 1 -- x
        )
        ");
    }

    #[test]
    fn lines_have_the_sources_time_and_id() {
        let line = |row: &str, is_live, columns| Row::of(row, is_live, 1, columns).unwrap().line;
        let row = r#"{"ts":100,"id":"a~1","original":"a","changed":90,"lsn":3,"k0":"p","v0":1.5}"#;
        let version = line(row, false, 1);
        assert_eq!((version.ts, version.item.id.as_str()), (90, "a"));
        assert_eq!((version.item.partition_key.to_string().as_str(), version.values()), ("p", vec![1.5.into()]));
        let legacy = line(r#"{"ts":100,"id":"x","original":"a","k0":"p"}"#, false, 1);
        assert_eq!((legacy.ts, legacy.item.id.as_str()), (100, "a"));
        let live = line(r#"{"ts":90,"id":"a","k0":"p"}"#, true, 0);
        assert_eq!(version.order(&live), Ordering::Less);
        assert_eq!(legacy.order(&live), Ordering::Greater);
    }
}

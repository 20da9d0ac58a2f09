//! Gathers what planning needs: the facts of all versions of the items in scope, and what the target has now.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::plan::{Rules, Step, decide};
use crate::{
    change::{
        Op,
        key::{ItemKey, KeyPaths, KeyValue, PartitionKey},
        raw::{RawDocument, present},
        time::PointInTime,
        version::Version,
    },
    cosmos::{Container, Failure, PATIENCE, Param, Retry, sql_path},
    history::{as_of::boundary, reader::scope},
};

/// Items looked up at the same time.
const CONCURRENCY: usize = 32;

/// Which items.
#[derive(Debug, Clone)]
pub enum Scope {
    /// These.
    Items(Vec<ItemKey>),
    /// Those whose version at the point in time matches a predicate on `c`.
    Where {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// All items of the history and of the target.
    All,
}

/// The containers a restore works on.
#[derive(Debug, Clone)]
pub struct Places {
    /// The history.
    pub changes: Container,
    /// The live container that the history is of: its key paths tell items apart.
    pub source: Container,
    /// Where documents are put: the source, or another container of the same key.
    pub target: Container,
}

impl Places {
    /// Whether documents are put into another container than the one the history is of.
    pub fn is_elsewhere(&self) -> bool {
        self.target.rid() != self.source.rid()
    }
}

/// A row of the history without its document.
#[derive(Deserialize)]
struct Row<'a> {
    id: String,
    #[serde(rename = "item")]
    item: Option<String>,
    op: Option<Op>,
    ts: Option<i64>,
    lsn: Option<i64>,
    #[serde(rename = "prevLsn")]
    prev_lsn: Option<i64>,
    etag: Option<String>,
    fidelity: Option<String>,
    #[serde(rename = "tsFrom")]
    ts_from: Option<String>,
    /// The copy's own time: of a record of the original demo, all there is.
    copied: Option<i64>,
    #[serde(rename = "legacyLsn")]
    legacy_lsn: Option<i64>,
    #[serde(borrow, default, deserialize_with = "present")]
    k0: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    k1: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    k2: Option<&'a RawValue>,
}

impl Row<'_> {
    fn key(&self, paths: usize) -> PartitionKey {
        let part = |raw: Option<&RawValue>| raw.map_or(KeyValue::Undefined, KeyValue::from_raw);
        PartitionKey([self.k0, self.k1, self.k2].into_iter().take(paths).map(part).collect())
    }
}

/// The facts of all versions of each item in scope, without their documents. Of items with a version at `at` only,
/// when the scope is a predicate.
///
/// # Errors
/// When the service refuses a query, with its own message.
pub async fn facts(
    places: &Places,
    wanted: &Scope,
    at: PointInTime,
) -> Result<HashMap<ItemKey, Vec<Version>>, Failure> {
    match wanted {
        Scope::Items(items) => {
            let unique: HashSet<&ItemKey> = items.iter().collect();
            each(unique.into_iter().cloned(), |item| facts_of(places, item)).await
        }
        Scope::Where { predicate, params } => {
            // On lines of its own, so that a comment in it cannot swallow the last parenthesis.
            let sql = format!("{} AND (\n{predicate}\n)", select(places.source.key_paths()));
            let matched = rows(places, &sql, params, None).await?;
            let ids: HashSet<(ItemKey, String)> =
                matched.iter().map(|(item, facts)| (item.clone(), facts.record_id.clone())).collect();
            let candidates: HashSet<ItemKey> = matched.into_iter().map(|(item, _)| item).collect();
            let mut found = each(candidates, |item| facts_of(places, item)).await?;
            // In scope is what matched AT the point in time, not what matched at some time.
            found.retain(|item, versions| {
                boundary(versions, at).is_some_and(|v| ids.contains(&(item.clone(), v.record_id.clone())))
            });
            Ok(found)
        }
        Scope::All => {
            let mut all: HashMap<ItemKey, Vec<Version>> = HashMap::new();
            for (item, facts) in rows(places, &select(places.source.key_paths()), &[], None).await? {
                all.entry(item).or_default().push(facts);
            }
            Ok(all)
        }
    }
}

/// One step for each item in scope, in order of id and key. Nothing is written.
///
/// # Errors
/// When the service refuses a query, with its own message.
pub async fn survey(places: &Places, wanted: &Scope, rules: Rules) -> Result<Vec<Step>, Failure> {
    let items = facts(places, wanted, rules.at).await?;
    if matches!(wanted, Scope::All) {
        let live = live_etags(&places.target).await?;
        let mut steps: BTreeMap<(String, String), Step> = BTreeMap::new();
        for item in live.keys().filter(|item| !items.contains_key(item)) {
            let step = decide(item, &[], live.get(item).map(String::as_str), rules);
            steps.insert(item.sort_key(), step);
        }
        for (item, versions) in &items {
            let step = decide(item, versions, live.get(item).map(String::as_str), rules);
            steps.insert(item.sort_key(), step);
        }
        return Ok(steps.into_values().collect());
    }
    let mut steps: Vec<((String, String), Step)> = stream::iter(items)
        .map(|(item, versions)| async move {
            let retry = Retry::for_at_most(PATIENCE);
            let live = retry.run(|| places.target.read(&item.partition_key, &item.id)).await?;
            let etag = live.as_deref().and_then(etag_of);
            Ok::<_, Failure>((item.sort_key(), decide(&item, &versions, etag.as_deref(), rules)))
        })
        .buffer_unordered(CONCURRENCY)
        .try_collect()
        .await?;
    steps.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(steps.into_iter().map(|(_, step)| step).collect())
}

async fn each<F>(
    items: impl IntoIterator<Item = ItemKey>,
    look: impl Fn(ItemKey) -> F,
) -> Result<HashMap<ItemKey, Vec<Version>>, Failure>
where
    F: Future<Output = Result<(ItemKey, Vec<Version>), Failure>>,
{
    stream::iter(items.into_iter().map(look)).buffer_unordered(CONCURRENCY).try_collect().await
}

/// All versions of one item.
async fn facts_of(places: &Places, item: ItemKey) -> Result<(ItemKey, Vec<Version>), Failure> {
    let sql = format!("{} AND c._originalId = @id", select(places.source.key_paths()));
    let part = scope(places.changes.key_paths(), places.source.key_paths(), &item.partition_key, Some(&item.id));
    let found = rows(places, &sql, &[Param::new("id", item.id.as_str())], part.as_ref()).await?;
    let facts = found.into_iter().filter(|(other, _)| *other == item).map(|(_, facts)| facts).collect();
    Ok((item, facts))
}

/// The facts of records without their documents. Journal items of restores are not history.
fn select(source: &KeyPaths) -> String {
    let keys: String = source.segments().iter().enumerate().fold(String::new(), |sql, (i, path)| {
        // A key that is the id itself: the record's id is not the document's.
        let is_id = matches!(path.as_slice(), [name] if name == "id");
        let place = if is_id { "c._originalId".to_owned() } else { sql_path(path) };
        sql + &format!(", {place} AS k{i}")
    });
    format!(
        "SELECT c.id, c._originalId AS item, c._change.op AS op, c._change.ts AS ts, c._change.lsn AS lsn, \
         c._change.prevLsn AS prevLsn, c._change.etag AS etag, c._change.fidelity AS fidelity, c._change.tsFrom AS tsFrom, c._ts AS copied, \
         c._lsn AS legacyLsn{keys} FROM c WHERE NOT IS_DEFINED(c._restore)"
    )
}

async fn rows(
    places: &Places,
    sql: &str,
    params: &[Param],
    part: Option<&PartitionKey>,
) -> Result<Vec<(ItemKey, Version)>, Failure> {
    let mut pages = places.changes.query(sql, params, part, None).await?;
    let mut found = Vec::new();
    while let Some(page) = pages.next().await {
        for text in page?.documents {
            let row: Row<'_> = serde_json::from_str(text.get())
                .map_err(|e| Failure::invalid("read history".into(), format!("a record is not understood: {e}")))?;
            let key = row.key(places.source.key_paths().len());
            let item = ItemKey { id: row.item.unwrap_or_else(|| row.id.clone()), partition_key: key };
            let facts = Version {
                record_id: row.id,
                id: item.id.clone(),
                ts: row.ts.or(row.copied).unwrap_or_default(),
                ts_from_capture: row.ts_from.is_some(),
                lsn: row.lsn.or(if row.op.is_none() { row.legacy_lsn } else { None }),
                op: row.op,
                prev_lsn: row.prev_lsn,
                etag: row.etag,
                rid: None,
                via: None,
                fidelity: row.fidelity,
                at: None,
                // Facts are enough to decide; the document is read when it is needed.
                document: None,
            };
            found.push((item, facts));
        }
    }
    Ok(found)
}

/// Every document of a container by item, with its etag.
///
/// # Errors
/// When the service refuses the query.
pub async fn live_etags(target: &Container) -> Result<HashMap<ItemKey, String>, Failure> {
    let keys: String = target
        .key_paths()
        .segments()
        .iter()
        .enumerate()
        .fold(String::new(), |sql, (i, path)| sql + &format!(", {} AS k{i}", sql_path(path)));
    let mut pages = target.query(&format!("SELECT c.id, c._etag AS etag{keys} FROM c"), &[], None, None).await?;
    let mut live = HashMap::new();
    while let Some(page) = pages.next().await {
        for text in page?.documents {
            let row: Row<'_> = serde_json::from_str(text.get())
                .map_err(|e| Failure::invalid("read target".into(), format!("a document is not understood: {e}")))?;
            let key = row.key(target.key_paths().len());
            live.insert(ItemKey { id: row.id, partition_key: key }, row.etag.unwrap_or_default());
        }
    }
    Ok(live)
}

/// The etag of a document's text.
pub fn etag_of(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    RawDocument::parse(text).ok()?.get_str("_etag").map(std::borrow::Cow::into_owned)
}

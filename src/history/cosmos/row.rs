//! The facts of records: one row of a query for each, without the document.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    change::{
        Op, VersionFidelity, VersionVia,
        key::{KeyValue, PartitionKey},
        raw::{present, string_of},
        version::{BadRecord, RecordProblem, Version, container_of, key_of, life_of, seconds_of},
    },
    cosmos::sql_path,
    history::{
        entry::Entry,
        layout::Layout,
        predicate::{IS_RECORD, PACKED_COLUMN},
    },
};

/// The values of key paths as columns `k0`, `k1`, `k2`.
pub(super) fn key_columns(paths: impl Iterator<Item = Vec<String>>) -> String {
    paths.enumerate().fold(String::new(), |sql, (i, path)| sql + &format!(", {} AS k{i}", sql_path(&path)))
}

/// The facts of records without their documents.
pub(super) fn select(layout: &Layout) -> String {
    let keys = key_columns(layout.members_of_source_key());
    format!(
        "SELECT c.id, c._originalId AS item, c._change.op AS op, c._change.ts AS ts, c._change.lsn AS lsn, \
         c._change.prevLsn AS prevLsn, c._change.etag AS etag, c._change.rid AS rid, c._change.fidelity AS fidelity, c._change.via AS via, c._change.tsFrom AS tsFrom, c._change.at AS at, \
         c._change.key AS key, c._change.identity AS identity, c._change.ns AS ns, c._change.partial AS partial, IS_DEFINED(c._change) AS own, c._ts AS copied, \
         c._lsn AS legacyLsn, {PACKED_COLUMN}{keys} FROM c WHERE {IS_RECORD}"
    )
}

/// A live document's row, or the key values of a record's.
#[derive(Deserialize)]
pub(super) struct QueryRow<'a> {
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, rename = "item")]
    item: Option<&'a RawValue>,
    #[serde(borrow)]
    op: Option<&'a RawValue>,
    #[serde(borrow)]
    ts: Option<&'a RawValue>,
    #[serde(borrow)]
    lsn: Option<&'a RawValue>,
    #[serde(borrow, rename = "prevLsn")]
    prev_lsn: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) etag: Option<&'a RawValue>,
    #[serde(borrow)]
    rid: Option<&'a RawValue>,
    #[serde(borrow)]
    at: Option<&'a RawValue>,
    #[serde(borrow)]
    fidelity: Option<&'a RawValue>,
    #[serde(borrow)]
    via: Option<&'a RawValue>,
    #[serde(borrow, rename = "tsFrom")]
    ts_from: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    identity: Option<&'a RawValue>,
    #[serde(borrow)]
    ns: Option<&'a RawValue>,
    /// Whether there is a `_change` at all.
    #[serde(default)]
    own: bool,
    /// The copy's own time: the only one that a record of the original demo has.
    pub(super) copied: Option<i64>,
    #[serde(borrow, rename = "legacyLsn")]
    legacy_lsn: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    k0: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    k1: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    k2: Option<&'a RawValue>,
}

fn integer(raw: Option<&RawValue>) -> Option<i64> {
    serde_json::from_str(raw?.get()).ok()
}

impl QueryRow<'_> {
    pub(super) fn key(&self, paths: usize) -> PartitionKey {
        let part = |raw: Option<&RawValue>| raw.map_or(KeyValue::Undefined, KeyValue::from_raw);
        PartitionKey([self.k0, self.k1, self.k2].into_iter().take(paths).map(part).collect())
    }

    /// Classifies the record of a row; one that cannot be parsed is named, and hides nothing but itself.
    pub(super) fn entry(text: &str, layout: &Layout) -> Entry {
        let row: QueryRow<'_> = match serde_json::from_str(text) {
            Ok(row) => row,
            Err(e) => {
                return Entry::Bad(BadRecord::new("", RecordProblem::Row(e)));
            }
        };
        let record_id = row.id.and_then(string_of).unwrap_or_default();
        let problem = |problem| Entry::Bad(BadRecord::new(record_id.clone(), problem));
        let shown = |raw: Option<&RawValue>| raw.map_or("missing", RawValue::get).to_owned();
        let Some(id) = row.item.and_then(string_of) else {
            return problem(RecordProblem::NotOurs);
        };
        let op = row.op.map(|raw| serde_json::from_str::<Op>(raw.get()));
        let op = match op {
            None if row.own => return problem(RecordProblem::NoOp),
            None => None,
            Some(Ok(op)) if !op.is_of_collection() => Some(op),
            Some(_) => {
                return problem(RecordProblem::Op(shown(row.op)));
            }
        };
        let ts = match (integer(row.ts), op) {
            (Some(ts), _) => ts,
            (None, None) => match row.copied {
                Some(copied) => copied,
                None => return problem(RecordProblem::NoTime),
            },
            (None, Some(_)) => return problem(RecordProblem::Time(shown(row.ts))),
        };
        let key = row.key.and_then(key_of);
        let rid = row.rid.and_then(string_of);
        let at = row.at.and_then(string_of);
        let version = Version {
            record_id: record_id.clone(),
            id: id.clone(),
            ts,
            ts_from_capture: row.ts_from.is_some(),
            lsn: integer(row.lsn).or_else(|| if op.is_none() { integer(row.legacy_lsn) } else { None }),
            op,
            prev_lsn: integer(row.prev_lsn),
            etag: row.etag.and_then(string_of),
            container: rid.as_deref().and_then(container_of),
            life: rid.as_deref().and_then(life_of),
            rid: None,
            via: row.via.and_then(string_of).map(VersionVia::from),
            fidelity: row.fidelity.and_then(string_of).map(VersionFidelity::from),
            captured: at.as_deref().and_then(seconds_of),
            at,
            identity_unsure: row.identity.is_some_and(|raw| raw.get() == "\"unsure\""),
            is_native: row.ns.is_some(),
            key: None,
            // Facts suffice for the decision; the document is read when it is needed.
            document: None,
        };
        match layout.item_of_row(&id, op, key, || row.key(layout.source().len())) {
            Some(item) => Entry::Version(item, version),
            None => Entry::Unkeyed(version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::KeyPaths;

    #[test]
    fn what_is_odd_in_a_record_does_not_hide_it_from_the_facts() {
        for odd in [r#""rid":7,"at":false,"etag":"\ud800""#, r#""rid":"\u0041","at":"never","etag":null"#] {
            let row = format!(r#"{{"id":"a~1","item":"a","op":"upsert","ts":5,{odd},"k0":"p"}}"#);
            let paths = || KeyPaths::parse(&["/pk"]).unwrap();
            let layout = Layout::new(paths(), paths());
            let Entry::Version(item, version) = QueryRow::entry(&row, &layout) else { panic!("{row}") };
            assert_eq!((item.id.as_str(), version.ts, version.container, version.captured), ("a", 5, None, None));
        }
    }
}

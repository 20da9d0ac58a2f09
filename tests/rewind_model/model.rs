//! The model: versions replayed in order up to a moment.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::{Value, json};

/// Id and partition key.
pub(super) type Item = (String, String);
/// A container's texts by item.
pub(super) type Container = BTreeMap<Item, String>;

/// A version as it happened.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) item: Item,
    pub(super) ts: i64,
    pub(super) lsn: i64,
    /// `None` for a delete.
    pub(super) text: Option<String>,
    /// Whether its record says that this version created the document.
    pub(super) create: bool,
    pub(super) etag: String,
    pub(super) prev: Option<i64>,
}

/// What is known about an item at a moment.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Known {
    Document(String),
    Absent,
    Unknown,
}

/// Everything that happened, and which part of it is in the history.
#[derive(Default)]
pub(super) struct Model {
    pub(super) versions: Vec<Version>,
    /// Items without any version in the history.
    pub(super) strangers: BTreeSet<Item>,
}

impl Model {
    pub(super) fn items(&self) -> BTreeSet<Item> {
        self.versions.iter().map(|v| v.item.clone()).chain(self.strangers.iter().cloned()).collect()
    }

    pub(super) fn known(&self, item: &Item, at: i64) -> Known {
        let mut own: Vec<&Version> = self.versions.iter().filter(|v| v.item == *item).collect();
        own.sort_by_key(|v| (v.ts, v.lsn));
        let Some(first) = own.first() else { return Known::Unknown };
        match own.iter().rev().find(|v| v.ts <= at) {
            Some(version) => version.text.clone().map_or(Known::Absent, Known::Document),
            None if first.create => Known::Absent,
            None => Known::Unknown,
        }
    }

    /// The container at a moment, and the items whose state is unknown.
    pub(super) fn at(&self, at: i64) -> (Container, BTreeSet<Item>) {
        let (mut container, mut unknown) = (Container::new(), BTreeSet::new());
        for item in self.items() {
            match self.known(&item, at) {
                Known::Document(text) => {
                    container.insert(item, text);
                }
                Known::Absent => {}
                Known::Unknown => {
                    unknown.insert(item);
                }
            }
        }
        (container, unknown)
    }

    /// The expected result of a restore: known documents as they were, unknown ones unchanged.
    pub(super) fn after_restore(&self, at: i64, live: &Container) -> (Container, bool) {
        let (mut wanted, unknown) = self.at(at);
        for item in &unknown {
            if let Some(text) = live.get(item) {
                wanted.insert(item.clone(), text.clone());
            }
        }
        (wanted, unknown.is_empty())
    }
}

impl Version {
    /// The record, in the format of docs/history-format.md.
    pub(super) fn record(&self) -> (String, String) {
        let (id, pk) = &self.item;
        let mut change = json!({"v": 1, "op": "upsert", "ts": self.ts, "lsn": self.lsn});
        let original = Value::from(id.as_str());
        let record_id = match &self.text {
            Some(_) => format!("{id}~{}", self.etag.trim_matches('"')),
            None => format!("{id}~del-{}", self.lsn),
        };
        if self.text.is_none() {
            change["op"] = "delete".into();
        } else if self.create {
            change["op"] = "create".into();
        } else if self.prev.is_some() {
            change["op"] = "replace".into();
        }
        if let Some(prev) = self.prev {
            change["prevLsn"] = prev.into();
        }
        change["via"] = "trigger".into();
        change["fidelity"] = "exact".into();
        change["at"] = "2023-11-14T23:00:00.000Z".into();
        let Some(text) = &self.text else {
            return (
                record_id.clone(),
                json!({"id": record_id, "pk": pk, "_originalId": original, "_change": change}).to_string(),
            );
        };
        change["etag"] = self.etag.as_str().into();
        // At the top level, `ttl` would expire the record together with its document.
        let text = match text.split_once(",\"ttl\":") {
            Some((rest, ttl)) => {
                change["ttl"] = ttl.trim_end_matches('}').parse::<i64>().unwrap().into();
                format!("{rest}}}")
            }
            None => text.clone(),
        };
        let own = format!("\"id\":{original}");
        assert_eq!(text.matches(&own).count(), 1, "{text}");
        let text = text.replace(&own, &format!("\"id\":{}", json!(record_id)));
        (record_id, format!("{},\"_originalId\":{original},\"_change\":{change}}}", &text[..text.len() - 1]))
    }
}

/// A document's text: typical fields in any order.
pub(super) fn text(rng: &mut StdRng, item: &Item, n: usize) -> String {
    let mut members = vec![
        ("pk", json!(item.1)),
        ("n", json!(n)),
        ("city_name", json!(["Davidson", "Cornelius", "Zürich", "大阪 \u{1f600}", "q\"uote\\d\n"][n % 5])),
        ("price", json!([1.25, 0.1, -3.5e-7, 1e21, 12_345_678.9][n % 5])),
        ("big", json!([9_007_199_254_740_993_i64, -1, 0, i64::MAX, 42][n % 5])),
        ("when", json!(["2020-01-01T00:00:00.000Z", "2020-06-23T12:34:56+02:00", "today"][n % 3])),
        ("location", json!({"type": "Point", "coordinates": [-80.8, 35.5], "deep": [null, {}, [], {"z": 1, "a": 2}]})),
    ];
    members.truncate(2 + rng.random_range(0..6));
    members.push(("id", json!(item.0)));
    members.shuffle(rng);
    if rng.random_range(0..4) == 0 {
        // At the end, where the format does not need to note its position.
        members.push(("ttl", json!(1_000_000 + n)));
    }
    let members: Vec<String> = members.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Panics with the items in which two containers differ, rather than with all forty documents.
#[track_caller]
pub(super) fn assert_same(is: &Container, should: &Container, what: &str) {
    let items: BTreeSet<&Item> = is.keys().chain(should.keys()).collect();
    let differ: Vec<_> =
        items.into_iter().filter(|i| is.get(*i) != should.get(*i)).map(|i| (i, is.get(i), should.get(i))).collect();
    assert!(differ.is_empty(), "{what}: (item, is, should be) {differ:#?}");
}

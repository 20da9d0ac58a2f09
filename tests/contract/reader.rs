//! The contract for versions of documents.

use std::collections::BTreeSet;

use cosmos_rewind::{
    change::time::PointInTime,
    cosmos::{HashRange, Param},
    history::{
        entry::Entry,
        reading::{Detail, Journals, WhichEnd},
    },
};
use serde_json::{Value, json};

use super::{DOCUMENTS, LAYOUTS, START, Side, all, all_of, filled, item, key};

/// The record id of an entry.
fn id_of(entry: &Entry) -> String {
    match entry {
        Entry::Version(_, version) | Entry::Unkeyed(version) => version.record_id.clone(),
        Entry::Bad(bad) => bad.record_id.clone(),
    }
}

fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

fn ids(entries: &[Entry]) -> Vec<String> {
    sorted(entries.iter().map(id_of).collect())
}

fn is_copy(record: &Value) -> bool {
    record.get("_change").is_none()
}

#[tokio::test]
async fn every_record_is_returned_exactly_once_whatever_the_ranges() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            for parts in [1, 4] {
                let ranges = HashRange::WHOLE.cut(parts);
                let found = all_of(ranges.into_iter().map(|range| side.containers.changes.facts_in(range, None))).await;
                assert_eq!(ids(&found), side.ids(|_| true), "{}, {parts} parts", side.name);
                for entry in &found {
                    if let Entry::Version(_, version) = entry {
                        assert_eq!(version.document, None, "{}: facts have no text", side.name);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn all_records_of_a_document_are_in_one_range_if_the_layout_guarantees_it() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let mut spread = BTreeSet::new();
            for number in 0..DOCUMENTS {
                let mut ranges = BTreeSet::new();
                for (place, range) in HashRange::WHOLE.cut(16).into_iter().enumerate() {
                    for entry in all(side.containers.changes.facts_in(range, None)).await {
                        if matches!(&entry, Entry::Version(of, version) if *of == item(number) && version.op.is_some())
                        {
                            ranges.insert(place);
                        }
                    }
                }
                if ranges.len() > 1 {
                    spread.insert(number);
                }
                if number > 5 {
                    break;
                }
            }
            assert_eq!(spread.is_empty(), side.is_cut_by_item(), "{}: {spread:?}", side.name);
        }
    }
}

#[tokio::test]
async fn whole_records_before_a_moment_and_facts_after_it_cover_the_history() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let moments = [-1, 0, 60, 61, 200].map(|seconds| PointInTime::from_epoch(START + seconds));
            for at in moments.into_iter().chain([PointInTime::END]) {
                let changes = &side.containers.changes;
                let whole = all(changes.records_in(HashRange::WHOLE, at)).await;
                let after = all(changes.facts_in(HashRange::WHOLE, Some(at))).await;
                let is_until = |record: &Value| {
                    is_copy(record)
                        || at == PointInTime::END
                        || record["_change"]["ts"].as_f64().is_some_and(|ts| ts <= at.seconds() as f64)
                };
                assert_eq!(ids(&whole), side.ids(is_until), "{}, {at}", side.name);
                assert_eq!(ids(&after), side.ids(|record| !is_until(record)), "{}, {at}", side.name);
                for entry in &whole {
                    if let Entry::Version(_, version) = entry
                        && !version.op.is_some_and(cosmos_rewind::change::Op::is_tombstone)
                    {
                        assert!(version.document.as_ref().is_some_and(|text| text.contains("\"n\":")), "{}", side.name);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_time_range_includes_both_its_ends() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            for (first, last) in [(0, 0), (1, 59), (60, 120), (61, 200), (121, 900), (-9, i64::MAX)] {
                let from = PointInTime::from_epoch(START + first);
                let to = PointInTime::from_epoch(START.saturating_add(last));
                for detail in [Detail::Facts, Detail::Whole] {
                    let ranges = HashRange::WHOLE.cut(3).into_iter();
                    let changes = &side.containers.changes;
                    let found = all_of(ranges.map(|range| changes.written_in(range, from, to, detail))).await;
                    // A record of the original demo has this machine's time as its timestamp.
                    let mut found = ids(&found);
                    found.retain(|id| id != "legacy-1");
                    let within = (from.seconds() as f64)..=(to.seconds() as f64);
                    let expected =
                        side.ids(|record| record["_change"]["ts"].as_f64().is_some_and(|ts| within.contains(&ts)));
                    assert_eq!(found, expected, "{}, {first} to {last}, {detail:?}", side.name);
                }
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_parsed_is_an_entry_of_its_own_and_hides_nothing() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let changes = &side.containers.changes;
            for entries in [
                all(changes.facts_in(HashRange::WHOLE, None)).await,
                all(changes.records_in(HashRange::WHOLE, PointInTime::END)).await,
            ] {
                let bad: Vec<String> =
                    entries.iter().filter(|entry| matches!(entry, Entry::Bad(_))).map(id_of).collect();
                assert!(bad.contains(&"odd~1".to_owned()), "{}: {bad:?}", side.name);
                // A delete without a key only has the fields of the history's partition key, which may or may not
                // include the document's key.
                let nobody = entries.iter().find(|entry| id_of(entry).starts_with("nobody"));
                let tells = side.containers.changes.layout().tells_key();
                assert_eq!(matches!(nobody, Some(Entry::Unkeyed(_))), !tells, "{}: {nobody:?}", side.name);
            }
        }
    }
}

/// A predicate, its parameters, and the records it should find.
type Case<'a> = (&'a str, &'a [Param], fn(&Value) -> bool);

#[tokio::test]
async fn a_predicate_applies_to_the_document_as_it_was_and_never_to_a_delete() {
    let round = [Param::new("round", 1)];
    let predicates: [Case<'_>; 5] = [
        ("c.round = @round -- of all", &round, |r| r["round"] == 1),
        ("c.id = 'doc-3'", &[], |r| r["_originalId"] == "doc-3"),
        ("c.id != 'doc-3' AND c.n < 5", &[], |r| r["_originalId"] != "doc-3" && r["n"].as_i64().is_some_and(|n| n < 5)),
        ("NOT IS_DEFINED(c.x) AND c.pk = 'key-0'", &[], |r| r["pk"] == "key-0"),
        ("IS_DEFINED(c._change)", &[], |_| false),
    ];
    for layout in LAYOUTS {
        for side in filled(layout).await {
            for (predicate, params, matches) in predicates {
                let ranges = HashRange::WHOLE.cut(3);
                let changes = &side.containers.changes;
                let found = all_of(ranges.into_iter().map(|range| changes.matching(range, predicate, params))).await;
                let found = found.iter().filter(|one| !matches!(one.entry, Entry::Bad(_)));
                let found: Vec<String> = found.map(|one| id_of(&one.entry)).collect();
                let is_document = |r: &Value| {
                    r["_change"]["op"] != "delete" && r["_originalId"] != "odd" && r["_originalId"] != "nobody"
                };
                let expected = side.ids(|record| is_document(record) && matches(record));
                assert_eq!(sorted(found), expected, "{}: {predicate}", side.name);
            }
        }
    }
}

#[tokio::test]
async fn all_records_of_an_id_are_found_with_its_key_and_without_it() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            for number in [0, 5, 7] {
                let of = item(number);
                let expected = side.ids(|record| record["_originalId"] == of.id.as_str());
                for key in [None, Some(&of.partition_key)] {
                    for detail in [Detail::Facts, Detail::Whole] {
                        let found = all(side.containers.changes.of_id(&of.id, key, detail)).await;
                        assert_eq!(ids(&found), expected, "{}: {key:?} {detail:?}", side.name);
                        let has_text = found
                            .iter()
                            .any(|entry| matches!(entry, Entry::Version(_, version) if version.document.is_some()));
                        assert_eq!(has_text, detail == Detail::Whole, "{}", side.name);
                    }
                }
            }
            let none = all(side.containers.changes.of_id("none", Some(&key("key-0")), Detail::Facts)).await;
            assert!(none.is_empty(), "{}", side.name);
        }
    }
}

#[tokio::test]
async fn a_record_is_found_by_its_item_and_id_and_a_missing_one_is_none() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let changes = &side.containers.changes;
            let text = changes.record(&item(3), "doc-3~e31").await.unwrap().unwrap();
            let read: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (read["round"].as_i64(), read["_originalId"].as_str()),
                (Some(1), Some("doc-3")),
                "{}",
                side.name
            );
            assert_eq!(changes.record(&item(3), "doc-3~e99").await.unwrap(), None, "{}", side.name);
        }
    }
}

#[tokio::test]
async fn the_ends_of_a_history_are_its_oldest_and_newest_version() {
    for side in super::empty(LAYOUTS[0]).await {
        for which in [WhichEnd::Oldest, WhichEnd::OldestOfAll, WhichEnd::NewestOfAll, WhichEnd::NewestPart] {
            assert_eq!(side.containers.changes.end(which).await.unwrap(), None, "{}", side.name);
        }
    }
    for side in filled(LAYOUTS[0]).await {
        let end = async |which| side.containers.changes.end(which).await.unwrap().unwrap().ts;
        let times: Vec<f64> = side.records.iter().filter_map(|record| record["_change"]["ts"].as_f64()).collect();
        let newest = times.iter().copied().fold(f64::MIN, f64::max);
        assert_eq!(end(WhichEnd::Newest).await as f64, newest, "{}", side.name);
        let told = side.records.iter().map(|record| &record["_change"]).filter(|change| {
            ["create", "replace", "update", "delete", "expire"].map(Value::from).contains(&change["op"])
                || (change["op"] == "baseline" && change["via"] == "follow")
        });
        let times: Vec<i64> = told.filter_map(|change| change["ts"].as_f64()).map(|ts| ts as i64).collect();
        let ends = (end(WhichEnd::OldestOfAll).await, end(WhichEnd::NewestOfAll).await);
        assert_eq!(ends, (*times.iter().min().unwrap(), *times.iter().max().unwrap()), "{}", side.name);
        let before = times.iter().copied().filter(|ts| *ts < ends.1).max().unwrap();
        assert_eq!(end(WhichEnd::NewestOfAllBefore(ends.1)).await, before, "{}", side.name);
        assert_eq!(side.containers.changes.end(WhichEnd::NewestOfAllBefore(ends.0)).await.unwrap(), None);
        // In the encoded id, the last character of the container's part includes bits of the document's first byte.
        for (container, round) in [(0xe3b5_1e00_ffff_ff4d, 0), (0xe3b5_1e00_ffff_ff4e, 2)] {
            assert_eq!(end(WhichEnd::OldestOf(container)).await, START + round * 60, "{}", side.name);
        }
        assert_eq!(side.containers.changes.end(WhichEnd::OldestOf(7)).await.unwrap(), None, "{}", side.name);
    }
}

#[tokio::test]
async fn a_part_of_a_document_is_found_whatever_is_newer() {
    for mut side in filled(LAYOUTS[0]).await {
        assert_eq!(side.containers.changes.end(WhichEnd::NewestPart).await.unwrap(), None, "{}", side.name);
        let change = json!({"v": 1, "op": "create", "ts": START + 1, "lsn": 1, "etag": "\"1\"", "key": ["key-1"],
                            "fidelity": "partial", "via": "trigger", "partial": {"dropped": ["/n"]}});
        let record = json!({"id": "part~1", "pk": "key-1", "_originalId": "part", "_change": change});
        side.put(LAYOUTS[0], record).await;
        let found = side.containers.changes.end(WhichEnd::NewestPart).await.unwrap();
        assert_eq!(found.map(|end| end.ts), Some(START + 1), "{}", side.name);
    }
}

#[tokio::test]
async fn a_filtered_copy_is_not_an_end_and_an_absent_field_is_undecided() {
    for mut side in filled(LAYOUTS[0]).await {
        let first = side.containers.changes.end(WhichEnd::OldestOfAll).await.unwrap();
        for (name, via, fidelity) in [("filtered", "filter", "exact"), ("absent", "trigger", "absent")] {
            let ts = if via == "filter" { START - 60 } else { START + 60 };
            let change = json!({"v": 1, "op": "create", "ts": ts, "lsn": 1, "etag": "\"1\"", "key": ["key-1"],
                                "fidelity": fidelity, "via": via});
            let record = json!({"id": format!("{name}~1"), "pk": "key-1", "_originalId": name, "_change": change});
            side.put(LAYOUTS[0], record).await;
        }
        let changes = &side.containers.changes;
        assert_eq!(changes.end(WhichEnd::OldestOfAll).await.unwrap(), first, "{}", side.name);
        // The record's own id and key must not be taken for the document's.
        let matches = all(changes.matching(HashRange::WHOLE, "c.n = 1", &[])).await;
        let undecided = matches.iter().filter(|found| found.undecided);
        let undecided: Vec<&str> = undecided
            .filter_map(|found| match &found.entry {
                Entry::Version(item, _) => Some(item.id.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(undecided, ["absent"], "{}", side.name);
    }
}

#[tokio::test]
async fn journals_are_read_by_kind_and_group_and_are_not_versions() {
    for layout in LAYOUTS {
        for side in filled(layout).await {
            let changes = &side.containers.changes;
            let names = |side: &Side, items: &[cosmos_rewind::history::reading::JournalItem]| {
                assert!(items.iter().all(|item| item.group == "restore~r1" && item.ts > 0), "{}", side.name);
                sorted(items.iter().map(|item| item.id.clone()).collect())
            };
            let index = all(changes.journal_items(Journals::Index)).await;
            let all_names = ["restore~r1~outcomes-1", "restore~r1~part-00000", "restore~r1~plan"];
            assert_eq!(names(&side, &index), all_names, "{}", side.name);
            assert!(index.iter().all(|item| item.text.is_none() && item.kind.is_some()), "{}", side.name);
            for (group, found) in [(None, 1), (Some("restore~r1"), 1), (Some("restore~r2"), 0)] {
                let plans = all(changes.journal_items(Journals::Kind("plan", group))).await;
                assert_eq!(plans.len(), found, "{}: {group:?}", side.name);
                for plan in &plans {
                    let text: Value = serde_json::from_str(plan.text.as_deref().unwrap()).unwrap();
                    assert_eq!(text["_restore"]["text"], "plan", "{}", side.name);
                }
            }
        }
    }
}

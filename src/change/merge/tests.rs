//! A document's life in a line each: who wrote, and what. And lives drawn at random, with a log that the test keeps
//! itself.
#![cfg(test)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MergeRules, MergeWalk, Merged, Prefer, VersionAuthor, edited};

const BAD: VersionAuthor = VersionAuthor::Undone;
const GOOD: VersionAuthor = VersionAuthor::Kept;

/// Merges a life: the document before, and what each write turned it into.
fn merged_with(rules: &MergeRules, base: Option<&str>, writes: &[(VersionAuthor, Option<&str>)]) -> Merged {
    let mut walk = MergeWalk::from(base.map(|text| ("r0".to_owned(), text.to_owned())), rules);
    for (number, (by, text)) in writes.iter().enumerate() {
        walk.step(*by, format!("r{}", number + 1), text.map(str::to_owned)).unwrap();
    }
    let merged = walk.finish().unwrap();
    // The edits, which are all that a plan keeps, lead to the same result from the versions' texts alone.
    let all = base.into_iter().map(Some).chain(writes.iter().map(|(_, text)| *text));
    let first = usize::from(base.is_none());
    let texts: std::collections::HashMap<String, String> =
        all.enumerate().filter_map(|(i, text)| Some((format!("r{}", i + first), text?.to_owned()))).collect();
    let today = writes.last().and_then(|(_, text)| *text);
    assert_eq!(edited(today, &merged.edits, &texts).unwrap(), merged.text, "{merged:?}");
    merged
}

/// The resulting text, and the conflicts: place, base, theirs, ours.
fn merged(base: &str, writes: &[(VersionAuthor, &str)]) -> (String, Vec<String>) {
    shown(&merged_by(&MergeRules::default(), base, writes))
}

/// `-` is a missing document.
fn merged_by(rules: &MergeRules, base: &str, writes: &[(VersionAuthor, &str)]) -> Merged {
    let text = |text| (text != "-").then_some(text);
    let writes: Vec<_> = writes.iter().map(|(by, after)| (*by, text(*after))).collect();
    merged_with(rules, text(base), &writes)
}

fn shown(merged: &Merged) -> (String, Vec<String>) {
    let or = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
    let conflict = |c: &super::Conflict| format!("{} {} {} {}", c.place, or(&c.base), or(&c.theirs), or(&c.ours));
    (or(&merged.text), merged.conflicts.iter().map(conflict).collect())
}

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_field_that_nobody_touched_since_goes_back_and_all_else_stays() {
    let life = [(BAD, r#"{"id":"1","price":-1,"n":1.10}"#), (GOOD, r#"{"id":"1","price":-1,"n":2,"new":[1]}"#)];
    let (text, conflicts) = merged(r#"{"id":"1","price":9.50,"n":1.10}"#, &life);
    assert_eq!((text.as_str(), conflicts), (r#"{"id":"1","price":9.50,"n":2,"new":[1]}"#, none()));
}

#[test]
fn a_field_that_somebody_changed_later_is_a_conflict_with_three_values() {
    let life = [(BAD, r#"{"a":2,"b":2}"#), (GOOD, r#"{"a":3,"b":2}"#)];
    assert_eq!(merged(r#"{"a":1,"b":1}"#, &life), (r#"{"a":3,"b":1}"#.into(), vec!["/a 1 2 3".into()]));
    let by =
        |prefer| merged_by(&MergeRules { prefer: Some(prefer), ..MergeRules::default() }, r#"{"a":1,"b":1}"#, &life);
    let (ours, base) = (by(Prefer::Ours), by(Prefer::Base));
    assert_eq!((shown(&ours), ours.settled), ((r#"{"a":3,"b":1}"#.into(), none()), 1));
    assert_eq!((shown(&base), base.settled), ((r#"{"a":1,"b":1}"#.into(), none()), 1));
}

#[test]
fn a_value_of_extended_json_goes_back_whole_and_keeps_nothing_of_another_type() {
    let life = [(BAD, r#"{"n":{"$numberDouble":"7.0"},"o":2}"#), (GOOD, r#"{"n":{"$numberDouble":"7.0"},"o":3}"#)];
    let base = r#"{"n":{"$numberInt":"5"},"o":2}"#;
    assert_eq!(merged(base, &life), (r#"{"n":{"$numberInt":"5"},"o":3}"#.into(), none()));
    // Changed again, even to another type, it is a conflict.
    let again = [life[0], (GOOD, r#"{"n":{"$numberLong":"5"},"o":2}"#)];
    let conflict = r#"/n {"$numberInt":"5"} {"$numberDouble":"7.0"} {"$numberLong":"5"}"#;
    assert_eq!(merged(base, &again).1, [conflict]);
    // Another spelling is not a change.
    let same = [life[0], (GOOD, r#"{"n":{ "$numberInt" : "\u0035" },"o":2}"#)];
    assert_eq!(merged(base, &same).1, none());
    let only = MergeRules { only: vec![vec!["n".into(), "$numberInt".into()]], ..MergeRules::default() };
    let above = merged_by(&only, base, &life);
    assert_eq!((above.edits.len(), above.above.len()), (0, 1));
}

#[test]
fn elements_are_known_by_a_key_of_extended_json() {
    let rules = MergeRules { array_keys: vec!["/items=/sku".parse().unwrap()], ..MergeRules::default() };
    let items =
        |a: u8, b: u8| format!(r#"{{"items":[{{"sku":{{"$oid":"a"}},"n":{a}}},{{"sku":{{"$oid":"b"}},"n":{b}}}]}}"#);
    let (bad, good) = (items(7, 1), items(7, 2));
    let merged = merged_by(&rules, &items(1, 1), &[(BAD, bad.as_str()), (GOOD, good.as_str())]);
    assert_eq!(shown(&merged), (items(1, 2), none()));
    assert_eq!(merged.taken[0].place.to_string(), r#"/items/[/sku={"$oid":"a"}]/n"#);
}

#[test]
fn somebody_who_wrote_the_bad_value_again_by_will_is_no_bad_writer() {
    // 2 is what the bad write set; a good one changed it to 3 and back to 2.
    let life = [(BAD, r#"{"a":2}"#), (GOOD, r#"{"a":3}"#), (GOOD, r#"{"a":2}"#)];
    assert_eq!(merged(r#"{"a":1}"#, &life), (r#"{"a":2}"#.into(), vec!["/a 1 2 2".into()]));
    // Whoever restores the earlier value has taken the change back already; so has the bad writer himself.
    for healer in [GOOD, BAD] {
        assert_eq!(merged(r#"{"a":1}"#, &[(BAD, r#"{"a":2}"#), (healer, r#"{"a":1.0}"#)]).1, none());
    }
}

#[test]
fn several_bad_writes_between_good_ones_each_go_back_to_the_good_one_before() {
    let life = [(BAD, r#"{"a":2,"b":2}"#), (GOOD, r#"{"a":3,"b":2}"#), (BAD, r#"{"a":4,"b":4}"#)];
    assert_eq!(merged(r#"{"a":1,"b":1}"#, &life), (r#"{"a":3,"b":1}"#.into(), vec!["/a 1 2 3".into()]));
}

#[test]
fn who_wrote_last_is_no_conflict() {
    let rules = MergeRules { bookkeeping: vec![vec!["by".into()]], ..MergeRules::default() };
    let base = r#"{"by":"ann","a":1,"b":1}"#;
    let job = (BAD, r#"{"by":"job","a":2,"b":1}"#);
    let later = shown(&merged_by(&rules, base, &[job, (GOOD, r#"{"by":"bob","a":2,"b":5}"#)]));
    assert_eq!(later, (r#"{"by":"bob","a":1,"b":5}"#.into(), none()));
    assert_eq!(shown(&merged_by(&rules, base, &[job])).0, base);
}

#[test]
fn what_is_inside_an_object_is_a_field_of_its_own() {
    let base = r#"{"o":{"x":1,"y":1}}"#;
    for (bad, good, text, conflicts) in [
        (r#"{"o":{"x":2,"y":1}}"#, r#"{"o":{"x":2,"y":5}}"#, r#"{"o":{"x":1,"y":5}}"#, vec![]),
        (r#"{"o":{"x":2,"y":1}}"#, r#"{}"#, "{}", vec![r#"/o {"x":1,"y":1} {"x":2,"y":1} -"#]),
        (r#"{"o":7}"#, r#"{"o":7,"n":1}"#, r#"{"o":{"x":1,"y":1},"n":1}"#, vec![]),
        (r#"{"o":7}"#, r#"{"o":8}"#, r#"{"o":8}"#, vec![r#"/o {"x":1,"y":1} 7 8"#]),
        (r#"{}"#, r#"{"n":1}"#, r#"{"o":{"x":1,"y":1},"n":1}"#, vec![]),
        (
            r#"{"o":{"x":1,"y":1},"p":{"a":1}}"#,
            r#"{"o":{"x":1,"y":1},"p":{"a":2}}"#,
            r#"{"o":{"x":1,"y":1},"p":{"a":2}}"#,
            vec![r#"/p - {"a":1} {"a":2}"#],
        ),
    ] {
        let (merged, found) = merged(base, &[(BAD, bad), (GOOD, good)]);
        assert_eq!(
            (merged.as_str(), found),
            (text, conflicts.iter().map(|c| (*c).to_owned()).collect()),
            "{bad} {good}"
        );
    }
    // A field, then everything around it, by the bad writer; with a good write in between.
    let life = [(BAD, r#"{"o":{"x":2,"y":1}}"#), (GOOD, r#"{"o":{"x":2,"y":5}}"#), (BAD, r#"{"o":"gone"}"#)];
    assert_eq!(merged(base, &life), (r#"{"o":{"x":1,"y":5}}"#.into(), none()));
}

#[test]
fn documents_that_were_deleted_come_back_and_those_that_were_made_go() {
    let doc = r#"{"id":"1","a":1}"#;
    assert_eq!(merged(doc, &[(BAD, "-")]), (doc.into(), none()));
    assert_eq!(merged("-", &[(BAD, doc)]), ("-".into(), none()));
    // Changed, then deleted, by the bad writer.
    assert_eq!(
        merged(doc, &[(BAD, r#"{"id":"1","a":2}"#), (GOOD, r#"{"id":"1","a":2,"b":1}"#), (BAD, "-")]).0,
        r#"{"id":"1","a":1,"b":1}"#
    );
    // Recreated or changed by somebody else: theirs, and a conflict.
    let again = r#"{"id":"1","z":1}"#;
    assert_eq!(merged(doc, &[(BAD, "-"), (GOOD, again)]), (again.into(), vec![format!("/ {doc} - {again}")]));
    assert_eq!(merged("-", &[(BAD, doc), (GOOD, again)]), (again.into(), vec![format!("/ - {doc} {again}")]));
    // Deleted and recreated by the bad writer: changed, field by field.
    let life = [(BAD, "-"), (BAD, r#"{"id":"1","z":1}"#), (GOOD, r#"{"id":"1","z":1,"b":2}"#)];
    assert_eq!(merged(doc, &life), (r#"{"id":"1","a":1,"b":2}"#.into(), none()));
    // Deleted by somebody else after a bad change: stays deleted.
    let bad = r#"{"id":"1","a":2}"#;
    assert_eq!(merged(doc, &[(BAD, bad), (GOOD, "-")]), ("-".into(), vec![format!("/ {doc} {bad} -")]));
    let base =
        merged_by(&MergeRules { prefer: Some(Prefer::Base), ..MergeRules::default() }, doc, &[(BAD, bad), (GOOD, "-")]);
    assert_eq!(shown(&base), (doc.into(), none()));
}

#[test]
fn what_expired_stays_gone_unless_a_bad_write_made_it_expire() {
    let doc = r#"{"id":"1","a":1}"#;
    let gone = merged_by(&MergeRules::default(), doc, &[(BAD, r#"{"id":"1","a":2}"#), (VersionAuthor::Expiry, "-")]);
    assert!(gone.expired);
    assert_eq!(shown(&gone), ("-".into(), none()));
    assert_eq!(
        merged(doc, &[(BAD, r#"{"id":"1","a":1,"ttl":5}"#), (VersionAuthor::Expiry, "-")]),
        (doc.into(), none())
    );
}

#[test]
fn elements_with_a_key_are_fields_of_their_own_and_other_arrays_are_one_value() {
    let base = r#"{"items":[{"sku":"a","n":1},{"sku":"b","n":1}]}"#;
    let bad = r#"{"items":[{"sku":"a","n":-1}]}"#;
    let good = r#"{"items":[{"sku":"a","n":-1},{"sku":"c","n":3}]}"#;
    let rules = MergeRules { array_keys: vec!["/items=/sku".parse().unwrap()], ..MergeRules::default() };
    let by_key = shown(&merged_by(&rules, base, &[(BAD, bad), (GOOD, good)]));
    assert_eq!(by_key, (r#"{"items":[{"sku":"a","n":1},{"sku":"b","n":1},{"sku":"c","n":3}]}"#.into(), none()));
    let (text, conflicts) = merged(base, &[(BAD, bad), (GOOD, good)]);
    assert_eq!((text.as_str(), conflicts.len()), (good, 1));
    // When the keys no longer tell the elements apart, the array is one value.
    let odd = r#"{"items":[{"sku":"a"},{"sku":"a"}]}"#;
    assert_eq!(shown(&merged_by(&rules, base, &[(BAD, bad), (BAD, odd)])), (base.into(), none()));
}

#[test]
fn only_takes_back_what_it_names_and_says_what_was_larger() {
    let only = |path: &[&str]| MergeRules {
        only: vec![path.iter().map(|s| (*s).to_owned()).collect()],
        ..MergeRules::default()
    };
    let base = r#"{"a":1,"o":{"x":1,"y":1}}"#;
    let one = merged_by(&only(&["o", "x"]), base, &[(BAD, r#"{"a":2,"o":{"x":2,"y":2}}"#)]);
    assert_eq!(shown(&one).0, r#"{"a":2,"o":{"x":1,"y":2}}"#);
    let whole = merged_by(&only(&["o", "x"]), base, &[(BAD, r#"{"a":1,"o":5}"#)]);
    assert_eq!((shown(&whole).0.as_str(), whole.above[0].to_string().as_str()), (r#"{"a":1,"o":5}"#, "/o"));
    let gone = merged_by(&only(&["a"]), base, &[(BAD, "-")]);
    assert_eq!((gone.text, gone.above.len()), (None, 1));
}

/// The leaves of the generated documents.
const LEAVES: [&[&str]; 5] = [&["a"], &["b"], &["o", "x"], &["o", "y"], &["o", "p", "q"]];

fn document(leaves: &BTreeMap<usize, u8>) -> String {
    let mut document = json!({"id": "1", "o": {"p": {}}});
    for (leaf, value) in leaves {
        let pointer = LEAVES[*leaf].iter().rev().skip(1).rev().fold(String::new(), |p, s| p + "/" + s);
        document.pointer_mut(&pointer).unwrap()[*LEAVES[*leaf].last().unwrap()] = shape(*value);
    }
    document.to_string()
}

/// A value of one of the forms that are not searched for fields.
fn shape(value: u8) -> Value {
    match value {
        0 => json!({"$numberInt": "0"}),
        1 => json!({"$date": {"$numberLong": "1"}}),
        _ => json!([value]),
    }
}

fn leaf_of(document: &Value, leaf: usize) -> Option<u8> {
    let pointer = LEAVES[leaf].iter().fold(String::new(), |p, s| p + "/" + s);
    let value = document.pointer(&pointer)?;
    Some((0..4).find(|known| shape(*known) == *value).expect("it is no mixture"))
}

/// The expected fate of a leaf, derived from the log of its changes alone: the value, and whether it is in conflict.
fn fate(first: Option<u8>, log: &[(bool, Option<u8>)]) -> (Option<u8>, bool) {
    // The last value that did not come from a bad writer.
    let value = log.iter().rev().find(|(is_bad, _)| !is_bad).map_or(first, |(_, value)| *value);
    let mut base = None;
    let mut before = first;
    for (place, (is_bad, now)) in log.iter().enumerate() {
        if *is_bad {
            continue;
        }
        // The value just before, which a bad writer had set.
        let bad = log[..place].last().filter(|(is_bad, _)| *is_bad).map(|(_, value)| *value);
        if bad.is_some_and(|bad| bad != before) && *now != before {
            base.get_or_insert(before);
        }
        before = *now;
    }
    (value, base.is_some_and(|base| base != value))
}

/// A document with these members, at its top and in an object.
fn ordered(members: &[(char, usize)]) -> String {
    let inner: Vec<String> = members.iter().map(|(name, n)| format!("\"{name}\":{n}")).collect();
    let (inner, comma) = (inner.join(","), if members.is_empty() { "" } else { "," });
    format!("{{\"id\":\"1\",\"in\":{{{inner}}}{comma}{inner}}}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_several_writes_removed_comes_back_in_its_order(
        names in Just(Vec::from_iter('a'..='h')).prop_shuffle(),
        writes in proptest::collection::vec(proptest::collection::vec((0..8_usize, any::<bool>()), 1..4), 1..6),
    ) {
        let mut now: Vec<(char, usize)> = names.iter().map(|name| (*name, 0)).collect();
        let base = ordered(&now);
        let mut texts = Vec::new();
        for (number, write) in writes.iter().enumerate() {
            for (which, removes) in write {
                let name = names[*which];
                match now.iter().position(|(own, _)| *own == name) {
                    Some(at) if *removes => drop(now.remove(at)),
                    Some(at) => now[at].1 = number + 1,
                    None => {}
                }
            }
            texts.push(ordered(&now));
        }
        let life: Vec<_> = texts.iter().map(|text| (BAD, text.as_str())).collect();
        prop_assert_eq!(merged(&base, &life), (base.clone(), none()));
    }

    #[test]
    fn no_good_write_is_lost_no_bad_one_stays_and_every_conflict_is_said(
        first in proptest::collection::btree_map(0..LEAVES.len(), 0..4u8, 0..5),
        writes in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec((0..LEAVES.len(), proptest::option::weighted(0.8, 0..4u8)), 1..4)),
            1..14,
        ),
    ) {
        let mut now = first.clone();
        let mut log: Vec<Vec<(bool, Option<u8>)>> = vec![Vec::new(); LEAVES.len()];
        let mut texts = Vec::new();
        for (is_bad, write) in writes {
            let mut last = BTreeMap::new();
            write.into_iter().for_each(|(leaf, value)| { last.insert(leaf, value); });
            for (leaf, value) in last {
                if now.get(&leaf).copied() == value {
                    continue;
                }
                match value {
                    Some(value) => now.insert(leaf, value),
                    None => now.remove(&leaf),
                };
                log[leaf].push((is_bad, value));
            }
            texts.push((if is_bad { BAD } else { GOOD }, document(&now)));
        }
        let texts: Vec<_> = texts.iter().map(|(by, text)| (*by, Some(text.as_str()))).collect();
        let merged = merged_with(&MergeRules::default(), Some(&document(&first)), &texts);
        let result: Value = serde_json::from_str(merged.text.as_deref().unwrap()).unwrap();
        for (leaf, log) in log.iter().enumerate() {
            let (value, conflict) = fate(first.get(&leaf).copied(), log);
            prop_assert_eq!(leaf_of(&result, leaf), value, "{:?}: {:?}", LEAVES[leaf], log);
            let place = LEAVES[leaf].iter().fold(String::new(), |p, s| p + "/" + s);
            let said = merged.conflicts.iter().any(|c| c.place.to_string() == place);
            prop_assert_eq!(said, conflict, "{}: {:?}", place, log);
        }
    }
}

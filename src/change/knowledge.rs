//! The knowledge of a record about its version. When two records of one version meet, nothing that either knows is
//! lost.
//!
//! The same version may be captured by several ways: the all-versions feed knows what happened and what was before, the
//! latest-version feed does not; the host may have altered the text, a follower reads it as it is; a part of a document
//! is less than the whole. One function, [`completed`], decides, and every writer of records obeys it.

use serde_json::value::RawValue;

use super::{
    Via, edit,
    raw::RawDocument,
    record::{CHANGE, RecordFidelity, SYSTEM},
};

/// The knowledge of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Knowledge {
    text: RecordFidelity,
    /// The operation, if known.
    op: OpKnowledge,
    /// The time is the source's, not that of the capture.
    time: bool,
    lsn: bool,
    /// Which version came before, if any. MongoDB never says.
    previous: bool,
    /// The document's own key values, which older records do not have.
    key: bool,
    /// That id and partition key are certainly the document's.
    identity: bool,
    /// Whether its reader passed on every change, not only those that passed a filter. It belongs to what happened: a
    /// reader that only saw that the document was written says nothing about the feed of every version.
    unfiltered: bool,
}

/// How much is known of what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OpKnowledge {
    /// That it existed at some time.
    Baseline,
    /// That it was written.
    Upsert,
    /// A create, a replace, a delete or an expiry.
    Everything,
}

impl Knowledge {
    fn of(change: &RawDocument<'_>) -> Self {
        let op = change.get_str("op").unwrap_or_default();
        let text = match change.get_str("fidelity").as_deref() {
            Some("partial") => RecordFidelity::Partial,
            Some("absent") => RecordFidelity::Absent,
            Some("normalized") => RecordFidelity::Normalized,
            Some("lookup") => RecordFidelity::Lookup,
            _ => RecordFidelity::Exact,
        };
        Self {
            text,
            op: match &*op {
                "create" | "replace" | "update" | "delete" | "expire" => OpKnowledge::Everything,
                "upsert" => OpKnowledge::Upsert,
                _ => OpKnowledge::Baseline,
            },
            time: change.get("tsFrom").is_none(),
            lsn: change.get("lsn").is_some(),
            previous: op == "create" || change.get("prevLsn").is_some() || change.get("ns").is_some(),
            key: change.get("key").is_some(),
            identity: change.get("identity").is_none(),
            unfiltered: change.get_str("via").as_deref() != Some(Via::Filter.as_str()),
        }
    }

    /// The operation, and whether its reader passed on every change of that feed.
    fn feed(self) -> (OpKnowledge, bool) {
        (self.op, self.unfiltered)
    }

    fn is_everything(self) -> bool {
        self.text == RecordFidelity::Exact
            && self.op == OpKnowledge::Everything
            && self.time
            && self.lsn
            && self.previous
            && self.identity
            && self.unfiltered
    }
}

/// The exact text of a whole document is worth the most, a part of one little, and no text the least.
pub fn worth(text: RecordFidelity) -> u8 {
    match text {
        RecordFidelity::Absent => 0,
        RecordFidelity::Partial => 1,
        RecordFidelity::Normalized => 2,
        RecordFidelity::Lookup => 3,
        RecordFidelity::Exact => 4,
    }
}

/// Whether no other record of its version can know more, so that it may replace any of them.
pub fn is_everything(record: &str) -> bool {
    RawDocument::parse(record)
        .ok()
        .and_then(|record| Some(Knowledge::of(&change_of(&record)?).is_everything()))
        .unwrap_or(false)
}

/// Why two records cannot be combined.
#[derive(Debug, thiserror::Error)]
pub enum CompleteError {
    /// One of them is not a JSON object.
    #[error("a record is not a JSON object")]
    Json(#[from] serde_json::Error),
    /// The stored item is not a record.
    #[error("the stored item has no _change")]
    Stored,
    /// The new item is not a record.
    #[error("the record has no _change")]
    New,
    /// A member cannot be set or removed; the reason.
    #[error("{0}")]
    Edit(String),
}

/// Combines two records of one version, `stored` and `new`; `None` when the stored one needs no change. The better text
/// stays, together with whatever the other record knows beyond it.
///
/// # Errors
/// When one of them is not a record.
pub fn completed(stored: &str, new: &str) -> Result<Option<String>, CompleteError> {
    let (old, other) = (RawDocument::parse(stored)?, RawDocument::parse(new)?);
    let (old_change, new_change) =
        (change_of(&old).ok_or(CompleteError::Stored)?, change_of(&other).ok_or(CompleteError::New)?);
    let (knows, adds) = (Knowledge::of(&old_change), Knowledge::of(&new_change));
    let better = worth(adds.text) > worth(knows.text);
    let more = |what: fn(Knowledge) -> bool| what(adds) && !what(knows);
    let facts: [fn(Knowledge) -> bool; 5] = [|k| k.time, |k| k.lsn, |k| k.previous, |k| k.key, |k| k.identity];
    if !better && adds.feed() <= knows.feed() && !facts.into_iter().any(more) {
        return Ok(None);
    }
    let (mut text, base, mine, rest, theirs) = if better {
        (new.to_owned(), new_change, adds, old_change, knows)
    } else {
        // As it was written, without what the service has added to it.
        let own = |text: String, name: &str| edit::remove(&text, &[name.to_owned()]);
        let text =
            SYSTEM.iter().try_fold(stored.to_owned(), |text, name| own(text, name)).map_err(CompleteError::Edit)?;
        (text, old_change, knows, new_change, adds)
    };
    let member = |name: &str| [CHANGE.to_owned(), name.to_owned()];
    let mut take = |name: &str, from: Option<&RawValue>| {
        let edited = match from {
            Some(value) => edit::set(&text, &member(name), value.get()),
            None if base.get(name).is_some() => edit::remove(&text, &member(name)),
            None => return Ok(()),
        };
        text = edited.map_err(CompleteError::Edit)?;
        Ok::<_, CompleteError>(())
    };
    if theirs.op > mine.op {
        take("op", rest.get("op"))?;
    }
    if theirs.feed() > mine.feed() && theirs.unfiltered != mine.unfiltered {
        take("via", rest.get("via"))?;
    }
    if theirs.time && !mine.time {
        take("ts", rest.get("ts"))?;
        take("tsFrom", None)?;
    }
    for (name, missing) in [
        ("lsn", theirs.lsn && !mine.lsn),
        ("prevLsn", theirs.previous && !mine.previous),
        ("key", theirs.key && !mine.key),
    ] {
        if missing && rest.get(name).is_some() {
            take(name, rest.get(name))?;
        }
    }
    if theirs.identity && !mine.identity {
        take("identity", None)?;
    }
    Ok((text != stored).then_some(text))
}

fn change_of<'a>(record: &RawDocument<'a>) -> Option<RawDocument<'a>> {
    RawDocument::parse(record.get(CHANGE)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn record(text: &str, change: Value) -> String {
        json!({"id": "x~1", "pk": "p", "text": text, "_originalId": "x", "_change": change}).to_string()
    }

    fn change(more: Value) -> Value {
        let mut change =
            json!({"v": 1, "op": "upsert", "ts": 5, "lsn": 7, "etag": "\"1\"", "via": "trigger", "fidelity": "exact"});
        change.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        change
    }

    fn after(stored: &str, new: &str) -> Option<Value> {
        completed(stored, new).unwrap().map(|text| serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn an_upsert_never_takes_the_place_of_what_happened() {
        let known = record("a", change(json!({"op": "replace", "prevLsn": 3})));
        let less = record("a", change(json!({"via": "follow"})));
        assert_eq!(after(&known, &less), None);
        let now = after(&less, &known).unwrap();
        assert_eq!((&now["_change"]["op"], &now["_change"]["prevLsn"]), (&json!("replace"), &json!(3)));
        assert!(is_everything(&known) && !is_everything(&less));
        assert!(is_everything(&record("a", change(json!({"op": "create"})))));
    }

    #[test]
    fn what_came_through_a_filter_gives_way_to_a_reader_of_every_change() {
        let whole = json!({"op": "replace", "prevLsn": 3, "key": ["p"]});
        let every = record("a", change(whole.clone()));
        let mut filtered = whole;
        filtered["via"] = "filter".into();
        let filtered = record("a", change(filtered));
        assert!(is_everything(&every) && !is_everything(&filtered));
        assert_eq!(after(&every, &filtered), None);
        assert_eq!(after(&filtered, &every).unwrap()["_change"]["via"], "trigger");
    }

    #[test]
    fn what_a_filter_told_of_a_version_is_not_taken_for_a_feed_of_every_version() {
        let latest = record("a", change(json!({})));
        let filtered = record("a", change(json!({"op": "replace", "prevLsn": 3, "via": "filter"})));
        let every = record("a", change(json!({"op": "replace", "prevLsn": 3, "via": "follow"})));
        for (stored, new) in [(&latest, &filtered), (&filtered, &latest)] {
            let both = after(stored, new).unwrap_or_else(|| serde_json::from_str(stored).unwrap());
            assert_eq!((&both["_change"]["op"], &both["_change"]["via"]), (&json!("replace"), &json!("filter")));
            assert_eq!(after(&both.to_string(), &latest), None);
            assert_eq!(after(&both.to_string(), &every).unwrap()["_change"]["via"], "follow");
        }
        assert_eq!(after(&every, &filtered), None);
        assert_eq!(after(&latest, &every).unwrap()["_change"]["via"], "trigger");
    }

    #[test]
    fn two_that_know_something_each_become_one_that_knows_both() {
        let known = json!({"op": "replace", "prevLsn": 3, "fidelity": "normalized", "key": ["p"]});
        let altered = record("altered", change(known));
        let exact = record("exact", change(json!({"via": "follow"})));
        let stored = format!("{},\"_rid\":\"r\",\"_etag\":\"\\\"s\\\"\",\"_ts\":9}}", &altered[..altered.len() - 1]);
        for (stored, new) in [(&altered, &exact), (&exact, &altered), (&stored, &exact), (&exact, &stored)] {
            let now = after(stored, new).unwrap();
            assert_eq!((&now["text"], &now["_change"]["key"]), (&json!("exact"), &json!(["p"])));
            let change = &now["_change"];
            assert_eq!(
                (&change["op"], &change["prevLsn"], &change["fidelity"]),
                (&json!("replace"), &json!(3), &json!("exact"))
            );
        }
        let now = after(&stored, &record("x", change(json!({"op": "create", "fidelity": "partial"}))));
        assert_eq!(now, None, "nothing that it does not know");
    }

    #[test]
    fn a_time_of_capture_and_a_doubt_about_the_identity_give_way() {
        let doubtful =
            record("a", change(json!({"op": "create", "tsFrom": "capture", "ts": 99, "identity": "unsure"})));
        let now = after(&doubtful, &record("a", change(json!({"via": "follow"})))).unwrap();
        let change = &now["_change"];
        assert_eq!((&change["ts"], &change["op"]), (&json!(5), &json!("create")));
        assert!(change.get("tsFrom").is_none() && change.get("identity").is_none(), "{now}");
    }

    #[test]
    fn what_is_no_record_is_left_alone() {
        let own = record("a", change(json!({})));
        for other in ["", "[]", "{}", r#"{"_change":7}"#] {
            assert!(completed(other, &own).is_err() && completed(&own, other).is_err(), "{other}");
            assert!(!is_everything(other));
        }
    }

    fn any_record() -> impl Strategy<Value = String> {
        (
            prop_oneof![Just("exact"), Just("normalized"), Just("partial")],
            prop_oneof![Just("upsert"), Just("baseline"), Just("replace")],
            any::<[bool; 5]>(),
        )
            .prop_map(|(fidelity, op, [lsn, previous, time, identity, filtered])| {
                let mut change = json!({"v": 1, "op": op, "ts": 5, "fidelity": fidelity});
                for (name, value, there) in [
                    ("lsn", json!(7), lsn),
                    ("prevLsn", json!(3), previous),
                    ("tsFrom", json!("capture"), !time),
                    ("identity", json!("unsure"), !identity),
                    ("via", json!(if filtered { "filter" } else { "follow" }), true),
                ] {
                    if there {
                        change[name] = value;
                    }
                }
                record(fidelity, change)
            })
    }

    proptest! {
        /// In any order and however often, three deliveries end with what all of them know, and nothing is forgotten on
        /// the way.
        #[test]
        fn nothing_is_unlearnt(records in proptest::collection::vec(any_record(), 1..5)) {
            let knows = |text: &str| {
                let record = RawDocument::parse(text).unwrap();
                let k = Knowledge::of(&change_of(&record).unwrap());
                let feed = 2 * k.op as u8 + u8::from(k.unfiltered);
                [worth(k.text), feed, k.time.into(), k.lsn.into(), k.previous.into(), k.identity.into()]
            };
            let mut stored = records[0].clone();
            for new in &records {
                let now = completed(&stored, new).unwrap().unwrap_or_else(|| stored.clone());
                for (i, known) in knows(&now).into_iter().enumerate() {
                    prop_assert_eq!(known, knows(&stored)[i].max(knows(new)[i]), "{} {} {}", stored, new, now);
                }
                let parsed: Value = serde_json::from_str(&now).unwrap();
                prop_assert_eq!(&parsed["text"], &parsed["_change"]["fidelity"], "a text under another one's fidelity");
                stored = now;
            }
        }
    }
}

//! Tries what capture does with the history, on items of its own: write, read, replace, pack, delete.

use std::time::Instant;

use futures::StreamExt as _;
use serde_json::{Map, Value, json};

#[cfg(test)]
use super::Verdict;
use super::{CheckResult, account::of_failure};
use crate::{
    change::{key::PartitionKey, record::ORIGINAL_ID},
    clock::{Clock as _, SystemClock},
    cosmos::{
        Container, Disposition, Failure,
        bulk::{Operation, Verb},
    },
};

/// The check of the clock.
const CLOCK: &str = "clock";
/// Differences between this clock and the service's, in seconds: what is reported, and what is too much.
const SKEW: (i64, i64) = (5, 300);

/// Writes an item, reads it, replaces it on the condition of its etag, and deletes it. Its `_ts` tells the service's
/// time.
pub(super) async fn writable(changes: &Container, who: &str, findings: &mut Vec<CheckResult>) {
    let (key, mut body) = scratch(changes);
    let id = body.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |body: &Map<String, Value>| Value::Object(body.clone()).to_string().into_bytes();
    let check = |what: &str| format!("changes{who}: {what}");

    let (before, sent) = (SystemClock.now().timestamp(), Instant::now());
    let created = changes.upsert(&key, &id, text(&body)).await;
    let middle = before + (sent.elapsed() / 2).as_secs() as i64;
    if let Err(failure) = created {
        findings.push(of_failure(check("write"), &failure));
        findings.push(CheckResult::warning(CLOCK, "not looked at: nothing could be written", "see the line before"));
        return;
    }
    findings.push(CheckResult::ok(check("write"), "allowed"));

    let mut etag = None;
    match changes.read(&key, &id).await {
        Ok(stored) => {
            let stored: Value = stored.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            etag = stored["_etag"].as_str().map(str::to_owned);
            findings.push(CheckResult::ok(check("read"), "allowed"));
            // One clock, however many histories there are.
            if !findings.iter().any(|finding| finding.check == CLOCK) {
                findings.push(clock(stored["_ts"].as_i64(), middle));
            }
        }
        Err(failure) => findings.push(of_failure(check("read"), &failure)),
    }
    if let Some(etag) = etag {
        body.insert("n".into(), 2.into());
        let replaced = changes.replace(&key, &id, text(&body), &etag).await;
        // The etag is out of date now: a second replace must be refused, or restores would overwrite what they have not
        // seen.
        let again = changes.replace(&key, &id, text(&body), &etag).await;
        findings.push(match (replaced, again) {
            (Ok(_), Err(f)) if f.disposition == Disposition::PreconditionFailed => {
                CheckResult::ok(check("guarded write"), "allowed, and refused with an old etag")
            }
            (Ok(_), Ok(_)) => CheckResult::failure(
                check("guarded write"),
                "an old etag was accepted",
                "something between here and the service drops If-Match; do not restore through it",
            ),
            (Err(failure), _) | (Ok(_), Err(failure)) => of_failure(check("guarded write"), &failure),
        });
    }
    findings.push(packed(changes, check("packed writes"), &key, &id, &body).await);
    match changes.delete(&key, &id, None).await {
        Ok(_) => findings.push(CheckResult::ok(check("delete"), "allowed; the scratch item is gone")),
        Err(failure) => findings.push(CheckResult::warning(
            check("delete"),
            format!("the scratch item {id} stays: {failure}"),
            "capture needs no deletes, prune and erase do; no command takes that item for a version, and it may stay",
        )),
    }
}

/// Writes two items in one bulk request, which shows how capture will write.
async fn packed(
    changes: &Container,
    check: String,
    key: &PartitionKey,
    id: &str,
    body: &Map<String, Value>,
) -> CheckResult {
    if !changes.packs() {
        return CheckResult::ok(check, "off (REWIND_BULK): each record is a request of its own");
    }
    let second = format!("{id}~2");
    let mut other = body.clone();
    other.insert("id".into(), second.as_str().into());
    let texts = [body, &other].map(|body| Value::Object(body.clone()).to_string().into_bytes());
    let write = |id, n: usize| Operation::on(key, id, Verb::Upsert(texts[n].as_slice().into()));
    let run = async |operations| {
        let outcomes: Vec<_> = changes.run_many(operations, None).collect().await;
        outcomes.into_iter().flatten().find_map(|(_, outcome)| outcome.err())
    };
    let failed: Option<Failure> = run(vec![write(id, 0), write(&second, 1)]).await;
    let left = run(vec![Operation::on(key, &second, Verb::Delete(None))]).await;
    match (failed, changes.bulk_refusal(), left) {
        (Some(failure), ..) => of_failure(check, &failure),
        (None, Some(refusal), _) => CheckResult::warning(
            check,
            format!("the account does not take bulk requests ({refusal})"),
            "capture goes on with a request for each record, which is slower; REWIND_BULK=off says it without a try",
        ),
        (None, None, Some(failure)) => CheckResult::warning(
            check,
            format!("taken; the scratch item {second} stays: {failure}"),
            "no command takes that item for a version, and it may stay",
        ),
        (None, None, None) => CheckResult::ok(check, "taken: capture packs records of different keys into one request"),
    }
}

/// The service's clock compared with this one; `_ts` has whole seconds.
fn clock(ts: Option<i64>, local: i64) -> CheckResult {
    let Some(ts) = ts else {
        return CheckResult::warning(CLOCK, "the written item has no _ts", "report it: the service always sets one");
    };
    let skew = local - ts;
    let found = match skew {
        0 | 1 => "as the service's".to_owned(),
        skew if skew > 0 => format!("{skew} s ahead of the service's"),
        skew => format!("{} s behind the service's", -skew),
    };
    let advice =
        "set this machine's clock: times like --at 15m are counted from it, and beyond 15 minutes the service refuses";
    match skew.abs() {
        skew if skew > SKEW.1 => CheckResult::failure(CLOCK, found, advice),
        skew if skew > SKEW.0 => CheckResult::warning(CLOCK, found, advice),
        _ => CheckResult::ok(CLOCK, found),
    }
}

/// An item in a partition of its own, whatever the container's key is. `_restore` keeps it out of every history.
pub(super) fn scratch(container: &Container) -> (PartitionKey, Map<String, Value>) {
    let id = scratch_id();
    let mut body = Map::new();
    body.insert("id".into(), json!(id));
    body.insert(ORIGINAL_ID.into(), json!(id));
    body.insert("_restore".into(), json!({"kind": "doctor"}));
    body.insert("n".into(), json!(1));
    for path in container.key_paths().segments() {
        set(&mut body, path, &id);
    }
    let parts = container.key_paths().segments().iter().map(|_| crate::change::key::KeyValue::String(id.clone()));
    (PartitionKey(parts.collect()), body)
}

pub(super) fn scratch_id() -> String {
    format!("cosmos-rewind-doctor~{:016x}", rand::random::<u64>())
}

fn set(object: &mut Map<String, Value>, path: &[String], value: &str) {
    match path {
        [] => {}
        [name] => drop(object.insert(name.clone(), value.into())),
        [name, rest @ ..] => {
            let inner = object.entry(name.clone()).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                set(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_judged_by_seconds() {
        for (ts, verdict) in [(100, Verdict::Ok), (104, Verdict::Ok), (93, Verdict::Warning), (1000, Verdict::Failure)]
        {
            assert_eq!(clock(Some(ts), 100).verdict, verdict, "{ts}");
        }
        assert_eq!(clock(Some(90), 100).found, "10 s ahead of the service's");
        assert_eq!(clock(Some(110), 100).found, "10 s behind the service's");
        assert_eq!(clock(None, 100).verdict, Verdict::Warning);
    }

    #[test]
    fn a_scratch_item_fits_nested_paths() {
        let mut body = Map::new();
        set(&mut body, &["a".into(), "b".into()], "x");
        set(&mut body, &["a".into(), "c".into()], "x");
        assert_eq!(Value::Object(body), json!({"a": {"b": "x", "c": "x"}}));
    }
}

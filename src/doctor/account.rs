//! The account: whether it answers, what the containers are, and whether the caller may do what capture does. What is
//! tried is one item in a place of its own in the history, written, read, replaced and deleted.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use azure_data_cosmos::models::ContainerProperties;
use serde_json::{Map, Value, json};

use super::{Finding, Understood, Verdict};
use crate::{
    change::{key::PartitionKey, record::ORIGINAL_ID},
    clock::{Clock as _, SystemClock},
    config::{Account, CaptureConfig, DeadLetterLocation, Names},
    cosmos::{
        Container, Cosmos, Disposition, Failure, RuLimiter,
        provision::{self, Difference, Severity},
    },
    dead_letters::{DeadLetter, DeadLetterStore},
    frontier,
    history::CosmosContainers,
    history::frontier::{Evidence, Part},
};

/// How long the first answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// The check of the clock.
const CLOCK: &str = "clock";
/// Seconds between this clock and the service's that are told, and that are too many.
const SKEW: (i64, i64) = (5, 300);

/// Looks at the account and the dead-letter store, as far as the settings are understood.
pub(super) async fn check_account(understood: &Understood, findings: &mut Vec<Finding>) {
    let Some(account) = &understood.account else {
        findings.push(Finding::warning(
            "account",
            "not looked at: its settings are wrong",
            "correct them, and run it again",
        ));
        return;
    };
    if let Some(capture) = &understood.capture {
        dead_letters(capture, account, findings).await;
    }
    let cosmos = Cosmos::new(account.clone());
    let mut seen = BTreeSet::new();
    for (function, names) in &understood.names {
        // Several functions usually share all but the source.
        if !seen.insert([&names.database, &names.source, &names.changes, &names.leases].map(String::clone)) {
            continue;
        }
        let who = function.as_deref().map_or_else(String::new, |name| format!(" of {name}"));
        if seen.len() == 1 && !answers(&cosmos, names, findings).await {
            return;
        }
        containers(&cosmos, names, &who, findings).await;
    }
}

/// Whether the account answers at all; without that, every further check would wait in vain.
async fn answers(cosmos: &Cosmos, names: &Names, findings: &mut Vec<Finding>) -> bool {
    const CHECK: &str = "account";
    let asked = provision::read_container(cosmos, &names.database, &names.source);
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => {
            findings.push(Finding::ok(CHECK, format!("{} answers", cosmos.endpoint())));
            true
        }
        Ok(Err(failure)) if failure.disposition == Disposition::Denied => {
            findings.push(Finding::failure(
                CHECK,
                format!("{} refuses: {failure}", cosmos.endpoint()),
                "check the key, or the identity's role (Cosmos DB Built-in Data Contributor on the database), and this machine's clock",
            ));
            false
        }
        Ok(Err(failure)) => {
            findings.push(Finding::failure(
                CHECK,
                format!("{} does not answer: {failure}", cosmos.endpoint()),
                "check the endpoint, the firewall and the network of the account; the containers were not looked at",
            ));
            false
        }
        Err(_) => {
            findings.push(Finding::failure(
                CHECK,
                format!("{} has not answered for {} s", cosmos.endpoint(), PATIENCE.as_secs()),
                "check the endpoint, the firewall and the network of the account; the containers were not looked at",
            ));
            false
        }
    }
}

async fn containers(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<Finding>) {
    let definition = async |role: &str, name: &str, findings: &mut Vec<Finding>| -> Option<ContainerProperties> {
        let check = format!("{role}{who}");
        match provision::read_container(cosmos, &names.database, name).await {
            Ok(Some(found)) => Some(found),
            Ok(None) => {
                findings.push(Finding::failure(
                    check,
                    format!("there is no container {}/{name}", names.database),
                    format!("run `cosmos-rewind provision --{role} {name}`, or correct the setting"),
                ));
                None
            }
            Err(failure) => {
                findings.push(of_failure(check, &failure));
                None
            }
        }
    };
    let source = definition("source", &names.source, findings).await;
    let changes = definition("changes", &names.changes, findings).await;
    let leases = definition("leases", &names.leases, findings).await;

    let paths = |found: &ContainerProperties| -> Vec<String> {
        found.partition_key.paths().iter().map(ToString::to_string).collect()
    };
    if let Some(source) = &source {
        findings.push(Finding::ok(
            format!("source{who}"),
            format!("{}/{}, keyed by {}", names.database, names.source, paths(source).join(", ")),
        ));
        readable(cosmos, names, who, findings).await;
    }
    if let Some((source, changes)) = source.as_ref().zip(changes.as_ref()) {
        let differs = provision::compare_changes(changes, &paths(source), &[]);
        compared("changes", &names.changes, names, who, differs, &paths(changes), findings);
    }
    if let Some(leases) = &leases {
        compared("leases", &names.leases, names, who, provision::compare_leases(leases), &paths(leases), findings);
    }
    if source.is_some() && changes.is_some() && leases.is_some() {
        delivered(cosmos, names, who, findings).await;
    }
    if changes.is_some() {
        match cosmos.container(&names.database, &names.changes).await {
            Ok(container) => writable(&container, who, findings).await,
            Err(failure) => findings.push(of_failure(format!("changes{who}: write"), &failure)),
        }
    }
}

fn compared(
    role: &str,
    name: &str,
    names: &Names,
    who: &str,
    differs: Vec<Difference>,
    paths: &[String],
    findings: &mut Vec<Finding>,
) {
    let check = format!("{role}{who}");
    let place = format!("{}/{name}", names.database);
    if differs.iter().all(|d| d.severity == Severity::Note) {
        let notes: String = differs.iter().map(|d| format!("; {}", d.what)).collect();
        findings.push(Finding::ok(check.clone(), format!("{place}, keyed by {}{notes}", paths.join(", "))));
    }
    for difference in differs {
        let (verdict, advice) = match difference.severity {
            Severity::Note => continue,
            Severity::Warning => {
                (Verdict::Warning, "set the container's default TTL to on, without a default (-1), or off".to_owned())
            }
            Severity::Unusable => {
                (Verdict::Failure, format!("name another one with --{role}, and `cosmos-rewind provision` makes it"))
            }
        };
        findings.push(Finding::new(verdict, check.clone(), format!("{place}: {}", difference.what), advice));
    }
}

/// How long a change may wait before capture counts as standing still, seconds.
const STALLED: i64 = 300;

/// Whether capture stands still although the feed has more: only the lag shows that a document is never delivered.
async fn delivered(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<Finding>) {
    let check = format!("leases{who}: delivery");
    let read = async {
        let containers = CosmosContainers::open(cosmos, names).await?;
        frontier::read(cosmos, names, &containers, None, &RuLimiter::new(cosmos.meter(), None)).await
    };
    let found = match read.await {
        Ok(found) => found,
        Err(failure) => return findings.push(of_failure(check, &failure)),
    };
    let is_read = |part: &Part| matches!(part.evidence, Evidence::Reader(_));
    if !found.parts.iter().any(is_read) {
        return findings.push(Finding::ok(check, "no lease and no follower has begun"));
    }
    let now = cosmos.now().await.timestamp();
    let stalled = frontier::stalled(&found, now, STALLED);
    if stalled.is_empty() {
        return findings.push(Finding::ok(check, "nothing waits for long"));
    }
    for problem in stalled {
        findings.push(Finding::failure(
            check.clone(),
            problem,
            "`cosmos-rewind status` shows the lag of each feed range",
        ));
    }
}

/// A document that cannot be there is read: refused, or not found.
async fn readable(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<Finding>) {
    let check = format!("source{who}: read");
    let read = async {
        let source = cosmos.container(&names.database, &names.source).await?;
        let (key, body) = scratch(&source);
        source.read(&key, body["id"].as_str().unwrap_or_default()).await
    };
    match read.await {
        Ok(_) => findings.push(Finding::ok(check, "allowed")),
        Err(failure) => findings.push(of_failure(check, &failure)),
    }
}

/// Writes an item, reads it, replaces it while it has its etag, and deletes it. Its `_ts` tells the service's time.
async fn writable(changes: &Container, who: &str, findings: &mut Vec<Finding>) {
    let (key, mut body) = scratch(changes);
    let id = body.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
    let text = |body: &Map<String, Value>| Value::Object(body.clone()).to_string().into_bytes();
    let check = |what: &str| format!("changes{who}: {what}");

    let (before, sent) = (SystemClock.now().timestamp(), Instant::now());
    let created = changes.upsert(&key, &id, text(&body)).await;
    let middle = before + (sent.elapsed() / 2).as_secs() as i64;
    if let Err(failure) = created {
        findings.push(of_failure(check("write"), &failure));
        findings.push(Finding::warning(CLOCK, "not looked at: nothing could be written", "see the line before"));
        return;
    }
    findings.push(Finding::ok(check("write"), "allowed"));

    let mut etag = None;
    match changes.read(&key, &id).await {
        Ok(stored) => {
            let stored: Value = stored.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
            etag = stored["_etag"].as_str().map(str::to_owned);
            findings.push(Finding::ok(check("read"), "allowed"));
            // One clock, however many histories.
            if !findings.iter().any(|finding| finding.check == CLOCK) {
                findings.push(clock(stored["_ts"].as_i64(), middle));
            }
        }
        Err(failure) => findings.push(of_failure(check("read"), &failure)),
    }
    if let Some(etag) = etag {
        body.insert("n".into(), 2.into());
        let replaced = changes.replace(&key, &id, text(&body), &etag).await;
        // The etag is out of date now: a second time must be refused, or restores would overwrite what they have not seen.
        let again = changes.replace(&key, &id, text(&body), &etag).await;
        findings.push(match (replaced, again) {
            (Ok(_), Err(f)) if f.disposition == Disposition::PreconditionFailed => {
                Finding::ok(check("guarded write"), "allowed, and refused with an old etag")
            }
            (Ok(_), Ok(_)) => Finding::failure(
                check("guarded write"),
                "an old etag was accepted",
                "something between here and the service drops If-Match; do not restore through it",
            ),
            (Err(failure), _) | (Ok(_), Err(failure)) => of_failure(check("guarded write"), &failure),
        });
    }
    match changes.delete(&key, &id, None).await {
        Ok(_) => findings.push(Finding::ok(check("delete"), "allowed; the scratch item is gone")),
        Err(failure) => findings.push(Finding::warning(
            check("delete"),
            format!("the scratch item {id} stays: {failure}"),
            "capture needs no deletes, prune and erase do; no command takes that item for a version, and it may stay",
        )),
    }
}

/// The service's clock against this one; `_ts` has whole seconds.
fn clock(ts: Option<i64>, local: i64) -> Finding {
    let Some(ts) = ts else {
        return Finding::warning(CLOCK, "the written item has no _ts", "report it: the service always sets one");
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
        skew if skew > SKEW.1 => Finding::failure(CLOCK, found, advice),
        skew if skew > SKEW.0 => Finding::warning(CLOCK, found, advice),
        _ => Finding::ok(CLOCK, found),
    }
}

/// An item in a place of its own, for whatever key the container has. `_restore` keeps it out of every history.
fn scratch(container: &Container) -> (PartitionKey, Map<String, Value>) {
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

fn scratch_id() -> String {
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

fn of_failure(check: String, failure: &Failure) -> Finding {
    Finding::failure(check, failure.to_string(), failure.hint().unwrap_or("correct it, and run it again"))
}

/// Puts a letter away and takes it back.
async fn dead_letters(config: &CaptureConfig, account: &Account, findings: &mut Vec<Finding>) {
    let check = format!("dead letters in {}", config.dead_letters);
    let letter = DeadLetter {
        v: 1,
        at: SystemClock.stamp(),
        function: "doctor".into(),
        invocation: "-".into(),
        id: None,
        status: "-".into(),
        reason: "written by doctor, which was ended before it could remove it; remove it".into(),
        partial: None,
        item: serde_json::value::to_raw_value(&scratch_id()).unwrap_or_default(),
    };
    // What was not there before is not left behind.
    let made = match &config.dead_letters {
        DeadLetterLocation::Directory(path) => Some(path).filter(|path| !path.exists()),
        DeadLetterLocation::Blob(_) => None,
    };
    let tried = async {
        let store = DeadLetterStore::open(&config.dead_letters, &account.credential)?;
        store.put(&letter).await?;
        store.delete(&letter.name()).await
    };
    let tried = tried.await;
    if let Some(made) = made {
        let _ = std::fs::remove_dir(made);
    }
    findings.push(match tried {
        Ok(()) => Finding::ok(check, "can be written and removed"),
        Err(e) => Finding::failure(
            check,
            e.to_string(),
            "check REWIND_DEAD_LETTERS: the directory must be writable, the blob container must exist and allow writes and deletes",
        ),
    });
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

//! Checks the account: whether it answers, what its containers are, and whether the caller may do what capture does.
//! The trials that write are in writing.rs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use azure_data_cosmos::models::ContainerProperties;

use super::{
    CheckResult, Understood, Verdict,
    files::Declared,
    leases::check_mode,
    writing::{scratch, scratch_id, writable},
};
use crate::{
    causes::chain,
    clock::{Clock as _, SystemClock},
    config::{AccountSettings, CaptureConfig, DeadLetterLocation, Names},
    cosmos::{
        Cosmos, Disposition, Failure, RuLimiter,
        provision::{self, DefinitionDifference, Severity},
    },
    dead_letters::{DeadLetter, DeadLetterStore},
    frontier,
    history::CosmosContainers,
    history::frontier::{Evidence, Part},
};

/// How long the first answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Checks the account and the dead-letter store, as far as the settings could be parsed.
pub(super) async fn check_account(
    understood: &Understood,
    declared: &BTreeMap<String, Declared>,
    findings: &mut Vec<CheckResult>,
) {
    let Some(account) = &understood.account else {
        findings.push(CheckResult::warning(
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
        // Several functions usually share everything but the source.
        if !seen.insert([&names.database, &names.source, &names.changes, &names.leases].map(String::clone)) {
            continue;
        }
        let who = function.as_deref().map_or_else(String::new, |name| format!(" of {name}"));
        if seen.len() == 1 && !answers(&cosmos, names, findings).await {
            return;
        }
        containers(&cosmos, names, &who, findings).await;
    }
    for (function, names) in &understood.names {
        check_mode(&cosmos, names, function.as_deref(), declared, findings).await;
    }
}

/// Whether the account answers at all; if it does not, every further check would wait in vain.
async fn answers(cosmos: &Cosmos, names: &Names, findings: &mut Vec<CheckResult>) -> bool {
    const CHECK: &str = "account";
    let asked = provision::read_container(cosmos, &names.database, &names.source);
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(_)) => {
            findings.push(CheckResult::ok(CHECK, format!("{} answers", cosmos.endpoint())));
            true
        }
        Ok(Err(failure)) if failure.disposition == Disposition::Denied => {
            findings.push(CheckResult::failure(
                CHECK,
                format!("{} refuses: {failure}", cosmos.endpoint()),
                "check the key, or the identity's role (Cosmos DB Built-in Data Contributor on the database), and this machine's clock",
            ));
            false
        }
        Ok(Err(failure)) => {
            findings.push(CheckResult::failure(
                CHECK,
                format!("{} does not answer: {failure}", cosmos.endpoint()),
                "check the endpoint, the firewall and the network of the account; the containers were not looked at",
            ));
            false
        }
        Err(_) => {
            findings.push(CheckResult::failure(
                CHECK,
                format!("{} has not answered for {} s", cosmos.endpoint(), ANSWER_TIMEOUT.as_secs()),
                "check the endpoint, the firewall and the network of the account; the containers were not looked at",
            ));
            false
        }
    }
}

async fn containers(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<CheckResult>) {
    let definition = async |role: &str, name: &str, findings: &mut Vec<CheckResult>| -> Option<ContainerProperties> {
        let check = format!("{role}{who}");
        match provision::read_container(cosmos, &names.database, name).await {
            Ok(Some(found)) => Some(found),
            Ok(None) => {
                findings.push(CheckResult::failure(
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
        findings.push(CheckResult::ok(
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
    differs: Vec<DefinitionDifference>,
    paths: &[String],
    findings: &mut Vec<CheckResult>,
) {
    let check = format!("{role}{who}");
    let place = format!("{}/{name}", names.database);
    if differs.iter().all(|d| d.severity == Severity::Note) {
        let notes: String = differs.iter().map(|d| format!("; {}", d.what)).collect();
        findings.push(CheckResult::ok(check.clone(), format!("{place}, keyed by {}{notes}", paths.join(", "))));
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
        findings.push(CheckResult::new(verdict, check.clone(), format!("{place}: {}", difference.what), advice));
    }
}

/// How long a change may wait before capture counts as standing still, seconds.
const STALLED: i64 = 300;

/// Whether capture stands still although the feed has more: only the lag reveals that a document is never delivered.
async fn delivered(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<CheckResult>) {
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
        return findings.push(CheckResult::ok(check, "no lease and no follower has begun"));
    }
    let now = cosmos.now().await.timestamp();
    let stalled = frontier::stalled(&found, now, STALLED);
    if stalled.is_empty() {
        return findings.push(CheckResult::ok(check, "nothing waits for long"));
    }
    for problem in stalled {
        findings.push(CheckResult::failure(
            check.clone(),
            problem,
            "`cosmos-rewind status` shows the lag of each feed range",
        ));
    }
}

/// Reads a document that cannot exist: the answer is a refusal, or "not found".
async fn readable(cosmos: &Cosmos, names: &Names, who: &str, findings: &mut Vec<CheckResult>) {
    let check = format!("source{who}: read");
    let read = async {
        let source = cosmos.container(&names.database, &names.source).await?;
        let (key, body) = scratch(&source);
        source.read(&key, body["id"].as_str().unwrap_or_default()).await
    };
    match read.await {
        Ok(_) => findings.push(CheckResult::ok(check, "allowed")),
        Err(failure) => findings.push(of_failure(check, &failure)),
    }
}

pub(super) fn of_failure(check: String, failure: &Failure) -> CheckResult {
    CheckResult::failure(check, failure.to_string(), failure.hint().unwrap_or("correct it, and run it again"))
}

/// Puts a letter away and removes it again.
async fn dead_letters(config: &CaptureConfig, account: &AccountSettings, findings: &mut Vec<CheckResult>) {
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
        delivery: None,
        source: None,
        via: None,
        item: serde_json::value::to_raw_value(&scratch_id()).unwrap_or_default(),
    };
    // What did not exist before is not left behind.
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
        Ok(()) => CheckResult::ok(check, "can be written and removed"),
        Err(e) => CheckResult::failure(
            check,
            chain(&e),
            "check REWIND_DEAD_LETTERS: the directory must be writable, the blob container must exist and allow writes and deletes",
        ),
    });
}

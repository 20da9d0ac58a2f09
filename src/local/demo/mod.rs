//! The whole product on this machine: an account, the handler under the trigger, documents, and the proof that every
//! version of every document is in the history exactly once and in order. Then a short incident with its own proofs.

mod incident;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chrono::DateTime;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

pub use self::incident::Incident;
use super::{
    LocalCosmos, LocalError, LocalOptions,
    environment::{EnvironmentError, handler_settings, prepare, this_program},
    trigger::{Trigger, TriggerError, TriggerMode, TriggerOptions},
};
use crate::{
    change::{
        key::{KeyValue, PartitionKey},
        version::{BadRecord, Version},
    },
    clock::{Clock as _, SystemClock},
    config::Names,
    cosmos::{Container, Cosmos, Failure, Retry},
    find::{BadCondition, FindError},
    history::predicate::IS_RECORD,
    host::functions::DEFAULT_FUNCTION,
    progress::Progress,
    restore::RestoreError,
    zipcodes,
};

/// How many documents are written at a time. Each document has a single writer, so its versions have one order.
const WRITERS: usize = 16;
/// How soon the trigger polls again after an empty poll.
const POLL: Duration = Duration::from_millis(50);

/// How much is written, and how it is delivered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Number of writes: each is a randomly picked zip code, so that inserts are followed by updates.
    pub count: u64,
    /// Change feed mode.
    pub mode: TriggerMode,
    /// Physical partitions, and therefore leases that are processed in parallel.
    pub partitions: u32,
    /// The seed of the random picks.
    pub seed: u64,
    /// How long to wait for the last change.
    pub patience: Duration,
}

/// The result of the capture phase.
#[derive(Debug)]
pub struct Report {
    /// Documents written.
    pub documents: usize,
    /// Versions written.
    pub written: u64,
    /// Versions in the history.
    pub captured: usize,
    /// Time from the first write to the last capture.
    pub took: Duration,
    /// Batches that the trigger delivered.
    pub invocations: u64,
    /// Times from acknowledged write to capture, in milliseconds, sorted.
    pub lags: Vec<i64>,
    /// Request units charged to capture, by the emulator's model.
    pub charged: f64,
    /// Changes in the dead-letter store.
    pub letters: usize,
    /// The document that was written most often, and its versions in order.
    pub timeline: Option<(&'static zipcodes::Zipcode, Vec<Version>)>,
    /// The proof, or the versions that are missing, duplicated or out of order.
    pub proof: Result<String, Vec<String>>,
}

impl Report {
    /// Whether each version was captured correctly, so that the following steps can rely on the history.
    pub fn is_proved(&self) -> bool {
        self.letters == 0 && self.proof.is_ok()
    }

    /// Returns the lag that this percentage of the changes does not exceed, in milliseconds.
    pub fn lag(&self, percent: usize) -> i64 {
        self.lags.get((self.lags.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
    }
}

/// Why the demo ended early.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The account cannot be started.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The trigger cannot be started, or not everything was delivered.
    #[error(transparent)]
    Trigger(#[from] TriggerError),
    /// The containers cannot be created, or this program's own file is not found.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The account refused a request.
    #[error("cannot use the account")]
    Cosmos(#[from] Failure),
    /// A record of the history cannot be parsed.
    #[error(transparent)]
    Record(#[from] BadRecord),
    /// The search cannot be prepared.
    #[error(transparent)]
    Condition(#[from] BadCondition),
    /// The search for the wrong values failed.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The revert failed.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The demo's folder cannot be created or removed.
    #[error("cannot {what} {}", folder.display())]
    Folder {
        /// The attempt.
        what: &'static str,
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// A version as it was written to the source.
struct Expected {
    etag: String,
    /// When the write was acknowledged, milliseconds since 1970.
    written_at: i64,
}

/// Versions by document, in the order they were written.
type Written = BTreeMap<&'static str, Vec<Expected>>;

/// Runs the demo. Passes on the result of the capture phase, and returns that of the incident when everything was
/// captured. The account and the handler have ended when it returns.
///
/// # Errors
/// When a part cannot be started or fails. Whatever is missing, duplicated or wrong is in the reports.
pub async fn run(
    request: &Request,
    progress: &dyn Progress,
    captured: impl FnOnce(&Report),
) -> Result<(Report, Option<Incident>), DemoError> {
    let names =
        Names { database: "dev".into(), source: "events".into(), changes: "changes".into(), leases: "leases".into() };
    let local = LocalCosmos::start(LocalOptions { partitions: request.partitions, ..LocalOptions::default() }).await?;
    let cosmos = prepare(&local, &names).await?;
    progress.note(&format!(
        "account    {} with {}/{}, {}, {}",
        local.endpoint(),
        names.database,
        names.source,
        names.changes,
        names.leases
    ));
    // A separate folder: the demo leaves nothing behind, and no function.json of the caller's affects it.
    let folder = std::env::temp_dir().join(format!("cosmos-rewind-demo-{:016x}", rand::random::<u64>()));
    let wrong = |what| {
        let folder = folder.clone();
        move |source| DemoError::Folder { what, folder, source }
    };
    std::fs::create_dir(&folder).map_err(wrong("create"))?;
    let outcome = story(request, &names, &local, &cosmos, (&folder, progress), captured).await;
    let cleaned = std::fs::remove_dir_all(&folder);
    local.shutdown().await;
    let told = outcome?;
    cleaned.map_err(wrong("remove"))?;
    Ok(told)
}

async fn story(
    request: &Request,
    names: &Names,
    local: &LocalCosmos,
    cosmos: &Cosmos,
    (folder, progress): (&Path, &dyn Progress),
    captured: impl FnOnce(&Report),
) -> Result<(Report, Option<Incident>), DemoError> {
    let mut options = TriggerOptions::new(folder);
    options.handler = this_program()?;
    options.settings = handler_settings(local, names);
    options.mode = Some(request.mode);
    options.poll_delay = Some(POLL);
    let trigger = Trigger::start(local, options).await?;
    let ready = trigger.stats().await.handler_ready.unwrap_or_default();
    progress.note(&format!(
        "handler    pid {}, function {DEFAULT_FUNCTION}, ready after {} ms, as the Functions host starts it",
        trigger.handler_pid().unwrap_or_default(),
        ready.as_millis()
    ));

    let source = cosmos.container(&names.database, &names.source).await?;
    let writing = Instant::now();
    let written = populate(&source, request, progress).await?;
    let wrote = writing.elapsed().as_secs_f64();
    progress.note(&format!("populated  {} documents, {} versions, in {wrote:.1} s", written.len(), request.count));

    let drained = trigger.wait_until_drained(request.patience).await;
    let took = writing.elapsed();
    let stats = trigger.stats().await;
    if let Err(error) = drained {
        trigger.stop().await;
        return Err(error.into());
    }

    let changes = cosmos.container(&names.database, &names.changes).await?;
    let charged = local.charged(&names.database, &names.changes);
    let mut history = read_history(&changes).await?;
    let most = written.iter().max_by_key(|(_, versions)| versions.len()).map(|(zip, _)| *zip);
    let city = most.and_then(|zip| zipcodes::all().iter().find(|one| one.zip == zip));
    let report = Report {
        documents: written.len(),
        written: request.count,
        captured: history.values().map(Vec::len).sum(),
        took,
        invocations: stats.invocations,
        lags: lags(&written, &history),
        charged,
        letters: std::fs::read_dir(folder.join(".dead-letters")).map_or(0, Iterator::count),
        proof: prove(&written, &history, request.mode == TriggerMode::AllVersions),
        timeline: city.map(|city| (city, history.remove(city.zip).unwrap_or_default())),
    };
    drop(history);
    captured(&report);
    let place = incident::IncidentPlace {
        names,
        cosmos,
        source: &source,
        trigger: &trigger,
        folder,
        assume_no_gaps: request.mode == TriggerMode::Latest,
        patience: request.patience,
        progress,
    };
    let incident = if report.is_proved() { Some(incident::play(&place).await) } else { None };
    trigger.stop().await;
    Ok((report, incident.transpose()?))
}

async fn populate(source: &Container, request: &Request, progress: &dyn Progress) -> Result<Written, Failure> {
    let mut rng = StdRng::seed_from_u64(request.seed);
    let mut shares: Vec<Vec<(u64, &'static zipcodes::Zipcode)>> = (0..WRITERS).map(|_| Vec::new()).collect();
    for seq in 1..=request.count {
        let index = rng.random_range(0..zipcodes::all().len());
        shares[index % WRITERS].push((seq, &zipcodes::all()[index]));
    }
    let progress = progress.begin("populating", Some(request.count));
    let written: Vec<Written> = stream::iter(shares)
        .map(|share| {
            let progress = &*progress;
            async move {
                let mut written = Written::new();
                for (seq, zip) in share {
                    let key = PartitionKey(vec![KeyValue::String(zip.zip.to_owned())]);
                    let text = zip.document(seq, SystemClock.now());
                    let done = Retry::for_at_most(Duration::from_secs(30))
                        .run(|| source.upsert(&key, zip.zip, text.clone().into_bytes()))
                        .await?;
                    let etag = done
                        .etag
                        .ok_or_else(|| Failure::invalid("upsert item".into(), "the account sent no etag".into()))?;
                    written
                        .entry(zip.zip)
                        .or_default()
                        .push(Expected { etag, written_at: SystemClock.now().timestamp_millis() });
                    progress.advance(1);
                }
                Ok::<_, Failure>(written)
            }
        })
        .buffer_unordered(WRITERS)
        .try_collect()
        .await?;
    drop(progress);
    Ok(written.into_iter().flatten().collect())
}

/// Returns all versions in `changes` by document, in order.
async fn read_history(changes: &Container) -> Result<BTreeMap<String, Vec<Version>>, DemoError> {
    let mut history: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    let sql = format!("SELECT * FROM c WHERE {IS_RECORD}");
    let mut pages = changes.query(&sql, &[], None, None).await?;
    while let Some(page) = pages.next().await {
        for record in page?.documents {
            let version = Version::parse(record.get())?;
            history.entry(version.id.clone()).or_default().push(version);
        }
    }
    for versions in history.values_mut() {
        versions.sort_by(|a, b| a.position().cmp(&b.position()));
    }
    Ok(history)
}

/// Compares the written versions with those in the history, one by one.
fn prove(
    written: &Written,
    history: &BTreeMap<String, Vec<Version>>,
    all_versions: bool,
) -> Result<String, Vec<String>> {
    let mut problems = Vec::new();
    let mut proved = 0;
    for (zip, expected) in written {
        let found: Vec<&str> =
            history.get(*zip).into_iter().flatten().map(|v| v.etag.as_deref().unwrap_or("none")).collect();
        let expected: Vec<&str> = expected.iter().map(|e| e.etag.as_str()).collect();
        if all_versions && found != expected {
            problems.push(format!(
                "{zip}: wrote {} versions, the history has {}, or they are out of order",
                expected.len(),
                found.len()
            ));
        } else if !all_versions {
            // A subsequence that ends with the last version: intermediate versions may be missing, but none may be
            // duplicated.
            let mut rest = expected.iter();
            if !found.iter().all(|f| rest.any(|e| e == f)) || found.last() != expected.last() {
                problems.push(format!(
                    "{zip}: the history's {} versions are not an ordered part of the {} written",
                    found.len(),
                    expected.len()
                ));
            }
        }
        proved += found.len();
    }
    problems.extend(
        history
            .keys()
            .filter(|id| !written.contains_key(id.as_str()))
            .map(|id| format!("{id}: never written, but in the history")),
    );
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(if all_versions {
        format!("each of the {proved} versions of {} documents is in the history exactly once, in order", written.len())
    } else {
        format!(
            "{} documents: the last version of each, {proved} versions in all, each exactly once, in order",
            written.len()
        )
    })
}

/// Returns the times from acknowledged write to capture, in milliseconds, sorted.
fn lags(written: &Written, history: &BTreeMap<String, Vec<Version>>) -> Vec<i64> {
    let mut lags = Vec::new();
    for (zip, expected) in written {
        for version in history.get(*zip).into_iter().flatten() {
            let at =
                version.at.as_deref().and_then(|t| DateTime::parse_from_rfc3339(t).ok()).map(|t| t.timestamp_millis());
            let written_at =
                expected.iter().find(|e| Some(e.etag.as_str()) == version.etag.as_deref()).map(|e| e.written_at);
            if let (Some(at), Some(written_at)) = (at, written_at) {
                lags.push((at - written_at).max(0));
            }
        }
    }
    lags.sort_unstable();
    lags
}

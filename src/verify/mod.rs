//! Proves that the history has every live version, and that none is missing in between.
//!
//! `examine` is pure: what a scan found of an item goes in, findings come out. `compare` reads texts and records again.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{context::Context, history::baseline::Extent, verify::{self, Request}};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request {
//!     content: true,
//!     sample: 100,
//!     repair: false,
//!     extent: Extent::Whole,
//!     grace: 60,
//!     since: None,
//!     named: 10,
//!     shard: None,
//!     concurrency: 16,
//!     ru_limit: None,
//! };
//! let report = verify::run(request, cx.any()).await?;
//! println!("{:?} after {} documents", report.result(), report.documents);
//! # Ok(())
//! # }
//! ```

mod check;
mod compare;
mod examine;
mod report;
mod sample;

use futures::{StreamExt as _, TryStreamExt as _, stream};

pub use self::{
    check::{Check, Finding, Verdict},
    report::{CheckReport, NamedFinding, Report},
};
use self::{
    compare::Compared,
    examine::{AgeLimits, examine},
    sample::Sample,
};
use crate::{
    change::{
        Op,
        key::ItemKey,
        shape::Redactor,
        time::PointInTime,
        version::{Version, container_of},
    },
    cosmos::{Concurrency, Failure, HashRange, RuLimiter, Shard, Writers},
    history::{
        AnyContext, Containers, NotShared,
        baseline::{Extent, ExtentError, Saver, version_of_live},
        ends::from_previous_container,
        failed_writes::FailedWrites,
        live::LiveDetail,
        reading::WhichEnd,
        removals::Hole,
        scan::{PIECE_ROWS, Scan, ScanTexts, ScannedItem, Scope},
    },
    progress::ProgressStep,
};

/// A request to verify a history.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether texts are compared, not only etags.
    pub content: bool,
    /// How many randomly chosen versions are turned back into documents.
    pub sample: usize,
    /// Whether live documents that the history lacks are saved.
    pub repair: bool,
    /// How much of each document is saved then.
    pub extent: Extent,
    /// For how many seconds a young document may not be captured yet.
    pub grace: i64,
    /// The moment before which missing and absent versions do not count.
    pub since: Option<PointInTime>,
    /// How many documents are named for each check.
    pub named: usize,
    /// The part of the documents, when several machines share them.
    pub shard: Option<Shard>,
    /// Request units a second, on average; `None` is no limit.
    pub ru_limit: Option<f64>,
    /// Documents read or written at the same time.
    pub concurrency: usize,
}

/// Why the history cannot be verified. What is wrong with it is not an error but a finding in the report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The service refused, or an item cannot be parsed.
    #[error("cannot verify the history")]
    Cosmos(#[from] Failure),
    /// The live documents cannot be saved to this extent.
    #[error(transparent)]
    Extent(#[from] ExtentError),
    /// The items of these containers cannot be divided between machines.
    #[error("cannot share the history between machines")]
    Shard(#[source] NotShared),
}

/// Examines every item of the history and of the source.
///
/// # Errors
/// When the account cannot be used. The report says so when the work was told to stop.
pub async fn run(request: Request, cx: AnyContext<'_>) -> Result<Report, VerifyError> {
    let mut report = Report::new(request.named);
    let containers = cx.account.containers(cx.names, None).await?;
    let hash_ranges = containers.hash_ranges(request.shard).map_err(VerifyError::Shard)?;
    let shape = if request.repair { request.extent.shape(&containers).await? } else { None };
    let pace = RuLimiter::new(cx.account.meter(), request.ru_limit);
    let times = AgeLimits {
        now: cx.account.now().await.timestamp(),
        grace: request.grace,
        since: request.since,
        container: container_of(containers.source.rid()),
    };
    let frontier = cx.account.frontier(cx.names, None, &pace).await?;
    frontier.report_problems(cx.progress);
    let is_asked = |hole: &Hole| request.since.is_none_or(|since| since.seconds() < hole.before);
    report.holes = frontier.blind_spots.holes.into_iter().filter(is_asked).collect();
    let step = cx.progress.begin("verify", None);
    let failed = FailedWrites::default();
    let job = Job {
        cx: &cx,
        request: &request,
        containers: &containers,
        hash_ranges: &hash_ranges,
        pace: &pace,
        shape: shape.as_deref(),
        times,
        step: &*step,
        failed: &failed,
    };
    let scanned = job.scan(&mut report).await;
    failed.pass_on(&*step);
    let sample = scanned?;
    let rest = async {
        job.rebuild(sample, &mut report).await?;
        for which in [WhichEnd::Oldest, WhichEnd::Newest] {
            let elsewhere = from_previous_container(&containers, which).await?;
            report.count(Check::Container, u64::from(elsewhere));
        }
        Ok::<_, Failure>(())
    };
    match cx.stop.run_until_cancelled(rest).await {
        Some(done) => done?,
        None => report.interrupted = true,
    }
    report.close(cx.account.meter().total());
    Ok(report)
}

/// A version of the sample, and the etag of the live document.
type Sampled = (ItemKey, String, Option<String>);

struct Job<'a> {
    cx: &'a AnyContext<'a>,
    request: &'a Request,
    containers: &'a Containers,
    hash_ranges: &'a [HashRange],
    pace: &'a RuLimiter,
    shape: Option<&'a Redactor>,
    times: AgeLimits,
    step: &'a dyn ProgressStep,
    failed: &'a FailedWrites,
}

impl Job<'_> {
    /// Examines every item, piece by piece.
    async fn scan(&self, report: &mut Report) -> Result<Vec<Sampled>, VerifyError> {
        let Request { content, concurrency, .. } = *self.request;
        let scan = Scan {
            containers: self.containers,
            wanted: &Scope::All,
            at: PointInTime::END,
            hash_ranges: self.hash_ranges,
            live: if content { LiveDetail::Text } else { LiveDetail::Etag },
            piece_rows: PIECE_ROWS,
            pace: self.pace,
            texts: ScanTexts::InForce(&|found| content && found.live.is_some()),
        };
        let mut sample = Sample::new(self.request.sample);
        let (changes, pace) = (self.containers.changes.clone(), self.pace.clone());
        let writers =
            Writers::start(changes, Concurrency::AtMost(concurrency), pace, self.failed.observer(), &self.cx.stop);
        let saver = Saver {
            containers: self.containers,
            pace: self.pace,
            writers: &writers,
            concurrency,
            shape: self.shape,
            clock: &*self.cx.clock,
        };
        let mut pieces = std::pin::pin!(scan.pieces());
        loop {
            let Some(piece) = self.cx.stop.run_until_cancelled(pieces.next()).await else {
                report.interrupted = true;
                break;
            };
            let Some(piece) = piece else { break };
            let piece = piece?;
            for bad in &piece.bad {
                report.set_aside(bad);
            }
            let (mut missing, mut known) = (Vec::new(), Vec::new());
            for found in piece.found {
                self.step.advance(1);
                let is_missing = self.look(&found, &mut sample, report);
                if is_missing {
                    missing.push(found);
                } else if found.live.is_some() {
                    known.push(found);
                }
            }
            if content {
                self.cx.stop.run_until_cancelled(self.compare(known, report)).await.transpose()?;
            }
            if self.request.repair {
                let saved = saver.save(missing, |_| Op::Upsert).await?;
                for (item, problem) in &saved.unusable {
                    self.step.note(&format!("document {:?} ({}): {problem}", item.id, item.partition_key));
                }
                report.gone += saved.gone;
                report.repaired += saved.completed;
                if saved.stopped {
                    break;
                }
            }
            self.failed.pass_on(self.step);
        }
        let (tally, fatal) = writers.finish().await;
        report.repaired += tally.created + tally.skipped;
        report.interrupted |= tally.left > 0;
        fatal.map_or_else(|| Ok(sample.into_chosen()), |failure| Err(failure.into()))
    }

    /// Adds the findings of one item, and notes whether the history lacks its live version.
    fn look(&self, found: &ScannedItem, sample: &mut Sample<Sampled>, report: &mut Report) -> bool {
        let examined = examine(found, self.times);
        report.documents += u64::from(found.live.is_some());
        report.versions += found.versions.len() as u64;
        report.normalized += examined.normalized;
        report.pending += u64::from(examined.pending);
        let etag = found.live.as_ref().map(|live| live.etag.clone());
        // Neither a delete nor a document of which the record has nothing can be made again.
        let has_document = |v: &&Version| !v.is_absent() && !v.op.is_some_and(Op::is_tombstone);
        for version in found.versions.iter().filter(has_document) {
            let make = || (found.item.clone(), version.record_id.clone(), etag.clone());
            sample.offer(|below| rand::random_range(0..below), make);
        }
        let is_missing = examined.findings.iter().any(|f| f.check == Check::Missing);
        examined.findings.into_iter().for_each(|finding| report.add(&found.item, finding));
        is_missing
    }

    /// Compares texts.
    async fn compare(&self, known: Vec<ScannedItem>, report: &mut Report) -> Result<(), Failure> {
        let mut compared = stream::iter(known)
            .map(|found| async move {
                let result = match version_of_live(&found) {
                    Some(version) if !version.is_partial() => {
                        compare::content(self.containers, self.pace, &found, version).await?
                    }
                    _ => Compared::Same,
                };
                let altered = version_of_live(&found).is_some_and(Version::is_normalized);
                let span = found.live.as_ref().and_then(|live| live.ts).map(|ts| (ts, ts));
                Ok::<_, Failure>((found.item, result, altered, span))
            })
            .buffer_unordered(self.request.concurrency);
        while let Some((item, result, altered, span)) = compared.try_next().await? {
            match result {
                Compared::Wrong(mut detail) => {
                    if altered {
                        detail.push_str(" (the Functions host may have rewritten them)");
                    }
                    report.add(&item, Finding { check: Check::Content, detail, span });
                }
                Compared::Moved => report.pending += 1,
                Compared::Same | Compared::Part => {}
            }
        }
        Ok(())
    }

    /// Turns the versions of the sample back into documents.
    async fn rebuild(&self, sample: Vec<Sampled>, report: &mut Report) -> Result<(), Failure> {
        let mut rebuilt = stream::iter(sample)
            .map(|(item, record_id, live)| async move {
                let result = compare::rebuild(self.containers, self.pace, &item, &record_id, live.as_deref()).await?;
                Ok::<_, Failure>((item, record_id, result))
            })
            .buffer_unordered(self.request.concurrency);
        while let Some((item, record_id, result)) = rebuilt.try_next().await? {
            // A part of a document shows nothing about whole ones.
            report.sampled += u64::from(!matches!(result, Compared::Moved | Compared::Part));
            if let Compared::Wrong(problem) = result {
                let detail = format!("record {record_id}: {problem}");
                report.add(&item, Finding { check: Check::Rebuild, detail, span: None });
            }
        }
        Ok(())
    }
}

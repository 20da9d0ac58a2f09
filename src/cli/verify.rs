//! `verify`: proves that the history has what is live, and that nothing is missing in between.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    CliError, ConnectionArgs, Exit,
    connection::{PartArgs, hash_ranges},
    lookup,
    output::{self, Format, Progress, Rows, count_of, note, printable, tenths},
    restore,
};
use crate::{
    change::{
        Op,
        key::ItemKey,
        time::PointInTime,
        version::{BadRecord, Version, container_of},
    },
    cosmos::{Bulk, Cosmos, Failure, HashRange, Observer, RuLimiter},
    history::scan::{Containers, LiveDetail, PIECE_ROWS, Scan, ScannedItem, Scope},
    upkeep::{
        compare::{self, Compared},
        saving::version_of_live,
        standing::{Which, from_previous_container},
        store::Saver,
        verify::{Check, Finding, Sample, Times, Verdict, examine},
    },
};

/// Flags of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind verify
  cosmos-rewind verify --content --deep 1000 --ru-limit 500 --format json
  cosmos-rewind verify --repair")]
pub struct VerifyArgs {
    /// Compare the texts, not only the etags
    #[arg(long)]
    content: bool,
    /// Make so many versions, chosen at random, documents again
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    deep: u32,
    /// Save what is missing of the live documents in the history
    #[arg(long)]
    repair: bool,
    /// Documents younger than this may be captured yet: a span such as 60s or 5m
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    grace: i64,
    /// Do not follow chains of versions before this moment: what was there may have been pruned
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Name at most so many documents for each check
    #[arg(long, value_name = "N", default_value_t = 10)]
    show: usize,
    #[command(flatten)]
    part: PartArgs,
    /// Documents read or written at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How to print the report
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A span of time in seconds.
pub(super) fn span(text: &str) -> Result<i64, String> {
    crate::change::time::seconds_of(text).ok_or_else(|| "write a span such as 60s, 5m, 2h or 7d".into())
}

/// Runs the command.
///
/// # Errors
/// When the account cannot be used. Whatever speaks against the history makes the exit code 3.
pub async fn run(args: VerifyArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let since = match &args.since {
        Some(text) => Some(lookup::point(&cosmos, "--since", text).await?),
        None => None,
    };
    let containers = restore::containers(&cosmos, &names, None).await?;
    let hash_ranges = hash_ranges(&containers, args.part.feed_range, "one machine verifies everything")?;
    let pace = args.part.pace(&cosmos);
    let times = Times {
        now: cosmos.now().await.timestamp(),
        grace: args.grace,
        since,
        container: container_of(containers.source.rid()),
    };
    let progress = Arc::new(Progress::new("verify", None));
    let job = Job {
        args: &args,
        containers: &containers,
        hash_ranges: &hash_ranges,
        pace: &pace,
        times,
        progress: &progress,
    };
    let mut report = Report::new(args.show);
    let sample = job.scan(&mut report).await?;
    job.rebuild(sample, &mut report).await?;
    for which in [Which::OldestVersion, Which::NewestVersion] {
        let elsewhere = from_previous_container(&containers.changes, &containers.source, which).await?;
        report.count(Check::Container, u64::from(elsewhere));
    }
    progress.finish();
    report.print(&args, &cosmos, started)?;
    Ok(if report.result() == Verdict::Ok { Exit::Done } else { Exit::Incomplete })
}

/// A version of the sample, and the etag of the live document.
type Chosen = (ItemKey, String, Option<String>);

struct Job<'a> {
    args: &'a VerifyArgs,
    containers: &'a Containers,
    hash_ranges: &'a [HashRange],
    pace: &'a RuLimiter,
    times: Times,
    progress: &'a Arc<Progress>,
}

impl Job<'_> {
    /// Looks at every item, piece by piece.
    async fn scan(&self, report: &mut Report) -> Result<Vec<Chosen>, CliError> {
        let content = self.args.content;
        let scan = Scan {
            containers: self.containers,
            wanted: &Scope::All,
            at: PointInTime::END,
            hash_ranges: self.hash_ranges,
            live: if content { LiveDetail::Text } else { LiveDetail::Etag },
            piece_rows: PIECE_ROWS,
            pace: self.pace,
            needs_text: &|found| content && found.live.is_some(),
        };
        let mut sample = Sample::new(self.args.deep as usize);
        let progress = self.progress.clone();
        let observer: Observer = Arc::new(move |record: &ItemKey, failure: Option<&Failure>| {
            if let Some(failure) = failure {
                progress.note(&printable(&format!("record {:?} ({}): {failure}", record.id, record.partition_key)));
            }
        });
        let concurrency = usize::from(self.args.concurrency);
        let bulk = Bulk::start(&self.containers.changes, concurrency, self.pace.clone(), observer);
        let saver = Saver { containers: self.containers, pace: self.pace, bulk: &bulk, concurrency };
        let mut pieces = std::pin::pin!(scan.pieces());
        while let Some(piece) = pieces.next().await {
            let mut missing = Vec::new();
            let mut known = Vec::new();
            let piece = piece?;
            for bad in &piece.bad {
                report.set_aside(bad);
            }
            for found in piece.found {
                self.progress.inc(1);
                let examined = examine(&found, self.times);
                report.documents += u64::from(found.live.is_some());
                report.versions += found.versions.len() as u64;
                report.normalized += examined.normalized;
                report.pending += u64::from(examined.pending);
                let etag = found.live.as_ref().map(|live| live.etag.clone());
                for version in &found.versions {
                    let make = || (found.item.clone(), version.record_id.clone(), etag.clone());
                    sample.offer(|below| rand::random_range(0..below), make);
                }
                let is_missing = examined.findings.iter().any(|f| f.check == Check::Missing);
                examined.findings.into_iter().for_each(|finding| report.add(&found.item, finding));
                if is_missing {
                    missing.push(found);
                } else if found.live.is_some() {
                    known.push(found);
                }
            }
            if content {
                self.compare(known, report).await?;
            }
            if self.args.repair {
                let saved = saver.save(missing, |_| Op::Upsert).await?;
                for (item, problem) in &saved.unusable {
                    self.progress
                        .note(&printable(&format!("document {:?} ({}): {problem}", item.id, item.partition_key)));
                }
                report.gone += saved.gone;
                if saved.stopped {
                    break;
                }
            }
        }
        let (tally, fatal) = bulk.finish().await;
        report.repaired = tally.created + tally.skipped;
        fatal.map_or_else(|| Ok(sample.into_chosen()), |failure| Err(failure.into()))
    }

    /// Compares texts.
    async fn compare(&self, known: Vec<ScannedItem>, report: &mut Report) -> Result<(), CliError> {
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
            .buffer_unordered(self.args.concurrency.into());
        while let Some((item, result, altered, span)) = compared.try_next().await? {
            match result {
                Compared::Wrong(mut detail) => {
                    if altered {
                        detail.push_str(" (the Functions host may have rewritten them)");
                    }
                    report.add(&item, Finding { check: Check::Content, detail, span });
                }
                Compared::Moved => report.pending += 1,
                Compared::Same => {}
            }
        }
        Ok(())
    }

    /// Makes the versions of the sample documents again.
    async fn rebuild(&self, sample: Vec<Chosen>, report: &mut Report) -> Result<(), CliError> {
        let mut rebuilt = stream::iter(sample)
            .map(|(item, record_id, live)| async move {
                let result = compare::rebuild(self.containers, self.pace, &item, &record_id, live.as_deref()).await?;
                Ok::<_, Failure>((item, record_id, result))
            })
            .buffer_unordered(self.args.concurrency.into());
        while let Some((item, record_id, result)) = rebuilt.try_next().await? {
            report.sampled += u64::from(result != Compared::Moved);
            if let Compared::Wrong(problem) = result {
                let detail = format!("record {record_id}: {problem}");
                report.add(&item, Finding { check: Check::Rebuild, detail, span: None });
            }
        }
        Ok(())
    }
}

/// What was found.
struct Report {
    show: usize,
    documents: u64,
    versions: u64,
    normalized: u64,
    pending: u64,
    sampled: u64,
    repaired: u64,
    /// Deleted before they could be repaired.
    gone: u64,
    found: BTreeMap<Check, Of>,
}

/// What one check found.
#[derive(Default)]
struct Of {
    count: u64,
    /// The time that it concerns, epoch seconds.
    span: Option<(i64, i64)>,
    /// The first few.
    named: Vec<Named>,
}

impl Of {
    /// Both ends as they are shown.
    fn ends(&self) -> [Option<String>; 2] {
        let shown = |ts| PointInTime::from_epoch(ts).to_string();
        [self.span.map(|(from, _)| shown(from)), self.span.map(|(_, to)| shown(to))]
    }
}

/// A document that is named.
#[derive(Serialize)]
struct Named {
    id: String,
    pk: Value,
    detail: String,
}

impl Report {
    fn new(show: usize) -> Self {
        let found = Check::ALL.into_iter().map(|check| (check, Of::default())).collect();
        let (documents, versions, normalized, pending) = (0, 0, 0, 0);
        Self { show, documents, versions, normalized, pending, sampled: 0, repaired: 0, gone: 0, found }
    }

    fn add(&mut self, item: &ItemKey, finding: Finding) {
        let of = self.found.entry(finding.check).or_default();
        of.count += 1;
        if let Some((from, to)) = finding.span {
            of.span = Some(of.span.map_or((from, to), |(first, last)| (first.min(from), last.max(to))));
        }
        if of.named.len() < self.show {
            of.named.push(Named { id: item.id.clone(), pk: item.partition_key.to_json(), detail: finding.detail });
        }
    }

    /// Counts a record that is not understood, and names the first few.
    fn set_aside(&mut self, bad: &BadRecord) {
        let of = self.found.entry(Check::Record).or_default();
        of.count += 1;
        if of.named.len() < self.show {
            of.named.push(Named { id: bad.record_id.clone(), pk: Value::Null, detail: bad.problem.clone() });
        }
    }

    fn count(&mut self, check: Check, more: u64) {
        self.found.entry(check).or_default().count += more;
    }

    fn verdict(&self, check: Check) -> Verdict {
        let count = self.found.get(&check).map_or(0, |of| of.count);
        let mended = if check == Check::Missing { self.repaired + self.gone } else { 0 };
        if count > mended { check.severity() } else { Verdict::Ok }
    }

    fn result(&self) -> Verdict {
        Check::ALL.into_iter().map(|check| self.verdict(check)).max().unwrap_or(Verdict::Ok)
    }

    fn print(&self, args: &VerifyArgs, cosmos: &Cosmos, started: Instant) -> Result<(), CliError> {
        let figures = [
            ("documents", self.documents),
            ("versions", self.versions),
            ("normalized", self.normalized),
            ("pending", self.pending),
            ("sampled", self.sampled),
            ("repaired", self.repaired),
        ];
        if matches!(args.format, Format::Json | Format::Jsonl) {
            let mut object = serde_json::Map::new();
            object.insert("result".into(), self.result().as_str().into());
            object.extend(figures.map(|(name, n)| (name.to_owned(), n.into())));
            let checks = self.found.iter().map(|(check, of)| {
                let [from, to] = of.ends();
                json!({"check": check.name(), "result": self.verdict(*check).as_str(), "count": of.count,
                    "from": from, "to": to, "meaning": check.meaning(), "documents": of.named})
            });
            object.insert("checks".into(), checks.collect());
            object.insert("ru".into(), tenths(cosmos.meter().total()));
            object.insert("seconds".into(), tenths(started.elapsed().as_secs_f64()));
            return output::json(&object);
        }
        let mut rows = Rows::stdout(args.format, &["check", "result", "count", "from", "to", "meaning"]);
        for (check, of) in &self.found {
            let (verdict, [from, to]) = (self.verdict(*check).as_str(), of.ends());
            let meaning = check.meaning().into();
            rows.push(&[check.name().into(), verdict.into(), json!(of.count), json!(from), json!(to), meaning])?;
        }
        rows.finish()?;
        for (check, Of { count, named, .. }) in &self.found {
            for one in named {
                let text = format!("{:8}  document {:?} ({}): {}", check.name(), one.id, one.pk, one.detail);
                note(&printable(&text));
            }
            if let Some(more) = count.checked_sub(named.len() as u64).filter(|n| *n > 0 && !named.is_empty()) {
                note(&format!("{:8}  ... and {more} more", check.name()));
            }
        }
        note(&format!(
            "{}: {}, {}, {} of them normalized, {} pending, {} rebuilt, {} repaired",
            self.result().as_str(),
            count_of(self.documents, "document"),
            count_of(self.versions, "version"),
            self.normalized,
            self.pending,
            self.sampled,
            self.repaired
        ));
        if self.verdict(Check::Missing) != Verdict::Ok && !args.repair {
            output::hint("verify --repair saves what is missing; look first whether capture runs");
        }
        output::spent("verified", cosmos, started);
        Ok(())
    }
}

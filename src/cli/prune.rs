//! `prune`: removes versions that no kept instant needs.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use chrono::Utc;
use clap::Args;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;

use super::{
    CliError, ConnectionArgs, Exit,
    connection::{PartArgs, stretches},
    output::{self, Format, Progress, count_of, note, printable, tenths},
    restore,
};
use crate::{
    change::{
        Op,
        key::{ItemKey, KeyValue, PartitionKey},
        time::{PointInTime, seconds_of},
    },
    cosmos::{Action, Bulk, Failure, Job, Observer, Pace, Share, Span, Tally},
    restore::{
        journal,
        price::write_ru,
        sweep::{Found, LiveWish, PIECE_ROWS, Places, Scope, Sweep},
    },
    upkeep::keep::{Kept, Policy, Reason},
};

/// About how large a record is, for the forecast.
const RECORD: usize = 1024;
/// Days of a year, rather one too many.
const YEAR: i64 = 366 * 86_400;
/// Failures that are named one by one; the rest is only counted.
const SHOWN_FAILURES: u64 = 10;

/// Flags of `prune`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("kept").required(true), after_help = "Examples:
  cosmos-rewind prune --older-than 90d --dry-run
  cosmos-rewind prune --keep-within 7d --keep-daily 90d --keep-monthly 7y --yes --ru-limit 500")]
pub struct PruneArgs {
    /// Remove what is older than this span and was not in force any more when it began, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = age, group = "kept")]
    older_than: Option<i64>,
    /// Keep everything of the last so long, such as 7d
    #[arg(long, value_name = "SPAN", value_parser = age, group = "kept")]
    keep_within: Option<i64>,
    /// Before that, keep what was in force at the end of each day (UTC) of the last so long, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = age, requires = "keep_within", conflicts_with = "older_than")]
    keep_daily: Option<i64>,
    /// Before that, keep what was in force at the end of each month (UTC) of the last so long, such as 7y
    #[arg(long, value_name = "SPAN", value_parser = age, requires = "keep_within", conflicts_with = "older_than")]
    keep_monthly: Option<i64>,
    /// Forget documents altogether that were deleted before all of that
    #[arg(long)]
    drop_deleted: bool,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    part: PartArgs,
    /// Deletes in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A span in seconds; years too.
fn age(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let years = ["years", "year", "y"].into_iter().find_map(|unit| text.strip_suffix(unit));
    let seconds = match years {
        Some(number) => number.trim().parse::<u16>().ok().map(|n| i64::from(n) * YEAR),
        None => seconds_of(text),
    };
    seconds.ok_or_else(|| "write a span such as 36h, 7d, 12w or 7y".into())
}

/// What was found, and what became of it.
#[derive(Debug, Default)]
struct Sums {
    items: u64,
    versions: u64,
    reasons: BTreeMap<Reason, u64>,
    removed: u64,
    forgotten: u64,
    journals: u64,
    journal_items: u64,
    failed: u64,
}

impl Sums {
    fn forecast(&self) -> f64 {
        (self.removed + self.journal_items) as f64 * write_ru(RECORD)
    }
}

/// Runs the command.
///
/// # Errors
/// When the account cannot be used, or where a record lies does not follow from its item. A record that could not be
/// deleted is reported and makes the exit code 3.
pub async fn run(args: PruneArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let places = restore::places(&cosmos, &names, None).await?;
    let stretches = stretches(&places, args.part.feed_range, "one machine prunes everything")?;
    let any = ItemKey {
        id: String::new(),
        partition_key: PartitionKey(vec![KeyValue::Undefined; places.source.key_paths().len()]),
    };
    if places.record_key(&any, "").is_none() {
        return Err(CliError::usage(
            format!(
                "{} is keyed {}, and where a record lies does not follow from its document's key ({})",
                places.changes.name(),
                places.changes.key_paths(),
                places.source.key_paths()
            ),
            "prune needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
        ));
    }
    let policy = Policy {
        within: args.keep_within.or(args.older_than).unwrap_or_default(),
        daily: args.keep_daily,
        monthly: args.keep_monthly,
        drop_deleted: args.drop_deleted,
    };
    let kept = policy.at(Utc::now().timestamp());
    let shown = format!("{}/{}", names.database, names.changes);
    note(&format!(
        "keeping    every second from {}, and {} before it (ends of days and months)",
        PointInTime::from_epoch(kept.window),
        count_of(kept.points().count() as u64, "moment")
    ));
    let job =
        Pruning { args: &args, places: &places, stretches: &stretches, pace: args.part.pace(&cosmos), kept: &kept };
    if !args.dry_run && !args.yes {
        let sums = job.pass(false).await?.0;
        let what = count_of(sums.removed, "version");
        let question = format!(
            "{what} of {} and {} will be deleted from {shown}, for about {:.0} RU. They cannot be had back.",
            sums.versions,
            count_of(sums.journals, "journal"),
            sums.forecast()
        );
        output::confirm(&question, &names.changes, false)?;
    }
    let (sums, fatal) = job.pass(!args.dry_run).await?;
    if args.dry_run {
        note(&format!("removing   about {:.0} RU are expected; nothing was removed", sums.forecast()));
    }
    let kept_count: u64 = sums.reasons.values().sum();
    let reasons: serde_json::Map<_, _> = Reason::ALL
        .into_iter()
        .map(|reason| (reason.name().to_owned(), json!(sums.reasons.get(&reason).copied().unwrap_or_default())))
        .collect();
    output::summary(
        args.format,
        &[
            ("container", json!(shown)),
            ("dry_run", json!(args.dry_run)),
            ("documents", json!(sums.items)),
            ("versions", json!(sums.versions)),
            ("kept", json!(kept_count)),
            ("reasons", reasons.into()),
            ("removed", json!(sums.removed)),
            ("forgotten", json!(sums.forgotten)),
            ("journals", json!(sums.journals)),
            ("failed", json!(sums.failed)),
            ("ru", tenths(cosmos.meter().total())),
            ("seconds", tenths(started.elapsed().as_secs_f64())),
        ],
    )?;
    match fatal {
        Some(failure) => Err(failure.into()),
        None if sums.failed > 0 => {
            output::hint("run the command again: it goes on with what is left");
            Ok(Exit::Incomplete)
        }
        None => Ok(Exit::Done),
    }
}

struct Pruning<'a> {
    args: &'a PruneArgs,
    places: &'a Places,
    stretches: &'a [Span],
    pace: Pace,
    kept: &'a Kept,
}

impl Pruning<'_> {
    /// Goes through the history once; deletes, or only counts.
    async fn pass(&self, delete: bool) -> Result<(Sums, Option<Failure>), CliError> {
        let mut sums = Sums::default();
        let progress = Arc::new(Progress::new(if delete { "prune" } else { "count" }, None));
        let observer = named(&progress);
        let sweep = Sweep {
            places: self.places,
            wanted: &Scope::All,
            at: PointInTime::END,
            stretches: self.stretches,
            live: LiveWish::No,
            piece_rows: PIECE_ROWS,
            pace: &self.pace,
            needs_text: &|_| false,
        };
        let mut pieces = std::pin::pin!(sweep.pieces());
        while let Some(piece) = pieces.next().await {
            let (mut first, mut last) = (Vec::new(), Vec::new());
            for found in piece?.found {
                progress.inc(found.versions.len() as u64);
                self.choose(&found, &mut sums, &mut first, &mut last);
            }
            let found = (first.len() + last.len()) as u64;
            if !delete {
                sums.removed += found;
                continue;
            }
            // A tombstone hides what is older: it goes when nothing is left to be hidden.
            for wave in [first, last] {
                let (tally, fatal) = self.delete(wave, &observer).await;
                sums.removed += tally.deleted;
                sums.failed += tally.failed;
                if fatal.is_some() {
                    return Ok((sums, fatal));
                }
                if tally.failed > 0 {
                    break;
                }
            }
        }
        // Journals belong to no document's key: one machine looks after them.
        let fatal = match self.args.part.feed_range.is_none_or(Share::is_first) {
            true => self.journals(delete, &observer, &mut sums).await?,
            false => None,
        };
        progress.finish();
        Ok((sums, fatal))
    }

    /// Adds the records of an item that go: those that can go at once, and a tombstone that has to be the last.
    fn choose(&self, found: &Found, sums: &mut Sums, first: &mut Vec<Job>, last: &mut Vec<Job>) {
        sums.items += 1;
        sums.versions += found.versions.len() as u64;
        let decided = self.kept.decide(&found.versions);
        let forgotten = decided.iter().all(Option::is_none);
        sums.forgotten += u64::from(forgotten);
        for (version, reason) in found.versions.iter().zip(decided) {
            if let Some(reason) = reason {
                *sums.reasons.entry(reason).or_default() += 1;
                continue;
            }
            let Some(key) = self.places.record_key(&found.item, &version.record_id) else { continue };
            let item = ItemKey { id: version.record_id.clone(), partition_key: key };
            let is_last = forgotten && version.op.is_some_and(Op::is_tombstone);
            (if is_last { &mut *last } else { &mut *first }).push(Job { item, action: Action::Delete });
        }
    }

    async fn delete(&self, jobs: Vec<Job>, observer: &Observer) -> (Tally, Option<Failure>) {
        if jobs.is_empty() {
            return (Tally::default(), None);
        }
        let concurrency = usize::from(self.args.concurrency);
        let bulk = Bulk::start(&self.places.changes, concurrency, self.pace.clone(), observer.clone());
        for job in jobs {
            if !bulk.send(job).await {
                break;
            }
        }
        bulk.finish().await
    }

    /// The journals of restores that ended before the window.
    async fn journals(&self, delete: bool, observer: &Observer, sums: &mut Sums) -> Result<Option<Failure>, CliError> {
        let changes = &self.places.changes;
        let mut by_restore: BTreeMap<String, (i64, Vec<String>)> = BTreeMap::new();
        let sql = "SELECT c.id, c._originalId AS item, c._ts AS ts FROM c WHERE IS_DEFINED(c._restore)";
        let mut pages = changes.query(sql, &[], None, None).await?;
        loop {
            self.pace.wait().await;
            let Some(page) = pages.next().await else { break };
            for row in page?.documents {
                let row: JournalRow = serde_json::from_str(row.get())
                    .map_err(|e| CliError::failed(format!("a journal item is not understood: {e}")))?;
                let entry = by_restore.entry(row.item).or_insert((i64::MIN, Vec::new()));
                entry.0 = entry.0.max(row.ts);
                entry.1.push(row.id);
            }
        }
        let old = by_restore.into_iter().filter(|(_, (ts, _))| *ts < self.kept.window);
        let (mut heads, mut rest) = (Vec::new(), Vec::new());
        for (group, (_, ids)) in old {
            sums.journals += 1;
            sums.journal_items += ids.len() as u64;
            for id in ids {
                let is_head = journal::is_head(&id);
                let partition_key = journal::key(changes, &group, &id);
                let job = Job { item: ItemKey { id, partition_key }, action: Action::Delete };
                (if is_head { &mut heads } else { &mut rest }).push(job);
            }
        }
        if !delete {
            return Ok(None);
        }
        // Without its head a journal is none; half of one would be a restore that cannot be undone.
        for wave in [heads, rest] {
            let (tally, fatal) = self.delete(wave, observer).await;
            sums.failed += tally.failed;
            if fatal.is_some() {
                return Ok(fatal);
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct JournalRow {
    id: String,
    item: String,
    ts: i64,
}

/// Names the first failures.
fn named(progress: &Arc<Progress>) -> Observer {
    let progress = progress.clone();
    let failures = std::sync::atomic::AtomicU64::new(0);
    Arc::new(move |record: &ItemKey, failure: Option<&Failure>| {
        if let Some(failure) = failure
            && failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < SHOWN_FAILURES
        {
            progress.note(&printable(&format!("record {:?} ({}): {failure}", record.id, record.partition_key)));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_years_too() {
        assert_eq!(age("7d"), Ok(7 * 86_400));
        assert_eq!(age("36h"), Ok(36 * 3600));
        assert_eq!(age("7y"), Ok(7 * YEAR));
        assert_eq!(age(" 1 year "), Ok(YEAR));
        for bad in ["", "7", "y", "-1y", "7 moons", "99999999y", "9999999999999999999d"] {
            assert!(age(bad).unwrap_err().contains("7y"), "{bad}");
        }
    }
}

//! `prune`: removes versions that no kept instant needs.

use std::{sync::Arc, time::Instant};

use clap::{Args, Parser};
use serde_json::json;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    CliError, ConnectionArgs, Exit,
    connection::{PartArgs, hash_ranges},
    lookup,
    output::{self, Format, Progress, count_of, note, printable, tenths},
    restore,
};
use crate::{
    change::{
        key::ItemKey,
        time::{PointInTime, seconds_of},
    },
    config::{Account, ConfigError, Names, PRUNE, Settings, prune_budget},
    cosmos::{Cosmos, Failure, Observer, Shard},
    upkeep::{
        keep::{KeepReason, Policy},
        prune::{Pruning, check},
        timer::PruneTimer,
    },
};

/// Days of a year, rather one too many.
const YEAR: i64 = 366 * 86_400;
/// Failures that are named one by one; the rest is only counted.
const SHOWN_FAILURES: u64 = 10;

/// Flags of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cosmos-rewind prune --older-than 90d --dry-run
  cosmos-rewind prune --keep-within 7d --keep-daily 90d --keep-monthly 7y --yes --ru-limit 500")]
pub struct PruneArgs {
    #[command(flatten)]
    wish: RetentionArgs,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What is removed, and how fast: flags of `prune`, and what the setting of its timer function may hold
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("kept").required(true))]
struct RetentionArgs {
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
    #[command(flatten)]
    part: PartArgs,
    /// Deletes in flight
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
}

impl RetentionArgs {
    fn policy(&self) -> Policy {
        Policy {
            within: self.keep_within.or(self.older_than).unwrap_or_default(),
            daily: self.keep_daily,
            monthly: self.keep_monthly,
            drop_deleted: self.drop_deleted,
        }
    }
}

/// The setting of a timer function, as it would be typed behind `prune`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Setting {
    #[command(flatten)]
    wish: RetentionArgs,
}

const FIX: &str = "write the flags of prune, such as --keep-within 7d --keep-daily 90d --ru-limit 500";

fn parsed(text: &str) -> Result<RetentionArgs, ConfigError> {
    Setting::try_parse_from(text.split_whitespace()).map(|setting| setting.wish).map_err(|e| {
        let said = e.render().to_string();
        let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        ConfigError::new(PRUNE, said, FIX)
    })
}

/// Whether the settings of timers are right, also while no function has one.
///
/// # Errors
/// With the one that is not.
pub(super) fn check_settings(settings: &Settings) -> Result<(), ConfigError> {
    prune_budget(settings)?;
    settings.get(PRUNE).map_or(Ok(()), |text| parsed(text).map(drop))
}

/// The timer function that the settings ask for.
///
/// # Errors
/// When a setting is missing or wrong; nothing is contacted.
pub(super) fn timer(settings: &Settings, function: &str, account: Account) -> Result<PruneTimer, ConfigError> {
    let Some(text) = settings.get_for(Some(function), PRUNE) else {
        let problem = format!("is missing, and {function}/function.json has a timer trigger");
        return Err(ConfigError::new(PRUNE, problem, FIX));
    };
    let wish = parsed(text)?;
    Ok(PruneTimer {
        cosmos: Cosmos::new(account),
        names: Names::from_settings(settings, Some(function))?,
        policy: wish.policy(),
        dry_run: wish.dry_run,
        share: wish.part.feed_range,
        ru_limit: wish.part.ru_limit,
        concurrency: wish.concurrency.into(),
        budget: prune_budget(settings)?,
        todo: Mutex::default(),
    })
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

/// Runs the command.
///
/// # Errors
/// When the account cannot be used, or where a record lies does not follow from its item. A record that could not be
/// deleted is reported and makes the exit code 3.
pub async fn run(args: PruneArgs) -> Result<Exit, CliError> {
    let started = Instant::now();
    let (cosmos, names) = args.connection.open()?;
    let containers = restore::containers(&cosmos, &names, None).await?;
    let hash_ranges = hash_ranges(&containers, args.wish.part.feed_range, "one machine prunes everything")?;
    check(&containers).map_err(|problem| {
        CliError::usage(
            problem,
            "prune needs a history keyed by paths of the source's key, /_originalId or /id, as provision makes it",
        )
    })?;
    let kept = args.wish.policy().at(cosmos.now().await.timestamp());
    let shown = format!("{}/{}", names.database, names.changes);
    note(&format!(
        "keeping    every second from {}, and {} before it (ends of days and months)",
        PointInTime::from_epoch(kept.window),
        count_of(kept.points().count() as u64, "moment")
    ));
    let pace = args.wish.part.pace(&cosmos);
    let dry_run = args.wish.dry_run;
    let go = async |delete: bool| {
        let progress = Arc::new(Progress::new(if delete { "prune" } else { "count" }, None));
        let job = Pruning {
            containers: &containers,
            pace: &pace,
            kept: &kept,
            concurrency: args.wish.concurrency.into(),
            observer: &named(&progress),
            stop: &CancellationToken::new(),
        };
        let mut passed = job.pass(&hash_ranges, delete, |n| progress.inc(n)).await?;
        // Journals belong to no document's key: one machine looks after them.
        if passed.fatal.is_none() && args.wish.part.feed_range.is_none_or(Shard::is_first) {
            passed.fatal = job.journals(delete, &mut passed.sums).await?;
        }
        progress.finish();
        Ok::<_, CliError>((passed.sums, passed.fatal, passed.bad))
    };
    if !dry_run && !args.yes {
        let sums = go(false).await?.0;
        let what = count_of(sums.removed, "version");
        let question = format!(
            "{what} of {} and {} will be deleted from {shown}, for about {:.0} RU. They cannot be had back.",
            sums.versions,
            count_of(sums.journals, "journal"),
            sums.forecast()
        );
        output::confirm(&question, &names.changes, false)?;
    }
    let (sums, fatal, bad) = go(!dry_run).await?;
    let exit = lookup::note_bad(&bad);
    if dry_run {
        note(&format!("removing   about {:.0} RU are expected; nothing was removed", sums.forecast()));
    }
    let kept_count: u64 = sums.reasons.values().sum();
    let reasons: serde_json::Map<_, _> = KeepReason::ALL
        .into_iter()
        .map(|reason| (reason.name().to_owned(), json!(sums.reasons.get(&reason).copied().unwrap_or_default())))
        .collect();
    output::summary(
        args.format,
        &[
            ("container", json!(shown)),
            ("dry_run", json!(dry_run)),
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
        None => Ok(exit),
    }
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

//! The flags of `prune`, which the setting of the timer function holds, too.

use clap::{Args, Parser};
use tokio::sync::Mutex;

use super::connection::PartArgs;
use crate::{
    change::time::seconds_of,
    config::{AccountSettings, ConfigError, Names, PRUNE, Settings, prune_budget},
    cosmos::Cosmos,
    retention::{Policy, Request, timer::PruneTimer},
};

/// Days of a year, rounded up.
const YEAR: i64 = 366 * 86_400;

/// The versions to remove, and how fast: flags of `prune`, and of the setting of its timer function
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("kept").required(true))]
pub(super) struct RetentionArgs {
    /// Remove versions older than this span that were no longer in force when it began, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = age, group = "kept")]
    older_than: Option<i64>,
    /// Keep everything within this span, such as 7d
    #[arg(long, value_name = "SPAN", value_parser = age, group = "kept")]
    keep_within: Option<i64>,
    /// Before that, keep the version in force at the end of each day (UTC) within this span, such as 90d
    #[arg(long, value_name = "SPAN", value_parser = age, requires = "keep_within", conflicts_with = "older_than")]
    keep_daily: Option<i64>,
    /// Before that, keep the version in force at the end of each month (UTC) within this span, such as 7y
    #[arg(long, value_name = "SPAN", value_parser = age, requires = "keep_within", conflicts_with = "older_than")]
    keep_monthly: Option<i64>,
    /// Forget documents completely that were deleted before all of that
    #[arg(long)]
    drop_deleted: bool,
    /// Only count
    #[arg(long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    part: PartArgs,
    /// Deletes in flight
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=256))]
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

    pub(super) fn request(&self) -> Request {
        Request {
            policy: self.policy(),
            shard: self.part.feed_range,
            ru_limit: self.part.ru_limit,
            concurrency: self.concurrency.into(),
        }
    }
}

/// The setting of a timer function, as it would be typed after `prune`.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Setting {
    #[command(flatten)]
    retention: RetentionArgs,
}

const FIX: &str = "write the flags of prune, such as --keep-within 7d --keep-daily 90d --ru-limit 500";

fn parsed(text: &str) -> Result<RetentionArgs, ConfigError> {
    Setting::try_parse_from(text.split_whitespace()).map(|setting| setting.retention).map_err(|e| {
        let said = e.render().to_string();
        let said = said.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        ConfigError::new(PRUNE, said, FIX)
    })
}

/// Checks the settings of timers, even when no function uses them.
///
/// # Errors
/// With the first setting that is wrong.
pub(super) fn check_settings(settings: &Settings) -> Result<(), ConfigError> {
    prune_budget(settings)?;
    settings.get(PRUNE).map_or(Ok(()), |text| parsed(text).map(drop))
}

/// The timer function that the settings describe.
///
/// # Errors
/// When a setting is missing or wrong; nothing is contacted.
pub(super) fn timer(settings: &Settings, function: &str, account: AccountSettings) -> Result<PruneTimer, ConfigError> {
    let Some(text) = settings.get_for(Some(function), PRUNE) else {
        let problem = format!("is missing, and {function}/function.json has a timer trigger");
        return Err(ConfigError::new(PRUNE, problem, FIX));
    };
    let args = parsed(text)?;
    Ok(PruneTimer {
        cosmos: Cosmos::new(account),
        names: Names::from_settings(settings, Some(function))?,
        policy: args.policy(),
        dry_run: args.dry_run,
        share: args.part.feed_range,
        ru_limit: args.part.ru_limit,
        concurrency: args.concurrency.into(),
        budget: prune_budget(settings)?,
        todo: Mutex::default(),
    })
}

/// A span in seconds; years are allowed, too.
fn age(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let years = ["years", "year", "y"].into_iter().find_map(|unit| text.strip_suffix(unit));
    let seconds = match years {
        Some(number) => number.trim().parse::<u16>().ok().map(|n| i64::from(n) * YEAR),
        None => seconds_of(text),
    };
    seconds.ok_or_else(|| "write a span such as 36h, 7d, 12w or 7y".into())
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

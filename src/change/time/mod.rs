//! Parses points in time as a person types them. A time without a zone is refused: two hours off restores the wrong
//! version.

mod calendar;
mod span;

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeZone};

use self::{
    calendar::calendar,
    span::{has_capital_m, span},
};

pub use self::span::{seconds_of, span_text};

/// Epoch seconds below this (2001-09-09) are never meant: they are a year, a date or a count typed by mistake.
const EARLIEST_EPOCH: i64 = 1_000_000_000;

/// A moment on the time axis of a history: whole seconds since 1970, like the source's `_ts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PointInTime(i64);

impl PointInTime {
    /// After every version: used when no time is given.
    pub const END: Self = Self(i64::MAX);

    /// The moment of a `_ts`.
    pub const fn from_epoch(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Parses what a person types: RFC 3339 (a blank for the `T` and missing seconds are fine), epoch seconds, a span
    /// before now (`15m`, `2h30m ago`, `3d`), `today 09:00+02:00`, `yesterday 14:05Z`, `now`. Fractions of a second are
    /// dropped, as in `_ts`.
    ///
    /// `now` is the clock and, for the corrections in hints, the local zone.
    ///
    /// # Errors
    /// When it is not a time, has no zone, or lies in the future.
    pub fn parse<Tz: TimeZone>(text: &str, now: &DateTime<Tz>) -> Result<Self, BadTime> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let point = if lower == "now" {
            now.timestamp()
        } else if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            epoch(text, now.timestamp())?
        } else if has_capital_m(text) && span(&lower).is_some() {
            return Err(BadTime::new(
                text,
                "may mean minutes or months",
                "write m for minutes, and days for months: 30d",
            ));
        } else if let Some(span) = span(&lower) {
            let seconds = span.ok_or_else(|| BadTime::new(text, "reaches back too far", FORMS))?;
            now.timestamp()
                .checked_sub(seconds)
                .filter(|t| DateTime::from_timestamp(*t, 0).is_some())
                .ok_or_else(|| BadTime::new(text, "reaches back too far", FORMS))?
        } else {
            calendar(text, &lower, now)?
        };
        if point > now.timestamp() {
            let clock = Self(now.timestamp());
            return Err(BadTime::new(
                text,
                &format!("is in the future: {}, and it is {clock} now", Self(point)),
                "leave the time out, or say now, for the newest version",
            ));
        }
        Ok(Self(point))
    }
}

/// RFC 3339 in UTC.
impl fmt::Display for PointInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::from_timestamp(self.0, 0) {
            Some(time) => f.pad(&time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            None if *self == Self::END => f.pad("now"),
            None => f.pad(&self.0.to_string()),
        }
    }
}

/// A time that cannot be used, and what to type instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadTime {
    /// The problem.
    pub problem: String,
    /// A text to type instead.
    pub hint: String,
}

/// The accepted forms, for a text that resembles none of them.
const FORMS: &str = "write 2026-11-20T14:05:00Z, 2026-11-20T14:05:00+02:00, 1592926844, 15m, \"2h30m ago\", \"yesterday 14:05Z\" or now";

impl BadTime {
    fn new(text: &str, problem: &str, hint: &str) -> Self {
        Self { problem: format!("time {text:?} {problem}"), hint: hint.to_owned() }
    }
}

/// Epoch seconds; other counts that look like them are named in the error.
fn epoch(text: &str, now: i64) -> Result<i64, BadTime> {
    let number: i64 = text.parse().map_err(|_| BadTime::new(text, "is too large a number", FORMS))?;
    if number < EARLIEST_EPOCH {
        let problem = format!("is {} in epoch seconds, before there was any history", PointInTime(number));
        return Err(BadTime::new(text, &problem, FORMS));
    }
    for (unit, per_second) in [("milliseconds", 1_000), ("microseconds", 1_000_000), ("nanoseconds", 1_000_000_000)] {
        let seconds = number / per_second;
        if number > now && (EARLIEST_EPOCH..=now).contains(&seconds) {
            let hint = format!("write {seconds} ({})", PointInTime(seconds));
            return Err(BadTime::new(text, &format!("looks like epoch {unit}; seconds are needed"), &hint));
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use chrono::{FixedOffset, Utc};
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-20T15:00:00Z on a machine two hours east.
    fn now() -> DateTime<FixedOffset> {
        DateTime::parse_from_rfc3339("2026-11-20T17:00:00+02:00").unwrap()
    }

    fn parse(text: &str) -> Result<String, BadTime> {
        PointInTime::parse(text, &now()).map(|t| t.to_string())
    }

    #[test]
    fn every_form_is_read() {
        for (text, expected) in [
            ("2026-11-20T14:05:00Z", "2026-11-20T14:05:00Z"),
            ("2026-11-20t14:05:00.999z", "2026-11-20T14:05:00Z"),
            ("2026-11-20 14:05Z", "2026-11-20T14:05:00Z"),
            (" 2026-11-20T16:05:00+02:00 ", "2026-11-20T14:05:00Z"),
            ("2026-11-20 10:35 -0330", "2026-11-20T14:05:00Z"),
            ("2026-11-20 16:05+02", "2026-11-20T14:05:00Z"),
            ("2026-11-20 14:05 UTC", "2026-11-20T14:05:00Z"),
            ("1592926844", "2020-06-23T15:40:44Z"),
            ("now", "2026-11-20T15:00:00Z"),
            ("15m", "2026-11-20T14:45:00Z"),
            ("2h30m", "2026-11-20T12:30:00Z"),
            ("2h 30 min ago", "2026-11-20T12:30:00Z"),
            ("2H30M AGO", "2026-11-20T12:30:00Z"),
            ("3d", "2026-11-17T15:00:00Z"),
            ("1w", "2026-11-13T15:00:00Z"),
            ("90 seconds ago", "2026-11-20T14:58:30Z"),
            ("yesterday 14:05Z", "2026-11-19T14:05:00Z"),
            ("today 09:00+02:00", "2026-11-20T07:00:00Z"),
            ("Today 09:00 Z", "2026-11-20T09:00:00Z"),
            // It is already the 21st there.
            ("yesterday 01:00+14:00", "2026-11-19T11:00:00Z"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_refused_with_both_corrections() {
        for (text, utc, local) in [
            ("2026-11-20T14:05:00", "2026-11-20T14:05:00Z", "2026-11-20T14:05:00+02:00"),
            ("2026-11-20 14:05", "2026-11-20T14:05:00Z", "2026-11-20T14:05:00+02:00"),
            ("2026-11-20", "2026-11-20T00:00:00Z", "2026-11-20T00:00:00+02:00"),
            ("yesterday 14:05", "yesterday 14:05:00Z", "yesterday 14:05:00+02:00"),
            ("today", "today 00:00:00Z", "today 00:00:00+02:00"),
            ("2026-11-20 14:05 CEST", "2026-11-20T14:05:00Z", "2026-11-20T14:05:00+02:00"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains("zone"), "{error}");
            assert!(
                error.hint.contains(&format!("{utc:?}")) && error.hint.contains(&format!("{local:?}")),
                "{error:?}"
            );
        }
        // On a machine in UTC the second correction is a pattern.
        let error = PointInTime::parse("2026-11-20 14:05", &now().with_timezone(&Utc)).unwrap_err();
        assert!(error.hint.contains("your own offset"), "{error:?}");
    }

    #[test]
    fn what_is_no_usable_time_is_refused_with_the_next_step() {
        for (text, problem, hint) in [
            ("", "not understood", "2026-11-20T14:05:00Z"),
            ("soon", "not understood", "yesterday 14:05Z"),
            ("2026-13-01T00:00:00Z", "not understood", "write"),
            ("2026-11-20T24:00:00Z", "not understood", "write"),
            ("2026-11-20x14:05Z", "not understood", "write"),
            ("2026-11-20 Z", "not understood", "write"),
            ("14:05Z", "which day", "\"today 14:05:00Z\" or \"yesterday 14:05:00Z\""),
            ("14:05", "which day", "today 14:05:00Z"),
            ("2026-11-20T14:05:00+25:00", "zone", "write"),
            ("2026-11-20T15:00:01Z", "in the future", "newest"),
            ("today 23:00Z", "in the future", "newest"),
            ("2026", "before there was any history", "write"),
            ("20261120", "before there was any history", "write"),
            ("1592926844123", "milliseconds", "1592926844 (2020-06-23T15:40:44Z)"),
            ("99999999999999999999", "too large", "write"),
            ("9223372036854775807d", "too far", "write"),
            ("99999999999999d ago", "too far", "write"),
            ("-5", "not understood", "write"),
            ("2h30", "not understood", "write"),
            ("1.5h", "not understood", "write"),
            ("ago", "not understood", "write"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains(problem) && error.hint.contains(hint), "{text}: {error:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(seconds in EARLIEST_EPOCH..1_795_186_800i64) {
            let point = PointInTime::from_epoch(seconds);
            prop_assert_eq!(PointInTime::parse(&point.to_string(), &now()), Ok(point));
            prop_assert_eq!(PointInTime::parse(&seconds.to_string(), &now()), Ok(point));
        }

        #[test]
        fn a_moment_is_the_same_in_every_zone(seconds in EARLIEST_EPOCH..1_795_186_800i64, minutes in -840..=840i32) {
            let offset = FixedOffset::east_opt(minutes * 60).unwrap();
            let there = DateTime::from_timestamp(seconds, 0).unwrap().with_timezone(&offset);
            let parsed = PointInTime::parse(&there.to_rfc3339(), &now());
            prop_assert_eq!(parsed, Ok(PointInTime::from_epoch(seconds)));
        }

        #[test]
        fn no_text_panics_and_no_point_is_in_the_future(text in "[ 0-9a-zA-Z:+.é-]{0,24}") {
            if let Ok(point) = PointInTime::parse(&text, &now()) {
                prop_assert!(point.seconds() <= now().timestamp());
            }
        }

        #[test]
        fn what_resembles_a_time_does_not_panic(
            text in "(today|yesterday|20[0-9]{2}-[0-9]{2}-[0-9]{2})?[T ]?([0-9]{1,2}:[0-9]{2})?(:[0-9]{2})?(Z|[+-][0-9]{2}:?[0-9]{0,2})?"
        ) {
            let _ = PointInTime::parse(&text, &now());
        }
    }
}

//! Points in time, as a person types them. A time without a zone is refused: two hours off restores the wrong version.

use std::fmt;

use chrono::{DateTime, Days, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset, SecondsFormat, TimeZone, Utc};

/// Epoch seconds below this (2001-09-09) are no time in any history, but a year, a date or a count typed by mistake.
const EARLIEST_EPOCH: i64 = 1_000_000_000;

/// A moment on the time axis of a history: whole seconds since 1970, as the source's `_ts`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PointInTime(i64);

impl PointInTime {
    /// After every version: what is asked for when no time is.
    pub const END: Self = Self(i64::MAX);

    /// The moment of a `_ts`.
    pub const fn from_epoch(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Reads what a person types: RFC 3339 (a blank for the `T` and missing seconds are fine), epoch seconds, a span
    /// before now (`15m`, `2h30m ago`, `3d`), `today 09:00+02:00`, `yesterday 14:05Z`, `now`. Fractions of a second are
    /// cut off, as they are in `_ts`.
    ///
    /// `now` is the clock and, for the corrections in hints, the local zone.
    ///
    /// # Errors
    /// When it is no time, has no zone, or lies in the future.
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

/// A time that cannot be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct BadTime {
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub hint: String,
}

/// The forms, for a text that resembles none of them.
const FORMS: &str = "write 2026-11-20T14:05:00Z, 2026-11-20T14:05:00+02:00, 1592926844, 15m, \"2h30m ago\", \"yesterday 14:05Z\" or now";

impl BadTime {
    fn new(text: &str, problem: &str, hint: &str) -> Self {
        Self { problem: format!("time {text:?} {problem}"), hint: hint.to_owned() }
    }
}

/// Epoch seconds; other counts that look like them are named.
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

/// Whether it is a number and `M`, which is minutes to some and months to others. Beside hours it is clear.
fn has_capital_m(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_suffix("ago").or_else(|| text.strip_suffix("AGO")).unwrap_or(text).trim_end();
    let number = text.strip_suffix('M').unwrap_or_default().trim_end();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// A span such as `90s`, `2h30m` or `7d` in seconds; `None` when it is none, or too long.
pub fn seconds_of(text: &str) -> Option<i64> {
    if has_capital_m(text) {
        return None;
    }
    span(&text.trim().to_lowercase()).flatten()
}

/// A span such as `2h30m ago` in seconds; `None` when the text is none at all, `Some(None)` when it is too long.
fn span(text: &str) -> Option<Option<i64>> {
    let mut rest = text.strip_suffix("ago").unwrap_or(text).trim();
    let mut total = Some(0i64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let seconds = match unit {
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        if number.is_empty() {
            return None;
        }
        total = total.and_then(|t| number.parse::<i64>().ok()?.checked_mul(seconds)?.checked_add(t));
        rest = after.trim_start();
    }
    Some(total)
}

/// Seconds as a person reads them, in the two largest units: `2h30m`, `3d`, `0s`.
pub fn span_text(seconds: i64) -> String {
    let mut rest = seconds.unsigned_abs();
    let mut text = String::new();
    let mut units = 0;
    for (unit, length) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if rest >= length && units < 2 {
            text.push_str(&format!("{}{unit}", rest / length));
            units += 1;
        } else if units == 1 {
            // The second unit is the neighbour of the first, or none.
            break;
        }
        rest %= length;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// What stands before the clock.
#[derive(Clone, Copy)]
enum Day {
    Date(NaiveDate),
    /// Days before the current one, in the zone that is given with the clock.
    Ago(u64),
}

/// A date or a day's name, a clock, and a zone.
fn calendar<Tz: TimeZone>(text: &str, lower: &str, now: &DateTime<Tz>) -> Result<i64, BadTime> {
    let nothing = || BadTime::new(text, "is not understood", FORMS);
    let (day, name, rest) = if let Some(rest) = lower.strip_prefix("today") {
        (Some(Day::Ago(0)), "today ".to_owned(), rest)
    } else if let Some(rest) = lower.strip_prefix("yesterday") {
        (Some(Day::Ago(1)), "yesterday ".to_owned(), rest)
    } else if let Some((date, rest)) = lower.split_at_checked(10)
        && date.bytes().filter(|b| *b == b'-').count() == 2
        && let Ok(day) = NaiveDate::parse_from_str(date, "%Y-%m-%d")
    {
        if !rest.is_empty() && !rest.starts_with(['t', ' ']) {
            return Err(nothing());
        }
        (Some(Day::Date(day)), format!("{date}T"), rest.strip_prefix('t').unwrap_or(rest))
    } else {
        (None, String::new(), lower)
    };

    let rest = rest.trim();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(rest.len());
    let (clock_text, zone_text) = rest.split_at(end);
    let clock = match (clock_text, &day) {
        ("", Some(_)) if zone_text.is_empty() => NaiveTime::MIN,
        _ => clock(clock_text).ok_or_else(nothing)?,
    };
    // Written as RFC 3339 wants it, whatever was typed.
    let clock_text = clock.format("%H:%M:%S");
    let Some(day) = day else {
        let zone = if zone_text.is_empty() { "Z".to_owned() } else { zone_text.to_ascii_uppercase() };
        let hint = format!("write \"today {clock_text}{zone}\" or \"yesterday {clock_text}{zone}\"");
        return Err(BadTime::new(text, "does not say which day", &hint));
    };

    let local = now.timezone();
    let in_zone = |offset: FixedOffset| -> Option<NaiveDateTime> {
        let date = match day {
            Day::Date(date) => date,
            Day::Ago(days) => now.with_timezone(&offset).date_naive().checked_sub_days(Days::new(days))?,
        };
        Some(date.and_time(clock))
    };
    let Some(offset) = zone(zone_text.trim()) else {
        let problem = if zone_text.is_empty() {
            "has no zone"
        } else {
            "has a zone that is not understood; names of zones mean different things at different times and places"
        };
        // The offset that this machine had then: summer and winter differ.
        let guess = in_zone(now.offset().fix())
            .and_then(|then| local.offset_from_local_datetime(&then).earliest())
            .map(|o| o.fix())
            .filter(|o| o.local_minus_utc() != 0);
        let other = match guess {
            Some(offset) => format!("\"{name}{clock_text}{offset}\" (this machine's zone)"),
            None => format!("with your own offset, such as \"{name}{clock_text}+02:00\""),
        };
        return Err(BadTime::new(text, problem, &format!("write \"{name}{clock_text}Z\" (UTC) or {other}")));
    };
    in_zone(offset)
        .and_then(|then| offset.from_local_datetime(&then).earliest())
        .map(|t| t.with_timezone(&Utc).timestamp())
        .ok_or_else(nothing)
}

/// `14:05`, `14:05:00` or `14:05:00.123`.
fn clock(text: &str) -> Option<NaiveTime> {
    let parts = text.split(':').count();
    let two_digits = text.split([':', '.']).take(parts).all(|part| part.len() == 2);
    if !two_digits {
        return None;
    }
    ["%H:%M", "%H:%M:%S%.f"].iter().find_map(|format| NaiveTime::parse_from_str(text, format).ok())
}

/// `z`, `utc`, `gmt`, `+02:00`, `+0200` or `+02`.
fn zone(text: &str) -> Option<FixedOffset> {
    if matches!(text, "z" | "utc" | "gmt") {
        return FixedOffset::east_opt(0);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match (rest.len(), rest.split_once(':')) {
        (5, Some(parts)) => parts,
        (4, None) => rest.split_at_checked(2)?,
        (2, None) => (rest, "00"),
        _ => return None,
    };
    let number = |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<i32>().ok())?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    // No zone is further from Greenwich than 14 hours.
    (hours <= 14 && minutes < 60).then(|| FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60)))?
}

#[cfg(test)]
mod tests {
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
            // It is the 21st there already.
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

    #[test]
    fn spans_are_short_and_can_be_typed_again() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m"), (9_000, "2h30m"), (9_001, "2h30m"), (259_200, "3d"), (259_201, "3d")]
        {
            assert_eq!(span_text(seconds), text);
            assert!(span(text).is_some());
        }
        assert!(!span_text(i64::MIN).is_empty());
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

//! Parses a date, a clock time and a zone.

use chrono::{DateTime, Days, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeZone, Utc};

use super::{BadTime, FORMS};

/// The part before the clock time.
#[derive(Clone, Copy)]
enum Day {
    Date(NaiveDate),
    /// Days before the current one, in the zone given with the clock time.
    Ago(u64),
}

/// A date or the name of a day, a clock time, and a zone.
pub(super) fn calendar<Tz: TimeZone>(text: &str, lower: &str, now: &DateTime<Tz>) -> Result<i64, BadTime> {
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
    // Spelled as RFC 3339 requires, whatever was typed.
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
    // No zone is more than 14 hours from UTC.
    (hours <= 14 && minutes < 60).then(|| FixedOffset::east_opt(sign * (hours * 3_600 + minutes * 60)))?
}

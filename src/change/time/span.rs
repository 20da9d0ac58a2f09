//! Parses and formats spans of time such as `2h30m`.

/// Whether it is a number followed by `M`, which means minutes to some and months to others. Beside hours it is clear.
pub(super) fn has_capital_m(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_suffix("ago").or_else(|| text.strip_suffix("AGO")).unwrap_or(text).trim_end();
    let number = text.strip_suffix('M').unwrap_or_default().trim_end();
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}

/// A span such as `90s`, `2h30m` or `7d` in seconds; `None` when it is malformed or too long.
pub fn seconds_of(text: &str) -> Option<i64> {
    if has_capital_m(text) {
        return None;
    }
    span(&text.trim().to_lowercase()).flatten()
}

/// A span such as `2h30m ago` in seconds; `None` when the text is not a span, `Some(None)` when it is too long.
pub(super) fn span(text: &str) -> Option<Option<i64>> {
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
            // The second unit is the one next to the first, or absent.
            break;
        }
        rest %= length;
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

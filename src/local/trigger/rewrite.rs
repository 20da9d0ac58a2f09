//! The trigger's changes to documents before the handler sees them.
//!
//! The trigger's JSON reader parses strings that look like dates as dates, unless host.json disables that, and numbers
//! with a fraction or an exponent as doubles. It serializes both in its own format. The same changes are made here,
//! because a handler that only works with unchanged text would otherwise pass here and fail in Azure.

use chrono::{DateTime, Duration, FixedOffset, NaiveDate, NaiveDateTime, SecondsFormat, TimeZone, Utc};

/// The maximum nesting depth; deeper documents are passed on unchanged.
const MAX_DEPTH: usize = 256;

/// The treatment of a string that looks like a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dates {
    /// Parsed as a date, and converted to this zone if it has an offset: the trigger's default.
    Parsed(FixedOffset),
    /// Kept as a string: host.json sets `dateParseHandling` to `None`.
    Kept,
}

/// Rewrites JSON text like the trigger. Text that is not JSON is returned unchanged.
pub(super) fn rewrite(text: &str, dates: Dates) -> String {
    let mut reader = Reader { text, bytes: text.as_bytes(), at: 0, dates };
    reader.skip_space();
    let value = reader.value(0);
    reader.skip_space();
    match value {
        Some(value) if reader.at == text.len() => value,
        _ => text.to_owned(),
    }
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    dates: Dates,
}

impl Reader<'_> {
    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.bytes.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.skip_space();
        match self.bytes.get(self.at)? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                let altered = match self.dates {
                    Dates::Parsed(zone) => date(&text, zone),
                    Dates::Kept => None,
                };
                Some(quoted(&altered.unwrap_or(text)))
            }
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                ["true", "false", "null"].into_iter().find(|word| self.text[self.at..].starts_with(word)).map(|word| {
                    self.at += word.len();
                    word.to_owned()
                })
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<String> {
        self.eat(b'{')?;
        // Of several equal names, the last one wins, at the position of the first.
        let mut members: Vec<(String, String)> = Vec::new();
        if self.eat(b'}').is_none() {
            loop {
                self.skip_space();
                let name = self.string()?;
                self.eat(b':')?;
                let value = self.value(depth + 1)?;
                match members.iter_mut().find(|(known, _)| *known == name) {
                    Some(member) => member.1 = value,
                    None => members.push((name, value)),
                }
                if self.eat(b',').is_none() {
                    break self.eat(b'}')?;
                }
            }
        }
        let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        Some(format!("{{{}}}", members.join(",")))
    }

    fn array(&mut self, depth: usize) -> Option<String> {
        self.eat(b'[')?;
        let mut items = Vec::new();
        if self.eat(b']').is_none() {
            loop {
                items.push(self.value(depth + 1)?);
                if self.eat(b',').is_none() {
                    break self.eat(b']')?;
                }
            }
        }
        Some(format!("[{}]", items.join(",")))
    }

    /// Reads a string; half of a surrogate pair becomes U+FFFD.
    fn string(&mut self) -> Option<String> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return None;
        }
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let plain = rest.find(['"', '\\'])?;
            out.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == b'"' {
                return Some(out);
            }
            let escape = *self.bytes.get(self.at)?;
            self.at += 1;
            match escape {
                b'"' | b'\\' | b'/' => out.push(char::from(escape)),
                b'b' => out.push('\u{8}'),
                b'f' => out.push('\u{c}'),
                b'n' => out.push('\n'),
                b'r' => out.push('\r'),
                b't' => out.push('\t'),
                b'u' => {
                    let first = self.hex4()?;
                    let pair = (0xD800..0xDC00).contains(&first) && self.text[self.at..].starts_with("\\u");
                    let second = if pair {
                        let back = self.at;
                        self.at += 2;
                        let second = self.hex4()?;
                        if !(0xDC00..0xE000).contains(&second) {
                            self.at = back;
                        }
                        Some(second).filter(|second| (0xDC00..0xE000).contains(second))
                    } else {
                        None
                    };
                    let units = [first, second.unwrap_or_default()];
                    let units = if second.is_some() { &units[..] } else { &units[..1] };
                    out.push_str(&String::from_utf16_lossy(units));
                }
                _ => return None,
            }
        }
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    fn number(&mut self) -> Option<String> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9')).unwrap_or(rest.len());
        self.at += end;
        let text = &rest[..end];
        if !text.contains(['.', 'e', 'E']) {
            return Some(text.to_owned());
        }
        let value: f64 = text.parse().ok()?;
        Some(if value.is_finite() { double(value) } else { text.to_owned() })
    }
}

/// Quotes a string like the trigger's JSON writer, which also escapes line separators.
pub(super) fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if !quoted.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return quoted;
    }
    quoted.replace('\u{85}', "\\u0085").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

/// Formats a double like .NET: shortest digits, an exponent from 1E+15 on and below 1E-04, and always a fraction.
fn double(value: f64) -> String {
    let short = format!("{value:e}");
    let (mantissa, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..15).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}E{sign}{:02}", exponent.abs())
}

/// Returns the host's text for a string that it parses as a date; `None` otherwise.
fn date(text: &str, zone: FixedOffset) -> Option<String> {
    if let Some(inner) = text.strip_prefix("/Date(").and_then(|rest| rest.strip_suffix(")/")) {
        return microsoft_date(inner, zone);
    }
    let bytes = text.as_bytes();
    if !(19..=40).contains(&text.len()) || !text.is_ascii() || !bytes[0].is_ascii_digit() || bytes[10] != b'T' {
        return None;
    }
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let fits =
        shape.iter().zip(bytes).all(|(want, byte)| if *want == b'd' { byte.is_ascii_digit() } else { want == byte });
    if !fits {
        return None;
    }
    let field = |from: usize, to: usize| text[from..to].parse::<u32>().ok();
    let day = NaiveDate::from_ymd_opt(i32::try_from(field(0, 4)?).ok()?, field(5, 7)?, field(8, 10)?)?;
    let mut rest = &text[19..];
    let mut ticks = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=7).contains(&digits) {
            return None;
        }
        ticks = format!("{:0<7}", &fraction[..digits]).parse().ok()?;
        rest = &fraction[digits..];
    }
    if field(0, 4)? == 0 {
        return None;
    }
    let time = day.and_hms_nano_opt(field(11, 13)?, field(14, 16)?, field(17, 19)?, ticks * 100)?;
    match rest {
        "" => Some(iso(time)),
        "Z" | "z" => Some(format!("{}Z", iso(time))),
        offset => Some(local(time - offset_of(offset)?, zone)),
    }
}

/// Parses `+hh:mm`, `+hhmm` or `+hh`.
fn offset_of(text: &str) -> Option<Duration> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let digits = match digits.len() {
        5 if digits.as_bytes()[2] == b':' => format!("{}{}", &digits[..2], &digits[3..]),
        4 => digits.to_owned(),
        2 => format!("{digits}00"),
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (digits[..2].parse().ok()?, digits[2..].parse().ok()?);
    (hours < 24 && minutes < 60).then(|| Duration::minutes(sign * (hours * 60 + minutes)))
}

fn microsoft_date(inner: &str, zone: FixedOffset) -> Option<String> {
    let sign = inner.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map(|(at, _)| at);
    let (millis, offset) = inner.split_at(sign.unwrap_or(inner.len()));
    let time: DateTime<Utc> = DateTime::from_timestamp_millis(millis.parse().ok()?)?;
    if offset.is_empty() {
        return Some(format!("{}Z", iso(time.naive_utc())));
    }
    offset_of(offset)?;
    Some(local(time.naive_utc(), zone))
}

fn local(utc: NaiveDateTime, zone: FixedOffset) -> String {
    let there = zone.from_utc_datetime(&utc);
    let offset = there.to_rfc3339_opts(SecondsFormat::Secs, false);
    format!("{}{}", iso(there.naive_local()), &offset[offset.len() - 6..])
}

/// Formats a time without a zone and without trailing zeros in the fraction.
fn iso(time: NaiveDateTime) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> String {
        rewrite(text, Dates::Parsed(FixedOffset::east_opt(0).unwrap()))
    }

    fn string(text: &str) -> String {
        utc(&format!("\"{text}\"")).trim_matches('"').to_owned()
    }

    #[test]
    fn dates_in_these_forms_are_unchanged() {
        for text in [
            "2020-01-01T00:00:00Z",
            "2020-01-01T00:00:00.1234567Z",
            "2020-01-01T00:00:00",
            "2020-01-01",
            "2020-01-01 00:00:00Z",
            "2020-01-01T00:00:00.123456789Z",
            "2020-01-01T00:00:00+00:00",
            "2020-13-01T00:00:00Z",
            "2020-01-01T00:00:00 ",
            "9999-12-31T23:59:59Z",
            "28035",
        ] {
            assert_eq!(string(text), text);
        }
    }

    #[test]
    fn trailing_zeros_of_a_fraction_are_dropped() {
        assert_eq!(string("2020-01-01T00:00:00.000Z"), "2020-01-01T00:00:00Z");
        assert_eq!(string("2020-01-01T00:00:00.120Z"), "2020-01-01T00:00:00.12Z");
        assert_eq!(string("2020-01-01T10:20:30.500"), "2020-01-01T10:20:30.5");
    }

    #[test]
    fn offsets_become_the_hosts_local_time() {
        assert_eq!(string("2020-01-01T00:00:00+02:00"), "2019-12-31T22:00:00+00:00");
        assert_eq!(string("2020-01-01T00:00:00-0500"), "2020-01-01T05:00:00+00:00");
        let zone = FixedOffset::east_opt(3600).unwrap();
        let text = rewrite("\"2020-01-01T00:00:00+00:00\"", Dates::Parsed(zone));
        assert_eq!(text, "\"2020-01-01T01:00:00+01:00\"");
    }

    #[test]
    fn the_old_microsoft_form_becomes_iso() {
        assert_eq!(string("/Date(1577836800000)/"), "2020-01-01T00:00:00Z");
        assert_eq!(string("/Date(1577836800000+0200)/"), "2020-01-01T00:00:00+00:00");
        assert_eq!(string("/Date(x)/"), "/Date(x)/");
    }

    #[test]
    fn numbers_with_a_fraction_or_an_exponent_are_rewritten() {
        let rows = [
            ("1e2", "100.0"),
            ("1.10", "1.1"),
            ("1e21", "1E+21"),
            ("1.0", "1.0"),
            ("-0.0", "-0.0"),
            ("1e15", "1E+15"),
            ("123456789012345.5", "123456789012345.5"),
            ("1.5e-7", "1.5E-07"),
            ("0.0001", "0.0001"),
            ("0.00001", "1E-05"),
        ];
        for (stored, delivered) in rows {
            assert_eq!(utc(stored), delivered, "{stored}");
        }
    }

    #[test]
    fn integers_of_any_size_are_unchanged() {
        for text in ["0", "-7", "9007199254740993", "123456789012345678901234567890"] {
            assert_eq!(utc(text), text);
        }
    }

    #[test]
    fn the_last_of_equal_names_wins_and_half_pairs_are_replaced() {
        assert_eq!(utc(r#"{"a":1,"b":2,"a":3}"#), r#"{"a":3,"b":2}"#);
        assert_eq!(utc(r#""\ud83d\ude00 \ud83d \udc00x""#), "\"\u{1F600} \u{FFFD} \u{FFFD}x\"");
        assert_eq!(utc(r#""\ud83dA""#), "\"\u{FFFD}A\"");
    }

    #[test]
    fn kept_dates_are_unchanged_and_numbers_are_still_rewritten() {
        let text = r#"{"id":"2020-01-01T00:00:00.000Z","n":1.10,"d":"/Date(1577836800000)/"}"#;
        let kept = r#"{"id":"2020-01-01T00:00:00.000Z","n":1.1,"d":"/Date(1577836800000)/"}"#;
        assert_eq!(rewrite(text, Dates::Kept), kept);
    }

    #[test]
    fn line_separators_are_escaped() {
        assert_eq!(utc("\"a\u{2028}b\u{2029}c\u{85}d\u{a0}\""), "\"a\\u2028b\\u2029c\\u0085d\u{a0}\"");
    }

    #[test]
    fn structure_and_other_text_are_unchanged_and_invalid_json_is_left_alone() {
        let text = r#"{"id":"1","list":[true,false,null,[],{}],"quote":"a\"b\\c\n","/Date(":"x"}"#;
        assert_eq!(utc(text), text);
        assert_eq!(utc("{\"a\": [1 , 2] }"), "{\"a\":[1,2]}");
        for broken in ["{", "[1,]", "{\"a\"}", "nope", "\"\\u12\"", "1 2"] {
            assert_eq!(utc(broken), broken);
        }
    }
}

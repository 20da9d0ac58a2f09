//! Which payloads the Functions host may have altered on the way.
//!
//! Unless host.json says otherwise, the host parses documents with date recognition on and writes them again: trailing
//! zeros of a fraction are cut, offsets become host-local, `/Date(..)/` becomes ISO (webjobs-sdk-extensions#898). Ids
//! and partition keys are not spared. Lone surrogates always become U+FFFD. What arrives cannot be told apart from a
//! text that was stored that way, so anything that could be the result of such a rewrite counts as altered. Numbers are
//! not looked at: Cosmos stores doubles, so their text is its own.

use serde::{Deserialize, Serialize};

/// How a document reached us, and what that does to its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// We read it from the service: nothing is altered.
    Direct,
    /// Through a Functions host that leaves dates alone: only half a surrogate pair changes.
    DatesKept,
    /// Through a Functions host that parses strings as dates and rewrites them.
    DatesRewritten,
}

/// Whether JSON text that came this way holds a string that may have been altered.
///
/// May say yes for a text that was not altered (then a re-read confirms it), never no for one that was.
pub fn may_be_altered(text: &str, delivery: Delivery) -> bool {
    let bytes = text.as_bytes();
    match delivery {
        Delivery::Direct => false,
        Delivery::DatesKept => has_replacement(text),
        Delivery::DatesRewritten => {
            memchr::memchr_iter(b'T', bytes).any(|t| is_rewritten_date(bytes, t)) || has_replacement(text)
        }
    }
}

/// The same for a single string, such as an id.
pub fn string_may_be_altered(value: &str, delivery: Delivery) -> bool {
    match delivery {
        Delivery::Direct => false,
        Delivery::DatesKept => has_replacement(value),
        // A string that may be a date has nothing in it that JSON would escape.
        Delivery::DatesRewritten if value.contains('T') => may_be_altered(&format!("\"{value}\""), delivery),
        Delivery::DatesRewritten => has_replacement(value),
    }
}

/// Whether U+FFFD is in it, literally or escaped.
fn has_replacement(text: &str) -> bool {
    const REPLACEMENT: &str = "\u{FFFD}";
    let bytes = text.as_bytes();
    // Both begin with a byte that hardly any document has, so that byte is searched for first, in one pass.
    memchr::memchr2_iter(b'\\', REPLACEMENT.as_bytes()[0], bytes).any(|at| {
        let rest = &bytes[at..];
        rest.starts_with(REPLACEMENT.as_bytes()) || rest.starts_with(b"\\ufffd") || rest.starts_with(b"\\uFFFD")
    })
}

/// Whether the `T` at `t` is part of a whole string `"yyyy-MM-ddTHH:mm:ss[.f{1,7}][Z|±hh:mm]"` whose text the host
/// could have produced from another one.
fn is_rewritten_date(bytes: &[u8], t: usize) -> bool {
    const DATE: &[u8] = b"\"0000-00-00";
    const TIME: &[u8] = b"00:00:00";
    let Some(start) = t.checked_sub(DATE.len()) else { return false };
    if !matches(&bytes[start..t], DATE) {
        return false;
    }
    let Some(time) = bytes.get(t + 1..t + 1 + TIME.len()) else { return false };
    if !matches(time, TIME) {
        return false;
    }
    let mut rest = &bytes[t + 1 + TIME.len()..];
    let mut digits = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        // The host writes at most 7 fractional digits and no trailing zero: such a text passed untouched.
        if digits == 0 || digits > 7 || fraction[digits - 1] == b'0' {
            return false;
        }
        rest = &fraction[digits..];
    }
    match rest {
        // All 7 digits and Z: there was no zero to cut and no zone to change.
        [b'Z', b'"', ..] => digits < 7,
        [b'"', ..] => digits < 7,
        [b'+' | b'-', zone @ ..] => matches!(zone.get(..6), Some(z) if matches(&z[..5], b"00:00") && z[5] == b'"'),
        _ => false,
    }
}

/// Compares against a pattern in which `0` stands for any digit.
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    text.len() == pattern.len()
        && text.iter().zip(pattern).all(|(t, p)| if *p == b'0' { t.is_ascii_digit() } else { t == p })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_host_may_have_written_is_suspect() {
        for delivered in [
            // from "...00.000Z" and "...00.120Z"
            "2020-01-01T00:00:00Z",
            "2020-01-01T00:00:00.12Z",
            // from an offset, on a UTC host and elsewhere
            "2019-12-31T22:00:00+00:00",
            "2020-01-01T05:00:00.1234567-05:00",
            // from a fraction without a zone
            "2020-01-01T00:00:00.5",
            "2020-01-01T00:00:00",
            // from a lone surrogate
            "a\u{FFFD}b",
        ] {
            let text = serde_json::json!({"x": [{"deep": delivered}]}).to_string();
            assert!(may_be_altered(&text, Delivery::DatesRewritten), "{text}");
            assert!(!may_be_altered(&text, Delivery::Direct), "{text}");
            assert_eq!(may_be_altered(&text, Delivery::DatesKept), delivered.contains('\u{FFFD}'), "{text}");
            assert!(string_may_be_altered(delivered, Delivery::DatesRewritten), "{delivered}");
        }
        assert!(may_be_altered(r#"{"x":"\ufffd"}"#, Delivery::DatesKept));
    }

    #[test]
    fn what_the_host_cannot_have_written_needs_no_second_read() {
        for delivered in [
            "2020-01-01T00:00:00.1234567Z",
            "2020-01-01T00:00:00.120Z",
            "2020-01-01T00:00:00.123456789Z",
            "2020-01-01",
            "2020-06-23 15:43:28",
            "at 2020-01-01T00:00:00Z sharp",
            "2020-01-01T00:00:00Zulu",
            "TTTT",
            "T",
            "",
        ] {
            let text = serde_json::json!({ "x": delivered }).to_string();
            assert!(!may_be_altered(&text, Delivery::DatesRewritten), "{text}");
        }
        assert!(!may_be_altered("T", Delivery::DatesRewritten));
        assert!(!may_be_altered("\"2020-01-01T", Delivery::DatesRewritten));
    }
}

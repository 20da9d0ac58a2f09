//! A JSON object as the text it arrived in: its members are located once and never parsed into values.

use std::borrow::Cow;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::record::{CHANGE, ORIGINAL_ID, SYSTEM};

/// The members of a JSON object, in order, as slices of the original text. The spelling of numbers, key order,
/// duplicate keys and escapes all stay as they were, because nothing is parsed unless it is asked for.
#[derive(Debug, Clone, Default)]
pub struct RawDocument<'a> {
    members: Vec<Member<'a>>,
}

/// One `"key": value` pair.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    /// The key with its quotes and escapes.
    pub key: &'a RawValue,
    /// The value's text.
    pub value: &'a RawValue,
    /// Whether the key is written with an escape, which is rare: determined once, used for every lookup.
    escaped: bool,
    /// The key's meaning to a record: determined once, and asked for more often than any name.
    reserved: Option<Reserved>,
}

/// A name that is not only the user's: the service, the feed or the record format gives it a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// `id`
    Id,
    /// `ttl`
    Ttl,
    /// `_change`, the record's own member.
    Change,
    /// `_originalId`, the record's own member.
    OriginalId,
    /// A system property, which the service adds to every item.
    System,
    /// `_lsn`, which the latest-version feed adds.
    Lsn,
}

impl Reserved {
    fn of(name: &str) -> Option<Self> {
        match name {
            "id" => Some(Self::Id),
            "ttl" => Some(Self::Ttl),
            "_lsn" => Some(Self::Lsn),
            CHANGE => Some(Self::Change),
            ORIGINAL_ID => Some(Self::OriginalId),
            _ if SYSTEM.contains(&name) => Some(Self::System),
            _ => None,
        }
    }

    /// Whether a record moves it aside, into `_change`.
    pub fn is_moved(self) -> bool {
        matches!(self, Self::Ttl | Self::Change | Self::OriginalId)
    }
}

impl<'a> Member<'a> {
    fn new(key: &'a RawValue, value: &'a RawValue) -> Self {
        let text = key.get();
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        // Every reserved name begins with one of these; an escape may hide one.
        let (escaped, reserved) = match inner.as_bytes().first() {
            Some(b'_' | b'i' | b't') if !inner.contains('\\') => (false, Reserved::of(inner)),
            _ if inner.contains('\\') => (true, Reserved::of(&unescape(text))),
            _ => (false, None),
        };
        Self { key, value, escaped, reserved }
    }

    /// The key's meaning to a record; `None` for a name that is only the user's.
    pub fn reserved(&self) -> Option<Reserved> {
        self.reserved
    }

    /// The same key with another value.
    pub fn with_value(self, value: &'a RawValue) -> Self {
        Self { value, ..self }
    }

    /// The unescaped key; borrowed unless it has an escape.
    pub fn name(&self) -> Cow<'a, str> {
        unescape(self.key.get())
    }

    /// Whether the key means `name`; in the common case without escapes this compares bytes.
    pub fn is(&self, name: &str) -> bool {
        let text = self.key.get();
        let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
        inner == name || (self.escaped && self.name() == name)
    }
}

impl<'a> RawDocument<'a> {
    /// Locates the members of the object in `text`.
    pub fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The members in order.
    pub fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// The value of a member; of duplicates the last one, as in every common parser.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.iter().rev().find(|m| m.is(name)).map(|m| m.value)
    }

    /// The value of a member when it is a string.
    pub fn get_str(&self, name: &str) -> Option<Cow<'a, str>> {
        self.get(name).filter(|v| v.get().starts_with('"')).map(|v| unescape(v.get()))
    }

    /// The value of a member when it is a whole number (also written as `1.0`, which hosts do).
    pub fn get_i64(&self, name: &str) -> Option<i64> {
        as_i64(self.get(name)?)
    }
}

/// A member that is present even when it is `null`: for serde's `deserialize_with`, since an `Option` swallows `null`.
pub fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// A raw value as a whole number, when it is one.
pub fn as_i64(raw: &RawValue) -> Option<i64> {
    let text = raw.get();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
    })
}

/// JSON text on one line: its line ends, which only occur between tokens, become blanks.
pub fn without_line_ends(text: &str) -> Cow<'_, str> {
    match memchr::memchr2(b'\n', b'\r', text.as_bytes()) {
        Some(_) => text.replace(['\n', '\r'], " ").into(),
        None => text.into(),
    }
}

/// The value of a JSON string, given with its quotes; borrowed when nothing is escaped. A lone surrogate, which no Rust
/// string can hold, becomes U+FFFD, as with the host.
pub fn unescape(text: &str) -> Cow<'_, str> {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    match serde_json::from_str::<String>(text) {
        Ok(string) => Cow::Owned(string),
        Err(_) => Cow::Owned(unescape_lossy(inner)),
    }
}

/// The etag in an item's text.
pub fn etag_of(text: &str) -> Option<String> {
    RawDocument::parse(text).ok()?.get_str("_etag").map(Cow::into_owned)
}

/// A raw value as a string, when it is one. Lenient, because a hand-made payload may hold something else here: half a
/// surrogate pair, or no string at all, must not hide the version that it belongs to.
pub fn string_of(raw: &RawValue) -> Option<String> {
    raw.get().starts_with('"').then(|| unescape(raw.get()).into_owned())
}

fn unescape_lossy(inner: &str) -> String {
    // Only reached for lone surrogates: replaces each \uD800..\uDFFF without a partner, then parses again.
    let mut fixed = String::with_capacity(inner.len() + 2);
    fixed.push('"');
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        fixed.push_str(before);
        let unit = |s: &str| s.strip_prefix("\\u").and_then(|h| u16::from_str_radix(h.get(..4)?, 16).ok());
        match unit(escape) {
            Some(high @ 0xD800..=0xDBFF) if unit(&escape[6..]).is_some_and(|low| (0xDC00..=0xDFFF).contains(&low)) => {
                let _ = high;
                fixed.push_str(&escape[..12]);
                rest = &escape[12..];
            }
            Some(0xD800..=0xDFFF) => {
                fixed.push('\u{FFFD}');
                rest = &escape[6..];
            }
            Some(_) => {
                fixed.push_str(&escape[..6]);
                rest = &escape[6..];
            }
            None => {
                let end = escape.char_indices().nth(2).map_or(escape.len(), |(i, _)| i);
                fixed.push_str(&escape[..end]);
                rest = &escape[end..];
            }
        }
    }
    fixed.push_str(rest);
    fixed.push('"');
    serde_json::from_str(&fixed).unwrap_or_else(|_| inner.to_owned())
}

impl<'de: 'a, 'a> Deserialize<'de> for RawDocument<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = RawDocument<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // 16 holds a typical document and its system properties without growing.
                let mut members = Vec::with_capacity(16);
                while let Some(key) = map.next_key::<&'de RawValue>()? {
                    members.push(Member::new(key, map.next_value().map_err(de::Error::custom)?));
                }
                Ok(RawDocument { members })
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// How many levels of objects and arrays a JSON text has; the outermost is the first.
pub fn depth(text: impl AsRef<[u8]>) -> usize {
    let mut rest = text.as_ref();
    let (mut depth, mut deepest) = (0_usize, 0);
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => rest = behind_string(rest),
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The rest of the text after a string that has begun.
fn behind_string(mut text: &[u8]) -> &[u8] {
    while let Some(found) = memchr::memchr2(b'"', b'\\', text) {
        let is_end = text.get(found) == Some(&b'"');
        // A byte after a backslash does not end the string.
        text = text.get(found + if is_end { 1 } else { 2 }..).unwrap_or_default();
        if is_end {
            return text;
        }
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_and_brackets_in_text_are_none() {
        for (text, levels) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{"b":1}],"c":{}}"#, 3),
            (r#"{"a":"[{\"[","b":[]}"#, 2),
            (r#"{"a{[\"[[":["]]",{}]}"#, 3),
            ("", 0),
        ] {
            assert_eq!(depth(text), levels, "{text}");
        }
    }

    #[test]
    fn text_is_kept_as_it_was() {
        let doc = RawDocument::parse(r#" { "a" : 1.10 , "\u0062":[ 1,2 ], "a": 1e400, "z":"\ud83d\ude00" } "#).unwrap();
        let texts: Vec<_> = doc.members().iter().map(|m| (m.key.get(), m.value.get())).collect();
        assert_eq!(
            texts,
            [("\"a\"", "1.10"), ("\"\\u0062\"", "[ 1,2 ]"), ("\"a\"", "1e400"), ("\"z\"", "\"\\ud83d\\ude00\"")]
        );
        assert_eq!(doc.get("a").unwrap().get(), "1e400");
        assert_eq!(doc.get("b").unwrap().get(), "[ 1,2 ]");
        assert_eq!(doc.get_str("z").unwrap(), "😀");
    }

    #[test]
    fn whole_numbers_are_read_in_every_spelling_and_nothing_else() {
        let doc = RawDocument::parse(r#"{"a":1592926844,"b":1.0,"c":1.5,"d":"1","e":1e3,"f":1e300}"#).unwrap();
        assert_eq!(doc.get_i64("a"), Some(1_592_926_844));
        assert_eq!(doc.get_i64("b"), Some(1));
        assert_eq!(doc.get_i64("e"), Some(1000));
        for name in ["c", "d", "f", "none"] {
            assert_eq!(doc.get_i64(name), None, "{name}");
        }
    }

    #[test]
    fn lone_surrogates_become_the_replacement_character() {
        assert_eq!(unescape(r#""a\ud800b\\u\n\ud83d\ude00\udfff""#), "a\u{FFFD}b\\u\n😀\u{FFFD}");
    }

    #[test]
    fn a_thousand_levels_do_not_overflow_the_stack() {
        let text = format!("{{\"deep\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(RawDocument::parse(&text).unwrap().members().len(), 1);
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["[]", "1", "\"x\"", "null", "{", "{\"a\"}", "{} x"] {
            assert!(RawDocument::parse(text).is_err(), "{text}");
        }
    }
}

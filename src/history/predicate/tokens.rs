//! Splits Cosmos SQL into tokens, as far as a predicate needs it.

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// An identifier or a keyword.
    Name,
    /// A parameter, with its `@`.
    Param,
    /// A string with its quotes.
    Text,
    /// A number.
    Number,
    /// Anything else.
    Sign,
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'t> {
    pub(super) kind: TokenKind,
    pub(super) text: &'t str,
    pub(super) start: usize,
}

/// The tokens of a text, without blanks and comments. An unterminated string extends to the end of the text.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    const SIGNS: [&str; 6] = ["!=", "<>", "<=", ">=", "||", "??"];
    let bytes = text.as_bytes();
    let mut all = Vec::new();
    let mut start = 0;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let run = |from: usize, is: &dyn Fn(u8) -> bool| {
        bytes[from..].iter().position(|b| !is(*b)).map_or(bytes.len(), |n| from + n)
    };
    while let Some(&byte) = bytes.get(start) {
        let (kind, end) = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {
                start += 1;
                continue;
            }
            b'-' if bytes.get(start + 1) == Some(&b'-') => {
                start = run(start, &|b| b != b'\n');
                continue;
            }
            b'\'' | b'"' => {
                let mut end = start + 1;
                while end < bytes.len() && bytes[end] != byte {
                    end += if bytes[end] == b'\\' { 2 } else { 1 };
                }
                (TokenKind::Text, (end + 1).min(bytes.len()))
            }
            b'@' => (TokenKind::Param, run(start + 1, &is_name)),
            b'0'..=b'9' => {
                let mut end = run(start, &|b| b.is_ascii_digit() || b == b'.');
                if matches!(bytes.get(end), Some(b'e' | b'E')) {
                    let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
                    end = run(end + 1 + sign, &|b| b.is_ascii_digit());
                }
                (TokenKind::Number, end)
            }
            b if is_name(b) => (TokenKind::Name, run(start, &is_name)),
            _ => {
                let long = SIGNS.iter().any(|sign| bytes[start..].starts_with(sign.as_bytes()));
                (TokenKind::Sign, start + if long { 2 } else { 1 })
            }
        };
        // A backslash before a character of several bytes: skip the whole character.
        let end = (end..=bytes.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(bytes.len());
        all.push(Token { kind, text: &text[start..end], start });
        start = end;
    }
    all
}

/// The meaning of a string with its quotes; `None` when it is unterminated or has an unknown escape.
pub(super) fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next()?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    // Its escapes are those of JSON, plus the quote's own.
    let mut json = String::from("\"");
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                '\'' => json.push('\''),
                other => json.extend(['\\', other]),
            },
            '"' => json.push_str("\\\""),
            c => json.push(c),
        }
    }
    json.push('"');
    serde_json::from_str(&json).ok()
}

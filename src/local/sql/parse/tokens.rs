//! Splits text into tokens.

use serde_json::Value;

use crate::local::sql::SqlError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum SqlToken {
    Word(String),
    Parameter(String),
    Text(String),
    Number(Value),
    Sign(&'static str),
    End,
}

/// The longest signs come first.
const SIGNS: &[&str] = &[
    ">>>", "<<", ">>", "<=", ">=", "!=", "<>", "||", "??", "(", ")", "[", "]", "{", "}", ",", ".", ":", "?", "=", "<",
    ">", "+", "-", "*", "/", "%", "&", "|", "^", "~",
];

pub(super) fn invalid(message: impl Into<String>) -> SqlError {
    SqlError::Invalid(message.into())
}

pub(super) fn tokens(text: &str) -> Result<Vec<SqlToken>, SqlError> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { break };
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.find('\n').map_or("", |end| &comment[end..]);
            continue;
        }
        if first == '"' || first == '\'' {
            let (value, after) = text_literal(rest, first)?;
            found.push(SqlToken::Text(value));
            rest = after;
        } else if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let (value, after) = number(rest)?;
            found.push(SqlToken::Number(value));
            rest = after;
        } else if first == '_' || first == '@' || first.is_alphabetic() || first == '$' {
            let end = rest[first.len_utf8()..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
            let end = end.map_or(rest.len(), |end| end + first.len_utf8());
            let word = rest[..end].to_owned();
            found.push(if first == '@' { SqlToken::Parameter(word) } else { SqlToken::Word(word) });
            rest = &rest[end..];
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push(SqlToken::Sign(sign));
            rest = &rest[sign.len()..];
        } else {
            return Err(invalid(format!("unexpected character {first:?}")));
        }
    }
    found.push(SqlToken::End);
    Ok(found)
}

pub(super) fn number(text: &str) -> Result<(Value, &str), SqlError> {
    let mut end = 0;
    let bytes = text.as_bytes();
    while end < bytes.len() {
        let after_exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E');
        match bytes[end] {
            b'0'..=b'9' | b'.' | b'e' | b'E' => end += 1,
            b'+' | b'-' if after_exponent => end += 1,
            _ => break,
        }
    }
    let word = &text[..end];
    let value = match word.parse::<i64>() {
        Ok(whole) => Value::from(whole),
        Err(_) => {
            word.parse::<f64>().ok().and_then(number_of).ok_or_else(|| invalid(format!("{word} is not a number")))?
        }
    };
    Ok((value, &text[end..]))
}

pub(super) fn number_of(value: f64) -> Option<Value> {
    serde_json::Number::from_f64(value).map(Value::Number)
}

fn text_literal(text: &str, quote: char) -> Result<(String, &str), SqlError> {
    // UTF-16, because an escape may be half of a pair.
    let mut out: Vec<u16> = Vec::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, character)) = chars.next() {
        if character == quote {
            return Ok((String::from_utf16_lossy(&out), &text[at + 1..]));
        }
        let mut push = |character: char| out.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        if character != '\\' {
            push(character);
            continue;
        }
        let Some((at, escape)) = chars.next() else { break };
        match escape {
            'n' => push('\n'),
            't' => push('\t'),
            'r' => push('\r'),
            'b' => push('\u{8}'),
            'f' => push('\u{c}'),
            'u' => {
                let unit = text.get(at + 1..at + 5).and_then(|digits| u16::from_str_radix(digits, 16).ok());
                out.push(unit.ok_or_else(|| invalid("\\u needs four hexadecimal digits"))?);
                for _ in 0..4 {
                    chars.next();
                }
            }
            other => push(other),
        }
    }
    Err(invalid("a string has no end"))
}

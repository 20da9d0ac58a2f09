//! Prints single documents and the fields in which two differ, and quotes words for a shell.

use std::borrow::Cow;

use clap::builder::styling::AnsiColor;

use super::{
    printable,
    rows::{Cell, Look, object_text, shorten},
};
use crate::change::diff::Difference;

/// The text of one object with these members.
pub fn object(members: &[(&str, Cell<'_>)]) -> String {
    object_text(members.iter().map(|(name, cell)| (*name, cell)))
}

/// A document's text, exactly, or indented without touching its values.
pub fn document(text: &str, indented: bool, look: Look) -> Cow<'_, str> {
    let text = if indented { Cow::Owned(pretty(text)) } else { Cow::Borrowed(text) };
    // JSON allows a few control characters in strings that a terminal would obey; their escapes mean the same.
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    if look == Look::Plain || !text.contains(harmful) {
        return text;
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if harmful(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
        shown
    }))
}

/// How much of a long value is shown on a terminal.
const LONGEST_SHOWN: usize = 200;

/// Fields that differ, one per line: `~ /path  before -> after`, `+ /path  value`, `- /path  value`. On a terminal,
/// long values are shortened.
pub fn differences(differences: &[Difference<'_>], look: Look, coloured: bool) -> String {
    difference_lines(differences, coloured, (look == Look::Terminal).then_some(LONGEST_SHOWN))
}

pub(super) fn difference_lines(differences: &[Difference<'_>], coloured: bool, limit: Option<usize>) -> String {
    const WIDEST_PATH: usize = 40;
    let paths: Vec<String> = differences.iter().map(|d| printable(&d.path_text()).into_owned()).collect();
    let width = |path: &String| path.chars().count();
    let column = paths.iter().map(width).filter(|w| *w <= WIDEST_PATH).max().unwrap_or(0);
    let shown = |text: &str| {
        let text = printable(text).into_owned();
        limit.map_or(text.clone(), |limit| shorten(&text, limit))
    };
    let mut out = String::new();
    for (difference, path) in differences.iter().zip(&paths) {
        let (mark, colour, value) = match (difference.before, difference.after) {
            (None, after) => ('+', AnsiColor::Green, shown(after.unwrap_or_default())),
            (Some(before), None) => ('-', AnsiColor::Red, shown(before)),
            (Some(before), Some(after)) => ('~', AnsiColor::Yellow, format!("{} -> {}", shown(before), shown(after))),
        };
        let path = if path.is_empty() { "/" } else { path };
        let line = format!("{mark} {path:column$}  {value}");
        let style = colour.on_default();
        if coloured {
            out.push_str(&format!("{style}{line}{style:#}\n"));
        } else {
            out.push_str(&format!("{line}\n"));
        }
    }
    out
}

/// JSON text with line breaks and indentation; strings and numbers keep their text.
pub(super) fn pretty(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut chars = text.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(MAX_INDENT)));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                match chars.next_if(|c| matches!(c, '}' | ']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(&mut out, depth);
                    }
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' => {}
            other => out.push(other),
        }
    }
    out
}

/// Deeper levels are not indented further: the text must not grow with the square of its depth.
pub(super) const MAX_INDENT: usize = 64;

/// Quotes a word for a POSIX shell.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-=.,:@/".contains(c);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

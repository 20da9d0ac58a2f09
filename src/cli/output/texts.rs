//! Single documents, and the fields in which two differ.

use std::{
    borrow::Cow,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use clap::builder::styling::AnsiColor;

use super::{
    super::CliError,
    is_coloured, printable,
    rows::{Cell, object_text, shorten},
    stdout_failed,
};
use crate::{change::diff::Difference, surroundings};

/// Prints one object with these members on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn object(members: &[(&str, Cell<'_>)]) -> Result<(), CliError> {
    lines(&object_text(members.iter().map(|(name, cell)| (*name, cell))))
}

/// Prints a document's text on stdout, exactly, or indented without touching its values.
///
/// # Errors
/// When stdout cannot be written.
pub fn document(text: &str, indented: bool) -> Result<(), CliError> {
    let text = if indented { Cow::Owned(pretty(text)) } else { Cow::Borrowed(text) };
    if !io::stdout().is_terminal() {
        return lines(&text);
    }
    // JSON allows a few control characters in strings that a terminal would obey; their escapes mean the same.
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    lines(&text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if harmful(c) {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
        shown
    }))
}

/// Prints what the next lines are about, on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub fn heading(text: &str) -> Result<(), CliError> {
    lines(&printable(text))
}

/// Prints fields that differ on stdout, a line for each; coloured on a terminal, unless `NO_COLOR` is set.
///
/// # Errors
/// When stdout cannot be written.
pub fn differences(differences: &[Difference<'_>]) -> Result<(), CliError> {
    let terminal = io::stdout().is_terminal();
    let coloured = is_coloured();
    let limit = if terminal { Some(LONGEST_SHOWN) } else { None };
    if differences.is_empty() {
        return Ok(());
    }
    lines(difference_lines(differences, coloured, limit).trim_end())
}

/// How much of a long value a terminal gets.
pub(super) const LONGEST_SHOWN: usize = 200;

/// The lines of [`differences`]: `~ /path  before -> after`, `+ /path  value`, `- /path  value`.
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

pub(super) fn lines(text: &str) -> Result<(), CliError> {
    let mut out = BufWriter::new(surroundings::stdout());
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(stdout_failed)
}

/// JSON text with line breaks and indents; strings and numbers stay the text they are.
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

/// Deeper levels are not indented further: text must not grow with the square of its depth.
pub(super) const MAX_INDENT: usize = 64;

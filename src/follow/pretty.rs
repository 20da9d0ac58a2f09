//! Events for people: a line that says what happened, and below it the fields that differ.

use chrono::DateTime;

use super::Event;
use crate::change::{Op, diff, pointer, raw::RawDocument};

/// The longest value that is shown; the JSON form has all of it.
const MAX_VALUE: usize = 80;

/// The event as text, line ends included, without control characters from the document.
pub fn pretty(event: &Event<'_>, colour: bool) -> String {
    let time = event
        .ts
        .and_then(|ts| DateTime::from_timestamp(ts, 0))
        .map_or_else(|| "-".to_owned(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
    let paint = |code: &str, text: &str| {
        if colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    };
    let code = match event.op {
        Op::Delete | Op::Expire => "31",
        Op::Create => "32",
        _ => "33",
    };
    let lsn = event.lsn.map_or_else(String::new, |lsn| format!("  lsn {lsn}"));
    let mut text = format!(
        "{time}  {}  {}  {}{}\n",
        paint(code, &format!("{:7}", event.op.as_str())),
        harmless(&event.id),
        harmless(&event.pk.to_string()),
        paint("2", &lsn),
    );
    let mut line = |sign: &str, code: &str, path: &str, value: &str| {
        text.push_str(&format!("  {} {}  {value}\n", paint(code, sign), harmless(path)));
    };
    match (&event.previous, &event.doc) {
        (Some(before), Some(after)) => {
            for difference in diff::between(before, after) {
                let path = difference.path_text();
                match (difference.before, difference.after) {
                    (Some(before), Some(after)) => {
                        line("~", "33", &path, &format!("{} -> {}", short(before), short(after)));
                    }
                    (None, Some(after)) => line("+", "32", &path, &short(after)),
                    (Some(before), None) => line("-", "31", &path, &short(before)),
                    (None, None) => {}
                }
            }
        }
        (None, Some(document)) if event.changed.is_some() => {
            for changed in event.changed.iter().flatten() {
                let path: Vec<String> = pointer::names(changed).collect();
                let value = diff::value_at(document, &path).map_or_else(|| "is gone".to_owned(), short);
                line("~", "33", changed, &value);
            }
        }
        (None, Some(document)) => {
            for member in RawDocument::parse(document).unwrap_or_default().members() {
                line("+", "32", &format!("/{}", member.name()), &short(member.value.get()));
            }
        }
        _ => {}
    }
    text
}

fn short(value: &str) -> String {
    let mut shown: String = harmless(value).chars().take(MAX_VALUE).collect();
    if value.chars().nth(MAX_VALUE).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Strips what a terminal would interpret.
fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::key::PartitionKey;

    #[test]
    fn an_event_says_what_differs_and_obeys_no_escape_sequence() {
        let event = Event {
            op: Op::Replace,
            id: "28036\u{1b}[2J".into(),
            pk: PartitionKey::parse("28036").unwrap(),
            ts: Some(1_795_250_680),
            lsn: Some(659),
            version: String::new(),
            doc: Some(format!(r#"{{"seq":2,"long":"{}","new":null}}"#, "x".repeat(200)).into()),
            previous: Some(r#"{"seq":1,"long":"","old":true}"#.into()),
            changed: None,
            partial: None,
            etag: None,
            native: None,
        };
        let text = pretty(&event, false);
        assert!(text.starts_with("2026-11-21T08:44:40Z  replace  28036 [2J  28036  lsn 659\n"), "{text}");
        assert!(
            text.contains("  ~ /seq  1 -> 2\n")
                && text.contains("  - /old  true\n")
                && text.contains("  + /new  null\n")
        );
        assert!(text.contains("xxx...\n") && !text.contains('\u{1b}'), "{text}");
        assert!(pretty(&event, true).contains("\u{1b}[33mreplace\u{1b}[0m"));
    }
}

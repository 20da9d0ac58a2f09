//! A list of documents: one JSON object per line with id and partition key, and optionally the version or the moment
//! that the document goes back to. `find` prints such lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Value, json};

use crate::change::key::{ItemKey, KeyPaths, PartitionKey};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadList {
    /// A line is malformed.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number.
        line: usize,
        /// The problem with it.
        problem: String,
    },
    /// A partition key has more or fewer components than the container's.
    #[error("line {line}: the key {key} has {} of {paths}", components(key, paths))]
    Key {
        /// The line's number.
        line: usize,
        /// The key.
        key: PartitionKey,
        /// The container's.
        paths: KeyPaths,
    },
    /// There are no lines.
    #[error("the list names no document")]
    Empty,
}

fn components(key: &PartitionKey, paths: &KeyPaths) -> String {
    match key.0.len() {
        1 => format!("1 component, not the {}", paths.len()),
        given => format!("{given} components, not the {}", paths.len()),
    }
}

/// A document of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedDocument {
    /// Its identity.
    pub item: ItemKey,
    /// Its goal, if its line has one.
    pub then: Option<ListedGoal>,
    /// The number of its line.
    pub line: usize,
    /// Its container, if its line names one.
    pub container: Option<String>,
}

/// The goal of a document in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedGoal {
    /// A version: a record's id, an LSN or an etag.
    Version(String),
    /// No document: there was none before.
    NoDocument,
    /// A time, as a person writes it.
    At(String),
}

/// Why a line does not say what its document goes back to.
#[derive(Debug, thiserror::Error)]
enum BadThen {
    #[error("{0} is {1}, neither text nor a number")]
    NoText(&'static str, Value),
    #[error("it has more than one of before, version and at")]
    Several,
    #[error("it has the member {0}, which restore alone goes by: leave it out")]
    OfAnother(&'static str),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    pk: Value,
    #[serde(default, deserialize_with = "there")]
    before: Option<Option<String>>,
    #[serde(default)]
    version: Option<Value>,
    #[serde(default)]
    at: Option<Value>,
    #[serde(default)]
    container: Option<String>,
    // Further members that `find` prints.
    #[serde(default, rename = "time")]
    _time: IgnoredAny,
    #[serde(default, rename = "ts")]
    _ts: IgnoredAny,
    #[serde(default, rename = "op")]
    _op: IgnoredAny,
    #[serde(default, rename = "lsn")]
    _lsn: IgnoredAny,
    #[serde(default, rename = "record")]
    _record: IgnoredAny,
    #[serde(default, rename = "still")]
    _still: IgnoredAny,
    #[serde(default, rename = "changed")]
    _changed: IgnoredAny,
    #[serde(default, rename = "actor")]
    _actor: IgnoredAny,
    #[serde(default, rename = "notes")]
    _notes: IgnoredAny,
}

/// A member that is present, even when it is null.
fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Line {
    fn then(&self) -> Result<Option<ListedGoal>, BadThen> {
        let text = |name: &'static str, value: &Value| match value {
            Value::String(text) if !text.is_empty() => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            other => Err(BadThen::NoText(name, other.clone())),
        };
        let version = self.version.as_ref().map(|value| text("version", value).map(ListedGoal::Version)).transpose()?;
        let at = self.at.as_ref().map(|value| text("at", value).map(ListedGoal::At)).transpose()?;
        let before = self.before.clone().map(|before| before.map_or(ListedGoal::NoDocument, ListedGoal::Version));
        let mut all = [before, version, at].into_iter().flatten();
        match (all.next(), all.next()) {
            (then, None) => Ok(then),
            (_, Some(_)) => Err(BadThen::Several),
        }
    }
}

/// Words the parser's error for a line whose number is already known.
fn said(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// The documents of a list for a container with this key, including duplicates.
///
/// # Errors
/// When a line is wrong, or there is none.
pub(super) fn listed(text: &str, paths: &KeyPaths) -> Result<Vec<ListedDocument>, BadList> {
    lines(text, paths, |_| Ok(()))
}

/// Programs on Windows put a byte order mark at the beginning of a file.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn lines(
    text: &str,
    paths: &KeyPaths,
    check: impl Fn(&Line) -> Result<(), BadThen>,
) -> Result<Vec<ListedDocument>, BadList> {
    let mut all = Vec::new();
    for (number, line) in without_mark(text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem| BadList::Line { line: number + 1, problem };
        let line: Line = serde_json::from_str(line).map_err(|e| wrong(said(&e)))?;
        let then = check(&line).and_then(|()| line.then()).map_err(|e| wrong(e.to_string()))?;
        let pk = if line.pk.is_array() { line.pk } else { json!([line.pk]) };
        let item = ItemKey::parse_json(&line.id, &pk).map_err(wrong)?;
        if item.partition_key.0.len() != paths.len() {
            return Err(BadList::Key { line: number + 1, key: item.partition_key, paths: paths.clone() });
        }
        all.push(ListedDocument { item, then, line: number + 1, container: line.container });
    }
    if all.is_empty() { Err(BadList::Empty) } else { Ok(all) }
}

/// Whether a line of a list names its container.
pub(super) fn names_containers(text: &str) -> bool {
    let line = |line: &str| serde_json::from_str::<Line>(line).is_ok_and(|line| line.container.is_some());
    without_mark(text).lines().any(line)
}

/// Splits a list of documents in several containers into one for each; lines keep their numbers.
///
/// # Errors
/// When a line does not name its container, or there is none.
pub(super) fn by_container(text: &str) -> Result<BTreeMap<String, String>, BadList> {
    #[derive(Deserialize)]
    struct In {
        container: String,
    }
    let mut lists: BTreeMap<String, (usize, String)> = BTreeMap::new();
    for (number, line) in without_mark(text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |e: serde_json::Error| BadList::Line { line: number + 1, problem: e.to_string() };
        let In { container } = serde_json::from_str(line).map_err(wrong)?;
        let (lines, list) = lists.entry(container).or_default();
        list.push_str(&"\n".repeat(number - *lines));
        list.push_str(line);
        *lines = number;
    }
    let lists: BTreeMap<_, _> = lists.into_iter().map(|(container, (_, list))| (container, list)).collect();
    if lists.is_empty() { Err(BadList::Empty) } else { Ok(lists) }
}

/// The documents of a list, for a command with times of its own. Lines of `find` are accepted: the version before the
/// write that they name is ignored.
///
/// # Errors
/// As [`listed`], and when a line says what its document goes back to.
pub(super) fn named(text: &str, paths: &KeyPaths) -> Result<Vec<ListedDocument>, BadList> {
    let check = |line: &Line| {
        let one = [("version", &line.version), ("at", &line.at)].into_iter().find(|(_, value)| value.is_some());
        one.map_or(Ok(()), |(name, _)| Err(BadThen::OfAnother(name)))
    };
    lines(text, paths, check)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> KeyPaths {
        KeyPaths::parse(&["/tenant", "/n"]).unwrap()
    }

    #[test]
    fn a_command_with_times_of_its_own_refuses_those_of_a_list() {
        let line = |more: &str| format!("\u{feff}{{\"id\":\"a\",\"pk\":[\"t1\",42]{more}}}\n");
        for (more, member) in [(r#","at":"15m""#, "at"), (r#","version":17"#, "version")] {
            let refused = named(&line(more), &paths()).unwrap_err().to_string();
            assert!(refused.contains("line 1") && refused.contains(&format!("the member {member},")), "{refused}");
        }
        // The lines that `find` prints name documents, too.
        assert_eq!(named(&line(r#","before":"a~1","ts":5"#), &paths()).unwrap().len(), 1);
        let container = line(r#","container":"orders""#);
        assert_eq!(by_container(&container).unwrap().into_keys().collect::<Vec<_>>(), ["orders"]);
    }

    #[test]
    fn a_list_has_an_item_a_line_and_what_is_wrong_names_its_line() {
        let list = |text: &str| -> Result<Vec<ItemKey>, BadList> {
            Ok(named(text, &paths())?.into_iter().map(|listed| listed.item).collect())
        };
        let found = list("{\"id\":\"a\",\"pk\":[\"t1\",42]}\n\n{\"id\":\"b\",\"pk\":[\"t1\",43]}\n").unwrap();
        assert_eq!(found.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let wrong = list("\n{\"id\":\"a\"}").unwrap_err().to_string();
        assert!(wrong.starts_with("line 2: missing field `pk`"), "{wrong}");
        assert!(matches!(list("{\"id\":\"a\",\"pk\":\"t1\"}"), Err(BadList::Key { line: 1, .. })));
        assert!(matches!(list("\n"), Err(BadList::Empty)));
    }

    #[test]
    fn a_list_of_several_containers_is_one_for_each_with_the_numbers_of_its_lines() {
        let line = |container: &str, id: &str| format!(r#"{{"container":"{container}","id":"{id}","pk":["t",1]}}"#);
        let text = format!("{}\n\n{}\n{}\n", line("a", "1"), line("b", "2"), line("a", "3"));
        let lists = by_container(&text).unwrap();
        let read = |container: &str| {
            let listed = listed(&lists[container], &paths()).unwrap().into_iter();
            listed.map(|one| (one.line, one.item.id, one.container)).collect::<Vec<_>>()
        };
        let of = |container: &str, line: usize, id: &str| (line, id.to_owned(), Some(container.to_owned()));
        assert_eq!((read("a"), read("b")), (vec![of("a", 1, "1"), of("a", 4, "3")], vec![of("b", 3, "2")]));
        let wrong = by_container("\n{\"id\":\"a\"}").unwrap_err().to_string();
        assert!(wrong.starts_with("line 2: missing field `container`"), "{wrong}");
        assert!(matches!(by_container("\n"), Err(BadList::Empty)));
    }

    #[test]
    fn a_line_may_say_what_its_document_goes_back_to() {
        let line = |more: &str| listed(&format!("{{\"id\":\"a\",\"pk\":[\"t1\",42]{more}}}"), &paths());
        for (more, then) in [
            ("", None),
            (r#","before":"a~1""#, Some(ListedGoal::Version("a~1".into()))),
            (r#","before":null"#, Some(ListedGoal::NoDocument)),
            (r#","version":"\"etag\"""#, Some(ListedGoal::Version("\"etag\"".into()))),
            (r#","version":17"#, Some(ListedGoal::Version("17".into()))),
            (r#","at":1700000000"#, Some(ListedGoal::At("1700000000".into()))),
            (r#","at":"15m""#, Some(ListedGoal::At("15m".into()))),
            (
                r#","before":"a~1","time":"t","ts":1,"op":"replace","lsn":null,"record":"a~2","still":"yes","changed":["/x"],"actor":{"a":1},"notes":[]"#,
                Some(ListedGoal::Version("a~1".into())),
            ),
        ] {
            assert_eq!(line(more).unwrap()[0].then, then, "{more}");
        }
        for (more, problem) in [
            (r#","befor":"a~1""#, "unknown field `befor`"),
            (r#","before":7"#, "invalid type"),
            (r#","before":"a~1","at":5"#, "more than one of"),
            (r#","version":"1","at":"5""#, "more than one of"),
            (r#","at":{}"#, "neither text nor a number"),
            (r#","version":"""#, "neither text nor a number"),
        ] {
            let error = line(more).unwrap_err().to_string();
            assert!(error.starts_with("line 1: ") && error.contains(problem), "{more}: {error}");
        }
    }
}

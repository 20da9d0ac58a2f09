//! A list of documents that somebody names: a JSON object a line, with id and partition key.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::change::key::{ItemKey, KeyPaths, PartitionKey};

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadList {
    /// A line is not understood.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A partition key has more or fewer components than the container's.
    #[error("the key {0} does not have all components")]
    Key(PartitionKey),
    /// There is no line.
    #[error("it names no document")]
    Empty,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    pk: Value,
}

/// The items of a list, for a container that is keyed so.
///
/// # Errors
/// When a line is wrong, or there is none.
pub fn items(text: &str, paths: &KeyPaths) -> Result<Vec<ItemKey>, BadList> {
    let mut items = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem| BadList::Line { line: number + 1, problem };
        let line: Line = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let pk = if line.pk.is_array() { line.pk } else { json!([line.pk]) };
        let partition_key = PartitionKey::parse(&pk.to_string()).map_err(wrong)?;
        if partition_key.0.len() != paths.len() {
            return Err(BadList::Key(partition_key));
        }
        items.push(ItemKey { id: line.id, partition_key });
    }
    if items.is_empty() { Err(BadList::Empty) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_an_item_a_line_and_what_is_wrong_names_its_line() {
        let list = |text: &str| items(text, &KeyPaths::parse(&["/tenant", "/n"]).unwrap());
        let found = list("{\"id\":\"a\",\"pk\":[\"t1\",42]}\n\n{\"id\":\"b\",\"pk\":[\"t1\",43]}\n").unwrap();
        assert_eq!(found.iter().map(|item| item.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let wrong = list("\n{\"id\":\"a\"}").unwrap_err().to_string();
        assert!(wrong.starts_with("line 2: missing field `pk`"), "{wrong}");
        assert!(matches!(list("{\"id\":\"a\",\"pk\":\"t1\"}"), Err(BadList::Key(_))));
        assert!(matches!(list("\n"), Err(BadList::Empty)));
    }
}

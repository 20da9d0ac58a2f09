//! Lists of documents in one container, or in several.

use std::collections::{BTreeMap, HashSet};

use super::items::{BadList, ListedDocument, by_container, listed, named, names_containers};
use crate::{
    change::key::{ItemKey, KeyPaths},
    config::Names,
};

/// Why a list does not fit these containers.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is malformed.
    #[error(transparent)]
    Bad(#[from] BadList),
    /// A line names another container.
    #[error("line {line} is about container {container}, not about {own}")]
    Elsewhere {
        /// The line's number.
        line: usize,
        /// The container that it names.
        container: String,
        /// The one that was requested.
        own: String,
    },
    /// It names a container that was not requested.
    #[error("{0} is not one of the containers")]
    NotAsked(String),
}

/// The documents of a list for one container, without duplicates. Refuses lines that say what their document goes back
/// to.
///
/// # Errors
/// When the list is malformed, or a line names another container.
pub fn items_of(text: &str, source: &str, paths: &KeyPaths) -> Result<Vec<ItemKey>, ListError> {
    let mut known = HashSet::new();
    let listed = in_it(named(text, paths)?, source)?.into_iter().map(|one| one.item);
    Ok(listed.filter(|item| known.insert(item.clone())).collect())
}

/// The documents of a list for one container, and what each line says its document goes back to.
///
/// # Errors
/// When the list is malformed, or a line names another container.
pub fn listed_of(text: &str, source: &str, paths: &KeyPaths) -> Result<Vec<ListedDocument>, ListError> {
    in_it(listed(text, paths)?, source)
}

fn in_it(listed: Vec<ListedDocument>, source: &str) -> Result<Vec<ListedDocument>, ListError> {
    for ListedDocument { line, container, .. } in &listed {
        if let Some(container) = container.as_ref().filter(|container| *container != source) {
            let (line, container, own) = (*line, container.clone(), source.to_owned());
            return Err(ListError::Elsewhere { line, container, own });
        }
    }
    Ok(listed)
}

/// Splits a list of several containers, and keeps of the containers those that the list names.
///
/// # Errors
/// When a line does not name one of them.
pub fn lists_of(text: &str, all: &mut Vec<Names>) -> Result<BTreeMap<String, String>, ListError> {
    let lists = by_container(text)?;
    if let Some(other) = lists.keys().find(|other| all.iter().all(|names| names.source != **other)) {
        return Err(ListError::NotAsked(other.clone()));
    }
    all.retain(|names| lists.contains_key(&names.source));
    Ok(lists)
}

/// The same; when no line names a container, the list applies to all of them.
///
/// # Errors
/// As [`lists_of`].
pub fn lists_or_repeated(text: &str, all: &mut Vec<Names>) -> Result<BTreeMap<String, String>, ListError> {
    match names_containers(text) {
        true => lists_of(text, all),
        false => Ok(all.iter().map(|names| (names.source.clone(), text.to_owned())).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Names {
        let [database, changes, leases] = ["dev", "changes", "leases"].map(String::from);
        Names { database, source: source.into(), changes, leases }
    }

    fn line(container: &str, id: &str) -> String {
        format!(r#"{{"container":"{container}","id":"{id}","pk":"p"}}"#)
    }

    #[test]
    fn a_list_is_about_the_container_that_is_asked_for() {
        let paths = KeyPaths::parse(&["/pk"]).unwrap();
        let twice = format!("{}\n{}\n", line("a", "1"), r#"{"id":"1","pk":"p"}"#);
        assert_eq!(items_of(&twice, "a", &paths).unwrap().len(), 1, "each once");
        assert_eq!(listed_of(&twice, "a", &paths).unwrap().len(), 2);
        let wrong = listed_of(&format!("\n{}", line("b", "1")), "a", &paths).unwrap_err();
        assert!(matches!(wrong, ListError::Elsewhere { line: 2, .. }), "{wrong}");
    }

    #[test]
    fn containers_that_a_list_does_not_name_are_left_out() {
        let all = || ["a", "b"].map(names).to_vec();
        let mut left = all();
        assert_eq!(lists_of(&line("b", "1"), &mut left).unwrap().len(), 1);
        assert_eq!(left, [names("b")]);
        let wrong = lists_of(&line("c", "1"), &mut all()).unwrap_err();
        assert!(matches!(wrong, ListError::NotAsked(name) if name == "c"));

        let mut left = all();
        let lists = lists_or_repeated(r#"{"id":"1","pk":"p"}"#, &mut left).unwrap();
        assert_eq!((lists.len(), left), (2, all()), "the same documents in both");
    }
}

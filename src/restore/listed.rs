//! The individual goals of the documents of a list.

use std::collections::HashMap;

use super::goal::Goal;
use crate::{
    change::{key::ItemKey, time::PointInTime},
    input::{ListedDocument, ListedGoal},
};

/// Why a list does not say what each of its documents goes back to.
#[derive(Debug, thiserror::Error)]
pub enum NotListed<E> {
    /// One line does not say, while others do.
    #[error("line {line} does not say what its document goes back to")]
    Nothing {
        /// Its number.
        line: usize,
    },
    /// An earlier line says something else about the same document.
    #[error("line {line}: {id:?} goes back to something else in an earlier line")]
    Twice {
        /// The number of the later line.
        line: usize,
        /// The document's id.
        id: String,
    },
    /// A line's time cannot be used.
    #[error("a time cannot be used")]
    Time(E),
}

/// The goal of each document of a list, if any line has one; documents of other lines go back to `at`. `None`
/// when no line does. `time` parses the time of a line, given with the line's number.
///
/// # Errors
/// When a line says nothing and there is no `at`, two lines disagree, or as `time`.
pub async fn each_its_own<E>(
    listed: &[ListedDocument],
    at: Option<PointInTime>,
    time: impl AsyncFn(usize, &str) -> Result<PointInTime, E>,
) -> Result<Option<HashMap<ItemKey, Goal>>, NotListed<E>> {
    if listed.iter().all(|one| one.then.is_none()) {
        return Ok(None);
    }
    let mut each = HashMap::with_capacity(listed.len());
    for ListedDocument { item, then, line, .. } in listed {
        let line = *line;
        let back = match (then, at) {
            (Some(ListedGoal::Version(version)), _) => Goal::Version(version.clone()),
            (Some(ListedGoal::NoDocument), _) => Goal::NoDocument,
            (Some(ListedGoal::At(text)), _) => Goal::At(time(line, text).await.map_err(NotListed::Time)?),
            (None, Some(at)) => Goal::At(at),
            (None, None) => return Err(NotListed::Nothing { line }),
        };
        if each.insert(item.clone(), back.clone()).is_some_and(|earlier| earlier != back) {
            return Err(NotListed::Twice { line, id: item.id.clone() });
        }
    }
    Ok(Some(each))
}

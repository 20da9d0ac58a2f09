//! What a record of the history is, once it was looked at.

use super::layout::Layout;
use crate::change::{
    key::ItemKey,
    version::{BadRecord, Version},
};

/// What a record of the history is.
#[derive(Debug)]
pub enum Entry {
    /// A version of this item.
    Version(ItemKey, Version),
    /// A delete of which only the id is known.
    Unkeyed(Version),
    /// Nothing that is understood.
    Bad(BadRecord),
}

impl Entry {
    /// What a whole record is.
    pub fn of(record: &str, layout: &Layout) -> Self {
        match Version::parse(record) {
            Err(bad) => Self::Bad(bad),
            Ok(version) => match layout.item_of(&version, record) {
                Some(item) => Self::Version(item, version),
                None => Self::Unkeyed(version),
            },
        }
    }
}

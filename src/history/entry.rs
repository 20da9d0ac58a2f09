//! The kinds of records in a history.

use super::layout::Layout;
use crate::change::{
    key::ItemKey,
    version::{BadRecord, Version},
};

/// The kinds of records in a history.
#[derive(Debug)]
pub enum Entry {
    /// A version of this item.
    Version(ItemKey, Version),
    /// A delete of which only the id is known.
    Unkeyed(Version),
    /// Something that cannot be parsed.
    Bad(BadRecord),
}

impl Entry {
    /// Classifies a whole record.
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

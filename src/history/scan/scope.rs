//! Which items a scan covers.

use crate::{
    change::{key::ItemKey, time::PointInTime},
    cosmos::Param,
};

/// Which items.
#[derive(Debug, Clone)]
pub enum Scope {
    /// A list.
    Items(Vec<ItemKey>),
    /// Those whose version at the point in time matches a predicate on `c`.
    Where {
        /// The operator's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those that matched a predicate on `c` at the point in time: those whose version in force matches, and those
    /// whose live document was already in force and matches, whether or not the history has it. Live documents have to
    /// be read along.
    Then {
        /// The operator's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those with any version that matches a predicate on `c`, whenever that was.
    Ever {
        /// The operator's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those whose live document matches a predicate on `c` now.
    Live {
        /// The operator's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those with a version that was written in this period, both ends included: documents that were never touched cost
    /// nothing.
    Written {
        /// The first second.
        from: PointInTime,
        /// The last second.
        to: PointInTime,
    },
    /// All items of the history and of the target.
    All,
}

//! Which items a scan is about.

use crate::{
    change::{key::ItemKey, time::PointInTime},
    cosmos::Param,
};

/// Which items.
#[derive(Debug, Clone)]
pub enum Scope {
    /// These.
    Items(Vec<ItemKey>),
    /// Those whose version at the point in time matches a predicate on `c`.
    Where {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those that matched a predicate on `c` at the point in time: whose version in force matches, or whose live document was
    /// in force already and matches, whether the history has it or not. Live documents have to be read along.
    Then {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those of which any version matches a predicate on `c`, whenever that was.
    Ever {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those whose live document matches a predicate on `c` now.
    Live {
        /// The caller's own SQL.
        predicate: String,
        /// Its parameters.
        params: Vec<Param>,
    },
    /// Those of which a version was written in this time, both ends included: what was never touched then costs nothing.
    Written {
        /// The first second.
        from: PointInTime,
        /// The last second.
        to: PointInTime,
    },
    /// All items of the history and of the target.
    All,
}

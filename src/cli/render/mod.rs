//! Reports as they are printed: one file for each command whose report is long.

pub(super) mod follow;
pub(super) mod load;
pub(super) mod new_function;

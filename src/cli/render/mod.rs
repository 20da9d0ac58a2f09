//! Reports as they are printed: one file for each command whose report is long.

pub(super) mod load;

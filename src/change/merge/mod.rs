//! Takes back the changes that some writes made to a document, and keeps what all others made: a merge, field by field.
//!
//! The versions of a document are walked in order. What a write that is undone changed is noted with the version that
//! had the value before; what a write that is kept changed follows it. In the end the noted values go back into today's
//! document. Where a kept write changed what an undone one had changed before, somebody decided over a value that was
//! wrong: that is a conflict.

mod compare;
mod edit;
mod place;
mod tests;
mod walk;

pub use self::{
    edit::{BASE, Edit, EditError, FORK, VersionTexts, edited, is_own_version},
    place::{ArrayKey, Place, Segment, get},
    walk::{Conflict, MergeRules, MergeWalk, Merged, Prefer, RevertedField, VersionAuthor},
};

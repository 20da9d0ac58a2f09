//! What makes a history one to trust, and keeps it so: a baseline of what was there before capture, proofs that
//! nothing is missing, and the removal of what need not be kept.
//!
//! The decisions are pure: what a `history::scan` found of an item goes in, a finding or a choice comes out.

pub mod letters;

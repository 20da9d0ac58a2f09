//! The pure domain: changes, item keys, version order, and the record format. Neither axum nor azure types here.

pub mod edit;
pub mod key;
pub mod raw;

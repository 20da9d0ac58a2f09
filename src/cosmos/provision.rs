//! Container definitions and their creation.

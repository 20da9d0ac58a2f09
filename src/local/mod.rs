//! The embedded local environment.

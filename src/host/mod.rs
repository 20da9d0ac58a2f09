//! The Functions host's protocol, as a custom handler sees it: the functions of the app, the envelope of an invocation,
//! and the server that answers.

pub mod app;
pub mod functions;
mod incoming;
pub mod invocation;
pub mod overrides;
mod server;
mod text;

pub use server::{AnyTickError, Handler, Shutdown, Tick, serve};

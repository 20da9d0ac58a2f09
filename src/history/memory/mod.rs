//! A history, its source and their account in memory, under the contracts of [`reading`](super::reading): for tests and
//! simulations that need no service. The owner sets the time.

mod account;
mod container;
mod history;

pub use self::{
    account::MemoryAccount,
    container::{Fault, FeedWrite, MemoryContainer},
    history::MemoryHistory,
};

//! A history, its source, and the account they are in, in memory: under the contracts of [`reading`](super::reading), for
//! tests and simulations that ask for no service. Time goes as the owner says.

mod account;
mod container;
mod history;

pub use self::{
    account::MemoryAccount,
    container::{Fault, MemoryContainer, Written},
    history::MemoryHistory,
};

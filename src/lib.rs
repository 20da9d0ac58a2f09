//! cosmos-rewind: a time machine for Azure Cosmos DB (API for NoSQL).
//!
//! The modules, in the order data flows through them. Capture goes down from `host` to `cosmos`; rewind
//! starts at `cli` and reads the history that capture wrote.

pub mod archive;
pub mod backfill;
pub mod backup;
pub mod blob;
pub mod capture;
pub mod causes;
pub mod change;
pub mod cli;
pub mod config;
pub mod context;
pub mod cosmos;
pub mod coverage;
pub mod dead_letters;
pub mod doctor;
pub mod erase;
pub mod figures;
pub mod follow;
pub mod frontier;
pub mod history;
pub mod host;
pub mod input;
#[cfg(feature = "local")]
pub mod local;
pub mod new_function;
pub mod outcomes;
pub mod populate;
pub mod progress;
pub mod projection;
pub mod provision;
pub mod restore;
pub mod retention;
pub mod secret;
pub mod status;
pub mod surroundings;
pub mod telemetry;
pub mod truncate;
pub mod verify;
pub mod zipcodes;

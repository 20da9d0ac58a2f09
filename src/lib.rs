//! cosmos-rewind: a time machine for Azure Cosmos DB (API for NoSQL).
//!
//! The modules, in the order data flows through them. Capture goes down from `host` to `cosmos`; rewind
//! starts at `cli` and reads the history that capture wrote.
//!
//! # Examples
//!
//! Every use case takes a request and a context, and hands back a report; nothing prints. Each module of one shows how
//! it is called.
//!
//! ```no_run
//! use cosmos_rewind::{
//!     config::{AccountSettings, Names, Settings},
//!     context::Context,
//!     cosmos::Cosmos,
//!     status::{self, Request},
//! };
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::environment();
//! let cosmos = Cosmos::new(AccountSettings::from_settings(&settings)?);
//! let names = Names::from_settings(&settings, None)?;
//! let cx = Context::new(&cosmos, &names);
//! let report = status::read(Request { count: false, dead_letters: None, ru_limit: None, stalled_after: 300 }, cx).await?;
//! println!("capture is {:?} seconds behind", report.behind);
//! # Ok(())
//! # }
//! ```

pub mod archive;
pub mod backfill;
pub mod backup;
pub mod blob;
#[cfg(feature = "mongodb")]
pub mod bson_text;
pub mod capture;
pub mod causes;
pub mod chance;
pub mod change;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod context;
pub mod cosmos;
pub mod coverage;
pub mod dead_letters;
pub mod doctor;
pub mod erase;
pub mod figures;
pub mod find;
pub mod follow;
pub mod fork;
pub mod format;
pub mod frontier;
pub mod history;
pub mod host;
pub mod input;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "mongodb")]
pub mod mongo;
pub mod new_function;
pub mod outcomes;
pub mod populate;
mod private_file;
pub mod progress;
pub mod projection;
pub mod provision;
pub mod query;
pub mod restore;
pub mod retention;
pub mod revert;
pub mod secret;
pub mod serving;
pub mod status;
pub mod telemetry;
pub mod truncate;
pub mod verify;
pub mod zipcodes;

//! The terminal's side of the program: prints, asks, reports errors with hints, and shows reports. It is given values,
//! and knows no flags except those that a hint names.

mod error;
mod exit;
pub(crate) mod in_force;
pub(crate) mod render;
mod screen;
pub(crate) mod signals;
mod ui;
pub(crate) mod words;

pub(crate) use error::room;
pub use error::{CliError, ErrorKind, Hint};
pub use exit::{EXITS, Exit};
pub use ui::Ui;

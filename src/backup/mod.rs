//! Backups: documents of the live container, or of a moment, in a file; and from a file, or an archive, back into the container.

pub mod file;
mod live;
pub mod load;
mod moment;
mod source;
mod write;
mod writer;

pub use load::{LoadError, load};
pub use source::Source;
pub use write::{BackupError, Interruption, Report, Request, write};
pub use writer::Writer;

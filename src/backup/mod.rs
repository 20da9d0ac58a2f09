//! Backups: documents of the live container, or of a moment, in a file; and from a file, or an archive, back into the
//! container.
//!
//! # Examples
//!
//! ```no_run
//! use cosmos_rewind::{backup::{self, Request}, context::Context};
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let request = Request {
//!     predicate: Some("c.city = @city".into()),
//!     params: vec!["city=Davidson".parse()?],
//!     at: None,
//!     at_text: None,
//!     wait: false,
//!     feed_range: None,
//!     out: "davidson.jsonl.gz".into(),
//!     concurrency: 16,
//!     ru_limit: Some(500.0),
//! };
//! let report = backup::write(request, &cx.any()).await?;
//! println!("{} documents, SHA-256 {}", report.documents, report.sha256);
//! # Ok(())
//! # }
//! ```

pub mod file;
mod live;
pub mod load;
mod loadable;
mod moment;
mod out;
mod source;
mod write;
mod writer;

pub use load::{LoadError, load};
pub use source::LineSource;
pub use write::{BackupError, Interruption, Report, Request, write};
pub use writer::BackupWriter;

//! Reads the change feed itself: the same capture, without the Functions host.
//!
//! ```text
//! reader (one a feed range) -> page -> pipeline: decode, filter, shape -> every sink durable -> token -> checkpoint
//! ```
//!
//! The promise: a range's token is saved only when all sinks have made durable what lies before it; the tokens
//! of **all** ranges are saved before the first of them moves; one holder of a name at a time. So a kill at any moment
//! loses nothing, and what is delivered again has the same version id.
//!
//! # Examples
//!
//! ```no_run
//! use std::{path::Path, sync::Arc, time::Duration};
//!
//! use cosmos_rewind::{
//!     config::{AccountSettings, CaptureConfig, Settings},
//!     context::Context,
//!     cosmos::{FeedMode, FeedStart},
//!     follow::{self, FieldRules, Metrics, Options, Request, SinkTarget, FollowedSource},
//! };
//!
//! # async fn example(cx: Context<'_>) -> Result<(), Box<dyn std::error::Error>> {
//! let settings = Settings::environment();
//! let options = Options {
//!     name: "archive".into(),
//!     mode: FeedMode::Latest,
//!     start: FeedStart::Beginning,
//!     part: None,
//!     until_caught_up: true,
//!     poll: Duration::from_secs(1),
//!     lease: Duration::from_secs(30),
//!     holder: "example".into(),
//! };
//! let request = Request {
//!     source: FollowedSource::Container,
//!     options,
//!     sinks: vec![SinkTarget::File("events.jsonl".into())],
//!     filter: None,
//!     fields: FieldRules::default(),
//!     checkpoint_file: Some("checkpoint.json".into()),
//!     config: CaptureConfig::from_settings(&settings, Path::new("."))?,
//!     credential: AccountSettings::from_settings(&settings)?.credential,
//!     metrics: Arc::new(Metrics::default()),
//! };
//! println!("{} changes read", follow::run(request, &cx).await?.read);
//! # Ok(())
//! # }
//! ```

mod bad_filter;
mod checkpoint;
mod earlier;
mod error;
mod event;
mod fence;
mod filter;
mod follower;
pub mod health;
mod line;
mod members;
mod metrics;
mod options;
mod pipeline;
mod pretty;
mod reader;
mod run;
pub mod sink;
mod store;
mod values;

pub use bad_filter::BadFilter;
pub use checkpoint::{BadRange, Checkpoint, Mismatch, RangePosition, UnnotedHole};
pub use earlier::{Earlier, delivered_until};
pub use error::FollowError;
pub use event::{Event, EventError};
pub use fence::Fence;
pub use filter::{Filter, NoAnswer, Subject};
pub use follower::{Ended, Follower};
pub use metrics::Metrics;
pub use options::{BadOptions, Options, holder};
pub use pipeline::Pipeline;
pub use pretty::pretty;
pub use run::{FieldRules, FollowedSource, Report, Request, SinkTarget, run};
pub use sink::Locked;
pub use store::{CheckpointError, CheckpointFileError, CheckpointStore};

//! Where changes go. A follower may have several sinks; a range advances when all of them have its page.

mod blobs;
mod error;
#[cfg(feature = "mongodb")]
mod gone;
mod history;
mod lines;
mod segments;

use std::fmt;

use serde_json::value::RawValue;

#[cfg(feature = "mongodb")]
pub use self::gone::Collection;
pub use self::{
    blobs::BlobSink,
    error::{Busy, Refused, SinkError},
    history::HistorySink,
    lines::{FileSink, Locked, StreamSink},
    segments::SegmentSink,
};
use super::{Event, Fence};
use crate::capture::Summary;

/// A page's changes on their way to the sinks, after the filter and the shape.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The items as the feed delivers them, or reshaped.
    pub items: Vec<&'a RawValue>,
    /// The same as events; empty when no sink wants any.
    pub events: Vec<Event<'a>>,
    /// The range they come from, for logs and dead letters.
    pub range: &'a str,
    /// The term of the holder that read them.
    pub fence: &'a Fence,
}

/// A destination.
///
/// Contract: `write` is `Ok` only when the whole batch is durable there. `Err` leaves unknown what of it is; writing it
/// again is harmless: `changes` and `blob` have one place for a version, and lines may be doubled, with the same
/// `version`. Calls may run concurrently, one for each range.
#[derive(Debug)]
pub enum Sink {
    /// The history.
    Changes(Box<HistorySink>),
    /// Standard output, one event per line.
    Stream(StreamSink),
    /// A file, one event per line.
    File(FileSink),
    /// A blob container, one blob per version.
    Blobs(BlobSink),
    /// A blob container, compressed files of many events. It takes events at once and makes them durable later: nothing
    /// of them may be acknowledged until [`flush`](Self::flush) says so.
    Segments(SegmentSink),
}

impl Sink {
    /// Whether it writes events rather than the items themselves.
    pub fn wants_events(&self) -> bool {
        !matches!(self, Self::Changes(_))
    }

    /// Checks whether it can take anything, before there is a checkpoint that says so.
    ///
    /// # Errors
    /// When it cannot.
    pub async fn look(&self) -> Result<(), SinkError> {
        match self {
            Self::Changes(history) => history.look().await,
            _ => Ok(()),
        }
    }

    /// Called when the name is held, before the readers begin: what earlier ones had not acknowledged is forgotten.
    ///
    /// # Errors
    /// When it cannot be used.
    pub async fn begin(&self) -> Result<(), SinkError> {
        match self {
            Self::Changes(_) | Self::Stream(_) => Ok(()),
            Self::File(file) => file.begin().await,
            Self::Blobs(_) => Ok(()),
            Self::Segments(segments) => {
                segments.begin();
                Ok(())
            }
        }
    }

    /// Whether it holds events back until a file is full or old enough.
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Segments(_))
    }

    /// Makes durable what it holds back of a range, when it is time or when it must be; true when something is still
    /// held back.
    ///
    /// # Errors
    /// When it may not be durable.
    pub async fn flush(&self, range: &str, now: bool) -> Result<bool, SinkError> {
        match self {
            Self::Segments(segments) => segments.flush(range, now).await,
            _ => Ok(false),
        }
    }

    /// Makes a batch durable; the history's summary when it is the history.
    ///
    /// # Errors
    /// When it may not be durable.
    pub async fn write(&self, batch: &Batch<'_>) -> Result<Option<Summary>, SinkError> {
        match self {
            Self::Changes(history) => history.write(batch).await,
            Self::Stream(stream) => stream.write(&batch.events).await.map(|()| None),
            Self::File(file) => file.write(&batch.events).await.map(|()| None),
            Self::Blobs(blobs) => blobs.write(&batch.events).await.map(|()| None),
            Self::Segments(segments) => segments.add(batch.range, &batch.events, batch.fence).map(|()| None),
        }
    }
}

/// Displays as on the command line, without any secret.
impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changes(_) => f.write_str("changes"),
            Self::Stream(_) => f.write_str("stdout"),
            Self::File(file) => write!(f, "file:{}", file.path().display()),
            Self::Blobs(blobs) => write!(f, "blob:{}", blobs.shown()),
            Self::Segments(segments) => write!(f, "blob:{}", segments.shown()),
        }
    }
}

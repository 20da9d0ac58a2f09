//! Processes a page: decodes it, hands it to every sink, and only then counts it as done.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    CheckpointError, Event, Fence, Filter, FollowError, Metrics,
    event::{EventError, changes_of},
    filter::NoAnswer,
    sink::{Batch, Sink, SinkError},
};
use crate::{
    capture::Summary,
    causes::chain,
    change::{Via, fidelity::Delivery, key::KeyPaths, shape::Redactor, streamed::Streamed},
    clock::Clock,
    cosmos::{FeedItem, FeedPage},
    dead_letters::{DeadLetter, DeadLetterStore},
};

/// Pauses between attempts to hand a batch to a busy sink: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How many dead letters are put away concurrently.
const LETTERS: usize = 16;

/// An item after the filter and the shape.
struct Prepared<'a> {
    /// `None` for something that is only an event, as what happens to a collection.
    item: Option<Cow<'a, RawValue>>,
    event: Option<Event<'a>>,
}

/// Why an item is not passed on.
#[derive(Debug, thiserror::Error)]
enum Problem {
    /// It is not a change.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Its documents cannot be shaped.
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
    /// The filter can never have an answer.
    #[error(transparent)]
    Filter(NoAnswer),
}

/// The way from pages to sinks.
#[derive(Debug)]
pub struct Pipeline {
    /// The follower's name, for dead letters and logs.
    pub name: String,
    /// The entrance that changes come through.
    pub via: Via,
    /// Partition key paths of the source.
    pub paths: KeyPaths,
    /// Which changes are passed on; without one, all.
    pub filter: Option<Filter>,
    /// How documents are reduced; without one, not at all.
    pub shape: Option<Redactor>,
    /// Where changes go.
    pub sinks: Vec<Sink>,
    /// Where items go that are not changes.
    pub dead_letters: Arc<DeadLetterStore>,
    /// The follower's counters.
    pub metrics: Arc<Metrics>,
    /// The time of this machine.
    pub clock: Arc<dyn Clock>,
}

impl Pipeline {
    /// The history that receives every change, if there is one.
    pub fn history(&self) -> Option<String> {
        let history = self.sinks.iter().find_map(|sink| match sink {
            Sink::Changes(history) => Some(history.name()),
            _ => None,
        });
        history.filter(|_| self.filter.is_none())
    }

    /// Checks whether the sinks can take anything, as long as one of them is busy. Called before the name is acquired:
    /// a checkpoint beside a history that takes nothing would pass for that of a reader that has delivered everything.
    /// Returns false when it was stopped before.
    ///
    /// # Errors
    /// When one of them never will.
    pub(super) async fn look(&self, stop: &CancellationToken) -> Result<bool, FollowError> {
        for sink in &self.sinks {
            let mut pause = PAUSES.0;
            loop {
                match stop.run_until_cancelled(sink.look()).await {
                    None => return Ok(false),
                    Some(Ok(())) => break,
                    Some(Err(SinkError::Busy(why))) => {
                        warn!(follower = self.name, sink = %sink, reason = chain(&why), "out of reach, trying again");
                        Metrics::add(&self.metrics.retries, 1);
                    }
                    Some(Err(e)) => return Err(e.into()),
                }
                if !waited(&mut pause, stop).await {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Opens the sinks; called when the name is held, before the readers begin.
    ///
    /// # Errors
    /// When one cannot be used.
    pub(super) async fn begin(&self) -> Result<(), FollowError> {
        for sink in &self.sinks {
            sink.begin().await?;
        }
        Ok(())
    }

    /// Makes the items of a page durable in all sinks, however long that takes. Returns false when it was stopped
    /// before: the page must then be read again.
    ///
    /// # Errors
    /// When a sink will never take it, or the name is lost.
    pub(super) async fn deliver(
        &self,
        page: &FeedPage,
        items: Vec<FeedItem<'_>>,
        range: &str,
        fence: &Fence,
        stop: &CancellationToken,
    ) -> Result<bool, FollowError> {
        Metrics::add(&self.metrics.changes, items.len() as u64);
        Metrics::add(&self.metrics.bytes, page.bytes() as u64);
        let items = self.given(items)?;
        let (mut texts, mut events) = (Vec::new(), Vec::with_capacity(items.len()));
        let mut count = 0;
        let mut newest = (None, None);
        let mut poison = Vec::new();
        for item in &items {
            let prepared = match item {
                FeedItem::Item(item) => self.prepare(item, &mut newest).map_err(|problem| (&**item, problem)),
                FeedItem::Change(change) => Ok(self.event_of(change, &mut newest)?),
            };
            match prepared {
                Ok(prepared) => {
                    count += u64::from(prepared.is_some());
                    let (text, event) = prepared.map_or((None, None), |prepared| (prepared.item, prepared.event));
                    texts.extend(text);
                    events.extend(event);
                }
                Err((_, Problem::Filter(e))) => return Err(FollowError::Filter(e)),
                Err((item, e @ (Problem::Event(_) | Problem::Shape(_)))) => poison.push((item, e.to_string())),
            }
        }
        let puts: Vec<_> = poison.iter().map(|(item, reason)| self.dead_letter(item, reason, range, stop)).collect();
        let put: Vec<bool> = stream::iter(puts).buffer_unordered(LETTERS).try_collect().await?;
        if put.contains(&false) {
            return Ok(false);
        }
        let batch = Batch { items: texts.iter().map(|text| &**text).collect(), events, range, fence };
        if count > 0 && !self.write(&batch, stop).await? {
            return Ok(false);
        }
        Metrics::add(&self.metrics.delivered, count);
        let (newest, lsn) = newest;
        let left = page.partition_lsn.zip(lsn).map(|(now, read)| u64::try_from(now - read).unwrap_or_default());
        self.metrics.range(range, |state| {
            (state.newest, state.failing, state.moved) = (newest.or(state.newest), false, Some(Instant::now()));
            state.left = left.or(state.left);
        });
        Ok(true)
    }

    /// The items as they are needed: a history and a shape want their texts, for everything else their parts do.
    fn given<'p>(&self, items: Vec<FeedItem<'p>>) -> Result<Vec<FeedItem<'p>>, FollowError> {
        if self.shape.is_none() && self.sinks.iter().all(Sink::wants_events) {
            return Ok(items);
        }
        Ok(items.into_iter().map(|item| item.whole().map(FeedItem::Item)).collect::<Result<_, _>>()?)
    }

    /// A change in parts as the sinks receive it; nothing when the filter drops it. Updates `newest`, see
    /// [`Self::prepare`].
    fn event_of<'a>(
        &self,
        change: &Streamed<&'a str>,
        newest: &mut (Option<i64>, Option<i64>),
    ) -> Result<Option<Prepared<'a>>, FollowError> {
        *newest = (newest.0.max(change.ts), newest.1.max(change.lsn));
        let event = Event::of_streamed(change);
        let passes = self.passes(&event).map_err(FollowError::Filter)?;
        Ok(passes.then_some(Prepared { item: None, event: Some(event) }))
    }

    /// An item as the sinks receive it; nothing when the filter drops it. Updates `newest`, the time and LSN of the
    /// newest one so far.
    fn prepare<'a>(
        &self,
        item: &'a RawValue,
        newest: &mut (Option<i64>, Option<i64>),
    ) -> Result<Option<Prepared<'a>>, Problem> {
        if let Some((event, change)) = Event::bare(item)? {
            newest.0 = newest.0.max(event.ts);
            if !self.passes(&event).map_err(Problem::Filter)? {
                return Ok(None);
            }
            let event = match &self.shape {
                Some(shape) => event.shaped(shape)?,
                None => event,
            };
            return Ok(Some(Prepared { item: change.map(Cow::Owned), event: Some(event) }));
        }
        let changes = changes_of(item).map_err(EventError::from)?;
        let (ts, lsn) = changes.last().map_or((None, None), |change| (change.ts, change.lsn));
        *newest = (newest.0.max(ts), newest.1.max(lsn));
        let wants_events = self.sinks.iter().any(Sink::wants_events);
        let mut event = None;
        if self.filter.is_some() || (wants_events && self.shape.is_none()) {
            event = Some(Event::of_changes(&changes, &self.paths)?);
        }
        if let Some(event) = &event
            && !self.passes(event).map_err(Problem::Filter)?
        {
            return Ok(None);
        }
        let Some(shape) = &self.shape else { return Ok(Some(Prepared { item: Some(Cow::Borrowed(item)), event })) };
        let shaped = shape.apply(item)?;
        let event = if wants_events {
            let event = Event::of(&shaped, &self.paths)?.into_owned();
            Some(Event { partial: event.partial.or_else(|| Some(shape.note().to_owned().into())), ..event })
        } else {
            None
        };
        Ok(Some(Prepared { item: Some(Cow::Owned(shaped)), event }))
    }

    /// Whether the filter lets an event pass. Without an answer it is dropped.
    fn passes(&self, event: &Event<'_>) -> Result<bool, NoAnswer> {
        let Some(filter) = &self.filter else { return Ok(true) };
        match filter.matches(event) {
            Ok(answer) => Ok(answer),
            Err(NoAnswer::Unknown(reason)) => {
                if self.metrics.filter_errors.fetch_add(1, Ordering::Relaxed) == 0 {
                    warn!(
                        follower = self.name,
                        reason, "the filter has no answer for a change, which counts as no; only the first is told"
                    );
                }
                Ok(false)
            }
            Err(e @ NoAnswer::Undeclared(_)) => Err(e),
        }
    }

    /// Hands a batch to all sinks at once, and again to those that were busy.
    async fn write(&self, batch: &Batch<'_>, stop: &CancellationToken) -> Result<bool, FollowError> {
        // Sinks that hold back come last: what they have taken is acknowledged with the page, or not at all.
        let (holding, mut left): (Vec<&Sink>, Vec<&Sink>) = self.sinks.iter().partition(|sink| sink.holds_back());
        let mut pause = PAUSES.0;
        loop {
            held(batch.fence)?;
            let results = join_all(left.iter().map(|sink| sink.write(batch))).await;
            let mut busy = Vec::new();
            for (sink, result) in left.into_iter().zip(results) {
                match result {
                    Ok(summary) => self.count(summary),
                    Err(SinkError::Busy(why)) => {
                        let reason = chain(&why);
                        warn!(follower = self.name, range = batch.range, sink = %sink, reason, "sink failed, trying again");
                        Metrics::add(&self.metrics.retries, 1);
                        busy.push(sink);
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            if busy.is_empty() {
                for sink in holding {
                    sink.write(batch).await?;
                }
                return Ok(true);
            }
            left = busy;
            self.metrics.range(batch.range, |state| state.failing = true);
            if !waited(&mut pause, stop).await {
                return Ok(false);
            }
        }
    }

    /// Makes durable what the sinks hold back of a range, when it is time or when it must be. Returns false while
    /// something is still held back: the range may not advance then.
    ///
    /// # Errors
    /// When a sink will never take it, or the name is lost.
    pub(super) async fn flush(
        &self,
        range: &str,
        now: bool,
        fence: &Fence,
        stop: &CancellationToken,
    ) -> Result<bool, FollowError> {
        let mut done = true;
        for sink in self.sinks.iter().filter(|sink| sink.holds_back()) {
            let mut pause = PAUSES.0;
            loop {
                held(fence)?;
                match sink.flush(range, now).await {
                    Ok(held) => {
                        done &= !held;
                        break;
                    }
                    Err(SinkError::Busy(why)) => {
                        let reason = chain(&why);
                        warn!(follower = self.name, range, sink = %sink, reason, "sink failed, trying again");
                        Metrics::add(&self.metrics.retries, 1);
                    }
                    Err(e) => return Err(e.into()),
                }
                if !waited(&mut pause, stop).await {
                    return Ok(false);
                }
            }
        }
        Ok(done)
    }

    fn count(&self, summary: Option<Summary>) {
        let Some(summary) = summary else { return };
        Metrics::add(&self.metrics.retries, summary.retries);
        Metrics::add(&self.metrics.dead_letters, summary.dead_letters as u64);
    }

    /// Puts an item away that is not a change.
    async fn dead_letter(
        &self,
        item: &RawValue,
        reason: &str,
        range: &str,
        stop: &CancellationToken,
    ) -> Result<bool, FollowError> {
        let letter = DeadLetter {
            v: 1,
            at: self.clock.stamp(),
            function: self.name.clone(),
            invocation: range.to_owned(),
            id: None,
            status: "-".into(),
            reason: reason.to_owned(),
            partial: None,
            delivery: Some(Delivery::Direct),
            source: None,
            via: Some(self.via),
            item: item.to_owned(),
        };
        let mut pause = PAUSES.0;
        while let Err(e) = self.dead_letters.put(&letter).await {
            warn!(follower = self.name, range, reason = chain(&e), "dead-letter store failed, trying again");
            Metrics::add(&self.metrics.retries, 1);
            if !waited(&mut pause, stop).await {
                return Ok(false);
            }
        }
        Metrics::add(&self.metrics.dead_letters, 1);
        warn!(follower = self.name, range, reason, letter = letter.name(), "dead letter");
        Ok(true)
    }
}

/// Waits before another attempt, longer each time; false when stopped before.
async fn waited(pause: &mut Duration, stop: &CancellationToken) -> bool {
    let waits = tokio::time::sleep(*pause);
    *pause = (*pause * 2).min(PAUSES.1);
    stop.run_until_cancelled(waits).await.is_some()
}

/// A holder that may have lost its name must not write any more.
fn held(fence: &Fence) -> Result<(), FollowError> {
    if fence.is_over() { Err(CheckpointError::Expired.into()) } else { Ok(()) }
}

//! Runs a follower: opens its containers, its checkpoint and its sinks, and follows.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use serde::Serialize;
use tracing::warn;

use super::{
    CheckpointStore, Earlier, Ended, Filter, FollowError, Follower, Metrics, Options, Pipeline, earlier,
    sink::{BlobSink, FileSink, HistorySink, SegmentSink, Sink, StreamSink},
};
use crate::{
    blob::BlobContainer,
    capture::{Capture, CaptureLimits, Recent},
    change::{
        Via,
        fidelity::Delivery,
        key::KeyPaths,
        shape::{Redact, Redactor, ShapeError},
    },
    config::{BlobUrl, CaptureConfig, Credential, Fidelity, Secret},
    context::Context,
    cosmos::{Container, Disposition, Failure, FeedMode, FeedSource, RETRY_TIMEOUT, Retry},
    dead_letters::DeadLetterStore,
    history::CosmosHistory,
};

#[cfg(feature = "mongodb")]
use super::sink::Collection;
#[cfg(feature = "mongodb")]
use crate::{
    history::collections::of_another,
    mongo::{self, Mongo},
};

/// A request to follow a source into sinks.
#[derive(Debug)]
pub struct Request {
    /// The followed source.
    pub source: FollowedSource,
    /// How the feed is read.
    pub options: Options,
    /// Where changes go; a range advances when all sinks have the page.
    pub sinks: Vec<SinkTarget>,
    /// Which changes are passed on; without one, all.
    pub filter: Option<Filter>,
    /// How documents are reduced.
    pub fields: FieldRules,
    /// The file of the checkpoint; without one, the lease container.
    pub checkpoint_file: Option<PathBuf>,
    /// Limits, and where dead letters go.
    pub config: CaptureConfig,
    /// Authenticates with blob containers.
    pub credential: Credential,
    /// Updated while it runs.
    pub metrics: Arc<Metrics>,
}

/// The followed source.
#[derive(Debug, Clone)]
pub enum FollowedSource {
    /// The source container of the account.
    Container,
    /// A MongoDB deployment, or a part of it.
    #[cfg(feature = "mongodb")]
    MongoDb {
        /// Where it is.
        address: mongo::Address,
        /// The kind of server; `None` asks the server.
        dialect: Option<mongo::Dialect>,
        /// Which part of it.
        scope: mongo::StreamScope,
    },
}

/// Which fields of documents are passed on.
#[derive(Debug, Default)]
pub struct FieldRules {
    /// Paths, as segments; empty means all fields.
    pub only: Vec<Vec<String>>,
    /// Fields that are left out or hashed.
    pub redact: Vec<Redact>,
    /// The key of the hashes.
    pub key: Option<Secret>,
}

/// Where changes go.
#[derive(Debug)]
pub enum SinkTarget {
    /// The history.
    Changes,
    /// A stream that somebody reads.
    Stream(StreamSink),
    /// A file, one event per line.
    File(PathBuf),
    /// A blob container, one blob per version.
    Blobs(BlobUrl),
    /// A blob container, compressed files of many events.
    Segments {
        /// The container, and the folder in it.
        url: BlobUrl,
        /// The compressed size at which a segment is closed, in bytes.
        bytes: usize,
        /// The age at which a segment is closed.
        age: Duration,
    },
}

/// The counts of a follower's run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// Changes read.
    pub read: u64,
    /// Changes passed on to the sinks.
    pub passed_on: u64,
    /// Changes that can never be stored, and are dead letters now.
    pub dead_letters: u64,
    /// Changes for which the filter has no answer.
    pub unanswered: u64,
    /// Request units.
    pub ru: f64,
    /// Seconds.
    pub seconds: f64,
}

impl Request {
    /// Checks whether the filter can be used in this mode; contacts nobody.
    ///
    /// # Errors
    /// When it needs something that the feed does not have.
    pub fn check(&self) -> Result<(), FollowError> {
        let needs_previous = self.filter.as_ref().is_some_and(Filter::needs_previous);
        if matches!(self.source, FollowedSource::Container) && needs_previous && self.options.mode == FeedMode::Latest {
            Err(FollowError::NoPrevious)
        } else {
            Ok(())
        }
    }
}

/// Follows until stopped, or until nothing is left when the request says so.
///
/// # Errors
/// When the source, a sink or the checkpoint refuses. What may pass is retried.
pub async fn run(request: Request, cx: &Context<'_>) -> Result<Report, FollowError> {
    let started = Instant::now();
    request.check()?;
    let metrics = request.metrics.clone();
    let ended = follow(request, cx).await?;
    let [read, passed_on, dead_letters, unanswered] =
        [&metrics.changes, &metrics.delivered, &metrics.dead_letters, &metrics.filter_errors].map(Metrics::get);
    let (ru, seconds) = (cx.account.meter().total(), started.elapsed().as_secs_f64());
    Ok(Report { ended, read, passed_on, dead_letters, unanswered, ru, seconds })
}

async fn follow(request: Request, cx: &Context<'_>) -> Result<Ended, FollowError> {
    #[cfg_attr(not(feature = "mongodb"), allow(unused_mut))]
    let Request { source, mut options, sinks, filter, fields, checkpoint_file, config, credential, metrics } = request;
    let is_elsewhere = !matches!(source, FollowedSource::Container);
    #[cfg(feature = "mongodb")]
    let mut collection = None;
    let opened = match source {
        FollowedSource::Container => {
            let opened = open(&cx.names.source, &options, &metrics, cx).await?;
            opened.map(|container| Arc::new(container) as Arc<dyn FeedSource>)
        }
        #[cfg(feature = "mongodb")]
        FollowedSource::MongoDb { address, dialect, scope } => {
            let history = sinks.iter().any(|sink| matches!(sink, SinkTarget::Changes));
            if history && !matches!(scope, mongo::StreamScope::Collection { .. }) {
                return Err(FollowError::OneCollection);
            }
            let with_bytes = fields.are_all();
            let connect = async || {
                let mongo = Mongo::connect(address.clone(), dialect).await?;
                mongo::ChangeStream::open(mongo, scope.clone(), with_bytes, cx.clock.clone()).await
            };
            // The driver waits for a server as patiently as its address says, so each attempt is logged.
            let patience = if options.until_caught_up { RETRY_TIMEOUT } else { Duration::ZERO };
            let stream = patiently(connect, patience, &options, &metrics, cx).await?;
            if let Some(stream) = &stream {
                if let mongo::StreamScope::Collection { database, collection: name } = &scope {
                    let own = format!("{database}.{name}");
                    let other = async || {
                        of_another(&cx.account.container(&cx.names.database, &cx.names.changes).await?, &own).await
                    };
                    if history
                        && let Some(Some(other)) = patiently(other, RETRY_TIMEOUT, &options, &metrics, cx).await?
                    {
                        return Err(FollowError::OtherCollection { other, own });
                    }
                    collection = Some(Collection {
                        account: cx.account.clone(),
                        names: cx.names.clone(),
                        mongo: stream.mongo().clone(),
                        database: database.clone(),
                        collection: name.clone(),
                        unread: Default::default(),
                    });
                }
                options.mode = stream.mode();
                if stream.looks_up() {
                    warn!(
                        follower = options.name,
                        "the server looks the texts of updates up when it reads them, so they may be of later changes; \
                         post-images of the collection make them exact (changeStreamPreAndPostImages)"
                    );
                }
            }
            stream.map(|stream| Arc::new(stream) as Arc<dyn FeedSource>)
        }
    };
    let Some(source) = opened else { return Ok(Ended::NotStarted) };
    let options = Arc::new(options);
    let store = match checkpoint_file {
        Some(path) => CheckpointStore::File(path),
        None => match open(&cx.names.leases, &options, &metrics, cx).await? {
            Some(leases) => CheckpointStore::Container(leases),
            None => return Ok(Ended::NotStarted),
        },
    };
    if let CheckpointStore::Container(leases) = &store
        && !is_elsewhere
        && sinks.iter().any(|sink| matches!(sink, SinkTarget::Changes))
    {
        let (history, own) = (cx.names.history(), source.place());
        let other = async || earlier::other_source(leases, &history, &own).await;
        if let Some(Some(other)) = patiently(other, RETRY_TIMEOUT, &options, &metrics, cx).await? {
            let earlier::Other { id, follower, source } = other;
            return Err(FollowError::OtherSource { history, other: source, follower, checkpoint: id });
        }
    }
    let redactor = fields.redactor(source.key_paths(), is_elsewhere)?;
    let dead_letters = Arc::new(DeadLetterStore::open(&config.dead_letters, &credential)?);
    // What passes a filter says nothing about the changes around it.
    let via = if filter.is_some() { Via::Filter } else { Via::Follow };
    let capture = || Capture {
        function: options.name.clone(),
        clock: cx.clock.clone(),
        history: if is_elsewhere {
            CosmosHistory::new(cx.account.clone(), cx.names.clone()).of_documents_elsewhere(source.key_paths().clone())
        } else {
            CosmosHistory::new(cx.account.clone(), cx.names.clone())
        },
        dead_letters: dead_letters.clone(),
        fidelity: Fidelity::Payload,
        delivery: Delivery::Direct,
        identity_told: AtomicBool::new(false),
        limits: CaptureLimits::new(config.max_writes, config.max_rereads, config.deadline),
        via,
        recent: Recent::default(),
        unfinished: Recent::default(),
        partial: redactor.as_ref().map(|redactor| redactor.note().to_owned()),
        projection: None,
    };
    let history = || {
        let history = HistorySink::new(capture());
        #[cfg(feature = "mongodb")]
        let history = history.of_collection(collection.clone());
        history
    };
    let sinks = sinks.into_iter().map(|target| target.open(&options.name, &credential, &history));
    let pipeline = Pipeline {
        via,
        name: options.name.clone(),
        paths: source.key_paths().clone(),
        filter,
        sinks: sinks.collect::<Result<_, _>>()?,
        dead_letters: dead_letters.clone(),
        metrics: metrics.clone(),
        shape: redactor,
        clock: cx.clock.clone(),
    };
    let earlier = Earlier { account: cx.account.clone(), names: cx.names.clone(), is_elsewhere };
    let pipeline = Arc::new(pipeline);
    Follower { source, options, store, pipeline, earlier: Some(earlier), metrics, clock: cx.clock.clone() }
        .run(&cx.stop)
        .await
}

/// Opens a container as patiently as the follower reads: an account that is busy or out of reach is asked again, until
/// the follower is stopped or, when it is to end by itself, for a limited time. `None` when it was stopped.
async fn open(
    name: &str,
    options: &Options,
    metrics: &Metrics,
    cx: &Context<'_>,
) -> Result<Option<Container>, FollowError> {
    patiently(async || cx.account.container(&cx.names.database, name).await, RETRY_TIMEOUT, options, metrics, cx).await
}

/// The pause before something out of reach is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// The same for anything that is opened; each attempt is repeated for this long before it is logged.
async fn patiently<T>(
    open: impl AsyncFn() -> Result<T, Failure>,
    patience: Duration,
    options: &Options,
    metrics: &Metrics,
    cx: &Context<'_>,
) -> Result<Option<T>, FollowError> {
    loop {
        let retry = Retry::for_at_most(patience);
        let opened = retry.run(|| open());
        let opened = cx.stop.run_until_cancelled(opened).await;
        Metrics::add(&metrics.retries, retry.count());
        match opened {
            None => return Ok(None),
            Some(Err(failure)) if failure.disposition == Disposition::Transient && !options.until_caught_up => {
                warn!(follower = options.name, reason = %failure, "out of reach, trying again");
                if cx.stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                    return Ok(None);
                }
            }
            Some(opened) => return opened.map(Some).map_err(FollowError::Open),
        }
    }
}

impl FieldRules {
    /// Whether documents are passed on whole.
    #[cfg(feature = "mongodb")]
    fn are_all(&self) -> bool {
        self.only.is_empty() && self.redact.is_empty()
    }

    /// How documents are changed on their way; `None` when they are not. A MongoDB document keeps the text of its
    /// `_id`, whatever is left out of it.
    fn redactor(&self, paths: &KeyPaths, is_mongo: bool) -> Result<Option<Redactor>, FollowError> {
        let own_id = ["_id".to_owned()];
        if is_mongo && self.redact.iter().any(|redact| redact.touches(&own_id)) {
            return Err(FollowError::Redact(ShapeError::Needed("/_id".to_owned())));
        }
        if self.key.is_none() && self.redact.iter().any(Redact::is_hash) {
            return Err(FollowError::NoRedactKey);
        }
        Redactor::new(&self.only, &self.redact, paths, self.key.clone()).map_err(FollowError::Redact)
    }
}

impl SinkTarget {
    fn open(
        self,
        follower: &str,
        credential: &Credential,
        history: &dyn Fn() -> HistorySink,
    ) -> Result<Sink, FollowError> {
        let blobs = |url: &BlobUrl| {
            let (container, folder) = url.split();
            match BlobContainer::open(&container, credential) {
                Ok(store) => Ok((store, folder)),
                Err(error) => Err(FollowError::Blob { container: container.to_string(), error }),
            }
        };
        Ok(match self {
            Self::Changes => Sink::Changes(Box::new(history())),
            Self::Stream(stream) => Sink::Stream(stream),
            Self::File(path) => Sink::File(FileSink::new(path)),
            Self::Blobs(url) => {
                let (store, folder) = blobs(&url)?;
                Sink::Blobs(BlobSink::new(store, folder))
            }
            Self::Segments { url, bytes, age } => {
                let (store, folder) = blobs(&url)?;
                Sink::Segments(SegmentSink::new(store, folder, follower.to_owned(), bytes, age))
            }
        })
    }
}

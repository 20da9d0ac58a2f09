//! Lists dead letters, and captures them again when their cause is fixed.

use std::sync::{Arc, atomic::AtomicBool};

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::{Capture, CaptureError, CaptureLimits, Recent};
use crate::{
    causes::chain,
    change::{Via, decode::decode, fidelity::Delivery},
    clock::SystemClock,
    config::{CaptureConfig, ConfigError, Fidelity, Names, Settings},
    cosmos::Cosmos,
    dead_letters::{DeadLetter, DeadLetterError, DeadLetterStore},
    history::{CosmosHistory, History as _},
    progress::Progress,
    projection::Projection,
};

/// Which letters are examined, and what is done with them.
#[derive(Debug)]
pub struct Request {
    /// Only list them.
    pub list_only: bool,
    /// Only letters of this function.
    pub function: Option<String>,
    /// Only letters of this document id.
    pub id: Option<String>,
    /// Settings, which name the containers and the projection of each letter's function.
    pub settings: Settings,
    /// Limits, and what is read again.
    pub config: CaptureConfig,
    /// Where the letters are.
    pub store: DeadLetterStore,
    /// Once cancelled, no further letter is begun, and the current one is finished.
    pub stop: CancellationToken,
}

/// One letter, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Its name in the store.
    pub letter: String,
    /// When it was put away, RFC 3339. Like the next three, `None` when it cannot be read.
    pub at: Option<String>,
    /// The function that received it.
    pub function: Option<String>,
    /// The document's id, when one could be read.
    pub id: Option<String>,
    /// The service's status at the time.
    pub status: Option<String>,
    /// The outcome.
    pub outcome: LetterOutcome,
    /// Why it was put away, or why it is kept.
    pub reason: String,
}

/// The outcome of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LetterOutcome {
    /// It was only listed.
    Waiting,
    /// It is in the history now, and the letter is gone.
    Stored,
    /// It cannot be stored today, either.
    Kept,
    /// It cannot be read.
    Unreadable,
}

impl LetterOutcome {
    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Stored => "stored",
            Self::Kept => "kept",
            Self::Unreadable => "unreadable",
        }
    }
}

/// How many letters there were.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Letters that were asked for and could be read.
    pub letters: u64,
    /// Letters that are in the history now.
    pub stored: u64,
    /// Letters that remain, including those that cannot be read.
    pub kept: u64,
    /// The store, without a signature.
    pub store: String,
    /// Request units.
    pub ru: f64,
    /// Letters that were not examined, because the work was told to stop.
    pub left: u64,
}

/// Why letters were not replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] DeadLetterError),
    /// A setting of a letter's function is wrong.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// Lists letters, or captures them again, and reports each to `each`. It takes no context: each letter's function has
/// containers of its own.
///
/// # Errors
/// When the store cannot be read, a setting is wrong, or `each` fails. A letter that cannot be stored is no error.
pub async fn replay<E: From<ReplayError>>(
    request: Request,
    cosmos: &Cosmos,
    progress: &dyn Progress,
    mut each: impl FnMut(Replayed) -> Result<(), E>,
) -> Result<Report, E> {
    let Request { list_only, function, id, settings, config, store, stop } = request;
    let store = Arc::new(store);
    let names = store.list().await.map_err(ReplayError::from)?;
    let limits = CaptureLimits::new(config.max_writes, config.max_rereads, config.deadline);
    let step = progress.begin(if list_only { "reading letters" } else { "replaying" }, Some(names.len() as u64));
    let mut report =
        Report { letters: 0, stored: 0, kept: 0, store: config.dead_letters.to_string(), ru: 0.0, left: 0 };
    let mut names = names.into_iter();
    while !stop.is_cancelled()
        && let Some(name) = names.next()
    {
        let letter = match store.get(&name).await {
            Ok(letter) => letter,
            // Another replay was faster, or the letter was erased.
            Err(e) if e.is_gone() => continue,
            Err(e) => {
                report.kept += 1;
                let (outcome, reason) = (LetterOutcome::Unreadable, chain(&e));
                each(Replayed { letter: name, at: None, function: None, id: None, status: None, outcome, reason })?;
                continue;
            }
        };
        if function.as_ref().is_some_and(|f| *f != letter.function)
            || id.as_ref().is_some_and(|id| letter.id.as_ref() != Some(id))
        {
            continue;
        }
        report.letters += 1;
        let (outcome, reason) = if list_only {
            (LetterOutcome::Waiting, letter.reason.clone())
        } else {
            let capture =
                capture_of(&letter, &settings, &config, cosmos, &store, &limits).map_err(ReplayError::from)?;
            match replay_one(&capture, &letter, &store, &name).await {
                Ok(LetterFate::Stored) => (LetterOutcome::Stored, letter.reason.clone()),
                Ok(LetterFate::Overtaken) => (LetterOutcome::Stored, OVERTAKEN.to_owned()),
                Ok(LetterFate::Gone) => {
                    report.letters -= 1;
                    continue;
                }
                Err(error) => (LetterOutcome::Kept, chain(&error)),
            }
        };
        step.advance(1);
        report.stored += u64::from(outcome == LetterOutcome::Stored);
        report.kept += u64::from(outcome == LetterOutcome::Kept);
        let DeadLetter { at, function, id, status, .. } = letter;
        each(Replayed {
            letter: name,
            at: Some(at),
            function: Some(function),
            id,
            status: Some(status),
            outcome,
            reason,
        })?;
    }
    report.left = names.len() as u64;
    report.ru = cosmos.meter().total();
    Ok(report)
}

/// Why a letter is kept.
#[derive(Debug, thiserror::Error)]
enum NotReplayed {
    /// Its item cannot be captured now.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] DeadLetterError),
    /// It belongs to another history than today's settings name.
    #[error(
        "it is a change of {of}, and for {function} the source is {today} here: set {function}__COSMOS_SOURCE_CONTAINER and \
         {function}__COSMOS_CHANGES_CONTAINER, or name both by --source and --changes"
    )]
    Elsewhere {
        /// Its source.
        of: String,
        /// Its function.
        function: String,
        /// The source that the settings name for that function.
        today: String,
    },
    /// Its document is in MongoDB.
    #[error(
        "it is a change of the MongoDB collection {0}, and replay captures changes of containers alone: set MONGODB_URI and \
         follow the collection again (follow --name ANOTHER --from beginning), with --fields or --redact if its document \
         is too large for a record"
    )]
    OfMongo(String),
    /// Its item can still not be stored, for this reason.
    #[error("{0}")]
    Again(String),
}

/// How a letter is captured.
fn capture_of(
    letter: &DeadLetter,
    settings: &Settings,
    config: &CaptureConfig,
    cosmos: &Cosmos,
    store: &Arc<DeadLetterStore>,
    limits: &CaptureLimits,
) -> Result<Capture<CosmosHistory>, ConfigError> {
    // A letter that holds a part of a document keeps that part; anything else gets today's shape.
    let projection = match &letter.partial {
        Some(_) => None,
        None => Projection::from_settings(settings, Some(&letter.function))?,
    };
    Ok(Capture {
        function: letter.function.clone(),
        clock: SystemClock::shared(),
        history: CosmosHistory::new(cosmos.clone(), Names::from_settings(settings, Some(&letter.function))?),
        dead_letters: store.clone(),
        // Reading the document again would bring back what was left out of its letter.
        fidelity: if letter.partial.is_some() { Fidelity::Payload } else { config.fidelity },
        delivery: letter.delivery.unwrap_or(Delivery::DatesRewritten),
        identity_told: AtomicBool::new(false),
        limits: limits.clone(),
        via: letter.via.unwrap_or(Via::Trigger),
        recent: Recent::default(),
        unfinished: Recent::default(),
        partial: letter.partial.clone(),
        projection,
    })
}

/// The collection of MongoDB that an item is a change of.
fn collection_of(item: &RawValue) -> Option<String> {
    let mut changes = Vec::new();
    decode(item, &mut changes).ok()?;
    changes.iter().find_map(|change| change.native.as_ref()).map(|native| native.ns.to_string())
}

/// What became of a letter.
enum LetterFate {
    /// Its item is in the history, and the letter is gone.
    Stored,
    /// The same, and somebody else had removed the letter: another replay, or `erase`, which may not see the record.
    Overtaken,
    /// It disappeared, and its item was not stored here.
    Gone,
}

/// What is told of a letter that somebody else removed.
const OVERTAKEN: &str = "its letter was removed meanwhile, by another replay or by erase: if its document was erased, \
                         erase it again";

/// Captures a letter's item again. The letter is removed only when the item is durable in the history.
async fn replay_one(
    capture: &Capture<CosmosHistory>,
    letter: &DeadLetter,
    store: &DeadLetterStore,
    name: &str,
) -> Result<LetterFate, NotReplayed> {
    // Settings for containers may name any history here, and a record in that of a container would be a stranger.
    if let Some(collection) = collection_of(&letter.item) {
        return Err(NotReplayed::OfMongo(collection));
    }
    if let (Some(of), Some(today)) = (&letter.source, capture.history.source_name())
        && *of != today
    {
        return Err(NotReplayed::Elsewhere { of: of.clone(), function: letter.function.clone(), today });
    }
    let attempt = capture.attempt(&[&letter.item]).await?;
    let Some(poison) = attempt.poison.first() else {
        let is_overtaken = store.bytes(name).await.is_err_and(|e| e.is_gone());
        store.delete(name).await?;
        return Ok(if is_overtaken { LetterFate::Overtaken } else { LetterFate::Stored });
    };
    // The letter stays, with today's reason. If it holds a part of an item, a second letter would otherwise appear
    // beside it.
    match store.get(name).await {
        Err(e) if e.is_gone() => return Ok(LetterFate::Gone),
        _ => {}
    }
    let reason = chain(&poison.why);
    let again = DeadLetter {
        at: capture.clock.stamp(),
        status: poison.status().to_string(),
        reason: reason.clone(),
        ..letter.clone()
    };
    store.put_as(name, &again).await?;
    Err(NotReplayed::Again(reason))
}

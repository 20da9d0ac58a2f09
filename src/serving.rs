//! Prepares the handler that `serve` runs: the app's functions, and what prevents a start. The containers are checked
//! while the handler already answers.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use futures::{future::join_all, join};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::{
    blob::BlobError,
    capture::{Capture, CaptureError, CaptureLimits, Recent},
    causes::chain,
    change::{Via, fidelity::Delivery},
    clock::SystemClock,
    config::{AccountSettings, CaptureConfig, ConfigError, Names, Settings},
    cosmos::{Cosmos, Disposition},
    dead_letters::{DeadLetterError, DeadLetterStore, StoreError},
    doctor, frontier,
    history::CosmosHistory,
    host::{
        Handler, Tick, app,
        functions::{DEFAULT_FUNCTION, Function, TriggerKind},
        overrides::read_host,
    },
    projection::Projection,
    retention::timer::PruneTimer,
};

/// How long the first check waits for the containers' partition keys, and for a missing container; no longer than a
/// batch would wait.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// The pause between two checks for something that is missing.
const PAUSE: Duration = Duration::from_millis(500);

/// When the leases are looked at: soon, because a handler may not live long; and from time to time, because they can be
/// lost. Each pause is twice as long as the one before.
const FIRST_NOTE: Duration = Duration::from_secs(2);
const BETWEEN_NOTES: Duration = Duration::from_secs(60);

/// Why the handler does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting, or a function's file, is wrong.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The store of dead letters cannot be used.
    #[error(transparent)]
    DeadLetters(#[from] DeadLetterError),
    /// It would capture to the wrong place, or lose what it is sent.
    #[error("capture would not be right:\n  {}", .0.join("\n  "))]
    Wrong(Vec<String>),
}

/// Prepares the handler of the app in a folder; contacts nobody. `timer` makes the work of a function with a timer
/// trigger.
///
/// # Errors
/// When a setting or a file is wrong, or the files show that capture would not be right.
pub fn handler(
    settings: &Settings,
    config: &CaptureConfig,
    app_root: &Path,
    timer: impl Fn(&str, AccountSettings) -> Result<PruneTimer, ConfigError>,
) -> Result<Handler<CosmosHistory>, ServeError> {
    let account = AccountSettings::from_settings(settings)?;
    let limits = CaptureLimits::new(config.max_writes, config.max_rereads, config.deadline);
    let dead_letters = Arc::new(DeadLetterStore::open(&config.dead_letters, &account.credential)?);
    refuse(doctor::wrong_in_files(app_root, settings, &account))?;
    let delivery = delivery(app_root, settings);
    let cosmos = Cosmos::for_writing(account.clone());
    let mut functions = Function::discover(app_root)?;
    if functions.is_empty() {
        warn!(
            function = DEFAULT_FUNCTION,
            "no function.json with a cosmosDBTrigger below the app root; serving the shipped function"
        );
        functions.push(Function::shipped());
    }
    let (timers, functions): (Vec<_>, Vec<_>) = functions.into_iter().partition(|f| f.trigger == TriggerKind::Timer);
    let served = functions
        .into_iter()
        .map(|function| {
            let names = Names::from_settings(settings, Some(&function.name))?;
            function.check_container(settings, &names.source)?;
            let projection = Projection::from_settings(settings, Some(&function.name))?;
            let capture = Capture {
                function: function.name,
                clock: SystemClock::shared(),
                history: CosmosHistory::new(cosmos.clone(), names),
                dead_letters: dead_letters.clone(),
                fidelity: config.fidelity,
                delivery,
                identity_told: AtomicBool::new(false),
                limits: limits.clone(),
                via: Via::Trigger,
                recent: Recent::default(),
                unfinished: Recent::default(),
                partial: None,
                projection,
            };
            Ok((function.binding, capture))
        })
        .collect::<Result<Vec<_>, ServeError>>()?;
    let mut handler = Handler::new(served, config.max_body);
    for Function { name, .. } in timers {
        let timer = Arc::new(timer(&name, account.clone())?);
        let tick: Tick = Arc::new(move |stop| {
            let timer = timer.clone();
            Box::pin(async move { timer.tick(stop).await.map_err(Into::into) })
        });
        handler = handler.with_timer(name, tick);
    }
    Ok(handler)
}

/// How the host alters documents on their way here, according to host.json and the app settings that override it.
/// Without a readable host.json the worst is assumed: whoever starts the handler in another way may do the same.
fn delivery(app_root: &Path, settings: &Settings) -> Delivery {
    let delivery =
        read_host(&app_root.join("host.json"), settings).map_or(Delivery::DatesRewritten, |host| app::delivery(&host));
    if delivery == Delivery::DatesRewritten {
        warn!(
            "the host rewrites dates: documents that have some are read again, and altered for good where that fails; \
             for the setting that prevents it run `cosmos-rewind doctor`"
        );
    }
    delivery
}

/// Checks the containers of functions and the store of dead letters, for ten seconds at most. Batches that arrive
/// meanwhile check the containers themselves before they are stored.
///
/// # Errors
/// When capture would not be right, or a container is still missing after that time. An account that does not answer is
/// not an error: it is asked again with the next batch, and until it answers nothing is stored.
pub async fn look(captures: &[Arc<Capture<CosmosHistory>>]) -> Result<(), ServeError> {
    let looked = join_all(captures.iter().map(|capture| settled(capture, look_at)));
    // All functions share one store for letters.
    let letters = async {
        match captures.first() {
            Some(capture) => settled(capture, look_at_letters).await,
            None => None,
        }
    };
    let (looked, letters) = join!(looked, letters);
    refuse(looked.into_iter().flatten().chain(letters).collect())
}

/// Notes in the histories when the trigger began that writes them, as its leases tell: now, and whenever they were made
/// anew since. A reader of the history can tell from that what was passed over. Nothing waits for it: without a note,
/// the leases that are there tell the same, as long as they are not lost again. Never ends.
pub async fn note_begun(captures: &[Arc<Capture<CosmosHistory>>]) {
    let mut noted = vec![None; captures.len()];
    let (mut pause, mut told) = (FIRST_NOTE, false);
    loop {
        sleep(pause).await;
        pause = (pause * 2).min(BETWEEN_NOTES);
        for (capture, noted) in captures.iter().zip(&mut noted) {
            let (cosmos, names) = capture.history.account();
            match frontier::note_begun(cosmos, names, *noted).await {
                Ok(begun) => *noted = begun,
                Err(e) if !told => {
                    warn!(function = capture.function, reason = %e, "cannot note when the trigger began");
                    told = true;
                }
                Err(_) => {}
            }
        }
    }
}

fn refuse(wrong: Vec<String>) -> Result<(), ServeError> {
    if wrong.is_empty() { Ok(()) } else { Err(ServeError::Wrong(wrong)) }
}

/// The result of a check.
enum Look {
    Right,
    /// It stays wrong until somebody changes the settings or the container.
    Wrong(String),
    /// It may be fixed at this very moment: `provision` runs beside the host.
    NotYet(String),
    /// There was no answer.
    Unknown(String),
}

/// Checks until everything is fine, or the time is over. Returns the problems.
async fn settled(
    capture: &Capture<CosmosHistory>,
    look: impl AsyncFn(&Capture<CosmosHistory>) -> Look,
) -> Option<String> {
    let end = Instant::now() + FIRST_LOOK.min(capture.limits.deadline());
    let mut told = false;
    loop {
        let Ok(found) = timeout_at(end, look(capture)).await else {
            warn!("the account does not answer yet");
            return None;
        };
        match found {
            Look::Right => return None,
            Look::Wrong(what) => return Some(what),
            Look::NotYet(what) if Instant::now() + PAUSE < end => {
                if !told {
                    warn!(reason = what, "waiting for what is missing; without it the handler does not start");
                    told = true;
                }
                sleep(PAUSE).await;
            }
            Look::NotYet(what) => return Some(what),
            Look::Unknown(reason) => {
                warn!(reason, "cannot look at the containers yet");
                return None;
            }
        }
    }
}

/// A history that cannot keep its documents apart, a part of the source's key that would be left out, a missing
/// container, or a key that the account does not know.
async fn look_at(capture: &Capture<CosmosHistory>) -> Look {
    let Err(e) = capture.look().await else { return Look::Right };
    let told = |e: &CaptureError, hint: &str| format!("{}: {}{hint}", capture.function, chain(e));
    match &e {
        CaptureError::Layout(_) => Look::Wrong(told(&e, "")),
        CaptureError::Projection(wrong) => Look::Wrong(wrong.to_string()),
        CaptureError::Service(f) if f.disposition == Disposition::NotFound || f.status.is_unauthorized() => {
            let hint = f.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            // Nothing is stored yet: the service's answer says it all.
            Look::NotYet(format!("{}: {}{hint}", capture.function, chain(f)))
        }
        // A role that was just assigned is not known everywhere yet: a 403 may disappear by itself.
        _ => Look::Unknown(told(&e, "")),
    }
}

async fn look_at_letters(capture: &Capture<CosmosHistory>) -> Look {
    let Err(e) = capture.dead_letters.check().await else { return Look::Right };
    let told = format!("REWIND_DEAD_LETTERS: {}", chain(&e));
    match e.cause() {
        StoreError::Blob(BlobError::NotThere) => Look::NotYet(told),
        _ if capture.dead_letters.is_final(&e) => Look::Wrong(told),
        _ => Look::Unknown(told),
    }
}

//! `serve`: the custom handler that host.json starts.

use std::{
    net::Ipv4Addr,
    path::Path,
    process,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use clap::Args;
use futures::future::join_all;
use tokio::{net::TcpListener, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{CliError, ErrorKind, Exit, retention_args};
use crate::{
    capture::{Capture, CaptureError, Limits, Recent},
    causes::chain,
    change::{Via, fidelity::Delivery},
    config::{self, Account, CaptureConfig, Names, Settings},
    cosmos::Cosmos,
    dead_letters::DeadLetterStore,
    doctor,
    history::CosmosHistory,
    host::{
        Handler, Shutdown, Tick, app,
        functions::{DEFAULT_FUNCTION, Function, TriggerKind},
        serve,
    },
    projection::Projection,
    telemetry::{self, otlp::Export},
};

/// The host restarts a handler that exits with this code, and does not count it as a failure.
const RESTART: i32 = 200;
/// How long the start waits for the containers' partition keys; the host gives up on a handler after 30 seconds.
const FIRST_LOOK: Duration = Duration::from_secs(10);

/// Flags of `serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Port on 127.0.0.1; 0 takes any free one
    #[arg(long, env = "FUNCTIONS_CUSTOMHANDLER_PORT", default_value_t = 0)]
    port: u16,
}

/// Runs the handler until SIGTERM or Ctrl-C.
///
/// # Errors
/// When a setting is wrong or the port is taken; both before any batch is accepted.
pub async fn run(args: ServeArgs) -> Result<Exit, CliError> {
    let app_root = config::app_root();
    let settings = Settings::load(&app_root)?;
    telemetry::start(&settings, telemetry::Stream::Stdout, "info")?;
    telemetry::log_panics();
    // The port first: the host gives up on a handler that does not answer within 30 s, and Cosmos may be far away.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.map_err(|e| {
        CliError::failed(format!("cannot listen on 127.0.0.1:{}", args.port))
            .because(e)
            .hint("end the process that has the port, or pass --port 0 for any free one")
    })?;
    let port = listener.local_addr().map(|a| a.port()).unwrap_or(args.port);
    let config = CaptureConfig::from_settings(&settings, &app_root)?;
    let export = Export::start(&settings)?;
    let handler = build(&settings, &config, &app_root).await?.with_export(export.clone());
    info!(port, functions = handler.names(), version = env!("CARGO_PKG_VERSION"), "ready");

    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));
    let served = serve(listener, handler, Shutdown { stop, drain: config.drain }).await;
    if let Some(export) = export {
        export.finish().await;
    }
    let drained = served.map_err(|e| {
        // A line of the log, not of stderr: the host shows each line there as an error of its own.
        error!(reason = %e, "server failed");
        CliError::from(ErrorKind::Logged)
    })?;
    info!(drained, "stopped");
    if std::env::var_os("FUNCTIONS_CUSTOMHANDLER_PORT").is_some() {
        // Exit code 0 would mean "never start me again" to a host that is still alive.
        process::exit(RESTART);
    }
    Ok(Exit::Done)
}

async fn build(
    settings: &Settings,
    config: &CaptureConfig,
    app_root: &Path,
) -> Result<Handler<CosmosHistory>, CliError> {
    let account = Account::from_settings(settings)?;
    retention_args::check_settings(settings)?;
    let limits = Limits::new(config.max_writes, config.max_rereads, config.deadline);
    let dead_letters = DeadLetterStore::open(&config.dead_letters, &account.credential)
        .map_err(|e| CliError::usage(e.to_string(), "check REWIND_DEAD_LETTERS"))?;
    let dead_letters = Arc::new(dead_letters);
    refuse(doctor::wrong_in_files(app_root, settings, &account))?;
    let delivery = delivery(app_root);
    let cosmos = Cosmos::for_writing(account.clone());
    let mut functions = Function::discover(app_root)?;
    if functions.is_empty() {
        warn!(function = DEFAULT_FUNCTION, "no function.json below the app root; serving the shipped function");
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
                history: CosmosHistory::new(cosmos.clone(), names),
                dead_letters: dead_letters.clone(),
                fidelity: config.fidelity,
                delivery,
                identity_told: AtomicBool::new(false),
                limits: limits.clone(),
                via: Via::Trigger,
                recent: Recent::default(),
                partial: None,
                projection,
            };
            Ok((function.binding, capture))
        })
        .collect::<Result<Vec<_>, CliError>>()?;
    let looked = served.iter().map(|(_, capture)| check_containers(capture));
    refuse(join_all(looked).await.into_iter().flatten().collect())?;
    let mut handler = Handler::new(served, config.max_body);
    for Function { name, .. } in timers {
        let timer = Arc::new(retention_args::timer(settings, &name, account.clone())?);
        let tick: Tick = Arc::new(move |stop| {
            let timer = timer.clone();
            Box::pin(async move { timer.tick(stop).await.map_err(Into::into) })
        });
        handler = handler.with_timer(name, tick);
    }
    Ok(handler)
}

/// What the host does to documents on their way here, as host.json has it. Without a host.json that can be read, the
/// worst is assumed: whoever starts the handler in another way may do the same.
fn delivery(app_root: &Path) -> Delivery {
    let delivery =
        app::read_json(&app_root.join("host.json")).map_or(Delivery::DatesRewritten, |host| app::delivery(&host));
    if delivery == Delivery::DatesRewritten {
        warn!(
            "the host rewrites dates: documents that have some are read again, and altered for good where that fails; \
             for the setting that prevents it run `cosmos-rewind doctor`"
        );
    }
    delivery
}

/// Does not start with what is wrong: it would capture into the wrong place, or lose what it is sent.
fn refuse(wrong: Vec<String>) -> Result<(), CliError> {
    if wrong.is_empty() {
        return Ok(());
    }
    Err(CliError::usage(
        format!("capture would not be right:\n  {}", wrong.join("\n  ")),
        "run `cosmos-rewind doctor` in the app's folder for all that it looks at",
    ))
}

/// What is wrong with the containers of a function: a history that cannot keep its documents apart, or a part of the
/// source's key that is to be left out. An account that does not answer in time is asked again with the first batch, and
/// until it answers nothing is stored.
async fn check_containers(capture: &Capture<CosmosHistory>) -> Option<String> {
    match tokio::time::timeout(FIRST_LOOK, capture.look()).await {
        Ok(Ok(())) => None,
        Ok(Err(e @ CaptureError::Layout(_))) => Some(format!("{}: {}", capture.function, chain(&e))),
        Ok(Err(CaptureError::Projection(e))) => Some(e.to_string()),
        Ok(Err(e)) => {
            warn!(function = capture.function, reason = %e, "cannot look at the containers yet");
            None
        }
        Err(_) => {
            warn!(function = capture.function, "the account does not answer yet");
            None
        }
    }
}

/// The first signal drains, the second one ends the process at once.
pub(super) async fn watch_signals(stop: CancellationToken) {
    let mut seen = 0;
    loop {
        #[cfg(unix)]
        {
            let Ok(mut terminate) = signal::unix::signal(signal::unix::SignalKind::terminate()) else { return };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = signal::ctrl_c() => {}
            }
        }
        #[cfg(not(unix))]
        if signal::ctrl_c().await.is_err() {
            return;
        }
        seen += 1;
        if seen > 1 {
            process::exit(Exit::Failed as i32);
        }
        stop.cancel();
    }
}

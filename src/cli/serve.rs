//! `serve`: the custom handler that host.json starts.

use std::{net::Ipv4Addr, panic::resume_unwind, path::Path, pin::pin, process, sync::Arc};

use clap::Args;
use tokio::{net::TcpListener, runtime, sync::watch, task};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::retention_args;
use crate::{
    capture::Capture,
    config::{self, CaptureConfig, Settings},
    console::{CliError, ErrorKind, Exit, signals::watch_signals},
    history::CosmosHistory,
    host::{Handler, Shutdown, serve},
    serving::{self, ServeError},
    telemetry::{self, otlp::Export},
};

/// The host restarts a handler that exits with this code without counting it as a failure.
const RESTART: i32 = 200;
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
/// When a setting or a file is wrong or the port is taken, before any batch is accepted; when the containers turn out
/// to be wrong, which is checked while the port answers.
pub async fn run(args: ServeArgs) -> Result<Exit, CliError> {
    let app_root = config::app_root();
    let settings = Settings::load(&app_root)?;
    telemetry::start(&settings, telemetry::LogStream::Stdout, "info")?;
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
    let (told, looked) = watch::channel(false);
    let handler = handler(&settings, &config, &app_root)?.with_export(export.clone()).until(looked);
    let (captures, noted, names) = (handler.captures(), handler.captures(), handler.names());

    let stop = CancellationToken::new();
    tokio::spawn(watch_signals(stop.clone()));
    let look = async {
        let looked = look_apart(captures, stop.clone()).await;
        if looked.is_err() {
            stop.cancel();
        }
        if !stop.is_cancelled() {
            told.send_replace(true);
            tokio::spawn(async move { serving::note_begun(&noted).await });
            info!(port, functions = names, version = env!("CARGO_PKG_VERSION"), "ready");
        }
        looked
    };
    let mut serving = pin!(serve(listener, handler, Shutdown { stop: stop.clone(), drain: config.drain }));
    let (served, looked) = tokio::select! {
        served = &mut serving => (served, Ok(())),
        looked = look => (serving.await, looked),
    };
    if let Some(export) = export {
        export.finish().await;
    }
    looked?;
    let drained = served.map_err(|e| {
        // Written to the log, not to stderr: the host shows each line there as an error of its own.
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

/// Looks at the containers until it is told to stop. It runs on a thread of its own: it reads the machine's root
/// certificates, which takes longer than everything else at the start, and the only worker has to answer the host.
async fn look_apart(captures: Vec<Arc<Capture<CosmosHistory>>>, stop: CancellationToken) -> Result<(), ServeError> {
    let runtime = runtime::Handle::current();
    let look = async move { stop.run_until_cancelled(serving::look(&captures)).await.unwrap_or(Ok(())) };
    let looked = task::spawn_blocking(move || runtime.block_on(look)).await;
    // A bug ends the process, as it would without the thread.
    looked.unwrap_or_else(|e| e.try_into_panic().map_or(Ok(()), |panic| resume_unwind(panic)))
}

fn handler(settings: &Settings, config: &CaptureConfig, app_root: &Path) -> Result<Handler<CosmosHistory>, CliError> {
    retention_args::check_settings(settings)?;
    let timer = |function: &str, account| retention_args::timer(settings, function, account);
    Ok(serving::handler(settings, config, app_root, timer)?)
}

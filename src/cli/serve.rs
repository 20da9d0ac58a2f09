//! `serve`: the custom handler that host.json starts.

use std::{net::Ipv4Addr, path::Path, process};

use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{CliError, ErrorKind, Exit, retention_args, signals::watch_signals};
use crate::{
    config::{self, CaptureConfig, Settings},
    history::CosmosHistory,
    host::{Handler, Shutdown, serve},
    serving,
    telemetry::{self, otlp::Export},
};

/// The host restarts a handler that exits with this code, and does not count it as a failure.
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
    let handler = handler(&settings, &config, &app_root).await?.with_export(export.clone());
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

async fn handler(
    settings: &Settings,
    config: &CaptureConfig,
    app_root: &Path,
) -> Result<Handler<CosmosHistory>, CliError> {
    retention_args::check_settings(settings)?;
    let timer = |function: &str, account| retention_args::timer(settings, function, account);
    Ok(serving::handler(settings, config, app_root, timer).await?)
}

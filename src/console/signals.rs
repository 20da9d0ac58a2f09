//! How long-running commands are told to end.

use std::process;

use tokio::signal;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "local")]
use super::CliError;
use super::Exit;

/// The first signal drains, the second one ends the process at once.
pub(crate) async fn watch_signals(stop: CancellationToken) {
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

/// Listens to SIGTERM and Ctrl-C from now on; the future resolves at the first of them.
#[cfg(all(feature = "local", unix))]
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    use signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| CliError::failed("cannot listen to signals").because(e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Listens to Ctrl-C; the future resolves when it comes.
#[cfg(all(feature = "local", not(unix)))]
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()>, CliError> {
    Ok(async {
        let _ = signal::ctrl_c().await;
    })
}

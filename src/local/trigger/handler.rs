//! The handler's process: started, watched and restarted in the same way as by the Functions host.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::shared::TriggerCounters;

/// How often, and for how long, readiness is checked.
const PING_EVERY: Duration = Duration::from_millis(25);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Ports below those that Linux, macOS and Windows give away by themselves (ip_local_port_range and its like).
const NOT_GIVEN_AWAY: std::ops::Range<u16> = 20_000..32_768;
/// The number of such ports that are tried.
const ATTEMPTS: u32 = 20;
/// Errors further apart than this are counted separately.
const ERROR_WINDOW: Duration = Duration::from_secs(30 * 60);
/// The number of errors that stops the host.
const ERRORS_ALLOWED: u32 = 3;
/// The exit code that requests a restart without counting as an error.
const RESTART_ME: i32 = 200;

/// The process to start.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub executable: PathBuf,
    pub arguments: Vec<OsString>,
    pub folder: PathBuf,
    pub settings: Vec<(String, String)>,
}

/// The state of the handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HandlerState {
    Starting,
    Ready {
        url: Url,
        /// The number of starts. A timeout belongs to one of them.
        generation: u32,
    },
    /// The handler will not be restarted.
    Stopped(String),
}

/// Keeps the handler running until `stop`, then kills it. `kills` requests a restart after a function has timed out.
pub(super) async fn supervise(
    program: Program,
    state: watch::Sender<HandlerState>,
    shared: std::sync::Arc<TriggerCounters>,
    mut kills: tokio::sync::mpsc::Receiver<u32>,
    stop: CancellationToken,
) {
    let mut errors = 0;
    let mut last_error: Option<Instant> = None;
    for generation in 0.. {
        if generation > 0 {
            shared.count_restart();
        }
        state.send_replace(HandlerState::Starting);
        let mut child = None;
        let run = run_once(&program, &mut child, &state, &shared, &mut kills, generation);
        let ended = match stop.run_until_cancelled(run).await {
            Some(ended) => ended,
            None => {
                if let Some(child) = &mut child {
                    kill(child).await;
                }
                break;
            }
        };
        shared.set_pid(None);
        let problem = match ended {
            Ended::Killed | Ended::Exited(Some(RESTART_ME)) => continue,
            Ended::Exited(Some(0)) => {
                let reason =
                    "the handler exited with 0, after which the host does not restart it: exit with another code";
                shared.failed(reason);
                state.send_replace(HandlerState::Stopped(reason.into()));
                break;
            }
            Ended::Exited(Some(code)) => format!("the handler exited with {code}"),
            Ended::Exited(None) => "the handler was killed by a signal".to_owned(),
            Ended::NotStarted(problem) => problem,
        };
        shared.failed(&problem);
        tracing::error!(target: "handler", "{problem}");
        let together = last_error.is_some_and(|last| last.elapsed() < ERROR_WINDOW);
        errors = if together { errors + 1 } else { 1 };
        last_error = Some(Instant::now());
        if errors >= ERRORS_ALLOWED {
            let reason = format!("{problem}; {errors} errors in a row stop the host");
            shared.failed(&reason);
            state.send_replace(HandlerState::Stopped(reason));
            break;
        }
    }
    shared.set_pid(None);
}

enum Ended {
    Exited(Option<i32>),
    /// Killed here because a function ran too long.
    Killed,
    NotStarted(String),
}

async fn run_once(
    program: &Program,
    running: &mut Option<Child>,
    state: &watch::Sender<HandlerState>,
    shared: &TriggerCounters,
    kills: &mut tokio::sync::mpsc::Receiver<u32>,
    generation: u32,
) -> Ended {
    let started = Instant::now();
    let (child, url) = match start(program).await {
        Ok((child, url)) => (running.insert(child), url),
        Err(problem) => return Ended::NotStarted(problem),
    };
    shared.set_pid(child.id());
    if let Some(output) = child.stdout.take() {
        tokio::spawn(forward(output, false));
    }
    if let Some(output) = child.stderr.take() {
        tokio::spawn(forward(output, true));
    }
    tokio::select! {
        status = child.wait() => return exited(status),
        ready = wait_until_ready(&url) => {
            if !ready {
                kill(child).await;
                let seconds = READY_WITHIN.as_secs();
                return Ended::NotStarted(format!("the handler did not answer GET {url} within {seconds} s"));
            }
        }
    }
    shared.set_ready(started.elapsed());
    state.send_replace(HandlerState::Ready { url, generation });
    loop {
        tokio::select! {
            status = child.wait() => return exited(status),
            asked = kills.recv() => match asked {
                Some(meant) if meant != generation => {}
                _ => {
                    kill(child).await;
                    return Ended::Killed;
                }
            }
        }
    }
}

fn exited(status: std::io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) => Ended::Exited(status.code()),
        Err(error) => Ended::NotStarted(format!("wait for the handler: {error}")),
    }
}

async fn kill(child: &mut Child) {
    if let Err(error) = child.kill().await {
        tracing::debug!(%error, "the handler was gone already");
    }
}

async fn start(program: &Program) -> Result<(Child, Url), String> {
    let port = free_port().await.map_err(|error| format!("find a free port: {error}"))?;
    let url = Url::parse(&format!("http://127.0.0.1:{port}/")).map_err(|error| error.to_string())?;
    let mut command = Command::new(&program.executable);
    command
        .args(&program.arguments)
        .current_dir(&program.folder)
        .envs(program.settings.iter().map(|(name, value)| (name, value)))
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", crate::local::guid())
        .env("FUNCTIONS_APP_ROOT_PATH", &program.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let child = command.spawn();
    let child = child.map_err(|error| format!("start the handler {}: {error}", program.executable.display()))?;
    Ok((child, url))
}

/// A port that nothing listens on. The handler binds it only a moment later, and any server that answers there counts
/// as the handler. So it is none of those that the system gives to programs that ask for any port.
async fn free_port() -> std::io::Result<u16> {
    for _ in 0..ATTEMPTS {
        let port = rand::random_range(NOT_GIVEN_AWAY);
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return Ok(port);
        }
    }
    TcpListener::bind(("127.0.0.1", 0)).await?.local_addr().map(|address| address.port())
}

/// Any HTTP answer counts as ready.
async fn wait_until_ready(url: &Url) -> bool {
    let Ok(client) = super::invoke::client() else { return false };
    let asking = async {
        while client.get(url.clone()).timeout(Duration::from_secs(5)).send().await.is_err() {
            tokio::time::sleep(PING_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, asking).await.is_ok()
}

/// Forwards the handler's output to the log, with the levels that the host assigns.
async fn forward(output: impl AsyncRead + Unpin, is_stderr: bool) {
    let mut lines = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !is_stderr {
            tracing::info!(target: "handler", "{text}");
        } else if text.to_ascii_lowercase().contains("warn") {
            tracing::warn!(target: "handler", "{text}");
        } else {
            tracing::error!(target: "handler", "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_handlers_port_is_given_to_nobody_who_asks_for_any_port() {
        let given_away = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let ends: Vec<u16> = given_away.split_whitespace().map(|end| end.parse().unwrap()).collect();
        let port = super::free_port().await.unwrap();
        assert!(!(ends[0]..=ends[1]).contains(&port), "{port}, given away {given_away}");
    }
}

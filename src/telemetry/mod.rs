//! Logs: one line per event, text or JSON; ids and counts only, never a document's content or a key. Traces and
//! metrics go to an OpenTelemetry collector when one is named.

mod json;
mod log_lines;
mod metrics;
pub mod otlp;
pub mod trace;

pub use log_lines::{LOG_LINES, LogLine, Words};
pub use metrics::METRICS;

use std::io::IsTerminal as _;

use tracing::error;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::{ConfigError, Settings};

/// The stream that lines go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// `serve`: the host treats every stderr line as an error, so its log goes to stdout.
    Stdout,
    /// Everything else: stdout is data.
    Stderr,
}

/// Starts logging. The client library's own lines are shown from warnings up, unless `REWIND_LOG` names them.
///
/// # Errors
/// When `REWIND_LOG` or `REWIND_LOG_FORMAT` is wrong.
pub fn start(settings: &Settings, stream: LogStream, default_level: &str) -> Result<(), ConfigError> {
    let (filter, json) = understood(settings, default_level)?;
    let writer = match stream {
        LogStream::Stdout => fmt::writer::BoxMakeWriter::new(std::io::stdout),
        LogStream::Stderr => fmt::writer::BoxMakeWriter::new(std::io::stderr),
    };
    let colour = match stream {
        LogStream::Stdout => std::io::stdout().is_terminal(),
        LogStream::Stderr => std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    // A second call (in a test, or by a command inside another) keeps the first subscriber.
    let _ = if json {
        registry
            .with(
                fmt::layer()
                    .event_format(json::JsonLine)
                    .fmt_fields(fmt::format::JsonFields::new())
                    .with_ansi(false)
                    .with_writer(writer),
            )
            .try_init()
    } else {
        registry.with(fmt::layer().with_ansi(colour).with_target(false).with_writer(writer)).try_init()
    };
    Ok(())
}

/// Checks the settings of the log.
///
/// # Errors
/// When `REWIND_LOG` or `REWIND_LOG_FORMAT` is wrong.
pub fn check(settings: &Settings) -> Result<(), ConfigError> {
    understood(settings, "info").map(drop)
}

/// The filter, and whether lines are JSON.
fn understood(settings: &Settings, default_level: &str) -> Result<(EnvFilter, bool), ConfigError> {
    let wanted = settings.get("REWIND_LOG").unwrap_or(default_level);
    // The library repeats its exporter's messages as errors; an unreachable collector is not a problem of capture.
    let quiet = "opentelemetry_sdk=off,opentelemetry-otlp=warn,azure_core=warn,azure_data_cosmos=warn,\
        azure_data_cosmos_driver=error,azure_identity=warn,azure_storage_blob=warn,typespec_client_core=warn,mongodb=warn,hyper=warn,reqwest=warn,h2=warn";
    let filter = EnvFilter::try_new(format!("{quiet},{wanted}")).map_err(|e| {
        ConfigError::new("REWIND_LOG", format!("is not a log filter: {e}"), "write info, debug, or cosmos_rewind=debug")
    })?;
    match settings.get("REWIND_LOG_FORMAT").unwrap_or("text").to_ascii_lowercase().as_str() {
        "json" => Ok((filter, true)),
        "text" => Ok((filter, false)),
        other => Err(ConfigError::new("REWIND_LOG_FORMAT", format!("{other:?} is not allowed"), "write text or json")),
    }
}

/// Turns a panic into one log line, instead of several on stderr, which the host would show as errors without context.
///
/// A message that was put together at run time may quote what was worked on (slicing a text does), so it is left out:
/// the place is enough to find it.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let reason = panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("not shown, it may quote data");
        error!(place, reason, "panicked; please report it");
    }));
}

//! The HTTP endpoints of a running follower: metrics for Prometheus, and two health checks.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Metrics, Options};
use crate::clock::Clock;
use crate::cosmos::RuMeter;

/// The values behind the endpoints.
#[derive(Debug, Clone)]
pub struct Health {
    /// The follower's name.
    pub name: String,
    /// The follower's counters.
    pub metrics: Arc<Metrics>,
    /// Request units used.
    pub meter: RuMeter,
    /// How long a range may take for a poll or a page before it counts as stuck.
    pub patience: Duration,
    /// The time of this machine.
    pub clock: Arc<dyn Clock>,
}

/// A poll, or a page with the sinks, that takes this long is stuck; the pause between polls is added.
const STUCK: Duration = Duration::from_secs(20);

impl Health {
    /// The health of a follower with these options.
    pub fn of(options: &Options, metrics: Arc<Metrics>, meter: RuMeter, clock: Arc<dyn Clock>) -> Self {
        Self { name: options.name.clone(), metrics, meter, patience: options.poll + STUCK, clock }
    }

    /// Serves at an address until stopped; returns the address, whose port may have been 0.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub async fn listen(self, address: SocketAddr, stop: CancellationToken) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr().unwrap_or(address);
        info!(%address, "metrics are served");
        tokio::spawn(serve(listener, self, stop));
        Ok(address)
    }
}

/// Serves until stopped.
///
/// # Errors
/// When the listener fails.
async fn serve(listener: TcpListener, health: Health, stop: CancellationToken) -> std::io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(health));
    axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
}

async fn metrics(State(health): State<Arc<Health>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], health.text(health.clock.now().timestamp()))
}

/// Liveness: alive unless no range moves, because it cannot be read, a sink takes nothing, or either of them hangs.
async fn healthz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let ranges = health.metrics.ranges();
    if !ranges.is_empty() && ranges.values().all(|range| range.is_stuck(health.patience)) {
        return (StatusCode::SERVICE_UNAVAILABLE, "no range moves on\n");
    }
    (StatusCode::OK, "ok\n")
}

/// Readiness: it holds the name, and every range moves.
async fn readyz(State(health): State<Arc<Health>>) -> impl IntoResponse {
    if !health.metrics.holding.load(std::sync::atomic::Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "standing by\n");
    }
    let ranges = health.metrics.ranges();
    if ranges.is_empty() {
        return (StatusCode::SERVICE_UNAVAILABLE, "starting\n");
    }
    if ranges.values().any(|range| range.is_stuck(health.patience)) {
        return (StatusCode::SERVICE_UNAVAILABLE, "a range does not move on\n");
    }
    (StatusCode::OK, "ok\n")
}

impl Health {
    /// The metrics in the Prometheus text format; `now` in epoch seconds.
    fn text(&self, now: i64) -> String {
        let m = &self.metrics;
        // A follower's name has no character that needs an escape.
        let name = &self.name;
        let mut text = String::with_capacity(2048);
        let mut one = |metric: &str, kind: &str, help: &str, value: String| {
            let _ = writeln!(
                text,
                "# HELP cosmos_rewind_{metric} {help}\n# TYPE cosmos_rewind_{metric} {kind}\ncosmos_rewind_{metric}{{follower=\"{name}\"}} {value}"
            );
        };
        for (metric, help, counter) in [
            ("changes_total", "Changes read from the feed.", &m.changes),
            ("delivered_total", "Changes passed on to the sinks.", &m.delivered),
            ("bytes_total", "Bytes of the feed's pages.", &m.bytes),
            ("retries_total", "Attempts repeated after a failure.", &m.retries),
            ("dead_letters_total", "Items put into the dead-letter store.", &m.dead_letters),
            ("filter_errors_total", "Changes for which the filter had no answer.", &m.filter_errors),
            ("checkpoints_total", "Checkpoints saved.", &m.checkpoints),
        ] {
            one(metric, "counter", help, Metrics::get(counter).to_string());
        }
        one("request_units_total", "counter", "Request units used.", format!("{:.3}", self.meter.total()));
        let holding = u8::from(m.holding.load(std::sync::atomic::Ordering::Relaxed));
        one(
            "holding",
            "gauge",
            "1 while this process has the follower's name, 0 while it stands by.",
            holding.to_string(),
        );
        text.push_str("# HELP cosmos_rewind_lag_seconds Age of the newest change delivered of a range; 0 when nothing is left to read.\n");
        text.push_str("# TYPE cosmos_rewind_lag_seconds gauge\n");
        for (range, state) in m.ranges() {
            let lag = state.lag(now);
            let _ = writeln!(text, "cosmos_rewind_lag_seconds{{follower=\"{name}\",range=\"{range}\"}} {lag}");
        }
        text.push_str("# HELP cosmos_rewind_waiting_items Changes left to read of a range, estimated from the distance of LSNs.\n");
        text.push_str("# TYPE cosmos_rewind_waiting_items gauge\n");
        for (range, state) in m.ranges() {
            if let Some(waiting) = state.waiting() {
                let _ =
                    writeln!(text, "cosmos_rewind_waiting_items{{follower=\"{name}\",range=\"{range}\"}} {waiting}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Arc::new(Metrics::default());
        Metrics::add(&metrics.changes, 3);
        metrics.range("00-10", |range| (range.newest, range.left) = (Some(90), Some(7)));
        metrics.range("10-FF", |range| (range.newest, range.caught_up) = (Some(50), true));
        let meter = RuMeter::default();
        meter.add(12.5);
        let text =
            Health { name: "a".into(), metrics, meter, patience: Duration::from_secs(1), clock: SystemClock::shared() }
                .text(100);
        for line in [
            "cosmos_rewind_changes_total{follower=\"a\"} 3",
            "# TYPE cosmos_rewind_request_units_total counter",
            "cosmos_rewind_request_units_total{follower=\"a\"} 12.500",
            "cosmos_rewind_holding{follower=\"a\"} 0",
            "cosmos_rewind_lag_seconds{follower=\"a\",range=\"00-10\"} 10",
            "cosmos_rewind_lag_seconds{follower=\"a\",range=\"10-FF\"} 0",
            "cosmos_rewind_waiting_items{follower=\"a\",range=\"00-10\"} 7",
            "cosmos_rewind_waiting_items{follower=\"a\",range=\"10-FF\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
        // Every sample is preceded by its type.
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            let metric = sample.split('{').next().unwrap();
            assert!(text.contains(&format!("# TYPE {metric} ")), "{sample}");
        }
    }
}

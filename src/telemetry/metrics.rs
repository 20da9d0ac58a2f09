//! The metrics that are sent to a collector: docs/reference/metrics.md is generated from them.

/// A metric that is sent to a collector.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Counter, histogram or gauge.
    pub kind: &'static str,
    /// Its unit, in OpenTelemetry's notation.
    pub unit: &'static str,
    /// Which command sends it.
    pub from: &'static str,
    /// The counted or measured quantity.
    pub meaning: &'static str,
}

impl Metric {
    const fn counter(name: &'static str, unit: &'static str, from: &'static str, meaning: &'static str) -> Self {
        Self { name, kind: "counter", unit, from, meaning }
    }

    const fn of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }
}

/// Metrics that the handler sends for each function.
pub(super) mod serve {
    use super::Metric;

    const fn counter(name: &'static str, unit: &'static str, meaning: &'static str) -> Metric {
        Metric::counter(name, unit, "serve", meaning)
    }

    pub const BATCHES: Metric = counter("cosmos_rewind.batches", "{batch}", "Invocations, by outcome.");
    pub const DURATION: Metric =
        counter("cosmos_rewind.batch.duration", "s", "Time from the whole body to the answer.").of_kind("histogram");
    pub const LAG: Metric =
        counter("cosmos_rewind.lag", "s", "Age of the newest change of the last stored batch.").of_kind("gauge");
    pub const DOCUMENTS: Metric = counter("cosmos_rewind.documents", "{document}", "Items of stored batches.");
    pub const RECORDS: Metric = counter("cosmos_rewind.records", "{record}", "Records made durable in the history.");
    pub const REREADS: Metric = counter("cosmos_rewind.rereads", "{document}", "Documents read again from the source.");
    pub const NORMALIZED: Metric =
        counter("cosmos_rewind.normalized", "{record}", "Records stored as the host altered them.");
    pub const DEAD_LETTERS: Metric =
        counter("cosmos_rewind.dead_letters", "{document}", "Items put into the dead-letter store.");
    pub const RETRIES: Metric = counter("cosmos_rewind.retries", "{retry}", "Transient failures that were retried.");
    pub const REQUEST_UNITS: Metric =
        counter("cosmos_rewind.request_units", "{RU}", "Request units used by stored batches.");
}

/// Metrics that a follower sends.
pub(super) mod follow {
    use super::Metric;

    const fn counter(name: &'static str, unit: &'static str, meaning: &'static str) -> Metric {
        Metric::counter(name, unit, "follow", meaning)
    }

    pub const LAG: Metric = counter(
        "cosmos_rewind.lag",
        "s",
        "Age of the newest change delivered of a range; 0 when nothing is left to read.",
    )
    .of_kind("gauge");
    pub const DOCUMENTS: Metric = counter("cosmos_rewind.documents", "{document}", "Changes read from the feed.");
    pub const DELIVERED: Metric = counter("cosmos_rewind.delivered", "{document}", "Changes passed on to the sinks.");
    pub const RETRIES: Metric = counter("cosmos_rewind.retries", "{retry}", "Attempts repeated after a failure.");
    pub const DEAD_LETTERS: Metric =
        counter("cosmos_rewind.dead_letters", "{document}", "Items put into the dead-letter store.");
    pub const FILTER_ERRORS: Metric =
        counter("cosmos_rewind.filter_errors", "{document}", "Changes for which the filter had no answer.");
    pub const CHECKPOINTS: Metric = counter("cosmos_rewind.checkpoints", "{checkpoint}", "Checkpoints saved.");
    pub const REQUEST_UNITS: Metric = counter("cosmos_rewind.request_units", "{RU}", "Request units used.");
}

/// Every metric that is sent.
pub const METRICS: &[Metric] = &[
    serve::BATCHES,
    serve::DURATION,
    serve::LAG,
    serve::DOCUMENTS,
    serve::RECORDS,
    serve::REREADS,
    serve::NORMALIZED,
    serve::DEAD_LETTERS,
    serve::RETRIES,
    serve::REQUEST_UNITS,
    follow::LAG,
    follow::DOCUMENTS,
    follow::DELIVERED,
    follow::RETRIES,
    follow::DEAD_LETTERS,
    follow::FILTER_ERRORS,
    follow::CHECKPOINTS,
    follow::REQUEST_UNITS,
];

//! The telemetry of one batch: its span, and its share of the metrics.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter},
    trace::{Status, TraceContextExt as _},
};

use super::Export;
use crate::{
    capture::Summary,
    telemetry::metrics::{Metric, serve},
};

/// Upper bounds of the batch durations, seconds.
const SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0];

/// The metrics of batches; every one carries the function's name.
#[derive(Debug)]
pub(super) struct BatchFigures {
    batches: Counter<u64>,
    documents: Counter<u64>,
    records: Counter<u64>,
    rereads: Counter<u64>,
    normalized: Counter<u64>,
    dead_letters: Counter<u64>,
    retries: Counter<u64>,
    request_units: Counter<f64>,
    duration: Histogram<f64>,
    lag: Gauge<u64>,
}

impl BatchFigures {
    pub(super) fn new(meter: &Meter) -> Self {
        let count = |metric: Metric| {
            meter.u64_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning).build()
        };
        let (units, duration, lag) = (serve::REQUEST_UNITS, serve::DURATION, serve::LAG);
        Self {
            batches: count(serve::BATCHES),
            documents: count(serve::DOCUMENTS),
            records: count(serve::RECORDS),
            rereads: count(serve::REREADS),
            normalized: count(serve::NORMALIZED),
            dead_letters: count(serve::DEAD_LETTERS),
            retries: count(serve::RETRIES),
            request_units: meter.f64_counter(units.name).with_unit(units.unit).with_description(units.meaning).build(),
            duration: meter
                .f64_histogram(duration.name)
                .with_unit(duration.unit)
                .with_description(duration.meaning)
                .with_boundaries(SECONDS.to_vec())
                .build(),
            lag: meter.u64_gauge(lag.name).with_unit(lag.unit).with_description(lag.meaning).build(),
        }
    }
}

/// One invocation in progress.
#[derive(Debug)]
pub struct BatchSpan {
    pub(super) context: opentelemetry::Context,
    pub(super) function: String,
    pub(super) started: std::time::Instant,
    pub(super) export: Arc<Export>,
}

impl BatchSpan {
    /// It was answered with 200.
    pub fn stored(self, summary: &Summary) {
        let of = [KeyValue::new("function", self.function.clone())];
        let count = |n: usize| n as u64;
        let figures = &self.export.batches;
        figures.documents.add(count(summary.items), &of);
        figures.records.add(count(summary.records), &of);
        figures.rereads.add(count(summary.rereads), &of);
        figures.normalized.add(count(summary.normalized), &of);
        figures.dead_letters.add(count(summary.dead_letters), &of);
        figures.retries.add(summary.retries, &of);
        figures.request_units.add(summary.ru, &of);
        if let Some(lag) = summary.lag {
            figures.lag.record(lag, &of);
        }
        let span = self.context.span();
        for (name, value) in [
            ("cosmos_rewind.documents", summary.items as i64),
            ("cosmos_rewind.records", summary.records as i64),
            ("cosmos_rewind.rereads", summary.rereads as i64),
            ("cosmos_rewind.dead_letters", summary.dead_letters as i64),
            ("cosmos_rewind.retries", i64::try_from(summary.retries).unwrap_or(i64::MAX)),
        ] {
            span.set_attribute(KeyValue::new(name, value));
        }
        span.set_attribute(KeyValue::new("cosmos_rewind.request_units", summary.ru));
        span.set_status(Status::Ok);
        self.end("stored");
    }

    /// It was answered with an error, and will be delivered again.
    pub fn failed(self, reason: &str) {
        self.context.span().set_status(Status::error(reason.to_owned()));
        self.end("failed");
    }

    fn end(self, outcome: &'static str) {
        let of = [KeyValue::new("function", self.function), KeyValue::new("outcome", outcome)];
        self.export.batches.batches.add(1, &of);
        self.export.batches.duration.record(self.started.elapsed().as_secs_f64(), &of);
        self.context.span().end();
    }
}

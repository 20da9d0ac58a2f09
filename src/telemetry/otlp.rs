//! Traces and metrics for an OpenTelemetry collector: OTLP over HTTP with protobuf, and only when
//! `OTEL_EXPORTER_OTLP_ENDPOINT` names one.
//!
//! Everything is handed to threads of the library's own and sent from there: a collector that is slow, or gone, costs
//! a batch nothing, and what does not fit the library's queue is dropped.

use std::{collections::HashMap, sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider as _},
    trace::{
        SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
        TracerProvider as _,
    },
};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tracing::{info, warn};
use url::Url;

use super::metrics::{Metric, follow, serve};
use crate::{
    capture::Summary,
    config::{ConfigError, Secret, Settings, is_loopback},
    cosmos::RuMeter,
    follow::Metrics,
    telemetry::trace::TraceContext,
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const SERVICE: &str = "OTEL_SERVICE_NAME";
/// Named by the standard; the library reads it.
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
/// How long one request to the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the process waits for the last spans and figures.
const FAREWELL: Duration = Duration::from_secs(3);
/// Upper bounds of the batch durations, seconds.
const SECONDS: [f64; 11] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0];

/// Which collector is told, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    endpoint: Url,
    headers: Vec<(String, Secret)>,
    service: String,
    interval: Duration,
    obeys_sampler: bool,
}

impl ExportConfig {
    /// Reads the standard settings; `None` when no collector is named.
    ///
    /// # Errors
    /// When one of them is wrong. The headers, which hold credentials, are never quoted.
    pub fn from_settings(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Some(text) = settings.get(ENDPOINT) else { return Ok(None) };
        let fix = "write the collector's address, such as http://127.0.0.1:4318 or https://collector.example.com";
        // Not the text itself: some vendors put a token into the address.
        let endpoint = Url::parse(text).map_err(|e| ConfigError::new(ENDPOINT, format!("is not a URL: {e}"), fix))?;
        if endpoint.host_str().is_none() || !matches!(endpoint.scheme(), "http" | "https") {
            return Err(ConfigError::new(ENDPOINT, "is not an http(s) URL with a host", fix));
        }
        if let Some(protocol) = settings.get(PROTOCOL)
            && protocol != "http/protobuf"
        {
            return Err(ConfigError::new(
                PROTOCOL,
                format!("{protocol:?} is not supported"),
                "write http/protobuf, and the collector's port for it (4318 by default); or remove the setting",
            ));
        }
        let headers = settings.get(HEADERS).map(headers).transpose()?.unwrap_or_default();
        if !headers.is_empty() && endpoint.scheme() == "http" && !is_loopback(&endpoint) {
            return Err(ConfigError::new(
                HEADERS,
                "would be readable on the way: the endpoint is plain http on another machine",
                "use an https endpoint, or send without headers",
            ));
        }
        let interval = settings.get(INTERVAL).unwrap_or("60000");
        let interval = match interval.parse::<u64>() {
            Ok(ms) if (100..=3_600_000).contains(&ms) => Duration::from_millis(ms),
            _ => {
                return Err(ConfigError::new(
                    INTERVAL,
                    format!("{interval:?} is not allowed"),
                    "write milliseconds from 100 to 3600000",
                ));
            }
        };
        Ok(Some(Self {
            endpoint,
            headers,
            service: settings.get(SERVICE).unwrap_or("cosmos-rewind").to_owned(),
            interval,
            obeys_sampler: settings.get(SAMPLER).is_some(),
        }))
    }

    /// The address of one signal, as the standard builds it.
    fn address(&self, signal: &str) -> String {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/v1/{signal}", self.endpoint.path().trim_end_matches('/')));
        url.into()
    }

    fn headers(&self) -> HashMap<String, String> {
        self.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
    }
}

/// `name=value,name=value`, values percent-encoded, as the standard has it.
fn headers(text: &str) -> Result<Vec<(String, Secret)>, ConfigError> {
    let wrong = |problem: String| {
        ConfigError::new(HEADERS, problem, "write name=value, with commas between several: api-key=...")
    };
    let mut headers = Vec::new();
    for (nth, part) in text.split(',').enumerate() {
        let (name, value) = part.split_once('=').ok_or_else(|| wrong(format!("part {} has no = in it", nth + 1)))?;
        let name = name.trim();
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(fine) {
            return Err(wrong(format!("the name in part {} is no header's", nth + 1)));
        }
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
        if value.is_empty() || !value.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(wrong(format!("the value in part {} is empty, or not printable ASCII", nth + 1)));
        }
        headers.push((name.to_owned(), Secret::new(value)));
    }
    Ok(headers)
}

/// A running export.
#[derive(Debug)]
pub struct Export {
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
    tracer: SdkTracer,
    batches: BatchFigures,
}

/// What is counted of batches; every figure carries the function's name.
#[derive(Debug)]
struct BatchFigures {
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
    fn new(meter: &Meter) -> Self {
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

impl Export {
    /// Starts it when a collector is named. One that cannot be prepared is a warning: capture goes on without it.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn start(settings: &Settings) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some(config) = ExportConfig::from_settings(settings)? else { return Ok(None) };
        match Self::open(&config) {
            Ok(export) => {
                // The host alone: a path or a query may be a vendor's token.
                info!(collector = config.endpoint.host_str(), service = config.service, "traces and metrics are sent");
                Ok(Some(Arc::new(export)))
            }
            Err(e) => {
                warn!(reason = e.to_string(), "traces and metrics cannot be sent");
                Ok(None)
            }
        }
    }

    fn open(config: &ExportConfig) -> Result<Self, ExporterBuildError> {
        let resource = Resource::builder()
            .with_service_name(config.service.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let spans = SpanExporter::builder()
            .with_http()
            .with_endpoint(config.address("traces"))
            .with_headers(config.headers())
            .with_timeout(PATIENCE)
            .build()?;
        let figures = MetricExporter::builder()
            .with_http()
            .with_endpoint(config.address("metrics"))
            .with_headers(config.headers())
            .with_timeout(PATIENCE)
            .build()?;
        let mut traces = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(spans);
        if !config.obeys_sampler {
            // The host's flag says whether the host records the trace, which is off without Application Insights.
            traces = traces.with_sampler(Sampler::AlwaysOn);
        }
        let traces = traces.build();
        let meters = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(PeriodicReader::builder(figures).with_interval(config.interval).build())
            .build();
        let batches = BatchFigures::new(&meters.meter("cosmos-rewind"));
        Ok(Self { tracer: traces.tracer("cosmos-rewind"), traces, meters, batches })
    }

    /// One invocation begins.
    pub fn batch(self: &Arc<Self>, function: &str, invocation: &str, parent: Option<TraceContext>) -> BatchSpan {
        let context = match parent {
            Some(parent) => opentelemetry::Context::new().with_remote_span_context(SpanContext::new(
                TraceId::from(parent.trace),
                SpanId::from(parent.parent),
                TraceFlags::new(parent.flags),
                true,
                TraceState::default(),
            )),
            None => opentelemetry::Context::new(),
        };
        let span = self
            .tracer
            .span_builder(function.to_owned())
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("faas.trigger", "datasource"),
                KeyValue::new("faas.invocation_id", invocation.to_owned()),
            ])
            .start_with_context(&self.tracer, &context);
        BatchSpan {
            context: context.with_span(span),
            function: function.to_owned(),
            started: std::time::Instant::now(),
            export: self.clone(),
        }
    }

    /// Sends a follower's counters and lags from now on.
    pub fn follow(&self, follower: &str, metrics: Arc<Metrics>, ru: RuMeter) {
        let meter = self.meters.meter("cosmos-rewind");
        type Pick = fn(&Metrics) -> &std::sync::atomic::AtomicU64;
        let own = KeyValue::new("follower", follower.to_owned());
        let counters: [(Metric, Pick); 6] = [
            (follow::DOCUMENTS, |m| &m.changes),
            (follow::DELIVERED, |m| &m.delivered),
            (follow::RETRIES, |m| &m.retries),
            (follow::DEAD_LETTERS, |m| &m.dead_letters),
            (follow::FILTER_ERRORS, |m| &m.filter_errors),
            (follow::CHECKPOINTS, |m| &m.checkpoints),
        ];
        for (metric, pick) in counters {
            let (metrics, own) = (metrics.clone(), own.clone());
            meter
                .u64_observable_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.meaning)
                .with_callback(move |one| one.observe(Metrics::get(pick(&metrics)), std::slice::from_ref(&own)))
                .build();
        }
        let follower = own.clone();
        let (units, lag) = (follow::REQUEST_UNITS, follow::LAG);
        meter
            .f64_observable_counter(units.name)
            .with_unit(units.unit)
            .with_description(units.meaning)
            .with_callback(move |one| one.observe(ru.total(), std::slice::from_ref(&own)))
            .build();
        meter
            .i64_observable_gauge(lag.name)
            .with_unit(lag.unit)
            .with_description(lag.meaning)
            .with_callback(move |one| {
                let now = chrono::Utc::now().timestamp();
                for (range, state) in metrics.ranges() {
                    one.observe(state.lag(now), &[follower.clone(), KeyValue::new("range", range)]);
                }
            })
            .build();
    }

    /// Sends what is left, for a few seconds at most. What comes later is dropped.
    pub async fn finish(&self) {
        let (traces, meters) = (self.traces.clone(), self.meters.clone());
        let farewell = tokio::task::spawn_blocking(move || {
            let spans = std::thread::spawn(move || traces.shutdown_with_timeout(FAREWELL).is_ok());
            let figures = meters.shutdown_with_timeout(FAREWELL).is_ok();
            spans.join().is_ok_and(|sent| sent) && figures
        });
        match tokio::time::timeout(FAREWELL, farewell).await {
            Ok(Ok(true)) => {}
            _ => warn!("the last traces and metrics may not have reached the collector"),
        }
    }
}

/// One invocation under way.
#[derive(Debug)]
pub struct BatchSpan {
    context: opentelemetry::Context,
    function: String,
    started: std::time::Instant,
    export: Arc<Export>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Option<ExportConfig>, ConfigError> {
        ExportConfig::from_settings(&Settings::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn no_endpoint_no_export_whatever_else_is_set() {
        assert_eq!(config(&[]).unwrap(), None);
        assert_eq!(config(&[(HEADERS, "nonsense")]).unwrap(), None);
    }

    #[test]
    fn the_standards_settings_are_read_and_headers_never_shown() {
        let config =
            config(&[(ENDPOINT, "https://c.example.com/base/"), (HEADERS, "api-key=SECRET%20x, tenant=t")]).unwrap();
        let config = config.unwrap();
        assert_eq!(config.address("traces"), "https://c.example.com/base/v1/traces");
        assert_eq!(config.headers()["api-key"], "SECRET x");
        assert!(!format!("{config:?}").contains("SECRET"));
    }

    #[test]
    fn a_wrong_setting_is_named_and_its_value_not_quoted() {
        for (name, value) in [
            (ENDPOINT, "SECRET"),
            (ENDPOINT, "ftp://SECRET/"),
            (PROTOCOL, "grpc"),
            (HEADERS, "SECRET"),
            (HEADERS, "a b=SECRET"),
            (HEADERS, "api-key="),
            (INTERVAL, "1"),
            (INTERVAL, "often"),
        ] {
            let error = config(&[(ENDPOINT, "http://127.0.0.1:4318"), (name, value)]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(!error.fix.is_empty() && !error.to_string().contains("SECRET"), "{error}");
        }
        let error = config(&[(ENDPOINT, "http://collector:4318"), (HEADERS, "api-key=SECRET")]).unwrap_err();
        assert!(error.name == HEADERS && !error.to_string().contains("SECRET"), "{error}");
    }
}

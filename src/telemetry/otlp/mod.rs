//! Traces and metrics for an OpenTelemetry collector: OTLP over HTTP with protobuf, and only when
//! `OTEL_EXPORTER_OTLP_ENDPOINT` names one.
//!
//! Everything is handed to threads of the library's own and sent from there: a collector that is slow, or gone, costs
//! a batch nothing, and what does not fit the library's queue is dropped.

mod batch;
mod config;

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::MeterProvider as _,
    trace::{
        SpanContext, SpanId, SpanKind, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
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

use self::batch::BatchFigures;
use super::metrics::{Metric, follow};
use crate::{
    clock::{Clock as _, SystemClock},
    config::{ConfigError, Settings},
    cosmos::RuMeter,
    follow::Metrics,
    telemetry::trace::TraceContext,
};

pub use self::{batch::BatchSpan, config::ExportConfig};

/// How long one request to the collector may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the process waits at its end for the last spans and metrics.
const FAREWELL: Duration = Duration::from_secs(3);

/// A running export.
#[derive(Debug)]
pub struct Export {
    traces: SdkTracerProvider,
    meters: SdkMeterProvider,
    tracer: SdkTracer,
    batches: BatchFigures,
}

impl Export {
    /// Starts the export if a collector is named. One that cannot be set up is a warning: capture continues without it.
    ///
    /// # Errors
    /// When a setting is wrong.
    pub fn start(settings: &Settings) -> Result<Option<Arc<Self>>, ConfigError> {
        let Some(config) = ExportConfig::from_settings(settings)? else { return Ok(None) };
        match Self::open(&config) {
            Ok(export) => {
                // Only the host: a path or a query may hold a vendor's token.
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
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let figures = MetricExporter::builder()
            .with_http()
            .with_endpoint(config.address("metrics"))
            .with_headers(config.headers())
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let mut traces = SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(spans);
        if !config.obeys_sampler {
            // The host's flag says whether the host records the trace, which it does not without Application Insights.
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

    /// An invocation begins.
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

    /// From now on sends a follower's counters and lags.
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
                let now = SystemClock.now().timestamp();
                for (range, state) in metrics.ranges() {
                    one.observe(state.lag(now), &[follower.clone(), KeyValue::new("range", range)]);
                }
            })
            .build();
    }

    /// Sends the rest, for a few seconds at most. Anything later is dropped.
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

//! Traces and metrics: what a collector receives, and that a broken collector does no harm.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
        trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    },
    common::v1::{KeyValue, any_value::Value as Any},
    metrics::v1::{metric::Data, number_data_point::Value as Point},
    trace::v1::{Span, status::StatusCode as SpanStatus},
};
use prost::Message as _;

use crate::support::{ClosedPort, Fault, Handler, Running, TestApp, body_of, eventually, feed_document};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector that accepts only requests that it understands.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// The sum of each counter and the count of each histogram, by name.
    figures: Arc<Mutex<BTreeMap<String, f64>>>,
    services: Arc<Mutex<Vec<String>>>,
    refused: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let router = Router::new().route("/base/v1/{signal}", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/base", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, endpoint)
    }

    fn figure(&self, name: &str) -> f64 {
        *self.figures.lock().unwrap().get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.figures))
    }

    fn assert_understood(&self) {
        assert_eq!(*self.refused.lock().unwrap(), [""; 0]);
        let services = self.services.lock().unwrap();
        assert!(!services.is_empty() && services.iter().all(|name| name == "shop-history"), "{services:?}");
    }
}

async fn take(
    State(collector): State<Collector>,
    Path(signal): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    match understand(&collector, &signal, &headers, &body) {
        Ok(answer) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/x-protobuf")], answer),
        Err(problem) => {
            collector.refused.lock().unwrap().push(problem.clone());
            (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/plain")], problem.into_bytes())
        }
    }
}

fn understand(collector: &Collector, signal: &str, headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, String> {
    if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/x-protobuf") {
        return Err(format!("content type {:?}", headers.get(header::CONTENT_TYPE)));
    }
    if headers.get("api-key").is_none_or(|key| key != "SECRET key") {
        return Err("no api-key".into());
    }
    let service = |attributes: &[KeyValue]| {
        let name = attributes.iter().find(|one| one.key == "service.name");
        match name.and_then(|one| one.value.clone()?.value) {
            Some(Any::StringValue(name)) => Ok(name),
            other => Err(format!("service.name is {other:?}")),
        }
    };
    match signal {
        "traces" => {
            let request = ExportTraceServiceRequest::decode(body).map_err(|e| e.to_string())?;
            for resource in request.resource_spans {
                let name = service(&resource.resource.ok_or("no resource")?.attributes)?;
                collector.services.lock().unwrap().push(name);
                let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                collector.spans.lock().unwrap().extend(spans);
            }
            Ok(ExportTraceServiceResponse::default().encode_to_vec())
        }
        "metrics" => {
            let request = ExportMetricsServiceRequest::decode(body).map_err(|e| e.to_string())?;
            let mut figures = collector.figures.lock().unwrap();
            for resource in request.resource_metrics {
                let name = service(&resource.resource.ok_or("no resource")?.attributes)?;
                collector.services.lock().unwrap().push(name);
                for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                    let sum = |points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]| -> f64 {
                        let value = |point: &Point| match point {
                            Point::AsDouble(value) => *value,
                            Point::AsInt(value) => *value as f64,
                        };
                        points.iter().filter_map(|point| point.value.as_ref().map(value)).sum()
                    };
                    let figure = match metric.data.ok_or("no data")? {
                        Data::Sum(data) => sum(&data.data_points),
                        Data::Gauge(data) => sum(&data.data_points),
                        Data::Histogram(data) => data.data_points.iter().map(|point| point.count as f64).sum(),
                        other => return Err(format!("{}: {other:?}", metric.name)),
                    };
                    // Cumulative: the last value counts.
                    figures.insert(metric.name, figure);
                }
            }
            Ok(ExportMetricsServiceResponse::default().encode_to_vec())
        }
        other => Err(format!("no such signal {other}")),
    }
}

fn settings(endpoint: &str) -> [(&str, &str); 3] {
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SECRET%20key"),
        ("OTEL_SERVICE_NAME", "shop-history"),
    ]
}

async fn post_traced(handler: &Handler, array: &str) -> u16 {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-00");
    let request = handler.request("CaptureChanges", body_of(array)).header("traceparent", parent);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_collector_gets_a_span_for_each_invocation_and_the_metrics() {
    let (collector, endpoint) = Collector::start().await;
    let app = TestApp::start().await;
    let mut handler = app.handler(&settings(&endpoint)).await;
    let batch = serde_json::json!([feed_document("a", "p", 1), feed_document("b", "q", 1), {"id": 7}]).to_string();
    assert_eq!(post_traced(&handler, &batch).await, 200);
    app.proxy.fail_always(Some(Fault::Reject(403, 0)));
    let refused = serde_json::json!([feed_document("c", "p", 1)]).to_string();
    assert_eq!(post_traced(&handler, &refused).await, 500);
    handler.terminate();
    assert_eq!(handler.exit_code(Duration::from_secs(60)).await, Some(200));

    collector.assert_understood();
    let spans = collector.spans.lock().unwrap().clone();
    assert_eq!(spans.len(), 2, "{spans:#?}");
    for span in &spans {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE, "00f067aa0ba902b7"));
        assert_eq!(span.name, "CaptureChanges");
        assert!(span.attributes.iter().any(|one| one.key == "faas.invocation_id"), "{span:?}");
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    let codes: Vec<SpanStatus> = spans.iter().map(|span| span.status.clone().unwrap_or_default().code()).collect();
    assert_eq!(codes, [SpanStatus::Ok, SpanStatus::Error]);
    for (name, value) in [
        ("cosmos_rewind.batches", 2.0),
        ("cosmos_rewind.batch.duration", 2.0),
        ("cosmos_rewind.documents", 3.0),
        ("cosmos_rewind.records", 2.0),
        ("cosmos_rewind.dead_letters", 1.0),
        ("cosmos_rewind.rereads", 0.0),
        ("cosmos_rewind.retries", 0.0),
    ] {
        assert_eq!(collector.figure(name), value, "{name}");
    }
    assert!(collector.figure("cosmos_rewind.request_units") > 0.0);
    assert!(collector.figure("cosmos_rewind.lag") > 1e6, "these documents are from 2023");
    let log = handler.log().join("\n");
    assert!(log.contains("traces and metrics are sent") && !log.contains("SECRET"), "{log}");
    assert_eq!(handler.stderr(), [""; 0]);
}

#[tokio::test]
async fn a_collector_that_is_gone_or_never_answers_costs_a_batch_nothing() {
    // One with a closed port, and one that accepts connections without answering.
    let closed = ClosedPort::take();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [closed.address(), silent.local_addr().unwrap()] {
        let app = TestApp::start().await;
        let endpoint = format!("http://{address}");
        let mut all = settings(&endpoint).to_vec();
        all.push(("OTEL_METRIC_EXPORT_INTERVAL", "100"));
        let mut handler = app.handler(&all).await;
        let started = Instant::now();
        for n in 0..20 {
            assert_eq!(handler.deliver(&[feed_document(&format!("d{n}"), "p", 1)]).await.0, 200);
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{address}: {:?}", started.elapsed());
        let stopping = Instant::now();
        handler.terminate();
        assert_eq!(handler.exit_code(Duration::from_secs(60)).await, Some(200));
        assert!(stopping.elapsed() < Duration::from_secs(10), "{address}: {:?}", stopping.elapsed());
        assert_eq!(app.history().await.len(), 20);
        let log = handler.log().join("\n");
        assert!(!log.contains("SECRET") && handler.stderr().is_empty(), "{log}");
        // A failing collector is not an error of capture, and every log line has a message.
        assert!(!log.contains("\"ERROR\"") && handler.log().iter().all(|line| line.contains("\"message\"")), "{log}");
        assert!(address != closed.address() || log.contains("OTLP export"), "{log}");
    }
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_started() {
    let app = TestApp::start().await;
    let handler = app.handler(&settings("")[1..]).await;
    assert_eq!(handler.deliver(&[feed_document("a", "p", 1)]).await.0, 200);
    assert!(!handler.log().join("\n").contains("traces and metrics"));
}

#[tokio::test]
async fn a_follower_sends_its_counters_and_lag() {
    let (collector, endpoint) = Collector::start().await;
    let app = TestApp::start().await;
    app.put(serde_json::json!({"id": "a", "pk": "p"})).await;
    let mut all = app.settings();
    all.extend(settings(&endpoint).map(|(name, value)| (name.to_owned(), value.to_owned())));
    all.push(("OTEL_METRIC_EXPORT_INTERVAL".into(), "100".into()));
    let follower = Running::start(app.folder.path(), &["follow", "--from", "beginning"], &all);
    let known = |name: &str| collector.figures.lock().unwrap().get(name).copied();
    eventually("the lag of each range and the document are sent", async || {
        (known("cosmos_rewind.lag").is_some() && known("cosmos_rewind.delivered") == Some(1.0)).then_some(())
    })
    .await;
    follower.interrupt();
    let output = follower.ended().await;
    assert_eq!(output.code, 0, "{output:?}");
    collector.assert_understood();
    assert_eq!(collector.figure("cosmos_rewind.documents"), 1.0);
    assert_eq!(collector.figure("cosmos_rewind.lag"), 0.0);
    assert!(collector.figure("cosmos_rewind.request_units") > 0.0);
    assert!(!output.stderr.contains("SECRET"), "{output:?}");
}

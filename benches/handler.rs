//! The whole handler under a simulated host, against an endpoint that answers every write at once.
//!
//! Not a criterion benchmark: what is measured is another process. CPU is the handler's own, from the kernel's
//! scheduler statistics, so the load generator and the endpoint do not count.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri},
    response::Response,
    serve::ListenerExt as _,
};
use clap::Parser;
use cosmos_rewind::{
    host::invocation,
    local::{LocalCosmos, LocalOptions},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};

/// Measures the capture handler: documents/s, CPU per document, peak memory, time to ready
#[derive(Parser)]
struct Args {
    /// Handler to measure, started as `HANDLER serve`
    #[arg(long, default_value = env!("CARGO_BIN_EXE_cosmos-rewind"))]
    handler: PathBuf,
    /// Batches in each scenario
    #[arg(long, default_value_t = 100)]
    batches: usize,
    /// Documents in a batch
    #[arg(long, default_value_t = 100)]
    documents: usize,
    /// Bytes of a document, about
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Batches in flight
    #[arg(long, default_value_t = 4)]
    leases: usize,
    /// Repetitions; the median is printed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    rss_mb: f64,
    ready_ms: f64,
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        println!(
            "{} batches x {} documents x {} bytes, {} leases, {} rounds (median), handler {}",
            args.batches,
            args.documents,
            args.size,
            args.leases,
            args.rounds,
            args.handler.display()
        );
        println!(
            "{:<34} {:>12} {:>14} {:>12} {:>10}",
            "scenario", "documents/s", "CPU us/document", "peak RSS MB", "ready ms"
        );
        for (name, shared, dates) in [
            ("one key a batch (transactional)", true, false),
            ("a key for each (single upserts)", false, false),
            ("one key, dates, fidelity=payload", true, true),
        ] {
            let mut rounds = Vec::new();
            for _ in 0..args.rounds {
                rounds.push(measure(&args, shared, dates).await);
            }
            let median = |pick: fn(&Figures) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(pick).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            println!(
                "{name:<34} {:>12.0} {:>14.1} {:>12.1} {:>10.1}",
                median(|f| f.per_second),
                median(|f| f.cpu_us),
                median(|f| f.rss_mb),
                median(|f| f.ready_ms)
            );
        }
    });
}

async fn measure(args: &Args, shared: bool, dates: bool) -> Figures {
    let null = NullCosmos::start().await;
    let folder = std::env::temp_dir().join(format!("cosmos-rewind-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
    let spawned = Instant::now();
    let child = Command::new(&args.handler)
        .arg("serve")
        .current_dir(&folder)
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("CosmosDB", null.connection.as_str())
        .env("REWIND_FIDELITY", "payload")
        .env("REWIND_LOG", "warn")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("handler");
    let handler = Killed(child);
    // The host polls every 25 ms; here it is asked as fast as it can answer, to see the time itself.
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("client");
    let root = format!("http://127.0.0.1:{port}/");
    while http.get(&root).send().await.is_err() {
        std::hint::spin_loop();
    }
    let ready_ms = spawned.elapsed().as_secs_f64() * 1000.0;

    let bodies: Vec<Bytes> =
        (0..args.batches + args.leases).map(|b| Bytes::from(body(args, b, shared, dates))).collect();
    let (warm_up, measured) = bodies.split_at(args.leases);
    deliver(&http, &root, warm_up, args.leases).await;
    let cpu = cpu_ns(handler.0.id());
    let start = Instant::now();
    deliver(&http, &root, measured, args.leases).await;
    let elapsed = start.elapsed().as_secs_f64();
    let documents = (args.batches * args.documents) as f64;
    let figures = Figures {
        per_second: documents / elapsed,
        cpu_us: (cpu_ns(handler.0.id()) - cpu) / 1000.0 / documents,
        rss_mb: peak_rss_mb(handler.0.id()),
        ready_ms,
    };
    drop(handler);
    std::fs::remove_dir_all(&folder).expect("clean up");
    figures
}

async fn deliver(http: &reqwest::Client, root: &str, bodies: &[Bytes], leases: usize) {
    stream::iter(bodies)
        .for_each_concurrent(leases, |body| async move {
            // Chunked and without a length, as the host sends it.
            let chunks: Vec<Result<Bytes, std::io::Error>> =
                (0..body.len()).step_by(16 << 10).map(|i| Ok(body.slice(i..body.len().min(i + (16 << 10))))).collect();
            let answer = http
                .post(format!("{root}CaptureChanges"))
                .header("content-type", "application/json; charset=utf-8")
                .body(reqwest::Body::wrap_stream(stream::iter(chunks)))
                .send()
                .await
                .expect("answer");
            assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap_or_default());
        })
        .await;
}

fn body(args: &Args, batch: usize, shared: bool, dates: bool) -> String {
    let documents: Vec<Value> = (0..args.documents)
        .map(|i| {
            let id = format!("{batch:05}-{i:05}");
            let pk = if shared { format!("{batch:05}") } else { id.clone() };
            let mut document = json!({
                "id": id, "pk": pk, "customer": "Ada Example", "amount": 1234.5, "tags": ["a", "b", "c"], "active": true,
                "address": {"street": "1 Main Street", "city": "Davidson", "zip": "28036"},
            });
            if dates {
                document["created"] = "2026-11-20T15:00:00Z".into();
            }
            let filler = args.size.saturating_sub(document.to_string().len() + 220);
            document["text"] = "lorem ipsum dolor ".repeat(filler / 18 + 1)[..filler].into();
            document["_rid"] = "47UeAPmUTk0GEQAAAAAAAA==".into();
            document["_self"] = "dbs/47UeAA==/colls/47UeAPmUTk0=/docs/47UeAPmUTk0GEQAAAAAAAA==/".into();
            document["_etag"] = format!("\"{batch:08x}-0000-0100-0000-{i:012x}\"").into();
            document["_attachments"] = "attachments/".into();
            document["_ts"] = 1_592_926_844.into();
            document["_lsn"] = (batch * 1000 + i).into();
            document
        })
        .collect();
    invocation::encode(
        "documents",
        &Value::from(documents).to_string(),
        &json!({"sys": {"MethodName": "CaptureChanges", "UtcNow": "2026-11-20T15:00:00Z", "RandGuid": "0d00"}}),
    )
}

/// CPU time of all threads that live, in nanoseconds.
fn cpu_ns(pid: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("tasks");
    tasks
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok())
        .filter_map(|s| s.split_whitespace().next()?.parse::<f64>().ok())
        .sum()
}

fn peak_rss_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("VmHWM");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / 1024.0
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An account whose metadata is real (from the local one) and whose writes are all answered "created" unread.
struct NullCosmos {
    connection: String,
    task: tokio::task::JoinHandle<()>,
}

struct Null {
    local: LocalCosmos,
    own: String,
    http: reqwest::Client,
}

impl NullCosmos {
    async fn start() -> Self {
        let local = LocalCosmos::start(LocalOptions::default()).await.expect("local account");
        local.create_database("dev").await.expect("database");
        for name in ["events", "changes"] {
            let description = json!({"id": name, "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
            local.create_container("dev", description).await.expect("container");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let own = format!("http://{}", listener.local_addr().expect("address"));
        let connection = local.connection_string().replace(local.endpoint().as_str(), &format!("{own}/"));
        let http = reqwest::Client::builder().no_proxy().build().expect("client");
        let router = Router::new().fallback(answer).with_state(Arc::new(Null { local, own, http }));
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).expect("nodelay"));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("server") });
        Self { connection, task }
    }
}

impl Drop for NullCosmos {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(null): State<Arc<Null>>, method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    if method == Method::POST && uri.path().ends_with("/docs") {
        // Read to its end, as a server does, but not looked at.
        axum::body::to_bytes(body, usize::MAX).await.expect("body");
        let batch = headers.contains_key("x-ms-cosmos-is-batch-request");
        let mut response = Response::new(Body::from(if batch { "[]" } else { "" }));
        *response.status_mut() = if batch { StatusCode::OK } else { StatusCode::CREATED };
        let h = response.headers_mut();
        for (name, value) in
            [("x-ms-request-charge", "6.0"), ("x-ms-session-token", "0:-1#1"), ("etag", "\"null\""), ("lsn", "1")]
        {
            h.insert(name, HeaderValue::from_static(value));
        }
        return response;
    }
    let url = null.local.endpoint().join(uri.path_and_query().map_or("/", |p| p.as_str())).expect("url");
    let mut request = null.http.request(method, url);
    for (name, value) in &headers {
        if !["host", "content-length", "connection", "transfer-encoding"].contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.expect("metadata");
    let status = answer.status();
    let mut kept = answer.headers().clone();
    for name in ["content-length", "transfer-encoding", "connection"] {
        kept.remove(name);
    }
    let text = answer.text().await.expect("text");
    let text = text.replace(null.local.endpoint().as_str().trim_end_matches('/'), &null.own);
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    *response.headers_mut() = kept;
    response
}

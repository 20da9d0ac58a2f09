//! Measures the whole handler under a simulated host, against an endpoint that answers every write at once; in turn
//! with a program that only forwards bytes, and with other handlers.
//!
//! This is not a criterion benchmark, because it measures another process. CPU time is the handler's own, from the
//! kernel's scheduler statistics, without the load generator and the endpoint.

mod commands;
mod forward;
mod load;
mod null;
mod process;
mod ru;

use std::{
    io::Write as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use axum::body::Bytes;
use clap::Parser;
use forward::Shape;
use load::Scenario;
use null::{Behaviour, Endpoint, Writes};
use process::Handler;
use serde_json::json;

// This program also runs as the forwarding program, which must use the handler's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the capture handler: documents/s, CPU per document, peak memory, time to ready
#[derive(Parser)]
struct Args {
    /// Handler to measure, started as `HANDLER serve`
    #[arg(long, default_value = option_env!("CARGO_BIN_EXE_cosmos-rewind").unwrap_or("target/release/cosmos-rewind"))]
    handler: PathBuf,
    /// Another handler to measure, as `NAME=COMMAND`, or `NAME@SCENARIO,SCENARIO=COMMAND` for these scenarios only; run
    /// by sh
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<String>,
    /// Kind of documents (default: all kinds)
    #[arg(long, value_enum)]
    scenario: Vec<Scenario>,
    /// Batches in each scenario
    #[arg(long, default_value_t = 100)]
    batches: usize,
    /// Warm-up batches that are not measured (20, at least one for each lease)
    #[arg(long)]
    warm_up: Option<usize>,
    /// Documents per batch
    #[arg(long, default_value_t = 100)]
    documents: usize,
    /// Approximate size of a document in bytes
    #[arg(long, default_value_t = 1024)]
    size: usize,
    /// Batches in flight
    #[arg(long, default_value_t = 4)]
    leases: usize,
    /// Partition key ranges of the history, which divide its keys evenly
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    ranges: u32,
    /// Milliseconds by which the endpoint delays the response to a write
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Repetitions, in each of which every handler is measured once; the median is printed
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// File to which raw results are appended, one line each
    #[arg(long)]
    csv: Option<PathBuf>,
    /// Measure requests, bytes and request units of captured documents instead, for each layout and index policy
    #[arg(long)]
    ru: bool,
    /// Measure `load` instead, with single and packed writes
    #[arg(long)]
    load: bool,
    /// The program that only forwards bytes
    #[arg(long, hide = true)]
    forward: bool,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// The command that starts the handler.
    fn own(&self, scenario: Scenario) -> Command {
        let mut command = Command::new(&self.handler);
        command.arg("serve").env("REWIND_BULK", scenario.bulk());
        command
    }

    /// The behaviour of the endpoint.
    fn behaviour(&self, writes: Writes) -> Behaviour {
        Behaviour { writes, ranges: self.ranges, latency: Duration::from_millis(self.latency_ms) }
    }

    /// Appends raw results to a file.
    fn append(&self, header: &str, rows: &str) {
        let Some(path) = &self.csv else { return };
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("csv file");
        if file.metadata().expect("csv file").len() == 0 {
            writeln!(file, "{header}").expect("csv file");
        }
        file.write_all(rows.as_bytes()).expect("csv file");
    }
}

/// The process to measure.
enum Subject {
    Own,
    Forward,
    Peer { name: String, scenarios: Option<Vec<String>>, command: String },
}

impl Subject {
    /// Parses a peer from the command line.
    fn peer(text: &str) -> Self {
        let (name, command) = text.split_once('=').expect("--peer NAME=COMMAND");
        let (name, scenarios) = name.split_once('@').map_or((name, None), |(name, list)| (name, Some(list)));
        let scenarios = scenarios.map(|list| list.split(',').map(str::to_owned).collect());
        Self::Peer { name: name.to_owned(), scenarios, command: command.to_owned() }
    }

    /// Whether it behaves differently in this scenario.
    fn takes_part(&self, scenario: Scenario) -> bool {
        let Self::Peer { scenarios: Some(scenarios), .. } = self else { return true };
        scenarios.iter().any(|name| name == scenario.name())
    }

    fn name(&self) -> &str {
        match self {
            Self::Own => "cosmos-rewind",
            Self::Forward => "forward",
            Self::Peer { name, .. } => name,
        }
    }
}

#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    rss_mb: f64,
    ready_ms: f64,
    requests: f64,
    operations: f64,
    bytes: f64,
    body_mb: f64,
}

const HEADER: &str = "round,handler,scenario,batches,documents,size,leases,documents_per_s,cpu_us,rss_mb,ready_ms,requests_per_document,bytes_per_document,body_mb,operations_per_request,ranges,latency_ms";

fn main() {
    let args = Args::parse();
    if args.forward {
        return forward::run();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        match () {
            () if args.ru => ru::run(&args).await,
            () if args.load => commands::load(&args).await,
            () => compare(&args).await,
        }
    });
}

async fn compare(args: &Args) {
    let mut subjects = vec![Subject::Own, Subject::Forward];
    subjects.extend(args.peer.iter().map(|text| Subject::peer(text)));
    let warm_up = args.warm_up.unwrap_or(20).max(args.leases);
    let scenarios = if args.scenario.is_empty() { Scenario::ALL.to_vec() } else { args.scenario.clone() };
    println!(
        "{} batches after {warm_up}, x {} documents x {} bytes, {} leases, {} ranges, {} ms for a write, {} rounds (median), handler {}",
        args.batches,
        args.documents,
        args.size,
        args.leases,
        args.ranges,
        args.latency_ms,
        args.rounds,
        args.handler.display()
    );
    println!(
        "| scenario | handler | documents/s | CPU us a document | peak RSS MB | ms to ready | requests a document |"
    );
    println!("|---|---|---|---|---|---|---|");
    for scenario in scenarios {
        let subjects: Vec<&Subject> = subjects.iter().filter(|subject| subject.takes_part(scenario)).collect();
        let mut all: Vec<Vec<Figures>> = vec![Vec::new(); subjects.len()];
        let bodies: Vec<Bytes> = (0..args.batches + warm_up)
            .map(|batch| Bytes::from(load::body(scenario, args.documents, args.size, batch)))
            .collect();
        let bodies = bodies.split_at(warm_up);
        let mut shape = Shape::default();
        for round in 1..=args.rounds {
            // In turns, so that other activity on the machine affects all of them alike.
            for (subject, rounds) in subjects.iter().zip(&mut all) {
                let f = measure(args, scenario, subject, bodies, &mut shape).await;
                let row = format!(
                    "{round},{},{},{},{},{},{},{:.1},{:.3},{:.2},{:.2},{:.4},{:.1},{:.3},{:.2},{},{}\n",
                    subject.name(),
                    scenario.name(),
                    args.batches,
                    args.documents,
                    args.size,
                    args.leases,
                    f.per_second,
                    f.cpu_us,
                    f.rss_mb,
                    f.ready_ms,
                    f.requests,
                    f.bytes,
                    f.body_mb,
                    f.operations,
                    args.ranges,
                    args.latency_ms
                );
                args.append(HEADER, &row);
                rounds.push(f);
            }
        }
        for (subject, rounds) in subjects.iter().zip(&all) {
            let median = |pick: fn(&Figures) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(pick).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            println!(
                "| {} | {} | {:.0} | {:.1} | {:.1} | {:.1} | {:.3} |",
                scenario.title(),
                subject.name(),
                median(|f| f.per_second),
                median(|f| f.cpu_us),
                median(|f| f.rss_mb),
                median(|f| f.ready_ms),
                median(|f| f.requests)
            );
        }
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().tcp_nodelay(true).build().expect("client")
}

/// Runs warm-up and measured invocations; `bodies` contains both.
async fn measure(
    args: &Args,
    scenario: Scenario,
    subject: &Subject,
    (warm_up, measured): (&[Bytes], &[Bytes]),
    shape: &mut Shape,
) -> Figures {
    let changes = json!({"id": "changes", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    let endpoint = Endpoint::start(args.behaviour(Writes::Null), "/pk", changes).await;
    let folder = tempfile::tempdir().expect("folder");
    let command = match subject {
        Subject::Own => args.own(scenario),
        Subject::Forward => {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.arg("--forward").envs(shape.environment(&endpoint.url));
            command
        }
        Subject::Peer { command: text, .. } => {
            let mut command = Command::new("sh");
            // Measures the command's own process, not the shell.
            command.args(["-c", &format!("exec {text}")]).env("REWIND_BULK", scenario.bulk());
            command
        }
    };
    let http = client();
    let handler = Handler::start(command, folder.path(), &endpoint.connection, &http).await;
    load::deliver(&http, &handler.root, warm_up, args.leases).await;
    let before = endpoint.seen.counted();
    let cpu = handler.cpu_ns();
    let start = Instant::now();
    load::deliver(&http, &handler.root, measured, args.leases).await;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = handler.cpu_ns() - cpu;
    let seen = endpoint.seen.counted() - before;
    let documents = (args.batches * args.documents) as f64;
    assert!(seen.requests > 0.0, "nothing was written");
    if !matches!(subject, Subject::Forward) {
        assert_eq!(seen.operations, documents, "every document was written once");
    }
    if matches!(subject, Subject::Own) {
        *shape = Shape {
            requests: (seen.requests / args.batches as f64).round().max(1.0) as usize,
            bytes: (seen.bytes / seen.requests).round() as usize,
            headers: endpoint.seen.headers.get().cloned().unwrap_or_default(),
        };
    }
    Figures {
        per_second: documents / elapsed,
        cpu_us: cpu / 1000.0 / documents,
        rss_mb: handler.peak_rss_mb(),
        ready_ms: handler.ready_ms,
        requests: seen.requests / documents,
        operations: seen.operations / seen.requests,
        bytes: seen.bytes / documents,
        body_mb: measured[0].len() as f64 / 1048576.0,
    }
}

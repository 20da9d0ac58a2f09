//! A handler as a separate process, and the kernel's statistics about it.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running handler; it stops on drop.
pub struct Handler {
    child: Child,
    /// Its base URL.
    pub root: String,
    /// The time from its start to its first response, in milliseconds.
    pub ready_ms: f64,
}

impl Handler {
    /// Starts a handler and waits for its first response.
    pub async fn start(mut command: Command, folder: &Path, connection: &str, http: &reqwest::Client) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("port").local_addr().expect("address").port();
        let spawned = Instant::now();
        let child = command
            .current_dir(folder)
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
            .env("CosmosDB", connection)
            .env("REWIND_FIDELITY", "payload")
            .env("REWIND_LOG", "warn")
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let root = format!("http://127.0.0.1:{port}/");
        let mut handler = Self { child, root, ready_ms: 0.0 };
        // The host polls every 25 ms; this polls as fast as possible to measure the start itself.
        while http.get(&handler.root).send().await.is_err() {
            if let Some(status) = handler.child.try_wait().expect("its state") {
                panic!("{command:?} ended before it answered: {status}");
            }
            assert!(spawned.elapsed() < Duration::from_secs(60), "{command:?} does not answer");
        }
        handler.ready_ms = spawned.elapsed().as_secs_f64() * 1000.0;
        handler
    }

    /// CPU time so far in nanoseconds, including ended threads and child processes.
    pub fn cpu_ns(&self) -> f64 {
        cpu_ns(self.child.id())
    }

    /// Peak memory in MB.
    pub fn peak_rss_mb(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("status");
        let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("kB") / 1024.0
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cpu_ns(pid: u32) -> f64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let (mut exact, mut children) = (0.0, 0.0);
    for task in tasks.filter_map(Result::ok) {
        // With nanosecond resolution, but only for living threads.
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        exact += text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0);
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        children += text.split_whitespace().filter_map(|pid| pid.parse().ok()).map(cpu_ns).sum::<f64>();
    }
    // In hundredths of a second, including ended threads (utime, stime) and children that were waited for (cutime,
    // cstime). The name in brackets may contain anything; these are the 12th to 15th fields after it.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11);
    let ticks: Vec<f64> = fields.take(4).filter_map(|t| t.parse().ok()).collect();
    let ns = |ticks: &[f64]| ticks.iter().sum::<f64>() * 1e7;
    let (own, waited) = ticks.split_at(ticks.len().min(2));
    exact.max(ns(own)) + ns(waited) + children
}

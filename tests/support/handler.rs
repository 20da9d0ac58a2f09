//! The real handler, as a child process.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{BINARY, body_of, hermetic};

/// The real handler, started as the Functions host starts it.
pub struct Handler {
    child: Child,
    port: u16,
    http: reqwest::Client,
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) stderr: Arc<Mutex<Vec<String>>>,
    /// The threads end when the streams they read end.
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Handler {
    /// Starts a handler and waits until it has opened its containers, or has given up on that.
    pub async fn start(folder: &Path, settings: &[(String, String)]) -> Self {
        Self::start_until(folder, settings, "ready").await
    }

    /// Starts a handler and waits until it answers and has logged a line with this text.
    pub async fn start_until(folder: &Path, settings: &[(String, String)], line: &str) -> Self {
        // Another test may take the free port before the handler does.
        for _ in 0..10 {
            if let Some(handler) = Self::start_once(folder, settings, line).await {
                return handler;
            }
        }
        panic!("no free port for the handler in ten attempts");
    }

    /// Returns `None` when another process took the port.
    async fn start_once(folder: &Path, settings: &[(String, String)], line: &str) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(BINARY);
        command.arg("serve").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        hermetic(&mut command, settings);
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string()).env("FUNCTIONS_APP_ROOT_PATH", folder);
        let mut child = command.spawn().unwrap();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let stderr: Arc<Mutex<Vec<String>>> = Arc::default();
        let mut readers = Vec::new();
        for (stream, own) in [
            (Box::new(child.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>, None),
            (Box::new(child.stderr.take().unwrap()), Some(stderr.clone())),
        ] {
            let log = log.clone();
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if let Some(own) = &own {
                        own.lock().unwrap().push(line.clone());
                    }
                    log.lock().unwrap().push(line);
                }
            }));
        }
        let http = super::http_client();
        let mut handler = Self { child, port, http, log, stderr, readers };
        let start = Instant::now();
        loop {
            let answered = handler.http.get(handler.url("")).send().await.is_ok();
            let has_ended = handler.child.try_wait().unwrap().is_some();
            let log = handler.log();
            // The answer may come from another process on that port. What the handler says of that ends with "already in
            // use", which must not pass for the line that is waited for.
            let is_taken = |log: &[String]| log.iter().any(|own| own.contains("cannot listen on 127.0.0.1"));
            if has_ended || is_taken(&log) {
                handler.read_to_the_end();
                assert!(is_taken(&handler.log()), "the handler ended: {:#?}", handler.log());
                return None;
            }
            if answered && log.iter().any(|own| own.contains(line)) {
                return Some(handler);
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the handler does not answer: {:?}", handler.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// Returns the text of the health endpoint.
    pub async fn health(&self) -> String {
        let answer = self.http.get(self.url("")).send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["status"].as_str().unwrap().to_owned()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Delivers documents as the host does; returns status and body.
    pub async fn deliver(&self, documents: &[Value]) -> (u16, Value) {
        self.deliver_text(&Value::from(documents.to_vec()).to_string()).await
    }

    /// Delivers the text of an array as the host does.
    pub async fn deliver_text(&self, array: &str) -> (u16, Value) {
        self.post("CaptureChanges", body_of(array)).await
    }

    pub async fn post(&self, function: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let answer = self.request(function, body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    pub fn request(&self, function: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.http
            .post(self.url(function))
            .header("content-type", "application/json; charset=utf-8")
            .header("x-azure-functions-invocationid", "11111111-2222-3333-4444-555555555555")
            .body(body)
    }

    /// The lines that the handler has written so far, stdout and stderr.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The lines on stderr; the host shows each as an error.
    pub fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until a log line contains this text.
    pub async fn wait_for_log(&self, text: &str) {
        for _ in 0..400 {
            if self.log().iter().any(|l| l.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no line with {text:?} in {:#?}", self.log());
    }

    /// Sends SIGKILL, as the host does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM, as the platform does.
    pub fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    /// Reads the remaining output of a process that has ended.
    fn read_to_the_end(&mut self) {
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
    }

    /// Waits for the exit code; after that the log is complete.
    pub async fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.read_to_the_end();
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

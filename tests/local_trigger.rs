//! The trigger against a handler within the test, and against a real child process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use cosmos_rewind::local::trigger::{
    FunctionBinding, HandlerProgram, RetryPolicy, Trigger, TriggerMode, TriggerOptions,
};
use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

const SOON: Duration = Duration::from_secs(20);

/// A request to the handler.
#[derive(Clone, Debug)]
struct Invocation {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Invocation {
    /// The documents after the three parses that the host's encoding requires.
    fn documents(&self) -> Vec<Value> {
        let once: String = serde_json::from_str(self.body["Data"]["documents"].as_str().unwrap()).unwrap();
        serde_json::from_str(&once).unwrap()
    }
}

/// Status, content type and body of a response.
type Scripted = (u16, &'static str, &'static str);

/// A handler within the test. It sends the scripted responses, then always 200 `{}`.
#[derive(Clone, Default)]
struct TestHandler {
    seen: Arc<Mutex<Vec<Invocation>>>,
    answers: Arc<Mutex<VecDeque<Scripted>>>,
}

impl TestHandler {
    async fn start(answers: &[Scripted]) -> (Self, HandlerProgram) {
        let handler = Self::default();
        handler.answers.lock().unwrap().extend(answers.iter().copied());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let app = Router::new().fallback(Self::answer).with_state(handler.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (handler, HandlerProgram::Running(url))
    }

    async fn answer(State(handler): State<Self>, request: Request) -> impl IntoResponse {
        let (parts, body) = request.into_parts();
        let body: Bytes = body.collect().await.unwrap().to_bytes();
        handler.seen.lock().unwrap().push(Invocation {
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body: serde_json::from_slice(&body).unwrap(),
        });
        let (status, kind, body) =
            handler.answers.lock().unwrap().pop_front().unwrap_or((200, "application/json", "{}"));
        (StatusCode::from_u16(status).unwrap(), [("content-type", kind)], body)
    }

    fn seen(&self) -> Vec<Invocation> {
        self.seen.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        let seen = self.seen();
        let documents = seen.iter().flat_map(Invocation::documents);
        let mut ids: Vec<String> = documents.map(|document| document["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}

async fn account(partitions: u32) -> LocalCosmos {
    let cosmos = LocalCosmos::start(LocalOptions { partitions, ..LocalOptions::default() }).await.unwrap();
    cosmos.create_database("dev").await.unwrap();
    let description = json!({"id": "events", "partitionKey": {"paths": ["/pk"], "kind": "Hash", "version": 2}});
    cosmos.create_container("dev", description).await.unwrap();
    cosmos
}

async fn send(cosmos: &LocalCosmos, headers: &[(&str, &str)], body: String) {
    let client = crate::support::http_client();
    let mut request = client.post(format!("{}dbs/dev/colls/events/docs", cosmos.endpoint())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    assert!(request.send().await.unwrap().status().is_success());
}

async fn upsert(cosmos: &LocalCosmos, document: Value) {
    send(cosmos, &[("x-ms-documentdb-is-upsert", "True")], document.to_string()).await;
}

fn options(handler: HandlerProgram) -> TriggerOptions {
    let mut binding = FunctionBinding::capture_changes(&[]);
    binding.start_from_beginning = true;
    binding.retry = Some(RetryPolicy {
        max_retries: None,
        first_delay: Duration::from_millis(10),
        max_delay: Duration::from_millis(10),
    });
    let mut options = TriggerOptions::new(std::env::temp_dir());
    options.handler = handler;
    options.binding = Some(binding);
    options.poll_delay = Some(Duration::from_millis(10));
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_arrive_as_the_host_sends_them() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x", "at": "2020-01-01T00:00:00.120Z", "n": 1.5})).await;
    let (handler, url) = TestHandler::start(&[]).await;
    let trigger = Trigger::start(&cosmos, options(url)).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let seen = handler.seen();
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/CaptureChanges"));
    let headers = &seen[0].headers;
    assert_eq!(headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(headers["transfer-encoding"], "chunked");
    assert!(headers["user-agent"].to_str().unwrap().starts_with("Azure-Functions-Host/"));
    for name in ["x-azure-functions-invocationid", "x-azure-functions-hostversion", "traceparent"] {
        assert!(headers.contains_key(name), "{name}");
    }
    let documents = seen[0].documents();
    assert_eq!(documents[0]["at"], "2020-01-01T00:00:00.12Z");
    assert_eq!(documents[0]["_lsn"], 1);
    let metadata = &seen[0].body["Metadata"];
    assert_eq!(metadata["sys"]["MethodName"], "CaptureChanges");
    assert_eq!(metadata["RetryContext"], json!({"RetryCount": 0, "MaxRetryCount": -1, "Exception": null}));
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_batch_is_retried_and_nothing_is_delivered_twice_after_a_restart() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let failures = [(500, "application/json", "{}"), (200, "text/plain", "{}"), (200, "application/json", "oops")];
    let (handler, url) = TestHandler::start(&failures).await;
    let trigger = Trigger::start(&cosmos, options(url.clone())).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let stats = trigger.stats().await;
    assert_eq!((stats.invocations, stats.failures, stats.retries, stats.delivered, stats.lost), (4, 3, 3, 1, 0));
    let retry = &handler.seen()[1].body["Metadata"]["RetryContext"];
    assert_eq!(retry["RetryCount"], 1);
    assert!(retry["Exception"]["Message"].as_str().unwrap().contains("500"));
    trigger.stop().await;

    upsert(&cosmos, json!({"id": "b", "pk": "x"})).await;
    let trigger = Trigger::start(&cosmos, options(url)).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    assert_eq!(handler.seen().last().unwrap().documents().len(), 1, "the lease was resumed");
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_retry_policy_a_failed_batch_is_lost_as_in_azure() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let (handler, url) = TestHandler::start(&[(500, "application/json", "{}")]).await;
    let mut options = options(url);
    options.binding.as_mut().unwrap().retry = None;
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let stats = trigger.stats().await;
    assert_eq!((stats.invocations, stats.delivered, stats.lost), (1, 0, 1));
    assert!(handler.seen()[0].body["Metadata"].get("RetryContext").is_none());
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_answer_hangs_until_the_function_times_out() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let (_, url) = TestHandler::start(&[(200, "application/json", "")]).await;
    let mut options = options(url);
    options.function_timeout = Some(Duration::from_millis(1000));
    let started = std::time::Instant::now();
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(1000));
    let stats = trigger.stats().await;
    assert!(stats.last_error.unwrap().contains("functionTimeout"));
    assert_eq!((stats.failures, stats.delivered), (1, 1));
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_versions_start_now_and_show_every_version_and_delete() {
    let cosmos = account(2).await;
    upsert(&cosmos, json!({"id": "before", "pk": "x"})).await;
    let (handler, url) = TestHandler::start(&[]).await;
    let mut options = options(url);
    options.mode = Some(TriggerMode::AllVersions);
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    for n in 0..3 {
        upsert(&cosmos, json!({"id": "a", "pk": "x", "n": n})).await;
    }
    let client = crate::support::http_client();
    let gone = client.delete(format!("{}dbs/dev/colls/events/docs/a", cosmos.endpoint()));
    gone.header("x-ms-documentdb-partitionkey", "[\"x\"]").send().await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let changes: Vec<Value> = handler.seen().iter().flat_map(Invocation::documents).collect();
    let kinds: Vec<_> = changes.iter().map(|change| change["metadata"]["operationType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["create", "replace", "replace", "delete"]);
    assert_eq!(changes[3]["previous"]["n"], 2);
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_during_capture_loses_and_duplicates_nothing() {
    let cosmos = account(1).await;
    let (handler, url) = TestHandler::start(&[]).await;
    let mut options = options(url);
    options.max_items = Some(5);
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    for n in 0..30 {
        upsert(&cosmos, json!({"id": format!("d{n:02}"), "pk": format!("p{n}")})).await;
    }
    let children = cosmos.split("dev", "events", "0").await.unwrap();
    for n in 30..60 {
        upsert(&cosmos, json!({"id": format!("d{n:02}"), "pk": format!("p{n}")})).await;
    }
    trigger.wait_until_drained(SOON).await.unwrap();
    assert_eq!(handler.ids(), (0..60).map(|n| format!("d{n:02}")).collect::<Vec<_>>());
    assert_eq!(trigger.stats().await.leases, 2);
    cosmos.merge("dev", "events", &children[0], &children[1]).await.unwrap();
    upsert(&cosmos, json!({"id": "d60", "pk": "p"})).await;
    trigger.wait_until_drained(SOON).await.unwrap();
    assert!(handler.ids().contains(&"d60".to_owned()));
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_batch_respects_the_limit_but_never_cuts_a_transaction() {
    let cosmos = account(1).await;
    for n in 0..7 {
        upsert(&cosmos, json!({"id": format!("s{n}"), "pk": "x"})).await;
    }
    let operations: Vec<Value> = (0..9)
        .map(|n| json!({"operationType": "Create", "resourceBody": {"id": format!("t{n}"), "pk": "x"}}))
        .collect();
    let headers = [("x-ms-cosmos-is-batch-request", "True"), ("x-ms-documentdb-partitionkey", "[\"x\"]")];
    send(&cosmos, &headers, json!(operations).to_string()).await;
    let (handler, url) = TestHandler::start(&[]).await;
    let mut options = options(url);
    options.max_items = Some(4);
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let sizes: Vec<usize> = handler.seen().iter().map(|invocation| invocation.documents().len()).collect();
    assert_eq!(sizes, [4, 12]);
    trigger.stop().await;
}

/// Not a test: the child process of the tests below. It does nothing when run as a test.
#[tokio::test(flavor = "multi_thread")]
async fn child_process_of_other_tests() {
    let (Ok(port), Ok(folder)) = (std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT"), std::env::var("TEST_FOLDER")) else {
        return;
    };
    assert_eq!(std::env::var("FUNCTIONS_APP_ROOT_PATH").unwrap(), std::env::current_dir().unwrap().to_str().unwrap());
    assert!(std::env::var("FUNCTIONS_CUSTOMHANDLER_WORKER_ID").is_ok());
    let folder = std::path::PathBuf::from(folder);
    if let Ok(code) = std::env::var("TEST_EXIT_AT_ONCE") {
        std::process::exit(code.parse().unwrap());
    }
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    let app = Router::new().fallback(async move |request: Request| {
        if request.method() == "POST" && !folder.join("failed").exists() {
            std::fs::write(folder.join("failed"), "").unwrap();
            if std::env::var("TEST_HANG").is_err() {
                std::process::exit(200);
            }
            std::future::pending::<()>().await;
        }
        ([("content-type", "application/json")], "{}")
    });
    axum::serve(listener, app).await.unwrap();
}

fn child(folder: &std::path::Path, exit_at_once: Option<i32>) -> TriggerOptions {
    let module = module_path!().split_once("::").map_or(String::new(), |(_, module)| format!("{module}::"));
    let arguments = ["--exact".to_owned(), format!("{module}child_process_of_other_tests"), "--nocapture".to_owned()];
    let mut options = options(HandlerProgram::Program {
        executable: std::env::current_exe().unwrap(),
        arguments: Some(arguments.iter().map(Into::into).collect()),
    });
    options.app_root = folder.canonicalize().unwrap();
    options.settings.push(("TEST_FOLDER".into(), folder.to_str().unwrap().into()));
    options.settings.extend(exit_at_once.map(|code| ("TEST_EXIT_AT_ONCE".into(), code.to_string())));
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_dies_in_a_batch_is_restarted_and_gets_the_batch_again() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let folder = tempfile::tempdir().unwrap();
    let trigger = Trigger::start(&cosmos, child(folder.path(), None)).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let stats = trigger.stats().await;
    assert_eq!((stats.restarts, stats.delivered), (1, 1));
    assert!(stats.handler_ready.is_some());
    let pid = trigger.handler_pid().unwrap();
    trigger.stop().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the handler is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_killed_at_the_functions_timeout_and_restarted() {
    let cosmos = account(1).await;
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let folder = tempfile::tempdir().unwrap();
    let mut options = child(folder.path(), None);
    options.settings.push(("TEST_HANG".into(), "1".into()));
    options.function_timeout = Some(Duration::from_secs(2));
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    let first = trigger.handler_pid();
    trigger.wait_until_drained(SOON).await.unwrap();
    let stats = trigger.stats().await;
    assert_eq!((stats.restarts, stats.failures, stats.delivered), (1, 1, 1));
    assert_ne!(trigger.handler_pid(), first);
    trigger.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_exits_is_handled_by_the_hosts_rules() {
    let cosmos = account(1).await;
    let folder = tempfile::tempdir().unwrap();
    let error = Trigger::start(&cosmos, child(folder.path(), Some(0))).await.unwrap_err().to_string();
    assert!(error.contains("exited with 0"), "{error}");
    let error = Trigger::start(&cosmos, child(folder.path(), Some(7))).await.unwrap_err().to_string();
    assert!(error.contains("exited with 7") && error.contains("3 errors"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_folder_is_found_and_its_mistakes_are_reported() {
    let cosmos = account(1).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("Watch")).unwrap();
    let file = folder.path().join("Watch/function.json");
    let function = |database: &str| {
        json!({"bindings": [{"type": "cosmosDBTrigger", "direction": "in", "name": "items", "databaseName": database,
            "containerName": "events", "createLeaseContainerIfNotExists": true, "startFromBeginning": true}]})
        .to_string()
    };
    std::fs::write(&file, function("%NOT_SET%")).unwrap();
    let (handler, url) = TestHandler::start(&[]).await;
    let mut options = options(url);
    options.binding = None;
    options.app_root = folder.path().to_owned();
    let error = Trigger::start(&cosmos, options.clone()).await.unwrap_err().to_string();
    assert!(error.contains("function.json") && error.contains("databaseName") && error.contains("NOT_SET"), "{error}");
    std::fs::write(&file, function("dev")).unwrap();
    upsert(&cosmos, json!({"id": "a", "pk": "x"})).await;
    let trigger = Trigger::start(&cosmos, options).await.unwrap();
    trigger.wait_until_drained(SOON).await.unwrap();
    let seen = handler.seen();
    assert_eq!(seen[0].path, "/Watch");
    assert!(seen[0].body["Data"]["items"].is_string());
    trigger.stop().await;
}

//! The log lines of `serve`: on stdout, one per line, each with its invocation and the host's trace; nothing on stderr.

use std::process::Command;

use cosmos_rewind::{
    config::Settings,
    telemetry::{self, LogStream},
};
use serde_json::{Value, json};

use crate::support::{Fault, Handler, TestApp, body_of, feed_document};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const INVOCATION: &str = "11111111-2222-3333-4444-555555555555";

async fn post(handler: &Handler, traceparent: &str, array: &str) -> u16 {
    let request = handler.request("CaptureChanges", body_of(array)).header("traceparent", traceparent);
    request.send().await.unwrap().status().as_u16()
}

fn parsed(handler: &Handler) -> Vec<Value> {
    handler.log().iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[tokio::test]
async fn every_line_of_a_batch_has_its_invocation_and_the_hosts_trace() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    // A valid batch, one with poison, a body that is not a batch, and a batch that the account refuses.
    assert_eq!(post(&handler, &parent, &json!([feed_document("a", "p", 1)]).to_string()).await, 200);
    assert_eq!(post(&handler, &parent, r#"[{"id":7}]"#).await, 200);
    assert_eq!(post(&handler, &parent, "{}").await, 400);
    app.proxy.fail_always(Some(Fault::Reject(403, 0)));
    assert_eq!(post(&handler, &parent, &json!([feed_document("b", "p", 1)]).to_string()).await, 500);
    handler.wait_for_log("batch not stored").await;
    let lines = parsed(&handler);
    let of_batches: Vec<&Value> = lines.iter().skip_while(|line| line["message"] != "ready").skip(1).collect();
    for text in ["batch stored", "dead letter", "batch not stored", "not a list"] {
        let found = of_batches.iter().any(|line| line["message"].as_str().unwrap().contains(text));
        assert!(found, "{text}: {of_batches:#?}");
    }
    for line in of_batches {
        assert_eq!((&line["invocation"], &line["trace"]), (&json!(INVOCATION), &json!(TRACE)), "{line}");
        let members: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(members[..3], ["timestamp", "level", "message"], "{line}");
    }
    assert_eq!(handler.stderr(), [""; 0]);
}

#[tokio::test]
async fn an_invalid_traceparent_is_left_out() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(post(&handler, "00-nonsense\"}-01", "[]").await, 200);
    handler.wait_for_log("batch stored").await;
    let line = parsed(&handler).into_iter().find(|line| line["message"] == "batch stored").unwrap();
    assert!(line.get("trace").is_none() && line["invocation"] == INVOCATION, "{line}");
}

#[tokio::test]
async fn text_lines_carry_both_too() {
    let app = TestApp::start().await;
    let handler = app.handler(&[("REWIND_LOG_FORMAT", "text")]).await;
    assert_eq!(post(&handler, &format!("00-{TRACE}-00f067aa0ba902b7-00"), "[]").await, 200);
    handler.wait_for_log("batch stored").await;
    let line = handler.log().into_iter().find(|line| line.contains("batch stored")).unwrap();
    assert!(line.contains(TRACE) && line.contains(INVOCATION), "{line}");
    assert_eq!(handler.stderr(), [""; 0]);
}

#[tokio::test]
async fn nothing_is_on_stderr_from_the_start_to_the_end() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[("REWIND_LOG", "debug")]).await;
    assert_eq!(handler.deliver(&[feed_document("a", "p", 1)]).await.0, 200);
    assert_eq!(handler.post("nobody", "{}").await.0, 404);
    handler.terminate();
    assert_eq!(handler.exit_code(std::time::Duration::from_secs(60)).await, Some(200));
    assert_eq!(handler.stderr(), [""; 0]);
}

/// Runs in a separate process, because the log and the panic hook are global.
#[test]
#[ignore = "started by the test below"]
fn child_that_panics() {
    let settings = Settings::from_pairs([("REWIND_LOG_FORMAT", "json")]);
    telemetry::start(&settings, LogStream::Stdout, "info").unwrap();
    telemetry::log_panics();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        assert!(tokio::spawn(async { panic!("a fixed text") }).await.is_err());
        let content = String::from("SECRET é");
        // The panic message quotes the input, as for slicing errors.
        assert!(tokio::spawn(async move { content.as_str()[..8].len() }).await.is_err());
    });
}

#[test]
fn a_panic_is_one_line_on_stdout_and_quotes_no_data() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log_lines::child_that_panics", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    let lines: Vec<Value> = stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let panics: Vec<&Value> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(panics.len(), 2, "{stdout}");
    assert_eq!(panics[0]["reason"], "a fixed text");
    assert!(panics[0]["place"].as_str().unwrap().contains("log_lines.rs"), "{stdout}");
    assert!(!stdout.contains("SECRET") && !stderr.contains("SECRET") && !stderr.contains("panicked"), "{stderr}");
}

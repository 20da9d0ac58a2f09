//! Wrong configuration is the most common failure. For every setting, the real program gets a wrong value. It must name
//! the setting, the problem and the fix, and must never print a secret.

use std::collections::BTreeSet;

use cosmos_rewind::config::SETTINGS;
use serde_json::{Value, json};

use crate::support::{TestApp, feed_document, run};

/// A setting that makes the others meaningful: an account that is never contacted.
const ACCOUNT: (&str, &str) = ("CosmosDB", "AccountEndpoint=http://127.0.0.1:1/;AccountKey=U0VDUkVU;");
const COLLECTOR: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");

struct Wrong {
    name: &'static str,
    value: &'static str,
    /// Other settings next to the account.
    with: &'static [(&'static str, &'static str)],
    /// The problem, as named in the message.
    problem: &'static str,
    /// The fix, as named in the hint.
    fix: &'static str,
}

const fn wrong(name: &'static str, value: &'static str, problem: &'static str, fix: &'static str) -> Wrong {
    Wrong { name, value, with: &[], problem, fix }
}

const ENDPOINT_FIX: &str = "https://<account>.documents.azure.com:443/";
const CONNECTION_FIX: &str = "AccountEndpoint=https://<account>.documents.azure.com:443/;AccountKey=<key>;";
const NAME_FIX: &str = "up to 255 characters without / \\ ? #";

const TABLE: &[Wrong] = &[
    wrong("CosmosDB", "", "is missing", "set CosmosDB to the connection string"),
    wrong("CosmosDB", "AccountKey=U0VDUkVU", "has no AccountEndpoint", CONNECTION_FIX),
    wrong("CosmosDB", "AccountEndpoint=https://a/", "has no AccountKey", CONNECTION_FIX),
    wrong("CosmosDB", "AccountEndpoint=https://a/;AccountKey=SECRET!", "not base64", CONNECTION_FIX),
    wrong("CosmosDB", "AccountEndpoint=SECRET;AccountKey=U0VDUkVU", "not a URL", ENDPOINT_FIX),
    wrong("CosmosDB__accountEndpoint", "SECRET", "not a URL", ENDPOINT_FIX),
    wrong("CosmosDB__accountEndpoint", "http://example.com/", "plain http on another machine", ENDPOINT_FIX),
    wrong("CosmosDB__accountEndpoint", "https://me:SECRET@a/", "carries credentials", ENDPOINT_FIX),
    Wrong {
        with: &[("CosmosDB__accountEndpoint", "https://a/")],
        ..wrong("CosmosDB__credential", "magic", "not a known credential", "write managedidentity, or remove")
    },
    Wrong {
        with: &[("CosmosDB__accountEndpoint", "https://a/"), ("CosmosDB__credential", "managedidentity")],
        ..wrong("CosmosDB__clientId", "my-identity", "not a client id", "00000000-0000-0000-0000-000000000000")
    },
    wrong("COSMOS_DATABASE", "a/b", "not a valid resource name", NAME_FIX),
    wrong("COSMOS_SOURCE_CONTAINER", "a?b", "not a valid resource name", NAME_FIX),
    wrong("COSMOS_CHANGES_CONTAINER", "a#b", "not a valid resource name", NAME_FIX),
    wrong("COSMOS_CHANGES_CONTAINER", "events", "is the source container", "such as changes"),
    wrong("COSMOS_LEASE_CONTAINER", "a\\b", "not a valid resource name", NAME_FIX),
    wrong("COSMOS_LEASE_CONTAINER", "changes", "of the documents", "such as leases"),
    wrong("REWIND_BULK", "on", "\"on\" is not allowed", "write auto (pack writes where the account takes it) or off"),
    wrong("REWIND_FIDELITY", "roughly", "\"roughly\" is not allowed", "write exact or payload"),
    wrong("REWIND_DEAD_LETTERS", "ftp://a/SECRET", "unknown scheme", "a directory, or an https URL"),
    wrong(
        "REWIND_DEAD_LETTERS",
        "https://a.blob.core.windows.net/?sig=SECRET",
        "names no blob container",
        "/<container>",
    ),
    wrong("REWIND_DEAD_LETTERS", "http://example.com/c?sig=SECRET", "plain http on another machine", "write https://"),
    wrong("REWIND_DEAD_LETTERS", "https://me:SECRET@a.blob.core.windows.net/c", "carries credentials", "with a SAS"),
    wrong("REWIND_DEAD_LETTERS", "https://a.blob.core.windows.net/c#SECRET", "a fragment (#)", "with a SAS"),
    Wrong {
        with: &[("WEBSITE_SITE_NAME", "app")],
        ..wrong("REWIND_DEAD_LETTERS", "", "missing", "https://<account>.blob.core.windows.net/<container>")
    },
    wrong("REWIND_MAX_WRITES", "0", "\"0\" is not allowed", "from 1 to 4096"),
    wrong("REWIND_MAX_REREADS", "many", "\"many\" is not allowed", "from 1 to 4096"),
    wrong("REWIND_DEADLINE_SECONDS", "-1", "\"-1\" is not allowed", "whole seconds from 1 to 3600"),
    wrong("REWIND_MAX_BODY_MB", "1.5", "\"1.5\" is not allowed", "whole MiB from 1 to 2048"),
    wrong("REWIND_DRAIN_SECONDS", "601", "\"601\" is not allowed", "whole seconds from 1 to 600"),
    wrong("REWIND_FIELDS", "name", "name", "/name,/address/city"),
    wrong("REWIND_FIELDS", "/name,", "", "/name,/address/city"),
    wrong("REWIND_REDACT", "ssn", "ssn", "/ssn,/email=hash"),
    wrong("REWIND_REDACT", "/id", "id", "content"),
    wrong("REWIND_REDACT", "/email=hash", "without a key", "set REWIND_REDACT_KEY to a secret text"),
    wrong("REWIND_PRUNE", "--older-than soon", "--older-than", "--keep-within 7d"),
    wrong("REWIND_PRUNE", "sometimes", "sometimes", "--keep-within 7d"),
    wrong("REWIND_PRUNE_SECONDS", "0", "\"0\" is not allowed", "whole seconds from 1 to 3600"),
    wrong("REWIND_LOG", "cosmos_rewind=LOUD", "not a log filter", "info, debug, or cosmos_rewind=debug"),
    wrong("REWIND_LOG_FORMAT", "xml", "\"xml\" is not allowed", "write text or json"),
    wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "SECRET", "not a URL", "http://127.0.0.1:4318"),
    wrong("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://SECRET/", "not an http(s) URL", "http://127.0.0.1:4318"),
    Wrong {
        with: &[COLLECTOR],
        ..wrong("OTEL_EXPORTER_OTLP_HEADERS", "SECRET", "part 1 has no = in it", "name=value")
    },
    Wrong {
        with: &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://example.com/")],
        ..wrong("OTEL_EXPORTER_OTLP_HEADERS", "api-key=SECRET", "readable on the way", "https")
    },
    Wrong { with: &[COLLECTOR], ..wrong("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "not supported", "http/protobuf") },
    Wrong {
        with: &[COLLECTOR],
        ..wrong("OTEL_METRIC_EXPORT_INTERVAL", "1s", "\"1s\" is not allowed", "milliseconds from 100 to 3600000")
    },
];

/// Settings for which any text is valid, and why.
const ANYTHING: &[(&str, &str)] = &[
    ("REWIND_REDACT_KEY", "a secret text; that it is needed is told where it is needed"),
    ("OTEL_SERVICE_NAME", "a name of the operator's choice"),
    ("MONGODB_URI", "the handler does not read it; the commands that do refuse what is no address"),
];

#[test]
fn no_setting_is_missing_here() {
    let known: BTreeSet<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    let tried: BTreeSet<&str> =
        TABLE.iter().map(|one| one.name).chain(ANYTHING.iter().map(|(name, _)| *name)).collect();
    assert_eq!(tried, known);
}

#[tokio::test]
async fn every_wrong_setting_is_reported_with_its_problem_and_fix() {
    let folder = tempfile::tempdir().unwrap();
    let mut complaints = Vec::new();
    for one in TABLE {
        let mut settings = vec![ACCOUNT, ("REWIND_REDACT_KEY", "")];
        settings.extend(one.with);
        settings.push((one.name, one.value));
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let output = run(folder.path(), &["serve"], &settings, "").await;
        let lines: Vec<&str> = output.stderr.lines().collect();
        let said = |start: String, text: &str| lines.iter().any(|line| line.starts_with(&start) && line.contains(text));
        let fine = output.code == 2
            && said(format!("error: setting {}: ", one.name), one.problem)
            && said("hint: ".into(), one.fix);
        let all = format!("{}{}", output.stdout, output.stderr);
        if !fine || all.contains("SECRET") || all.contains("U0VDUkVU") {
            complaints.push(format!("{}={}: exit {}\n{all}", one.name, one.value, output.code));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

#[tokio::test]
async fn a_wrong_setting_of_one_function_is_named_as_written() {
    let folder = tempfile::tempdir().unwrap();
    let function = folder.path().join("CaptureOrders");
    std::fs::create_dir(&function).unwrap();
    std::fs::copy("CaptureChanges/function.json", function.join("function.json")).unwrap();
    for (name, value) in [
        ("CaptureOrders__COSMOS_SOURCE_CONTAINER", "a/b"),
        ("CaptureOrders__COSMOS_CHANGES_CONTAINER", "events"),
        ("CaptureOrders__COSMOS_LEASE_CONTAINER", "events"),
        ("CaptureOrders__REWIND_FIELDS", "name"),
        ("CaptureOrders__REWIND_REDACT", "/id"),
    ] {
        let settings = [ACCOUNT, (name, value)].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let output = run(folder.path(), &["serve"], &settings, "").await;
        assert_eq!(output.code, 2, "{output:?}");
        assert!(output.stderr.starts_with(&format!("error: setting {name}: ")), "{output:?}");
    }
}

/// Such a setting was made on purpose, so it must not be ignored. The settings page lists those that may have a value
/// for one function.
#[tokio::test]
async fn a_per_function_value_of_a_shared_setting_is_refused() {
    let app = TestApp::start().await;
    let page = std::fs::read_to_string("docs/reference/settings.md").unwrap();
    let own = page.split("\n\n").find(|paragraph| paragraph.contains("<FunctionName>__<SETTING>")).unwrap();
    for setting in SETTINGS {
        let name = format!("CaptureChanges__{}", setting.name);
        let is_own = own.contains(&format!("`{}`", setting.name));
        let doctor = app.run_with_settings(&["doctor", "--format", "json"], &[(&name, "a/b")]).await;
        let rows: Value = serde_json::from_str(&doctor.stdout).unwrap();
        let refused = rows.as_array().unwrap().iter().any(|row| {
            row["check"] == format!("setting {name}").as_str() && row["found"].as_str().unwrap().contains("no effect")
        });
        assert_eq!((refused, setting.for_functions), (!is_own, is_own), "{name}: {rows:#}");
    }
    let output = app.run_with_settings(&["serve"], &[("CaptureChanges__REWIND_FIDELITY", "payload")]).await;
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("CaptureChanges__REWIND_FIDELITY: has no effect"), "{output:?}");
}

/// No start is better than a wrong history, or none.
#[tokio::test]
async fn serve_does_not_start_with_a_failure_of_doctor() {
    let app = TestApp::start().await;
    let shipped = std::fs::read_to_string("host.json").unwrap();
    let host = |text: &str| std::fs::write(app.folder.path().join("host.json"), text).unwrap();
    let function = app.folder.path().join("CaptureChanges/function.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&function).unwrap()).unwrap();
    let set = |name: &str, value: Value| {
        let mut file = good.clone();
        file["bindings"][0][name] = value;
        file
    };
    let no_retry = json!({ "bindings": good["bindings"].clone() });
    for (file, problem) in [
        (
            set("databaseName", "prod".into()),
            r#"databaseName is "prod", and the handler of CaptureChanges reads "dev""#,
        ),
        (set("connection", "Other".into()), r#"connection is "Other", which is not the account"#),
        (set("containerName", "orders".into()), r#"containerName is "orders""#),
        (set("cardinality", "many".into()), "cardinality changes what is delivered"),
        (no_retry, "there is no retry"),
    ] {
        std::fs::write(&function, file.to_string()).unwrap();
        host(&shipped);
        let output = app.run_with_settings(&["serve"], &[]).await;
        assert_eq!(output.code, 2, "{problem}: {output:?}");
        assert!(output.stderr.contains(problem) && output.stderr.contains("doctor"), "{problem}: {output:?}");
        assert!(!output.stdout.contains("ready"), "{output:?}");
        let doctor = app.run_with_settings(&["doctor", "--format", "json"], &[]).await;
        let rows: Value = serde_json::from_str(&doctor.stdout).unwrap();
        let said = |row: &Value| row["result"] == "FAILURE" && row["found"].as_str().unwrap().contains(problem);
        assert!(rows.as_array().unwrap().iter().any(said), "{problem}: {rows:#}");
    }
    // In all-versions mode, altered dates cannot be recovered.
    let mut all = set("changeFeedMode", "AllVersionsAndDeletes".into());
    all["bindings"][0].as_object_mut().unwrap().remove("startFromBeginning");
    std::fs::write(&function, all.to_string()).unwrap();
    host(&shipped.replace("\"None\"", "\"DateTime\""));
    let output = app.run_with_settings(&["serve"], &[]).await;
    assert!(
        output.code == 2 && output.stderr.contains("versions of CaptureChanges are altered for good"),
        "{output:?}"
    );
    host(&shipped);
    drop(app.handler(&[]).await);
}

#[tokio::test]
async fn a_history_that_cannot_distinguish_documents_is_not_written() {
    for paths in [&["/_originalId"][..], &["/id"]] {
        let app = TestApp::with_changes_key(paths).await;
        let output = app.run_with_settings(&["serve"], &[]).await;
        assert!(output.code == 2 && output.stderr.contains("leaves out /pk of the source's"), "{output:?}");
        // Even while there is nothing to write: a checkpoint would claim that the history is complete up to there.
        for document in [None, Some(json!({"id": "x", "pk": "p"}))] {
            if let Some(document) = document {
                app.put(document).await;
            }
            let followed = app.run(&["follow", "--from", "beginning", "--until-caught-up"]).await;
            assert!(
                followed.code == 1 && followed.stderr.contains("two documents of one id could share a record"),
                "{followed:?}"
            );
        }
        assert!(app.history().await.is_empty());
    }
    // A history that is recreated this way while the handler runs: the batch is delivered again.
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver(&[feed_document("x", "p", 1)]).await.0, 200);
    assert!(app.local.delete_container("dev", "changes").await.unwrap());
    let key = json!({"paths": ["/_originalId"], "kind": "Hash", "version": 2});
    assert!(app.local.create_container("dev", json!({"id": "changes", "partitionKey": key})).await.unwrap());
    let (status, answer) = handler.deliver(&[feed_document("x", "p", 2)]).await;
    assert_eq!(status, 500, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("leaves out /pk"), "{answer}");
    assert!(app.history().await.is_empty() && app.dead_letters().is_empty());
}

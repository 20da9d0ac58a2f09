//! The operator's commands: the real binary against the local account.

use std::process::{Command, Output, Stdio};

use cosmos_rewind::local::{LocalCosmos, LocalOptions};
use serde_json::{Value, json};

struct Shell {
    _cosmos: LocalCosmos,
    endpoint: String,
    dir: tempfile::TempDir,
}

impl Shell {
    async fn start() -> Self {
        let cosmos = LocalCosmos::start(LocalOptions::default()).await.unwrap();
        let endpoint = cosmos.endpoint().to_string();
        Self { _cosmos: cosmos, endpoint, dir: tempfile::tempdir().unwrap() }
    }

    /// Runs a command in an empty environment and an empty directory, with `stdin` piped in.
    async fn run(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosmos-rewind"));
        command.args(args).env_clear().env("CosmosDB__accountEndpoint", &self.endpoint).current_dir(self.dir.path());
        command.envs(crate::support::AUTHORITIES);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let stdin = stdin.to_owned();
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            // A command may exit without reading its input, so a failed write is fine.
            let _ = std::io::Write::write_all(&mut child.stdin.take().unwrap(), stdin.as_bytes());
            child.wait_with_output().unwrap()
        })
        .await
        .unwrap()
    }

    /// Runs a command that must exit with `code`; returns its stdout and stderr.
    async fn expect(&self, code: i32, args: &[&str], stdin: &str) -> (String, String) {
        let output = self.run(args, stdin).await;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (status, stdout, stderr) = (output.status, text(output.stdout), text(output.stderr));
        assert_eq!(status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
        (stdout, stderr)
    }

    async fn json(&self, code: i32, args: &[&str], stdin: &str) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--format", "json"]).collect();
        serde_json::from_str(&self.expect(code, &args, stdin).await.0).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn provisioning_twice_creates_once_and_follows_the_source_that_exists() {
    let shell = Shell::start().await;
    let states = |all: &Value| all.as_array().unwrap().iter().map(|one| one["state"].clone()).collect::<Vec<_>>();
    let first = shell.json(0, &["provision", "--pk", "/tenant", "--pk", "/user"], "").await;
    assert_eq!(states(&first), ["created"; 4]);
    assert_eq!(first[2]["partition_key"], "/tenant, /user, /_originalId");
    assert_eq!(states(&shell.json(0, &["provision"], "").await), ["exists"; 4]);
    let other = shell.json(0, &["provision", "--changes", "other"], "").await;
    assert_eq!(other[2]["partition_key"], "/tenant, /user, /_originalId");
    let (_, stderr) =
        shell.expect(1, &["provision", "--leases", "wrong", "--source", "wrong2", "--changes", "changes"], "").await;
    assert!(stderr.contains("cannot serve as changes"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_populated_queried_and_truncated() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;

    let summary = shell.json(0, &["populate", "--count", "60", "--seed", "1"], "").await;
    assert_eq!(summary["written"], 60);
    assert_eq!(summary["created"].as_u64().unwrap() + summary["updated"].as_u64().unwrap(), 60);
    let count = shell.json(0, &["query", "--count", "SELECT c.id FROM c"], "").await;
    assert_eq!(count["count"], summary["created"]);

    let (_, stderr) = shell.expect(2, &["truncate", "source"], "").await;
    assert!(stderr.contains("--yes"), "{stderr}");
    assert_eq!(shell.json(0, &["truncate", "source", "--yes", "--max", "5"], "").await["deleted"], 5);
    let rest = count["count"].as_u64().unwrap() - 5;
    assert_eq!(shell.json(0, &["truncate", "source", "--yes"], "").await["deleted"], rest);
    assert_eq!(shell.json(0, &["query", "SELECT * FROM c"], "").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn populate_writes_each_line_once_then_random_updates_and_reports_bad_lines() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;
    let from = ["populate", "--file", "-", "--id-from", "/zip", "--pk-from", "/zip"];

    let args: Vec<&str> = from.iter().copied().chain(["--updates", "10", "--seed", "3"]).collect();
    let summary = shell.json(0, &args, "\u{feff}[{\"zip\":\"1\",\"n\":7},\n{\"zip\":\"2\"}]").await;
    assert_eq!((&summary["created"], &summary["updated"]), (&json!(2), &json!(10)));

    let (stdout, stderr) = shell.expect(3, &from, "{\"zip\":\"3\"}\nnonsense\n{\"n\":1}\n").await;
    assert!(stdout.contains("written     1"), "{stdout}");
    assert!(stderr.contains("line 2 is not valid JSON") && stderr.contains("line 3 has no value at /zip"), "{stderr}");
    shell.expect(2, &from, "nonsense\n").await;
    shell.expect(2, &from, "").await;

    let found = shell.json(0, &["query", "SELECT c.n, c.seq FROM c WHERE c.id = @id", "--param", "id=\"1\""], "").await;
    assert_eq!(found[0]["n"], 7);
    assert!(found[0]["seq"].as_u64().unwrap() <= 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn history_shows_versions_and_the_report_of_both_containers() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;
    let records = [
        json!({"id": "a~1", "pk": "p", "city": "Davidson", "n": 1, "_originalId": "a", "_change": {"v": 1, "op": "create", "ts": 100, "lsn": 1, "fidelity": "exact"}}),
        json!({"id": "a~2", "pk": "p", "city": "Davidson", "n": 2, "_originalId": "a", "_change": {"v": 1, "op": "replace", "ts": 100, "lsn": 2, "fidelity": "exact"}}),
        json!({"id": "a~del-3", "pk": "p", "_originalId": "a", "_change": {"v": 1, "op": "delete", "ts": 101, "lsn": 3}}),
        json!({"id": "a~4", "pk": "q", "_originalId": "a", "_change": {"v": 1, "op": "create", "ts": 102, "lsn": 4}}),
        json!({"id": "some-guid", "pk": "l", "city": "Davidson", "_originalId": "l", "_lsn": 4}),
    ]
    .map(|record| record.to_string())
    .join("\n");
    // Records are written by populating the changes container directly, because there is no capture here.
    shell.expect(0, &["populate", "--source", "changes", "--changes", "none", "--file", "-"], &records).await;
    shell.expect(0, &["populate", "--file", "-"], r#"{"id":"a","pk":"p","city":"Davidson"}"#).await;

    let (_, stderr) = shell.expect(2, &["history", "--id", "a"], "").await;
    assert!(stderr.contains("--pk 'p'  (3 versions)") && stderr.contains("--pk 'q'  (1 version)"), "{stderr}");
    let versions = shell.json(0, &["history", "--id", "a", "--pk", "p"], "").await;
    let ops: Vec<&str> = versions.as_array().unwrap().iter().map(|v| v["op"].as_str().unwrap()).collect();
    assert_eq!(ops, ["create", "replace", "delete"]);
    assert_eq!(versions[1]["changed"], json!(["n"]));
    assert_eq!(versions[0]["time"], "1970-01-01T00:01:40Z");
    assert_eq!(shell.json(0, &["history", "--id", "l"], "").await[0]["op"], "legacy");
    shell.expect(1, &["history", "--id", "nobody"], "").await;

    let report = shell
        .json(0, &["history", "--where", "c.city = @city", "--param", "city=Davidson", "--columns", "n"], "")
        .await;
    let lines: Vec<(&str, &str, &Value)> = report
        .as_array()
        .unwrap()
        .iter()
        .map(|l| (l["container"].as_str().unwrap(), l["id"].as_str().unwrap(), &l["n"]))
        .collect();
    assert_eq!(lines[..2], [("changes", "a", &json!(1)), ("changes", "a", &json!(2))]);
    assert_eq!(lines.len(), 4);
    assert!(lines.contains(&("events", "a", &Value::Null)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_query_says_what_to_do() {
    let shell = Shell::start().await;
    let (_, stderr) = shell.expect(1, &["query", "SELECT * FROM c"], "").await;
    assert!(stderr.contains("provision"), "{stderr}");
    shell.expect(0, &["provision"], "").await;
    let (_, stderr) = shell.expect(2, &["query", "SELECT VALUE COUNT(1) FROM c"], "").await;
    assert!(stderr.contains("--count"), "{stderr}");
    let (_, stderr) = shell.expect(2, &["query", "SELEKT"], "").await;
    assert!(stderr.contains("SELECT"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_on_the_command_line_exit_with_2_and_name_the_argument() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision", "--pk", "/tenant", "--pk", "/user"], "").await;
    for sql in ["SELEC c.id FROM c", "SELECT * FROM c WHERE", "SELECT VALUE NO_SUCH_FUNCTION(c.id) FROM c"] {
        for more in [&[][..], &["--count"], &["--pk", "[\"t\",\"u\"]"]] {
            shell.expect(2, &[&["query", sql], more].concat(), "").await;
        }
    }
    shell.expect(1, &["query", "--in", "nowhere", "SELECT * FROM c"], "").await;
    let good = "{\"id\":\"a\",\"pk\":[\"t\",\"u\"]}\n";
    for (key, words) in [("[\"t\",\"u\",1]", "3 components, not the 2"), ("\"t\"", "1 component, not the 2")] {
        let list = format!("{good}\n{{\"id\":\"a\",\"pk\":{key}}}\n");
        for args in [
            &["show", "--at", "1s"][..],
            &["history"],
            &["diff", "--from", "1s"],
            &["restore", "--at", "1s"],
            &["revert", "--from", "1h", "--to", "1s"],
        ] {
            let (_, told) = shell.expect(2, &[args, &["--ids-file", "-"]].concat(), &list).await;
            assert!(told.contains("line 3") && told.contains(words), "{args:?}: {told}");
        }
    }
    // A flag is never taken for an id; an id that looks like a flag can still be passed.
    for (args, flag) in [
        (&["show", "--id", "-x"][..], "--id"),
        (&["restore", "--id", "-abc", "--pk", "p", "--at", "1s"], "--id"),
        (&["history", "--id", "a", "--pk", "-5"], "--pk"),
        (&["history", "--where", "-c.n > 5"], "--where"),
        (&["restore", "--id", "-y", "--at", "1s"], "--id"),
    ] {
        let (_, told) = shell.expect(2, args, "").await;
        assert!(told.contains(&format!("{flag}='-...'")), "{args:?}: {told}");
    }
    let (_, told) = shell.expect(2, &["restore", "--id", "--all", "--at", "1s"], "").await;
    assert!(told.contains("a value is required"), "{told}");
    let (_, told) = shell.expect(1, &["show", "--id=-x", "--pk=-5"], "").await;
    assert!(told.contains("\"-x\""), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_container_name_is_refused_before_the_first_request() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;
    for args in [
        &["truncate", "", "--yes"][..],
        &["truncate", "a/b", "--yes"],
        &["query", "SELECT * FROM c", "--in", " "],
        &["restore", "--all", "--at", "now", "--into", "", "--dry-run"],
    ] {
        let (_, stderr) = shell.expect(2, args, "").await;
        assert!(stderr.contains("write a container's name"), "{args:?}: {stderr}");
    }
    for list in ["", "events=changes,", "events="] {
        let (_, stderr) = shell.expect(2, &["restore", "--all", "--at", "now", "--containers", list], "").await;
        assert!(stderr.contains("\"\" is not the name of a container"), "{list:?}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_predicate_that_the_account_refuses_is_a_wrong_command_line_in_each_command() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;
    for args in [
        &["query", "SELECT * FROM c WHERE c.x ="][..],
        &["history", "--where", "c.x ="],
        &["show", "--where", "c.x =", "--at", "now"],
        &["diff", "--where", "c.x =", "--from", "1m"],
        &["find", "--where", "c.x =", "--when", "true"],
        &["restore", "--where", "c.x =", "--at", "1m", "--dry-run"],
        &["backup", "--where", "c.x =", "--out", "file"],
        &["backfill", "--where", "c.x ="],
        &["at", "now", "--where", "c.x ="],
    ] {
        let (_, stderr) = shell.expect(2, args, "").await;
        assert!(stderr.contains("Syntax error"), "{args:?}: {stderr}");
        assert!(args[0] == "query" || stderr.contains("hint: "), "{args:?}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn an_argument_or_a_setting_that_is_not_utf_8_is_a_wrong_one() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};
    for args in [&["query"][..], &["history", "--id"], &["nonsense"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosmos-rewind"));
        let output = command.args(args).arg(OsStr::from_bytes(b"\xff\xfe")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && !stderr.contains("panicked"), "{args:?}: {stderr}");
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["COSMOS_DATABASE", "Capture__COSMOS_DATABASE", "CosmosDB"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosmos-rewind"));
        command.args(["status", "--endpoint", "http://127.0.0.1:1/"]).env(name, OsStr::from_bytes(b"\xff"));
        let output = command.current_dir(dir.path()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.contains(&format!("setting {name}: is not UTF-8")), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_value_is_reported_with_the_valid_ones() {
    let shell = Shell::start().await;
    for (args, says) in [
        (&["populate", "--count", "x"][..], "write a whole number in digits"),
        (&["populate", "--count", "99999999999999999999"], "more than this flag takes"),
        (&["show", "--id", "a", "--at", "now", "--ids-file", "nosuch"], "--ids-file"),
        (&["replay", "--dead-letters", "nosuch"], "--dead-letters nosuch: there is no such directory"),
        (&["find", "--sql", "c.x ="], "a predicate that ends too early cannot be decided here"),
    ] {
        let (_, stderr) = shell.expect(2, args, "").await;
        assert!(stderr.contains(says), "{args:?}: {stderr}");
    }
}

/// The store is out of reach; no part of the archive is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_out_of_reach_is_named_with_what_to_look_at() {
    let shell = Shell::start().await;
    shell.expect(0, &["provision"], "").await;
    let port = crate::support::ClosedPort::take();
    let archive = format!("blob:http://{}/account/versions", port.address());
    let restore = ["restore", "--all", "--at", "now", "--dry-run", "--from-archive", &archive];
    for command in [&["load", "--archive", &archive][..], &restore] {
        let (_, stderr) = shell.expect(1, command, "").await;
        assert!(stderr.contains("cannot be reached") && stderr.contains("look at the address"), "{stderr}");
    }
}

/// The first mistake on a new machine: the local account does not run, or another port or scheme is named.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_not_there_is_said_to_be_just_that() {
    let shell = Shell::start().await;
    let port = crate::support::ClosedPort::take();
    let other_scheme = shell.endpoint.replacen("http:", "https:", 1);
    for endpoint in [format!("http://{}/", port.address()), other_scheme] {
        let (_, stderr) = shell.expect(1, &["query", "SELECT * FROM c", "--endpoint", &endpoint], "").await;
        assert!(stderr.contains(&endpoint) && stderr.contains("nothing answers there"), "{stderr}");
        assert!(stderr.contains("`cosmos-rewind local` runs"), "{stderr}");
    }
}

/// What a mistake is answered with names the whole choice, and says nothing that has not happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_is_answered_with_the_choice_and_with_what_has_happened() {
    let shell = Shell::start().await;
    let (_, stderr) = shell.expect(2, &["backfill"], "").await;
    assert!(stderr.contains("--where <PREDICATE>|--all"), "{stderr}");
    shell.expect(0, &["provision"], "").await;
    let load = ["load", "-", "--mode", "upsert", "--no-trailer"];
    let (_, stderr) = shell.expect(3, &load, "no JSON\n").await;
    assert!(stderr.contains("nothing was written") && !stderr.contains("were replaced"), "{stderr}");
}

//! What SECURITY.md promises: who can reach the program, what it makes of hostile bytes, and what it leaves on the disk.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    follow::{ALL, catch_up, put},
    support::{BINARY, Fault, FollowerProcess, Kind, Local, TestApp, body_of, feed_document},
};

/// Addresses on which a process listens, from its sockets and the kernel's tables.
fn listening(id: u32) -> BTreeSet<String> {
    let links = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().filter_map(Result::ok);
    let sockets: BTreeSet<String> = links
        .filter_map(|fd| Some(std::fs::read_link(fd.path()).ok()?.to_str()?.strip_prefix("socket:[")?.replace(']', "")))
        .collect();
    let mut found = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        for line in std::fs::read_to_string(format!("/proc/{id}/net/{table}")).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            const LISTEN: &str = "0A";
            if fields[3] == LISTEN && sockets.contains(fields[9]) {
                found.insert(fields[1].split(':').next().unwrap().to_owned());
            }
        }
    }
    found
}

/// 127.0.0.1 as the kernel writes it.
const LOOPBACK: &str = "0100007F";

#[tokio::test]
async fn handler_and_local_account_listen_on_loopback_only_and_a_follower_nowhere() {
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    assert_eq!(listening(handler.id()), BTreeSet::from([LOOPBACK.to_owned()]));
    let local = Local::start(&[]).await;
    assert_eq!(listening(local.id()), BTreeSet::from([LOOPBACK.to_owned()]));
    let mut follower = FollowerProcess::start(&app, &ALL);
    follower.wait_for_log("start of every range saved").await;
    assert_eq!(listening(follower.id()), BTreeSet::new());
    drop(follower);
    let mut follower = FollowerProcess::start(&app, &[&ALL[..], &["--name", "m", "--metrics", "127.0.0.1:0"]].concat());
    follower.wait_for_log("metrics are served").await;
    assert_eq!(listening(follower.id()), BTreeSet::from([LOOPBACK.to_owned()]));
}

/// What is answered to these bytes within five seconds, and whether the connection was closed.
fn answer_to(port: u16, bytes: &[u8], end: bool) -> (String, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // A server that refuses while it is still sent to is in its right.
    let _ = stream.write_all(bytes);
    if end {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {
                return (String::from_utf8_lossy(&answer).into_owned(), true);
            }
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
        }
    }
}

async fn send(port: u16, bytes: String, end: bool) -> (String, bool) {
    tokio::task::spawn_blocking(move || answer_to(port, bytes.as_bytes(), end)).await.unwrap()
}

fn statuses(answer: &str) -> Vec<u16> {
    let parts = answer.split("HTTP/1.1 ").skip(1);
    parts.filter_map(|part| part.get(..3)?.parse().ok()).collect()
}

fn smuggled(n: usize) -> String {
    body_of(&json!([feed_document(&format!("smuggled-{n}"), "p", 1)]).to_string())
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_stores_nothing_and_others_are_served() {
    const POST: &str = "POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n";
    let app = TestApp::start().await;
    let handler = app.handler(&[]).await;
    let port: u16 = handler.url("").trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let inner = |n: usize| {
        let body = smuggled(n);
        format!("{POST}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let chunked = |n: usize| {
        let body = smuggled(n);
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
    };
    let body = smuggled(0);
    let length = body.len();
    let cases: Vec<(&str, String)> = vec![
        // The length says that all of the rest is one body, the encoding that it ends at once and another request follows.
        ("length, then chunked", {
            let rest = format!("0\r\n\r\n{}", inner(1));
            format!("{POST}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{rest}", rest.len())
        }),
        ("chunked, then length", {
            let rest = format!("0\r\n\r\n{}", inner(2));
            format!("{POST}Transfer-Encoding: chunked\r\nContent-Length: {}\r\n\r\n{rest}", rest.len())
        }),
        ("two lengths", format!("{POST}Content-Length: {length}\r\nContent-Length: 2\r\n\r\n{body}")),
        ("two lengths in one", format!("{POST}Content-Length: {length}, 2\r\n\r\n{body}")),
        ("a length with a sign", format!("{POST}Content-Length: +{length}\r\n\r\n{body}")),
        ("a negative length", format!("{POST}Content-Length: -1\r\n\r\n{body}")),
        ("a length in hexadecimal", format!("{POST}Content-Length: 0x10\r\n\r\n{body}")),
        ("a length over 64 bits", format!("{POST}Content-Length: 18446744073709551616\r\n\r\n{body}")),
        ("a length with a blank in its name", format!("{POST}Content-Length : {length}\r\n\r\n{body}")),
        ("another encoding", format!("{POST}Transfer-Encoding: xchunked\r\n\r\n{}", chunked(4))),
        ("chunked not last", format!("{POST}Transfer-Encoding: chunked, identity\r\n\r\n{}", chunked(5))),
        (
            "chunked in HTTP/1.0",
            format!("{}Transfer-Encoding: chunked\r\n\r\n{}", POST.replace("1.1", "1.0"), chunked(6)),
        ),
        ("a chunk over 64 bits", format!("{POST}Transfer-Encoding: chunked\r\n\r\nffffffffffffffff0\r\n{body}")),
        ("a chunk with a sign", format!("{POST}Transfer-Encoding: chunked\r\n\r\n-1\r\n{body}\r\n0\r\n\r\n")),
        ("a chunk longer than it says", format!("{POST}Transfer-Encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n")),
        (
            "a chunk's endless extension",
            format!("{POST}Transfer-Encoding: chunked\r\n\r\n1;{}\r\n", "x".repeat(1 << 20)),
        ),
        ("a header folded over two lines", format!("{POST}X: a\r\n Content-Length: {length}\r\n\r\n{}", inner(7))),
        ("a NUL in a header", format!("{POST}X: a\0b\r\nContent-Length: {length}\r\n\r\n{body}")),
        ("a header without a colon", format!("{POST}Nonsense\r\nContent-Length: {length}\r\n\r\n{body}")),
        (
            "a header of a megabyte",
            format!("{POST}X: {}\r\nContent-Length: {length}\r\n\r\n{body}", "x".repeat(1 << 20)),
        ),
        ("ten thousand headers", format!("{POST}{}Content-Length: {length}\r\n\r\n{body}", "X: a\r\n".repeat(10_000))),
        ("a target of a megabyte", format!("POST /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(1 << 20))),
        ("no HTTP at all", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned()),
        ("a tunnel", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()),
        ("a body cut off", format!("{POST}Content-Length: {}\r\n\r\n{body}", length + 1)),
        ("chunks cut off", format!("{POST}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", length)),
        ("headers cut off", format!("{POST}Content-Len")),
    ];
    let mut complaints = Vec::new();
    for (name, bytes) in cases {
        let end = name.ends_with("cut off");
        let (answer, closed) = send(port, bytes, end).await;
        let statuses = statuses(&answer);
        let refused = statuses.iter().all(|status| (400..500).contains(status)) && (closed || !statuses.is_empty());
        if !refused || statuses.len() > 1 {
            complaints.push(format!("{name}: closed {closed}, {answer:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(app.history().await.is_empty(), "{:#?}", app.history().await);
    assert!(app.dead_letters().is_empty());

    // By the chunks alone, and nothing behind them, as RFC 9112 (6.1) wants it.
    let both = format!("{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n{}{}", chunked(3), inner(4));
    let (answer, closed) = send(port, both, false).await;
    assert_eq!((statuses(&answer), closed), (vec![200], true), "{answer}");
    assert_eq!(app.history().await.len(), 1);

    // Two requests one behind the other are two requests, which is no trick.
    let two = format!("{}{}", inner(8), inner(9));
    let (answer, _) = send(port, two, false).await;
    assert_eq!(statuses(&answer), [200, 200], "{answer}");
    assert_eq!(app.history().await.len(), 3);
}

#[tokio::test]
async fn callers_that_never_finish_hold_up_nobody_and_no_stop() {
    let app = TestApp::start().await;
    let mut handler = app.handler(&[("REWIND_DRAIN_SECONDS", "2")]).await;
    let address = handler.url("").replace("http://", "").trim_end_matches('/').to_owned();
    let slow: Vec<TcpStream> = (0..200)
        .map(|n| {
            let mut stream = TcpStream::connect(&address).unwrap();
            let begun: &[u8] = match n % 3 {
                0 => b"",
                1 => b"POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nX: ",
                _ => b"POST /CaptureChanges HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(begun).unwrap();
            stream
        })
        .collect();
    assert_eq!(handler.deliver(&[feed_document("a", "p", 1)]).await.0, 200);
    assert_eq!(app.history().await.len(), 1);
    handler.terminate();
    assert_eq!(handler.exit_code(Duration::from_secs(20)).await, Some(200));
    drop(slow);
}

/// Runs a command to its end and measures the most memory that it had, in MiB.
fn measured(app: &TestApp, args: &[&str]) -> (i32, String, u64) {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(app.folder.path()).env_clear().env("RUST_BACKTRACE", "0");
    command.env("CosmosDB", app.local.connection_string()).env("SSL_CERT_FILE", crate::support::AUTHORITY);
    command.env("TMPDIR", std::env::temp_dir());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut most, begun) = (0, Instant::now());
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        most = peak.and_then(|kb| kb.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(most);
        if begun.elapsed() > Duration::from_secs(100) {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let all = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap_or(-1), all, most / 1024)
}

fn gzip(parts: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    parts.into_iter().for_each(|part| packed.write_all(&part).unwrap());
    packed.finish().unwrap()
}

/// The same lines with a checksum that is right, which anybody can make.
fn signed(lines: &str) -> String {
    let sum = cosmos_rewind::change::record::hex(&Sha256::digest(lines.as_bytes()));
    format!("{lines}{}\n", json!({"_end": {"steps": lines.lines().count() - 1, "sha256": sum}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_end_in_a_clear_error_and_little_memory_and_nothing_is_written() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let folder = app.folder.path();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    };
    let deep = "[".repeat(100_000);
    let event = r#"{"op":"create","id":"y","pk":"key-y","ts":5,"lsn":1,"version":"y~1","doc":{"id":"y","pk":"key-y"}}"#;
    let bomb = || gzip((0..512).map(|_| vec![b'['; 1 << 20]));
    let blank_bomb = || gzip((0..4).map(|_| vec![b'\n'; 1 << 20]));

    // A plan that is right but for what is hostile about it.
    let mut head = plan_head(&app).await;
    let step = |pk: &str| format!(r#"{{"id":"y","pk":{pk},"action":"delete"}}"#);
    let plan_of = |head: &Value, step: &str| signed(&format!("{head}\n{step}\n"));
    write("deep.plan", plan_of(&head, &step(&deep)).as_bytes());
    write("key.plan", plan_of(&head, &step("[1,2,3,4,5]")).as_bytes());
    write("nul.plan", &[0; 5000]);
    write("long.plan", &vec![b' '; 8 << 20]);
    write("deep_only.plan", deep.as_bytes());
    write("empty.plan", b"");
    for (name, id) in [("up.plan", "../../escaped"), ("root.plan", "/tmp/escaped"), ("nul_id.plan", "a\0b")] {
        head["_plan"]["id"] = id.into();
        write(name, plan_of(&head, &step("[\"p\"]")).as_bytes());
    }

    write("a/bomb/x.jsonl.gz", &bomb());
    write("a/deep/x.jsonl", format!("{deep}\n").as_bytes());
    write("a/deep_doc/x.json", event.replace("{\"id\"", &format!("{{\"d\":{deep},\"id\"")).as_bytes());
    write("a/nul/x.jsonl", &[&[0; 5000][..], b"\n"].concat());
    write("a/empty/x.json", b"");
    write("a/key/x.jsonl", event.replace("\"key-y\",\"ts\"", "[],\"ts\"").as_bytes());
    write("a/no_gzip/x.jsonl.gz", b"\x1f\x8b\x08nonsense");
    std::fs::create_dir_all(folder.join("a/link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.join("a/link/x.json")).unwrap();
    std::fs::create_dir_all(folder.join("a/pipe")).unwrap();
    assert!(Command::new("mkfifo").arg(folder.join("a/pipe/x.json")).status().unwrap().success());

    write("bomb.jsonl.gz", &bomb());
    write("blank.jsonl.gz", &blank_bomb());
    write("deep.jsonl", format!("{deep}\n").as_bytes());
    write("nul.jsonl", &[0; 5000]);
    write(
        "trailer.jsonl",
        br#"{"_backup":{"v":1,"documents":18446744073709551615,"sha256":"","source":"","at":null,"made":""}}"#,
    );

    let before: BTreeSet<PathBuf> = all_files(folder);
    let mut complaints = Vec::new();
    let mut cases: Vec<Vec<&str>> = Vec::new();
    for plan in ["deep", "key", "nul", "long", "deep_only", "empty", "up", "root", "nul_id"] {
        cases.push(vec!["restore", "--yes", "--plan", plan]);
    }
    for archive in ["bomb", "deep", "deep_doc", "nul", "empty", "key", "no_gzip", "link", "pipe"] {
        // A loader goes by the document's own key.
        if archive != "key" {
            cases.push(vec!["load", "--archive", archive]);
        }
        cases.push(vec!["restore", "--all", "--at", "now", "--yes", "--from-archive", archive]);
    }
    for backup in ["bomb.jsonl.gz", "blank.jsonl.gz", "deep.jsonl", "nul.jsonl", "trailer.jsonl"] {
        cases.push(vec!["load", backup]);
    }
    for case in &cases {
        let named = match case[0] {
            "load" if case.len() == 2 => case[1].to_owned(),
            _ if case.contains(&"--plan") => format!("{}.plan", case[case.len() - 1]),
            _ => format!("a/{}", case[case.len() - 1]),
        };
        let mut args = case.clone();
        args.pop();
        args.push(&named);
        let (code, said, memory) = tokio::task::block_in_place(|| measured(&app, &args));
        // Code 3: a loader goes on behind a document that is none, and says so at the end.
        let fine = [1, 2].contains(&code) || (code == 3 && args[0] == "load" && args.len() == 2);
        let clear = said.contains("error: ") && !said.contains("panicked") && said.len() < 5_000;
        if !fine || !clear || memory > 256 {
            let said: String = said.chars().take(500).collect();
            complaints.push(format!("{args:?}: exit {code}, {memory} MiB: {said}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(all_files(folder), before, "something was written");
    assert!(!Path::new("/tmp/escaped.jsonl").exists());
    assert!(app.history().await.is_empty());
}

/// The head of a plan of today's format for this app.
async fn plan_head(app: &TestApp) -> Value {
    let made = app.run(&["restore", "--all", "--at", "now", "--dry-run", "--plan-out", "good.plan"]).await;
    assert!([0, 3].contains(&made.code), "{made:?}");
    let plan = std::fs::read_to_string(app.folder.path().join("good.plan")).unwrap();
    serde_json::from_str(plan.lines().next().unwrap()).unwrap()
}

/// Whoever can write into the history can write journals: nothing of such a one may be done, and the others stay usable.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_journals_in_the_history_are_refused_and_the_others_are_listed_and_undone() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let head = plan_head(&app).await["_plan"].clone();
    let changes = app.changes().await;
    let write = async |restore: &str, name: &str, entry: Value| {
        let (group, id) = (format!("restore~{restore}"), format!("restore~{restore}~{name}"));
        let item = json!({"id": id, "_originalId": group, "_restore": entry});
        let key = cosmos_rewind::history::layout::key_of_other(changes.key_paths(), &group, &id);
        changes.upsert(&key, &id, item.to_string().into_bytes()).await.unwrap();
    };
    let step = r#"{"id":"x","pk":"key-x","action":"delete"}"#;
    let text = |id: &str, step: &str| {
        let mut head = head.clone();
        head["id"] = id.into();
        signed(&format!("{}\n{step}\n", json!({"_plan": head})))
    };
    let whole = json!({"kind": "plan", "head": head, "parts": 1, "writes": 1});
    // No end of parts, half of a plan, another restore's plan, lines that are none, a plan's item that is a part.
    write("endless", "plan", json!({"kind": "plan", "head": head, "parts": u32::MAX, "writes": u64::MAX})).await;
    write("torn", "plan", whole.clone()).await;
    write("torn", "part-00000", json!({"kind": "part", "text": &text("torn", step)[..200]})).await;
    write("other", "plan", whole.clone()).await;
    write("other", "part-00000", json!({"kind": "part", "text": text("../../other", step)})).await;
    write("deep", "plan", whole.clone()).await;
    write("deep", "part-00000", json!({"kind": "part", "text": text("deep", &"[".repeat(100_000))})).await;
    write("part", "plan", json!({"kind": "part", "text": 7})).await;
    write("odd", "plan", json!({"kind": "plan", "head": {"id": 7}, "parts": -1, "writes": "many"})).await;
    // Outcomes that were never had.
    write("liar", "plan", whole.clone()).await;
    write("liar", "part-00000", json!({"kind": "part", "text": text("liar", step)})).await;
    let outcome = json!({"id": "x", "pk": "key-x", "action": "delete", "fate": "gone", "before": 7});
    write("liar", "outcomes-1-0", json!({"kind": "outcomes", "outcomes": [outcome]})).await;

    let before = app.history().await;
    for name in ["endless", "torn", "other", "deep", "part", "odd", "liar"] {
        let undone = app.run(&["undo", name, "--yes"]).await;
        assert!([1, 2].contains(&undone.code), "{name}: {undone:?}");
        assert!(undone.stderr.contains("error: ") && !undone.stderr.contains("panicked"), "{name}: {undone:?}");
        assert!(undone.stderr.len() < 2_000, "{name}: {} bytes", undone.stderr.len());
    }
    assert_eq!(app.history().await, before, "something was written");
    let live = app.events().await;
    let key = cosmos_rewind::change::key::PartitionKey::parse("key-x").unwrap();
    assert!(live.read(&key, "x").await.unwrap().is_some(), "nothing was deleted");
    let listed = app.run(&["undo", "--list", "--format", "json"]).await;
    assert_eq!(listed.code, 0, "{listed:?}");
    let names: BTreeSet<String> =
        listed.json().as_array().unwrap().iter().map(|row| row["restore"].as_str().unwrap().to_owned()).collect();
    assert!(names.contains("liar") && names.contains("endless") && names.contains("odd"), "{names:?}");
    for command in [&["status"][..], &["verify"], &["coverage"], &["prune", "--keep-within", "1d", "--dry-run"]] {
        let output = app.run(command).await;
        assert!(!output.stderr.contains("panicked") && output.code != 101, "{command:?}: {output:?}");
    }
}

/// The journal's local file is appended to: what it leads to would be somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_not_written_through_a_symbolic_link() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let folder = app.folder.path();
    let head = plan_head(&app).await;
    let step = r#"{"id":"x","pk":"key-x","action":"delete"}"#;
    std::fs::write(folder.join("one.plan"), signed(&format!("{head}\n{step}\n"))).unwrap();
    let id = head["_plan"]["id"].clone();
    let precious = folder.join("precious");
    std::fs::write(&precious, "mine").unwrap();
    let journals = folder.join(".rewind");
    std::fs::create_dir_all(&journals).unwrap();
    std::os::unix::fs::symlink(&precious, journals.join(format!("{}.jsonl", id.as_str().unwrap()))).unwrap();
    // A journal is named after the use of a plan, which nobody can foresee; what a plan says of its name leads nowhere.
    let args = ["restore", "--yes", "--plan", "one.plan", "--max-deletes", "1", "--journal", ".rewind"];
    let used = app.run(&args).await;
    assert!([0, 3].contains(&used.code), "{used:?}");
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
}

fn all_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            found.extend(all_files(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

#[tokio::test]
async fn every_file_that_holds_documents_or_names_them_is_its_owners_alone() {
    let app = TestApp::start().await;
    let folder = app.folder.path();
    let mine = all_files(folder);
    catch_up(&app, &ALL).await;
    put(&app, "x", 1).await;
    put(&app, "y", 1).await;
    let sinks = ["--sink", "changes", "--sink", "file:events.jsonl", "--checkpoint-file", "follower.json"];
    catch_up(&app, &[&["--name", "files", "--from", "beginning"], &sinks[..]].concat()).await;
    let past = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    put(&app, "x", 2).await;
    app.captured_from_now().await;
    let handler = app.handler(&[]).await;
    assert_eq!(handler.deliver_text(r#"[{"id":7,"pk":"p"}]"#).await.0, 200);
    for args in [
        vec!["backup", "--all", "--out", "all.jsonl"],
        vec!["backup", "--all", "--out", "all.jsonl.gz"],
        vec!["restore", "--all", "--at", &past, "--dry-run", "--plan-out", "made.plan"],
        vec!["restore", "--yes", "--plan", "made.plan"],
    ] {
        let output = app.run(&args).await;
        assert_eq!(output.code, 0, "{args:?} {output:?}");
    }
    // What erases also writes an archive's file anew.
    std::fs::create_dir(folder.join("archive")).unwrap();
    std::fs::copy(folder.join("events.jsonl"), folder.join("archive/events.jsonl")).unwrap();
    let erased = app.run(&["erase", "--id", "x", "--pk", "key-x", "--archive", "archive", "--yes"]).await;
    assert!([0, 3].contains(&erased.code), "{erased:?}");
    let made: BTreeSet<PathBuf> = &all_files(folder) - &mine;
    for name in ["events.jsonl", "follower.json", "all.jsonl", "all.jsonl.gz", "made.plan", ".dead-letters", "archive"]
    {
        assert!(made.iter().any(|path| path.strip_prefix(folder).unwrap().starts_with(name)), "{name}: {made:#?}");
    }
    let journals =
        made.iter().filter(|path| path.parent() != Some(folder) && path.extension().is_some_and(|e| e == "jsonl"));
    assert!(journals.count() >= 2, "a journal and the archive: {made:#?}");
    for path in made {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{} {mode:o}", path.display());
    }
}

/// What stands for secrets; none is part of another text.
const KEY: &str = "TUFSS0VEYWNjb3VudGtleQ==";
const SIGNATURE: &str = "MARKEDsignature";
const HASH_KEY: &str = "MARKEDhashkey";
const TOKEN: &str = "MARKEDtoken";

#[tokio::test]
async fn no_error_of_any_command_shows_a_secret() {
    let app = TestApp::start().await;
    put(&app, "x", 1).await;
    let folder = app.folder.path();
    std::fs::write(folder.join("docs.jsonl"), "{\"id\":\"a\",\"pk\":\"p\"}\n").unwrap();
    let sas = format!("https://127.0.0.1:1/account/letters?sv=1&sig={SIGNATURE}");
    let blob = format!("blob:http://127.0.0.1:1/account/c/x?sv=1&sig={SIGNATURE}");
    let bad_blob = format!("blob:https://me:{SIGNATURE}@a.blob.core.windows.net/c?sig={SIGNATURE}");
    let connection = |endpoint: &str| format!("AccountEndpoint={endpoint};AccountKey={KEY};");
    let through_proxy = app.proxy.endpoint().to_string();
    let commands: Vec<Vec<&str>> = vec![
        vec!["show", "--id", "x", "--pk", "key-x"],
        vec!["history", "--id", "x"],
        vec!["diff", "--id", "x", "--pk", "key-x", "--from", "1h"],
        vec!["status"],
        vec!["doctor"],
        vec!["verify"],
        vec!["coverage"],
        vec!["provision"],
        vec!["backfill"],
        vec!["query", "SELECT * FROM c"],
        vec!["query", "SELEKT"],
        vec!["truncate", "source", "--yes"],
        vec!["populate", "--count", "1"],
        vec!["prune", "--keep-within", "1d", "--yes"],
        vec!["cost", "--docs-per-day", "5"],
        vec!["replay"],
        vec!["backup", "--all", "--out", "out.jsonl"],
        vec!["load", "docs.jsonl"],
        vec!["load", "--archive", &blob],
        vec!["load", "--archive", &bad_blob],
        vec!["restore", "--all", "--at", "now", "--yes"],
        vec!["restore", "--all", "--at", "now", "--yes", "--from-archive", &blob],
        vec!["undo", "--list"],
        vec!["erase", "--id", "x", "--pk", "key-x", "--yes"],
        vec!["erase", "--id", "x", "--pk", "key-x", "--yes", "--archive", &bad_blob],
        vec!["follow", "--until-caught-up", "--from", "beginning"],
        vec!["follow", "--until-caught-up", "--from", "beginning", "--sink", &blob],
        vec!["follow", "--until-caught-up", "--from", "beginning", "--sink", &bad_blob],
        vec!["follow", "--sink", &sas],
        vec!["serve"],
    ];
    let headers = format!("api-key={TOKEN}");
    let mut complaints = Vec::new();
    let mut run = 0;
    // Nobody listens; refused by the service; not allowed; settings that are wrong.
    let places = [
        (connection("http://127.0.0.1:1/"), None),
        (connection(&through_proxy), Some(Fault::Reject(401, 0))),
        (connection(&through_proxy), Some(Fault::Reject(403, 0))),
        (format!("AccountEndpoint=nonsense;AccountKey={KEY}"), None),
        (format!("AccountEndpoint=https://me:{KEY}@a/;AccountKey={KEY}!"), None),
    ];
    for (place, fault) in places {
        if let Some(fault) = fault {
            for kind in
                [Kind::HistoryWrite, Kind::LiveWrite, Kind::HistoryRead, Kind::LiveRead, Kind::Query, Kind::Definition]
            {
                app.proxy.fail_always_of(kind, Some(fault.clone()));
            }
        }
        let settings = [
            ("CosmosDB", place.as_str()),
            ("REWIND_DEAD_LETTERS", &sas),
            ("REWIND_REDACT", "/email=hash"),
            ("REWIND_REDACT_KEY", HASH_KEY),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", &headers),
            ("REWIND_LOG", "debug"),
            ("REWIND_DEADLINE_SECONDS", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let runs = commands.iter().map(|command| {
            // A handler that can be started goes on; the first seconds have said what is wrong.
            let process = marked(folder, command, &settings);
            async move { (command, tokio::task::spawn_blocking(process).await.unwrap()) }
        });
        let mut runs = stream::iter(runs).buffer_unordered(6);
        while let Some((command, text)) = runs.next().await {
            run += 1;
            if [KEY.trim_end_matches('='), SIGNATURE, HASH_KEY, TOKEN].iter().any(|secret| text.contains(secret)) {
                complaints.push(format!("{command:?} with {place}: {text}"));
            }
        }
    }
    assert!(run >= 150 && complaints.is_empty(), "{run}\n{}", complaints.join("\n"));
    for path in all_files(folder) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        for secret in [KEY, SIGNATURE, HASH_KEY, TOKEN] {
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
}

/// Runs a command for a few seconds at most, for all that it says.
fn marked(folder: &Path, command: &[&str], settings: &[(String, String)]) -> impl FnOnce() -> String + Send + 'static {
    let mut process = Command::new("timeout");
    process.args(["5", BINARY]).args(command).current_dir(folder).stdin(Stdio::null()).env_clear();
    process.env("PATH", std::env::var_os("PATH").unwrap()).env("SSL_CERT_FILE", crate::support::AUTHORITY);
    process.envs(settings.iter().cloned()).env("RUST_BACKTRACE", "0");
    move || {
        let output = process.output().unwrap();
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    }
}

/// The product's source without its unit tests: each file's path and lines, with their numbers.
fn source() -> Vec<(String, Vec<(usize, String)>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = all_files(&root.join("src")).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let code = |text: String| {
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
        let lines = lines.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        lines.map(|(n, line)| (n + 1, line.to_owned())).collect()
    };
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), code(std::fs::read_to_string(path).unwrap()))).collect()
}

/// What is put into the text of SQL, and why no value of a document or a user gets into it so.
const BUILT_SQL: &[(&str, &str, &str)] = &[
    ("src/history/past/report.rs", "matching", "the operator's own SQL, said of records"),
    ("src/history/past/report.rs", "IS_RECORD", "a constant"),
    ("src/history/past/report.rs", "predicate", "the operator's own SQL"),
    ("src/history/past/report.rs", "sql_path(path)", "paths of keys and columns, quoted"),
    ("src/history/past/report.rs", "i", "a number"),
    ("src/history/cosmos/row.rs", "IS_RECORD", "a constant"),
    ("src/history/cosmos/row.rs", "PACKED_COLUMN", "a constant"),
    ("src/history/cosmos/row.rs", "i", "a number"),
    ("src/history/cosmos/row.rs", "keys", "put together from these"),
    ("src/history/cosmos/row.rs", "sql_path(&path)", "paths of keys, quoted"),
    ("src/history/cosmos/live.rs", "keys", "put together from these"),
    ("src/history/cosmos/live.rs", "predicate", "the operator's own SQL"),
    ("src/history/cosmos/reader.rs", "IS_RECORD", "a constant"),
    ("src/history/cosmos/reader.rs", "IS_JOURNAL", "a constant"),
    ("src/history/cosmos/reader.rs", "UNTIL", "a constant"),
    ("src/history/cosmos/reader.rs", "index", "a constant"),
    ("src/history/cosmos/reader.rs", "of_group", "a constant"),
    ("src/frontier/mod.rs", "CAPTURED", "a constant"),
    ("src/status/size.rs", "WEIGHED", "a constant number"),
    ("src/truncate.rs", "sql_path(path)", "paths of keys, quoted"),
    ("src/truncate.rs", "i", "a number"),
];

#[test]
fn values_get_into_sql_as_parameters_only() {
    let mut found = BTreeSet::new();
    // The local account reads SQL; it writes none.
    for (name, lines) in source().into_iter().filter(|(name, _)| !name.starts_with("src/local/")) {
        let text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
        for (at, _) in text.match_indices("format!(") {
            let call = &text[at..];
            let mut depth = 0;
            let end = call.find(|c| {
                depth += i32::from(c == '(') - i32::from(c == ')');
                c == ')' && depth == 0
            });
            let call = &call[..end.unwrap()];
            if ![" FROM c", " WHERE ", "SELECT ", " AS k{", " AS v{"].iter().any(|word| call.contains(word)) {
                continue;
            }
            for hole in call.split('{').skip(1) {
                let hole = hole.split(['}', ':']).next().unwrap();
                let argument = call.rsplit("\", ").next().unwrap();
                found.insert((name.clone(), if hole.is_empty() { argument.to_owned() } else { hole.to_owned() }));
            }
        }
    }
    let allowed = BUILT_SQL.iter().map(|(name, what, _)| ((*name).to_owned(), (*what).to_owned()));
    assert_eq!(found, allowed.collect(), "pass values as parameters, or say here why this is none");
}

#[test]
fn unsafe_code_is_forbidden_and_nothing_in_the_source_panics_on_purpose() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    for lint in ["unsafe_code = \"forbid\"", "unwrap_used = \"warn\""] {
        assert!(manifest.lines().any(|line| line == lint), "{lint}");
    }
    let mut found = Vec::new();
    for (name, lines) in source() {
        for (n, line) in lines {
            for word in [".unwrap()", "panic!(", "unreachable!(", "todo!(", "unimplemented!(", "unsafe "] {
                if line.contains(word) {
                    found.push(format!("{name}:{n}: {}", line.trim()));
                }
            }
        }
    }
    assert_eq!(found, [""; 0], "a recovery tool must not panic: answer with an error");
}

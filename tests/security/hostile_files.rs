//! Hostile files and journals.

use std::{
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    follow::put,
    support::{BINARY, TestApp, files_below},
};

/// Runs a command to its end; returns exit code, output and peak memory in MiB.
fn measured(app: &TestApp, args: &[&str]) -> (i32, String, u64) {
    let mut command = Command::new(BINARY);
    command.args(args).current_dir(app.folder.path()).env_clear().env("RUST_BACKTRACE", "0");
    command.env("CosmosDB", app.local.connection_string()).envs(crate::support::AUTHORITIES);
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

/// The same lines with a correct checksum, which an attacker can compute as well.
pub(super) fn signed(lines: &str) -> String {
    let sum = cosmos_rewind::change::record::hex(&Sha256::digest(lines.as_bytes()));
    format!("{lines}{}\n", json!({"_end": {"steps": lines.lines().count() - 1, "sha256": sum}}))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_give_a_clear_error_use_little_memory_and_write_nothing() {
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

    // A plan that is valid except for its hostile part.
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

    let before: BTreeSet<PathBuf> = files_below(folder);
    let mut complaints = Vec::new();
    let mut cases: Vec<Vec<&str>> = Vec::new();
    for plan in ["deep", "key", "nul", "long", "deep_only", "empty", "up", "root", "nul_id"] {
        cases.push(vec!["restore", "--yes", "--plan", plan]);
    }
    for archive in ["bomb", "deep", "deep_doc", "nul", "empty", "key", "no_gzip", "link", "pipe"] {
        // `load` uses the document's own key.
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
        // Code 3: `load` skips an invalid document and reports it at the end.
        let fine = [1, 2].contains(&code) || (code == 3 && args[0] == "load" && args.len() == 2);
        let clear = said.contains("error: ") && !said.contains("panicked") && said.len() < 5_000;
        if !fine || !clear || memory > 256 {
            let said: String = said.chars().take(500).collect();
            complaints.push(format!("{args:?}: exit {code}, {memory} MiB: {said}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert_eq!(files_below(folder), before, "something was written");
    assert!(!Path::new("/tmp/escaped.jsonl").exists());
    assert!(app.history().await.is_empty());
}

/// The head of a plan in the current format for this app.
pub(super) async fn plan_head(app: &TestApp) -> Value {
    let made = app.run(&["restore", "--all", "--at", "now", "--dry-run", "--plan-out", "good.plan"]).await;
    assert!([0, 3].contains(&made.code), "{made:?}");
    let plan = std::fs::read_to_string(app.folder.path().join("good.plan")).unwrap();
    serde_json::from_str(plan.lines().next().unwrap()).unwrap()
}

/// Whoever can write to the history can write journals. A hostile one must have no effect, and the others must stay
/// usable.
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
    // Endless parts, half of a plan, another restore's plan, invalid lines, and a plan item that is a part.
    write("endless", "plan", json!({"kind": "plan", "head": head, "parts": u32::MAX, "writes": u64::MAX})).await;
    write("torn", "plan", whole.clone()).await;
    write("torn", "part-00000", json!({"kind": "part", "text": &text("torn", step)[..200]})).await;
    write("other", "plan", whole.clone()).await;
    write("other", "part-00000", json!({"kind": "part", "text": text("../../other", step)})).await;
    write("deep", "plan", whole.clone()).await;
    write("deep", "part-00000", json!({"kind": "part", "text": text("deep", &"[".repeat(100_000))})).await;
    write("part", "plan", json!({"kind": "part", "text": 7})).await;
    write("odd", "plan", json!({"kind": "plan", "head": {"id": 7}, "parts": -1, "writes": "many"})).await;
    // Outcomes that never happened.
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
    for command in [
        &["status"][..],
        &["verify"],
        &["coverage"],
        &["find", "--when", "true"],
        &["prune", "--keep-within", "1d", "--dry-run"],
    ] {
        let output = app.run(command).await;
        assert!(!output.stderr.contains("panicked") && output.code != 101, "{command:?}: {output:?}");
    }
}

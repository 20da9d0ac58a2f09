//! The guarantees for scripts: fields and types of the JSON output, exit codes, and the text output.

mod json;
mod world;

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::json;

use self::world::World;
use crate::support::Output;

#[tokio::test]
async fn exit_codes_match_the_documentation() {
    let text = std::fs::read_to_string("docs/reference/exit-codes.md").unwrap();
    let table = text.split("| exit code | meaning |\n|---|---|\n").nth(1).unwrap();
    let documented: BTreeSet<i32> =
        table.lines().map_while(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    let world = World::start().await;
    let good = world.minutes_ago(40);
    let mut seen = BTreeSet::new();
    for (code, args) in [
        (0, vec!["history", "--id", "28036"]),
        (0, vec!["restore", "--id", "28036", "--at", &good, "--dry-run"]),
        (3, vec!["restore", "--all", "--at", &good, "--dry-run"]),
        (0, vec!["find", "--when", "doc.seq == 1"]),
        (0, vec!["find", "--when", "doc.seq == 7"]),
        (3, vec!["find", "--when", "doc.seq == 7", "--id", "28036", "--flips-once"]),
        (2, vec!["find", "--when", "doc.seq =="]),
        (1, vec!["show", "--id", "nobody"]),
        (1, vec!["history", "--id", "28036", "--database", "none"]),
        (2, vec!["restore", "--all"]),
        (2, vec!["restore", "--all", "--at", "noon"]),
        (2, vec!["nonsense"]),
        (2, vec!["restore", "--all", "--at", &good]),
        (3, vec!["restore", "--all", "--at", &good, "--yes"]),
        (3, vec!["restore", "--id", "28036", "--at", "2020-01-01T00:00:00Z", "--pk", "nobody", "--yes"]),
    ] {
        let output = world.run(&args).await;
        assert_eq!(output.code, code, "{args:?}: {output:?}");
        // Errors go to stderr, and a wrong command line names the fix.
        assert!(code == 0 || !output.stderr.is_empty(), "{args:?}: {output:?}");
        assert!(code != 2 || output.stdout.is_empty() || output.stderr.contains("--yes"), "{args:?}: {output:?}");
        seen.insert(code);
    }
    let mut handler = world.app.handler(&[]).await;
    handler.terminate();
    seen.extend(handler.exit_code(std::time::Duration::from_secs(60)).await);
    assert_eq!(seen, documented);
}

/// Exit code, stdout and stderr without values that change between runs: times, restore ids, request units, seconds.
fn shown(world: &World, output: &Output) -> String {
    let mut text = format!("exit {}\n", output.code);
    // The order of documents is not guaranteed, so the rows of a plan are sorted below the headings of their tables.
    let mut lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
    let is_head = |line: &str| line.starts_with("action ") || line.starts_with("outcome ");
    if lines.first().is_some_and(|line| is_head(line)) {
        lines.split_mut(|line| is_head(line)).for_each(<[&str]>::sort_unstable);
    }
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    for line in output.stderr.lines() {
        let _ = writeln!(text, "! {line}");
    }
    let mut text = redacted(&text, "were expected", |c| c.is_ascii_digit() || c == '.');
    text = redacted(&text, "RU", |c| c.is_ascii_digit() || c == '.');
    text = redacted(&text, " s\n", |c| c.is_ascii_digit() || c == '.');
    for minutes in [60, 40, 30, 20, 15, 10] {
        let time = chrono::DateTime::from_timestamp(world.now - minutes * 60, 0).unwrap();
        text = text.replace(&time.format("%Y-%m-%dT%H:%M:%SZ").to_string(), &format!("<{minutes} minutes ago>"));
    }
    // Times of the current run.
    for mark in ["the live document, written at ", "the history is complete up to 2"] {
        if let Some((before, after)) = text.split_once(mark) {
            let (mark, length) = mark.strip_suffix('2').map_or((mark, 20), |mark| (mark, 19));
            text = format!("{before}{mark}<now>{}", &after[length..]);
        }
    }
    text
}

/// Replaces the number before each `unit`.
fn redacted(text: &str, unit: &str, is_number: impl Fn(char) -> bool) -> String {
    let mut parts = text.split(unit).map(str::to_owned).collect::<Vec<_>>();
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        let trimmed = part.trim_end_matches(' ');
        let kept = trimmed.trim_end_matches(&is_number);
        if kept.len() < trimmed.len() {
            *part = format!("{kept}<n>{}", &part[trimmed.len()..]);
        }
    }
    parts.join(unit)
}

/// Replaces the id of a restore, which consists of the time and a random part.
fn without_id(text: &str) -> String {
    let Some(start) = text.find("cosmos-rewind undo ") else { return text.to_owned() };
    let id: String = text[start + 19..].chars().take_while(|c| !c.is_whitespace()).collect();
    text.replace(&id, "<id>")
}

#[tokio::test]
async fn text_output_shows_the_plan_the_conflicts_the_history_and_the_differences() {
    let world = World::start().await;
    let good = world.minutes_ago(40);
    let see = async |args: &[&str]| without_id(&shown(&world, &world.run(args).await));

    insta::assert_snapshot!(see(&["history", "--id", "28036"]).await, @r#"
    exit 0
    time                  op       lsn  size  changed                  fidelity
    <60 minutes ago>  create   1    78                             exact
    <30 minutes ago>  replace  2    70    city_name, +zone, -note  exact
    <20 minutes ago>  delete   3                                   exact
    <10 minutes ago>  create   4    56                             exact
    ! 4 versions, <n> RU, <n> s
    "#);
    insta::assert_snapshot!(see(&["diff", "--id", "28036", "--from", &good, "--to", "live"]).await, @r#"
    exit 0
    ~ /city_name  "Davidson" -> "Ruined"
    - /note       "gone later"
    ! from: version of <60 minutes ago> (create, via trigger, exact), 20m before <40 minutes ago>
    ! to: the live document, written at <now>
    ! 2 differences, <n> RU, <n> s
    "#);
    let all = ["restore", "--all", "--delete-newer=9", "--at", &good];
    insta::assert_snapshot!(see(&[&all[..], &["--dry-run"]].concat()).await, @r#"
    exit 3
    action    id        pk        version                                   changed                          notes
    delete    28035     28035
    recreate  28031     28031     <60 minutes ago> create, via trigger                                   20m before the point in time
    restore   28036     28036     <60 minutes ago> create, via trigger  /city_name, /note, /restored_at  20m before the point in time
    unknown   hand      hand      <60 minutes ago> upsert                                                is gone, and its delete was not captured: it may have been deleted before the point in time; --recreate-deleted restores it anyway
    unknown   stranger  stranger                                                                             no version in the history
    ! plan       events to <40 minutes ago>: 1 restore, 1 recreate, 1 delete, 0 keep, 2 unknown; about <n> RU
    ! frontier   the history is complete up to now
    ! planned, nothing written, <n> RU, <n> s
    "#);

    let plan = world.app.folder.path().join("plan");
    let plan = plan.to_str().unwrap();
    let saved = world.run(&[&all[..], &["--dry-run", "--plan-out", plan]].concat()).await;
    assert_eq!(saved.code, 3, "{saved:?}");
    world.app.put(json!({"id": "28036", "pk": "28036", "city_name": "Moved on"})).await;
    world.app.put(json!({"id": "28031", "pk": "28031", "city_name": "Made again"})).await;
    insta::assert_snapshot!(see(&["restore", "--plan", plan, "--yes"]).await, @r#"
    exit 3
    action    id        pk        version                                   changed                          notes
    delete    28035     28035
    recreate  28031     28031     <60 minutes ago> create, via trigger                                   20m before the point in time
    restore   28036     28036     <60 minutes ago> create, via trigger  /city_name, /note, /restored_at  20m before the point in time
    unknown   hand      hand      <60 minutes ago> upsert                                                is gone, and its delete was not captured: it may have been deleted before the point in time; --recreate-deleted restores it anyway
    unknown   stranger  stranger                                                                             no version in the history
    outcome   id     pk     action    message
    conflict  28031  28031  recreate  was created since the plan was made
    conflict  28036  28036  restore   was changed since the plan was made
    ! plan       events to <40 minutes ago>: 1 restore, 1 recreate, 1 delete, 0 keep, 2 unknown; about <n> RU
    ! frontier   the history is complete up to now
    ! applied    <n> RU, <n> were expected
    ! 1 written, 0 already up to date, 2 conflicts, 0 failed, 0 not begun, 2 unknown, <n> RU, <n> s
    ! undo       cosmos-rewind undo <id>   (journal .cosmos-rewind/<id>.jsonl)
    "#);
    insta::assert_snapshot!(see(&["restore", "--id", "28035", "--at", &good, "--yes"]).await, @r#"
    exit 0
    action  id     pk     version  changed  notes
    keep    28035  28035
    ! plan       events to <40 minutes ago>: 0 restore, 0 recreate, 0 delete, 1 keep, 0 unknown; about <n> RU
    ! frontier   the history is complete up to <now>
    ! nothing to write, <n> RU, <n> s
    "#);
}

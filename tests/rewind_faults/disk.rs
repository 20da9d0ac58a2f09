//! A full disk: under the journal, under a saved plan, or under the printed outcomes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Damage, fates, report};
use crate::support::files_below;

/// A shell line that limits files to this many blocks of 512 bytes. A write beyond the limit fails without a signal.
fn limited(blocks: u64) -> String {
    format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"")
}

/// The restore's id, from the line that says how to undo it.
fn undo_in(stderr: &str) -> &str {
    let line = stderr.lines().find(|line| line.starts_with("undo ")).unwrap_or_else(|| panic!("{stderr}"));
    line.split_whitespace().nth(3).unwrap()
}

#[tokio::test]
async fn a_restore_that_fills_the_disk_reports_its_writes_and_can_be_undone_from_anywhere() {
    let damage = Damage::done(4).await;
    let planned = damage.app.run(&damage.args(&["--dry-run", "--plan-out", "all.plan"])).await;
    assert!(planned.code == 0, "{planned:?}");
    let size = std::fs::metadata(damage.app.folder.path().join("all.plan")).unwrap().len();
    // There is space for the plan and for some of the lines that follow, cut at any byte.
    for blocks in size / 512 + 1..size / 512 + 8 {
        let args = damage.args(&["--yes", "--concurrency", "1", "--journal", "full"]);
        let restored = damage.app.run_by_shell(&limited(blocks), &args).await;
        assert_eq!(restored.code, 3, "{restored:?}");
        assert!(restored.stderr.contains("the journal could not be written"), "{restored:?}");
        let live = damage.live().await;
        let changed = damage.good.keys().chain(damage.before.keys()).collect::<BTreeSet<_>>();
        let changed = changed.into_iter().filter(|id| live.get(*id) != damage.before.get(*id)).count();
        let told = report(&restored);
        let expected = if changed > 0 { BTreeMap::from([("done", changed)]) } else { BTreeMap::new() };
        assert_eq!(fates(&told), expected, "{blocks}: {restored:?}");
        assert!(restored.stderr.contains(&format!("{changed} written")), "{restored:?}");
        if changed > 0 {
            // A machine without the local journal only has the history.
            let id = undo_in(&restored.stderr);
            assert_eq!(told["restore"], id);
            let listed = damage.app.run(&["undo", "--list", "--format", "json"]).await.json();
            let own = listed.as_array().unwrap().iter().find(|one| one["restore"] == id).unwrap();
            assert_eq!(own["written"], changed, "{own}");
            let undone = damage.app.run(&["undo", id, "--yes", "--journal", "elsewhere"]).await;
            assert_eq!(undone.code, 0, "{undone:?}");
            assert_eq!(damage.live().await, damage.before);
        }
    }
}

/// The output goes to a device that is always full.
#[tokio::test]
#[cfg(target_os = "linux")]
async fn output_to_a_full_device_fails_with_a_hint_about_space() {
    let damage = Damage::done(1).await;
    let find = ["find", "--when", "doc.id != ''", "--format", "jsonl"];
    let follow = ["follow", "--from", "beginning", "--until-caught-up", "--name", "full", "--sink", "stdout"];
    for args in [&find[..], &follow] {
        let ended = damage.app.run_by_shell("exec \"$@\" > /dev/full", args).await;
        assert!(ended.code == 1 && ended.stderr.contains("make room"), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_plan_that_does_not_fit_on_the_disk_leaves_no_file() {
    let damage = Damage::done(4).await;
    let args = damage.args(&["--dry-run", "--plan-out", "all.plan"]);
    let before = files_below(damage.app.folder.path());
    // No space even for the temporary file.
    let planned = damage.app.run_by_shell(&limited(1), &args).await;
    assert!(planned.code == 1 && planned.stderr.contains("make room"), "{planned:?}");
    assert_eq!(files_below(damage.app.folder.path()), before);
    assert_eq!(damage.app.run(&args).await.code, 0);
}

#[tokio::test]
async fn a_backup_that_does_not_fit_on_the_disk_says_what_to_do() {
    let damage = Damage::done(4).await;
    for (blocks, named) in [(0, "--out all.jsonl"), (1, "all.jsonl")] {
        let args = ["backup", "--all", "--out", "all.jsonl"];
        let written = damage.app.run_by_shell(&limited(blocks), &args).await;
        assert!(written.code == 1 && written.stderr.contains("make room"), "{written:?}");
        assert!(written.stderr.contains(named), "{written:?}");
    }
    let args = ["backup", "--all", "--out", "all.jsonl", "--format", "json"];
    let written = damage.app.run(&args).await.json();
    assert_eq!(written["documents"], damage.live().await.len());
}

#[tokio::test]
async fn unprintable_outcomes_do_not_hide_the_undo_command() {
    for (line, code) in [("exec \"$@\" >/dev/full", 1), ("\"$@\" | true", 0)] {
        let damage = Damage::done(1).await;
        let restored = damage.app.run_by_shell(line, &damage.args(&["--yes"])).await;
        assert_eq!(restored.code, code, "{restored:?}");
        assert!(restored.stderr.contains("3 written"), "{restored:?}");
        assert_eq!(damage.live().await, damage.good);
        let undone = damage.app.run(&["undo", undo_in(&restored.stderr), "--yes"]).await;
        assert_eq!(undone.code, 0, "{undone:?}");
        assert_eq!(damage.live().await, damage.before);
    }
}

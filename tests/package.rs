//! The deployment package, unpacked into an empty folder and started there like the host starts it.
//! `scripts/package.sh` builds it; without it these tests report that they are skipped.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{BINARY, Local, eventually, peers, zip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn package() -> Option<PathBuf> {
    let path = Path::new(ROOT).join("target/package/cosmos-rewind-x86_64-unknown-linux-musl.zip");
    let here = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    if here && path.is_file() {
        return Some(path);
    }
    peers::absent("there is no package; scripts/package.sh --profile dev builds it");
    None
}

/// Unpacks the package into an empty folder.
fn unpacked() -> Option<tempfile::TempDir> {
    let folder = tempfile::tempdir().unwrap();
    zip::unpack(&zip::read(&package()?), folder.path());
    Some(folder)
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn in_repository(path: &str) -> Value {
    json_of(&std::fs::read(Path::new(ROOT).join(path)).unwrap())
}

/// The repository's folders that contain functions.
fn functions() -> Vec<String> {
    let entries = std::fs::read_dir(ROOT).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("function.json").is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Whether an ELF program requires a dynamic loader (a program header of type PT_INTERP).
fn asks_for_a_loader(program: &[u8]) -> bool {
    assert_eq!(&program[..6], b"\x7fELF\x02\x01", "64 bit, little-endian");
    let number = |at: usize, size: usize| {
        program[at..at + size].iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|i| number(table + i * size, 4) == 3)
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    memchr::memmem::find(haystack, needle.as_bytes()).is_some()
}

/// Runs scripts/package.sh with an existing binary instead of a build.
fn pack(binary: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("bash");
    command.arg(Path::new(ROOT).join("scripts/package.sh")).arg("--binary").arg(binary).args(args);
    // The timestamp is part of the package's bytes.
    command.env("SOURCE_DATE_EPOCH", "1700000000").stdin(Stdio::null()).output().unwrap()
}

#[test]
fn the_package_has_exactly_the_files_that_the_host_needs() {
    let Some(package) = package() else { return };
    let entries = zip::read(&package);
    let mut expected = vec![("cosmos-rewind".to_owned(), 0o755), ("host.json".to_owned(), 0o644)];
    expected.extend(functions().into_iter().map(|name| (format!("{name}/function.json"), 0o644)));
    // Sorted, so that two builds have the same order.
    expected.sort();
    let found: Vec<(String, u32)> =
        entries.iter().map(|e| (e.name.clone(), e.unix_mode.expect("Unix modes") & 0o7777)).collect();
    assert_eq!(found, expected, "build the package again: scripts/package.sh");
    assert!(entries.iter().all(|entry| entry.time == entries[0].time), "all entries have the same time");

    let content = |name: &str| &entries.iter().find(|e| e.name == name).unwrap().content;
    // Only the path of the executable differs from the repository's file.
    let mut host = in_repository("host.json");
    host["customHandler"]["description"]["defaultExecutablePath"] = "cosmos-rewind".into();
    assert_eq!(json_of(content("host.json")), host);
    for name in functions() {
        let path = format!("{name}/function.json");
        assert_eq!(json_of(content(&path)), in_repository(&path));
    }
}

#[test]
fn the_program_is_static_and_does_not_reveal_where_it_was_built() {
    let Some(folder) = unpacked() else { return };
    let path = folder.path().join("cosmos-rewind");
    let program = std::fs::read(&path).unwrap();
    assert!(!asks_for_a_loader(&program));
    assert!(!contains(&program, ROOT), "it contains a path of the build");
    if let Some(home) = std::env::var_os("CARGO_HOME").or_else(|| std::env::var_os("HOME")) {
        let registry = format!("{}/.cargo/registry", home.to_str().unwrap().trim_end_matches("/.cargo"));
        assert!(!contains(&program, &registry), "it contains a path of the build");
    }
    // It runs in an empty environment, and does not include the local account.
    let run = |args: &[&str]| Command::new(&path).args(args).env_clear().current_dir("/").output().unwrap();
    let version = run(&["--version"]);
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("cosmos-rewind {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(run(&["local"]).status.code(), Some(2));
    // The check detects a dynamic binary, such as the one under test.
    assert!(asks_for_a_loader(&std::fs::read(BINARY).unwrap()));
}

#[tokio::test]
async fn the_package_captures_from_an_empty_folder_with_an_empty_path() {
    let Some(folder) = unpacked() else { return };
    let (program, mode) = {
        let host = json_of(&std::fs::read(folder.path().join("host.json")).unwrap());
        let path = folder.path().join(host["customHandler"]["description"]["defaultExecutablePath"].as_str().unwrap());
        (path.canonicalize().unwrap(), path.metadata().unwrap().permissions().mode())
    };
    assert_eq!(mode & 0o111, 0o111);
    let mut local = Local::start_alone(folder, &["--handler", program.to_str().unwrap()]).await;
    // The handler is the packaged one, not the one from this build.
    let handler = local.children();
    assert_eq!(handler.len(), 1, "{handler:?}");
    assert_eq!(std::fs::read_link(format!("/proc/{}/exe", handler[0])).unwrap(), program);
    let environment = std::fs::read(format!("/proc/{}/environ", handler[0])).unwrap();
    assert!(contains(&environment, "PATH=\0") && !contains(&environment, "LD_LIBRARY_PATH"));

    let done = local.run(&["populate", "--count", "20", "--seed", "3"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let live = local.count("events").await;
    assert!(live > 0);
    local.wait_for_count("changes", live).await;
    let verified = local.run(&["verify"]).await;
    assert_eq!(verified.code, 0, "{verified:?}");

    let program = local.folder().join("cosmos-rewind");
    assert!(program.is_file());
    local.terminate();
    assert!(local.ended().await.success());
    eventually("the handler is gone", async || (!crate::support::is_running(handler[0])).then_some(())).await;
}

#[tokio::test]
async fn the_all_versions_package_captures_deletes() {
    let Some(folder) = unpacked() else { return };
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("all.zip");
    let again = out.path().join("again.zip");
    let binary = folder.path().join("cosmos-rewind");
    for path in [&file, &again] {
        let packed = pack(&binary, &["--mode", "all-versions", "--out", path.to_str().unwrap()]);
        assert!(packed.status.success(), "{packed:?}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), std::fs::read(&again).unwrap(), "the same bytes");

    let entries = zip::read(&file);
    let content = |name: &str| json_of(&entries.iter().find(|e| e.name == name).unwrap().content);
    let host = content("host.json");
    assert_eq!(host["extensionBundle"]["id"], "Microsoft.Azure.Functions.ExtensionBundle");
    assert_eq!(host["extensions"]["cosmosDB"]["serializerSettings"]["dateParseHandling"], "None");
    let binding = &content("CaptureChanges/function.json")["bindings"][0];
    assert_eq!(binding["changeFeedMode"], "AllVersionsAndDeletes");
    assert_eq!(binding.get("startFromBeginning"), None);
    assert_eq!(binding["leaseContainerPrefix"], "CaptureChanges-all-versions");
    assert_eq!(content("CaptureChanges/function.json")["retry"]["maxRetryCount"], -1);

    let app = tempfile::tempdir().unwrap();
    zip::unpack(&entries, app.path());
    let program = app.path().join("cosmos-rewind");
    let local = Local::start_alone(app, &["--handler", program.to_str().unwrap()]).await;
    let done = local.run(&["populate", "--count", "5", "--seed", "1"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    let done = local.run(&["truncate", "source", "--yes"]).await;
    assert_eq!(done.code, 0, "{done:?}");
    eventually("a delete is in the history", async || {
        let deletes = "SELECT c.id FROM c WHERE c._change.op = 'delete'";
        let found = local.run(&["query", "--in", "changes", "--count", "--format", "json", deletes]).await;
        (found.json()["count"].as_u64().unwrap() > 0).then_some(())
    })
    .await;
}

#[test]
fn a_binary_that_is_not_static_is_refused() {
    if package().is_none() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let packed = pack(Path::new(BINARY), &["--out", out.path().join("a.zip").to_str().unwrap()]);
    assert!(!packed.status.success());
    assert!(String::from_utf8_lossy(&packed.stderr).contains("is not static"), "{packed:?}");
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "no files are left behind");
}

/// All memory operations of the package go through these functions, so all short lengths and alignments are tested.
#[cfg(target_arch = "x86_64")]
#[test]
fn memory_functions_match_a_byte_by_byte_implementation() {
    let folder = tempfile::tempdir().unwrap();
    let ran = |program: &mut Command| {
        let output = program.current_dir(folder.path()).output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program:?}\n{text}");
        text
    };
    // Renamed, because the check itself is linked with the C library.
    let renamed = ["memcpy", "memmove", "memcmp", "bcmp"].map(|name| format!("-D{name}=own_{name}"));
    let source = |name: &str| Path::new(ROOT).join("native").join(name);
    let flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-c"];
    ran(Command::new("cc").args(flags).args(&renamed).arg(source("memory.c")));
    ran(Command::new("cc").args(["-O1", "-o", "check", "memory.o"]).arg(source("memory_test.c")));
    let said = ran(&mut Command::new(folder.path().join("check")));
    assert_eq!(said, "16927 checks\n");
}

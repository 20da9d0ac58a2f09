//! Licences, bans and sources of all dependencies against the lists of deny.toml. `cargo deny` checks more (licence
//! texts, advisories) but takes minutes to install; this runs wherever the tests run.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    // Offline works: the tests were just built from these packages.
    command.args(["metadata", "--format-version", "1", "--locked", "--offline", "--all-features"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    // Packages for other platforms are listed as well and may not have been fetched.
    let output = if output.status.success() {
        output
    } else {
        let mut command = Command::new(env!("CARGO"));
        command.args(["metadata", "--format-version", "1", "--locked", "--all-features"]);
        command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap()
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// The strings in `name = [ ... ]` of deny.toml.
fn list(name: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deny.toml")).unwrap();
    let start = text.find(&format!("\n{name} = [")).unwrap_or_else(|| panic!("deny.toml has no {name}"));
    let body = &text[start + name.len() + 5..];
    let body = &body[..body.find(']').unwrap()];
    let lines = body.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| line.split('"').skip(1).step_by(2).map(str::to_owned)).collect()
}

/// Whether an SPDX expression can be satisfied by the allowed licences. `/` is an old notation for OR.
fn allowed(expression: &str, licences: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let result = any(&words, &mut at, licences);
    assert_eq!(at, words.len(), "{expression}");
    result
}

fn any(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut result = all(words, at, licences);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        result |= all(words, at, licences);
    }
    result
}

fn all(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut result = one(words, at, licences);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        result &= one(words, at, licences);
    }
    result
}

fn one(words: &[&str], at: &mut usize, licences: &BTreeSet<String>) -> bool {
    let mut name = words[*at].to_owned();
    *at += 1;
    if name == "(" {
        let result = any(words, at, licences);
        assert_eq!(words[*at], ")");
        *at += 1;
        return result;
    }
    if words.get(*at) == Some(&"WITH") {
        name = format!("{name} WITH {}", words[*at + 1]);
        *at += 2;
    }
    licences.contains(&name)
}

#[test]
fn every_dependency_has_an_allowed_licence() {
    let licences = list("allow");
    assert!(licences.contains("MIT") && licences.len() > 3, "{licences:?}");
    let all = packages();
    assert!(all.len() > 100);
    let refused: Vec<String> = all
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|expression| allowed(expression, &licences)))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert_eq!(refused, Vec::<String>::new());
}

#[test]
fn licence_expressions_are_evaluated() {
    let licences: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(String::from).into();
    for good in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(allowed(good, &licences), "{good}");
    }
    for bad in
        ["GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR ISC) AND GPL-3.0", "Apache-2.0", "GPL-3.0 AND MIT OR GPL-2.0"]
    {
        assert!(!allowed(bad, &licences), "{bad}");
    }
}

#[test]
fn no_openssl_and_nothing_from_elsewhere() {
    let banned = list("deny");
    assert!(banned.contains("openssl") && banned.contains("native-tls"), "{banned:?}");
    let registry = list("allow-registry").into_iter().next().unwrap();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        assert!(!banned.contains(name), "{name} is banned");
        match package["source"].as_str() {
            Some(source) => assert_eq!(source, format!("registry+{registry}"), "{name}"),
            None => assert_eq!(name, env!("CARGO_PKG_NAME")),
        }
    }
}

/// The packages that the product is built with on this machine, each with its features.
fn built(edges: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p} {f}", "--edges", edges]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// A feature that only the tests turn on builds the library, all that stands on it, and this program a second time.
#[test]
fn the_tests_use_the_libraries_that_the_program_was_built_with() {
    let program = built("normal,no-proc-macro");
    let tests = built("normal,dev,no-proc-macro");
    assert!(program.len() > 100 && tests.len() > program.len(), "{} and {}", program.len(), tests.len());
    let only_the_programs: Vec<&String> = program.difference(&tests).collect();
    assert!(
        only_the_programs.is_empty(),
        "turn these features on in Cargo.toml, as for zerocopy: {only_the_programs:?}"
    );
}

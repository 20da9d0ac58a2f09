//! Forbidden in the source: building SQL from values, intentional panics, unsafe code.

use std::{collections::BTreeSet, path::Path};

use crate::support::files_of_kind;

/// The product's source without unit tests: each file's path and its numbered lines.
fn source() -> Vec<(String, Vec<(usize, String)>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = files_of_kind(root.join("src"), "rs");
    let code = |text: String| {
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]") && *line != "#![cfg(test)]");
        let lines = lines.enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        lines.map(|(n, line)| (n + 1, line.to_owned())).collect()
    };
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    files.map(|path| (name(&path), code(std::fs::read_to_string(path).unwrap()))).collect()
}

/// Everything that is inserted into SQL text, and why no value of a document or user gets in that way.
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
    ("src/history/cosmos/reader.rs", "WITHIN", "a constant"),
    ("src/history/cosmos/reader.rs", "index", "a constant"),
    ("src/history/cosmos/reader.rs", "of_group", "a constant"),
    ("src/frontier/mod.rs", "CAPTURED", "a constant"),
    ("src/frontier/mod.rs", "OF_EVERY_VERSION", "a constant"),
    ("src/frontier/passed_over.rs", "CAPTURED", "a constant"),
    ("src/frontier/passed_over.rs", "OF_EVERY_VERSION", "a constant"),
    ("src/status/size.rs", "WEIGHED", "a constant number"),
    ("src/truncate.rs", "sql_path(path)", "paths of keys, quoted"),
    ("src/truncate.rs", "i", "a number"),
];

#[test]
fn values_get_into_sql_only_as_parameters() {
    let mut found = BTreeSet::new();
    // The local account parses SQL and writes none.
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
    assert_eq!(found, allowed.collect(), "pass values as parameters, or list here why this is not one");
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

//! The layers of docs/architecture.md hold: a module imports only from the lines above its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The lines of the list, from the bottom.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string("docs/architecture.md").unwrap();
    let list = text.split("```layers\n").nth(1).expect("docs/architecture.md has the list of layers");
    let lines = list.split("```").next().unwrap().lines().enumerate();
    lines.flat_map(|(line, names)| names.split_whitespace().map(move |name| (name.to_owned(), line))).collect()
}

/// Every source file, with its module.
fn files() -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside = path.strip_prefix("src").unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                files.push((first.trim_end_matches(".rs").to_owned(), path));
            }
        }
    }
    files.retain(|(module, _)| module != "lib" && module != "main");
    files
}

/// The code of a file without its comments and its unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//")).map(|line| line.to_owned() + "\n").collect()
}

/// The modules that a file names: `crate::x::...`, and `use crate::{x::..., y}`.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0_usize;
        let mut is_first = true;
        for (place, c) in group.char_indices() {
            if is_first && depth == 0 && !c.is_whitespace() && c != '}' {
                names.insert(word(&group[place..]));
                is_first = false;
            }
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => is_first = true,
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn every_module_imports_only_from_the_layers_below_its_own() {
    let layers = layers();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for (module, path) in files() {
        let Some(own) = layers.get(&module) else { panic!("docs/architecture.md has no layer for {module}") };
        for name in named(&code(&path)) {
            let below = layers.get(&name).is_some_and(|layer| layer < own);
            if name != module && !below {
                wrong.push(format!("{}: {module} -> {name}", path.display()));
            }
        }
        seen.insert(module);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let named: BTreeSet<String> = layers.into_keys().collect();
    assert_eq!(named, seen, "the list and the source");
}

#[test]
fn imports_are_found_in_groups_and_by_themselves() {
    let code = "use crate::{\n    change::{Op, key::ItemKey},\n    cosmos,\n};\nfn f() { crate::history::g() }\n";
    assert_eq!(named(code), ["change", "cosmos", "history"].map(String::from).into());
}

/// The pure plan: no account, no archive, no web server.
#[test]
fn the_plan_of_a_restore_is_pure() {
    let names = named(&code(Path::new("src/restore/plan.rs")));
    let allowed = ["change", "history"].map(String::from).into();
    assert!(names.is_subset(&allowed), "{names:?}");
    for file in ["src/restore/plan.rs", "src/history/timeline.rs", "src/history/as_of.rs", "src/history/frontier.rs"] {
        let code = code(Path::new(file));
        for foreign in ["azure_", "axum", "reqwest", "tokio", "async "] {
            assert!(!code.contains(foreign), "{file}: {foreign}");
        }
    }
}

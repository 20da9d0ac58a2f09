//! Checks the layers of docs/architecture.md: a module only imports from the lines above its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::support::files_of_kind;

/// The lines of the list, from bottom to top.
fn layers() -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string("docs/architecture.md").unwrap();
    let list = text.split("```layers\n").nth(1).expect("docs/architecture.md contains the list of layers");
    let lines = list.split("```").next().unwrap().lines().enumerate();
    lines.flat_map(|(line, names)| names.split_whitespace().map(move |name| (name.to_owned(), line))).collect()
}

/// Every source file with its module.
fn files() -> Vec<(String, PathBuf)> {
    let module = |path: PathBuf| {
        let inside = path.strip_prefix("src").unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        (first.trim_end_matches(".rs").to_owned(), path)
    };
    let mut files: Vec<_> = files_of_kind("src", "rs").map(module).collect();
    files.retain(|(module, _)| module != "lib" && module != "main");
    files
}

/// A file's code without comments and unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
    lines.filter(|line| !line.trim_start().starts_with("//")).map(|line| line.to_owned() + "\n").collect()
}

/// The modules that some code refers to: `crate::x::...`, and `use crate::{x::..., y}`.
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

/// Planning is pure: no account, no archive, no web server.
#[test]
fn the_plan_of_a_restore_is_pure() {
    let of_plan = ["src/restore/plan.rs", "src/restore/step.rs"];
    let allowed = ["change", "history"].map(String::from).into();
    for file in of_plan {
        let names = named(&code(Path::new(file)));
        assert!(names.is_subset(&allowed), "{file}: {names:?}");
    }
    let others = ["src/history/timeline.rs", "src/history/as_of.rs", "src/history/frontier.rs"];
    for file in of_plan.into_iter().chain(others) {
        let code = code(Path::new(file));
        for foreign in ["azure_", "axum", "reqwest", "tokio", "async "] {
            assert!(!code.contains(foreign), "{file}: {foreign}");
        }
    }
}

/// Functions that may return a text as their error, with the reason. They are parsers: their input is text from a user
/// or a file, and the error is only shown, never matched on. Functions named `parse…` or `from_str` are exempt.
const PARSERS: [(&str, &[&str], &str); 7] = [
    ("src/change/edit.rs", &["set", "set_in", "remove"], "scan the text of a JSON object"),
    ("src/cli/connection.rs", &["ru_limit", "container"], "flags' values"),
    ("src/cli/cost.rs", &["share", "factor", "price", "number_in"], "flags' values"),
    ("src/cli/follow_args.rs", &["name"], "a flag's value"),
    ("src/cli/retention_args.rs", &["age"], "a flag's value"),
    ("src/cli/verify.rs", &["span"], "a flag's value"),
    ("src/restore/step.rs", &["item"], "the key of a plan's line"),
];

/// The functions in some code whose `Result` has a text as its error.
fn text_errors(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("Result<") {
        let inside = &code[at + found.len()..];
        let mut depth = 0_usize;
        let mut arguments = vec![String::new()];
        for (place, c) in inside.char_indices() {
            match c {
                // The arrow of a function type does not close a bracket.
                '>' if inside[..place].ends_with('-') => {}
                '>' if depth == 0 => break,
                '<' | '(' | '[' => depth += 1,
                '>' | ')' | ']' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    arguments.push(String::new());
                    continue;
                }
                _ => {}
            }
            arguments.last_mut().unwrap().push(c);
        }
        // An argument list over several lines ends with a comma.
        arguments.retain(|argument| !argument.trim().is_empty());
        if arguments.len() == 2 && arguments[1].trim() == "String" {
            let function = code[..at].rfind("fn ").map_or("", |f| &code[f + 3..]);
            names.insert(word(function));
        }
    }
    names
}

/// The embedded account is exempt: like the service's errors, its errors are the text of the response.
#[test]
fn an_error_has_a_type_wherever_a_decision_may_depend_on_it() {
    let mut left: BTreeSet<(String, String)> = BTreeSet::new();
    for (file, names, _) in PARSERS {
        left.extend(names.iter().map(|name| (file.to_owned(), (*name).to_owned())));
    }
    let mut wrong = Vec::new();
    for (module, path) in files() {
        if module == "local" {
            continue;
        }
        let path = path.display().to_string();
        for name in text_errors(&code(Path::new(&path))) {
            let is_parser =
                name.starts_with("parse") || name == "from_str" || left.remove(&(path.clone(), name.clone()));
            if !is_parser {
                wrong.push(format!("{path}: {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "Result<_, String>: give the error a type, or list it as a parser: {wrong:#?}");
    assert!(left.is_empty(), "not parsers any more, remove them from the list: {left:#?}");
}

#[test]
fn nothing_is_decided_by_the_text_of_a_message() {
    let words = ["contains(", "starts_with(", "ends_with(", "strip_prefix(", "eq(", "as_str() ==", "find("];
    let texts = ["message", "problem", "reason", "hint", "to_string()"];
    let mut wrong = Vec::new();
    for (_, path) in files() {
        // This code shortens the service's message for display, and does not decide anything by it.
        let is_shown = path.ends_with("cosmos/failure.rs");
        for (number, line) in code(&path).lines().enumerate() {
            let asks = texts.iter().any(|text| words.iter().any(|word| line.contains(&format!("{text}.{word}"))));
            if asks && !is_shown {
                wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn functions_with_a_text_error_are_found() {
    let code = "fn a() -> Result<String, io::Error> {}\nfn b(f: impl Fn(u8) -> Result<(A, String), String>) {}\n\
                fn c() -> Result<\n    Vec<Result<A, B>>,\n    String,\n> {}\nfn d() -> io::Result<String> {}\n";
    assert_eq!(text_errors(code), ["b", "c"].map(String::from).into());
}

/// Every maintained Rust file with its text.
fn sources() -> Vec<(String, String)> {
    let paths = ["src", "tests", "benches", "examples"].into_iter().flat_map(|folder| files_of_kind(folder, "rs"));
    paths.map(|path| (path.display().to_string(), std::fs::read_to_string(&path).unwrap())).collect()
}

/// A longer file usually covers more than one topic.
const MOST_LINES: usize = 400;

/// Whether a file is too long and its first comment does not justify that.
fn is_grab_bag(text: &str) -> bool {
    let first: String = text.lines().map_while(|line| line.strip_prefix("//!")).collect();
    let sentences = first.split(". ").map(str::trim_start);
    text.lines().count() > MOST_LINES && !sentences.into_iter().any(|sentence| sentence.starts_with("One file because"))
}

#[test]
fn a_file_covers_one_topic_or_says_why_it_is_in_one_piece() {
    let long: BTreeSet<String> =
        sources().into_iter().filter(|(_, text)| is_grab_bag(text)).map(|(path, _)| path).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines, split by topic: {long:#?}");

    let long = format!("//! About it. One file because\n//! it is a table.\n{}", "x\n".repeat(MOST_LINES));
    assert!(!is_grab_bag(&long) && is_grab_bag(&long.replace("One file because", "One file, as")));
    assert!(is_grab_bag(
        &long.replace("//! it is", "\n//! it is").replace("One file because\n", "\n// One file because")
    ));
    assert!(!is_grab_bag("x\n"));
}

/// Returns what a file's code prints with, or how it accesses the process's streams.
fn printing(code: &str) -> Option<&'static str> {
    let ways = ["println!(", "print!(", "dbg!(", "io::stdout()", "io::stderr()"];
    // Asking whether a stream is a terminal does not write to it.
    let code = code.replace("io::stdout().is_terminal()", "").replace("io::stderr().is_terminal()", "");
    ways.into_iter().find(|way| code.contains(way))
}

#[test]
fn commands_print_only_through_the_ui() {
    let prints = |path: &PathBuf| {
        let code = code(path);
        !code.contains("#![cfg(test)]") && printing(&code).is_some()
    };
    let found: Vec<PathBuf> = files().into_iter().map(|(_, path)| path).filter(prints).collect();
    assert_eq!(found, [Path::new("src/console/ui.rs")]);
}

/// A test that cannot set the time of what it calls cannot prove what happens at a moment.
#[test]
fn the_time_is_asked_of_a_clock_alone() {
    let asks =
        |path: &PathBuf| ["Utc::now", "Local::now", "SystemTime::now"].iter().any(|now| code(path).contains(now));
    let found: Vec<PathBuf> = files().into_iter().map(|(_, path)| path).filter(asks).collect();
    assert_eq!(found, [Path::new("src/clock.rs")]);
}

#[test]
fn printing_is_found() {
    assert_eq!(printing("    eprintln!(\"x\");"), Some("println!("));
    assert_eq!(printing("let out = std::io::stdout().lock();"), Some("io::stdout()"));
    assert_eq!(printing("if std::io::stdout().is_terminal() {}"), None);
}

/// A longer command does more than turn flags into a request and a report into lines.
const MOST_OF_A_COMMAND: usize = 150;

#[test]
fn a_command_only_asks_and_renders() {
    let commands: Vec<(String, usize)> = sources()
        .into_iter()
        .filter(|(path, text)| {
            path.starts_with("src/cli/") && ["fn run(args: ", "fn run(mut args: "].iter().any(|run| text.contains(run))
        })
        .map(|(path, text)| (path, text.lines().count()))
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    let long: Vec<_> = commands.iter().filter(|(_, lines)| *lines > MOST_OF_A_COMMAND).collect();
    assert!(long.is_empty(), "move use cases into the library, and output into console/render: {long:?}");
}

/// The line numbers of glob imports from the parent module, outside of unit tests.
fn imports_of_all(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut is_test = false;
    let mut place = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        match line.trim_end() {
            "mod tests {" => is_test = true,
            "}" => is_test = false,
            _ => {}
        }
        let indent = line.len() - line.trim_start().len();
        if !is_test && line.trim_start().starts_with("use super::") {
            let tree = &text[place + indent + "use super::".len()..];
            let mut depth = 0_usize;
            let mut is_first = true;
            for c in tree.chars().take_while(|c| *c != ';') {
                match c {
                    '{' => depth += 1,
                    '}' => depth = depth.saturating_sub(1),
                    '*' if is_first && depth <= 1 => lines.push(number + 1),
                    _ => {}
                }
                // In `super::{a, *}` the star is a name of its own; in `super::{a::*}` it belongs to `a`.
                is_first = matches!(c, '{' | ',') || (is_first && c.is_whitespace());
            }
            if tree.starts_with("super::*") {
                lines.push(number + 1);
            }
        }
        place += line.len();
    }
    lines
}

#[test]
fn imports_from_the_parent_module_are_named() {
    let wrong: Vec<String> = sources()
        .into_iter()
        .flat_map(|(path, text)| imports_of_all(&text).into_iter().map(move |line| format!("{path}:{line}")))
        .collect();
    assert!(wrong.is_empty(), "use super::*: {wrong:#?}");

    let code = [
        "use super::*;",
        "use super::{\n    a::{b, c},\n    *,\n};",
        "use super::a::{B, C};",
        "use super::{a::*, d};",
        "use super::super::*;",
        "mod tests {\n    use super::*;\n}",
        "use super::{self, *};",
    ];
    let code = code.join("\n");
    assert_eq!(imports_of_all(&code), [1, 2, 8, 12]);
}

/// Names of two or more words in the prose of comments. `Name` and [`Name`] are links, and code in a comment is not
/// prose.
fn names_in_prose(text: &str) -> Vec<String> {
    let mut is_code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
        is_code ^= comment.trim_start_matches(['/', '!', ' ']).starts_with("```");
        // Every second piece is between backticks.
        let prose =
            comment.split('`').step_by(2).flat_map(|piece| piece.split(|c: char| !c.is_alphanumeric() && c != ':'));
        let is_name = |word: &&str| {
            word.starts_with(char::is_uppercase)
                && word.chars().any(char::is_lowercase)
                && word[1..].contains(char::is_uppercase)
        };
        if !is_code {
            found.extend(prose.filter(is_name).map(str::to_owned));
        }
    }
    found
}

/// Renaming a type throughout a file can also replace ordinary words in sentences.
#[test]
fn no_comment_uses_the_name_of_a_type_as_a_word() {
    let sources = sources();
    let types: BTreeSet<&str> = sources
        .iter()
        .flat_map(|(_, text)| {
            ["struct ", "enum ", "trait ", "type "].into_iter().flat_map(|kind| text.split(kind).skip(1))
        })
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap())
        .collect();
    let wrong: Vec<String> = sources
        .iter()
        .flat_map(|(path, text)| names_in_prose(text).into_iter().map(move |name| format!("{path}: {name}")))
        .filter(|wrong| types.contains(wrong.rsplit(' ').next().unwrap()))
        .collect();
    assert!(wrong.is_empty(), "use words or backticks: {wrong:#?}");

    let comments = "/// DecodedBatch back, `HashRange`, [`Scan`].\n/// ```\n/// TestApp\n/// ```\n// Cosmos, JSON.\nlet x = TestApp;";
    assert_eq!(names_in_prose(comments), ["DecodedBatch"]);
}

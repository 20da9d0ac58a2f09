//! Parses the templates: symbols, parameters, and declarations.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde_json::Value;
use tree_sitter::{Node, Parser, Tree};

/// App settings for the Functions host or the runtime, listed in docs/deploy/rights.md.
pub(super) const OF_OTHERS: &[&str] = &[
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "RUST_BACKTRACE",
];

pub(super) const ITEMS: &str = "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items";

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(super) fn parse(text: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bicep::LANGUAGE.into()).unwrap();
    parser.parse(text, None).unwrap()
}

/// The places where a text is not valid Bicep: line and source text.
pub(super) fn faults(text: &str) -> Vec<String> {
    let tree = parse(text);
    descendants(tree.root_node())
        .into_iter()
        .filter(|node| node.is_error() || node.is_missing())
        .map(|node| format!("{}: {}", node.start_position().row + 1, &text[node.byte_range()]))
        .collect()
}

pub(super) fn descendants(node: Node<'_>) -> Vec<Node<'_>> {
    let mut all = vec![node];
    for child in children(node) {
        all.extend(descendants(child));
    }
    all
}

fn children(node: Node<'_>) -> Vec<Node<'_>> {
    let mut cursor = node.walk();
    node.children(&mut cursor).collect()
}

fn named(node: Node<'_>) -> Vec<Node<'_>> {
    // `#disable-next-line` is a separate node.
    let is_code = |child: &Node<'_>| child.is_named() && !matches!(child.kind(), "comment" | "diagnostic_comment");
    children(node).into_iter().filter(is_code).collect()
}

/// A template: its text and its declarations.
pub(super) struct Template {
    path: PathBuf,
    pub(super) text: String,
    pub(super) tree: Tree,
}

/// The declaration of a symbol.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) kind: String,
    /// A resource's `Microsoft.X/y@version`, or a module's path.
    pub(super) of: String,
    /// The value as far as it is known without Azure; null when there is none.
    pub(super) value: Value,
}

impl Template {
    pub(super) fn read(path: impl AsRef<Path>) -> Self {
        let path = root().join("infra").join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tree = parse(&text);
        Self { path, text, tree }
    }

    pub(super) fn all() -> Vec<Self> {
        let mut paths = Vec::new();
        for folder in ["infra", "infra/modules"] {
            for entry in std::fs::read_dir(root().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "bicep") {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        paths.into_iter().map(Self::read).collect()
    }

    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    pub(super) fn of(&self, node: Node<'_>) -> &str {
        &self.text[node.byte_range()]
    }

    /// Every declaration with its symbol, in file order.
    pub(super) fn declared(&self) -> Vec<(String, Declared)> {
        let mut all: Vec<(String, Declared)> = Vec::new();
        for node in named(self.tree.root_node()) {
            let Some(kind) = node.kind().strip_suffix("_declaration") else { continue };
            let parts = named(node);
            let symbol = self.of(parts[0]).to_owned();
            let known: BTreeMap<String, Value> =
                all.iter().map(|(name, declared)| (name.clone(), declared.value.clone())).collect();
            let (mut of, mut value) = (String::new(), Value::Null);
            for part in &parts[1..] {
                match (kind, part.kind()) {
                    ("resource" | "module", "string") => of = self.of(*part).trim_matches('\'').to_owned(),
                    ("resource" | "module", "if_statement") => {
                        let object = descendants(*part).into_iter().find(|n| n.kind() == "object").unwrap();
                        value = self.value(object, &known);
                    }
                    (_, "type" | "decorators" | "decorator") => {}
                    _ => value = self.value(*part, &known),
                }
            }
            all.push((symbol, Declared { kind: kind.to_owned(), of, value }));
        }
        all
    }

    /// The names in a resource's `dependsOn`.
    pub(super) fn depends_on(&self, symbol: &str) -> Vec<String> {
        let resources = named(self.tree.root_node()).into_iter();
        let resource = resources
            .filter(|node| node.kind() == "resource_declaration")
            .find(|node| self.of(named(*node)[0]) == symbol)
            .unwrap_or_else(|| panic!("{} has no {symbol}", self.name()));
        descendants(resource)
            .into_iter()
            .filter(|node| node.kind() == "object_property" && self.of(named(*node)[0]) == "dependsOn")
            .flat_map(|node| named(named(node)[1]))
            .map(|node| self.of(node).to_owned())
            .collect()
    }

    /// A resource's condition as written; empty when there is none.
    pub(super) fn condition(&self, symbol: &str) -> &str {
        let start = self.text.find(&format!("resource {symbol} '")).unwrap();
        let line = self.text[start..].lines().next().unwrap();
        line.split_once("= if ").map_or("", |(_, condition)| condition.trim_end_matches(" {"))
    }

    pub(super) fn value_of(&self, symbol: &str) -> Value {
        let found = self.declared().into_iter().find(|(name, _)| name == symbol);
        found.unwrap_or_else(|| panic!("{} has no {symbol}", self.name())).1.value
    }

    /// Evaluates a node. Literals are kept, and symbols with a known value are replaced by it. Whatever only Azure
    /// knows stays source text in `${}`.
    pub(super) fn value(&self, node: Node<'_>, known: &BTreeMap<String, Value>) -> Value {
        match node.kind() {
            "object" => {
                let properties = named(node).into_iter().map(|property| {
                    let parts = named(property);
                    let name = match self.value(parts[0], &BTreeMap::new()) {
                        Value::String(name) if parts[0].kind() == "string" => name,
                        _ => self.of(parts[0]).to_owned(),
                    };
                    (name, parts.get(1).map_or(Value::Null, |part| self.value(*part, known)))
                });
                Value::Object(properties.collect())
            }
            "array" => named(node).into_iter().map(|item| self.value(item, known)).collect(),
            "string" => {
                let text: String = named(node)
                    .into_iter()
                    .map(|part| match part.kind() {
                        "interpolation" => match self.value(named(part)[0], known) {
                            Value::String(text) => text,
                            other => other.to_string(),
                        },
                        _ => self.of(part).to_owned(),
                    })
                    .collect();
                Value::String(text)
            }
            "number" | "boolean" => serde_json::from_str(self.of(node)).unwrap(),
            "identifier" => match known.get(self.of(node)) {
                Some(value) if !value.is_null() => value.clone(),
                _ => Value::String(format!("${{{}}}", self.of(node))),
            },
            _ => Value::String(format!("${{{}}}", self.of(node))),
        }
    }

    /// Symbols that are used but neither declared nor built in.
    pub(super) fn unknown_symbols(&self) -> Vec<String> {
        let functions = [
            "guid",
            "empty",
            "union",
            "take",
            "toLower",
            "uniqueString",
            "subscription",
            "subscriptionResourceId",
            "minLength",
            "maxLength",
            "minValue",
            "maxValue",
            "description",
            "allowed",
        ];
        let declared: BTreeSet<String> = self.declared().into_iter().map(|(name, _)| name).collect();
        descendants(self.tree.root_node())
            .into_iter()
            .filter(|node| node.kind() == "identifier")
            // A property name is not a symbol.
            .filter(|node| {
                let parent = node.parent().unwrap();
                parent.kind() != "object_property" || parent.named_child(0) != Some(*node)
            })
            .map(|node| self.of(node).to_owned())
            .filter(|name| !declared.contains(name) && !functions.contains(&name.as_str()))
            .collect()
    }
}

//! infra/ against the program: the templates are parsed, and what they say twice is compared. The compiler runs in the
//! GitHub workflow, not here, and a real deployment was never made: whatever can be held without them is held.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use cosmos_rewind::{config::SETTINGS, cosmos::provision, host::functions::DEFAULT_FUNCTION};
use serde_json::{Value, json};
use tree_sitter::{Node, Parser, Tree};

/// App settings that the Functions host or the runtime reads, not the handler. docs/deploy/rights.md has them.
const OF_OTHERS: &[&str] = &[
    "AzureWebJobsStorage__accountName",
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "RUST_BACKTRACE",
];

const ITEMS: &str = "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn parse(text: &str) -> Tree {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bicep::LANGUAGE.into()).unwrap();
    parser.parse(text, None).unwrap()
}

/// Where a text is no Bicep: line and what stands there.
fn faults(text: &str) -> Vec<String> {
    let tree = parse(text);
    descendants(tree.root_node())
        .into_iter()
        .filter(|node| node.is_error() || node.is_missing())
        .map(|node| format!("{}: {}", node.start_position().row + 1, &text[node.byte_range()]))
        .collect()
}

fn descendants(node: Node<'_>) -> Vec<Node<'_>> {
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
    // `#disable-next-line` is a node of its own.
    let is_code = |child: &Node<'_>| child.is_named() && !matches!(child.kind(), "comment" | "diagnostic_comment");
    children(node).into_iter().filter(is_code).collect()
}

/// One template: its text, and what it declares.
struct Template {
    path: PathBuf,
    text: String,
    tree: Tree,
}

/// What a template declares under a symbol.
#[derive(Debug, Clone)]
struct Declared {
    kind: String,
    /// `Microsoft.X/y@version` of a resource, path of a module.
    of: String,
    /// The value, as far as it can be known without Azure; null when there is none.
    value: Value,
}

impl Template {
    fn read(path: impl AsRef<Path>) -> Self {
        let path = root().join("infra").join(path);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tree = parse(&text);
        Self { path, text, tree }
    }

    fn all() -> Vec<Self> {
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

    fn name(&self) -> String {
        self.path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    fn of(&self, node: Node<'_>) -> &str {
        &self.text[node.byte_range()]
    }

    /// Every declaration by its symbol, in the order of the file.
    fn declared(&self) -> Vec<(String, Declared)> {
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
    fn depends_on(&self, symbol: &str) -> Vec<String> {
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

    /// The condition of a resource, as it is written; empty when there is none.
    fn condition(&self, symbol: &str) -> &str {
        let start = self.text.find(&format!("resource {symbol} '")).unwrap();
        let line = self.text[start..].lines().next().unwrap();
        line.split_once("= if ").map_or("", |(_, condition)| condition.trim_end_matches(" {"))
    }

    fn value_of(&self, symbol: &str) -> Value {
        let found = self.declared().into_iter().find(|(name, _)| name == symbol);
        found.unwrap_or_else(|| panic!("{} has no {symbol}", self.name())).1.value
    }

    /// Literals are taken as they are, symbols with a known value are replaced by it; what only Azure knows stays
    /// source text in `${}`.
    fn value(&self, node: Node<'_>, known: &BTreeMap<String, Value>) -> Value {
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

    /// Symbols that are used somewhere but are neither declared nor Bicep's own.
    fn unknown_symbols(&self) -> Vec<String> {
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
            // The name of a property is not a symbol.
            .filter(|node| {
                let parent = node.parent().unwrap();
                parent.kind() != "object_property" || parent.named_child(0) != Some(*node)
            })
            .map(|node| self.of(node).to_owned())
            .filter(|name| !declared.contains(name) && !functions.contains(&name.as_str()))
            .collect()
    }
}

fn cosmos() -> Template {
    Template::read("modules/cosmos.bicep")
}

/// The value of a template's parameter in main.bicep, put in by hand: modules do not know their callers' defaults.
fn with_defaults(value: &Value) -> Value {
    let main = Template::read("main.bicep");
    let mut text = value.to_string();
    for (name, declared) in main.declared() {
        if let (true, Value::String(default)) = (declared.kind == "parameter", &declared.value) {
            text = text.replace(&format!("${{{name}}}"), default);
        }
    }
    serde_json::from_str(&text).unwrap()
}

fn container(symbol: &str) -> Value {
    with_defaults(&cosmos().value_of(symbol)["properties"]["resource"])
}

#[test]
fn the_templates_are_bicep() {
    let all = Template::all();
    assert!(all.len() > 4, "{}", all.len());
    for template in &all {
        assert_eq!(faults(&template.text), Vec::<String>::new(), "{}", template.name());
        assert!(template.declared().len() > 3, "{}", template.name());
    }
}

#[test]
fn a_broken_template_would_be_noticed() {
    let text = cosmos().text;
    for (from, to) in [
        ("kind: 'MultiHash'", "kind 'MultiHash'"),
        ("param tags object", "param tags object }"),
        ("[account.id]", "[account.id"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(!faults(&text.replacen(from, to, 1)).is_empty(), "{to}");
    }
}

#[test]
fn every_symbol_is_declared_and_every_declaration_used() {
    for template in Template::all() {
        assert_eq!(template.unknown_symbols(), Vec::<String>::new(), "{}", template.name());
        let mut seen = BTreeSet::new();
        for (symbol, declared) in template.declared() {
            assert!(seen.insert(symbol.clone()) || declared.kind == "output", "{}: {symbol} twice", template.name());
            if matches!(declared.kind.as_str(), "parameter" | "variable") {
                let uses = descendants(template.tree.root_node())
                    .into_iter()
                    .filter(|node| node.kind() == "identifier" && template.of(*node) == symbol)
                    .count();
                assert!(uses > 1, "{}: {symbol} is not used", template.name());
            }
        }
    }
    // The check itself: a name that nobody declares.
    let mut broken = cosmos();
    broken.text = broken.text.replacen("maxThroughput: maximumThroughput", "maxThroughput: maximumThroughpu", 1);
    broken.tree = parse(&broken.text);
    assert_eq!(broken.unknown_symbols(), ["maximumThroughpu"]);
}

#[test]
fn main_gives_every_module_what_it_asks_for() {
    let main = Template::read("main.bicep");
    let mut modules = 0;
    for (symbol, declared) in main.declared().into_iter().filter(|(_, d)| d.kind == "module") {
        modules += 1;
        let module = Template::read(&declared.of);
        let wanted: BTreeSet<String> =
            module.declared().into_iter().filter(|(_, d)| d.kind == "parameter").map(|(name, _)| name).collect();
        let given: BTreeSet<String> = declared.value["params"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(given, wanted, "{symbol}");
        // And takes from it only what it hands out.
        let handed: Vec<String> =
            module.declared().into_iter().filter(|(_, d)| d.kind == "output").map(|(name, _)| name).collect();
        for taken in main.text.split(&format!("{symbol}.outputs.")).skip(1) {
            let name: String = taken.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(handed.contains(&name), "{symbol} has no output {name}");
        }
    }
    assert_eq!(modules, std::fs::read_dir(root().join("infra/modules")).unwrap().count());
}

#[test]
fn the_parameter_file_names_the_parameters_of_main() {
    let text = std::fs::read_to_string(root().join("infra/main.parameters.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let main = Template::read("main.bicep");
    let declared: BTreeMap<String, Declared> =
        main.declared().into_iter().filter(|(_, d)| d.kind == "parameter").collect();
    let document = std::fs::read_to_string(root().join("docs/deploy/azure.md")).unwrap();
    let given = file["parameters"].as_object().unwrap();
    assert_eq!(given.keys().collect::<BTreeSet<_>>(), declared.keys().collect::<BTreeSet<_>>());
    for (name, parameter) in given {
        let default = &declared[name].value;
        // What azd asks for itself is not explained; what can be chosen is.
        if let Some(value) = parameter["value"].as_str().and_then(|text| text.strip_prefix("${")?.split_once('=')) {
            assert!(document.contains(&format!("`{}`", value.0)), "docs/deploy/azure.md lacks {}", value.0);
        } else if !parameter["value"].is_string() {
            assert!(document.contains(&format!("`{name}`")), "docs/deploy/azure.md lacks {name}");
        }
        // `${NAME=default}` is what azd puts in; the default must be the template's.
        let value = match parameter["value"].as_str().map(|text| (text, text.split_once('='))) {
            Some((_, Some((_, rest)))) => json!(rest.trim_end_matches('}')),
            Some((text, None)) if text.starts_with("${") => continue,
            _ => parameter["value"].clone(),
        };
        assert_eq!(value, *default, "{name}");
    }
}

#[test]
fn the_containers_are_those_that_provision_makes() {
    let names = |symbol: &str| container(symbol)["id"].as_str().unwrap().to_owned();
    let paths = ["/pk".to_owned()];
    let code = [
        ("source", provision::source_definition(&names("source"), &paths)),
        ("changes", provision::changes_definition(&names("changes"), &paths, &[])),
        ("leases", provision::leases_definition(&names("leases"))),
    ];
    for (symbol, definition) in code {
        assert_eq!(container(symbol), serde_json::to_value(definition).unwrap(), "{symbol}");
    }
    for (symbol, setting) in [
        ("source", "COSMOS_SOURCE_CONTAINER"),
        ("changes", "COSMOS_CHANGES_CONTAINER"),
        ("leases", "COSMOS_LEASE_CONTAINER"),
    ] {
        assert_eq!(names(symbol), SETTINGS.iter().find(|s| s.name == setting).unwrap().default);
    }
}

#[test]
fn the_app_settings_are_those_that_the_handler_reads() {
    let settings = Template::read("modules/app.bicep").value_of("settings")["properties"].clone();
    let settings = settings.as_object().unwrap();
    for name in settings.keys() {
        let known = SETTINGS.iter().any(|setting| setting.name == name) || OF_OTHERS.contains(&name.as_str());
        assert!(known, "{name} is read by nobody");
    }
    let document = std::fs::read_to_string(root().join("docs/deploy/rights.md")).unwrap();
    for name in OF_OTHERS {
        assert!(settings.contains_key(*name), "{name} is not set");
        assert!(document.contains(&format!("`{name}`")), "docs/deploy/rights.md lacks {name}");
    }
    // Without a connection, the names and a place for dead letters the handler does not start.
    let text = std::fs::read_to_string(root().join(DEFAULT_FUNCTION).join("function.json")).unwrap();
    let mut required: Vec<&str> = text.split('%').skip(1).step_by(2).collect();
    required.extend([
        "CosmosDB__accountEndpoint",
        "CosmosDB__credential",
        "CosmosDB__clientId",
        "COSMOS_CHANGES_CONTAINER",
        "REWIND_DEAD_LETTERS",
    ]);
    for name in required {
        assert!(settings.contains_key(name), "{name} is not set");
    }
    assert_eq!(settings["CosmosDB__credential"], "managedidentity");
    assert_eq!(settings["RUST_BACKTRACE"], "0");
    // A connection string would bring a key in, and beside an identity the host would take it.
    assert!(!settings.contains_key("CosmosDB") && !settings.contains_key("AzureWebJobsStorage"));
    // This plan takes the runtime from functionAppConfig.
    assert!(!settings.contains_key("FUNCTIONS_WORKER_RUNTIME"));
    let app = Template::read("modules/app.bicep").value_of("app");
    assert_eq!(app["properties"]["functionAppConfig"]["runtime"], json!({"name": "custom", "version": "1.0"}));
}

#[test]
fn nothing_is_opened_by_a_key() {
    assert_eq!(cosmos().value_of("account")["properties"]["disableLocalAuth"], true);
    let storage = Template::read("modules/storage.bicep");
    let accounts =
        storage.declared().into_iter().filter(|(_, d)| d.of.starts_with("Microsoft.Storage/storageAccounts@"));
    let mut count = 0;
    for (symbol, account) in accounts {
        count += 1;
        assert_eq!(account.value["properties"]["allowSharedKeyAccess"], false, "{symbol}");
        assert_eq!(account.value["properties"]["allowBlobPublicAccess"], false, "{symbol}");
    }
    assert_eq!(count, 2);
    let monitoring = Template::read("modules/monitoring.bicep");
    assert_eq!(monitoring.value_of("component")["properties"]["DisableLocalAuth"], true);
    assert_eq!(monitoring.value_of("workspace")["properties"]["features"]["disableLocalAuth"], true);
    for template in Template::all() {
        let text = template.text.to_lowercase();
        for word in
            ["listkeys", "accountkey", "primarymasterkey", "sharedaccesskey", "listconnectionstrings", "@secure"]
        {
            assert!(!text.contains(word), "{}: {word}", template.name());
        }
    }
}

/// Actions of a role, and the container that its assignment to a principal is for.
fn rights(role: &str, assignment: &str) -> (BTreeSet<String>, Value) {
    let cosmos = cosmos();
    let actions = cosmos.value_of(role)["properties"]["permissions"][0]["dataActions"].clone();
    let assigned = cosmos.value_of(assignment)["properties"].clone();
    assert_eq!(assigned["roleDefinitionId"], format!("${{{role}.id}}"));
    (serde_json::from_value(actions).unwrap(), assigned)
}

#[test]
fn capture_can_delete_neither_history_nor_live_documents() {
    let verbs = |actions: &BTreeSet<String>| -> BTreeSet<String> {
        actions.iter().filter_map(|a| Some(a.strip_prefix(ITEMS)?.trim_start_matches('/').to_owned())).collect()
    };
    let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();

    let (source, at) = rights("captureSourceRole", "captureSource");
    assert_eq!(verbs(&source), set(&["read"]));
    assert_eq!(at["scope"], "${account.id}/dbs/${databaseName}/colls/${sourceContainerName}");
    let (changes, at) = rights("captureChangesRole", "captureChanges");
    assert_eq!(verbs(&changes), set(&["create", "upsert", "replace", "read"]));
    assert_eq!(at["scope"], "${account.id}/dbs/${databaseName}/colls/${changes.name}");
    let (leases, at) = rights("captureLeasesRole", "captureLeases");
    assert!(verbs(&leases).contains("delete"));
    assert_eq!(at["scope"], "${account.id}/dbs/${databaseName}/colls/${leases.name}");
    let (metadata, at) = rights("metadataRole", "captureMetadata");
    assert_eq!(metadata, set(&["Microsoft.DocumentDB/databaseAccounts/readMetadata"]));
    assert_eq!(at["scope"], "${account.id}");
    // No role is a wildcard, and capture has no other one.
    let cosmos = cosmos();
    let mut of_capture = 0;
    for (symbol, declared) in cosmos.declared() {
        assert!(!declared.value["properties"]["permissions"].to_string().contains('*'), "{symbol}");
        of_capture += usize::from(declared.value["properties"]["principalId"] == "${capturePrincipalId}");
    }
    // The fifth is there only when the app prunes on a schedule.
    assert_eq!(of_capture, 5);
    let (prune, at) = rights("pruneRole", "appPrunes");
    assert_eq!(verbs(&prune), set(&["delete"]));
    assert_eq!(at["scope"], "${account.id}/dbs/${databaseName}/colls/${changes.name}");
    assert_eq!(cosmos.condition("appPrunes"), "(prunes)");
    // Who restores is somebody else.
    let (_, at) = rights("operatorRole", "operator");
    assert_eq!(at["principalId"], "${operatorPrincipalId}");
}

/// The account takes one change of its roles at a time. Whatever the parameters switch off, the rest is a chain.
#[test]
fn role_definitions_and_assignments_are_made_one_after_the_other() {
    let cosmos = cosmos();
    let roles: Vec<String> = cosmos
        .declared()
        .into_iter()
        .filter(|(_, declared)| {
            declared.of.contains("/sqlRoleDefinitions@") || declared.of.contains("/sqlRoleAssignments@")
        })
        .map(|(symbol, _)| symbol)
        .collect();
    assert_eq!(roles.len(), 13);
    for (prunes, operator) in [(false, false), (false, true), (true, false), (true, true)] {
        let is_made = |symbol: &&String| match cosmos.condition(symbol) {
            "" => true,
            "(prunes)" => prunes,
            "(!empty(operatorPrincipalId))" => operator,
            other => panic!("{symbol}: an unknown condition {other}"),
        };
        let made: Vec<&String> = roles.iter().filter(is_made).collect();
        for pair in made.windows(2) {
            assert!(cosmos.depends_on(pair[1]).contains(pair[0]), "{} does not wait for {}", pair[1], pair[0]);
        }
    }
    assert_eq!(cosmos.depends_on("metadataRole"), ["source", "changes", "leases"]);
}

#[test]
fn a_source_that_exists_can_be_left_alone() {
    assert_eq!(cosmos().condition("source"), "(createSource)");
    assert_eq!(Template::read("main.bicep").value_of("createSource"), true);
}

#[test]
fn parameters_have_the_limits_of_the_service() {
    let main = Template::read("main.bicep").text;
    let before = |parameter: &str| {
        let (before, _) = main.split_once(&format!("\nparam {parameter} ")).unwrap();
        before.rsplit("\n\n").next().unwrap().to_owned()
    };
    // Autoscale begins at 1000 RU/s, and an account is serverless or not.
    assert!(before("maximumThroughput").contains("@minValue(1000)"));
    assert!(
        before("maximumInstances").contains("@minValue(40)") && before("maximumInstances").contains("@maxValue(1000)")
    );
    let storage = Template::read("modules/storage.bicep").text;
    for name in ["hostName", "deadLetterName"] {
        assert!(storage.contains(&format!("@minLength(3)\n@maxLength(24)\nparam {name} string")), "{name}");
    }
}

#[test]
fn passwords_of_the_site_are_switched_off_one_after_the_other_with_a_location() {
    let app = Template::read("modules/app.bicep");
    for (symbol, after) in [("noScmPassword", "settings"), ("noFtpPassword", "noScmPassword")] {
        let policy = app.value_of(symbol);
        assert_eq!((&policy["location"], &policy["properties"]["allow"]), (&json!("${location}"), &json!(false)));
        assert_eq!(app.depends_on(symbol), [after]);
    }
    // The compiler's types do not know the location.
    assert_eq!(app.text.matches("  #disable-next-line BCP187\n  location: location\n").count(), 2);
}

#[test]
fn the_log_is_json_and_none_of_its_lines_is_sampled_away() {
    let settings = Template::read("modules/app.bicep").value_of("settings")["properties"].clone();
    assert_eq!(settings["REWIND_LOG_FORMAT"], "json");
    let host: Value = serde_json::from_str(&std::fs::read_to_string(root().join("host.json")).unwrap()).unwrap();
    let excluded = host["logging"]["applicationInsights"]["samplingSettings"]["excludedTypes"].as_str().unwrap();
    assert!(excluded.split(';').any(|kind| kind == "Trace"), "{excluded}");
}

#[test]
fn the_host_may_write_its_diagnostic_events() {
    let storage = Template::read("modules/storage.bicep");
    let rights = storage.value_of("hostTables");
    assert_eq!(rights["scope"], storage.value_of("hostOwner")["scope"]);
    assert!(storage.text.contains("'0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'"), "Storage Table Data Contributor");
}

#[test]
fn the_all_versions_script_uses_an_api_that_has_the_feature_and_waits_for_the_account() {
    let script = std::fs::read_to_string(root().join("infra/enable-all-versions.sh")).unwrap();
    let version = script.split("api-version=").nth(1).unwrap();
    let date = version.get(..10).unwrap();
    assert!(date >= "2025-05-01" && version.get(10..18) == Some("-preview"), "{version}");
    assert!(script.contains("properties.provisioningState") && script.contains("== Succeeded"));
}

/// The compiler is not a package that a test could install: the workflow runs it.
#[test]
fn the_workflow_compiles_the_templates_with_a_pinned_compiler() {
    let workflow = std::fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let pinned = workflow.lines().find_map(|line| line.trim().strip_prefix("BICEP_VERSION: v")).unwrap();
    assert_eq!(pinned.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{pinned}");
    for needed in ["releases/download/$BICEP_VERSION/bicep-linux-x64", "bicep build infra/main.bicep", "bicep lint"] {
        assert!(workflow.contains(needed), "{needed}");
    }
    // A warning fails it, and what was compiled is kept.
    assert!(workflow.contains("': (Warning|Error) '") && workflow.contains("actions/upload-artifact@"));
}

#[test]
fn azure_yaml_deploys_the_package_that_the_script_makes() {
    let text = std::fs::read_to_string(root().join("azure.yaml")).unwrap();
    for line in [
        "    host: function",
        "    language: custom",
        "    dist: target/package/cosmos-rewind-x86_64-unknown-linux-musl.zip",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    let script = std::fs::read_to_string(root().join("scripts/package.sh")).unwrap();
    assert!(script.contains("out:-$root/target/package/cosmos-rewind-$target.zip"));
    assert!(script.contains("target=x86_64-unknown-linux-musl"));
    let main = Template::read("main.bicep");
    assert!(main.text.contains("'azd-service-name': 'capture'") && text.contains("\n  capture:\n"));
    // Below the service: `azd deploy` alone builds the package, too.
    let (service, root_hooks) = text.split_once("\nhooks:\n").unwrap();
    assert!(service.contains("    hooks:\n      prepackage:\n") && !root_hooks.contains("prepackage"));
    for path in ["scripts/package.sh", "infra/enable-all-versions.sh"] {
        assert!(text.contains(&format!("run: bash {path}")) && root().join(path).is_file(), "{path}");
    }
}

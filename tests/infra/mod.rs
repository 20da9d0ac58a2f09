//! infra/ against the program: the templates are parsed, and duplicated facts are compared. The compiler runs in the
//! GitHub workflow, not here, and no real deployment was ever made. These tests check everything that does not need
//! either.

mod rights;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use cosmos_rewind::{config::SETTINGS, cosmos::provision, host::functions::DEFAULT_FUNCTION};
use serde_json::{Value, json};

use self::template::{Declared, OF_OTHERS, Template, descendants, faults, parse, root};

fn cosmos() -> Template {
    Template::read("modules/cosmos.bicep")
}

/// A value with the defaults of main.bicep's parameters filled in, because modules do not know their callers' defaults.
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
    // The check itself must notice an undeclared name.
    let mut broken = cosmos();
    broken.text = broken.text.replacen("maxThroughput: maximumThroughput", "maxThroughput: maximumThroughpu", 1);
    broken.tree = parse(&broken.text);
    assert_eq!(broken.unknown_symbols(), ["maximumThroughpu"]);
}

#[test]
fn main_passes_every_parameter_of_every_module() {
    let main = Template::read("main.bicep");
    let mut modules = 0;
    for (symbol, declared) in main.declared().into_iter().filter(|(_, d)| d.kind == "module") {
        modules += 1;
        let module = Template::read(&declared.of);
        let wanted: BTreeSet<String> =
            module.declared().into_iter().filter(|(_, d)| d.kind == "parameter").map(|(name, _)| name).collect();
        let given: BTreeSet<String> = declared.value["params"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(given, wanted, "{symbol}");
        // And main only uses outputs that the module has.
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
        // Parameters that azd prompts for are not documented; the optional ones are.
        if let Some(value) = parameter["value"].as_str().and_then(|text| text.strip_prefix("${")?.split_once('=')) {
            assert!(document.contains(&format!("`{}`", value.0)), "docs/deploy/azure.md lacks {}", value.0);
        } else if !parameter["value"].is_string() {
            assert!(document.contains(&format!("`{name}`")), "docs/deploy/azure.md lacks {name}");
        }
        // azd substitutes `${NAME=default}`; the default must equal the template's.
        let value = match parameter["value"].as_str().map(|text| (text, text.split_once('='))) {
            Some((_, Some((_, rest)))) => json!(rest.trim_end_matches('}')),
            Some((text, None)) if text.starts_with("${") => continue,
            _ => parameter["value"].clone(),
        };
        assert_eq!(value, *default, "{name}");
    }
}

#[test]
fn the_containers_match_provision() {
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
fn the_app_settings_match_the_handlers() {
    let settings = Template::read("modules/app.bicep").value_of("settings")["properties"].clone();
    let settings = settings.as_object().unwrap();
    for name in settings.keys() {
        let known = SETTINGS.iter().any(|setting| setting.name == name) || OF_OTHERS.contains(&name.as_str());
        assert!(known, "nothing reads {name}");
    }
    let document = std::fs::read_to_string(root().join("docs/deploy/rights.md")).unwrap();
    for name in OF_OTHERS {
        assert!(settings.contains_key(*name), "{name} is not set");
        assert!(document.contains(&format!("`{name}`")), "docs/deploy/rights.md lacks {name}");
    }
    // Without a connection, the container names and a dead-letter store, the handler does not start.
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
    // A connection string would introduce a key, and the host would prefer it to the identity.
    assert!(!settings.contains_key("CosmosDB") && !settings.contains_key("AzureWebJobsStorage"));
    // This plan takes the runtime from functionAppConfig.
    assert!(!settings.contains_key("FUNCTIONS_WORKER_RUNTIME"));
    let app = Template::read("modules/app.bicep").value_of("app");
    assert_eq!(app["properties"]["functionAppConfig"]["runtime"], json!({"name": "custom", "version": "1.0"}));
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
    // Autoscale starts at 1000 RU/s, and a serverless account has no throughput.
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
fn the_log_is_json_and_no_line_is_dropped_by_sampling() {
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

/// The compiler is not a package that a test could install, so the workflow runs it.
#[test]
fn the_workflow_compiles_the_templates_with_a_pinned_compiler() {
    let workflow = std::fs::read_to_string(root().join(".github/workflows/ci.yml")).unwrap();
    let pinned = workflow.lines().find_map(|line| line.trim().strip_prefix("BICEP_VERSION: v")).unwrap();
    assert_eq!(pinned.split('.').filter(|part| part.parse::<u32>().is_ok()).count(), 3, "{pinned}");
    for needed in ["releases/download/$BICEP_VERSION/bicep-linux-x64", "bicep build infra/main.bicep", "bicep lint"] {
        assert!(workflow.contains(needed), "{needed}");
    }
    // A compiler warning fails the workflow, and the compiled templates are kept.
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
    // Defined for the service, so that `azd deploy` alone builds the package as well.
    let (service, root_hooks) = text.split_once("\nhooks:\n").unwrap();
    assert!(service.contains("    hooks:\n      prepackage:\n") && !root_hooks.contains("prepackage"));
    for path in ["scripts/package.sh", "infra/enable-all-versions.sh"] {
        assert!(text.contains(&format!("run: bash {path}")) && root().join(path).is_file(), "{path}");
    }
}

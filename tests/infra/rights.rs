//! Permissions: roles, keys and passwords.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    cosmos,
    template::{ITEMS, Template},
};

#[test]
fn no_access_uses_a_key() {
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

/// The actions of a role, and the container to which its assignment is scoped.
pub(super) fn rights(role: &str, assignment: &str) -> (BTreeSet<String>, Value) {
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
    // No role has a wildcard, and capture has no further roles.
    let cosmos = cosmos();
    let mut of_capture = 0;
    for (symbol, declared) in cosmos.declared() {
        assert!(!declared.value["properties"]["permissions"].to_string().contains('*'), "{symbol}");
        of_capture += usize::from(declared.value["properties"]["principalId"] == "${capturePrincipalId}");
    }
    // The fifth role is assigned only when the app prunes on a schedule.
    assert_eq!(of_capture, 5);
    let (prune, at) = rights("pruneRole", "appPrunes");
    assert_eq!(verbs(&prune), set(&["delete"]));
    assert_eq!(at["scope"], "${account.id}/dbs/${databaseName}/colls/${changes.name}");
    assert_eq!(cosmos.condition("appPrunes"), "(prunes)");
    // The operator who restores is a different principal.
    let (_, at) = rights("operatorRole", "operator");
    assert_eq!(at["principalId"], "${operatorPrincipalId}");
}

/// The account accepts one change of its roles at a time, so all resources form a chain, whatever the parameters switch
/// off.
#[test]
fn role_definitions_and_assignments_are_created_one_after_the_other() {
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
fn passwords_of_the_site_are_switched_off_one_after_the_other_with_a_location() {
    let app = Template::read("modules/app.bicep");
    for (symbol, after) in [("noScmPassword", "settings"), ("noFtpPassword", "noScmPassword")] {
        let policy = app.value_of(symbol);
        assert_eq!((&policy["location"], &policy["properties"]["allow"]), (&json!("${location}"), &json!(false)));
        assert_eq!(app.depends_on(symbol), [after]);
    }
    // The compiler's types do not include the location.
    assert_eq!(app.text.matches("  #disable-next-line BCP187\n  location: location\n").count(), 2);
}

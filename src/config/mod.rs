//! Environment, settings file and flags, parsed once into types that the rest of the program trusts.
//!
//! The same settings serve the Functions host's binding and this binary. Precedence, highest first: a command-line
//! flag, `<FunctionName>__<SETTING>` for one function, the environment, then `local.settings.json` beside host.json,
//! which Core Tools reads the same way.

mod account;
mod capture;
mod names;
mod places;
mod settings;

pub use self::{
    account::{AccountSettings, Credential, is_loopback},
    capture::{CaptureConfig, Fidelity, PRUNE, app_root, prune_budget},
    names::{BadContainers, Names},
    places::{BlobUrl, DeadLetterLocation, without_secrets},
    settings::Settings,
};
pub use crate::secret::Secret;

/// The key that Microsoft publishes for its Cosmos emulator; it protects nothing, and `local` uses it too.
/// <https://learn.microsoft.com/azure/cosmos-db/emulator>
pub const EMULATOR_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// Every setting of the product, with its default and meaning: one list for validation, help and documents.
pub const SETTINGS: &[SettingDoc] = &[
    SettingDoc::new("CosmosDB", "", "connection string of the account (AccountEndpoint=...;AccountKey=...;)"),
    SettingDoc::new("CosmosDB__accountEndpoint", "", "account endpoint for keyless identity, instead of CosmosDB"),
    SettingDoc::new(
        "CosmosDB__credential",
        "",
        "managedidentity: use the app's identity; unset: developer credentials (az login)",
    ),
    SettingDoc::new("CosmosDB__clientId", "", "client id of a user-assigned identity"),
    SettingDoc::new("COSMOS_DATABASE", "dev", "database of all three containers").for_functions(),
    SettingDoc::new("COSMOS_SOURCE_CONTAINER", "events", "live container whose change feed is captured").for_functions(),
    SettingDoc::new("COSMOS_CHANGES_CONTAINER", "changes", "history container").for_functions(),
    SettingDoc::new("COSMOS_LEASE_CONTAINER", "leases", "lease container of the trigger").for_functions(),
    SettingDoc::new(
        "MONGODB_URI",
        "",
        "address of a MongoDB deployment, when the source is none of the account's containers; a secret, as it holds a password",
    ),
    SettingDoc::new(
        "REWIND_FIDELITY",
        "exact",
        "exact: re-read documents the host may have altered; payload: store what was delivered",
    ),
    SettingDoc::new(
        "REWIND_DEAD_LETTERS",
        ".dead-letters",
        "directory, or https URL of a blob container (SAS or keyless), for records that cannot be stored",
    ),
    SettingDoc::new(
        "REWIND_BULK",
        "auto",
        "auto: records of several partition keys in one request, where the account takes it; off: one request for each",
    ),
    SettingDoc::new(
        "REWIND_MAX_WRITES",
        "1000",
        "records being written at the same time, alone or packed, shared by all functions and leases of the process",
    ),
    SettingDoc::new("REWIND_MAX_REREADS", "16", "fidelity re-reads in flight, shared likewise"),
    SettingDoc::new(
        "REWIND_DEADLINE_SECONDS",
        "120",
        "how long transient failures of one batch are retried before the host is asked to retry",
    ),
    SettingDoc::new("REWIND_MAX_BODY_MB", "256", "largest request body accepted, in MiB"),
    SettingDoc::new("REWIND_DRAIN_SECONDS", "25", "how long SIGTERM waits for batches in flight"),
    SettingDoc::new(
        "REWIND_FIELDS",
        "",
        "serve: the only fields of documents that are stored, beside id, partition key and what a record needs: /name,/address/city",
    )
    .for_functions(),
    SettingDoc::new(
        "REWIND_REDACT",
        "",
        "serve: fields that are left out, or replaced by a keyed hash: /ssn,/email=hash",
    )
    .for_functions(),
    SettingDoc::new("REWIND_REDACT_KEY", "", "key of the hashes that /path=hash asks for; any secret text")
        .for_functions(),
    SettingDoc::new(
        "REWIND_PRUNE",
        "",
        "serve: what a timer function removes, as flags of prune: --keep-within 7d --keep-daily 90d --ru-limit 500",
    )
    .for_functions(),
    SettingDoc::new(
        "REWIND_PRUNE_SECONDS",
        "240",
        "how long one tick of that function may take; less than functionTimeout",
    ),
    SettingDoc::new("REWIND_LOG", "info", "log filter, as in RUST_LOG"),
    SettingDoc::new("REWIND_LOG_FORMAT", "text", "text or json: one line per event"),
    SettingDoc::new(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "serve, follow: address of an OpenTelemetry collector (OTLP over HTTP); unset: nothing is sent",
    ),
    SettingDoc::new("OTEL_EXPORTER_OTLP_HEADERS", "", "headers of each request to it, name=value,...; secret"),
    SettingDoc::new("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "only this one"),
    SettingDoc::new("OTEL_SERVICE_NAME", "cosmos-rewind", "service name of traces and metrics"),
    SettingDoc::new("OTEL_METRIC_EXPORT_INTERVAL", "60000", "milliseconds between two sends of the metrics"),
];

/// Whether a source is the address of a MongoDB deployment rather than a container's name.
pub fn is_mongo_address(text: &str) -> bool {
    text.starts_with("mongodb://") || text.starts_with("mongodb+srv://")
}

/// One line of [`SETTINGS`].
#[derive(Debug, Clone, Copy)]
pub struct SettingDoc {
    /// The setting's name, as in the environment.
    pub name: &'static str,
    /// Its default as text; empty when there is none.
    pub default: &'static str,
    /// Its meaning, on one line.
    pub meaning: &'static str,
    /// Whether a function may have its own value.
    pub for_functions: bool,
}

impl SettingDoc {
    const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self { name, default, meaning, for_functions: false }
    }

    const fn for_functions(self) -> Self {
        Self { for_functions: true, ..self }
    }
}

/// A setting that is missing or wrong: its name, what is wrong, and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {name}: {problem}\n  fix: {fix}")]
pub struct ConfigError {
    /// Name of the setting or flag.
    pub name: String,
    /// The problem; never contains a secret.
    pub problem: String,
    /// The remedy: a value to write instead.
    pub fix: String,
}

impl ConfigError {
    /// Builds an error for a setting.
    pub fn new(name: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), problem: problem.into(), fix: fix.into() }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn account(pairs: &[(&str, &str)]) -> Result<AccountSettings, ConfigError> {
        AccountSettings::from_settings(&Settings::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn a_connection_string_is_understood_and_its_key_never_shown() {
        let account =
            account(&[("CosmosDB", "AccountEndpoint=https://a.documents.azure.com:443/;AccountKey=c2VjcmV0;")])
                .unwrap();
        assert_eq!(account.endpoint.as_str(), "https://a.documents.azure.com/");
        assert_eq!(account.credential, Credential::Key(Secret::new("c2VjcmV0")));
        assert!(!format!("{account:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn every_wrong_account_setting_names_itself_and_the_fix() {
        for (pairs, name, problem) in [
            (vec![], "CosmosDB", "missing"),
            (vec![("CosmosDB", "AccountKey=c2VjcmV0")], "CosmosDB", "AccountEndpoint"),
            (vec![("CosmosDB", "AccountEndpoint=https://a/;")], "CosmosDB", "AccountKey"),
            (vec![("CosmosDB", "AccountEndpoint=nonsense;AccountKey=c2VjcmV0")], "CosmosDB", "not a URL"),
            (vec![("CosmosDB", "AccountEndpoint=https://a/;AccountKey=SECRET!")], "CosmosDB", "base64"),
            (vec![("CosmosDB__accountEndpoint", "http://example.com/")], "CosmosDB__accountEndpoint", "plain http"),
            (
                vec![("CosmosDB__accountEndpoint", "https://a/"), ("CosmosDB__credential", "magic")],
                "CosmosDB__credential",
                "known",
            ),
        ] {
            let error = account(&pairs).unwrap_err();
            assert_eq!(error.name, name, "{pairs:?}");
            assert!(error.problem.contains(problem), "{error}");
            assert!(!error.fix.is_empty());
            assert!(!error.to_string().contains("SECRET") && !error.to_string().contains("c2VjcmV0"), "{error}");
        }
    }

    #[test]
    fn every_wrong_capture_setting_names_itself_and_the_fix() {
        for (name, value) in [
            ("REWIND_FIDELITY", "roughly"),
            ("REWIND_MAX_WRITES", "0"),
            ("REWIND_MAX_REREADS", "many"),
            ("REWIND_DEADLINE_SECONDS", "-1"),
            ("REWIND_MAX_BODY_MB", "1.5"),
            ("REWIND_DRAIN_SECONDS", "99999"),
            ("REWIND_DEAD_LETTERS", "ftp://x/y"),
            ("REWIND_DEAD_LETTERS", "https://account.blob.core.windows.net/"),
            ("REWIND_DEAD_LETTERS", "http://example.com/c?sig=SECRET"),
            ("REWIND_DEAD_LETTERS", "https://me:SECRET@a.blob.core.windows.net/c"),
            ("REWIND_DEAD_LETTERS", "https://a.blob.core.windows.net/c#sig=SECRET"),
        ] {
            let settings = Settings::from_pairs([(name, value)]);
            let error = CaptureConfig::from_settings(&settings, Path::new(".")).unwrap_err();
            assert_eq!(error.name, name);
            assert!(!error.fix.is_empty() && !error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn on_azure_the_dead_letter_store_must_be_named() {
        let settings = Settings::from_pairs([("WEBSITE_SITE_NAME", "app")]);
        let error = CaptureConfig::from_settings(&settings, Path::new(".")).unwrap_err();
        assert_eq!(error.name, "REWIND_DEAD_LETTERS");
    }

    #[test]
    fn a_function_overrides_a_setting_and_a_flag_overrides_both() {
        let mut settings = Settings::from_pairs([
            ("COSMOS_SOURCE_CONTAINER", "events"),
            ("Orders__COSMOS_SOURCE_CONTAINER", "orders"),
        ]);
        assert_eq!(Names::from_settings(&settings, Some("Orders")).unwrap().source, "orders");
        assert_eq!(Names::from_settings(&settings, Some("Other")).unwrap().source, "events");
        settings.set_override("COSMOS_SOURCE_CONTAINER", "flag");
        assert_eq!(Names::from_settings(&settings, Some("Orders")).unwrap().source, "flag");
    }

    #[test]
    fn the_history_may_not_be_the_source_itself() {
        let settings = Settings::from_pairs([("COSMOS_CHANGES_CONTAINER", "events")]);
        assert_eq!(Names::from_settings(&settings, None).unwrap_err().name, "COSMOS_CHANGES_CONTAINER");
        let settings = Settings::from_pairs([("COSMOS_LEASE_CONTAINER", "changes")]);
        assert_eq!(Names::from_settings(&settings, None).unwrap_err().name, "COSMOS_LEASE_CONTAINER");
        let settings = Settings::from_pairs([("Orders__COSMOS_CHANGES_CONTAINER", "events")]);
        let error = Names::from_settings(&settings, Some("Orders")).unwrap_err();
        assert_eq!(error.name, "Orders__COSMOS_CHANGES_CONTAINER", "the one to correct");
    }

    #[test]
    fn a_blob_url_is_shown_without_its_signature() {
        let location =
            DeadLetterLocation::parse("X", "https://a.blob.core.windows.net/dead?sv=1&sig=SECRET", Path::new("."))
                .unwrap();
        assert_eq!(location.to_string(), "https://a.blob.core.windows.net/dead");
        assert!(!format!("{location:?}").contains("SECRET"));
    }

    #[test]
    fn a_text_that_is_no_good_url_is_shown_without_its_secrets_too() {
        for (text, shown) in [
            ("blob:https://me:SECRET@a.net/c/x?sig=SECRET#SECRET", "blob:https://a.net/c/x"),
            ("blob:https://a.net#SECRET", "blob:https://a.net"),
            ("blob:https:/a.net/c/sig=SECRET", "blob:https:/a.net/c/"),
            ("https://SECRET@/x@y", "https:///x@y"),
            ("folder/a@b", "folder/a@b"),
        ] {
            assert_eq!(without_secrets(text), shown);
        }
    }

    #[test]
    fn a_settings_file_is_read_beneath_the_environment_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("local.settings.json");
        std::fs::write(&path, r#"{"IsEncrypted":false,"Values":{"COSMOS_DATABASE":"other"}}"#).unwrap();
        assert_eq!(Settings::from_file(&path).unwrap().get("COSMOS_DATABASE"), Some("other"));
        std::fs::write(&path, "{").unwrap();
        assert_eq!(Settings::from_file(&path).unwrap_err().name, "local.settings.json");
        std::fs::write(&path, "[]").unwrap();
        assert!(Settings::from_file(&path).unwrap_err().to_string().contains("it is a list"));
    }
}

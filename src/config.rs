//! Environment, settings file and flags, parsed once into types the inside trusts.
//!
//! The same settings serve the Functions host's binding and this binary. Precedence, highest
//! first: a command-line flag, `<FunctionName>__<SETTING>` for one function, the environment, then
//! `local.settings.json` beside host.json, which Core Tools reads the same way.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use url::Url;

/// The key that Microsoft publishes for its Cosmos emulator; it protects nothing, and `local` uses it too.
/// <https://learn.microsoft.com/azure/cosmos-db/emulator>
pub const EMULATOR_KEY: &str =
    "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw==";

/// Every setting the product reads, with its default and meaning: one list for validation, help and documents.
pub const SETTINGS: &[SettingDoc] = &[
    SettingDoc::new("CosmosDB", "", "connection string of the account (AccountEndpoint=...;AccountKey=...;)"),
    SettingDoc::new("CosmosDB__accountEndpoint", "", "account endpoint for keyless identity, instead of CosmosDB"),
    SettingDoc::new(
        "CosmosDB__credential",
        "",
        "managedidentity: use the app's identity; unset: developer credentials (az login)",
    ),
    SettingDoc::new("CosmosDB__clientId", "", "client id of a user-assigned identity"),
    SettingDoc::new("COSMOS_DATABASE", "dev", "database of all three containers"),
    SettingDoc::new("COSMOS_SOURCE_CONTAINER", "events", "live container whose change feed is captured"),
    SettingDoc::new("COSMOS_CHANGES_CONTAINER", "changes", "history container"),
    SettingDoc::new("COSMOS_LEASE_CONTAINER", "leases", "lease container of the trigger"),
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
    SettingDoc::new("REWIND_MAX_WRITES", "64", "writes in flight, shared by all functions and leases of the process"),
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
    ),
    SettingDoc::new(
        "REWIND_REDACT",
        "",
        "serve: fields that are left out, or replaced by a keyed hash: /ssn,/email=hash",
    ),
    SettingDoc::new("REWIND_REDACT_KEY", "", "key of the hashes that /path=hash asks for; any secret text"),
    SettingDoc::new(
        "REWIND_PRUNE",
        "",
        "serve: what a timer function removes, as flags of prune: --keep-within 7d --keep-daily 90d --ru-limit 500",
    ),
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

/// One line of [`SETTINGS`].
#[derive(Debug, Clone, Copy)]
pub struct SettingDoc {
    /// The setting's name, as in the environment.
    pub name: &'static str,
    /// Its default as text; empty when there is none.
    pub default: &'static str,
    /// What it means, one line.
    pub meaning: &'static str,
}

impl SettingDoc {
    const fn new(name: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self { name, default, meaning }
    }
}

/// A setting that is missing or wrong: names the setting, says what is wrong and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {name}: {problem}\n  fix: {fix}")]
pub struct ConfigError {
    /// Name of the setting or flag.
    pub name: String,
    /// What is wrong; never contains a secret.
    pub problem: String,
    /// What to write instead.
    pub fix: String,
}

impl ConfigError {
    /// Builds an error for a setting.
    pub fn new(name: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), problem: problem.into(), fix: fix.into() }
    }
}

/// A value that never appears in a log, an error or a debug print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, for the one place that hands it to the client library.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The raw settings by name, before any of them is understood.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    values: BTreeMap<String, Secret>,
    overrides: BTreeMap<String, Secret>,
}

impl Settings {
    /// The process environment over `local.settings.json` in `app_root`, when that file exists.
    pub fn load(app_root: &Path) -> Result<Self, ConfigError> {
        let mut settings = Self::from_file(&app_root.join("local.settings.json"))?;
        settings.values.extend(Self::environment().values);
        Ok(settings)
    }

    /// The process environment alone.
    pub fn environment() -> Self {
        let values = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, Secret(value.into_string().ok()?))));
        Self { values: values.collect(), overrides: BTreeMap::new() }
    }

    /// Settings from pairs, for tests and for the local environment.
    pub fn from_pairs<K: Into<String>, V: Into<String>>(pairs: impl IntoIterator<Item = (K, V)>) -> Self {
        Self {
            values: pairs.into_iter().map(|(k, v)| (k.into(), Secret::new(v))).collect(),
            overrides: BTreeMap::new(),
        }
    }

    fn from_file(path: &Path) -> Result<Self, ConfigError> {
        #[derive(serde::Deserialize)]
        struct File {
            #[serde(rename = "IsEncrypted", default)]
            is_encrypted: bool,
            #[serde(rename = "Values", default)]
            values: BTreeMap<String, String>,
        }
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => {
                return Err(ConfigError::new(
                    "local.settings.json",
                    format!("cannot be read: {e}"),
                    "make it readable, or remove it",
                ));
            }
        };
        let file: File = serde_json::from_str(text.trim_start_matches('\u{feff}')).map_err(|e| {
            ConfigError::new(
                "local.settings.json",
                format!("is not valid: line {} column {}", e.line(), e.column()),
                "compare it with local.settings.example.json; every value under Values is a string",
            )
        })?;
        if file.is_encrypted {
            return Err(ConfigError::new("local.settings.json", "is encrypted", "run `func settings decrypt`"));
        }
        Ok(Self::from_pairs(file.values))
    }

    /// Sets a value that beats every other source, as a command-line flag does.
    pub fn set_override(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.overrides.insert(name.into(), Secret::new(value));
    }

    /// The value of a setting; empty text counts as unset, because app settings cannot be null.
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.overrides.get(name).or_else(|| self.values.get(name))?;
        Some(value.0.trim()).filter(|v| !v.is_empty())
    }

    /// The value for one function: `<function>__<name>` when set, else `name`. Flags beat both.
    pub fn get_for(&self, function: Option<&str>, name: &str) -> Option<&str> {
        if let Some(flag) = self.overrides.get(name) {
            return Some(flag.0.trim()).filter(|v| !v.is_empty());
        }
        if let Some(function) = function
            && let Some(value) = self.get(&format!("{function}__{name}"))
        {
            return Some(value);
        }
        self.get(name)
    }

    /// The name under which a function's value was found, for messages.
    fn name_for(&self, function: Option<&str>, name: &str) -> String {
        let own = function.map(|function| format!("{function}__{name}"));
        let own = own.filter(|own| !self.overrides.contains_key(name) && self.get(own).is_some());
        own.unwrap_or_else(|| name.to_owned())
    }

    fn parse<T: FromStr>(&self, name: &str, valid: impl Fn(&T) -> bool, fix: &str) -> Result<T, ConfigError> {
        let default = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
        let text = self.get(name).unwrap_or(default);
        match text.parse::<T>() {
            Ok(value) if valid(&value) => Ok(value),
            _ => Err(ConfigError::new(name, format!("{text:?} is not allowed"), fix)),
        }
    }
}

/// How the account is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// `https://<account>.documents.azure.com/`, or a loopback address.
    pub endpoint: Url,
    /// How the caller proves who it is.
    pub credential: Credential,
}

/// How the caller proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// The account key.
    Key(Secret),
    /// The identity of the function app; a client id selects a user-assigned one.
    ManagedIdentity {
        /// Client id of a user-assigned identity.
        client_id: Option<String>,
    },
    /// Whoever is signed in on this machine (Azure CLI, Azure Developer CLI).
    Developer,
}

impl Account {
    /// Reads the account from the settings, under the connection name that the binding uses.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        const NAME: &str = "CosmosDB";
        const ENDPOINT: &str = "CosmosDB__accountEndpoint";
        if let Some(endpoint) = settings.get(ENDPOINT) {
            let endpoint = parse_endpoint(ENDPOINT, endpoint)?;
            // A flag that names a loopback endpoint needs no key: `local` and the emulators share a public one.
            let loopback = is_loopback(&endpoint);
            let credential = match settings.get("CosmosDB__credential").map(str::to_ascii_lowercase).as_deref() {
                Some("managedidentity") => {
                    let client_id = settings.get("CosmosDB__clientId").map(String::from);
                    if client_id.as_deref().is_some_and(|id| !is_guid(id)) {
                        return Err(ConfigError::new(
                            "CosmosDB__clientId",
                            "is not a client id",
                            "write the identity's client id, such as 00000000-0000-0000-0000-000000000000 \
                             (az identity show --query clientId), or remove the setting to use the app's own identity",
                        ));
                    }
                    Credential::ManagedIdentity { client_id }
                }
                None if loopback => Credential::Key(Secret::new(EMULATOR_KEY)),
                None => Credential::Developer,
                Some(_) => {
                    return Err(ConfigError::new(
                        "CosmosDB__credential",
                        "is not a known credential",
                        "write managedidentity, or remove the setting to use the signed-in developer",
                    ));
                }
            };
            return Ok(Self { endpoint, credential });
        }
        let Some(text) = settings.get(NAME) else {
            return Err(ConfigError::new(
                NAME,
                "is missing",
                "set CosmosDB to the connection string, or CosmosDB__accountEndpoint for keyless identity; \
                 for the embedded environment run `cosmos-rewind local` and pass --endpoint http://127.0.0.1:PORT/",
            ));
        };
        let mut endpoint = None;
        let mut key = None;
        for part in text.split(';').map(str::trim).filter(|p| !p.is_empty()) {
            let (field, value) = part.split_once('=').unwrap_or((part, ""));
            match field.trim().to_ascii_lowercase().as_str() {
                "accountendpoint" => endpoint = Some(parse_endpoint(NAME, value.trim())?),
                "accountkey" => key = Some(Secret::new(value.trim())),
                _ => {}
            }
        }
        let fix = "write AccountEndpoint=https://<account>.documents.azure.com:443/;AccountKey=<key>;";
        let endpoint = endpoint.ok_or_else(|| ConfigError::new(NAME, "has no AccountEndpoint", fix))?;
        let key = key.filter(|k| !k.0.is_empty()).ok_or_else(|| ConfigError::new(NAME, "has no AccountKey", fix))?;
        if !key.0.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
            return Err(ConfigError::new(NAME, "has an AccountKey that is not base64", fix));
        }
        Ok(Self { endpoint, credential: Credential::Key(key) })
    }
}

/// Eight, four, four, four and twelve hexadecimal digits.
fn is_guid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

fn parse_endpoint(name: &str, text: &str) -> Result<Url, ConfigError> {
    let fix = "write an address like https://<account>.documents.azure.com:443/ or http://127.0.0.1:8081/";
    let url = Url::parse(text).map_err(|e| ConfigError::new(name, format!("the endpoint is not a URL: {e}"), fix))?;
    if url.host_str().is_none() || !matches!(url.scheme(), "https" | "http") {
        return Err(ConfigError::new(name, "the endpoint is not an http(s) URL with a host", fix));
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err(ConfigError::new(
            name,
            "the endpoint is plain http on another machine: keys and data would be readable",
            fix,
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::new(name, "the endpoint carries credentials", fix));
    }
    Ok(url)
}

/// Whether an address is this machine's own.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

/// Names of the database and its three containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Database of all containers.
    pub database: String,
    /// Live container.
    pub source: String,
    /// History container.
    pub changes: String,
    /// Lease container.
    pub leases: String,
}

impl Names {
    /// Reads the names for one function, or the common ones.
    pub fn from_settings(settings: &Settings, function: Option<&str>) -> Result<Self, ConfigError> {
        let get = |name: &str| -> Result<String, ConfigError> {
            let default = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
            let value = settings.get_for(function, name).unwrap_or(default).to_owned();
            // The service's own rule for resource names.
            if value.len() > 255 || value.contains(['/', '\\', '?', '#']) || value.chars().any(char::is_control) {
                return Err(ConfigError::new(
                    settings.name_for(function, name),
                    "is not a valid resource name",
                    "use up to 255 characters without / \\ ? #",
                ));
            }
            Ok(value)
        };
        let names = Self {
            database: get("COSMOS_DATABASE")?,
            source: get("COSMOS_SOURCE_CONTAINER")?,
            changes: get("COSMOS_CHANGES_CONTAINER")?,
            leases: get("COSMOS_LEASE_CONTAINER")?,
        };
        if names.source == names.changes {
            return Err(ConfigError::new(
                settings.name_for(function, "COSMOS_CHANGES_CONTAINER"),
                format!("is the source container {:?} itself: every copy would be captured again", names.source),
                "name a container of its own, such as changes",
            ));
        }
        if names.leases == names.source || names.leases == names.changes {
            return Err(ConfigError::new(
                settings.name_for(function, "COSMOS_LEASE_CONTAINER"),
                format!("is the container {:?} of the documents", names.leases),
                "name a container of its own, such as leases",
            ));
        }
        Ok(names)
    }
}

/// Whether documents that the host may have altered are re-read from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fidelity {
    /// Re-read when the payload contains anything the host may have altered.
    Exact,
    /// Store the payload as delivered.
    Payload,
}

/// Where records go that can never be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadLetterLocation {
    /// A local directory.
    Directory(PathBuf),
    /// A blob container; a SAS, when there is one, is part of the URL and therefore secret.
    Blob(BlobUrl),
}

/// A text that should be a URL, without what may be a secret in it: a signature, or a password before the host.
pub(crate) fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    // Also where the question mark was forgotten.
    let text = text.split("sig=").next().unwrap_or_default();
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    format!("{scheme}://{}{path}", authority.rsplit('@').next().unwrap_or_default())
}

/// URL of a blob container. Shown without its query, which may hold a signature.
#[derive(Clone, PartialEq, Eq)]
pub struct BlobUrl(Url);

impl BlobUrl {
    /// The full URL, for the client library.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// Whether the URL carries its own authorisation.
    pub fn has_sas(&self) -> bool {
        self.0.query_pairs().any(|(name, _)| name == "sig")
    }
}

impl BlobUrl {
    /// The container's own URL, and the folder below it that this one names (empty, or without slashes at its ends).
    /// On this machine the account is the first part of the path, as in Azurite's URLs.
    pub fn split(&self) -> (Self, String) {
        let account = usize::from(is_loopback(&self.0));
        let parts: Vec<&str> = self.0.path().split('/').filter(|part| !part.is_empty()).collect();
        let at = (account + 1).min(parts.len());
        let mut container = self.0.clone();
        container.set_path(&parts[..at].join("/"));
        (Self(container), parts[at..].join("/"))
    }
}

impl fmt::Display for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        shown.set_query(None);
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for BlobUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobUrl({self})")
    }
}

impl DeadLetterLocation {
    /// Parses a directory or a blob container's URL; a relative directory is under `app_root`.
    pub fn parse(name: &str, text: &str, app_root: &Path) -> Result<Self, ConfigError> {
        if text.starts_with("http://") || text.starts_with("https://") {
            let fix =
                "write https://<account>.blob.core.windows.net/<container>, with a SAS or none for keyless identity";
            // The parse error quotes nothing of the URL, so a signature cannot leak through it.
            let url = Url::parse(text).map_err(|e| ConfigError::new(name, format!("is not a URL: {e}"), fix))?;
            if url.scheme() == "http" && !is_loopback(&url) {
                return Err(ConfigError::new(name, "is plain http on another machine", fix));
            }
            // Neither is sent to the service, and both would be shown wherever the URL is.
            if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
                return Err(ConfigError::new(name, "carries credentials or a fragment (#) beside its query", fix));
            }
            if url.path_segments().is_none_or(|mut s| s.all(str::is_empty)) {
                return Err(ConfigError::new(name, "names no blob container", fix));
            }
            return Ok(Self::Blob(BlobUrl(url)));
        }
        if text.contains("://") {
            return Err(ConfigError::new(
                name,
                "has an unknown scheme",
                "write a directory, or an https URL of a blob container",
            ));
        }
        Ok(Self::Directory(app_root.join(text)))
    }
}

impl fmt::Display for DeadLetterLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Blob(url) => write!(f, "{url}"),
        }
    }
}

/// Limits and switches of capture, all of them validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureConfig {
    /// Whether altered documents are re-read.
    pub fidelity: Fidelity,
    /// Where poison goes.
    pub dead_letters: DeadLetterLocation,
    /// Writes in flight in the whole process.
    pub max_writes: usize,
    /// Re-reads in flight in the whole process.
    pub max_rereads: usize,
    /// How long transient failures of one batch are retried.
    pub deadline: Duration,
    /// Largest accepted request body, in bytes.
    pub max_body: usize,
    /// How long SIGTERM waits for batches in flight.
    pub drain: Duration,
}

impl CaptureConfig {
    /// Reads and validates the settings of capture.
    pub fn from_settings(settings: &Settings, app_root: &Path) -> Result<Self, ConfigError> {
        const DEAD_LETTERS: &str = "REWIND_DEAD_LETTERS";
        // On Azure the application folder is read-only or gone with the instance: a default there would lose data.
        if settings.get(DEAD_LETTERS).is_none() && settings.get("WEBSITE_SITE_NAME").is_some() {
            return Err(ConfigError::new(
                DEAD_LETTERS,
                "is missing, and a directory does not outlive a function app's instance",
                "set it to https://<account>.blob.core.windows.net/<container>",
            ));
        }
        let fidelity = match settings.get("REWIND_FIDELITY").unwrap_or("exact").to_ascii_lowercase().as_str() {
            "exact" => Fidelity::Exact,
            "payload" => Fidelity::Payload,
            other => {
                return Err(ConfigError::new(
                    "REWIND_FIDELITY",
                    format!("{other:?} is not allowed"),
                    "write exact or payload",
                ));
            }
        };
        let seconds = |name: &str, max: u64| -> Result<Duration, ConfigError> {
            settings
                .parse::<u64>(name, |v| (1..=max).contains(v), &format!("write whole seconds from 1 to {max}"))
                .map(Duration::from_secs)
        };
        Ok(Self {
            fidelity,
            dead_letters: DeadLetterLocation::parse(
                DEAD_LETTERS,
                settings.get(DEAD_LETTERS).unwrap_or(".dead-letters"),
                app_root,
            )?,
            max_writes: settings.parse(
                "REWIND_MAX_WRITES",
                |v| (1..=4096).contains(v),
                "write a number from 1 to 4096",
            )?,
            max_rereads: settings.parse(
                "REWIND_MAX_REREADS",
                |v| (1..=4096).contains(v),
                "write a number from 1 to 4096",
            )?,
            deadline: seconds("REWIND_DEADLINE_SECONDS", 3600)?,
            max_body: settings.parse::<usize>(
                "REWIND_MAX_BODY_MB",
                |v| (1..=2048).contains(v),
                "write whole MiB from 1 to 2048",
            )? << 20,
            drain: seconds("REWIND_DRAIN_SECONDS", 600)?,
        })
    }
}

/// The setting that says what a timer function removes.
pub const PRUNE: &str = "REWIND_PRUNE";

/// How long one tick of a timer function may take.
///
/// # Errors
/// When the setting is wrong.
pub fn prune_budget(settings: &Settings) -> Result<Duration, ConfigError> {
    let fix = "write whole seconds from 1 to 3600, less than functionTimeout in host.json";
    settings.parse::<u64>("REWIND_PRUNE_SECONDS", |v| (1..=3600).contains(v), fix).map(Duration::from_secs)
}

/// The folder of host.json: what the host says, else the working directory.
pub fn app_root() -> PathBuf {
    std::env::var_os("FUNCTIONS_APP_ROOT_PATH").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(pairs: &[(&str, &str)]) -> Result<Account, ConfigError> {
        Account::from_settings(&Settings::from_pairs(pairs.iter().copied()))
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
    }
}

//! The Cosmos DB account: where it is, and how the caller authenticates.

use url::Url;

use super::{ConfigError, EMULATOR_KEY, Settings};
use crate::secret::Secret;

/// How the account is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// `https://<account>.documents.azure.com/`, or a loopback address.
    pub endpoint: Url,
    /// How the caller authenticates.
    pub credential: Credential,
    /// Whether operations of several partition keys are packed into one request.
    pub packs: bool,
}

/// How the caller authenticates.
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

/// The setting that says whether writes are packed.
const BULK: &str = "REWIND_BULK";

impl AccountSettings {
    /// Whether settings name an account.
    pub fn is_named(settings: &Settings) -> bool {
        ["CosmosDB", "CosmosDB__accountEndpoint"].iter().any(|name| settings.get(name).is_some())
    }

    /// A placeholder account for those who need none: a place on this machine that is never contacted. Blobs are
    /// reached as the signed-in developer.
    ///
    /// # Errors
    /// Never: the address is a constant.
    pub fn nowhere() -> Result<Self, ConfigError> {
        let endpoint = parse_endpoint("nowhere", "http://127.0.0.1:9/")?;
        Ok(Self { endpoint, credential: Credential::Developer, packs: true })
    }

    /// Reads the account from the settings, under the connection name that the binding uses.
    pub fn from_settings(settings: &Settings) -> Result<Self, ConfigError> {
        const NAME: &str = "CosmosDB";
        const ENDPOINT: &str = "CosmosDB__accountEndpoint";
        let packs = match settings.get(BULK).unwrap_or("auto").to_ascii_lowercase().as_str() {
            "auto" => true,
            "off" => false,
            other => {
                let fix = "write auto (pack writes where the account takes it) or off (one request for each write)";
                return Err(ConfigError::new(BULK, format!("{other:?} is not allowed"), fix));
            }
        };
        if let Some(endpoint) = settings.get(ENDPOINT) {
            let endpoint = parse_endpoint(ENDPOINT, endpoint)?;
            // A loopback endpoint that a flag names needs no key: `local` and the emulators share a public one.
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
            return Ok(Self { endpoint, credential, packs });
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
        let key =
            key.filter(|k| !k.expose().is_empty()).ok_or_else(|| ConfigError::new(NAME, "has no AccountKey", fix))?;
        if !key.expose().bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)) {
            return Err(ConfigError::new(NAME, "has an AccountKey that is not base64", fix));
        }
        Ok(Self { endpoint, credential: Credential::Key(key), packs })
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

/// Whether an address is on this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        None => false,
    }
}

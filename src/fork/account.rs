//! The account that a fork is.

use crate::config::{AccountSettings, ConfigError, Settings, is_loopback};

/// Why an address is not that of a fork.
#[derive(Debug, thiserror::Error)]
pub enum NotAFork {
    /// It is not an address, or the settings are wrong.
    #[error(transparent)]
    Account(#[from] ConfigError),
    /// It is not on this machine.
    #[error("it is on another machine")]
    Elsewhere,
}

/// The fork's account: it is on this machine, and accepts the public key. Nothing is contacted.
///
/// # Errors
/// When the address is not that of a fork.
pub fn account(mut settings: Settings, url: &str) -> Result<AccountSettings, NotAFork> {
    settings.set_override("CosmosDB__accountEndpoint", url.to_owned());
    settings.set_override("CosmosDB__credential", String::new());
    let account = AccountSettings::from_settings(&settings)?;
    if is_loopback(&account.endpoint) { Ok(account) } else { Err(NotAFork::Elsewhere) }
}

//! Sets up the surroundings of the account for `local` and `demo`: the product's containers, and the handler's
//! settings.

use super::{LocalCosmos, trigger::HandlerProgram};
use crate::{
    config::{AccountSettings, ConfigError, Names, Settings},
    cosmos::{
        Cosmos, Failure,
        provision::{self, ProvisionOptions},
    },
};

/// Why the environment cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// The address of the local account is not accepted.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// The containers cannot be created.
    #[error(transparent)]
    Cosmos(#[from] Failure),
    /// This program's own file is not found.
    #[error("cannot find this program's own file")]
    Program(#[source] std::io::Error),
}

/// Creates the product's containers in a local account, as `provision` does in a real one.
///
/// # Errors
/// When the account refuses.
pub async fn prepare(local: &LocalCosmos, names: &Names) -> Result<Cosmos, EnvironmentError> {
    let settings = Settings::from_pairs([("CosmosDB", local.connection_string())]);
    let cosmos = Cosmos::new(AccountSettings::from_settings(&settings)?);
    provision::provision(&cosmos, names, &ProvisionOptions::default()).await.map_err(Failure::from)?;
    Ok(cosmos)
}

/// Returns the app settings that the host would pass to the handler: the connection and the names. They override those
/// of the environment and of the folder's local.settings.json, which may name a production account.
pub fn handler_settings(local: &LocalCosmos, names: &Names) -> Vec<(String, String)> {
    [
        ("CosmosDB", local.connection_string().as_str()),
        ("CosmosDB__accountEndpoint", local.endpoint().as_str()),
        ("CosmosDB__credential", ""),
        ("COSMOS_DATABASE", &names.database),
        ("COSMOS_SOURCE_CONTAINER", &names.source),
        ("COSMOS_CHANGES_CONTAINER", &names.changes),
        ("COSMOS_LEASE_CONTAINER", &names.leases),
        // Without this, the client library captures a backtrace for every operation.
        ("RUST_BACKTRACE", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Returns this program as the handler.
///
/// # Errors
/// When the program's file is not found.
pub fn this_program() -> Result<HandlerProgram, EnvironmentError> {
    let executable = std::env::current_exe().map_err(EnvironmentError::Program)?;
    Ok(HandlerProgram::Program { executable, arguments: Some(vec!["serve".into()]) })
}

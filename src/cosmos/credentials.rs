//! Keyless authentication: the app's managed identity on Azure, the signed-in developer elsewhere.

use std::sync::Arc;

use azure_core::{credentials::TokenCredential, http::ClientOptions};
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};

use super::{Failure, late_transport};
use crate::config::Credential;

/// A token credential, for everything but keys.
pub(crate) fn token(credential: &Credential) -> Result<Arc<dyn TokenCredential>, Failure> {
    let fail = |e: azure_core::Error| Failure::denied("sign in".into(), e.to_string());
    Ok(match credential {
        Credential::ManagedIdentity { client_id } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                client_options: ClientOptions { transport: Some(late_transport(true)), ..Default::default() },
            };
            ManagedIdentityCredential::new(Some(options)).map_err(fail)?
        }
        Credential::Developer | Credential::Key(_) => DeveloperToolsCredential::new(None).map_err(fail)?,
    })
}

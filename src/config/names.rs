//! Names of the database and its containers.

use super::{ConfigError, SETTINGS, Settings};

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
    /// Whether a database or a container can have this name: the service's own rule.
    pub fn is_one(text: &str) -> bool {
        let wrong = |c: char| matches!(c, '/' | '\\' | '?' | '#') || c.is_control();
        !text.trim().is_empty() && text.len() <= 255 && !text.contains(wrong)
    }

    /// Reads the names for one function, or the common ones.
    pub fn from_settings(settings: &Settings, function: Option<&str>) -> Result<Self, ConfigError> {
        let get = |name: &str| -> Result<String, ConfigError> {
            let default = SETTINGS.iter().find(|s| s.name == name).map_or("", |s| s.default);
            let value = settings.get_for(function, name).unwrap_or(default).to_owned();
            if !Self::is_one(&value) {
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

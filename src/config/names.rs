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

/// Why containers cannot be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadContainers {
    /// A name that no container can have.
    #[error("{0:?} is not the name of a container")]
    NoName(String),
    /// The history of a container is not given, and no function captures it.
    #[error("no function captures {0}, so its history is not known")]
    NoHistory(String),
    /// Two are the same, or would share a history.
    #[error("{0} and {1} are not two containers with a history each")]
    Same(String, String),
}

impl Names {
    /// Database and container of the history.
    pub fn history(&self) -> String {
        format!("{}/{}", self.database, self.changes)
    }

    /// Several containers, each with its history, as `orders=order-changes`, or with that of the first of `known` that
    /// has it. All other names come from `common`.
    ///
    /// # Errors
    /// When a name is invalid, a history is not known, or two containers would share one.
    pub fn several(texts: &[String], common: &Self, known: &[Self]) -> Result<Vec<Self>, BadContainers> {
        let mut all: Vec<Self> = Vec::new();
        for text in texts {
            let (source, changes) = match text.split_once('=') {
                Some((source, changes)) => (source, Some(changes)),
                None => (text.as_str(), None),
            };
            if let Some(wrong) = [Some(source), changes].into_iter().flatten().find(|name| !Self::is_one(name)) {
                return Err(BadContainers::NoName(wrong.to_owned()));
            }
            let names = match changes {
                Some(changes) => Self { source: source.to_owned(), changes: changes.to_owned(), ..common.clone() },
                None => {
                    let known = known.iter().find(|names| names.source == *text).cloned();
                    known.ok_or_else(|| BadContainers::NoHistory(text.clone()))?
                }
            };
            if let Some(other) = all.iter().find(|o| o.source == names.source || o.changes == names.changes) {
                return Err(BadContainers::Same(other.source.clone(), names.source));
            }
            all.push(names);
        }
        Ok(all)
    }

    /// Whether a database or a container can have this name, by the service's own rule.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_containers_have_a_history_each() {
        let names = |source: &str, changes: &str| Names {
            database: "dev".into(),
            source: source.into(),
            changes: changes.into(),
            leases: "leases".into(),
        };
        let known = [names("events", "changes"), names("orders", "order-changes")];
        let several = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Names::several(&texts, &known[0], &known)
        };
        assert_eq!(several(&["orders", "events"]).unwrap(), [known[1].clone(), known[0].clone()]);
        assert_eq!(several(&["zips=old"]).unwrap(), [names("zips", "old")]);
        assert_eq!(several(&["a/b=c"]), Err(BadContainers::NoName("a/b".into())));
        assert_eq!(several(&["zips"]), Err(BadContainers::NoHistory("zips".into())));
        assert_eq!(several(&["events", "zips=changes"]), Err(BadContainers::Same("events".into(), "zips".into())));
    }
}

//! The flags that name the account, the database and the containers; every command that talks to Cosmos has them.

use clap::Args;

use crate::{
    config::{self, AccountSettings, Names, Settings},
    console::CliError,
    cosmos::{Cosmos, Shard},
};

/// Set on each flag: a heading for all that follow would include the command's own flags.
const HEADING: &str = "Connection (settings: environment or local.settings.json)";

/// Which account, database and containers; each flag beats its setting
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectionArgs {
    /// Account endpoint [setting: CosmosDB__accountEndpoint]; on loopback the emulators' public key is used
    #[arg(long, value_name = "URL", help_heading = HEADING)]
    pub endpoint: Option<String>,
    /// Database [setting: COSMOS_DATABASE, default: dev]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub database: Option<String>,
    /// Source (live) container [setting: COSMOS_SOURCE_CONTAINER, default: events]; or the address of a MongoDB
    /// deployment [setting: MONGODB_URI]
    #[arg(long, value_name = "NAME|URL", help_heading = HEADING)]
    pub source: Option<String>,
    /// Collection, when the source is a MongoDB deployment; --database is then its database
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub collection: Option<String>,
    /// Kind of MongoDB server: mongodb, cosmos-ru or documentdb [default: ask the server]
    #[arg(long, value_name = "KIND", help_heading = HEADING)]
    pub dialect: Option<String>,
    /// Database of the history and the leases, when the source is a MongoDB deployment [setting: COSMOS_DATABASE,
    /// default: dev]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub changes_database: Option<String>,
    /// History container [setting: COSMOS_CHANGES_CONTAINER, default: changes]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub changes: Option<String>,
    /// Lease container [setting: COSMOS_LEASE_CONTAINER, default: leases]
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub leases: Option<String>,
}

impl ConnectionArgs {
    /// The settings, overridden by these flags.
    ///
    /// # Errors
    /// When local.settings.json is broken.
    pub fn settings(&self) -> Result<Settings, CliError> {
        self.settings_in(&config::app_root())
    }

    /// The same, with the local.settings.json of another folder.
    ///
    /// # Errors
    /// When local.settings.json is broken.
    pub(super) fn settings_in(&self, app_root: &std::path::Path) -> Result<Settings, CliError> {
        self.refuse_strange_address()?;
        Ok(self.over(Settings::load(app_root)?))
    }

    /// Overrides settings with these flags.
    pub(super) fn over(&self, mut settings: Settings) -> Settings {
        // With a MongoDB deployment these two name its database and collection.
        let is_mongo = self.uri(&settings).is_some();
        let (database, container) =
            if is_mongo { (&self.changes_database, &None) } else { (&self.database, &self.source) };
        for (name, flag) in [
            ("CosmosDB__accountEndpoint", &self.endpoint),
            ("COSMOS_DATABASE", database),
            ("COSMOS_SOURCE_CONTAINER", container),
            ("COSMOS_CHANGES_CONTAINER", &self.changes),
            ("COSMOS_LEASE_CONTAINER", &self.leases),
        ] {
            if let Some(value) = flag {
                settings.set_override(name, value.clone());
            }
        }
        settings
    }

    /// The settings, overridden by these flags and by `--dead-letters`.
    ///
    /// # Errors
    /// As [`ConnectionArgs::settings`].
    pub(super) fn settings_with(&self, dead_letters: Option<&String>) -> Result<Settings, CliError> {
        let mut settings = self.settings()?;
        if let Some(place) = dead_letters {
            settings.set_override("REWIND_DEAD_LETTERS", place.clone());
        }
        Ok(settings)
    }

    /// The container that `source`, `changes` or `leases` stands for; any other name is that of a container.
    pub fn container_name<'a>(names: &'a Names, text: &'a str) -> &'a str {
        match text {
            "source" => &names.source,
            "changes" => &names.changes,
            "leases" => &names.leases,
            other => other,
        }
    }

    /// The same for another container and its history.
    pub(super) fn of(&self, names: &Names) -> Self {
        Self {
            database: Some(names.database.clone()),
            source: Some(names.source.clone()),
            changes: Some(names.changes.clone()),
            leases: Some(names.leases.clone()),
            ..self.clone()
        }
    }

    /// The connection and the names; nothing is contacted yet.
    ///
    /// # Errors
    /// When a setting is missing or wrong, or the source is not a container.
    pub fn open(&self) -> Result<(Cosmos, Names), CliError> {
        self.open_with(&self.settings()?)
    }

    /// The same with settings that were already read.
    ///
    /// # Errors
    /// As [`ConnectionArgs::open`].
    pub(super) fn open_with(&self, settings: &Settings) -> Result<(Cosmos, Names), CliError> {
        self.refuse_mongo(settings)?;
        let names = Names::from_settings(settings, None)?;
        Ok((Cosmos::new(AccountSettings::from_settings(settings)?), names))
    }
}

/// Which part of the work, and how fast: flags of commands that read the whole history
#[derive(Debug, Args)]
pub struct PartArgs {
    /// Only the i-th of n equal parts of the documents, by partition key, so that n machines can share the work
    #[arg(long, value_name = "I/N")]
    pub(super) feed_range: Option<Shard>,
    /// At most this many request units a second, on average
    #[arg(long, value_name = "RU/S", value_parser = ru_limit)]
    pub(super) ru_limit: Option<f64>,
}

/// A valid name for a container.
pub(super) fn container(text: &str) -> Result<String, String> {
    if Names::is_one(text) {
        return Ok(text.to_owned());
    }
    Err("write a container's name: up to 255 characters, without / \\ ? #".into())
}

/// A limit on request units a second.
pub(super) fn ru_limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(limit) if limit.is_finite() && limit >= 1.0 => Ok(limit),
        _ => Err("write a number of request units a second, 1 or more".into()),
    }
}

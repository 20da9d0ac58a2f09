//! A MongoDB deployment as the source: `--source mongodb://…`, `--database`, `--collection`, `--dialect`.

use super::{ConnectionArgs, opened::Opened};
use crate::{
    config::{Names, Settings, is_mongo_address},
    console::CliError,
    cosmos::Cosmos,
    follow::FollowedSource,
};

#[cfg(not(feature = "mongodb"))]
fn built_without() -> CliError {
    CliError::usage(
        "--source: this program was built without MongoDB",
        "take a build with the feature mongodb, which is on unless it is left out",
    )
}

#[cfg(not(feature = "mongodb"))]
fn known_as(_: &str) -> Result<String, CliError> {
    Err(built_without())
}

/// The text under which a document is known.
#[cfg(feature = "mongodb")]
fn known_as(id: &str) -> Result<String, CliError> {
    crate::bson_text::known_as(id)
        .map_err(|e| CliError::usage(format!("--id {id:?}: {e}"), "take the id from what another command shows"))
}

impl ConnectionArgs {
    /// The same settings for the database and the collection that the flags name. A named container beats the setting.
    pub(super) fn uri<'a>(&'a self, settings: &'a Settings) -> Option<&'a str> {
        match self.source.as_deref() {
            Some(text) => Some(text).filter(|text| is_mongo_address(text)),
            None => settings.get("MONGODB_URI"),
        }
    }

    /// Refuses an address of another kind, which would be taken for a container's name. The message shows nothing of
    /// it: it may hold a password.
    ///
    /// # Errors
    /// When the source is one.
    pub(super) fn refuse_strange_address(&self) -> Result<(), CliError> {
        // No container name contains a slash.
        match &self.source {
            Some(text) if text.contains(":/") && !is_mongo_address(text) => Err(CliError::usage(
                "--source is neither a container's name nor the address of a MongoDB deployment",
                "an address begins with mongodb:// or mongodb+srv://; a container is named, and its account is --endpoint",
            )),
            _ => Ok(()),
        }
    }

    /// The address of the deployment, when the source is one.
    pub(super) fn mongo_uri<'a>(&'a self, settings: &'a Settings) -> Result<Option<&'a str>, CliError> {
        let uri = self.uri(settings);
        for (flag, value) in [
            ("--collection", &self.collection),
            ("--dialect", &self.dialect),
            ("--changes-database", &self.changes_database),
        ] {
            if uri.is_none() && value.is_some() {
                return Err(CliError::usage(
                    format!("{flag} is for a MongoDB deployment, and the source is a container"),
                    "set MONGODB_URI to the deployment's address (or add --source mongodb://HOST/), or leave it out",
                ));
            }
        }
        Ok(uri)
    }

    /// Refuses a deployment, for a command that only works on containers.
    ///
    /// # Errors
    /// When the source is one.
    pub(super) fn refuse_mongo(&self, settings: &Settings) -> Result<(), CliError> {
        match self.mongo_uri(settings)? {
            None => Ok(()),
            Some(_) => Err(CliError::usage(
                "the source is a MongoDB deployment, and this command is for containers of Cosmos DB",
                "provision, follow, history, show, diff, find, coverage, verify, backup --at, restore, revert, undo, prune \
                 and erase know MongoDB",
            )),
        }
    }

    /// Refuses another spelling of an id: nothing is found under it.
    ///
    /// # Errors
    /// When the source is a deployment, where no document is known under this text.
    pub(super) fn check_id(&self, settings: &Settings, id: &str) -> Result<(), CliError> {
        if self.mongo_uri(settings)?.is_none() {
            return Ok(());
        }
        let known_as = known_as(id)?;
        if known_as == id {
            return Ok(());
        }
        let problem = format!("no document of MongoDB is known as {id:?}");
        Err(CliError::usage(problem, format!("write --id={known_as}: the text of an _id has one spelling")))
    }

    /// The followed source.
    ///
    /// # Errors
    /// When the address or the kind of server is invalid, or this program was built without MongoDB.
    pub(super) fn followed(&self, settings: &Settings) -> Result<FollowedSource, CliError> {
        match self.mongo_uri(settings)? {
            None => Ok(FollowedSource::Container),
            Some(uri) => self.mongo_followed(uri),
        }
    }

    #[cfg(not(feature = "mongodb"))]
    fn mongo_followed(&self, _: &str) -> Result<FollowedSource, CliError> {
        Err(built_without())
    }

    #[cfg(not(feature = "mongodb"))]
    pub(super) async fn mongo_opened(&self, _: &str, _: Cosmos, _: Names) -> Result<Opened, CliError> {
        Err(built_without())
    }

    /// The collection, and the account of its history.
    #[cfg(feature = "mongodb")]
    pub(super) async fn mongo_opened(&self, uri: &str, cosmos: Cosmos, names: Names) -> Result<Opened, CliError> {
        use crate::{
            clock::SystemClock,
            frontier::MongoAccount,
            mongo::{Mongo, StreamScope},
        };

        let FollowedSource::MongoDb { address, dialect, scope: StreamScope::Collection { database, collection } } =
            self.mongo_followed(uri)?
        else {
            return Err(CliError::usage(
                "the collection is not named",
                "name it with --database and --collection: a history is of one collection",
            ));
        };
        let clock = SystemClock::shared();
        let mongo = Mongo::connect(address, dialect).await?;
        let names = Names { source: collection.clone(), ..names };
        let elsewhere = MongoAccount { cosmos: cosmos.clone(), mongo, database, collection, clock };
        Ok(Opened { cosmos, names, elsewhere: Some(Box::new(elsewhere)) })
    }

    #[cfg(feature = "mongodb")]
    fn mongo_followed(&self, uri: &str) -> Result<FollowedSource, CliError> {
        use crate::mongo::{Address, BadScope, Dialect, StreamScope};
        let from = if self.source.is_some() { "--source" } else { "setting MONGODB_URI" };
        let address =
            Address::parse(uri).map_err(|e| CliError::usage(format!("{from} {e}"), "percent-encode the password"))?;
        address.check().map_err(|problem| {
            CliError::usage(
                format!("{from} {address}: {problem}"),
                "write mongodb://USER:PASSWORD@HOST[:PORT]/?OPTION=VALUE, and percent-encode the password",
            )
        })?;
        let dialect = self.dialect.as_deref().map(str::parse::<Dialect>).transpose();
        let named = self.dialect.as_deref().unwrap_or_default();
        let dialect =
            dialect.map_err(|e| CliError::usage(format!("--dialect {named:?} is not a kind of server"), e))?;
        let scope = StreamScope::of(self.database.clone(), self.collection.clone()).map_err(|bad| match bad {
            BadScope::EmptyDatabase => CliError::usage("--database is empty", "name one, or leave the flag out"),
            BadScope::EmptyCollection => CliError::usage("--collection is empty", "name one, or leave the flag out"),
            BadScope::NoDatabase => CliError::usage("--collection without its database", "add --database NAME"),
        })?;
        Ok(FollowedSource::MongoDb { address, dialect, scope })
    }
}

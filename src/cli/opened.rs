//! The account that a command works on, whichever database holds the documents.

use super::ConnectionArgs;
use crate::{
    config::{AccountSettings as Address, Names, Settings},
    console::{CliError, Ui},
    cosmos::Cosmos,
    history::{Account, AnyContext},
};

/// The account of a command, opened from its connection flags.
pub(super) struct Opened {
    /// The account of the history; it also holds the documents, unless they are in MongoDB.
    pub(super) cosmos: Cosmos,
    /// Database and containers; for documents in MongoDB, the source is their collection.
    pub(super) names: Names,
    pub(super) elsewhere: Option<Box<dyn Account>>,
}

impl Opened {
    /// The account, as use cases see it.
    pub(super) fn account(&self) -> &dyn Account {
        self.elsewhere.as_deref().unwrap_or(&self.cosmos)
    }

    /// The context for use cases.
    pub(super) fn context<'a>(&'a self, ui: &'a Ui) -> AnyContext<'a> {
        AnyContext { account: self.account(), ..ui.context(&self.cosmos, &self.names).any() }
    }

    /// The same for a command that finishes what it has begun on Ctrl-C or SIGTERM.
    pub(super) fn careful_context<'a>(&'a self, ui: &'a Ui) -> AnyContext<'a> {
        AnyContext { account: self.account(), ..ui.careful_context(&self.cosmos, &self.names).any() }
    }
}

impl ConnectionArgs {
    /// Opens what the flags name. A MongoDB deployment is asked what it is; a Cosmos DB account is not contacted yet.
    ///
    /// # Errors
    /// When a setting is missing or wrong, or the deployment does not answer.
    pub(super) async fn opened(&self) -> Result<Opened, CliError> {
        self.opened_with(&self.settings()?).await
    }

    /// The same with settings that were already read.
    ///
    /// # Errors
    /// As [`ConnectionArgs::opened`].
    pub(super) async fn opened_with(&self, settings: &Settings) -> Result<Opened, CliError> {
        let names = Names::from_settings(settings, None)?;
        let cosmos = Cosmos::new(Address::from_settings(settings)?);
        match self.mongo_uri(settings)? {
            None => Ok(Opened { cosmos, names, elsewhere: None }),
            Some(uri) => self.mongo_opened(uri, cosmos, names).await,
        }
    }
}

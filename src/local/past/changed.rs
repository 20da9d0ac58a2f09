//! Lists the changed documents of a copy, each with its state before the change.

use std::sync::{Arc, Weak};

use futures::{FutureExt as _, future::BoxFuture};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::loading::Loader;
use crate::{
    causes::chain,
    change::record::{hex, own_text},
    fork::ForkedDocument,
    local::container::{Import, LocalContainer, Refresh},
};

/// Lists the changes in the copies of one database.
#[derive(Debug)]
pub(super) struct ForkChanges {
    /// The account that was copied.
    account: String,
    forks: Vec<Fork>,
}

/// A copy, and the number of its changed documents that are already listed.
#[derive(Debug)]
struct Fork {
    loader: Weak<Loader>,
    listed: Mutex<usize>,
}

impl ForkChanges {
    pub(super) fn of<'a>(account: &str, loaders: impl Iterator<Item = &'a Arc<Loader>>) -> Self {
        let forks = loaders.map(|loader| Fork { loader: Arc::downgrade(loader), listed: Mutex::new(0) });
        Self { account: account.to_owned(), forks: forks.collect() }
    }

    async fn take_in(&self, fork: &Fork, list: &LocalContainer) -> Result<(), String> {
        let loader = fork.loader.upgrade().ok_or("the account is being closed")?;
        let mut listed = fork.listed.lock().await;
        let new = loader.container.read().await.originals_after(*listed).to_vec();
        for original in new {
            let before = original.text.as_ref().map(|text| own_text(&String::from_utf8_lossy(text))).transpose();
            let before = before.map_err(|e| chain(&e))?;
            let pk = serde_json::from_str(&original.partition_key).map_err(|e| chain(&e))?;
            let name = json!([loader.source, original.id, pk]).to_string();
            let text = ForkedDocument {
                id: hex(&Sha256::digest(name.as_bytes())),
                container: loader.source.clone(),
                document_id: original.id,
                pk,
                at: loader.at.seconds(),
                account: self.account.clone(),
                masked: loader.redactor.is_some(),
                before: before.and_then(|text| serde_json::value::RawValue::from_string(text).ok()),
            };
            let text = serde_json::to_string(&text).map_err(|e| chain(&e))?;
            let ts = u64::try_from(loader.at.seconds()).unwrap_or_default();
            list.import(Import { text, etag: None, ts }, false).await?;
            *listed += 1;
        }
        Ok(())
    }
}

impl Refresh for ForkChanges {
    fn refresh<'a>(&'a self, list: &'a LocalContainer) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for fork in &self.forks {
                self.take_in(fork, list).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

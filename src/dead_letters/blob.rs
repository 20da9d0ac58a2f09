//! Dead letters as blobs of one container: authorised by a SAS in the URL, or keyless.

use azure_core::http::{ClientOptions, ExponentialRetryOptions, RequestContent, RetryOptions, StatusCode};
use azure_storage_blob::{BlobContainerClient, BlobContainerClientOptions};
use futures::TryStreamExt as _;

use super::StoreError;
use crate::{
    config::{BlobUrl, Credential},
    cosmos,
};

/// How often a request is repeated: seconds, where the client's own default is over a minute. The host delivers a
/// batch again whose letter could not be kept, and until then nothing else of that lease is captured.
const RETRIES: u32 = 4;

/// A blob container of letters.
pub struct BlobContainer {
    client: BlobContainerClient,
    shown: String,
}

impl std::fmt::Debug for BlobContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobContainer({})", self.shown)
    }
}

impl BlobContainer {
    pub(super) fn open(url: &BlobUrl, credential: &Credential) -> Result<Self, StoreError> {
        let shown = url.to_string();
        let fail = |message: String| StoreError { action: "open", location: shown.clone(), message };
        let token = if url.has_sas() {
            None
        } else {
            Some(cosmos::token_credential(credential).map_err(|e| fail(e.to_string()))?)
        };
        let retry = RetryOptions::exponential(ExponentialRetryOptions { max_retries: RETRIES, ..Default::default() });
        let options = BlobContainerClientOptions {
            client_options: ClientOptions { retry, ..Default::default() },
            ..Default::default()
        };
        let client =
            BlobContainerClient::new(url.expose().clone(), token, Some(options)).map_err(|e| fail(message(&e)))?;
        Ok(Self { client, shown })
    }

    fn error(&self, action: &'static str) -> impl FnOnce(azure_core::Error) -> StoreError {
        let location = self.shown.clone();
        move |e| StoreError { action, location, message: message(&e) }
    }

    pub(super) async fn put(&self, name: &str, text: Vec<u8>) -> Result<(), StoreError> {
        let content = RequestContent::from(text);
        self.client.blob_client(name).upload(content, None).await.map_err(self.error("write"))?;
        Ok(())
    }

    pub(super) async fn list(&self) -> Result<Vec<String>, StoreError> {
        let mut blobs = self.client.list_blobs(None).map_err(self.error("list"))?;
        let mut names = Vec::new();
        while let Some(blob) = blobs.try_next().await.map_err(self.error("list"))? {
            names.extend(blob.name.filter(|n| n.ends_with(".json")));
        }
        Ok(names)
    }

    pub(super) async fn get(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let response = self.client.blob_client(name).download(None).await.map_err(self.error("read"))?;
        let bytes = response.body.collect().await.map_err(self.error("read"))?;
        Ok(bytes.to_vec())
    }

    pub(super) async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.client.blob_client(name).delete(None).await {
            Err(e) if e.http_status() != Some(StatusCode::NotFound) => Err(self.error("delete")(e)),
            _ => Ok(()),
        }
    }
}

/// The error without its details: they may quote the URL, and with it the signature.
fn message(error: &azure_core::Error) -> String {
    match error.http_status() {
        Some(StatusCode::NotFound) => "404: there is no such container or blob; create the container first".into(),
        Some(StatusCode::Forbidden | StatusCode::Unauthorized) => {
            "the store refuses the caller: check the SAS (read, write, list, delete) or the identity's role".into()
        }
        Some(status) => format!("the store answered {status}"),
        None => "the store cannot be reached".into(),
    }
}

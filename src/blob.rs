//! One container of Azure Blob Storage, authorised by a SAS in the URL, by an identity, or by Azurite's published key.

use std::{collections::BTreeMap, io, num::NonZero, sync::Arc, time::Duration};

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::{
    ClientOptions, Context, Etag, ExponentialRetryOptions, Method, Request, RequestContent, RetryOptions, StatusCode,
    Url,
    headers::{HeaderName, Headers},
    policies::{Policy, PolicyResult},
};
use azure_storage_blob::{
    BlobContainerClient, BlobContainerClientOptions,
    models::{BlobClientUploadOptions, BlobContainerClientListBlobsOptions},
};
use base64::Engine as _;
use futures::{Stream, TryStreamExt as _, future::ready};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{
    chance::jitter,
    clock::{Clock as _, SystemClock},
    config::{BlobUrl, Credential, is_loopback},
    cosmos::{self, Failure},
};

/// How long a request is retried: seconds, where the client's default is over a minute. Whoever stores something here
/// is waiting for it, and can come back later.
const RETRIES: u32 = 4;
/// The pause before an answer that was cut off is asked for again; longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How many parts of one large blob are written concurrently: what the client would choose on a small machine. It
/// counts the processors for every blob otherwise, which costs more than sending a small one.
const PARTS_AT_ONCE: Option<NonZero<usize>> = NonZero::new(8);
/// Azurite's only account and the key that Microsoft publishes for it: no secret.
/// <https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>
const AZURITE: (&str, &str) =
    ("devstoreaccount1", "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==");

/// A blob container.
pub struct BlobContainer {
    client: BlobContainerClient,
    shown: String,
    signed: bool,
}

impl std::fmt::Debug for BlobContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobContainer({})", self.shown)
    }
}

/// Why a container failed or refused. Never shows the signature.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The container or the blob does not exist (404).
    #[error("404: there is no such container or blob; create the container first")]
    NotThere,
    /// The caller is not allowed to (401, 403).
    #[error("the store refuses the caller: check the SAS (read, write, list, delete) or the identity's role")]
    Denied,
    /// Any other answer that is not a success.
    #[error("the store answered {0}")]
    Answer(StatusCode),
    /// There was no answer. Of the cause only its kind is told: its text may quote the URL, and with it the signature.
    #[error("the store cannot be reached{}", .0.map(|kind| format!(": {kind}")).unwrap_or_default())]
    Unreachable(Option<io::ErrorKind>),
    /// There is no identity to authenticate with.
    #[error(transparent)]
    Identity(Failure),
}

impl BlobError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotThere | Self::Denied | Self::Identity(_) => false,
            Self::Answer(StatusCode::RequestTimeout | StatusCode::TooManyRequests) => true,
            Self::Answer(status) => !(400..500).contains(&u16::from(*status)),
            Self::Unreachable(_) => true,
        }
    }
}

impl BlobContainer {
    /// Opens a container without contacting it. A URL without a signature uses the identity of `credential`.
    ///
    /// # Errors
    /// When no client can be made for the URL.
    pub fn open(url: &BlobUrl, credential: &Credential) -> Result<Self, BlobError> {
        let local = url.expose().scheme() == "http" && is_loopback(url.expose());
        let mut per_try_policies: Vec<Arc<dyn Policy>> = vec![Arc::new(OwnAnswers)];
        let token = if url.has_sas() {
            None
        } else if local {
            per_try_policies.push(Arc::new(AzuriteKey));
            None
        } else {
            let token = cosmos::token_credential(credential);
            Some(token.map_err(BlobError::Identity)?)
        };
        let retry = RetryOptions::exponential(ExponentialRetryOptions { max_retries: RETRIES, ..Default::default() });
        let options = BlobContainerClientOptions {
            // Blobs are read as they are stored.
            client_options: ClientOptions {
                retry,
                per_try_policies,
                transport: Some(cosmos::late_transport(false)),
                ..Default::default()
            },
            ..Default::default()
        };
        let client = BlobContainerClient::new(url.expose().clone(), token, Some(options)).map_err(|e| error(&e))?;
        Ok(Self { client, shown: url.to_string(), signed: url.has_sas() })
    }

    /// The container's URL without its signature.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Writes a blob, and replaces one of the same name.
    ///
    /// # Errors
    /// When it may not have been stored.
    pub async fn put(&self, name: &str, content: Vec<u8>) -> Result<(), BlobError> {
        self.upload(name, content, BlobClientUploadOptions::default()).await.map_err(|e| error(&e))
    }

    /// Writes a blob unless one of the same name exists; returns false when it does.
    ///
    /// # Errors
    /// When it may not have been stored.
    pub async fn create(&self, name: &str, content: Vec<u8>, content_type: &str) -> Result<bool, BlobError> {
        let options =
            BlobClientUploadOptions { blob_content_type: Some(content_type.to_owned()), ..Default::default() };
        match self.upload(name, content, options.if_not_exists()).await {
            Ok(()) => Ok(true),
            Err(e) if exists(&e) => Ok(false),
            Err(e) => Err(error(&e)),
        }
    }

    /// Checks whether blobs may be written, with a write that is never carried out: its condition names an etag that no
    /// blob has. The service checks the caller's rights first.
    ///
    /// # Errors
    /// When they may not, or there is no container.
    pub async fn probe(&self) -> Result<(), BlobError> {
        const NAME: &str = "cosmos-rewind-may-write";
        let options = BlobClientUploadOptions { if_match: Some("\"0x0\"".into()), ..Default::default() };
        match self.upload(NAME, Vec::new(), options).await {
            Err(e) if e.http_status() == Some(StatusCode::PreconditionFailed) => Ok(()),
            Err(e) => Err(error(&e)),
            // Something on the way has dropped the condition.
            Ok(()) => self.delete(NAME).await,
        }
    }

    async fn upload(
        &self,
        name: &str,
        content: Vec<u8>,
        options: BlobClientUploadOptions<'_>,
    ) -> azure_core::Result<()> {
        let options = BlobClientUploadOptions { parallel: PARTS_AT_ONCE, ..options };
        self.client.blob_client(name).upload(RequestContent::from(content), Some(options)).await.map(drop)
    }

    /// Whether the caller authenticates with a signature rather than an identity.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// Names of all blobs, in the service's order.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn list(&self) -> Result<Vec<String>, BlobError> {
        let mut blobs = self.client.list_blobs(None).map_err(|e| error(&e))?;
        let mut names = Vec::new();
        while let Some(blob) = blobs.try_next().await.map_err(|e| error(&e))? {
            names.extend(blob.name);
        }
        Ok(names)
    }

    /// Names of the blobs with a prefix, in the service's order.
    ///
    /// # Errors
    /// When the request cannot be made; errors of single pages come with the stream.
    pub fn names_below(
        &self,
        prefix: String,
    ) -> Result<impl Stream<Item = Result<String, BlobError>> + Unpin + use<>, BlobError> {
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix).filter(|prefix| !prefix.is_empty()),
            ..Default::default()
        };
        let blobs = self.client.list_blobs(Some(options)).map_err(|e| error(&e))?;
        Ok(blobs.map_err(|e| error(&e)).try_filter_map(|blob| ready(Ok(blob.name))))
    }

    /// Reads a blob.
    ///
    /// # Errors
    /// When it does not exist or cannot be read.
    pub async fn get(&self, name: &str) -> Result<Vec<u8>, BlobError> {
        Ok(self.get_with_etag(name).await?.0)
    }

    /// The same, with the blob's etag.
    ///
    /// # Errors
    /// As above.
    pub async fn get_with_etag(&self, name: &str) -> Result<(Vec<u8>, Option<Etag>), BlobError> {
        let client = self.client.blob_client(name);
        let mut pause = FIRST_PAUSE;
        for left in (0..RETRIES).rev() {
            let response = client.download(None).await.map_err(|e| error(&e))?;
            let etag = response.properties.etag.clone();
            match response.body.collect().await.map_err(|e| error(&e)) {
                Ok(body) => return Ok((body.to_vec(), etag)),
                // The client repeats a request that is not answered, but not one whose answer ends too early.
                Err(e) if left > 0 && e.is_transient() => tokio::time::sleep(pause.mul_f64(jitter())).await,
                Err(e) => return Err(e),
            }
            pause *= 2;
        }
        Err(BlobError::Unreachable(None))
    }

    /// Replaces a blob that still has this etag; returns false when it was changed or deleted, or when an attempt that
    /// was not answered had replaced it: it has to be read again.
    ///
    /// # Errors
    /// When it may not have been stored.
    pub async fn replace(&self, name: &str, content: Vec<u8>, etag: Option<Etag>) -> Result<bool, BlobError> {
        match self.upload(name, content, BlobClientUploadOptions { if_match: etag, ..Default::default() }).await {
            Ok(()) => Ok(true),
            Err(e) if e.http_status() == Some(StatusCode::PreconditionFailed) => Ok(false),
            Err(e) => Err(error(&e)),
        }
    }

    /// Deletes a blob; one that is gone already counts as deleted.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn delete(&self, name: &str) -> Result<(), BlobError> {
        match self.client.blob_client(name).delete(None).await {
            Err(e) if e.http_status() != Some(StatusCode::NotFound) => Err(error(&e)),
            _ => Ok(()),
        }
    }
}

/// Whether a blob was not written because one of the same name exists. Not every 409 says so: a container that is being
/// deleted answers with it, too.
fn exists(error: &azure_core::Error) -> bool {
    let ErrorKind::HttpResponse { error_code: Some(code), .. } = error.kind() else { return false };
    matches!(code.as_str(), "BlobAlreadyExists" | "ConditionNotMet")
}

/// The error without its details, which may quote the URL and with it the signature.
fn error(error: &azure_core::Error) -> BlobError {
    match error.http_status() {
        Some(StatusCode::NotFound) => BlobError::NotThere,
        Some(StatusCode::Forbidden | StatusCode::Unauthorized) => BlobError::Denied,
        Some(status) => BlobError::Answer(status),
        None => BlobError::Unreachable(kind_of(error)),
    }
}

/// What the operating system says about a connection.
fn kind_of(error: &azure_core::Error) -> Option<io::ErrorKind> {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).last()
}

/// Accepts only the status that the service itself sends for a successful write: a proxy or a gateway in between may
/// send another one.
#[derive(Debug)]
struct OwnAnswers;

#[async_trait]
impl Policy for OwnAnswers {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let expected = match request.method() {
            Method::Put => Some(StatusCode::Created),
            Method::Delete => Some(StatusCode::Accepted),
            _ => None,
        };
        let answer = pass_on(ctx, request, next).await?;
        if answer.status().is_success() && expected.is_some_and(|expected| expected != answer.status()) {
            return Err(azure_core::Error::with_message(
                ErrorKind::Io,
                "the answer does not come from the blob service",
            ));
        }
        Ok(answer)
    }
}

async fn pass_on(ctx: &Context<'_>, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
    match next.split_first() {
        Some((first, rest)) => first.send(ctx, request, rest).await,
        None => Err(azure_core::Error::with_message(ErrorKind::Other, "no transport")),
    }
}

/// Signs requests to Azurite with its published key, so that a blob store on this machine needs no SAS.
/// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>
#[derive(Debug)]
struct AzuriteKey;

#[async_trait]
impl Policy for AzuriteKey {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let date = SystemClock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        request.insert_header("x-ms-date", date);
        let text = string_to_sign(request.method().as_ref(), request.url(), request.headers(), request.body().len());
        let base64 = base64::engine::general_purpose::STANDARD;
        // Both are constants of the right form; the store would refuse an empty signature.
        let key = base64.decode(AZURITE.1).unwrap_or_default();
        let signature = Hmac::<Sha256>::new_from_slice(&key).map(|mut mac| {
            mac.update(text.as_bytes());
            base64.encode(mac.finalize().into_bytes())
        });
        request.insert_header("authorization", format!("SharedKey {}:{}", AZURITE.0, signature.unwrap_or_default()));
        pass_on(ctx, request, next).await
    }
}

fn string_to_sign(method: &str, url: &Url, headers: &Headers, length: Option<u64>) -> String {
    let header = |name: &'static str| headers.get_optional_string(&HeaderName::from_static(name)).unwrap_or_default();
    let length = length.filter(|n| *n > 0).map_or_else(String::new, |n| n.to_string());
    let mut text = format!("{method}\n{}\n{}\n{length}\n", header("content-encoding"), header("content-language"));
    // The date is in x-ms-date.
    for name in [
        "content-md5",
        "content-type",
        "",
        "if-modified-since",
        "if-match",
        "if-none-match",
        "if-unmodified-since",
        "range",
    ] {
        text.push_str(&if name.is_empty() { String::new() } else { header(name) });
        text.push('\n');
    }
    let own: BTreeMap<&str, &str> =
        headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).filter(|(n, _)| n.starts_with("x-ms-")).collect();
    for (name, value) in own {
        text.push_str(&format!("{name}:{}\n", value.trim()));
    }
    text.push_str(&format!("/{}{}", AZURITE.0, url.path()));
    let mut pairs: Vec<(String, String)> = url.query_pairs().map(|(n, v)| (n.to_lowercase(), v.into_owned())).collect();
    pairs.sort();
    for (name, value) in pairs {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

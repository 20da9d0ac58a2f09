//! Wraps the client libraries' HTTP, so that a client is only created for the first request.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, HttpClientOptions, Request, Transport, new_http_client};

/// Creating a client takes as long as the rest of the handler's start, and letters and tokens are needed later or
/// never.
#[derive(Debug)]
struct Late {
    client: OnceLock<Arc<dyn HttpClient>>,
    options: HttpClientOptions,
}

#[async_trait]
impl HttpClient for Late {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.client.get_or_init(|| new_http_client(Some(self.options.clone()))).execute_request(request).await
    }
}

/// A transport whose client is created on first use. `decompress` says whether compressed answers are decompressed.
pub(crate) fn late_transport(decompress: bool) -> Transport {
    let options = HttpClientOptions { automatic_decompression: decompress };
    Transport::new(Arc::new(Late { client: OnceLock::new(), options }))
}

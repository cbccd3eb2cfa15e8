//! OpenTelemetry's protocol, OTLP/HTTP with protobuf: each request is answered, so what was taken is known.

mod headers;
mod logs;

use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Response, StatusCode, redirect};
use url::{Host, Url};

use super::{Access, CollectorError, Outgoing, tls};
use crate::client::retry_after;
use crate::host::innermost_cause;

/// Where logs go, below the URL of a collector that names no path (OTLP 1.9, "OTLP/HTTP Request").
const PATH: &str = "v1/logs";
const PROTOBUF: &str = "application/x-protobuf";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An answer is a count and a sentence.
const ANSWER_MAX_BYTES: usize = 1 << 16;

/// A client of one collector.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    resource: Resource,
}

impl Client {
    /// Prepares to send records of the manager at `source`.
    pub(super) fn new(access: Access, source: &Url) -> Result<Self, CollectorError> {
        let Access { mut url, trust, headers } = access;
        let headers = headers.as_deref().map(headers::read).transpose()?.unwrap_or_default();
        let is_https = url.scheme() == "https";
        if !headers.is_empty() && !is_https && !is_here(&url) {
            return Err(CollectorError::Exposed);
        }
        if url.path() == "/" {
            url.set_path(PATH);
        }
        // Without HTTPS it is never used; reqwest would look for a cryptographic library of its own.
        let mut tls = if is_https { trust.config()? } else { tls::trusting_nobody()? };
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(is_https)
            // Neither a proxy from the environment nor a redirect may choose another peer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT)
            .default_headers(headers)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { http, url, resource: logs::resource(source) })
    }

    /// Sends some.
    pub(super) async fn send(&self, records: &[Outgoing]) -> Result<(), CollectorError> {
        let body = logs::request(&self.resource, records).encode_to_vec();
        let request = self.http.post(self.url.clone()).header(CONTENT_TYPE, PROTOBUF).body(body);
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => {
                if let Some(ExportLogsPartialSuccess { rejected_log_records, error_message }) =
                    partial_success(response).await?
                {
                    // They are not to be sent again, says the protocol.
                    tracing::warn!(rejected_log_records, error_message, "the collector has not taken all");
                }
                Ok(())
            }
            status @ (StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT) => {
                Err(CollectorError::Busy { status, retry_after: retry_after(response.headers()) })
            }
            status => Err(CollectorError::Refused(status)),
        }
    }
}

/// How many it has not taken, and why. One that answers something else than it should has taken all.
async fn partial_success(mut response: Response) -> Result<Option<ExportLogsPartialSuccess>, CollectorError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    let answer = ExportLogsServiceResponse::decode(body.as_slice()).ok();
    Ok(answer.and_then(|answer| answer.partial_success).filter(|partial| partial.rejected_log_records > 0))
}

/// Whether what is sent there stays on this host.
fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl From<reqwest::Error> for CollectorError {
    fn from(error: reqwest::Error) -> Self {
        Self::Http { reason: innermost_cause(&error) }
    }
}

#[cfg(test)]
mod tests;

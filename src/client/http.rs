//! One HTTP/2 connection pool to one manager, with a bound on every wait.

use std::time::Duration;

use reqwest::{Body, Method, RequestBuilder, Response, redirect};
use rustls::ClientConfig;
use secretfs_wire::api::{ErrorBody, OCTET_STREAM};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::ClientError;

/// How long a TCP connection and its TLS handshake may take together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose peer does not answer a PING in time is given up, and every call on it fails
/// at once instead of waiting for TCP to notice.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls to one manager.
#[derive(Clone)]
pub(super) struct Http {
    client: reqwest::Client,
    manager: Url,
    timeout: Duration,
}

impl Http {
    /// Prepares calls to `manager`, each of which ends after `timeout`. Connects with the first.
    pub(super) fn new(manager: Url, tls: ClientConfig, timeout: Duration) -> Result<Self, ClientError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            // Neither a proxy from the environment nor a redirect may choose another peer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_keep_alive_while_idle(true)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, manager, timeout })
    }

    /// The manager's URL.
    pub(super) fn manager(&self) -> &Url {
        &self.manager
    }

    /// How long each call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// A request to `path`, whose segments are already checked names.
    pub(super) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        self.client.request(method, self.url(path)).timeout(self.timeout)
    }

    /// Asks for a stream that has no end: only the wait for its beginning is bounded here.
    pub(super) async fn stream(&self, path: &[&str], body: &impl Serialize) -> Result<Response, ClientError> {
        let request = self.client.post(self.url(path)).json(body);
        tokio::time::timeout(self.timeout, success(request))
            .await
            .map_err(|_| ClientError::Unreachable { reason: "no answer in time".to_owned() })?
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.manager.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// GETs JSON.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ClientError> {
        json(self.request(Method::GET, path)).await
    }

    /// Sends JSON and receives JSON.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        json(self.request(method, path).json(body)).await
    }

    /// DELETEs.
    pub(super) async fn delete(&self, path: &[&str], query: &[(&str, &str)]) -> Result<(), ClientError> {
        success(self.request(Method::DELETE, path).query(query)).await.map(drop)
    }
}

/// A request with a value as its body.
pub(super) fn with_value(request: RequestBuilder, value: impl Into<Body>) -> RequestBuilder {
    request.header("content-type", OCTET_STREAM).body(value)
}

/// Sends a request and reads JSON.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, ClientError> {
    Ok(success(request).await?.json().await?)
}

/// Sends a request; what is not a success becomes the manager's own words.
pub(super) async fn success(request: RequestBuilder) -> Result<Response, ClientError> {
    let response = request.send().await?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match response.json::<ErrorBody>().await {
        Ok(body) => Err(ClientError::Refused(body.error)),
        Err(_) => Err(ClientError::Malformed { reason: format!("HTTP status {status} without a reason") }),
    }
}

//! HTTP to one Vault, with retries and a bound on every wait. The only module of the manager that names
//! reqwest.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use reqwest::redirect;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::answer::{Answer, Trouble};
use super::tls::{self, TlsError};
use crate::config::VaultConfig;
use crate::keys::KeyError;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// An agent in between may insist on it: no page in a browser can be made to send it.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Between attempts, doubled each time; as much again at most is added at random, so that managers
/// that failed together do not come back together.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// An attempt that would have less is not begun: its failure would only hide why the others failed.
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(50);
/// For the question whether Vault is well, which somebody waits for.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Far above what a batch of data keys needs.
const MAX_ANSWER_BYTES: usize = 1 << 20;

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientSetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("vault.namespace cannot be sent in a header")]
    Namespace(#[source] http::header::InvalidHeaderValue),
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// Calls to one Vault.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    namespace: Option<HeaderValue>,
    /// One attempt that hangs leaves time for another one.
    attempt_timeout: Duration,
}

/// What Vault is asked. Its body is wiped when the last copy of it is dropped.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Below `/v1/`.
    pub(super) path: String,
    pub(super) body: Bytes,
    /// Whether it may be sent again when it may have been carried out already.
    pub(super) is_repeatable: bool,
}

impl Request {
    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, body: Bytes::new(), is_repeatable: true }
    }

    pub(super) fn post(path: String, body: Bytes) -> Self {
        Self { method: Method::POST, path, body, is_repeatable: true }
    }

    /// For what must not be done twice by accident.
    pub(super) fn once(self) -> Self {
        Self { is_repeatable: false, ..self }
    }
}

impl Client {
    /// Prepares calls to the Vault of these settings. Connects with the first.
    pub(super) fn new(config: &VaultConfig) -> Result<Self, ClientSetupError> {
        let mut builder = reqwest::Client::builder();
        if config.url.scheme() == "https" {
            builder = builder.tls_backend_preconfigured(tls::config(config.ca.as_deref())?).https_only(true);
        } else {
            // Never used; reqwest would otherwise look for a cryptographic library of its own.
            builder = builder.tls_backend_preconfigured(tls::without_roots()?);
        }
        let http = builder
            // Neither a proxy from the environment nor a redirect may choose another peer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // The retries are ours, with our bounds.
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(config.timeout / 4)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientSetupError::Client)?;
        let namespace = config.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let namespace = namespace.map_err(ClientSetupError::Namespace)?;
        Ok(Self { http, url: config.url.clone(), namespace, attempt_timeout: config.timeout / 2 })
    }

    /// Asks until there is an answer, or `deadline` is near: what may be better next time is asked
    /// again.
    pub(super) async fn ask(
        &self,
        request: &Request,
        token: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<Answer, KeyError> {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .with_jitter()
            .without_max_times();
        let left = || deadline.saturating_duration_since(Instant::now());
        let attempt = || async {
            let answer = self.exchange(request, token, left().min(self.attempt_timeout)).await?;
            answer.or_trouble()
        };
        attempt
            .retry(pauses)
            .when(|trouble: &Trouble| request.is_repeatable || !trouble.may_be_done)
            .adjust(|trouble: &Trouble, pause| {
                let pause = pause?.max(trouble.retry_after.unwrap_or_default());
                (pause + SHORTEST_ATTEMPT < left()).then_some(pause)
            })
            .await
            .map_err(|trouble| trouble.into_error(request.is_repeatable))
    }

    /// Asks once whether Vault is well. It says so to everybody, and in the root namespace.
    pub(super) async fn health(&self) -> Result<(), KeyError> {
        let request = Request::get("sys/health".to_owned());
        let within = HEALTH_TIMEOUT.min(self.attempt_timeout);
        let answer = self.send(&request, HeaderMap::new(), within).await;
        answer.and_then(Answer::of_health).map_err(|trouble| trouble.into_error(true))
    }

    async fn exchange(
        &self,
        request: &Request,
        token: Option<&HeaderValue>,
        within: Duration,
    ) -> Result<Answer, Trouble> {
        let mut headers = HeaderMap::new();
        headers.extend(token.map(|token| (TOKEN, token.clone())));
        headers.extend(self.namespace.as_ref().map(|namespace| (NAMESPACE, namespace.clone())));
        self.send(request, headers, within).await
    }

    async fn send(&self, request: &Request, headers: HeaderMap, within: Duration) -> Result<Answer, Trouble> {
        let mut url = self.url.clone();
        url.set_path(&format!("/v1/{}", request.path));
        let asked = self.http.request(request.method.clone(), url).headers(headers).timeout(within);
        let asked = asked.header(REQUEST, "true").header(CONTENT_TYPE, "application/json");
        let response = asked.body(request.body.clone()).send().await.map_err(|error| self.lost(&error))?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        let body = self.body(response, status).await?;
        Ok(Answer { status, retry_after, body })
    }

    /// The body, which may have data keys in it: nothing that we copy it to is left behind.
    async fn body(
        &self,
        mut response: reqwest::Response,
        status: StatusCode,
    ) -> Result<Zeroizing<Vec<u8>>, Trouble> {
        let mut body = Zeroizing::new(Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            let length = body.len() + chunk.len();
            if length > MAX_ANSWER_BYTES {
                return Err(Trouble::new(format!("Vault's answer ({status}) has no end")));
            }
            if length > body.capacity() {
                // Growing in place would leave the old bytes in freed memory.
                let mut larger = Zeroizing::new(Vec::with_capacity(2 * length));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn lost(&self, error: &reqwest::Error) -> Trouble {
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
        let url = self.url.as_str().trim_end_matches('/');
        let trouble = Trouble::new(format!("cannot reach Vault at {url}: {reason}"));
        if error.is_connect() { trouble } else { trouble.maybe_done() }
    }
}

/// How long Vault wants to be left alone, in seconds (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What went wrong at the bottom; the layers above only say that something did.
fn innermost(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

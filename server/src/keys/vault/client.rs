//! HTTP to Vault: one call with a token, tried again while that can help and there is time. The only
//! module of the manager that names reqwest's client.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, StatusCode, redirect};
use rustls::crypto::aws_lc_rs as provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

use super::token::Session;
use crate::config::VaultConfig;
use crate::error::Cause;
use crate::keys::BackendFault;

const TOKEN: &str = "x-vault-token";
const NAMESPACE: &str = "x-vault-namespace";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Calls to one Vault, in one namespace.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    namespace: Option<HeaderValue>,
    timeout: Duration,
    session: Session,
}

/// Why calls to Vault cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultSetupError {
    #[error("cannot read vault.ca {}", .path.display())]
    Ca {
        path: PathBuf,
        #[source]
        source: Cause,
    },
    #[error("vault.namespace cannot be sent in a header")]
    Namespace,
    #[error("cannot set up TLS to Vault")]
    Tls(#[source] Cause),
}

/// Why Vault did not do what it was asked.
#[derive(Debug)]
pub(super) enum Fault {
    /// Nobody there, or the connection broke.
    Unreachable(reqwest::Error),
    Sealed,
    /// A quota is exhausted, for so long if Vault says so.
    Busy(Option<Duration>),
    /// A standby that does not forward requests.
    Standby,
    Failing(StatusCode),
    /// The token may not do this, or is none any more.
    Denied {
        path: String,
    },
    Absent,
    /// It understood and refused, in its own words.
    Rejected(String),
    Malformed(String),
    /// There is no token to ask with.
    NoToken(String, Option<Cause>),
    /// All attempts together took too long; the last of them ended so.
    TimedOut(Option<String>),
}

impl Fault {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Sealed | Self::Busy(_) | Self::Standby | Self::Failing(_))
    }

    pub(super) fn into_backend_fault(self) -> BackendFault {
        let text = self.to_string();
        match self {
            Self::Unreachable(error) => BackendFault::Unavailable(text, Some(Box::new(error))),
            Self::NoToken(_, cause) => BackendFault::Unavailable(text, cause),
            Self::Sealed | Self::Busy(_) | Self::Standby | Self::Failing(_) | Self::TimedOut(_) => {
                BackendFault::Unavailable(text, None)
            }
            Self::Denied { .. } | Self::Rejected(_) => BackendFault::NotAllowed(text),
            Self::Absent | Self::Malformed(_) => BackendFault::Malformed(text),
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) if error.is_timeout() => f.write_str("Vault does not answer in time"),
            Self::Unreachable(_) => f.write_str("Vault cannot be reached"),
            Self::Sealed => f.write_str("Vault is sealed"),
            Self::Busy(_) => f.write_str("Vault's rate limit quota is exhausted"),
            Self::Standby => f.write_str("this Vault is a standby that does not forward requests"),
            Self::Failing(status) => write!(f, "Vault fails with HTTP status {status}"),
            Self::Denied { path } => write!(f, "Vault denies {path}"),
            Self::Absent => f.write_str("Vault has nothing there"),
            Self::Rejected(words) => write!(f, "Vault refuses: {words}"),
            Self::Malformed(what) => write!(f, "this is not Vault: {what}"),
            Self::NoToken(why, _) => write!(f, "there is no token for Vault: {why}"),
            Self::TimedOut(None) => f.write_str("Vault does not answer in time"),
            Self::TimedOut(Some(last)) => write!(f, "{last}, and it took too long to wait for"),
        }
    }
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl Client {
    pub(super) fn new(config: &VaultConfig) -> Result<Arc<Self>, VaultSetupError> {
        let namespace = config.namespace.as_deref().map(HeaderValue::from_str).transpose();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(config.ca.as_deref())?)
            // Neither a proxy from the environment nor a redirect may choose another peer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("secretfs/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| VaultSetupError::Tls(error.into()))?;
        let client = Arc::new(Self {
            http,
            url: config.url.clone(),
            namespace: namespace.map_err(|_| VaultSetupError::Namespace)?,
            timeout: config.timeout,
            session: Session::new(config.login.clone()),
        });
        tokio::spawn(Session::keep(Arc::downgrade(&client)));
        Ok(client)
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// One operation, for which an answer is read.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Fault> {
        let body = body.map(encode).transpose()?;
        let answer = self.insist(|| self.attempt(&method, path, body.clone())).await?;
        serde_json::from_slice(&answer).map_err(|error| Fault::Malformed(format!("at {path}: {error}")))
    }

    /// One operation, whose answer says nothing.
    pub(super) async fn call_unanswered(&self, path: &str, body: &impl Serialize) -> Result<(), Fault> {
        let body = encode(body)?;
        self.insist(|| self.attempt(&Method::POST, path, Some(body.clone()))).await.map(|_| ())
    }

    /// A login, which needs no token.
    pub(super) async fn log_in<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Fault> {
        let answer = self.send(&Method::POST, path, Some(encode(body)?), None).await?;
        serde_json::from_slice(&answer).map_err(|error| Fault::Malformed(format!("at {path}: {error}")))
    }

    /// Whether it serves, as a standby too.
    pub(super) async fn health(&self) -> Result<(), Fault> {
        let path = "sys/health?standbyok=true&perfstandbyok=true";
        self.insist(|| self.send(&Method::GET, path, None, None)).await.map(|_| ())
    }

    /// Tries again, with pauses that grow and differ, while that can help and there is time.
    async fn insist<F>(&self, attempt: impl FnMut() -> F) -> Result<Bytes, Fault>
    where
        F: Future<Output = Result<Bytes, Fault>>,
    {
        let last = Mutex::new(None);
        let pauses = ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times();
        let insisting = attempt
            .retry(pauses)
            .when(Fault::is_transient)
            .adjust(|fault, pause| match fault {
                Fault::Busy(Some(after)) => pause.map(|pause| pause.max(*after)),
                _ => pause,
            })
            .notify(|fault, _| {
                *last.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault.to_string());
            });
        match timeout(self.timeout, insisting).await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::TimedOut(last.into_inner().unwrap_or_else(PoisonError::into_inner))),
        }
    }

    /// Once, with the token; and once more under a new token when Vault does not honour that one.
    async fn attempt(&self, method: &Method, path: &str, body: Option<Bytes>) -> Result<Bytes, Fault> {
        let token = self.session.token(self).await?;
        match self.send(method, path, body.clone(), Some(&token)).await {
            Err(Fault::Denied { path: denied }) => match self.session.replace(self, &token).await? {
                Some(new) => self.send(method, path, body, Some(&new)).await,
                None => Err(Fault::Denied { path: denied }),
            },
            answer => answer,
        }
    }

    pub(super) async fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<Bytes>,
        token: Option<&HeaderValue>,
    ) -> Result<Bytes, Fault> {
        let url =
            self.url.join(&format!("/v1/{path}")).map_err(|_| Fault::Malformed("its URL".to_owned()))?;
        let mut request = self.http.request(method.clone(), url).timeout(self.timeout);
        if let Some(token) = token {
            request = request.header(TOKEN, token);
        }
        if let Some(namespace) = &self.namespace {
            request = request.header(NAMESPACE, namespace);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = response.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(answer);
        }
        Err(match status.as_u16() {
            // Its answer to a batch of which one item fails.
            400 if has_results(&answer) => return Ok(answer),
            429 => Fault::Busy(headers.get(RETRY_AFTER).and_then(seconds)),
            // 472 and 473: standbys of disaster recovery and of performance replication.
            307 | 472 | 473 => Fault::Standby,
            503 => Fault::Sealed,
            // What was written elsewhere has not arrived there yet.
            412 | 500..=599 => Fault::Failing(status),
            403 => Fault::Denied { path: path.to_owned() },
            404 => Fault::Absent,
            _ => match words(&answer) {
                words if words.contains("key not found") => Fault::Absent,
                words => Fault::Rejected(words),
            },
        })
    }
}

/// The URL is left out: it may hold what is nobody's business, and the fault's text says where.
fn unreachable(error: reqwest::Error) -> Fault {
    Fault::Unreachable(error.without_url())
}

/// A body that is wiped when it was sent.
fn encode(body: &impl Serialize) -> Result<Bytes, Fault> {
    // Of its final size from the start: growing would leave copies behind.
    let mut counted = Counter(0);
    let failed = |error: serde_json::Error| Fault::Malformed(error.to_string());
    serde_json::to_writer(&mut counted, body).map_err(failed)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(counted.0));
    serde_json::to_writer(&mut *bytes, body).map_err(failed)?;
    Ok(Bytes::from_owner(Wiped(bytes)))
}

struct Wiped(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Wiped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn has_results(answer: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Results {
        #[serde(rename = "data")]
        _data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        #[serde(rename = "batch_results")]
        _batch_results: Vec<IgnoredAny>,
    }
    serde_json::from_slice::<Results>(answer).is_ok()
}

/// What Vault says is wrong. It never repeats what it was sent.
fn words(answer: &[u8]) -> String {
    let errors = serde_json::from_slice::<Errors>(answer).map_or_else(|_| Vec::new(), |body| body.errors);
    errors.join("; ").split_whitespace().collect::<Vec<_>>().join(" ")
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, VaultSetupError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| VaultSetupError::Tls(error.into()))?;
    let Some(path) = ca else {
        return Ok(builder
            .with_platform_verifier()
            .map_err(|error| VaultSetupError::Tls(error.into()))?
            .with_no_client_auth());
    };
    let failed = |source: Cause| VaultSetupError::Ca { path: path.to_owned(), source };
    let pem = fs::read(path).map_err(|error| failed(error.into()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| failed(error.into()))?;
        roots.add(certificate).map_err(|error| failed(error.into()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it".into()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

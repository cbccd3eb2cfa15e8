//! The calls of those who have only a token: the manager is proven by the token's pin before it is sent
//! anything.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Method;
use secretfs_wire::api::{JoinRequest, Joined, LoggedIn, LoginRequest};
use secretfs_wire::{CaPin, EnrolmentToken, JoinToken};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::http::Http;
use super::{ClientError, ManagerClock, tls};

/// What a token brings.
pub(crate) struct Admission<T> {
    /// What the manager answered.
    pub(crate) answer: T,
    /// Its CA bundle as PEM, which has the token's pin.
    pub(crate) ca: String,
    /// Its clock.
    pub(crate) clock: Arc<ManagerClock>,
}

/// Joins as a node: sends the token's secret and the node's public keys.
pub(crate) async fn join(
    manager: Url,
    token: &JoinToken,
    request: &JoinRequest,
    timeout: Duration,
) -> Result<Admission<Joined>, ClientError> {
    call(manager, token.pin, &["v1", "join"], request, timeout).await
}

/// Logs in as an operator: sends the token's secret and the operator's public key.
pub(crate) async fn login(
    manager: Url,
    token: &EnrolmentToken,
    request: &LoginRequest,
    timeout: Duration,
) -> Result<Admission<LoggedIn>, ClientError> {
    call(manager, token.pin, &["v1", "login"], request, timeout).await
}

async fn call<T: DeserializeOwned>(
    manager: Url,
    pin: CaPin,
    path: &[&str],
    request: &impl Serialize,
    timeout: Duration,
) -> Result<Admission<T>, ClientError> {
    let bundle = Arc::new(OnceLock::new());
    let http = Http::new(manager, tls::pinned_config(pin, bundle.clone()), timeout)?;
    let answer = http.send(Method::POST, path, request).await?;
    let bundle = bundle.get().map(Vec::as_slice).unwrap_or_default();
    let blocks: Vec<_> =
        bundle.iter().map(|certificate| pem::Pem::new("CERTIFICATE", certificate.as_ref())).collect();
    Ok(Admission { answer, ca: pem::encode_many(&blocks), clock: http.clock().clone() })
}

//! What a node says to its manager.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secretfs_wire::InstanceId;
use secretfs_wire::api::{
    EnvelopeRequest, INSTANCE_HEADER, OpenReport, RenewRequest, Renewed, Session, UsageReport,
};
use secretfs_wire::stream::{Follow, StreamMessage};
use url::Url;

use super::http::{Http, json, lines, success};
use super::{ClientError, Credentials, ManagerClock};

/// The longest line of the change stream, in bytes: a manifest of some 50,000 targets.
const LINE_MAX_BYTES: usize = 16 << 20;

/// A joined node's calls.
#[derive(Clone)]
pub(crate) struct NodeClient {
    http: Http,
    instance: InstanceId,
}

/// The change stream, one message after the other, until it breaks.
pub(crate) type ChangeStream = futures::stream::BoxStream<'static, Result<StreamMessage, ClientError>>;

impl NodeClient {
    /// Calls under a node's credentials, each bounded by `timeout`. All of them say which daemon makes them.
    pub(crate) fn new(
        manager: Url,
        credentials: &Credentials,
        timeout: Duration,
        instance: InstanceId,
    ) -> Result<Self, ClientError> {
        let unusable = |reason: String| ClientError::Unreachable { reason };
        let tls = credentials.to_config().map_err(|error| unusable(error.to_string()))?;
        let value =
            HeaderValue::from_str(&instance.to_string()).map_err(|error| unusable(error.to_string()))?;
        let headers = HeaderMap::from_iter([(HeaderName::from_static(INSTANCE_HEADER), value)]);
        Ok(Self { http: Http::with_headers(manager, tls, timeout, headers)?, instance })
    }

    /// The same manager under other credentials, over connections of its own.
    pub(crate) fn with_credentials(&self, credentials: &Credentials) -> Result<Self, ClientError> {
        let new = Self::new(self.http.manager().clone(), credentials, self.http.timeout(), self.instance)?;
        Ok(Self { http: new.http.with_clock(self.http.clock().clone()), ..new })
    }

    /// The manager's clock.
    pub(crate) fn clock(&self) -> Arc<ManagerClock> {
        self.http.clock().clone()
    }

    /// Opens a session, under whose key envelopes are sealed.
    pub(crate) async fn open_session(&self) -> Result<Session, ClientError> {
        json(self.http.request(Method::POST, &["v1", "node", "session"])).await
    }

    /// Fetches one envelope.
    pub(crate) async fn envelope(&self, request: &EnvelopeRequest) -> Result<Bytes, ClientError> {
        let request = self.http.request(Method::POST, &["v1", "node", "envelopes"]).json(request);
        Ok(success(request).await?.bytes().await?)
    }

    /// Asks for a certificate for a new key.
    pub(crate) async fn renew(&self, request: &RenewRequest) -> Result<Renewed, ClientError> {
        self.http.send(Method::POST, &["v1", "node", "renew"], request).await
    }

    /// Reports which versions are in use.
    pub(crate) async fn report_usage(&self, report: &UsageReport) -> Result<(), ClientError> {
        success(self.http.request(Method::POST, &["v1", "node", "usage"]).json(report)).await.map(drop)
    }

    /// Reports what was opened. Once it is `Ok`, the manager has all of it on record.
    pub(crate) async fn report_opens(&self, report: &OpenReport) -> Result<(), ClientError> {
        success(self.http.request(Method::POST, &["v1", "node", "opens"]).json(report)).await.map(drop)
    }

    /// Opens the change stream, which begins with what differs from what the node has.
    pub(crate) async fn follow(&self, follow: &Follow) -> Result<ChangeStream, ClientError> {
        let response = self.http.stream(&["v1", "node", "changes"], follow).await?;
        let http = self.http.clone();
        let messages = lines(response, LINE_MAX_BYTES).map(move |line| {
            let line = line.inspect_err(|_| http.broke())?;
            serde_json::from_str(&line).map_err(|error| ClientError::Malformed { reason: error.to_string() })
        });
        Ok(messages.boxed())
    }
}

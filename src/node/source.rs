//! Values from the manager: the production [`SecretSource`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use secretfs_wire::api::{EnvelopeRequest, ErrorCode};
use secretfs_wire::envelope::{DeliveryContext, EnvelopeError, NodePrivateKey, Salt, SessionKey};
use secretfs_wire::{EnvironmentName, NodeName, SecretBytes, SessionId};
use tokio::sync::Mutex;

use crate::client::{ClientError, NodeClient};
use crate::source::{SecretSource, SourceError, ValueRequest};

/// Fetches envelopes from the manager and opens them.
pub(crate) struct ManagerSource(Arc<Inner>);

struct Inner {
    environment: EnvironmentName,
    node: NodeName,
    envelope_key: NodePrivateKey,
    /// Replaced at each renewal of the node's certificate.
    client: Arc<ArcSwap<NodeClient>>,
    /// Held across the call that opens a session, so that many cold reads open one.
    session: Mutex<Option<Arc<OpenSession>>>,
    /// How long a fetch waits at most because the manager was asked too often.
    patience: Duration,
}

struct OpenSession {
    id: SessionId,
    key: SessionKey,
}

impl ManagerSource {
    /// A source that speaks as this node through whatever client is current.
    pub(crate) fn new(
        environment: EnvironmentName,
        node: NodeName,
        envelope_key: NodePrivateKey,
        client: Arc<ArcSwap<NodeClient>>,
        patience: Duration,
    ) -> Self {
        let session = Mutex::new(None);
        Self(Arc::new(Inner { environment, node, envelope_key, client, session, patience }))
    }

    /// Opens a session ahead of the first read, which then costs one round trip and not two.
    pub(crate) async fn prepare(&self) -> Result<(), SourceError> {
        self.0.session(None).await.map(drop).map_err(FetchError::into_source_error)
    }
}

impl SecretSource for ManagerSource {
    fn fetch(&self, request: ValueRequest) -> BoxFuture<'static, Result<SecretBytes, SourceError>> {
        let inner = self.0.clone();
        async move { inner.fetch(request).await }.boxed()
    }
}

impl Inner {
    /// Asks again after a while where the manager was asked too often: a reader that waits a second is
    /// better off than one that gets an error, and the manager has said when it may be asked.
    async fn fetch(&self, request: ValueRequest) -> Result<SecretBytes, SourceError> {
        let began = Instant::now();
        loop {
            let error = match self.fetch_once(&request).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error.rate_limit() {
                Some(wait) if began.elapsed() + wait < self.patience => tokio::time::sleep(wait).await,
                _ => return Err(error.into_source_error()),
            }
        }
    }

    async fn fetch_once(&self, request: &ValueRequest) -> Result<SecretBytes, FetchError> {
        let session = self.session(None).await?;
        match self.fetch_under(&session, request).await {
            // The manager restarted, or an hour has passed: once more under a new session.
            Err(error) if error.code() == Some(ErrorCode::SessionUnknown) => {
                let session = self.session(Some(session.id)).await?;
                self.fetch_under(&session, request).await
            }
            other => other,
        }
    }

    async fn fetch_under(
        &self,
        session: &OpenSession,
        request: &ValueRequest,
    ) -> Result<SecretBytes, FetchError> {
        let details = &request.details;
        let attached = details
            .attached()
            .ok_or_else(|| FetchError::Unopened("a template is not the manager's to give".to_owned()))?;
        let salt = Salt::random().map_err(|error| FetchError::Unopened(error.to_string()))?;
        let envelope = self
            .client
            .load_full()
            .envelope(&EnvelopeRequest {
                session: session.id,
                salt,
                service: request.service.clone(),
                target: request.target.clone(),
                version_id: details.version_id,
            })
            .await?;
        let context = DeliveryContext {
            environment: &self.environment,
            node: &self.node,
            service: &request.service,
            target: &request.target,
            secret: &attached.secret,
            version: attached.version,
            version_id: details.version_id,
            ownership: details.ownership,
        };
        session.key.open(salt, context, envelope.into()).map_err(|error| match error {
            // Manager and node disagree about owner, mode or secret: an attachment was changed and
            // the manifest that says so is on its way. If none comes, the read's deadline ends it.
            EnvelopeError::Refused => {
                let (service, target) = (&request.service, &request.target);
                tracing::warn!(%service, %target, "an envelope does not fit the manifest; waiting for a newer one");
                FetchError::Superseded
            }
            error => FetchError::Unopened(error.to_string()),
        })
    }

    /// The session, opened if there is none or if it is the `unknown` one.
    async fn session(&self, unknown: Option<SessionId>) -> Result<Arc<OpenSession>, FetchError> {
        let mut current = self.session.lock().await;
        match &*current {
            Some(session) if Some(session.id) != unknown => Ok(session.clone()),
            _ => {
                let client = self.client.load_full();
                let opened = client.open_session().await?;
                let key = self
                    .envelope_key
                    .unwrap(&opened.wrapped_key)
                    .map_err(|error| FetchError::Unopened(error.to_string()))?;
                let session = Arc::new(OpenSession { id: opened.session, key });
                *current = Some(session.clone());
                Ok(session)
            }
        }
    }
}

/// What can fail between a request and its value.
enum FetchError {
    Client(ClientError),
    Superseded,
    Unopened(String),
}

impl From<ClientError> for FetchError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl FetchError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Client(error) => error.code(),
            Self::Superseded | Self::Unopened(_) => None,
        }
    }

    fn rate_limit(&self) -> Option<Duration> {
        match self {
            Self::Client(error) => error.rate_limit(),
            Self::Superseded | Self::Unopened(_) => None,
        }
    }

    fn into_source_error(self) -> SourceError {
        let error = match self {
            Self::Superseded => return SourceError::Superseded,
            Self::Unopened(reason) => return SourceError::Inconsistent(reason),
            Self::Client(ClientError::Malformed { reason }) => return SourceError::Inconsistent(reason),
            Self::Client(error) => error,
        };
        match error.code() {
            Some(ErrorCode::Superseded) => SourceError::Superseded,
            Some(
                ErrorCode::NotFound
                | ErrorCode::Denied
                | ErrorCode::Unauthenticated
                | ErrorCode::PendingApproval,
            ) => SourceError::Refused,
            _ => SourceError::Unreachable(error.to_string()),
        }
    }
}

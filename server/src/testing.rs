//! A manager in memory without its listener, and callers whose certificates it takes as verified.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secretfs_wire::api::{ApiError, CreateEnvironment, CreateToken, ErrorBody, JoinRequest};
use secretfs_wire::audit::{Event, Record};
use secretfs_wire::envelope::NodePrivateKey;
use secretfs_wire::{EnvironmentName, Grant, JoinToken, NodeId, OperatorId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use utoipa::openapi::OpenApi;

use crate::app::App;
use crate::audit::{Audit, SignedMark};
use crate::authn::NodeIdentity;
use crate::authz::Authorizer;
use crate::ca::{PeerCertificate, Subject};
use crate::config::{RawConfig, RawLimitsConfig};
use crate::keys::{Keyring, LocalKeys, RemoteKeys, RootKey};
use crate::listener::PeerAddress;
use crate::manager::{Manager, audit_settings};
use crate::store::{AuditLog, NewEnrolment, NewNode, NewOperator, Sqlite, SqliteAudit};

mod faulty_log;

pub(crate) use faulty_log::FaultyLog;

/// A manager to call.
pub(crate) struct TestManager {
    pub(crate) app: Arc<App>,
    pub(crate) document: Arc<OpenApi>,
    /// Where its audit records go.
    pub(crate) log: Arc<FaultyLog>,
    router: Router,
}

/// An answer whose body has been read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn error(&self) -> ApiError {
        self.json::<ErrorBody>().error
    }
}

impl TestManager {
    /// One with the environments `prod` and `dev`.
    pub(crate) async fn start() -> Self {
        Self::start_with(RemoteKeys::new()).await
    }

    /// The same with policies of its own.
    pub(crate) async fn start_with_policies(directory: &Path) -> Self {
        Self::configured(RemoteKeys::new(), RawConfig::default(), Some(directory)).await
    }

    /// The same with key backends that take the places of those outside a manager.
    pub(crate) async fn start_with(remote: RemoteKeys) -> Self {
        Self::configured(remote, RawConfig::default(), None).await
    }

    /// The same with other limits than the default.
    pub(crate) async fn start_limited(limits: RawLimitsConfig) -> Self {
        let raw = RawConfig { limits: Some(limits), ..RawConfig::default() };
        Self::configured(RemoteKeys::new(), raw, None).await
    }

    async fn configured(remote: RemoteKeys, raw: RawConfig, policies: Option<&Path>) -> Self {
        // A heartbeat soon after each change, so that a test sees quickly that there was none.
        let raw = RawConfig { heartbeat_interval: Some("20ms".to_owned()), ..raw };
        let (manager, _) =
            Manager::in_memory(&raw.check().expect("a configuration")).await.expect("a manager");
        let Manager { config, store, authority, .. } = manager;
        let log = Arc::new(FaultyLog::new(SqliteAudit::in_memory().await.expect("a log")));
        let dynamic: Arc<dyn AuditLog> = Arc::clone(&log) as _;
        // Of its own, since the manager's store has its manager's.
        let mark = Sqlite::in_memory().await.expect("a store");
        let settings = audit_settings(&config);
        let root = Arc::new(RootKey::generate().expect("a key"));
        let signed = Arc::new(SignedMark::in_memory(Arc::clone(&root)));
        let audit = Audit::open(Ok(dynamic), &mark, signed, Arc::clone(&authority), root, settings).await;
        let audit = Arc::new(audit);
        let keys = Arc::new(Keyring::new(LocalKeys::in_memory(), remote, Duration::ZERO));
        let authorizer = Arc::new(Authorizer::open(policies).expect("policies"));
        let stopping = CancellationToken::new();
        let app = Arc::new(App::new(config, store, keys, authority, authorizer, audit, stopping));
        let (router, document) = crate::api::router(Arc::clone(&app));
        let manager = Self { app, document, log, router };
        manager.log_in("admin", 1).await;
        for environment in ["prod", "dev"] {
            let name = environment.parse().expect("a name");
            let app = &manager.app;
            app.create_environment(CreateEnvironment { name, key_name: None, key_backend: None })
                .await
                .expect("created");
        }
        manager
    }

    /// Gives an operator who is there an id that tests know.
    pub(crate) async fn log_in(&self, name: &str, id: u64) {
        let (now, name) = (Timestamp::now(), name.parse().expect("a name"));
        let expires = now + SignedDuration::from_hours(1);
        let digest = *OperatorId::random().to_string().repeat(2).as_bytes().first_chunk().expect("32 bytes");
        let enrolment = NewEnrolment { digest, scope: None, expires };
        self.app.store.enroll(&name, enrolment, now).await.expect("enrolled");
        let id = OperatorId::from_u64(id).expect("an id");
        self.app.store.log_in(&digest, id, expires, now).await.expect("logged in");
    }

    /// An operator of their own name with these roles and no other.
    pub(crate) async fn operator_with(&self, grants: Vec<Grant>) -> PeerCertificate {
        let (id, now) = (OperatorId::random(), Timestamp::now());
        let name = format!("operator-{id}");
        let new = NewOperator {
            name: name.parse().expect("a name"),
            id,
            scope: None,
            grants,
            created: now,
            certificate_expires: Some(now + SignedDuration::from_hours(1)),
            enrolment: None,
        };
        self.app.store.add_operator(new).await.expect("added");
        operator_peer(&name, id.as_u64())
    }

    /// The first operator, with a certificate that is good for a minute.
    pub(crate) fn operator() -> PeerCertificate {
        operator_peer("admin", 1)
    }

    /// A node that has joined, for tests that deliver nothing to it.
    pub(crate) async fn join(&self, environment: &str, name: &str, approval: bool) -> NodeIdentity {
        let environment: EnvironmentName = environment.parse().expect("a name");
        let asked = CreateToken { ttl_seconds: 60, approval, labels: Default::default(), name: None };
        let admin = "admin".parse().expect("a name");
        let token = self.app.create_token(&environment, asked, admin).await.expect("a token");
        let digest = token.token.parse::<JoinToken>().expect("a token").secret.digest();
        let node = NewNode {
            id: NodeId::random(),
            name: name.parse().expect("a name"),
            envelope_key: Vec::new(),
            certificate_expires: Timestamp::now() + SignedDuration::from_hours(1),
            address: None,
            host: Default::default(),
        };
        let (id, name) = (node.id, node.name.clone());
        self.app.store.join(&digest, node, Timestamp::now()).await.expect("joined");
        NodeIdentity { id, environment, name }
    }

    /// All that is on record.
    pub(crate) async fn records(&self) -> Vec<Event> {
        let (chain, log) = self.app.audit.chain().expect("a chain");
        let stored = log.records(chain, 1, None, 10_000).await.expect("records");
        stored.iter().map(|record| Record::read(&record.written.text).expect("a record").event).collect()
    }

    /// Sends a request and leaves the response's body unread.
    pub(crate) async fn send(
        &self,
        peer: Option<&PeerCertificate>,
        mut request: Request<Body>,
    ) -> Response<Body> {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer.clone());
        }
        self.router.clone().oneshot(request).await.expect("infallible")
    }

    /// Posts JSON from an address, with more headers.
    pub(crate) async fn post_from(
        &self,
        peer: Option<&PeerCertificate>,
        address: &str,
        headers: &[(&'static str, &str)],
        path: &str,
        body: &impl Serialize,
    ) -> (Answer, HeaderMap) {
        let mut request = Request::post(path).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(serde_json::to_vec(body).expect("JSON").into()).expect("a request");
        request.extensions_mut().insert(PeerAddress(address.parse().expect("an address")));
        let response = self.send(peer, request).await;
        let headers = response.headers().clone();
        (read(response).await, headers)
    }

    /// Sends a request with a raw body.
    pub(crate) async fn call(
        &self,
        peer: &PeerCertificate,
        method: Method,
        path: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path).body(body.into()).expect("a request");
        read(self.send(Some(peer), request).await).await
    }

    /// Posts JSON.
    pub(crate) async fn post(
        &self,
        peer: Option<&PeerCertificate>,
        path: &str,
        body: &impl Serialize,
    ) -> Answer {
        let body = serde_json::to_vec(body).expect("JSON");
        let request = Request::post(path).header(CONTENT_TYPE, "application/json").body(body.into());
        read(self.send(peer, request.expect("a request")).await).await
    }
}

/// A certificate that is good for a minute.
pub(crate) fn peer(subject: Subject) -> PeerCertificate {
    PeerCertificate { subject, not_after: Timestamp::now() + SignedDuration::from_secs(60) }
}

/// The certificate of an operator.
pub(crate) fn operator_peer(name: &str, id: u64) -> PeerCertificate {
    peer(Subject::Operator { name: name.parse().expect("a name"), id: OperatorId::from_u64(id) })
}

/// The certificate of a node.
pub(crate) fn node_peer(node: &NodeIdentity) -> PeerCertificate {
    peer(Subject::Node { environment: node.environment.clone(), name: node.name.clone(), id: node.id })
}

/// A request for a certificate over a fresh key, as whoever logs in or joins makes it.
pub(crate) fn certificate_request() -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    request.pem().expect("PEM")
}

/// What a host asks that joins under a name, with a key that nobody keeps.
pub(crate) fn join_request(token: &JoinToken, name: &str) -> JoinRequest {
    let key = NodePrivateKey::generate().expect("a key").public_key().expect("a key");
    JoinRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        name: Some(name.parse().expect("a name")),
        fallback_name: None,
        certificate_request: certificate_request(),
        envelope_key: STANDARD.encode(key.as_der()),
        host: Default::default(),
    }
}

/// What a certificate in PEM says.
pub(crate) fn certificate(pem: &str) -> PeerCertificate {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    PeerCertificate::from_der(&der).expect("that names somebody")
}

pub(crate) async fn read(response: Response<Body>) -> Answer {
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes().to_vec();
    Answer { status, body }
}

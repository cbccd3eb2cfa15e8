//! A node as far as the manager can tell, without a mount.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use secretfs_wire::api::{EnvelopeRequest, JoinRequest, Joined, Session};
use secretfs_wire::envelope::{DeliveryContext, NodePrivateKey, Salt, SessionKey};
use secretfs_wire::manifest::Manifest;
use secretfs_wire::stream::{Received, Replica};
use secretfs_wire::{JoinToken, NodeName, SessionId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::manager::{self, ENVIRONMENT, tls};

/// A node has another manifest, and then its value if it fetches it.
pub(super) struct Heard {
    pub(super) version: u64,
    pub(super) at: Instant,
    pub(super) fetched: Instant,
}

/// Keys that all nodes use: making thousands of RSA keys is not what is measured.
pub(super) struct SharedKeys {
    tls: String,
    certificate_request: String,
    envelope_key: Arc<NodePrivateKey>,
}

/// A node that has joined.
pub(super) struct Node {
    name: NodeName,
    certificate: String,
    tls_key: String,
    envelope_key: Arc<NodePrivateKey>,
}

impl SharedKeys {
    pub(super) fn generate() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
        Self {
            tls: key.serialize_pem(),
            certificate_request: request.pem().expect("PEM"),
            envelope_key: Arc::new(NodePrivateKey::generate().expect("a key")),
        }
    }
}

/// Joins as a node does, except that it trusts the CA which the operator has.
pub(super) async fn join(manager: &manager::Manager, keys: &SharedKeys, number: usize) -> Node {
    let token: JoinToken = manager.token().await.token.parse().expect("a token");
    let name: NodeName = format!("node-{number:05}").parse().expect("a name");
    let public_key = keys.envelope_key.public_key().expect("a key");
    let request = JoinRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        name: Some(name.clone()),
        fallback_name: None,
        certificate_request: keys.certificate_request.clone(),
        envelope_key: STANDARD.encode(public_key.as_der()),
        host: Default::default(),
    };
    let client = manager.anonymous();
    let answer = client.post(format!("https://{}/v1/join", manager.address)).json(&request).send().await;
    let joined: Joined = answer.expect("an answer").json().await.expect("joined");
    let (tls_key, envelope_key) = (keys.tls.clone(), Arc::clone(&keys.envelope_key));
    Node { name, certificate: joined.certificate, tls_key, envelope_key }
}

impl Node {
    /// Opens a session and the change stream over a connection of its own, and says what it hears. While
    /// `fetching`, it fetches each version that it hears of, as a node does that had the old one.
    pub(super) async fn follow(
        self,
        manager: &manager::Manager,
        heard: UnboundedSender<Heard>,
        fetching: Arc<AtomicBool>,
    ) -> JoinHandle<()> {
        let mut calls = Calls::connect(manager, &self).await;
        let session: Session = calls.json("/v1/node/session", &()).await;
        let key = self.envelope_key.unwrap(&session.wrapped_key).expect("the session's key");
        let mut replica = Replica::default();
        let (follow, mut cursor) = replica.begin();
        let mut stream = calls.call("/v1/node/changes", &follow).await;
        tokio::spawn(async move {
            let mut rest = Vec::new();
            while let Some(line) = next_line(&mut stream, &mut rest).await {
                let at = Instant::now();
                let message = serde_json::from_slice(&line).expect("a message");
                if replica.receive(&mut cursor, message).expect("the next message") == Received::Changed {
                    let version = replica.manifest().services[0].targets[0].version;
                    let mut fetched = at;
                    if fetching.load(Relaxed) {
                        let manifest = Manifest::check(replica.manifest()).0;
                        fetched = self.fetch(&mut calls, &session.session, &key, &manifest).await;
                    }
                    let _ = heard.send(Heard { version, at, fetched });
                }
            }
        })
    }

    /// Fetches the one value that there is; tells when it was open.
    async fn fetch(
        &self,
        calls: &mut Calls,
        session: &SessionId,
        key: &SessionKey,
        manifest: &Manifest,
    ) -> Instant {
        let (service, targets) = manifest.services.first_key_value().expect("a service");
        let (target, details) = targets.first_key_value().expect("a target");
        let attached = details.attached().expect("no template");
        let salt = Salt::random().expect("a salt");
        let request = EnvelopeRequest {
            session: *session,
            salt,
            service: service.clone(),
            target: target.clone(),
            version_id: details.version_id,
        };
        let answer = calls.call("/v1/node/envelopes", &request).await;
        let envelope = answer.into_body().collect().await.expect("an envelope").to_bytes();
        let context = DeliveryContext {
            environment: &ENVIRONMENT.parse().expect("a name"),
            node: &self.name,
            service,
            target,
            secret: &attached.secret,
            version: attached.version,
            version_id: details.version_id,
            ownership: details.ownership,
        };
        key.open(salt, context, envelope.to_vec()).expect("opened");
        Instant::now()
    }
}

/// One HTTP/2 connection.
struct Calls {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Calls {
    async fn connect(manager: &manager::Manager, node: &Node) -> Self {
        let tls = Arc::new(tls(&manager.ca, &node.certificate, &node.tls_key));
        let stream = TcpStream::connect(manager.address).await.expect("connected");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::from(manager.address.ip());
        let stream = TlsConnector::from(tls).connect(name, stream).await.expect("TLS");
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("HTTP/2");
        tokio::spawn(connection);
        Self { address: manager.address, sender }
    }

    async fn call(&mut self, path: &str, body: &impl Serialize) -> Response<Incoming> {
        let request = Request::post(format!("https://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(body).expect("JSON"))))
            .expect("a request");
        let answer = self.sender.send_request(request).await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer
    }

    async fn json<T: DeserializeOwned>(&mut self, path: &str, body: &impl Serialize) -> T {
        let answer = self.call(path, body).await.into_body().collect().await.expect("an answer");
        serde_json::from_slice(&answer.to_bytes()).expect("JSON")
    }
}

async fn next_line(answer: &mut Response<Incoming>, rest: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            return Some(rest.drain(..=end).collect());
        }
        let frame = answer.body_mut().frame().await?.ok()?;
        rest.extend_from_slice(frame.data_ref()?);
    }
}

//! A node as far as the manager can tell, without a mount.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use secretfs_wire::JoinToken;
use secretfs_wire::api::{JoinRequest, Joined};
use secretfs_wire::envelope::NodePrivateKey;
use secretfs_wire::stream::{Received, Replica};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::manager::{Manager, tls};

/// A node has another manifest.
pub(super) struct Heard {
    pub(super) version: u64,
    pub(super) at: Instant,
}

/// Keys that all nodes use: making thousands of RSA keys is not what is measured.
pub(super) struct SharedKeys {
    tls: String,
    certificate_request: String,
    envelope_key: String,
}

/// A node that has joined.
pub(super) struct Node {
    certificate: String,
    key: String,
}

impl SharedKeys {
    pub(super) fn generate() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
        let envelope_key = NodePrivateKey::generate().and_then(|key| key.public_key()).expect("a key");
        Self {
            tls: key.serialize_pem(),
            certificate_request: request.pem().expect("PEM"),
            envelope_key: STANDARD.encode(envelope_key.as_der()),
        }
    }
}

/// Joins as a node does, except that it trusts the CA which the operator has.
pub(super) async fn join(manager: &Manager, keys: &SharedKeys, number: usize) -> Node {
    let token: JoinToken = manager.token().await.token.parse().expect("a token");
    let request = JoinRequest {
        token: token.secret.expose_text().as_str().to_owned(),
        name: format!("node-{number:05}").parse().expect("a name"),
        certificate_request: keys.certificate_request.clone(),
        envelope_key: keys.envelope_key.clone(),
    };
    let client = manager.anonymous();
    let answer = client.post(format!("https://{}/v1/join", manager.address)).json(&request).send().await;
    let joined: Joined = answer.expect("an answer").json().await.expect("joined");
    Node { certificate: joined.certificate, key: keys.tls.clone() }
}

impl Node {
    /// Opens the change stream over a connection of its own, and says what it hears.
    pub(super) async fn follow(self, manager: &Manager, heard: UnboundedSender<Heard>) -> JoinHandle<()> {
        let tls = Arc::new(tls(&manager.ca, &self.certificate, &self.key));
        let stream = TcpStream::connect(manager.address).await.expect("connected");
        stream.set_nodelay(true).expect("an option");
        let name = ServerName::from(manager.address.ip());
        let stream = TlsConnector::from(tls).connect(name, stream).await.expect("TLS");
        let io = TokioIo::new(stream);
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.expect("HTTP/2");
        tokio::spawn(connection);

        let mut replica = Replica::default();
        let (follow, mut cursor) = replica.begin();
        let request = Request::post(format!("https://{}/v1/node/changes", manager.address))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(serde_json::to_vec(&follow).expect("JSON"))))
            .expect("a request");
        let mut answer = sender.send_request(request).await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        tokio::spawn(async move {
            // The connection lives as long as somebody may still ask something.
            let _sender = sender;
            let mut rest = Vec::new();
            while let Some(line) = next_line(&mut answer, &mut rest).await {
                let at = Instant::now();
                let message = serde_json::from_slice(&line).expect("a message");
                if replica.receive(&mut cursor, message).expect("the next message") == Received::Changed {
                    let version = replica.manifest().services[0].targets[0].version;
                    let _ = heard.send(Heard { version, at });
                }
            }
        })
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

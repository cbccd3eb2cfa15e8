//! Whoever shows no certificate gets a few connections, and only while it asks something.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rustls::crypto::aws_lc_rs as provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secretfs_wire::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::certificates::H2;
use super::{Certificates, Service, serve};
use crate::app::now;
use crate::ca::{Authority, CertificateRequest};
use crate::config::{RawConfig, RawLimitsConfig};
use crate::metrics::Metrics;

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(20);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// What a client of HTTP/2 says before it asks anything: the preface and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A listener and its CA.
struct Door {
    address: SocketAddr,
    authority: Arc<Authority>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Door {
    /// It closes what is idle after this time, and lets so many in without a certificate.
    async fn open(handshake_timeout: &str, total: usize, per_network: usize) -> Self {
        let limits = RawLimitsConfig {
            anonymous_connections: Some(total),
            anonymous_connections_per_network: Some(per_network),
            ..Default::default()
        };
        let raw = RawConfig {
            handshake_timeout: Some(handshake_timeout.to_owned()),
            limits: Some(limits),
            ..Default::default()
        };
        let config = raw.check().expect("a configuration");
        let (authority, _) = Authority::create(now()).expect("a CA");
        let authority = Arc::new(authority);
        let tls = Certificates::issue(Arc::clone(&authority), &config.names).expect("TLS").subscribe();
        let listener = TcpListener::bind((HERE, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let (metrics, shutdown) = (Arc::new(Metrics::new()), CancellationToken::new());
        let (measured, ended) = (Arc::clone(&metrics), shutdown.clone());
        let serving = tokio::spawn(async move {
            let router = Router::new().route("/", get(|| async { "served" }));
            let service = Service { tls, router, config: &config, metrics: &measured };
            serve(listener, service, ended).await;
        });
        Self { address, authority, metrics, shutdown, serving }
    }

    /// A connection from an address of this host, before its handshake.
    async fn knock(&self, from: Ipv4Addr) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((from, 0).into()).expect("an address of this host");
        socket.connect(self.address).await.expect("connected")
    }

    /// A connection after its handshake, with or without a node's certificate.
    async fn enter(&self, from: Ipv4Addr, protocol: &[u8], as_node: bool) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.bundle()[0].clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        let mut config = match as_node {
            true => {
                let (certificate, key) = self.node();
                builder.with_client_auth_cert(vec![certificate], key).expect("a certificate")
            }
            false => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = "localhost".try_into().expect("a name");
        let stream = self.knock(from).await;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(DEADLINE, handshake).await.expect("in time").ok()
    }

    fn node(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let (request, key) = CertificateRequest::generate().expect("a request");
        let (environment, name) = ("prod".parse().expect("a name"), "n".parse().expect("a name"));
        let (certificate, _) = self
            .authority
            .issue_node(&environment, &name, NodeId::random(), &request, now(), DEADLINE * 10)
            .expect("a certificate");
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM");
        (certificate, PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"))
    }

    fn refused(&self) -> u64 {
        self.metrics.refused_connections.get()
    }

    async fn close(self) {
        self.shutdown.cancel();
        timeout(DEADLINE, self.serving).await.expect("in time").expect("it ends");
    }
}

/// Whether a request is answered on a connection.
async fn is_served(stream: &mut TlsStream<TcpStream>) -> bool {
    let exchange = async {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: manager\r\n\r\n").await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"served") {
            answer.push(stream.read_u8().await?);
        }
        Ok::<_, std::io::Error>(())
    };
    timeout(DEADLINE, exchange).await.expect("an answer or an end").is_ok()
}

/// Waits until the other side has ended a connection.
async fn ended(stream: &mut (impl tokio::io::AsyncRead + Unpin), within: Duration) -> bool {
    // A reset is as good an end as any.
    timeout(within, stream.read_to_end(&mut Vec::new())).await.is_ok()
}

#[tokio::test]
async fn an_idle_connection_without_a_certificate_is_closed_and_one_with_a_certificate_stays() {
    let door = Door::open("300ms", 10, 10).await;
    let mut stranger = door.enter(HERE, H2, false).await.expect("let in");
    let mut node = door.enter(HERE, H2, true).await.expect("let in");
    for stream in [&mut stranger, &mut node] {
        stream.write_all(PREFACE).await.expect("sent");
    }
    // A dead peer is given up after 30 s, whoever it is.
    assert!(ended(&mut stranger, DEADLINE).await, "it asks nothing");
    assert!(!ended(&mut node, Duration::from_secs(2)).await, "a stream of changes may be quiet");
    drop(node);
    door.close().await;
}

#[tokio::test]
async fn a_network_without_certificates_takes_no_room_from_others_or_from_its_nodes() {
    let door = Door::open("1h", 4, 2).await;
    let mut strangers = Vec::new();
    for _ in 0..2 {
        let mut stranger = door.enter(HERE, b"http/1.1", false).await.expect("let in");
        assert!(is_served(&mut stranger).await);
        strangers.push(stranger);
    }
    let mut third = door.enter(HERE, b"http/1.1", false).await.expect("a handshake");
    assert!(!is_served(&mut third).await);
    assert_eq!(door.refused(), 1);
    let mut node = door.enter(HERE, b"http/1.1", true).await.expect("let in");
    assert!(is_served(&mut node).await, "a node of the same network");

    for host in [2, 3] {
        let mut other = door.enter(Ipv4Addr::new(127, 0, 0, host), b"http/1.1", false).await.expect("let in");
        assert!(is_served(&mut other).await, "other networks have places of their own");
        strangers.push(other);
    }
    let mut fifth = door.enter(Ipv4Addr::new(127, 0, 0, 4), b"http/1.1", false).await.expect("a handshake");
    assert!(!is_served(&mut fifth).await, "all together have a bound");
    assert!(is_served(&mut node).await);
    let mut another = door.enter(HERE, b"http/1.1", true).await.expect("let in");
    assert!(is_served(&mut another).await, "nodes find room");
    drop((strangers, third, fifth, node, another));
    door.close().await;
}

#[tokio::test]
async fn a_network_begins_a_few_handshakes_at_once() {
    let door = Door::open("1h", 4, 2).await;
    let silent = [door.knock(HERE).await, door.knock(HERE).await];
    let mut third = door.knock(HERE).await;
    assert!(ended(&mut third, DEADLINE).await, "it is closed at once");
    assert_eq!(door.refused(), 1);
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    let mut other = door.enter(elsewhere, b"http/1.1", false).await.expect("let in");
    assert!(is_served(&mut other).await);
    drop((silent, other));
    door.close().await;
}

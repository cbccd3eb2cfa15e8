//! The floor: an HTTPS server that answers every request with the same 1 KiB, and its client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Set to the server's PEM in the process that serves.
pub(super) const SERVE: &str = "COLD_READ_BARE_SERVER";
const BODY: [u8; 1024] = [b'x'; 1024];

/// A server in a process of its own, as the manager is none of the client's.
pub(super) struct BareServer {
    child: Child,
    client: reqwest::Client,
    url: String,
}

impl BareServer {
    pub(super) fn start() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a CA");
        let issuer = Issuer::from_params(&params, &key);
        let leaf_key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(["localhost".to_owned()])
            .and_then(|params| params.signed_by(&leaf_key, &issuer))
            .expect("a certificate");
        let pem = format!("{}{}{}", leaf.pem(), ca.pem(), leaf_key.serialize_pem());

        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .env(SERVE, &pem)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        use std::io::BufRead as _;
        std::io::BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a port");
        let (chain, key, roots) = parse(&pem);
        let mut tls = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a configuration");
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let client =
            reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().build().expect("a client");
        Self { child, client, url: format!("https://localhost:{}/", line.trim()) }
    }

    /// The times of some GETs, one after the other, over one connection.
    pub(super) async fn get_many(&self, count: usize) -> Vec<Duration> {
        let mut durations = Vec::with_capacity(count);
        for _ in 0..count {
            let start = Instant::now();
            let body =
                self.client.get(&self.url).send().await.expect("a response").bytes().await.expect("a body");
            durations.push(start.elapsed());
            assert_eq!(body.len(), BODY.len());
        }
        durations
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Pki = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, RootCertStore);

fn parse(pem: &str) -> Pki {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key");
    let mut roots = RootCertStore::empty();
    roots.add(chain[1].clone()).expect("a root");
    (chain, key, roots)
}

/// Serves until it is killed.
#[tokio::main]
pub(super) async fn serve(pem: &str) {
    let (chain, key, roots) = parse(pem);
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let mut tls = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a configuration");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener =
        tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let answer = service_fn(|_| async {
                Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from_static(&BODY))))
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

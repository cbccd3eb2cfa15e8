//! A TLS client without manners: it shows whatever certificate it is given, and tells exactly how it
//! was refused. Speaks just enough HTTP/1.1.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, StreamOwned,
};

use super::deadline;
use super::node::Node;
use super::operator::Operator;
use super::pki::Credential;

impl Credential {
    /// A node's own, out of its state directory.
    pub(crate) fn of_node(node: &Node) -> Self {
        let both = node.state().join("identity.pem");
        Self::read(&both, &both)
    }

    /// An operator's own.
    pub(crate) fn of_operator(operator: &Operator) -> Self {
        let both = operator.directory().join("operator.pem");
        Self::read(&both, &both)
    }

    fn read(certificate: &Path, key: &Path) -> Self {
        Self {
            chain: certificates(certificate),
            key: PrivateKeyDer::from_pem_file(key).expect("a private key"),
        }
    }
}

/// The certificates of a PEM file.
pub(crate) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let pem = fs::read(path).expect("a PEM file");
    CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().expect("certificates")
}

/// One connection to a server.
pub(crate) struct Connection(StreamOwned<ClientConnection, TcpStream>);

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Connection {
    /// Connects, trusting `roots`, and shows a certificate or none. In TLS 1.3 a client is done
    /// before its certificate is judged: a refusal comes as an alert to the first request.
    pub(crate) fn open(
        address: SocketAddr,
        roots: &[CertificateDer<'static>],
        credential: Option<Credential>,
    ) -> io::Result<Self> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root.clone()).map_err(io::Error::other)?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(store);
        let mut config = match credential {
            Some(Credential { chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::connect(address, config)
    }

    /// Connects to whoever is there, as a load balancer does that only asks for health.
    pub(crate) fn open_unverified(address: SocketAddr) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self::connect(address, config)
    }

    fn connect(address: SocketAddr, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::IpAddress(address.ip().into());
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(deadline::PATIENCE))?;
        // A request goes in two writes; the second must not wait for the first to be acknowledged.
        socket.set_nodelay(true)?;
        Ok(Self(StreamOwned::new(session, socket)))
    }

    /// Sends a request and reads the answer, up to its end or, where it has none, its head.
    pub(crate) fn request(&mut self, method: &str, path: &str, body: &str) -> io::Result<Reply> {
        self.send_head(method, path, body.len())?;
        self.0.write_all(body.as_bytes())?;
        self.reply()
    }

    /// Says nothing and hears why the peer ends the connection. Who talks to a peer that hangs up
    /// may hear a reset instead.
    pub(crate) fn refusal(mut self) -> io::Error {
        match self.0.read(&mut [0]) {
            Ok(length) => io::Error::other(format!("no refusal, but {length} bytes")),
            Err(error) => error,
        }
    }

    /// Promises `length` bytes of a body, sends only `body` and ends the connection in good order;
    /// what is answered, if anything.
    pub(crate) fn request_cut_short(
        mut self,
        method: &str,
        path: &str,
        body: &[u8],
        length: usize,
    ) -> io::Result<Reply> {
        self.send_head(method, path, length)?;
        self.0.write_all(body)?;
        self.0.conn.send_close_notify();
        self.0.flush()?;
        self.0.sock.shutdown(std::net::Shutdown::Write)?;
        self.reply()
    }

    /// Sends a request and ends the connection in good order, for a peer that listens to its end and
    /// answers nothing.
    pub(crate) fn request_without_answer(mut self, method: &str, path: &str, body: &str) -> io::Result<()> {
        self.send_head(method, path, body.len())?;
        self.0.write_all(body.as_bytes())?;
        self.0.conn.send_close_notify();
        self.0.flush()?;
        // Hanging up with something unread would reset the connection, and what was sent with it.
        let _ = self.0.read_to_end(&mut Vec::new());
        Ok(())
    }

    fn send_head(&mut self, method: &str, path: &str, length: usize) -> io::Result<()> {
        let kind = if path.contains("/secrets/") { "application/octet-stream" } else { "application/json" };
        write!(
            self.0,
            "{method} {path} HTTP/1.1\r\nhost: manager\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n"
        )
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {head}")))?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(Ok(0), str::parse)
            .map_err(io::Error::other)?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok(Reply { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// Takes every server for the right one.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

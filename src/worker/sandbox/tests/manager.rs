//! A server that speaks TLS as a manager does, refuses every request, and leaves in a directory what
//! a child needs to call it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use secretfs_wire::InstanceId;
use tempfile::TempDir;

use crate::client::{Credentials, NodeClient};
use crate::host::test_child;

const REFUSAL: &str = r#"{"error":{"code":"denied","message":"not today"}}"#;

/// A manager, and the directory that is the child's.
pub(super) struct Manager {
    directory: TempDir,
    /// A port that is not the manager's, with somebody behind it.
    _other: TcpListener,
}

impl Manager {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, content: &str| {
            let path = directory.path().join(name);
            fs::write(&path, content).expect("a file");
            chown(path, Some(test_child::NOBODY), Some(test_child::NOBODY)).expect("nobody's file");
        };
        chown(&directory, Some(test_child::NOBODY), Some(test_child::NOBODY)).expect("nobody's directory");

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        write("ca", &params.self_signed(&key).expect("a certificate").pem());
        let authority = Issuer::new(params, key);
        let issue = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new([name.to_owned()]).expect("a name");
            (params.signed_by(&key, &authority).expect("a certificate"), key)
        };
        let (certificate, key) = issue("node");
        write("certificate", &certificate.pem());
        write("key", &key.serialize_pem());

        let (certificate, key) = issue("localhost");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a server's certificate");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        write("port", &listener.local_addr().expect("an address").port().to_string());
        let config = Arc::new(config);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                // A child that is stopped in the middle is not this server's trouble.
                std::thread::spawn(move || refuse(StreamOwned::new(connection, socket)));
            }
        });

        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        write("other-port", &other.local_addr().expect("an address").port().to_string());
        Self { directory, _other: other }
    }

    pub(super) fn directory(&self) -> &str {
        self.directory.path().to_str().expect("ASCII")
    }
}

fn refuse(mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
    BufReader::new(&mut stream).lines().map_while(Result::ok).find(String::is_empty);
    let length = REFUSAL.len();
    write!(stream, "HTTP/1.1 403 Forbidden\r\ncontent-length: {length}\r\n\r\n{REFUSAL}")?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// A port that a manager has left in its directory.
pub(super) fn port(directory: &Path, name: &str) -> u16 {
    fs::read_to_string(directory.join(name)).expect("a port").parse().expect("a number")
}

/// A client of the manager that has left its directory here.
pub(super) fn client(directory: &Path) -> NodeClient {
    let read = |name: &str| fs::read_to_string(directory.join(name)).expect("a PEM file");
    let credentials =
        Credentials { certificate: read("certificate"), key: read("key").into(), ca: read("ca") };
    let url = format!("https://localhost:{}/", port(directory, "port"));
    let (url, timeout) = (url.parse().expect("a URL"), Duration::from_secs(5));
    NodeClient::new(url, &credentials, timeout, InstanceId::random()).expect("a client")
}

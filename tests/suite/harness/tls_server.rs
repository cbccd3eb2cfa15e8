//! A TLS server under an authority of the harness: each connection is a thread's.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use rustls::crypto::aws_lc_rs;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::pki::{Authority, Credential};

/// One accepted connection, its handshake not done yet.
pub(crate) type Accepted = StreamOwned<ServerConnection, TcpStream>;

/// Listens until it is dropped.
pub(crate) struct TlsServer {
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl TlsServer {
    pub(crate) fn start(authority: &Authority, serve: impl Fn(Accepted) + Send + Sync + 'static) -> Self {
        let Credential { chain, key } = authority.server();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server's certificate");
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let serve = Arc::new(serve);
        let accepting = thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let connection = ServerConnection::new(config.clone()).expect("a connection");
                let serve = serve.clone();
                thread::spawn(move || serve(StreamOwned::new(connection, socket)));
            }
        });
        Self { address, stopping, accepting: Some(accepting) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Accepting blocks; one more connection wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Reads a request of HTTP/1.1: its path, in lower case, and its body.
pub(crate) fn read_request(connection: &mut BufReader<Accepted>) -> io::Result<(String, Vec<u8>)> {
    let (mut path, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if connection.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_lowercase();
        if path.is_none() {
            path = line.split(' ').nth(1).map(str::to_owned);
        } else if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().map_err(io::Error::other)?;
        } else if line.is_empty() {
            let mut body = vec![0; length];
            connection.read_exact(&mut body)?;
            return Ok((path.unwrap_or_default(), body));
        }
    }
}

/// Answers one.
pub(crate) fn reply(out: &mut Accepted, body: &[u8]) -> io::Result<()> {
    head(out, body.len())?;
    out.write_all(body)?;
    out.flush()
}

/// The beginning of an answer of so many bytes.
pub(crate) fn head(out: &mut Accepted, length: usize) -> io::Result<()> {
    write!(out, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")
}

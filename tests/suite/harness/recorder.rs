//! A server that is not the manager and writes down what it is told.

use std::io::Read as _;
use std::sync::{Arc, Mutex};

use super::deadline;
use super::pki::Authority;
use super::tls_server::{Accepted, TlsServer};

/// A real TLS server of another authority.
pub(crate) struct Recorder {
    pub(crate) authority: Authority,
    pub(crate) server: TlsServer,
    connections: Arc<Mutex<Vec<Recording>>>,
}

/// What came over one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recording {
    /// Whether the client accepted the server.
    pub(crate) handshake_done: bool,
    /// What the client said after that.
    pub(crate) received: Vec<u8>,
}

impl Recorder {
    pub(crate) fn start() -> Self {
        let authority = Authority::new();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let record = connections.clone();
        let server = TlsServer::start(&authority, move |connection| {
            let recording = listen(connection);
            record.lock().expect("no recording panics").push(recording);
        });
        Self { authority, server, connections }
    }

    /// What has come over all connections that have ended, of which there must be one at least.
    pub(crate) fn recordings(&self) -> Vec<Recording> {
        deadline::poll("a connection to the recorder", || {
            let recordings = self.connections.lock().expect("no recording panics").clone();
            (!recordings.is_empty()).then_some(recordings)
        })
    }
}

fn listen(mut connection: Accepted) -> Recording {
    while connection.conn.is_handshaking() {
        if connection.conn.complete_io(&mut connection.sock).is_err() {
            return Recording::default();
        }
    }
    let mut received = Vec::new();
    // Whether the client ends in good order does not matter; what it said does.
    let _ = connection.read_to_end(&mut received);
    Recording { handshake_done: true, received }
}

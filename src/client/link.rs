//! Whether anybody is there: a call that is not answered does not say by itself if it met nobody, or a
//! manager that is in trouble.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};

/// As rustls has it by default.
const SESSIONS: usize = 256;

/// What is known of the way to one manager.
///
/// TLS asks its store of sessions when it begins, and it begins when there is a TCP connection: no other
/// sign of one comes out of the HTTP client.
#[derive(Debug)]
pub(super) struct Link {
    handshakes: AtomicU64,
    up: AtomicBool,
    sessions: ClientSessionMemoryCache,
}

impl Link {
    /// Watches the connections that are made with these settings.
    pub(super) fn of(tls: &mut ClientConfig) -> Arc<Self> {
        let link = Arc::new(Self {
            handshakes: AtomicU64::new(0),
            up: AtomicBool::new(false),
            sessions: ClientSessionMemoryCache::new(SESSIONS),
        });
        tls.resumption = rustls::client::Resumption::store(link.clone());
        link
    }

    /// Somebody answered, or an answer that had begun broke off.
    pub(super) fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// What to compare with later.
    pub(super) fn look(&self) -> Look {
        Look { handshakes: self.handshakes.load(Ordering::Relaxed), up: self.up.load(Ordering::Relaxed) }
    }
}

/// The link at some time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    handshakes: u64,
    up: bool,
}

impl Look {
    /// Whether since then nobody was met: there was no connection, and none has come about.
    pub(super) fn met_nobody(self, link: &Link) -> bool {
        !self.up && self.handshakes == link.handshakes.load(Ordering::Relaxed)
    }
}

impl ClientSessionStore for Link {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.sessions.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        self.sessions.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.sessions.set_tls12_session(server_name, value);
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.sessions.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.sessions.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.sessions.insert_tls13_ticket(server_name, value);
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.sessions.take_tls13_ticket(server_name)
    }
}

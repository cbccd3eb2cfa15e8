//! TLS connections: accepted, bounded, and handed to the API.

mod certificates;
mod connection;
mod idle;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::{Extension, Router};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::limits::Newcomers;
use crate::metrics::Metrics;

pub(crate) use certificates::{Certificates, TlsError, untrusted};

use connection::{Connection, Http};

/// How long to leave the listener alone when the system has no descriptors left: they come back
/// when connections close, not sooner because we ask again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections are served with.
pub(crate) struct Service<'a> {
    pub(crate) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(crate) router: Router,
    pub(crate) config: &'a Config,
    pub(crate) metrics: &'a Metrics,
}

/// From where a request comes: the other end of its connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PeerAddress(pub(crate) IpAddr);

/// The connection of a request.
#[derive(Debug, Clone)]
pub(crate) struct PeerConnection {
    pub(crate) accepted: Instant,
    /// Cancelled when its peer is to make another one. What is under way on it ends first.
    pub(crate) leave: CancellationToken,
}

impl PeerConnection {
    /// One that is made now.
    pub(crate) fn now() -> Self {
        Self { accepted: Instant::now(), leave: CancellationToken::new() }
    }
}

/// Connections that are served.
#[derive(Default)]
pub(crate) struct OpenConnections {
    open: TaskTracker,
    abandon: CancellationToken,
}

/// Accepts connections until `shutdown`, then lets those that are open end within the deadline.
pub(crate) async fn serve(listener: TcpListener, service: Service<'_>, shutdown: CancellationToken) {
    let (open, deadline) = (OpenConnections::default(), service.config.shutdown_deadline);
    open.accept(&listener, service, &shutdown).await;
    drop(listener);
    open.end(deadline).await;
}

impl OpenConnections {
    /// Accepts connections until `shutdown`, and tells them of it.
    pub(crate) async fn accept(
        &self,
        listener: &TcpListener,
        service: Service<'_>,
        shutdown: &CancellationToken,
    ) {
        let Service { tls, router, config, metrics } = service;
        let room = Arc::new(Semaphore::new(config.max_connections));
        let newcomers = Newcomers::new(&config.limits);
        while let Some((stream, address, permit)) = next(listener, &room, shutdown).await {
            // An IPv4 address that came in on an IPv6 socket is one all the same.
            let address = address.ip().to_canonical();
            let Some(place) = newcomers.begin(address) else {
                metrics.refused_connections.inc();
                tracing::debug!(%address, "too many handshakes of one network; a connection is closed");
                continue;
            };
            let peer = PeerConnection { leave: shutdown.child_token(), ..PeerConnection::now() };
            let leave = peer.leave.clone();
            let connection = Connection {
                tls: Arc::clone(&tls.borrow()),
                router: router.clone().layer(Extension(PeerAddress(address))).layer(Extension(peer)),
                address,
                place,
                newcomers: newcomers.clone(),
                failed_handshakes: metrics.failed_handshakes.clone(),
                refused: metrics.refused_connections.clone(),
                http: Http {
                    handshake_timeout: config.handshake_timeout,
                    max_streams: config.max_streams,
                    leave,
                },
            };
            let (gauge, abandon) = (metrics.connections.clone(), self.abandon.clone());
            self.open.spawn(async move {
                gauge.inc();
                tokio::select! {
                    () = connection.serve(stream) => {}
                    () = abandon.cancelled() => {}
                }
                gauge.dec();
                drop(permit);
            });
        }
    }

    /// Lets them end, and cuts them at the deadline.
    pub(crate) async fn end(self, deadline: Duration) {
        self.open.close();
        if timeout(deadline, self.open.wait()).await.is_err() {
            tracing::warn!(
                connections = self.open.len(),
                "the shutdown deadline has passed; open connections are cut"
            );
            self.abandon.cancel();
            self.open.wait().await;
        }
    }
}

/// The next connection, once there is room for it; `None` at shutdown.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        let permit = Arc::clone(room).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, address)) => return Some((stream, address, permit)),
                // The peer's failure, not ours: it was gone before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(accepted).await.flatten()
}

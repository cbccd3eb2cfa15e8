use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::counter::Counter;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::certificates::H2;
use super::idle::Requests;
use crate::ca::{PeerCertificate, UnknownSubject};
use crate::limits::{Newcomers, Place};

/// A peer that answers no ping for this long is gone.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How long a peer may take to take note that its connection ends on which nothing is under way.
const FAREWELL: Duration = Duration::from_secs(1);

/// What one connection needs.
pub(super) struct Connection {
    pub(super) tls: Arc<ServerConfig>,
    pub(super) router: Router,
    pub(super) address: IpAddr,
    /// As long as its handshake takes.
    pub(super) place: Place,
    pub(super) newcomers: Newcomers,
    pub(super) failed_handshakes: Counter<u64, AtomicU64>,
    pub(super) refused: Counter<u64, AtomicU64>,
    pub(super) http: Http,
}

/// How requests are answered on it.
pub(super) struct Http {
    pub(super) handshake_timeout: Duration,
    pub(super) max_streams: u32,
    /// Cancelled when nothing new is to be begun.
    pub(super) leave: CancellationToken,
}

impl Connection {
    /// Serves one connection to its end.
    pub(super) async fn serve(self, stream: TcpStream) {
        // Small answers must not wait for more; where it cannot be set, they do.
        let _ = stream.set_nodelay(true);
        let handshake = TlsAcceptor::from(Arc::clone(&self.tls)).accept(stream);
        let handshake = timeout(self.http.handshake_timeout, handshake);
        let Some(handshake) = self.http.leave.run_until_cancelled(handshake).await else { return };
        let stream = match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.failed_handshakes.inc();
                tracing::debug!(%error, "a TLS handshake failed");
                return;
            }
            Err(_) => {
                self.failed_handshakes.inc();
                tracing::debug!("a TLS handshake took too long");
                return;
            }
        };
        // Its handshake is over.
        drop(self.place);
        match peer(&stream) {
            Ok(Some(peer)) => {
                let router = self.router.layer(Extension(peer));
                self.http.answer(stream, router, std::future::pending()).await;
            }
            Ok(None) => {
                let Some(_anonymous) = self.newcomers.stay(self.address) else {
                    self.refused.inc();
                    tracing::debug!(address = %self.address, "too many connections without a certificate");
                    return;
                };
                let requests = Requests::default();
                let router = requests.count(self.router);
                let idle = requests.cease(self.http.handshake_timeout);
                self.http.answer(stream, router, idle).await;
            }
            Err(error) => tracing::warn!(%error, "a connection is refused"),
        }
    }
}

impl Http {
    /// Answers requests until the peer has no more, nothing new is to be begun, or `idle` is over.
    async fn answer(self, stream: TlsStream<TcpStream>, router: Router, idle: impl Future<Output = ()>) {
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.handshake_timeout)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        // The handshake has chosen; guessing from the first bytes would have no deadline.
        let server = if is_h2 { server.http2_only() } else { server.http1_only() };
        let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.leave.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = idle => {
                connection.as_mut().graceful_shutdown();
                timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}

/// Whom the client certificate names; `None` when there is none.
fn peer(stream: &TlsStream<TcpStream>) -> Result<Option<PeerCertificate>, UnknownSubject> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    leaf.map(PeerCertificate::from_der).transpose()
}

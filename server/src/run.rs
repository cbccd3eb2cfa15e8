//! Serving a manager until it is told to stop.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::app::App;
use crate::error::Cause;
use crate::listener::{self, Certificates};
use crate::manager::Manager;

/// Why a manager stopped serving, or never began.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener's certificate or its TLS settings cannot be made.
    #[error("cannot set up TLS")]
    Tls(#[source] Cause),
}

/// Serves on `listener` until `shutdown` is cancelled. Then nothing new is accepted, change streams
/// end, open connections are told to go away, and requests in flight have
/// [`shutdown_deadline`](crate::Config::shutdown_deadline) to end.
///
/// # Errors
/// When TLS cannot be set up. A connection's failure is the connection's.
pub async fn run(
    manager: Manager,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let Manager { config, store, keys, authority } = manager;
    let certificates = Certificates::issue(Arc::clone(&authority), &config.names)
        .map_err(|error| RunError::Tls(error.into()))?;
    let tls = certificates.subscribe();
    let renewal = tokio::spawn(certificates.renew(shutdown.clone()));

    let sweeping = tokio::spawn({
        let keys = Arc::clone(&keys);
        async move { keys.sweep().await }
    });
    let app = Arc::new(App::new(config, store, keys, authority, shutdown.clone()));
    let (router, _) = api::router(Arc::clone(&app));
    tracing::info!(url = %app.config.url, version = env!("CARGO_PKG_VERSION"), "the manager serves");
    listener::serve(listener, tls, router, &app.config, &app.metrics, shutdown).await;
    renewal.abort();
    sweeping.abort();
    tracing::info!("the manager has stopped");
    Ok(())
}

//! Serving a manager until it is told to stop.

use std::io;
use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::app::App;
use crate::authz::{Authorizer, PolicyError};
use crate::error::Cause;
use crate::listener::{self, Certificates, Service};
use crate::manager::{Manager, OpenError, Opening};
use crate::sealed;

/// Why a manager stopped serving, or never began.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The listener's certificate or its TLS settings cannot be made.
    #[error("cannot set up TLS")]
    Tls(#[source] Cause),
    /// One of the organisation's own policies cannot be used: without it doors might be open.
    #[error("cannot use the policies")]
    Policies(#[source] PolicyError),
    /// The manager is sealed, and cannot be told its unlock key.
    #[error("cannot listen for unlock keys in the data directory")]
    UnlockSocket(#[source] io::Error),
    /// The manager was unlocked, and cannot be opened.
    #[error("cannot open the manager")]
    Open(#[source] OpenError),
}

/// Serves on `listener`, and while the manager is sealed answers that it is, until `shutdown` is cancelled. Then nothing new is accepted, change streams
/// end, open connections are told to go away, and requests in flight have
/// [`shutdown_deadline`](crate::Config::shutdown_deadline) to end.
///
/// # Errors
/// When TLS cannot be set up, a policy is wrong, or an unlocked manager cannot be opened. A connection's failure is the connection's.
pub async fn run(
    manager: impl Into<Opening>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let opening = manager.into();
    // Before anybody unlocks it: one who did would find it gone.
    let policies = opening.config().policies.clone();
    let authorizer = Arc::new(Authorizer::open(policies.as_deref()).map_err(RunError::Policies)?);
    let (manager, confirmation) = match opening {
        Opening::Unlocked(manager) => (*manager, None),
        Opening::Sealed(sealed) => match sealed::serve(*sealed, &listener, &shutdown).await? {
            Some(unlocked) => unlocked,
            None => return Ok(()),
        },
    };
    let Manager { config, store, keys, authority, audit, unlocked } = manager;
    let certificates = Certificates::issue(Arc::clone(&authority), &config.names)
        .map_err(|error| RunError::Tls(error.into()))?;
    let tls = certificates.subscribe();
    let renewal = tokio::spawn(certificates.renew(shutdown.clone()));

    let sweeping = tokio::spawn({
        let keys = Arc::clone(&keys);
        async move { keys.sweep().await }
    });
    let following = policies.map(|directory| tokio::spawn(Arc::clone(&authorizer).follow(directory)));
    let app = Arc::new(App::new(config, store, keys, authority, authorizer, audit, shutdown.clone()));
    let reporting = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.report_refusals().await }
    });
    let (router, _) = api::router(Arc::clone(&app));
    app.record_start(unlocked).await;
    tracing::info!(url = %app.config.url, version = env!("CARGO_PKG_VERSION"), "the manager serves");
    tell("serves");
    if let Some(confirmation) = confirmation {
        // Whoever connects now is served: the listener is there, and has been all the time.
        tokio::spawn(confirmation.send());
    }
    let service = Service { tls, router, config: &app.config, metrics: &app.metrics };
    listener::serve(listener, service, shutdown).await;
    // It has heard of the shutdown, and tells the rest.
    let _ = reporting.await;
    renewal.abort();
    sweeping.abort();
    if let Some(following) = following {
        following.abort();
    }
    app.record_stop().await;
    tracing::info!("the manager has stopped");
    Ok(())
}

/// Tells the service manager how the manager does, where there is one (`NOTIFY_SOCKET`, sd_notify(3)).
pub(crate) fn tell(status: &str) {
    if let Err(error) = sd_notify::notify(&[NotifyState::Status(status)]) {
        tracing::warn!(%error, "the service manager does not hear");
    }
}

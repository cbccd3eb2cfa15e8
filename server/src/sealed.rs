//! A manager that runs and is sealed: it answers that it is, and waits for its unlock key.

use std::fmt;
use std::time::Duration;

use secretfs_wire::audit::{Event, Outcome};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::ca::SERVER_LIFETIME;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::keys::RootKey;
use crate::listener::{self, OpenConnections, Service};
use crate::manager::{Manager, unlocked_by};
use crate::metrics::Metrics;
use crate::run::{self, RunError};
use crate::seal::{AutoSources, Confirmation, SealedRoot, UnlockSocket, Unlocking};

/// How often that which unlocks without an operator is tried again: it may have been away.
const AGAIN: Duration = Duration::from_secs(5);

/// A manager whose root key is sealed. It holds its data directory.
pub struct SealedManager {
    pub(crate) config: Config,
    pub(crate) directory: DataDir,
    pub(crate) sources: AutoSources,
    pub(crate) sealed: SealedRoot,
}

/// Answers that the manager is sealed until it is unlocked. The manager, and who has to be told when it
/// serves; `None` at shutdown.
pub(crate) async fn serve(
    manager: SealedManager,
    listener: &TcpListener,
    shutdown: &CancellationToken,
) -> Result<Option<(Manager, Option<Confirmation>)>, RunError> {
    let SealedManager { config, directory, sources, sealed } = manager;
    let tls = |error: listener::TlsError| RunError::Tls(error.into());
    let socket = UnlockSocket::bind(&directory.unlock_socket()).map_err(RunError::UnlockSocket)?;
    let certificate = watch::Sender::new(listener::untrusted(&config.names).map_err(tls)?);
    let renewal = async {
        loop {
            tokio::time::sleep(SERVER_LIFETIME / 2).await;
            if let Ok(next) = listener::untrusted(&config.names) {
                certificate.send_replace(next);
            }
        }
    };
    let (open, sealed_until) = (OpenConnections::default(), shutdown.child_token());
    let service = Service {
        tls: certificate.subscribe(),
        router: api::sealed_router(),
        config: &config,
        metrics: &Metrics::new(),
    };
    run::tell("sealed: waits for `secretfs manager unlock`");
    tracing::warn!("the manager is sealed; unlock it with `secretfs manager unlock`");

    let mut unlocking = Unlocking::new(sealed.clone());
    let people = unlocking.means();
    let unlocked = tokio::select! {
        (root, confirmation) = socket.hear(&mut unlocking) => Some((root, people, Some(confirmation))),
        (root, means) = try_again(&sources, &sealed) => Some((root, means, None)),
        () = open.accept(listener, service, &sealed_until) => None,
        () = renewal => None,
    };
    drop(socket);
    sealed_until.cancel();
    let deadline = config.shutdown_deadline;
    let Some((root, means, confirmation)) = unlocked else {
        open.end(deadline).await;
        tracing::info!("the manager has stopped, sealed");
        return Ok(None);
    };
    // Whoever still has a connection need not be waited for.
    tokio::spawn(open.end(deadline));
    tracing::info!("the manager is unlocked");
    let mut events = Vec::new();
    if unlocking.failures() > 0 {
        let refused = unlocked_by(people, Outcome::Denied);
        events.push(Event { count: Some(unlocking.failures().into()), ..refused });
    }
    events.push(unlocked_by(means, Outcome::Done));
    let manager = Manager::unlocked(config, directory, root, sources.into_backends(), events)
        .await
        .map_err(RunError::Open)?;
    Ok(Some((manager, confirmation)))
}

/// The root key, once something gives it that needs no operator, and what that is.
async fn try_again(sources: &AutoSources, sealed: &SealedRoot) -> (RootKey, &'static str) {
    loop {
        tokio::time::sleep(AGAIN).await;
        if let Some(opened) = sources.open(sealed, false).await {
            return opened;
        }
    }
}

impl fmt::Debug for SealedManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedManager").field("config", &self.config).finish_non_exhaustive()
    }
}

//! What the manager does, whoever asks and however: the use cases, between the API and the store.

mod changes;
mod delivery;
mod environments;
mod generate;
mod instances;
mod join;
mod keys;
mod nodes;
mod opens;
mod operators;
mod presence;
mod record;
mod refusals;
mod secrets;
mod services;
mod sessions;
mod stream;
mod templates;
#[cfg(test)]
mod tests;
mod tokens;
mod usage;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use secretfs_wire::api::{Health, HealthState};
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::authz::Authorizer;
use crate::ca::Authority;
use crate::config::Config;
use crate::error::Error;
use crate::keys::Keyring;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::store::Store;

use changes::Changes;
use instances::Instances;
use presence::Presence;
use sessions::Sessions;
use usage::Usage;

pub(crate) use delivery::Envelope;
pub(crate) use generate::Length;
pub(crate) use instances::Speaker;
pub(crate) use operators::{draw_enrolment, shown_once};
pub(crate) use secrets::NewValue;

/// Of a token, 30 days.
const TOKEN_MAX_SECONDS: u64 = 30 * 24 * 60 * 60;

/// A running manager without its listener.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Arc<Keyring>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) authorizer: Arc<Authorizer>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    /// Cancelled when the manager shuts down: streams end, and load balancers look elsewhere.
    pub(crate) stopping: CancellationToken,
    changes: Changes,
    sessions: Sessions,
    presence: Presence,
    instances: Instances,
    usage: Usage,
}

impl App {
    pub(crate) fn new(
        config: Config,
        store: Arc<dyn Store>,
        keys: Arc<Keyring>,
        authority: Arc<Authority>,
        authorizer: Arc<Authorizer>,
        audit: Arc<Audit>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            sessions: Sessions::new(config.session_lifetime),
            presence: Presence::default(),
            instances: Instances::default(),
            limits: Limits::new(&config.limits),
            usage: Usage::default(),
            changes: Changes::default(),
            metrics: Metrics::new(),
            config,
            store,
            keys,
            authority,
            authorizer,
            audit,
            stopping,
        }
    }

    /// Whether the manager can serve, and if not, why in words that are for everybody.
    pub(crate) async fn health(&self) -> Health {
        let health = |state, reason: Option<&str>| Health {
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            reason: reason.map(str::to_owned),
        };
        if self.stopping.is_cancelled() {
            return health(HealthState::Stopping, None);
        }
        if let Err(error) = self.store.ping().await {
            tracing::error!(%error, "the store does not answer");
            return health(HealthState::Unhealthy, Some("the store does not answer"));
        }
        if let Err(error) = self.keys.health().await {
            tracing::error!(%error, "the keys cannot be used");
            return health(HealthState::Unhealthy, Some("the keys cannot be used"));
        }
        if let Some(trouble) = self.audit.status().trouble() {
            return health(HealthState::Unhealthy, Some(&trouble));
        }
        health(HealthState::Healthy, None)
    }
}

/// When a token ends that is good for so long.
fn expiry(created: Timestamp, ttl_seconds: u64) -> Result<Timestamp, Error> {
    if !(1..=TOKEN_MAX_SECONDS).contains(&ttl_seconds) {
        return Err(Error::Invalid("ttl_seconds must be 1 second to 30 days".to_owned()));
    }
    let ttl = SignedDuration::from_secs(ttl_seconds.cast_signed());
    created.checked_add(ttl).map_err(Error::internal)
}

/// The time, in whole microseconds as the store keeps it: what a change answers is what a listing
/// says later.
pub(crate) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

use std::time::Duration;

use secretfs_wire::Action;
use secretfs_wire::audit::{Actor, Event, Outcome};
use tokio::time::{MissedTickBehavior, interval};

use super::{App, now};
use crate::ca::Subject;
use crate::error::Error;
use crate::limits::{Limit, Limited, Refused};

/// How often it is told what was refused, each caller once, and recorded what was counted of the unknown.
const EVERY: Duration = Duration::from_secs(60);

impl App {
    /// Refuses a request that is one too many.
    pub(crate) fn refuse(&self, limit: Limit, caller: Limited, wait: Duration) -> Error {
        self.metrics.limited(limit);
        self.limits.refusals().note(limit, caller, now());
        Error::RateLimited { limit, wait }
    }

    /// Tells what was refused, until the manager stops.
    pub(crate) async fn report_refusals(&self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stops = tokio::select! {
                _ = ticks.tick() => false,
                () = self.stopping.cancelled() => true,
            };
            for refused in self.limits.refusals().take() {
                self.rate_limited(refused).await;
            }
            if let Err(error) = self.audit.record_counted().await {
                tracing::error!(%error, "how often callers were refused is not recorded yet");
            }
            if stops {
                return;
            }
        }
    }

    /// Requests of one caller were refused in the last minute.
    async fn rate_limited(&self, refused: Refused) {
        let Refused { limit, caller, since, times } = refused;
        let of = caller.as_ref().map_or_else(|| "many".to_owned(), ToString::to_string);
        tracing::warn!(caller = of, limit = limit.as_str(), %since, times, "requests were refused: too many");
        let mut event = Event::new(Action::CallerLimit, Outcome::Denied, Actor::Anonymous);
        (event.count, event.happened) = (Some(times), Some(since));
        event.reason = Some(limit.as_str().to_owned());
        match caller {
            Some(Limited::Subject(Subject::Operator { name, id })) => {
                event.actor = Actor::Operator { name, id }
            }
            Some(Limited::Subject(Subject::Node { environment, name, id })) => {
                event.environment = Some(environment.clone());
                event.actor = Actor::Node { environment, name, id };
            }
            Some(Limited::Address(address)) => event.address = Some(address),
            None => {}
        }
        self.note(event).await;
    }
}

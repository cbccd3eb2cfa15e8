use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::{App, now};
use crate::error::Error;
use crate::limits::{Limit, Limited, Refused};

/// How often it is told what was refused, each caller once.
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
            self.limits.refusals().take().iter().for_each(|refused| self.rate_limited(refused));
            if stops {
                return;
            }
        }
    }

    /// Requests of one caller were refused in the last minute.
    fn rate_limited(&self, refused: &Refused) {
        let Refused { limit, caller, since, times } = refused;
        let caller = caller.as_ref().map_or_else(|| "many".to_owned(), ToString::to_string);
        tracing::warn!(caller, limit = limit.as_str(), %since, times, "requests were refused: too many");
    }
}

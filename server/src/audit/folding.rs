use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secretfs_wire::audit::Event;
use tokio::time::Instant;

/// Within this time the same refusal is counted and not recorded anew.
const WITHIN: Duration = Duration::from_secs(10);
/// So many different ones are told apart at once; what is more is recorded one by one.
const MOST: usize = 1024;

/// Refusals of callers whom nobody knows, of which there may be any number.
#[derive(Default)]
pub(super) struct Folding(Mutex<HashMap<String, Folded>>);

struct Folded {
    since: Instant,
    event: Event,
    more: u64,
}

impl Folding {
    /// What has to be recorded now that this has happened: it, if it is the first of its kind for a
    /// while, and how often those were that are over.
    pub(super) fn take(&self, event: Event, now: Instant) -> Vec<Event> {
        let mut folded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = Vec::new();
        folded.retain(|_, folded| {
            let is_over = now.duration_since(folded.since) >= WITHIN;
            if is_over {
                record.extend(folded.counted());
            }
            !is_over
        });
        // Derived `Debug` says all of an event, and an event holds nothing that may not be seen.
        let kind = format!("{event:?}");
        match folded.get_mut(&kind) {
            Some(known) => known.more += 1,
            None => {
                if folded.len() < MOST {
                    folded.insert(kind, Folded { since: now, event: event.clone(), more: 0 });
                }
                record.push(event);
            }
        }
        record
    }

    /// All that was counted and is not recorded yet.
    pub(super) fn drain(&self) -> Vec<Event> {
        let mut folded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        folded.drain().filter_map(|(_, folded)| folded.counted()).collect()
    }
}

impl Folded {
    fn counted(&self) -> Option<Event> {
        (self.more > 0).then(|| Event { count: Some(self.more), ..self.event.clone() })
    }
}

#[cfg(test)]
mod tests {
    use secretfs_wire::Action;
    use secretfs_wire::audit::{Actor, Outcome};

    use super::*;

    #[test]
    fn a_refusal_is_recorded_once_and_then_how_often_it_was() {
        let (folding, now) = (Folding::default(), Instant::now());
        let event = Event::new(Action::SecretList, Outcome::Denied, Actor::Anonymous);
        let other = Event::new(Action::KeyList, Outcome::Denied, Actor::Anonymous);
        assert_eq!(folding.take(event.clone(), now), std::slice::from_ref(&event));
        assert!(folding.take(event.clone(), now).is_empty());
        assert!(folding.take(event.clone(), now).is_empty());
        assert_eq!(folding.take(other.clone(), now), std::slice::from_ref(&other));
        let counted = Event { count: Some(2), ..event.clone() };
        assert_eq!(folding.take(event.clone(), now + WITHIN), [counted, event.clone()]);
        assert!(folding.take(event.clone(), now + WITHIN).is_empty());
        assert_eq!(folding.drain(), [Event { count: Some(1), ..event }]);
        assert!(folding.drain().is_empty());
    }
}

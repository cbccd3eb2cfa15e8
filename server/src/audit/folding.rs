use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
        let mut folded = self.lock();
        let mut record = over(&mut folded, now);
        let kind = kind_of(&event);
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

    /// How often those were that are over.
    pub(super) fn over(&self, now: Instant) -> Vec<Event> {
        over(&mut self.lock(), now)
    }

    /// Counts what was to be recorded, and could not be, among those that come.
    pub(super) fn put_back(&self, events: Vec<Event>, now: Instant) {
        let mut folded = self.lock();
        for event in events {
            let (more, event) = (event.count.unwrap_or(1), Event { count: None, ..event });
            let known = folded.entry(kind_of(&event)).or_insert(Folded { since: now, event, more: 0 });
            known.more += more;
        }
    }

    /// All that was counted and is not recorded yet.
    pub(super) fn drain(&self) -> Vec<Event> {
        self.lock().drain().filter_map(|(_, folded)| folded.counted()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Folded>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn over(folded: &mut HashMap<String, Folded>, now: Instant) -> Vec<Event> {
    let over = folded.extract_if(|_, folded| now.duration_since(folded.since) >= WITHIN);
    over.filter_map(|(_, folded)| folded.counted()).collect()
}

/// Derived `Debug` says all of an event, and an event holds nothing that may not be seen.
fn kind_of(event: &Event) -> String {
    format!("{event:?}")
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

    #[test]
    fn what_could_not_be_recorded_is_counted_on() {
        let (folding, now) = (Folding::default(), Instant::now());
        let event = Event::new(Action::SecretList, Outcome::Denied, Actor::Anonymous);
        let first = folding.take(event.clone(), now);
        folding.take(event.clone(), now);
        folding.put_back(first, now);
        assert!(folding.over(now).is_empty());
        let counted = folding.over(now + WITHIN);
        assert_eq!(counted, [Event { count: Some(2), ..event.clone() }]);
        folding.put_back(counted, now + WITHIN);
        assert!(folding.take(event.clone(), now + WITHIN).is_empty());
        assert_eq!(folding.over(now + 2 * WITHIN), [Event { count: Some(3), ..event }]);
        assert!(folding.drain().is_empty());
    }
}

//! Events that wait for room in the queue.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::event::{Event, Inotify};
use super::queue::{EventSender, MOST_EVENTS};
use crate::fs::Change;

/// How many events wait. More than that, and a notifier that does not keep up costs events instead of
/// memory.
const MOST_WAITING: usize = 16 << 10;

/// Where the events of a mount go, and what they are.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    /// What a change is.
    pub(crate) inotify: Inotify,
    /// The place of the mount among those of the daemon.
    pub(crate) mount: usize,
    /// The way to the notifier.
    pub(crate) queue: Arc<EventSender>,
}

/// The events of a mount that are not in the queue yet, in order.
pub(in crate::fuse) struct Backlog {
    watched: Option<Watched>,
    waiting: VecDeque<Event>,
    /// Each with how many events have to be sent before it may be dropped.
    told: VecDeque<(usize, Box<dyn Send>)>,
}

impl Backlog {
    pub(in crate::fuse) const fn new(watched: Option<Watched>) -> Self {
        Self { watched, waiting: VecDeque::new(), told: VecDeque::new() }
    }

    /// Adds what changes are worth, and `told`, which is dropped when all of it is in the queue: from
    /// then on it survives this process.
    pub(in crate::fuse) fn add(&mut self, changes: &[Change], told: Box<dyn Send>) {
        let events = self.watched.iter().flat_map(|Watched { inotify, mount, .. }| {
            changes.iter().flat_map(|change| inotify.events(*mount, change))
        });
        let before = self.waiting.len();
        self.waiting.extend(events);
        if before > 0 && self.waiting.len() > MOST_WAITING {
            let lost = self.waiting.len() - before;
            tracing::error!(lost, "the notifier does not keep up; watchers are not told of some changes");
            self.waiting.truncate(before);
        }
        self.told.push_back((self.waiting.len(), told));
    }

    /// Sends what there is room for. Tells whether something still waits.
    pub(in crate::fuse) fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let packet = self.waiting.make_contiguous();
            let packet = packet.get(..MOST_EVENTS).unwrap_or(packet);
            let sent = packet.len();
            match self.watched.as_ref().map(|watched| watched.queue.try_send(packet)) {
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
                Some(Err(error)) => tracing::error!(%error, "watchers are not told of some changes"),
                Some(Ok(())) | None => {}
            }
            self.waiting.drain(..sent);
            self.told.iter_mut().for_each(|(before, _)| *before = before.saturating_sub(sent));
        }
        while self.told.front().is_some_and(|(before, _)| *before == 0) {
            self.told.pop_front();
        }
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::queue::event_queue;
    use super::*;
    use crate::fs::{Inode, Kind, Place};

    struct Told(Arc<AtomicUsize>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn removed(number: usize) -> Change {
        let place = Place { parent: Inode::ROOT, directory: None, name: format!("{number:0200}") };
        Change::Removed { place, inode: Inode::from_u64(9), kind: Kind::File }
    }

    #[test]
    fn what_finds_no_room_waits_in_order_and_is_not_told_before_it_is_sent() {
        let (sender, receiver) = event_queue().expect("a queue");
        let watched = Watched { inotify: Inotify::Write, mount: 1, queue: Arc::new(sender) };
        let (mut backlog, told) = (Backlog::new(Some(watched)), Arc::new(AtomicUsize::new(0)));
        let mut notices = 0;
        while !backlog.flush() {
            backlog.add(&[removed(notices)], Box::new(Told(told.clone())));
            notices += 1;
        }
        assert_eq!(told.load(Relaxed), notices - 1, "the last one found no room");
        let mut seen = 0;
        while seen < notices {
            for event in receiver.peek().expect("events") {
                assert_eq!(event.place.name, format!("{seen:0200}"));
                seen += 1;
            }
            receiver.take().expect("the same ones");
            backlog.flush();
        }
        assert_eq!(told.load(Relaxed), notices);
    }

    #[test]
    fn a_notifier_that_never_takes_anything_costs_no_memory_without_end() {
        let (sender, _receiver) = event_queue().expect("a queue");
        let watched = Watched { inotify: Inotify::Write, mount: 1, queue: Arc::new(sender) };
        let (mut backlog, told) = (Backlog::new(Some(watched)), Arc::new(AtomicUsize::new(0)));
        let changes: Vec<_> = (0..MOST_WAITING / 2).map(removed).collect();
        for _ in 0..8 {
            backlog.add(&changes, Box::new(Told(told.clone())));
            backlog.flush();
        }
        assert!(backlog.waiting.len() <= MOST_WAITING, "{}", backlog.waiting.len());
    }

    #[test]
    fn without_a_notifier_nothing_waits() {
        let (mut backlog, told) = (Backlog::new(None), Arc::new(AtomicUsize::new(0)));
        backlog.add(&[removed(1)], Box::new(Told(told.clone())));
        assert!(!backlog.flush());
        assert_eq!(told.load(Relaxed), 1);
    }
}

//! Many changes become one: a rotation of ten secrets is one reason to act.

use std::time::{Duration, Instant};

use super::directory::Snapshot;

/// However restless a directory is, what changes is acted on after so many quiet times.
const RESTLESS: u32 = 10;
/// For how long an action is put off because a file that changed cannot be opened: its reader would
/// meet an error. The manager has just told of the change, so mostly it is there in a moment.
const UNREADABLE: Duration = Duration::from_secs(30);

/// What the program has been told of, against what is there.
pub(super) struct Debounce {
    quiet: Duration,
    acted_on: Snapshot,
    seen: Snapshot,
    moving: Option<Moving>,
}

/// A difference that nobody has acted on.
struct Moving {
    since: Instant,
    last: Instant,
    readable: bool,
}

impl Debounce {
    /// Begins with what the program finds when it starts.
    pub(super) fn new(quiet: Duration, snapshot: Snapshot) -> Self {
        Self { quiet, acted_on: snapshot.clone(), seen: snapshot, moving: None }
    }

    /// What was seen last.
    pub(super) fn seen(&self) -> &Snapshot {
        &self.seen
    }

    /// Learns what is there now. `readable` tells of a file whether it could be opened, as far as its
    /// mode lets us.
    pub(super) fn see(
        &mut self,
        snapshot: Snapshot,
        now: Instant,
        readable: impl Fn(&std::ffi::OsStr) -> bool,
    ) {
        let moved = snapshot != self.seen;
        self.seen = snapshot;
        let changed = self.acted_on.differences(&self.seen);
        if changed.is_empty() {
            // Rotated and rolled back, removed and given back: nothing that a program must know.
            self.moving = None;
            return;
        }
        let moving = self.moving.get_or_insert(Moving { since: now, last: now, readable: true });
        if moved {
            moving.last = now;
        }
        moving.readable = changed.iter().all(|name| !self.seen.contains(name) || readable(name));
    }

    /// When it is time to act, if nothing more happens.
    pub(super) fn due(&self) -> Option<Instant> {
        let moving = self.moving.as_ref()?;
        let quiet = moving.last + self.quiet;
        let restless = moving.since + self.quiet * RESTLESS;
        Some(if moving.readable { quiet.min(restless) } else { (moving.since + UNREADABLE).max(quiet) })
    }

    /// The names of the files that changed, once, when it is time to act.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<String>> {
        if self.due()? > now {
            return None;
        }
        self.moving = None;
        let changed = self.acted_on.differences(&self.seen);
        self.acted_on = self.seen.clone();
        Some(changed.iter().map(|name| name.to_string_lossy().into_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(500);

    struct Rig {
        debounce: Debounce,
        begin: Instant,
        readable: bool,
    }

    impl Rig {
        fn new() -> Self {
            let debounce = Debounce::new(QUIET, Snapshot::of(&[("a", 1), ("b", 1)]));
            Self { debounce, begin: Instant::now(), readable: true }
        }

        /// Shows these files at a time in milliseconds; the names to act on.
        fn see(&mut self, at: u64, files: &[(&str, u64)]) -> Option<Vec<String>> {
            let now = self.begin + Duration::from_millis(at);
            let readable = self.readable;
            self.debounce.see(Snapshot::of(files), now, |_| readable);
            self.debounce.take(now)
        }
    }

    #[test]
    fn several_changes_are_one_when_it_has_been_quiet() {
        let mut rig = Rig::new();
        assert_eq!(rig.see(0, &[("a", 1), ("b", 1)]), None);
        assert_eq!(rig.see(100, &[("a", 2), ("b", 1)]), None);
        assert_eq!(rig.see(550, &[("a", 2), ("b", 2)]), None);
        assert_eq!(rig.see(700, &[("a", 2), ("b", 2)]), None);
        assert_eq!(rig.see(1050, &[("a", 2), ("b", 2)]), Some(vec!["a".into(), "b".into()]));
        assert_eq!(rig.see(9000, &[("a", 2), ("b", 2)]), None, "once");
    }

    #[test]
    fn a_change_that_is_taken_back_is_none() {
        let mut rig = Rig::new();
        assert_eq!(rig.see(0, &[("a", 2), ("b", 1)]), None);
        assert_eq!(rig.see(100, &[("a", 1), ("b", 1)]), None);
        assert_eq!(rig.see(9000, &[("a", 1), ("b", 1)]), None);
    }

    #[test]
    fn what_appears_and_what_goes_away_is_a_change() {
        let mut rig = Rig::new();
        assert_eq!(rig.see(0, &[("a", 1), ("c", 1)]), None);
        assert_eq!(rig.see(500, &[("a", 1), ("c", 1)]), Some(vec!["b".into(), "c".into()]));
    }

    #[test]
    fn a_restless_directory_is_acted_on_all_the_same() {
        let mut rig = Rig::new();
        let acted = (0..100).find_map(|step| {
            let at = step * 100;
            rig.see(at, &[("a", 2 + step), ("b", 1)]).map(|_| at)
        });
        assert_eq!(acted, Some(5000));
    }

    #[test]
    fn an_action_waits_for_the_file_to_be_readable_but_not_for_ever() {
        let mut rig = Rig::new();
        rig.readable = false;
        assert_eq!(rig.see(0, &[("a", 2), ("b", 1)]), None);
        assert_eq!(rig.see(2000, &[("a", 2), ("b", 1)]), None);
        rig.readable = true;
        assert!(rig.see(2100, &[("a", 2), ("b", 1)]).is_some());

        rig.readable = false;
        assert_eq!(rig.see(3000, &[("a", 3), ("b", 1)]), None);
        assert!(rig.see(33_000, &[("a", 3), ("b", 1)]).is_some());
        // What is gone needs nobody to read it.
        assert_eq!(rig.see(40_000, &[("b", 1)]), None);
        assert!(rig.see(40_500, &[("b", 1)]).is_some());
    }
}

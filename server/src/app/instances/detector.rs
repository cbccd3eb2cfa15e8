//! Whether those who speak as one node are one daemon after the other, or several at once.

use std::net::IpAddr;
use std::time::Instant;

use jiff::Timestamp;
use secretfs_wire::InstanceId;
use secretfs_wire::api::HeardInstance;

/// How many instances are remembered. One that was forgotten and speaks again is found a little later.
const MOST: usize = 8;

/// What the manager hears of a daemon.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Which one it is; one that does not say is an instance as well.
    pub(super) instance: Option<InstanceId>,
    pub(super) address: Option<IpAddr>,
    /// When the connection that it comes on was accepted.
    pub(super) accepted: Instant,
    pub(super) now: Instant,
    /// The same for people.
    pub(super) at: Timestamp,
}

/// What a word says about the node's daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// Nothing that is not known.
    Nothing,
    /// A daemon that was never heard, after others. These may have ended, or not.
    Newcomer,
    /// A daemon that another one came after, on a connection from before that. It may have ended since
    /// it said this. If not, it can say so on a new connection.
    Late,
    /// Two daemons live at the same time.
    Conflict,
}

/// The daemons that have spoken as one node.
///
/// The proof is that somebody speaks who had been replaced, on a connection that was accepted after his
/// successor was first heard: the handshake on it takes a living process. The time at which a word comes
/// in proves nothing, since the kernel goes on sending what a process said that has ended, for minutes if
/// the network is bad.
#[derive(Debug, Default)]
pub(super) struct Detector {
    /// In the order in which they were first heard.
    heard: Vec<Heard>,
    /// A conflict was found and nobody has kept it yet.
    unsaved: bool,
}

#[derive(Debug)]
struct Heard {
    instance: Option<InstanceId>,
    address: Option<IpAddr>,
    began: Instant,
    last: Timestamp,
    /// It is proven to live beside another one.
    is_duplicate: bool,
}

impl Detector {
    /// Takes a word in.
    pub(super) fn hear(&mut self, word: &Word) -> Finding {
        let Some(place) = self.heard.iter().position(|heard| heard.instance == word.instance) else {
            return self.meet(word);
        };
        let newest = self.heard.last().map_or(word.now, |newest| newest.began);
        let is_newest = place + 1 == self.heard.len();
        let heard = &mut self.heard[place];
        (heard.last, heard.address) = (word.at, word.address);
        let later = &mut self.heard[place..];
        if is_newest || later.iter().all(|heard| heard.is_duplicate) {
            return if self.unsaved { Finding::Conflict } else { Finding::Nothing };
        }
        if word.accepted <= newest {
            return Finding::Late;
        }
        // Whoever came after it came while it lived.
        later.iter_mut().for_each(|heard| heard.is_duplicate = true);
        self.unsaved = true;
        Finding::Conflict
    }

    fn meet(&mut self, word: &Word) -> Finding {
        if self.heard.len() == MOST {
            let oldest = self.heard.iter().position(|heard| !heard.is_duplicate).unwrap_or(0);
            self.heard.remove(oldest);
        }
        let Word { instance, address, now: began, at: last, accepted } = *word;
        let heard = Heard { instance, address, began, last, is_duplicate: false };
        match self.heard.last() {
            None => {
                self.heard.push(heard);
                Finding::Nothing
            }
            // Its connection is older than the newest daemon, and so may it be itself.
            Some(newest) if accepted <= newest.began => {
                self.heard.insert(self.heard.len() - 1, heard);
                Finding::Late
            }
            Some(_) => {
                self.heard.push(heard);
                Finding::Newcomer
            }
        }
    }

    /// Whether a daemon that spoke on this connection has to make another one to show that it lives.
    pub(super) fn is_replaced(&self, instance: Option<InstanceId>, accepted: Instant) -> bool {
        let place = self.heard.iter().position(|heard| heard.instance == instance);
        let Some(later) = place.map(|place| &self.heard[place..]) else { return false };
        let is_settled = later.len() == 1 || later.iter().all(|heard| heard.is_duplicate);
        !is_settled && later.last().is_some_and(|newest| accepted <= newest.began)
    }

    /// The last conflict is kept.
    pub(super) fn saved(&mut self) {
        self.unsaved = false;
    }

    /// Those who are proven to live beside each other.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = HeardInstance> {
        self.heard.iter().filter(|heard| heard.is_duplicate).map(|heard| HeardInstance {
            instance: heard.instance,
            address: heard.address,
            last_heard: heard.last,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Daemons, and connections of theirs.
    struct Rig {
        detector: Detector,
        began: Instant,
        seconds: u64,
    }

    impl Rig {
        fn new() -> Self {
            Self { detector: Detector::default(), began: Instant::now(), seconds: 0 }
        }

        /// A connection that is made now.
        fn connect(&mut self) -> u64 {
            self.seconds += 1;
            self.seconds
        }

        fn hear(&mut self, instance: Option<InstanceId>, connection: u64) -> Finding {
            self.seconds += 1;
            let at = |seconds| self.began + Duration::from_secs(seconds);
            let word = Word {
                instance,
                address: None,
                accepted: at(connection),
                now: at(self.seconds),
                at: Timestamp::UNIX_EPOCH + Duration::from_secs(self.seconds),
            };
            self.detector.hear(&word)
        }

        /// On a new connection.
        fn hear_anew(&mut self, instance: Option<InstanceId>) -> Finding {
            let connection = self.connect();
            self.hear(instance, connection)
        }

        fn is_replaced(&self, instance: Option<InstanceId>, connection: u64) -> bool {
            self.detector.is_replaced(instance, self.began + Duration::from_secs(connection))
        }

        fn duplicates(&self) -> Vec<Option<InstanceId>> {
            self.detector.duplicates().map(|heard| heard.instance).collect()
        }
    }

    fn instances<const N: usize>() -> [Option<InstanceId>; N] {
        std::array::from_fn(|_| Some(InstanceId::random()))
    }

    #[test]
    fn a_daemon_that_is_started_again_and_again_is_one() {
        let mut rig = Rig::new();
        let daemons: [_; 40] = instances();
        assert_eq!(rig.hear_anew(daemons[0]), Finding::Nothing);
        for daemon in &daemons[1..] {
            assert_eq!(rig.hear_anew(*daemon), Finding::Newcomer);
            for _ in 0..3 {
                assert_eq!(rig.hear_anew(*daemon), Finding::Nothing);
            }
        }
        assert!(rig.duplicates().is_empty());
        assert_eq!(rig.detector.heard.len(), MOST, "bounded");
    }

    #[test]
    fn what_a_daemon_said_before_it_ended_may_come_late() {
        let mut rig = Rig::new();
        let [old, new] = instances();
        let connections = [rig.connect(), rig.connect()];
        rig.hear(old, connections[0]);
        assert_eq!(rig.hear_anew(new), Finding::Newcomer);
        for connection in connections {
            assert_eq!(rig.hear(old, connection), Finding::Late);
        }
        assert_eq!(rig.hear_anew(new), Finding::Nothing);
        assert!(rig.duplicates().is_empty());
    }

    #[test]
    fn also_if_it_was_never_heard_before() {
        let mut rig = Rig::new();
        let [old, new] = instances();
        let connection = rig.connect();
        assert_eq!(rig.hear_anew(new), Finding::Nothing);
        assert_eq!(rig.hear(old, connection), Finding::Late);
        assert_eq!(rig.hear_anew(new), Finding::Nothing, "it was not replaced by that");
        assert!(rig.duplicates().is_empty());
        assert_eq!(rig.hear_anew(old), Finding::Conflict);
    }

    #[test]
    fn who_was_replaced_and_connects_again_lives() {
        let mut rig = Rig::new();
        let [first, second] = instances();
        let connection = rig.connect();
        rig.hear(first, connection);
        assert!(!rig.is_replaced(first, connection));
        assert_eq!(rig.hear_anew(second), Finding::Newcomer);
        assert!(rig.is_replaced(first, connection));
        assert_eq!(rig.hear_anew(first), Finding::Conflict);
        assert_eq!(rig.duplicates(), [first, second]);
        assert!(!rig.is_replaced(first, connection), "that is known");
        // Once it is kept there is nothing more to say, however they take turns.
        assert_eq!(rig.hear_anew(second), Finding::Conflict);
        rig.detector.saved();
        for _ in 0..5 {
            assert_eq!(rig.hear_anew(first), Finding::Nothing);
            assert_eq!(rig.hear_anew(second), Finding::Nothing);
        }
    }

    #[test]
    fn a_third_one_is_found_too_and_an_earlier_one_that_ended_is_not_blamed() {
        let mut rig = Rig::new();
        let [ended, first, second, third] = instances();
        rig.hear_anew(ended);
        rig.hear_anew(first);
        rig.hear_anew(second);
        assert_eq!(rig.hear_anew(first), Finding::Conflict);
        rig.detector.saved();
        assert_eq!(rig.hear_anew(third), Finding::Newcomer);
        assert_eq!(rig.hear_anew(second), Finding::Conflict);
        assert_eq!(rig.duplicates(), [first, second, third]);
    }

    #[test]
    fn who_does_not_say_which_it_is_is_one_of_them() {
        let mut rig = Rig::new();
        let [named] = instances();
        rig.hear_anew(named);
        assert_eq!(rig.hear_anew(None), Finding::Newcomer);
        assert_eq!(rig.hear_anew(named), Finding::Conflict);
        assert_eq!(rig.duplicates(), [named, None]);
    }

    #[test]
    fn one_that_was_forgotten_is_found_all_the_same() {
        let mut rig = Rig::new();
        let daemons: [_; 20] = instances();
        for daemon in daemons {
            rig.hear_anew(daemon);
        }
        assert_eq!(rig.hear_anew(daemons[0]), Finding::Newcomer);
        assert_eq!(rig.hear_anew(daemons[19]), Finding::Conflict);
    }
}

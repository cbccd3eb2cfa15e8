//! What the notifier is doing, for the worker that answers it.
//!
//! The notifier makes system calls on a mount of its own, and they come back as requests to the worker
//! that wanted them made. How a request is to be answered cannot be seen in it: the kernel looks a name
//! up before it makes or removes it. So the notifier says beforehand what it is about to do, in memory
//! that it shares with all workers. It does one thing at a time, and what it says holds for that one
//! system call, whichever worker answers it: nothing can be expected in vain, and nothing is lost with
//! a worker.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::event::{Deed, Event};
use crate::fs::Inode;
use crate::host::shared_memory::{self, Words};

/// The words: who the notifier is; what it does, on which mount; in which directory; to what; and how
/// often somebody has begun with what is first in the queue.
const PROCESS: usize = 0;
const DEED: usize = 1;
const PARENT: usize = 2;
const INODE: usize = 3;
const TRIES: usize = 4;
const WORDS: usize = 8;

/// Memory that holder, workers and notifier share.
#[derive(Debug, Clone)]
pub(crate) struct Stage(Words);

/// What the notifier does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fuse) struct Doing {
    pub(in crate::fuse) deed: Deed,
    pub(in crate::fuse) parent: Inode,
    pub(in crate::fuse) inode: Inode,
}

impl Stage {
    /// Makes the memory.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn create() -> io::Result<OwnedFd> {
        shared_memory::create("secretfs-stage", WORDS)
    }

    /// Maps the one that `memory` is.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn map(memory: BorrowedFd<'_>) -> io::Result<Self> {
        Words::map(memory, WORDS).map(Self)
    }

    /// Says which process the notifier is, by the holder. It does nothing yet.
    pub(crate) fn appoint(&self, process: u32) {
        self.0[DEED].store(0, Relaxed);
        self.0[PROCESS].store(process.into(), Release);
    }

    /// Says that there is none, before another process could get its number.
    pub(crate) fn dismiss(&self) {
        self.0[PROCESS].store(0, Release);
    }

    /// Says what is about to be done, by the notifier, which ends it with [`end`](Self::end).
    pub(crate) fn begin(&self, event: &Event) {
        self.0[PARENT].store(event.place.parent.as_u64(), Relaxed);
        self.0[INODE].store(event.inode.as_u64(), Relaxed);
        self.0[DEED].store(encode(event.deed, event.mount), Release);
    }

    /// Nothing is being done.
    pub(crate) fn end(&self) {
        self.0[DEED].store(0, Release);
    }

    /// Counts how often somebody has begun with what is first in the queue: a notifier that dies of it
    /// must not die of it for ever.
    pub(crate) fn count_try(&self) -> u64 {
        self.0[TRIES].fetch_add(1, Relaxed) + 1
    }

    /// What is first in the queue is another one.
    pub(crate) fn forget_tries(&self) {
        self.0[TRIES].store(0, Relaxed);
    }

    /// What the notifier does on a mount, if this is the process that asks.
    pub(in crate::fuse) fn doing(&self, mount: usize, process: u32, user: u32) -> Option<Doing> {
        // 0 is also who is in no process namespace that the kernel could name it in.
        if process == 0 || user != 0 || self.0[PROCESS].load(Acquire) != u64::from(process) {
            return None;
        }
        let (deed, on) = decode(self.0[DEED].load(Acquire))?;
        let inode = |word: usize| Inode::from_u64(self.0[word].load(Relaxed));
        (on == mount).then(|| Doing { deed, parent: inode(PARENT), inode: inode(INODE) })
    }
}

const DEEDS: [Deed; 5] = [Deed::Write, Deed::Touch, Deed::Create, Deed::CreateDirectory, Deed::Remove];

/// The deed's place in the list, from 1, and the mount above it.
fn encode(deed: Deed, mount: usize) -> u64 {
    let place = DEEDS.iter().position(|other| *other == deed).map_or(0, |place| place as u64 + 1);
    place | (mount as u64) << 8
}

fn decode(word: u64) -> Option<(Deed, usize)> {
    let place = usize::try_from(word & 0xff).ok()?.checked_sub(1)?;
    Some((*DEEDS.get(place)?, usize::try_from(word >> 8).ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::fs::Place;

    #[test]
    fn only_the_notifier_is_known_and_only_while_it_does_something() {
        let memory = Stage::create().expect("memory");
        let stage = Stage::map(memory.as_fd()).expect("a stage");
        let worker = Stage::map(memory.as_fd()).expect("the same one");
        let place = Place { parent: Inode::ROOT, directory: None, name: "db".into() };
        let event = Event { mount: 3, deed: Deed::Remove, place, inode: Inode::from_u64(9) };
        stage.begin(&event);
        assert_eq!(worker.doing(3, 0, 0), None, "nobody is appointed, and nobody has this number");
        stage.appoint(7);
        assert_eq!(worker.doing(3, 7, 0), None, "what a former one did is over");
        stage.begin(&event);
        let doing = Doing { deed: Deed::Remove, parent: Inode::ROOT, inode: Inode::from_u64(9) };
        assert_eq!(worker.doing(3, 7, 0), Some(doing));
        for (mount, process, user) in [(3, 8, 0), (3, 7, 1000), (2, 7, 0)] {
            assert_eq!(worker.doing(mount, process, user), None);
        }
        stage.end();
        assert_eq!(worker.doing(3, 7, 0), None);
        stage.begin(&event);
        stage.dismiss();
        assert_eq!(worker.doing(3, 7, 0), None);
    }

    #[test]
    fn every_deed_is_read_as_it_was_written() {
        for deed in DEEDS {
            assert_eq!(decode(encode(deed, 250)), Some((deed, 250)));
        }
        assert_eq!((decode(0), decode(99)), (None, None));
    }
}

//! What watchers are told: events that the kernel makes of system calls, and of nothing else.

use serde::{Deserialize, Serialize};

use crate::fs::{Change, Inode, Kind, Place};

/// What a change of a file looks like to those who watch it with inotify(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Inotify {
    /// As if somebody had written it: `IN_MODIFY`, `IN_CLOSE_WRITE`.
    Write,
    /// As if somebody had touched it: `IN_ATTRIB`.
    Attrib,
    /// Like nothing: there are no events, not of names that come and go either.
    #[default]
    Off,
}

/// What is done to make an event. Nothing is changed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// Opens a file to write, writes a byte that is thrown away, and closes it.
    Write,
    /// Sets a file's times, to what they are.
    Touch,
    /// Makes a file that is there.
    Create,
    /// Makes a directory that is there.
    CreateDirectory,
    /// Removes a file that is not there any more.
    Remove,
}

/// An event to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// The place of the mount among those of the daemon.
    pub(crate) mount: usize,
    /// By what.
    pub(crate) deed: Deed,
    /// Where.
    pub(crate) place: Place,
    /// Of what.
    pub(crate) inode: Inode,
}

impl Inotify {
    /// As it is written in the configuration.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Attrib => "attrib",
            Self::Off => "off",
        }
    }

    /// The events that a change on a mount is worth.
    pub(super) fn events(self, mount: usize, change: &Change) -> Vec<Event> {
        let content = match self {
            Self::Write => Deed::Write,
            Self::Attrib => Deed::Touch,
            Self::Off => return Vec::new(),
        };
        let (place, inode, deeds): (_, _, &[_]) = match change {
            Change::Modified { place, inode } => (place, inode, &[content]),
            // As when a program writes a new file: it is there, and then it has its content.
            Change::Added { place, inode, kind: Kind::File } => (place, inode, &[Deed::Create, content]),
            Change::Added { place, inode, kind: Kind::Directory } => (place, inode, &[Deed::CreateDirectory]),
            Change::Removed { place, inode, kind: Kind::File } => (place, inode, &[Deed::Remove]),
            // A directory is never removed in the kernel: it would be dead for ever, and the service
            // that comes back would stay away from every container that has it bind mounted.
            Change::Removed { kind: Kind::Directory, .. } | Change::Changed { .. } => return Vec::new(),
        };
        let event = |deed: &Deed| Event { mount, deed: *deed, place: place.clone(), inode: *inode };
        deeds.iter().map(event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deeds(inotify: Inotify, change: &Change) -> Vec<Deed> {
        inotify.events(0, change).into_iter().map(|event| event.deed).collect()
    }

    #[test]
    fn a_change_is_what_a_program_would_have_done() {
        let inode = Inode::from_u64(9);
        let place = || Place { parent: Inode::ROOT, directory: None, name: "db".into() };
        let modified = Change::Modified { place: place(), inode };
        let added = |kind| Change::Added { place: place(), inode, kind };
        let removed = |kind| Change::Removed { place: place(), inode, kind };
        assert_eq!(deeds(Inotify::Write, &modified), [Deed::Write]);
        assert_eq!(deeds(Inotify::Attrib, &modified), [Deed::Touch]);
        assert_eq!(deeds(Inotify::Write, &added(Kind::File)), [Deed::Create, Deed::Write]);
        assert_eq!(deeds(Inotify::Write, &added(Kind::Directory)), [Deed::CreateDirectory]);
        assert_eq!(deeds(Inotify::Attrib, &removed(Kind::File)), [Deed::Remove]);
        for nothing in [removed(Kind::Directory), Change::Changed { inode }] {
            assert_eq!(deeds(Inotify::Write, &nothing), []);
        }
        assert_eq!(deeds(Inotify::Off, &modified), []);
    }
}

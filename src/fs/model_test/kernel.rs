//! A kernel with a memory without end.

use std::collections::HashMap;

use super::super::*;

/// What it was told and has not been told to forget.
#[derive(Default)]
pub(super) struct Kernel {
    attributes: HashMap<Inode, (Attributes, Option<VersionId>)>,
    names: HashMap<(Inode, String), Inode>,
}

impl Kernel {
    /// Forgets what it must.
    pub(super) fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            if let Change::Removed { place: Place { parent, name, .. }, inode, .. } = change {
                assert_eq!(self.names.remove(&(*parent, name.clone())), Some(*inode), "{name}");
            }
            self.attributes.remove(&change.inode());
        }
    }

    /// As it must when another worker has its first manifest.
    pub(super) fn forget_attributes(&mut self) {
        self.attributes.clear();
    }

    /// Everything that it still remembers is so.
    pub(super) fn check(&self, fs: &FileSystem) {
        for ((parent, name), inode) in &self.names {
            assert_eq!(fs.lookup(*parent, name).map(|a| a.inode), Ok(*inode), "{name}");
        }
        for (inode, (attributes, version)) in &self.attributes {
            assert_eq!(fs.attributes(*inode).as_ref(), Ok(attributes));
            assert_eq!(fs.current(*inode), *version, "a poller would sleep on");
        }
    }

    /// Asks for everything.
    pub(super) fn learn(&mut self, fs: &FileSystem) {
        let mut directories = vec![Inode::ROOT];
        while let Some(directory) = directories.pop() {
            self.ask(fs, directory);
            let mut found = Vec::new();
            let each = |inode, place: u64, kind, name: &str| {
                if place > 2 {
                    found.push((inode, kind, name.to_owned()));
                }
                Full::No
            };
            fs.list(directory, 0, each).expect("a directory");
            for (inode, kind, name) in found {
                self.names.insert((directory, name), inode);
                self.ask(fs, inode);
                if kind == Kind::Directory {
                    directories.push(inode);
                }
            }
        }
    }

    fn ask(&mut self, fs: &FileSystem, inode: Inode) {
        let attributes = fs.attributes(inode).expect("it is listed");
        self.attributes.insert(inode, (attributes, fs.current(inode)));
    }
}

//! Inode numbers that mean the same file to every process that ever serves the mount.

use std::fmt;

use aws_lc_rs::hmac;
use secretfs_wire::{NodeId, ServiceName, TargetName};
use serde::{Deserialize, Serialize};

/// An inode number: 1 for the root, else 4 to 2^63 - 1.
///
/// 63 bits, because the number is also the entry's place in its directory, and a place is a signed
/// 64-bit number to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Inode(u64);

impl Inode {
    /// The root of the mount.
    pub(crate) const ROOT: Self = Self(1);

    /// The smallest number that is not the root's and not the place of `.` or `..`.
    const FIRST: u64 = 4;

    /// The inode that the kernel asks about. Any number may be asked about; few exist.
    pub(crate) const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub(crate) const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for Inode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inode({:016x})", self.0)
    }
}

/// Numbers the files of one node.
///
/// A number depends on nothing but the node, the service and the target. So it survives a rotation
/// (a bind mount of a single file follows it), a restart, and the replacement of one worker by
/// another under a living mount.
///
/// It is keyed because everybody who may `stat` sees it. Under a plain hash equal names would have
/// equal numbers on every node, and whoever may choose names could search at leisure for two that
/// collide, of which the second is then left out of the tree. With a key of the node's own such a
/// search would have to be made for each node, by someone who knows its id.
pub(crate) struct InodeKey(hmac::Key);

impl InodeKey {
    /// The key of a node.
    pub(crate) fn for_node(node: NodeId) -> Self {
        let domain = hmac::Key::new(hmac::HMAC_SHA256, b"secretfs inode numbers");
        let key = hmac::sign(&domain, &node.as_u64().to_be_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()))
    }

    /// The number of a service's directory.
    pub(crate) fn directory(&self, service: &ServiceName) -> Inode {
        self.number(&[service.as_str()])
    }

    /// The number of a target's file.
    pub(crate) fn file(&self, service: &ServiceName, target: &TargetName) -> Inode {
        self.number(&[service.as_str(), target.as_str()])
    }

    /// Each name goes in behind its length, so that `a` + `bc` and `ab` + `c` differ.
    fn number(&self, names: &[&str]) -> Inode {
        let mut context = hmac::Context::with_key(&self.0);
        for name in names {
            context.update(&(name.len() as u64).to_be_bytes());
            context.update(name.as_bytes());
        }
        let tag = context.sign();
        let first = tag.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Inode((first >> 1).max(Inode::FIRST))
    }
}

impl fmt::Debug for InodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InodeKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(node: u64) -> InodeKey {
        InodeKey::for_node(NodeId::from_u64(node).expect("an id"))
    }

    fn file(key: &InodeKey, service: &str, target: &str) -> Inode {
        key.file(&service.parse().expect("a service"), &target.parse().expect("a target"))
    }

    #[test]
    fn numbers_are_the_same_in_every_process_and_release() {
        // The literals keep a release from renumbering the files of mounts that outlive it.
        assert_eq!(file(&key(1), "web", "db_password").as_u64(), 5204769497560080129);
        assert_eq!(key(1).directory(&"web".parse().expect("a service")).as_u64(), 6740218298632832517);
    }

    #[test]
    fn names_and_nodes_do_not_run_into_each_other() {
        let one = key(1);
        let directory = one.directory(&"a".parse().expect("a service"));
        let numbers = [
            file(&one, "a", "bc"),
            file(&one, "ab", "c"),
            file(&one, "bc", "a"),
            file(&key(2), "a", "bc"),
            directory,
        ];
        for (i, number) in numbers.iter().enumerate() {
            assert!(number.as_u64() >= Inode::FIRST && number.as_u64() <= i64::MAX as u64);
            assert!(!numbers[..i].contains(number), "{numbers:?}");
        }
    }
}

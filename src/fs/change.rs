//! What the kernel must forget when one tree replaces another, so that it may remember for long.

use super::inode::Inode;
use super::tree::{Directory, Kind, Node, Tree};

/// Something that the kernel may remember and that is no longer so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The attributes, the content or, of a directory, the listing are not what they were.
    Changed {
        /// Whose.
        inode: Inode,
    },
    /// A name is gone.
    Removed {
        /// The directory that had it.
        parent: Inode,
        /// What it named.
        inode: Inode,
        /// The name.
        name: String,
        /// What it named, file or directory.
        kind: Kind,
    },
}

impl Tree {
    /// What changed on the way to `new`. What is removed comes first, files before their
    /// directories.
    ///
    /// What is only in `new` counts as changed: the kernel may know it from before it was removed,
    /// or from a former process whose last tree nobody can compare with.
    pub(crate) fn changes_to(&self, new: &Self) -> Vec<Change> {
        let mut removed = Vec::new();
        for (inode, node) in self.nodes() {
            if let Node::Directory(directory) = node {
                removed.extend(removed_from(inode, directory, new));
            }
        }
        removed.sort_by_key(|change| match change {
            Change::Removed { kind: Kind::File, .. } => 0,
            Change::Removed { kind: Kind::Directory, .. } | Change::Changed { .. } => 1,
        });
        let changed = new
            .nodes()
            .filter(|(inode, node)| self.node(*inode).map_or(true, |old| differ(old, node)))
            .map(|(inode, _)| Change::Changed { inode });
        removed.extend(changed);
        removed
    }
}

fn removed_from(parent: Inode, old: &Directory, new: &Tree) -> impl Iterator<Item = Change> {
    let gone = old.entries().iter().filter(move |entry| {
        new.directory(parent).ok().and_then(|directory| directory.named(&entry.name)) != Some(entry.inode)
    });
    gone.map(move |entry| Change::Removed {
        parent,
        inode: entry.inode,
        name: entry.name.clone(),
        kind: entry.kind,
    })
}

fn differ(old: &Node, new: &Node) -> bool {
    match (old, new) {
        (Node::File(old), Node::File(new)) => {
            old.attributes != new.attributes
                || old.request.details.version_id != new.request.details.version_id
        }
        (Node::Directory(old), Node::Directory(new)) => {
            old.attributes != new.attributes || old.entries() != new.entries()
        }
        (Node::File(_), Node::Directory(_)) | (Node::Directory(_), Node::File(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use secretfs_wire::NodeId;
    use secretfs_wire::manifest::Target;

    use super::super::inode::InodeKey;
    use super::super::test_manifest::{manifest, target};
    use super::super::tree::Layout;
    use super::*;

    fn tree(targets: &[(&str, &str, Target)]) -> Tree {
        let key = InodeKey::for_node(NodeId::from_u64(1).expect("an id"));
        Tree::new(&manifest(targets.to_vec()), &Layout::AllServices, &key)
    }

    fn inode(tree: &Tree, service: &str, target: &str) -> Inode {
        let service = tree.lookup(Inode::ROOT, service).expect("a service").attributes().inode;
        tree.lookup(service, target).expect("a target").attributes().inode
    }

    #[test]
    fn nothing_changes_between_equal_trees() {
        let targets = [("web", "db", target(1, 5)), ("job", "db", target(1, 5))];
        assert_eq!(tree(&targets).changes_to(&tree(&targets)), []);
    }

    #[test]
    fn a_rotation_to_equal_size_and_time_is_a_change_of_the_file_alone() {
        let (old, new) = (target(1, 5), target(2, 5));
        let old = tree(&[("web", "db", old), ("web", "tls", target(7, 5))]);
        let new = tree(&[("web", "db", new), ("web", "tls", target(7, 5))]);
        assert_eq!(old.changes_to(&new), [Change::Changed { inode: inode(&new, "web", "db") }]);
    }

    #[test]
    fn a_removed_target_is_named_and_its_directory_changes() {
        let old = tree(&[("web", "db", target(1, 5)), ("web", "tls", target(7, 5))]);
        let new = tree(&[("web", "tls", target(7, 5))]);
        let web = old.lookup(Inode::ROOT, "web").expect("a service").attributes().inode;
        let gone = Change::Removed {
            parent: web,
            inode: inode(&old, "web", "db"),
            name: "db".into(),
            kind: Kind::File,
        };
        assert_eq!(old.changes_to(&new), [gone, Change::Changed { inode: web }]);
    }

    #[test]
    fn a_removed_service_goes_after_its_targets() {
        let old = tree(&[("web", "db", target(1, 5)), ("job", "db", target(1, 5))]);
        let changes = old.changes_to(&tree(&[("job", "db", target(1, 5))]));
        let kinds: Vec<_> = changes
            .iter()
            .map(|change| match change {
                Change::Removed { kind, .. } => Some(*kind),
                Change::Changed { .. } => None,
            })
            .collect();
        assert_eq!(kinds, [Some(Kind::File), Some(Kind::Directory), None]);
        assert_eq!(changes[2], Change::Changed { inode: Inode::ROOT });
    }

    #[test]
    fn what_is_new_may_be_known_from_before() {
        let old = tree(&[]);
        let new = tree(&[("web", "db", target(1, 5))]);
        let changes = old.changes_to(&new);
        assert!(changes.contains(&Change::Changed { inode: inode(&new, "web", "db") }), "{changes:?}");
        assert_eq!(changes.len(), 3, "the file, its directory and the root: {changes:?}");
    }
}

//! What the kernel must forget when one tree replaces another, so that it may remember for long.

use serde::{Deserialize, Serialize};

use super::inode::Inode;
use super::tree::{Entry, Kind, Node, Tree};

/// Something that the kernel may remember and that is no longer so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The attributes or the listing of a directory, or whatever somebody waits for who has opened it,
    /// are not what they were.
    Changed {
        /// Whose.
        inode: Inode,
    },
    /// A file has other attributes or another version.
    Modified {
        /// Where it is.
        place: Place,
        /// Which.
        inode: Inode,
    },
    /// A name is there that was not. The kernel may know what it names from before it was removed, or
    /// from a former process whose last tree nobody can compare with.
    Added {
        /// Where it is.
        place: Place,
        /// What it names.
        inode: Inode,
        /// File or directory.
        kind: Kind,
    },
    /// A name is gone.
    Removed {
        /// Where it was.
        place: Place,
        /// What it named.
        inode: Inode,
        /// File or directory.
        kind: Kind,
    },
}

/// A name, and where in the tree it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The directory that has it.
    pub(crate) parent: Inode,
    /// That directory's own name, which is a service's; none for the root.
    pub(crate) directory: Option<String>,
    /// The name.
    pub(crate) name: String,
}

impl Change {
    /// What has changed.
    pub(crate) const fn inode(&self) -> Inode {
        let (Self::Changed { inode }
        | Self::Modified { inode, .. }
        | Self::Added { inode, .. }
        | Self::Removed { inode, .. }) = self;
        *inode
    }
}

impl Tree {
    /// What changed on the way to `new`. What is removed comes first, files before their directories;
    /// what is added comes after the directory that has it.
    pub(crate) fn changes_to(&self, new: &Self) -> Vec<Change> {
        let mut changes = removed_from(self, new);
        if self.node(Inode::ROOT).ok().zip(new.node(Inode::ROOT).ok()).is_some_and(|(a, b)| differ(a, b)) {
            changes.push(Change::Changed { inode: Inode::ROOT });
        }
        for (place, Entry { inode, kind, .. }) in new.entries() {
            let (inode, kind) = (*inode, *kind);
            match (self.node(inode), new.node(inode)) {
                (Err(_), _) => changes.push(Change::Added { place, inode, kind }),
                (Ok(old), Ok(new)) if differ(old, new) => changes.push(match kind {
                    Kind::File => Change::Modified { place, inode },
                    Kind::Directory => Change::Changed { inode },
                }),
                (Ok(_), _) => {}
            }
        }
        changes
    }

    /// All entries of all directories, each directory before what is in it.
    fn entries(&self) -> impl Iterator<Item = (Place, &Entry)> {
        self.entries_of(Inode::ROOT, None).flat_map(|(place, entry)| {
            let below = match entry.kind {
                Kind::Directory => Some(self.entries_of(entry.inode, Some(&entry.name))),
                Kind::File => None,
            };
            std::iter::once((place, entry)).chain(below.into_iter().flatten())
        })
    }

    fn entries_of<'a>(
        &'a self,
        parent: Inode,
        directory: Option<&'a str>,
    ) -> impl Iterator<Item = (Place, &'a Entry)> {
        let entries = self.directory(parent).map(|found| found.entries()).unwrap_or_default();
        entries.iter().map(move |entry| {
            let (directory, name) = (directory.map(str::to_owned), entry.name.clone());
            (Place { parent, directory, name }, entry)
        })
    }
}

fn removed_from(old: &Tree, new: &Tree) -> Vec<Change> {
    let is_there = |place: &Place, inode| {
        new.directory(place.parent).ok().and_then(|directory| directory.named(&place.name)) == Some(inode)
    };
    let gone = old.entries().filter(|(place, entry)| !is_there(place, entry.inode));
    let mut removed: Vec<_> = gone
        .map(|(place, entry)| (entry.kind, Change::Removed { place, inode: entry.inode, kind: entry.kind }))
        .collect();
    removed.sort_by_key(|(kind, _)| *kind == Kind::Directory);
    removed.into_iter().map(|(_, change)| change).collect()
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

    /// In the service `web`.
    fn place(web: Inode, name: &str) -> Place {
        Place { parent: web, directory: Some("web".into()), name: name.into() }
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
        let web = new.lookup(Inode::ROOT, "web").expect("a service").attributes().inode;
        let modified = Change::Modified { place: place(web, "db"), inode: inode(&new, "web", "db") };
        assert_eq!(old.changes_to(&new), [modified]);
    }

    #[test]
    fn a_removed_target_is_named_and_its_directory_changes() {
        let old = tree(&[("web", "db", target(1, 5)), ("web", "tls", target(7, 5))]);
        let new = tree(&[("web", "tls", target(7, 5))]);
        let web = old.lookup(Inode::ROOT, "web").expect("a service").attributes().inode;
        let gone =
            Change::Removed { place: place(web, "db"), inode: inode(&old, "web", "db"), kind: Kind::File };
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
                _ => None,
            })
            .collect();
        assert_eq!(kinds, [Some(Kind::File), Some(Kind::Directory), None]);
        assert_eq!(changes[2], Change::Changed { inode: Inode::ROOT });
    }

    #[test]
    fn what_is_new_comes_after_its_directory() {
        let old = tree(&[]);
        let new = tree(&[("web", "db", target(1, 5))]);
        let web = new.lookup(Inode::ROOT, "web").expect("a service").attributes().inode;
        let root = Place { parent: Inode::ROOT, directory: None, name: "web".into() };
        let expected = [
            Change::Changed { inode: Inode::ROOT },
            Change::Added { place: root, inode: web, kind: Kind::Directory },
            Change::Added { place: place(web, "db"), inode: inode(&new, "web", "db"), kind: Kind::File },
        ];
        assert_eq!(old.changes_to(&new), expected);
    }
}

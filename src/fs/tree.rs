//! The directory tree that a manifest describes. It never changes: each manifest makes a new one.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use secretfs_wire::manifest::{Manifest, Target};
use secretfs_wire::{ServiceName, TargetName, VersionId};

use super::error::FsError;
use super::inode::{Inode, InodeKey};
use crate::source::ValueRequest;

/// What the root of a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A directory for each service.
    AllServices,
    /// The targets of one service and no directories.
    OneService(ServiceName),
}

/// What `stat` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The inode.
    pub(crate) inode: Inode,
    /// File or directory.
    pub(crate) kind: Kind,
    /// Bytes in the current version; 0 for a directory, and for a template that has not been rendered.
    pub(crate) size: u64,
    /// Whether all this holds until a [`Change`](super::Change) is told. The size of a template becomes
    /// known without one.
    pub(crate) settled: bool,
    /// The owner's user id.
    pub(crate) uid: u32,
    /// The owner's group id.
    pub(crate) gid: u32,
    /// Permission bits.
    pub(crate) mode: u16,
    /// Links: 1 for a file; for a directory 2 and one for each directory in it.
    pub(crate) links: u32,
    /// When the file changed; for a directory, when anything in it did.
    pub(crate) modified: Timestamp,
}

/// What there is in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A service, or the root.
    Directory,
    /// A target.
    File,
}

/// A target's file.
#[derive(Debug)]
pub(crate) struct File {
    /// What `stat` shows.
    pub(crate) attributes: Attributes,
    /// The number of its service's directory, also where that is the root.
    pub(crate) directory: Inode,
    /// How its current value is had.
    pub(crate) request: ValueRequest,
}

/// A service's directory, or the root.
#[derive(Debug)]
pub(crate) struct Directory {
    /// What `stat` shows.
    pub(crate) attributes: Attributes,
    /// The directory above; the root's is the root.
    pub(crate) parent: Inode,
    /// By place, which is the inode's number. A place says nothing of how many others there are, so
    /// a listing that began before a change goes on after it: what was there all the time is listed
    /// once, and no snapshot has to be kept for it.
    entries: Vec<Entry>,
    by_name: HashMap<String, Inode>,
}

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The inode, and the place in the directory.
    pub(crate) inode: Inode,
    /// The name.
    pub(crate) name: String,
    /// File or directory.
    pub(crate) kind: Kind,
}

/// A file or a directory.
#[derive(Debug)]
pub(crate) enum Node {
    /// A target.
    File(Arc<File>),
    /// A service, or the root.
    Directory(Directory),
}

/// All files and directories of a mount.
#[derive(Debug)]
pub(crate) struct Tree {
    nodes: HashMap<Inode, Node>,
    left_out: Vec<String>,
    /// The directories of the services that the node has, shown here or not. Nothing before the first
    /// manifest.
    services: Option<HashSet<Inode>>,
}

impl Tree {
    /// The tree before the first manifest: it shows nothing, and knows of nothing that it was taken away.
    pub(crate) fn before_any() -> Self {
        let tree = Self::numbered(&Manifest::default(), &Layout::AllServices, |_, _| Inode::ROOT);
        Self { services: None, ..tree }
    }

    /// The tree that a manifest describes.
    pub(crate) fn new(manifest: &Manifest, layout: &Layout, key: &InodeKey) -> Self {
        Self::numbered(manifest, layout, |service, target| match target {
            None => key.directory(service),
            Some(target) => key.file(service, target),
        })
    }

    fn numbered(
        manifest: &Manifest,
        layout: &Layout,
        number: impl Fn(&ServiceName, Option<&TargetName>) -> Inode,
    ) -> Self {
        let services = manifest.services.keys().map(|service| number(service, None)).collect();
        let mut tree = Self { nodes: HashMap::new(), left_out: Vec::new(), services: Some(services) };
        // The root's number is taken before any other can claim it.
        tree.nodes.insert(Inode::ROOT, Node::Directory(Directory::new(Inode::ROOT, Inode::ROOT)));
        for (service, targets) in &manifest.services {
            let own = number(service, None);
            let parent = match layout {
                Layout::AllServices => {
                    let directory = Node::Directory(Directory::new(own, Inode::ROOT));
                    if !tree.add(Inode::ROOT, own, service.as_str(), directory) {
                        continue;
                    }
                    own
                }
                Layout::OneService(only) if only == service => Inode::ROOT,
                Layout::OneService(_) => continue,
            };
            for (target, details) in targets {
                let inode = number(service, Some(target));
                let file = Node::File(Arc::new(File::new(inode, own, service, target, details)));
                tree.add(parent, inode, target.as_str(), file);
            }
        }
        tree.finish();
        tree
    }

    /// Puts a node into its parent, unless its number is taken.
    fn add(&mut self, parent: Inode, inode: Inode, name: &str, node: Node) -> bool {
        let kind = node.attributes().kind;
        match self.nodes.entry(inode) {
            Slot::Occupied(_) => {
                self.left_out.push(name.to_owned());
                return false;
            }
            Slot::Vacant(slot) => slot.insert(node),
        };
        if let Some(Node::Directory(directory)) = self.nodes.get_mut(&parent) {
            directory.entries.push(Entry { inode, name: name.to_owned(), kind });
            directory.by_name.insert(name.to_owned(), inode);
        }
        true
    }

    /// Brings the listings into their order and gives the directories their times.
    fn finish(&mut self) {
        let modified: HashMap<Inode, Timestamp> = self
            .nodes
            .iter()
            .filter_map(|(inode, node)| match node {
                Node::File(_) => None,
                Node::Directory(directory) => Some((*inode, self.last_modified(directory))),
            })
            .collect();
        for (inode, node) in &mut self.nodes {
            if let Node::Directory(directory) = node {
                directory.entries.sort_unstable_by_key(|entry| entry.inode);
                directory.attributes.modified = modified.get(inode).copied().unwrap_or(Timestamp::UNIX_EPOCH);
                let below = directory.entries.iter().filter(|entry| entry.kind == Kind::Directory);
                directory.attributes.links = 2 + below.count() as u32;
            }
        }
    }

    /// A directory has no time of its own that every process would agree on, so it has the latest
    /// below it.
    fn last_modified(&self, directory: &Directory) -> Timestamp {
        let below = directory.entries.iter().filter_map(|entry| match self.nodes.get(&entry.inode)? {
            Node::File(file) => Some(file.attributes.modified),
            Node::Directory(directory) => Some(self.last_modified(directory)),
        });
        below.max().unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The node of an inode.
    pub(crate) fn node(&self, inode: Inode) -> Result<&Node, FsError> {
        self.nodes.get(&inode).ok_or(FsError::NotFound)
    }

    /// The file of an inode.
    pub(crate) fn file(&self, inode: Inode) -> Result<&Arc<File>, FsError> {
        match self.node(inode)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(FsError::IsADirectory),
        }
    }

    /// The current version of a file.
    pub(super) fn version(&self, inode: Inode) -> Option<VersionId> {
        self.file(inode).ok().map(|file| file.request.details.version_id)
    }

    /// The directory of an inode.
    pub(crate) fn directory(&self, inode: Inode) -> Result<&Directory, FsError> {
        match self.node(inode)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(FsError::NotADirectory),
        }
    }

    /// What a directory has under a name.
    pub(crate) fn lookup(&self, parent: Inode, name: &str) -> Result<&Node, FsError> {
        self.node(self.directory(parent)?.named(name).ok_or(FsError::NotFound)?)
    }

    /// Whether a file that was opened in a service's directory may still be read. Where it is not
    /// known which service it was, only while the file is there.
    pub(super) fn grants(&self, file: Inode, directory: Option<Inode>) -> bool {
        let Some(services) = &self.services else { return true };
        match directory {
            Some(directory) => services.contains(&directory),
            None => self.file(file).is_ok(),
        }
    }

    /// The names of services and targets whose inode numbers were taken. Never seen: among a
    /// million files the odds are one to ten million.
    pub(crate) fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

impl Node {
    /// What `stat` shows.
    pub(crate) fn attributes(&self) -> &Attributes {
        match self {
            Self::File(file) => &file.attributes,
            Self::Directory(directory) => &directory.attributes,
        }
    }
}

impl File {
    fn new(
        inode: Inode,
        directory: Inode,
        service: &ServiceName,
        target: &TargetName,
        details: &Target,
    ) -> Self {
        let attributes = Attributes {
            inode,
            kind: Kind::File,
            size: details.size().unwrap_or(0).into(),
            settled: details.size().is_some(),
            uid: details.ownership.uid,
            gid: details.ownership.gid,
            mode: details.ownership.mode.bits(),
            links: 1,
            modified: details.modified,
        };
        let request =
            ValueRequest { service: service.clone(), target: target.clone(), details: details.clone() };
        Self { attributes, directory, request }
    }
}

impl Directory {
    fn new(inode: Inode, parent: Inode) -> Self {
        let attributes = Attributes {
            inode,
            kind: Kind::Directory,
            size: 0,
            settled: true,
            uid: 0,
            gid: 0,
            mode: 0o555,
            links: 2,
            modified: Timestamp::UNIX_EPOCH,
        };
        Self { attributes, parent, entries: Vec::new(), by_name: HashMap::new() }
    }

    /// The inode under a name.
    pub(crate) fn named(&self, name: &str) -> Option<Inode> {
        self.by_name.get(name).copied()
    }

    /// All entries, by place.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries behind a place; all of them behind 0.
    pub(crate) fn entries_after(&self, place: u64) -> &[Entry] {
        let listed = self.entries.partition_point(|entry| entry.inode.as_u64() <= place);
        self.entries.get(listed..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_manifest::{manifest, target};
    use super::*;
    use secretfs_wire::NodeId;

    fn key() -> InodeKey {
        InodeKey::for_node(NodeId::from_u64(1).expect("an id"))
    }

    #[test]
    fn every_service_is_a_directory_of_its_targets() {
        let manifest = manifest([
            ("web", "db", target(1, 5)),
            ("web", "tls", target(1, 6)),
            ("job", "db", target(1, 7)),
        ]);
        let tree = Tree::new(&manifest, &Layout::AllServices, &key());
        let web = tree.lookup(Inode::ROOT, "web").expect("a service").attributes();
        assert_eq!((web.kind, web.mode, web.uid, web.links), (Kind::Directory, 0o555, 0, 2));
        assert_eq!(tree.lookup(web.inode, "tls").expect("a target").attributes().size, 6);
        assert_eq!(tree.lookup(web.inode, "job").expect_err("not there"), FsError::NotFound);
        let root = tree.directory(Inode::ROOT).expect("the root");
        assert_eq!(root.attributes.links, 4);
        assert_eq!(root.entries().len(), 2);
        let file = tree.lookup(web.inode, "db").expect("a target").attributes().inode;
        assert_eq!(tree.lookup(file, "x").expect_err("a file"), FsError::NotADirectory);
        assert_eq!(tree.file(web.inode).expect_err("a directory"), FsError::IsADirectory);
        assert!(tree.left_out().is_empty());
    }

    #[test]
    fn one_service_is_flat_and_keeps_its_numbers() {
        let manifest = manifest([("web", "db", target(1, 5)), ("job", "other", target(1, 7))]);
        let all = Tree::new(&manifest, &Layout::AllServices, &key());
        let one = Tree::new(&manifest, &Layout::OneService("web".parse().expect("a name")), &key());
        let names: Vec<_> =
            one.directory(Inode::ROOT).expect("the root").entries().iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["db"]);
        let web = all.lookup(Inode::ROOT, "web").expect("a service").attributes().inode;
        assert_eq!(
            one.lookup(Inode::ROOT, "db").expect("a target").attributes(),
            all.lookup(web, "db").expect("a target").attributes()
        );
    }

    #[test]
    fn a_listing_goes_on_where_it_stopped_whatever_came_and_went() {
        let names: Vec<String> = (0..50).map(|i| format!("t{i}")).collect();
        let with = |names: &[String]| {
            manifest(names.iter().map(|name| ("web", name.as_str(), target(1, 5))).collect::<Vec<_>>())
        };
        let layout = Layout::OneService("web".parse().expect("a name"));
        let before = Tree::new(&with(&names), &layout, &key());
        let after = Tree::new(&with(&names[10..]), &layout, &key());
        let mut seen = before.directory(Inode::ROOT).expect("the root").entries()[..20].to_vec();
        let place = seen[19].inode.as_u64();
        seen.extend_from_slice(after.directory(Inode::ROOT).expect("the root").entries_after(place));
        for name in &names[10..] {
            assert_eq!(seen.iter().filter(|entry| entry.name == *name).count(), 1, "{name}");
        }
    }

    #[test]
    fn of_two_with_one_number_the_second_is_left_out_and_reported() {
        let manifest =
            manifest([("web", "a", target(1, 5)), ("web", "b", target(1, 5)), ("web2", "c", target(1, 5))]);
        let number = |service: &ServiceName, target: Option<&TargetName>| {
            Inode::from_u64(10 + service.as_str().len() as u64 + u64::from(target.is_some()))
        };
        let tree = Tree::numbered(&manifest, &Layout::AllServices, number);
        // web = 13, a = b = web2 = 14.
        assert_eq!(tree.left_out(), ["b", "web2"]);
        let web = tree.lookup(Inode::ROOT, "web").expect("the first").attributes().inode;
        assert_eq!(tree.directory(web).expect("web").entries().len(), 1);
        assert_eq!(tree.lookup(Inode::ROOT, "web2").expect_err("left out"), FsError::NotFound);
    }
}

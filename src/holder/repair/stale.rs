//! Which mounts of a namespace are dead, and in which order they are replaced.

use std::collections::BTreeSet;

use super::source::Live;
use crate::fuse::device::Device;
use crate::fuse::mount_table::{MountTable, Mounted};

/// The dead mounts of a namespace. What lies on another comes before it.
pub(super) struct Stale<'a> {
    table: &'a MountTable,
    pending: Vec<(&'a Mounted, &'a Live)>,
    all: BTreeSet<u64>,
    detached: BTreeSet<u64>,
}

impl<'a> Stale<'a> {
    pub(super) fn find(table: &'a MountTable, live: &'a [Live]) -> Self {
        let pending: Vec<_> = table
            .iter()
            .filter(|mounted| mounted.is_ours())
            .filter_map(|mounted| Some((mounted, live.iter().find(|live| live.lost(mounted.device))?)))
            .collect();
        let all = pending.iter().map(|(mounted, _)| mounted.id).collect();
        Self { table, pending, all, detached: BTreeSet::new() }
    }

    pub(super) fn devices(&self) -> impl Iterator<Item = Device> {
        self.pending.iter().map(|(mounted, _)| mounted.device)
    }

    /// The next one to replace. One that is covered is left out: by a mount that has come over it, by
    /// what has replaced another dead one on it, or by whatever its container likes better.
    pub(super) fn next(&mut self) -> Option<(&'a Mounted, &'a Live)> {
        while let Some(place) = self
            .pending
            .iter()
            .position(|(mounted, _)| !self.pending.iter().any(|(other, _)| other.parent == mounted.id))
        {
            let (mounted, live) = self.pending.swap_remove(place);
            if !self.on(mounted).any(|other| other.point == mounted.point) {
                return Some((mounted, live));
            }
        }
        None
    }

    /// Whether mounts lie on places inside it.
    pub(super) fn has_inside(&self, mounted: &Mounted) -> bool {
        self.on(mounted).next().is_some()
    }

    /// Whether it lies on another dead mount, which then can take its place.
    pub(super) fn lies_on_stale(&self, mounted: &Mounted) -> bool {
        self.all.contains(&mounted.parent)
            && self.table.iter().any(|below| below.id == mounted.parent && below.point == mounted.point)
    }

    pub(super) fn detached(&mut self, mounted: &Mounted) {
        self.detached.insert(mounted.id);
    }

    fn on(&self, mounted: &Mounted) -> impl Iterator<Item = &Mounted> {
        let (id, detached) = (mounted.id, &self.detached);
        self.table
            .iter()
            .filter(move |other| other.parent == id && other.id != id && !detached.contains(&other.id))
    }
}

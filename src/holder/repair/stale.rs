//! Which mounts of a namespace are dead, and what lies on them.

use super::source::Live;
use crate::fuse::mount_table::{MountTable, Mounted};

/// A dead mount.
pub(super) struct Stale<'a> {
    pub(super) mounted: &'a Mounted,
    /// The mount that takes its place.
    pub(super) live: &'a Live,
    /// Whether a mount hides it: one that has come over it, or whatever its container likes better.
    pub(super) covered: bool,
    /// Whether mounts lie on places inside it.
    pub(super) occupied: bool,
}

/// All dead mounts in a table.
pub(super) fn find<'a>(table: &'a MountTable, live: &'a [Live]) -> impl Iterator<Item = Stale<'a>> {
    table.iter().filter(|mounted| mounted.is_ours()).filter_map(|mounted| {
        let live = live.iter().find(|live| live.lost(mounted.device))?;
        let on = || table.iter().filter(|other| other.parent == mounted.id && other.id != mounted.id);
        let covered = on().any(|other| other.point == mounted.point);
        Some(Stale { mounted, live, covered, occupied: on().next().is_some() })
    })
}

//! Manifests for tests.

use jiff::Timestamp;
use secretfs_wire::manifest::{Attached, Content, Manifest, Target};
use secretfs_wire::{Ownership, VersionId};

/// A target whose version has this id and this many bytes.
pub(crate) fn target(version: u64, size: u32) -> Target {
    Target {
        version_id: VersionId::from_u64(version).expect("an id"),
        content: Content::Secret(Attached { secret: "secret".parse().expect("a name"), version, size }),
        ownership: Ownership::default(),
        modified: Timestamp::UNIX_EPOCH,
    }
}

/// A manifest of services, targets and what they are.
pub(crate) fn manifest<'a>(targets: impl IntoIterator<Item = (&'a str, &'a str, Target)>) -> Manifest {
    let mut manifest = Manifest::default();
    for (service, target, details) in targets {
        let service = manifest.services.entry(service.parse().expect("a name")).or_default();
        service.insert(target.parse().expect("a name"), details);
    }
    manifest
}

//! Manifests for tests.

use std::sync::Arc;

use jiff::Timestamp;
use secretfs_wire::audit::AuditMode;
use secretfs_wire::manifest::{Attached, Content, Manifest, Recipe, Target};
use secretfs_wire::template::Template;
use secretfs_wire::{Ownership, VersionId};

/// A target whose version has this id and this many bytes.
pub(crate) fn target(version: u64, size: u32) -> Target {
    Target {
        version_id: VersionId::from_u64(version).expect("an id"),
        content: Content::Secret(Attached { secret: "secret".parse().expect("a name"), version, size }),
        ownership: Ownership::default(),
        modified: Timestamp::UNIX_EPOCH,
        audit: AuditMode::Buffered,
    }
}

/// A target that is rendered from others.
pub(crate) fn template<'a>(text: &str, inputs: impl IntoIterator<Item = (&'a str, Target)>) -> Target {
    let template = Template::parse(text).expect("a template");
    let named = |(name, input): (&str, Target)| (name.parse().expect("a name"), input);
    let inputs: std::collections::BTreeMap<_, _> = inputs.into_iter().map(named).collect();
    Target {
        version_id: template.version(inputs.iter().map(|(name, input)| (name, input.version_id))),
        content: Content::Template(Arc::new(Recipe { template, inputs })),
        ownership: Ownership::default(),
        modified: Timestamp::UNIX_EPOCH,
        audit: AuditMode::Buffered,
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

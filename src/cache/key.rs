//! What a value is found by.

use secretfs_wire::manifest::{Manifest, Target};
use secretfs_wire::{ServiceName, TargetName, VersionId};

use crate::source::ValueRequest;

/// What a kept value is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// The service.
    pub(crate) service: ServiceName,
    /// The target in that service.
    pub(crate) target: TargetName,
    /// The version.
    pub(crate) version: VersionId,
}

impl Key {
    pub(super) fn of(request: &ValueRequest) -> Self {
        Self {
            service: request.service.clone(),
            target: request.target.clone(),
            version: request.details.version_id,
        }
    }

    /// What to ask for instead, if a manifest has another version of this target.
    pub(super) fn renewed(&self, manifest: &Manifest) -> Option<ValueRequest> {
        let details = manifest.target(&self.service, &self.target)?;
        let (service, target) = (self.service.clone(), self.target.clone());
        let renewed = || ValueRequest { service, target, details: details.clone() };
        (details.version_id != self.version).then(renewed)
    }

    /// Whether a manifest grants this version, as the current one.
    pub(super) fn is_granted(&self, manifest: &Manifest) -> bool {
        self.details(manifest).is_some()
    }

    /// Whether a manifest grants this version with so many bytes.
    pub(super) fn is_granted_with(&self, manifest: &Manifest, length: usize) -> bool {
        self.details(manifest)
            .is_some_and(|details| details.size().is_none_or(|promised| promised as usize == length))
    }

    /// Whether a manifest grants this version and it is rendered here.
    pub(super) fn is_rendered(&self, manifest: &Manifest) -> bool {
        self.details(manifest).is_some_and(|details| details.attached().is_none())
    }

    fn details<'a>(&self, manifest: &'a Manifest) -> Option<&'a Target> {
        let details = manifest.target(&self.service, &self.target)?;
        (details.version_id == self.version).then_some(details)
    }
}

//! What a value is found by.

use secretfs_wire::manifest::Manifest;
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
        self.granted_size(manifest).is_some()
    }

    /// The size that a manifest promises for this version, if it grants it.
    pub(super) fn granted_size(&self, manifest: &Manifest) -> Option<usize> {
        let details = manifest.target(&self.service, &self.target)?;
        (details.version_id == self.version).then_some(details.size as usize)
    }
}

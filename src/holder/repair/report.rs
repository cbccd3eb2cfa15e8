//! What was repaired, and what was not and why.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::RepairError;
use super::namespaces::View;
use crate::fuse::device::Device;
use crate::host::error_chain;

/// The most failures that are kept: a container may have any number of mounts that look like ours.
const MOST_FAILURES: usize = 100;

/// How a repair went.
///
/// Names of places inside containers are those containers' choice: print them quoted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    pub(crate) repaired: Vec<Repaired>,
    pub(crate) failed: Vec<Failed>,
    /// How many failures are not in the list.
    pub(crate) more_failed: usize,
    /// Dead devices that were mounted somewhere before the repair. Others need not be remembered.
    pub(crate) seen: BTreeSet<Device>,
    /// Whether every namespace was looked at. If not, `seen` is not all.
    pub(crate) complete: bool,
}

/// A bind that is alive again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repaired {
    /// A process that sees it.
    pub(crate) pid: u32,
    /// The number of its mount namespace.
    pub(crate) namespace: u64,
    /// Where, as that process sees it.
    pub(crate) point: String,
    /// What is there now, as the host sees it.
    pub(crate) source: String,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failed {
    /// A process that sees it; none where a mount of the host is meant.
    pub(crate) pid: Option<u32>,
    /// The number of its mount namespace.
    pub(crate) namespace: Option<u64>,
    /// Where, as that process sees it.
    pub(crate) point: String,
    /// Why, in one line.
    pub(crate) reason: String,
}

impl Report {
    pub(super) fn repaired(&mut self, view: &View, point: &Path, source: &Path) {
        self.repaired.push(Repaired {
            pid: view.pid,
            namespace: view.namespace,
            point: text(point),
            source: text(source),
        });
    }

    pub(super) fn failed(&mut self, view: &View, point: &Path, error: &RepairError) {
        self.fail(Some(view), text(point), error);
    }

    /// A mount of the plan that cannot replace any other.
    pub(super) fn unavailable(&mut self, path: &Path, error: &RepairError) {
        self.fail(None, text(path), error);
    }

    /// Something could not be looked at.
    pub(super) fn stop(&mut self, error: &RepairError) {
        self.complete = false;
        self.fail(None, String::new(), error);
    }

    fn fail(&mut self, view: Option<&View>, point: String, error: &RepairError) {
        if self.failed.len() == MOST_FAILURES {
            self.more_failed += 1;
            return;
        }
        let reason = error_chain(error);
        let (pid, namespace) = (view.map(|view| view.pid), view.map(|view| view.namespace));
        self.failed.push(Failed { pid, namespace, point, reason });
    }
}

// A name that is not UTF-8 must not keep the rest of the report from being written.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

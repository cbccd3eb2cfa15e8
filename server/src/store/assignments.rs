use std::collections::{BTreeSet, HashMap};

use secretfs_wire::api::Assignment;
use secretfs_wire::{Labels, NodeName, Selector, ServiceName};

/// Which services of an environment run where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assignments {
    by_node: HashMap<NodeName, BTreeSet<ServiceName>>,
    by_labels: Vec<(Selector, ServiceName)>,
}

impl Assignments {
    /// The services that run on a node, by name.
    pub(crate) fn of(&self, node: &NodeName, labels: &Labels) -> BTreeSet<ServiceName> {
        let by_name = self.by_node.get(node).into_iter().flatten();
        let chosen = self.by_labels.iter().filter(|(selector, _)| selector.matches(labels));
        by_name.chain(chosen.map(|(_, service)| service)).cloned().collect()
    }
}

impl FromIterator<(ServiceName, Assignment)> for Assignments {
    fn from_iter<I: IntoIterator<Item = (ServiceName, Assignment)>>(pairs: I) -> Self {
        let mut assignments = Self::default();
        for (service, assignment) in pairs {
            match assignment {
                Assignment::Node(node) => {
                    assignments.by_node.entry(node).or_default().insert(service);
                }
                Assignment::Selector(selector) => assignments.by_labels.push((selector, service)),
            }
        }
        assignments
    }
}

/// Whether an assignment means this node.
pub(crate) fn chooses(assignment: &Assignment, node: &NodeName, labels: &Labels) -> bool {
    match assignment {
        Assignment::Node(name) => name == node,
        Assignment::Selector(selector) => selector.matches(labels),
    }
}

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use secretfs_wire::manifest::RawService;
use secretfs_wire::stream::{Change, Digest, Follow};
use secretfs_wire::{Labels, NodeName, ServiceName, TargetName};
use serde_json::value::{RawValue, to_raw_value};

use crate::store::{Assignments, Published};

/// An environment at one revision. What it has in common with the one before it is shared.
pub(in crate::app) struct Snapshot {
    pub(in crate::app) revision: u64,
    services: BTreeMap<ServiceName, Arc<Service>>,
    assignments: Assignments,
    /// Nodes that see the same share what they see.
    views: Mutex<HashMap<BTreeSet<ServiceName>, Arc<View>>>,
}

/// A service as it is sent.
struct Service {
    raw: RawService,
    digest: OnceLock<Digest>,
}

/// What a node sees.
#[derive(Default)]
pub(in crate::app) struct View {
    services: BTreeMap<ServiceName, Arc<Service>>,
    /// What changed since other views, as it is sent: made out once for all the nodes that had it.
    since: Mutex<Vec<(Weak<View>, Written)>>,
}

/// A change as it is sent; `None` when there is none.
type Written = Option<Arc<RawValue>>;

impl Snapshot {
    pub(super) fn new(published: Published, before: Option<&Self>) -> Self {
        let Published { revision, services, assignments } = published;
        let shared = |name: &ServiceName, raw: RawService| {
            let old = before.and_then(|before| before.services.get(name));
            let same = old.filter(|old| old.raw == raw);
            same.map_or_else(|| Arc::new(Service { raw, digest: OnceLock::new() }), Arc::clone)
        };
        let services = services.into_iter().filter_map(|raw| {
            let name = ServiceName::try_from(raw.name.clone()).ok()?;
            let service = shared(&name, raw);
            Some((name, service))
        });
        Self { revision, services: services.collect(), assignments, views: Mutex::default() }
    }

    /// What a node of this name and with these labels sees.
    pub(in crate::app) fn view(&self, node: &NodeName, labels: &Labels) -> Arc<View> {
        let assigned = self.assignments.of(node, labels);
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(&assigned) {
            return Arc::clone(view);
        }
        let services = assigned.iter().filter_map(|name| {
            let service = self.services.get(name)?;
            Some((name.clone(), Arc::clone(service)))
        });
        let view = Arc::new(View { services: services.collect(), since: Mutex::default() });
        views.insert(assigned, Arc::clone(&view));
        view
    }
}

impl Service {
    fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| self.raw.digest())
    }
}

impl View {
    /// Whether there is such a file.
    pub(in crate::app) fn has(&self, service: &ServiceName, target: &TargetName) -> bool {
        self.services.get(service).is_some_and(|service| {
            let RawService { targets, templates, .. } = &service.raw;
            let mut names = targets.iter().map(|raw| &raw.target);
            let mut rendered = templates.iter().map(|raw| &raw.target);
            names.any(|name| name == target.as_str()) || rendered.any(|name| name == target.as_str())
        })
    }

    /// What a node that has `follow` must be told, as it is sent.
    pub(in crate::app) fn against(&self, follow: &Follow) -> Arc<RawValue> {
        let is_there =
            |name: &ServiceName, service: &Service| follow.have.get(name) == Some(service.digest());
        written(&self.change(is_there, follow.have.keys()))
    }

    /// What a node that has `before` must be told, as it is sent. `None` when that is nothing.
    pub(in crate::app) fn since(&self, before: &Arc<Self>) -> Written {
        if std::ptr::eq(self, before.as_ref()) {
            return None;
        }
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        // A weak one keeps the place, so no later view can have it and be taken for this.
        if let Some((_, change)) = since.iter().find(|(other, _)| Weak::as_ptr(other) == Arc::as_ptr(before))
        {
            return change.clone();
        }
        since.retain(|(other, _)| other.strong_count() > 0);
        let change = self.difference(before);
        since.push((Arc::downgrade(before), change.clone()));
        change
    }

    fn difference(&self, before: &Self) -> Written {
        let is_there = |name: &ServiceName, service: &Service| {
            before.services.get(name).is_some_and(|old| std::ptr::eq(old.as_ref(), service))
        };
        let change = self.change(is_there, before.services.keys());
        (change != Change::default()).then(|| written(&change))
    }

    /// What is sent to somebody who has services of these names, `is_there` those that are the same.
    fn change<'a>(
        &self,
        is_there: impl Fn(&ServiceName, &Service) -> bool,
        names: impl Iterator<Item = &'a ServiceName>,
    ) -> Change {
        let differing = self.services.iter().filter(|(name, service)| !is_there(name, service));
        Change {
            services: differing.map(|(_, service)| service.raw.clone()).collect(),
            removed: names
                .filter(|name| !self.services.contains_key(*name))
                .map(ToString::to_string)
                .collect(),
        }
    }
}

#[allow(clippy::expect_used, reason = "a change is plain data")]
fn written(change: &Change) -> Arc<RawValue> {
    to_raw_value(change).expect("a change serializes").into()
}

#[cfg(test)]
mod tests {
    use secretfs_wire::api::Assignment;

    use super::*;

    fn name<T: std::str::FromStr>(text: &str) -> T {
        text.parse().ok().expect("a name")
    }

    fn snapshot(revision: u64, services: &[&str], before: Option<&Snapshot>) -> Snapshot {
        let raw = |name: &&str| RawService { name: (*name).to_owned(), targets: vec![], templates: vec![] };
        let assignments = ["a", "b"].map(|service| (name(service), Assignment::Node(name("node"))));
        let published = Published {
            revision,
            services: services.iter().map(raw).collect(),
            assignments: assignments.into_iter().collect(),
        };
        Snapshot::new(published, before)
    }

    fn change(written: &RawValue) -> Change {
        serde_json::from_str(written.get()).expect("a change")
    }

    #[test]
    fn a_change_elsewhere_is_none_and_one_here_is_made_out_once() {
        let labels = Labels::default();
        let first = snapshot(1, &["a", "c"], None);
        let view = first.view(&name("node"), &labels);
        assert!(Arc::ptr_eq(&view, &first.view(&name("node"), &labels)), "seen by another node");

        let second = snapshot(2, &["a", "c", "d"], Some(&first));
        let same = second.view(&name("node"), &labels);
        assert!(same.since(&view).is_none());

        let third = snapshot(3, &["b", "c"], Some(&second));
        let other = third.view(&name("node"), &labels);
        let once = other.since(&view).expect("a change");
        assert!(Arc::ptr_eq(&once, &other.since(&view).expect("the same")));
        assert_eq!(other.since(&same).map(|again| change(&again)), Some(change(&once)));
        let change = change(&once);
        assert_eq!((change.services[0].name.as_str(), change.removed), ("b", vec!["a".to_owned()]));
    }
}

//! What nodes told under which id, so that each event is recorded once, however often it is told.

use std::collections::{BTreeMap, BTreeSet};

use secretfs_wire::audit::{Doubt, Event};

use crate::store::ReportId;

/// Events that are recorded, or about to be, by their ids.
#[derive(Default)]
pub(super) struct Reported(BTreeMap<ReportId, Vec<Event>>);

impl Reported {
    /// Begins with what is recorded under these ids, and what is about to be.
    pub(super) fn of(
        ids: &BTreeSet<ReportId>,
        mut recorded: BTreeMap<ReportId, Vec<Event>>,
        drafted: &Self,
    ) -> Self {
        for id in ids {
            if let Some(events) = drafted.0.get(id) {
                // With those that are recorded, which were there when it was drafted.
                recorded.insert(*id, events.clone());
            }
        }
        Self(recorded)
    }

    /// Takes what others took note of.
    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Takes note of an event, and says whether it has to be recorded. It is marked if another one was told
    /// under its id.
    pub(super) fn admit(&mut self, event: &mut Event) -> bool {
        let Some(id) = ReportId::of(event) else { return true };
        let told = self.0.entry(id).or_default();
        if told.iter().any(|told| says_the_same(told, event)) {
            return false;
        }
        if !told.is_empty() {
            event.doubts.push(Doubt::Id);
        }
        told.push(event.clone());
        true
    }
}

/// Whether two events that a node told under one id are one. What the manager makes of it may differ.
fn says_the_same(one: &Event, other: &Event) -> bool {
    let said = |event: &Event| {
        let Event { action, outcome, object, reason, inputs, process, happened, .. } = event.clone();
        (action, outcome, object, reason, inputs, process, happened)
    };
    said(one) == said(other)
}

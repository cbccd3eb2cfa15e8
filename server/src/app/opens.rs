//! What nodes tell of the files that programs opened.
//!
//! A node says what it likes: what it says is bounded, and what the manager cannot confirm is on record as
//! the node's word.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use secretfs_wire::api::{Open, OpenReport, OpenedVersion, REPORT_MAX_OPENS};
use secretfs_wire::audit::{Doubt, Event, Input, Outcome, Process, RECORD_MAX_NUMBER};
use secretfs_wire::{Action, SecretName, VersionId};

use super::App;
use super::changes::View;
use crate::audit::{Durability, Entry};
use crate::authn::NodeIdentity;
use crate::error::Error;
use crate::limits::{Limit, Limited};

/// The longest text of an open that is taken. Nodes cut theirs at half of that.
const TEXT_MAX_BYTES: usize = 1024;
/// How many versions an open may show. A node tells fewer, and how many there are more.
const MOST_VERSIONS: usize = 256;

/// Of a report: what the manager knows of what it is about.
struct Known {
    /// Names and numbers of the versions that there are.
    versions: BTreeMap<VersionId, (SecretName, u64)>,
    /// What the node sees now.
    view: Arc<View>,
}

impl App {
    /// Records what was opened at a node. Returns when it is committed; what is recorded already is not
    /// recorded again.
    pub(crate) async fn record_opens(
        &self,
        node: &NodeIdentity,
        address: Option<IpAddr>,
        report: OpenReport,
    ) -> Result<(), Error> {
        check(&report)?;
        if report.opens.is_empty() && report.lost.is_none() {
            return Ok(());
        }
        self.admit_opens(node, &report.opens)?;
        let known = self.known_of(node, &report.opens).await?;
        let new = |action, outcome| {
            let mut event = Event::new(action, outcome, node.actor());
            event.address = address;
            event.environment = Some(node.environment.clone());
            event
        };
        let mut entries = Vec::with_capacity(report.opens.len() + 1);
        for open in report.opens {
            let outcome = if open.failure.is_some() { Outcome::Failed } else { Outcome::Done };
            entries.push(Entry::from(known.describe(open, new(Action::FileOpen, outcome))));
        }
        if let Some(lost) = report.lost {
            let event = new(Action::FileLost, Outcome::Failed);
            entries.push(Entry { event, loss: Some(((node.id, lost.log), lost.total)) });
        }
        let durability = if report.durable { Durability::Power } else { Durability::Process };
        Ok(self.audit.record(entries, durability).await?)
    }

    /// Lets a node report these opens now, or says how long it has to wait with them.
    fn admit_opens(&self, node: &NodeIdentity, opens: &[Open]) -> Result<(), Error> {
        let count = opens.iter().map(weight).sum();
        // One that only tells of losses is a record too.
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        self.limits
            .opens(node.id, count)
            .map_err(|wait| self.refuse(Limit::Opens, Limited::Subject(node.subject()), wait))
    }

    async fn known_of(&self, node: &NodeIdentity, opens: &[Open]) -> Result<Known, Error> {
        let ids: BTreeSet<_> = opens
            .iter()
            .flat_map(|open| open.versions.iter().map(|version| version.id).chain([open.version_id]))
            .collect();
        let versions = self.store.version_places(&node.environment, &ids).await?;
        let labels = self.store.node_labels(&node.environment, node.id).await?;
        let snapshot = self.changes.feed(&node.environment).snapshot(self.store.as_ref()).await?;
        let view = labels.map(|labels| snapshot.view(&node.name, &labels)).unwrap_or_default();
        Ok(Known { versions, view })
    }
}

impl Known {
    /// Says in an event what a node says of an open, and what of that is not known here.
    fn describe(&self, open: Open, mut event: Event) -> Event {
        let mut doubts = BTreeSet::new();
        if !self.view.has(&open.service, &open.target) {
            doubts.insert(Doubt::Place);
        }
        let mut place = |version: &OpenedVersion| match self.versions.get(&version.id) {
            Some(known) => known.clone(),
            None => {
                doubts.insert(Doubt::Version);
                (version.secret.clone(), version.version)
            }
        };
        match (self.versions.get(&open.version_id), open.versions.as_slice()) {
            (Some((secret, version)), _) => {
                (event.object.secret, event.object.version) = (Some(secret.clone()), Some(*version));
            }
            (None, [one]) if one.id == open.version_id => {
                let (secret, version) = place(one);
                (event.object.secret, event.object.version) = (Some(secret), Some(version));
            }
            (None, []) => {
                doubts.insert(Doubt::Version);
            }
            (None, inputs) => {
                let input = |(secret, version)| Input { secret, version };
                event.inputs = inputs.iter().map(|version| input(place(version))).collect();
            }
        }
        event.object.service = Some(open.service);
        event.object.target = Some(open.target);
        let unnamed = (open.unnamed > 0).then(|| format!("{} more inputs are not named", open.unnamed));
        event.reason = open.failure.into_iter().chain(unnamed).reduce(|one, other| format!("{one}; {other}"));
        event.process = Some(open.process);
        event.happened = Some(open.at);
        event.id = Some(open.id);
        event.doubts = doubts.into_iter().collect();
        event
    }
}

/// Refuses what no node of ours tells.
fn check(report: &OpenReport) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::Invalid(reason));
    let OpenReport { opens, lost, .. } = report;
    if opens.len() > REPORT_MAX_OPENS {
        return invalid(format!("a report has at most {REPORT_MAX_OPENS} opens"));
    }
    if opens.iter().flat_map(texts).any(|text| text.len() > TEXT_MAX_BYTES) {
        return invalid(format!("a text is longer than {TEXT_MAX_BYTES} bytes"));
    }
    if opens.iter().any(|open| open.versions.len() > MOST_VERSIONS) {
        return invalid(format!("an open shows at most {MOST_VERSIONS} versions"));
    }
    let versions = opens.iter().flat_map(|open| &open.versions).map(|version| version.version);
    let numbers = versions.chain(opens.iter().map(|open| open.unnamed));
    if numbers.chain(lost.as_ref().map(|lost| lost.total)).any(|number| number > RECORD_MAX_NUMBER) {
        return invalid("there are not so many".to_owned());
    }
    Ok(())
}

/// As how many an open counts: what is bounded is the room that records take.
fn weight(open: &Open) -> u32 {
    const EACH_BYTES: usize = 1024;
    const BYTES_BESIDE_NAME: usize = 32;
    let versions = open.versions.iter().map(|version| version.secret.as_str().len() + BYTES_BESIDE_NAME);
    let bytes = texts(open).map(String::len).chain(versions).sum::<usize>();
    u32::try_from(1 + bytes / EACH_BYTES).unwrap_or(u32::MAX)
}

fn texts(open: &Open) -> impl Iterator<Item = &String> {
    let Process { executable, cgroup, container, .. } = &open.process;
    [executable, cgroup, container, &open.failure].into_iter().flatten()
}

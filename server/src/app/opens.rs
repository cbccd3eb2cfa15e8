//! What nodes tell of the files that programs opened.

use std::collections::BTreeSet;
use std::net::IpAddr;

use secretfs_wire::Action;
use secretfs_wire::api::{Open, OpenReport, REPORT_MAX_OPENS};
use secretfs_wire::audit::{Event, Outcome, Process};

use super::App;
use crate::audit::{Durability, Entry};
use crate::authn::NodeIdentity;
use crate::error::Error;

/// The longest text of an open that is taken: a path.
const TEXT_MAX_BYTES: usize = 4096;
/// What every JSON reader reads as it stands.
const MOST_LOST: u64 = (1 << 53) - 1;

impl App {
    /// Records what was opened at a node. Returns when it is committed; what is recorded already is not
    /// recorded again.
    pub(crate) async fn record_opens(
        &self,
        node: &NodeIdentity,
        address: Option<IpAddr>,
        report: OpenReport,
    ) -> Result<(), Error> {
        if report.opens.len() > REPORT_MAX_OPENS {
            return Err(Error::Invalid(format!("a report has at most {REPORT_MAX_OPENS} opens")));
        }
        if !report.opens.iter().flat_map(texts).all(|text| text.len() <= TEXT_MAX_BYTES) {
            return Err(Error::Invalid(format!("a text is longer than {TEXT_MAX_BYTES} bytes")));
        }
        let ids: BTreeSet<_> = report.opens.iter().map(|open| open.version_id).collect();
        let places = self.store.version_places(&node.environment, &ids).await?;
        let new = |action, outcome| {
            let mut event = Event::new(action, outcome, node.actor());
            event.address = address;
            event.environment = Some(node.environment.clone());
            event
        };
        let mut entries = Vec::with_capacity(report.opens.len() + 1);
        for open in report.opens {
            let outcome = if open.failure.is_some() { Outcome::Failed } else { Outcome::Done };
            let mut event = new(Action::FileOpen, outcome);
            if let Some((secret, version)) = places.get(&open.version_id) {
                event.object.secret = Some(secret.clone());
                event.object.version = Some(*version);
            }
            event.object.service = Some(open.service);
            event.object.target = Some(open.target);
            event.reason = open.failure;
            event.process = Some(open.process);
            event.happened = Some(open.at);
            event.id = Some(open.id);
            entries.push(Entry::from(event));
        }
        if let Some(lost) = report.lost {
            if lost.total > MOST_LOST {
                return Err(Error::Invalid("no node loses so many opens".to_owned()));
            }
            let event = new(Action::FileLost, Outcome::Failed);
            entries.push(Entry { event, loss: Some(((node.id, lost.log), lost.total)) });
        }
        if entries.is_empty() {
            return Ok(());
        }
        let durability = if report.durable { Durability::Power } else { Durability::Process };
        Ok(self.audit.record(entries, durability).await?)
    }
}

fn texts(open: &Open) -> impl Iterator<Item = &String> {
    let Process { executable, cgroup, container, .. } = &open.process;
    [executable, cgroup, container, &open.failure].into_iter().flatten()
}

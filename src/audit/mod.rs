//! What is opened at this node, and by whom, until the manager has it on record.
//!
//! - [`seam`]: what the file system says of an open, and to whom
//! - [`record`]: an open as words; [`words`]: numbers and texts as words
//! - [`ring`]: the records, in memory that outlives the worker
//! - [`processes`]: who opens, as the [witness](crate::witness) tells
//!
//! A record is written before the open is answered, and never waits for room. Where a file requires it,
//! the answer waits until the manager has the record. Who sends them is [`crate::node`].

mod processes;
mod record;
mod ring;
mod seam;
#[cfg(test)]
pub(crate) mod test_auditor;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashSet};
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use jiff::Timestamp;
use secretfs_wire::api::{LostOpens, Open, OpenReport, REPORT_MAX_OPENS};
use secretfs_wire::audit::{AuditMode, Unseen};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout_at;

use self::processes::{Processes, Who};
use self::record::Draft;
pub(crate) use self::ring::{Backlog, DEFAULT_BYTES, Ring};
use self::ring::{Kept, Position};
#[cfg(feature = "unaudited")]
pub(crate) use self::seam::Unaudited;
pub(crate) use self::seam::{Attempt, Auditor, Caller, NotAudited, Recorded};
use crate::handover::Channel;
use crate::source::ValueRequest;

/// A report is smaller than this, as JSON: managers take 1 MiB.
const REPORT_MOST_BYTES: usize = 900 << 10;

/// The records of a node.
pub(crate) struct Audit {
    ring: Ring,
    processes: Processes,
    /// Records that somebody waits for, who is told when the manager has one, and hears nothing more of one
    /// that it will never have. A std mutex: held for a few steps in memory.
    urgent: Mutex<BTreeMap<Position, oneshot::Sender<()>>>,
    /// There is something that should not wait for the next look.
    hurry: Notify,
}

/// What the manager is told at once.
#[derive(Debug)]
pub(crate) struct Batch {
    /// In these words.
    pub(crate) report: Arc<OpenReport>,
    positions: Vec<Position>,
}

/// The auditor of one mount.
pub(crate) struct MountAuditor {
    audit: Arc<Audit>,
    mount: usize,
}

/// An open whose record is to be written, in a task.
struct Opened {
    number: u64,
    at: Timestamp,
    caller: Caller,
    file: ValueRequest,
    failure: String,
    required: bool,
    repeated: bool,
    until: Instant,
}

impl Audit {
    /// Keeps records in `ring`, and asks the witness at the other end of a channel, if there is one. Does
    /// neither until it is told to [`begin`](Self::begin): until then another worker may be at work.
    pub(crate) fn new(ring: Ring, witness: Option<Channel>) -> Arc<Self> {
        Arc::new(Self {
            ring,
            processes: Processes::new(witness),
            urgent: Mutex::default(),
            hurry: Notify::new(),
        })
    }

    /// Goes on where a former worker ended.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn begin(&self) -> std::io::Result<()> {
        self.ring.adopt();
        self.processes.begin()
    }

    /// The auditor of the mount at this place among those of the daemon.
    pub(crate) fn of_mount(self: &Arc<Self>, mount: usize) -> Arc<MountAuditor> {
        Arc::new(MountAuditor { audit: self.clone(), mount })
    }

    /// What is not told yet, in numbers.
    pub(crate) fn backlog(&self) -> Backlog {
        self.ring.backlog()
    }

    /// Waits until something should not wait for the next look.
    pub(crate) async fn hurry(&self) {
        self.hurry.notified().await;
    }

    /// What the manager should be told next.
    ///
    /// At most so many opens; `lost` is how many lost ones it knows of. Nothing if there is no news. For
    /// one task, which then calls [`acknowledge`](Self::acknowledge) or [`refused`](Self::refused), or
    /// tries again.
    pub(crate) fn next(&self, most: usize, lost: u64) -> Option<Batch> {
        let kept = self.in_turns(most.min(REPORT_MAX_OPENS));
        let (mut report, mut positions) = (OpenReport { opens: vec![], lost: None, durable: false }, vec![]);
        let mut bytes = 0;
        for Kept { position, required, words } in kept {
            let Some(open) = record::read(self.ring.log(), &words) else {
                tracing::error!("the record of an open makes no sense and is dropped");
                self.give_up(position);
                continue;
            };
            bytes += record::size(&open);
            if bytes > REPORT_MOST_BYTES && !positions.is_empty() {
                break;
            }
            report.durable |= required;
            report.opens.push(open);
            positions.push(position);
        }
        let total = self.ring.lost();
        if total != lost {
            report.lost = Some(LostOpens { log: self.ring.log(), total });
        }
        let is_news = !positions.is_empty() || report.lost.is_some();
        is_news.then(|| Batch { report: Arc::new(report), positions })
    }

    /// The oldest records and those that somebody waits for, in turns. Neither keeps the other back: who
    /// waits is served with the next report, and whoever has others wait without a pause does not stop
    /// those that make room.
    fn in_turns(&self, most: usize) -> Vec<Kept> {
        let waited_for: Vec<_> = self.lock_urgent().keys().take(most).copied().collect();
        let urgent = self.ring.at(waited_for).into_iter().map(Some).chain(iter::repeat_with(|| None));
        // All that somebody waits for is among the oldest, if there are so few.
        let turns =
            self.ring.oldest().zip(urgent).flat_map(|(oldest, urgent)| iter::once(oldest).chain(urgent));
        let mut seen = HashSet::new();
        turns.filter(|kept| seen.insert(kept.position)).take(most).collect()
    }

    /// The manager has it.
    pub(crate) fn acknowledge(&self, batch: Batch) {
        self.ring.acknowledge(batch.positions.iter().copied());
        let mut urgent = self.lock_urgent();
        for position in batch.positions {
            if let Some(waiting) = urgent.remove(&position) {
                // Who waits may have given up.
                let _ = waiting.send(());
            }
        }
    }

    /// The manager will never take it: the only open in it is given up, and counted.
    pub(crate) fn refused(&self, batch: &Batch) {
        if let [position] = *batch.positions {
            self.give_up(position);
        }
    }

    fn give_up(&self, position: Position) {
        self.ring.give_up(position);
        self.lock_urgent().remove(&position);
    }

    /// Writes a record and waits until the manager has it.
    async fn write_and_wait(
        &self,
        draft: &Draft<'_>,
        repeated: bool,
        until: Instant,
    ) -> Result<(), NotAudited> {
        let (arrived, arrival) = oneshot::channel();
        let position = {
            // All the time, so that it cannot arrive before it is known that somebody waits.
            let mut urgent = self.lock_urgent();
            let position = self.write(draft, true, repeated).ok_or(NotAudited::Unacknowledged)?;
            if self.ring.is_acknowledged(position) {
                return Ok(());
            }
            urgent.insert(position, arrived);
            position
        };
        self.hurry.notify_one();
        let outcome = timeout_at(until.into(), arrival).await;
        self.lock_urgent().remove(&position);
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(NotAudited::Unacknowledged),
        }
    }

    fn write(&self, draft: &Draft<'_>, required: bool, repeated: bool) -> Option<Position> {
        let position = self.ring.push(draft, required, repeated);
        if self.ring.is_half_full() {
            self.hurry.notify_one();
        }
        position
    }

    fn lock_urgent(&self) -> MutexGuard<'_, BTreeMap<Position, oneshot::Sender<()>>> {
        self.urgent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Auditor for MountAuditor {
    fn record(&self, attempt: Attempt<'_>) -> Recorded {
        let Attempt { request, repeated, caller, file, failure, patience } = attempt;
        let at = Timestamp::now();
        let number = record::number(self.mount, request, file.details.version_id, failure.is_some());
        // An open that fails gives nobody anything.
        let required = file.details.audit == AuditMode::Required && failure.is_none();
        let who = self.audit.processes.known(caller.pid, at);
        if let Some(who) = &who
            && !required
        {
            let failure = failure.as_deref().unwrap_or_default();
            self.audit.write(&draft(number, at, caller, file, failure, who), false, repeated);
            return Recorded::Written;
        }
        let opened = Opened {
            number,
            at,
            caller,
            file: file.clone(),
            failure: failure.unwrap_or_default(),
            required,
            repeated,
            until: Instant::now() + patience,
        };
        let audit = self.audit.clone();
        Recorded::Pending(async move { opened.record(&audit, who).await }.boxed())
    }
}

impl Opened {
    async fn record(self, audit: &Audit, who: Option<Who>) -> Result<(), NotAudited> {
        let who = match who {
            Some(who) => who,
            None => audit.processes.ask(self.caller.pid, self.patience_for_witness()).await,
        };
        let draft = self.draft(&self.failure, &who);
        if !self.required {
            audit.write(&draft, false, self.repeated);
            return Ok(());
        }
        let outcome = match who {
            // Whoever keeps the witness busy must not get by unseen.
            Err(Unseen::TooLate) => Err(NotAudited::Unidentified),
            Ok(_) | Err(Unseen::NotVisible | Unseen::NoWitness) => {
                audit.write_and_wait(&draft, self.repeated, self.until).await
            }
        };
        if let Err(error) = outcome {
            // The manager may have the record all the same, or get it later: this one says how it ended.
            let reason = error.to_string();
            let ended = Draft { number: record::failed(self.number), ..self.draft(&reason, &who) };
            audit.write(&ended, false, self.repeated);
        }
        outcome
    }

    /// How long to wait for the witness.
    fn patience_for_witness(&self) -> Duration {
        /// For the last ones of all: an open that failed at its deadline is still on record with a name.
        const LEAST: Duration = Duration::from_millis(50);
        let left = self.until.saturating_duration_since(Instant::now()).max(LEAST);
        match self.required {
            true => left,
            false => left.min(processes::PATIENCE),
        }
    }

    fn draft<'a>(&'a self, failure: &'a str, who: &'a Who) -> Draft<'a> {
        draft(self.number, self.at, self.caller, &self.file, failure, who)
    }
}

fn draft<'a>(
    number: u64,
    at: Timestamp,
    caller: Caller,
    file: &'a ValueRequest,
    failure: &'a str,
    who: &'a Who,
) -> Draft<'a> {
    Draft {
        number,
        at,
        caller,
        service: file.service.as_str(),
        target: file.target.as_str(),
        details: &file.details,
        failure,
        process: who.as_deref().map_err(|unseen| *unseen),
    }
}

/// Opens of a report, for who shows or tests them.
impl Batch {
    /// The opens.
    pub(crate) fn opens(&self) -> &[Open] {
        &self.report.opens
    }
}

//! The log as an operator reads it, entry by entry. What is followed goes on where it was: when the stream
//! breaks, when the operator's certificate is replaced, and when the manager, restored from a backup, writes
//! another chain.

use std::time::Duration;

use futures::{Stream, StreamExt as _, stream};
use secretfs_wire::ChainId;
use secretfs_wire::api::ErrorCode;
use secretfs_wire::audit::{Line, Record, RecordError, RecordHash, WrittenRecord};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, sleep_until};

use super::super::Global;
use super::super::config::ConfigFile;
use super::super::connect::Operator;
use super::super::error::Failure;
use super::super::renewal::Renewal;
use crate::client::{AuditExtent, AuditLines, ClientError};

/// How soon a stream that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// How far a log was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    /// Which chain.
    pub(super) chain: ChainId,
    /// The last record that was read.
    pub(super) sequence: u64,
    /// Its hash: what is gone on from is what was read.
    pub(super) hash: RecordHash,
}

/// What a line that is a record says. It is read, and not verified.
pub(super) type ReadRecord = Result<Record, RecordError>;

/// A line of the log.
pub(super) struct Entry {
    /// The line.
    pub(super) line: Line,
    /// What it says, if it is a record.
    pub(super) record: Option<ReadRecord>,
}

impl Entry {
    pub(super) fn of(line: Line) -> Self {
        let record = match &line {
            Line::Record(written) => Some(Record::read(&written.text)),
            Line::Certificate(_) | Line::Checkpoint(_) => None,
        };
        Self { line, record }
    }

    /// How far the log was read with it, if it is a record that can be read.
    pub(super) fn position(&self) -> Option<Position> {
        let (Line::Record(written), Some(Ok(record))) = (&self.line, &self.record) else { return None };
        let hash = WrittenRecord::hash_of(&written.text);
        Some(Position { chain: record.chain, sequence: record.sequence, hash })
    }
}

/// A log that is read.
pub(super) struct Log<'a> {
    global: &'a Global,
    file: &'a ConfigFile,
    operator: Operator,
    extent: AuditExtent,
    position: Option<Position>,
    /// Whether it ends where the manager begins another chain.
    is_one_chain: bool,
    open: Option<Open>,
    was_open: bool,
    was_not_renewed: bool,
}

/// A stream of one chain.
struct Open {
    lines: AuditLines,
    /// The manager writes another chain now, which is read after this one.
    is_old: bool,
    /// The record that was read last is to come first.
    resumes: bool,
    renew_at: Option<Instant>,
}

/// Why an attempt to read ended.
enum Broken {
    Client(ClientError),
    For(Failure),
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::For(failure)
    }
}

impl<'a> Log<'a> {
    /// Reads this much of it.
    pub(super) fn new(
        global: &'a Global,
        file: &'a ConfigFile,
        operator: Operator,
        extent: AuditExtent,
    ) -> Self {
        Self {
            global,
            file,
            operator,
            extent,
            position: None,
            is_one_chain: false,
            open: None,
            was_open: false,
            was_not_renewed: false,
        }
    }

    /// Reads what comes after this record.
    pub(super) fn after(self, position: Option<Position>) -> Self {
        Self { position, ..self }
    }

    /// Fails where the manager begins another chain.
    pub(super) fn of_one_chain(self) -> Self {
        Self { is_one_chain: true, ..self }
    }

    /// Entry after entry.
    pub(super) fn entries(self) -> impl Stream<Item = Result<Entry, Failure>> + Unpin + use<'a> {
        Box::pin(stream::try_unfold(self, |mut log| async {
            Ok(log.next().await?.map(|entry| (entry, log)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Entry>, Failure> {
        loop {
            match self.step().await {
                Ok(Step::Entry(entry)) => return Ok(Some(*entry)),
                Ok(Step::Over) => return Ok(None),
                Ok(Step::Again) => {}
                Err(Broken::For(failure)) => return Err(failure),
                Err(Broken::Client(error)) if !self.was_open || !self.extent.follow || !passes(&error) => {
                    return Err(error.into());
                }
                Err(Broken::Client(error)) => {
                    if self.open.take().is_some() {
                        tracing::warn!(%error, "the stream broke; it is opened again until the manager is there");
                    }
                    sleep(AGAIN).await;
                    self.operator = Operator::new(self.global, self.file)?;
                }
            }
        }
    }

    /// The next entry, or whatever is to be done before there is one.
    async fn step(&mut self) -> Result<Step, Broken> {
        let Some(open) = &mut self.open else {
            self.open = Some(self.opened().await?);
            self.was_open = true;
            return Ok(Step::Again);
        };
        let line = tokio::select! {
            line = open.lines.next() => line,
            () = until(open.renew_at), if self.extent.follow => {
                self.renew().await?;
                return Ok(Step::Again);
            }
        };
        let Some(line) = line.transpose()? else { return self.ended().await };
        let line = Line::read(&line).map_err(|error| Failure::failed(error.to_string()))?;
        let entry = Entry::of(line);
        if entry.record.is_none() {
            return Ok(Step::Entry(Box::new(entry)));
        }
        let position = entry.position();
        if std::mem::take(&mut open.resumes) {
            return if position == self.position { Ok(Step::Again) } else { Err(changed().into()) };
        }
        self.position = position.or(self.position.take());
        Ok(Step::Entry(Box::new(entry)))
    }

    /// A stream, from where this log is.
    async fn opened(&self) -> Result<Open, Broken> {
        let renew_at = self.renew_at();
        let Some(last) = &self.position else {
            let lines = self.operator.client.audit(&self.extent).await?.lines;
            return Ok(Open { lines, is_old: false, resumes: false, renew_at });
        };
        // With the last one that was read, which shows that it is the same, and for what was signed since.
        let extent = AuditExtent { from: Some(last.sequence), last: None, ..self.extent.clone() };
        let stream = self.operator.client.audit(&extent).await?;
        if stream.chain == last.chain {
            return Ok(Open { lines: stream.lines, is_old: false, resumes: true, renew_at });
        }
        if self.is_one_chain {
            return Err(Failure::failed(format!(
                "the manager writes chain {} now, and this export is of chain {}",
                stream.chain, last.chain
            ))
            .hint("export the new one to another file; `secretfs audit verify` verifies both together")
            .into());
        }
        let old = AuditExtent { chain: Some(last.chain), follow: false, ..extent };
        match self.operator.client.audit(&old).await {
            Ok(stream) => Ok(Open { lines: stream.lines, is_old: true, resumes: true, renew_at }),
            Err(error) if error.code() == Some(ErrorCode::NotFound) => Err(Failure::failed(format!(
                "the manager does not have chain {} any more, of which record {} was the last one read",
                last.chain, last.sequence
            ))
            .hint("to begin with the chain that it has, remove the cursor")
            .into()),
            Err(error) => Err(error.into()),
        }
    }

    /// What to do at the end of a stream.
    async fn ended(&mut self) -> Result<Step, Broken> {
        let Some(open) = self.open.take() else { return Ok(Step::Again) };
        if open.resumes && !open.is_old && !self.extent.follow {
            return Err(changed().into());
        }
        if open.is_old {
            // A backup may have less of it than was read.
            self.position = None;
            (self.extent.from, self.extent.last) = (Some(1), None);
            return Ok(Step::Again);
        }
        if !self.extent.follow {
            return Ok(Step::Over);
        }
        // A manager that stops, or a certificate or a role that does not count any more: asking again tells.
        sleep(AGAIN).await;
        Ok(Step::Again)
    }

    /// When its certificate is to be renewed.
    fn renew_at(&self) -> Option<Instant> {
        let renewal = self.operator.renewal.as_ref()?;
        Some(Instant::now() + if self.was_not_renewed { renewal.wait_again() } else { renewal.wait() })
    }

    /// Goes on under the certificate that there is then.
    async fn renew(&mut self) -> Result<(), Failure> {
        if let Some(renewal) = &self.operator.renewal {
            renewal.run_if_due().await;
        }
        self.operator = Operator::new(self.global, self.file)?;
        let is_due = |renewal: &Renewal| renewal.wait().is_zero();
        self.was_not_renewed = self.operator.renewal.as_ref().is_some_and(is_due);
        self.open = None;
        Ok(())
    }
}

/// What came of an attempt to read on.
enum Step {
    Entry(Box<Entry>),
    Again,
    Over,
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn changed() -> Failure {
    Failure::failed("the manager's log is not the one that was read before: its last record is another one")
        .hint("run `secretfs audit verify`")
}

/// Whether the manager is away, and not unwilling.
fn passes(error: &ClientError) -> bool {
    match error.code() {
        None => !matches!(error, ClientError::Malformed { .. }),
        Some(code) => matches!(code, ErrorCode::Unavailable | ErrorCode::AuditUnavailable),
    }
}

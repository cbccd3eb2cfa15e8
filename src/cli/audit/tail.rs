use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use secretfs_wire::audit::{Line, Record, RecordError};

use super::super::connect::Operator;
use super::super::error::Failure;
use super::super::{Global, output};
use super::show;
use crate::client::{AuditExtent, ClientError};

/// How soon a stream that broke is opened again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(in crate::cli) struct TailArgs {
    /// How many records to show
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    count: u32,
    /// Show what comes, too, until it is interrupted
    #[arg(short, long)]
    follow: bool,
}

pub(super) async fn run(args: TailArgs, global: &Global, operator: &Operator) -> Result<(), Failure> {
    let extent = AuditExtent {
        last: Some(args.count),
        environment: global.environment.clone(),
        follow: args.follow,
        ..AuditExtent::default()
    };
    each(operator, extent, &mut |line, record| {
        let (Line::Record(written), Some(record)) = (line, record) else { return Ok(()) };
        if global.json {
            return Ok(output::line(&written.text)?);
        }
        match record {
            Ok(record) => Ok(output::line(&show::line(&record))?),
            Err(error) => Ok(output::line(&format!("{error}; see `secretfs audit verify`"))?),
        }
    })
    .await
    .map(drop)
}

/// What a line that is a record says. It is read, and not verified.
pub(super) type ReadRecord = Result<Record, RecordError>;

/// Does something with each line. What is followed is opened again where it was when the stream breaks.
/// The number of the last record.
pub(super) async fn each(
    operator: &Operator,
    mut extent: AuditExtent,
    with: &mut impl FnMut(Line, Option<ReadRecord>) -> Result<(), Failure>,
) -> Result<Option<u64>, Failure> {
    let mut last: Option<u64> = None;
    loop {
        let broke = match operator.client.audit(&extent).await {
            Ok(mut lines) => loop {
                match lines.next().await {
                    None => break None,
                    Some(Err(error)) => break Some(error),
                    Some(Ok(line)) => {
                        let line = Line::read(&line).map_err(|error| Failure::failed(error.to_string()))?;
                        let record = match &line {
                            Line::Record(written) => Some(Record::read(&written.text)),
                            Line::Certificate(_) | Line::Checkpoint(_) => None,
                        };
                        let number = record.as_ref().and_then(|record| Some(record.as_ref().ok()?.sequence));
                        // It was opened again at this one, for the checkpoint after it.
                        if number.is_some() && number == last {
                            continue;
                        }
                        last = number.or(last);
                        with(line, record)?;
                    }
                }
            },
            Err(error) => Some(error),
        };
        match broke {
            None if !extent.follow => return Ok(last),
            Some(error) if !extent.follow || !passes(&error) => return Err(error.into()),
            _ => {}
        }
        if last.is_some() {
            (extent.from, extent.last) = (last, None);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether the manager is away, and not unwilling.
fn passes(error: &ClientError) -> bool {
    use secretfs_wire::api::ErrorCode;
    match error.code() {
        None => !matches!(error, ClientError::Malformed { .. }),
        Some(code) => matches!(code, ErrorCode::Unavailable | ErrorCode::AuditUnavailable),
    }
}

mod cursor;
mod destination;
mod file;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use url::Url;

use super::super::Global;
use super::super::config::ConfigFile;
use super::super::connect::Operator;
use super::super::error::Failure;
use super::log::{Entry, Log, Position};
use crate::client::AuditExtent;
use crate::collector::Trust;
use crate::host::logging::last_words;
use cursor::CursorFile;
use destination::Destination;

/// How many lines are passed on at once, if so many are there.
const BATCH: usize = 256;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Begin with this record [default: 1, or where the file or the cursor is]
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Keep in this file how far the log was exported, and go on from there the next time
    #[arg(long, value_name = "FILE", conflicts_with = "to")]
    cursor_file: Option<PathBuf>,
    /// Write to a file; one that is there is gone on with
    #[arg(long, value_name = "FILE", conflicts_with = "to_url")]
    to: Option<PathBuf>,
    #[command(flatten)]
    collector: CollectorArgs,
    /// In which form [default: the one that the URL is for, else jsonl]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Export what comes, too, until it is interrupted
    #[arg(short, long)]
    follow: bool,
}

/// A log collector to send to.
#[derive(Debug, Args)]
struct CollectorArgs {
    /// Send to a collector: https://HOST:4318 (OTLP), tls://HOST[:6514], tcp://HOST[:601], udp://HOST[:514] or
    /// unix:///dev/log (syslog)
    #[arg(long, value_name = "URL")]
    to_url: Option<Url>,
    /// The authority that certifies the collector [default: those that the system trusts]
    #[arg(long, value_name = "FILE", requires = "to_url")]
    to_ca: Option<PathBuf>,
    /// A certificate to show the collector, PEM
    #[arg(long, value_name = "FILE", requires = "to_url")]
    to_cert: Option<PathBuf>,
    /// Its key [default: in the same file]
    #[arg(long, value_name = "FILE", requires = "to_cert")]
    to_key: Option<PathBuf>,
    /// Headers for an OTLP collector, such as `Authorization: Bearer TOKEN`, a line each
    #[arg(long, value_name = "FILE", requires = "to_url")]
    to_headers: Option<PathBuf>,
}

impl CollectorArgs {
    fn trust(&self) -> Trust {
        let Self { to_ca, to_cert, to_key, .. } = self;
        Trust { ca: to_ca.clone(), certificate: to_cert.clone(), key: to_key.clone() }
    }
}

/// The form of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of JSON: records with their hashes, checkpoints and certificates. Can be verified
    Jsonl,
    /// Syslog messages (RFC 5424), a record each
    Syslog,
    /// OpenTelemetry's log records, over HTTP
    Otlp,
}

impl ExportArgs {
    fn format(&self) -> Result<Format, Failure> {
        let fitting = match self.collector.to_url.as_ref().map(Url::scheme) {
            None => [Format::Jsonl, Format::Syslog].as_slice(),
            Some("http" | "https") => &[Format::Otlp],
            Some(_) => &[Format::Syslog],
        };
        let format = self.format.unwrap_or(fitting[0]);
        if fitting.contains(&format) {
            return Ok(format);
        }
        let words =
            if format == Format::Otlp { "add --to-url https://HOST:4318" } else { "leave --format out" };
        Err(Failure::usage("the log cannot be sent there in this form").hint(words))
    }
}

pub(super) async fn run(args: ExportArgs, global: &Global, file: &ConfigFile) -> Result<(), Failure> {
    global.start_logging("warn")?;
    let format = args.format()?;
    let cursor = args.cursor_file.clone().map(CursorFile::at);
    let position = match (&args.to, &cursor) {
        (Some(path), _) if args.from.is_none() && format == Format::Jsonl => file::mend_and_find_end(path)?,
        (_, Some(cursor)) => cursor.read()?,
        _ => None,
    };
    let operator = Operator::new(global, file)?;
    let mut destination = Destination::open(&args, format, &operator.manager)?;
    let extent = AuditExtent { from: args.from, follow: args.follow, ..AuditExtent::default() };
    let mut log = Log::new(global, file, operator, extent).after(position);
    if format == Format::Jsonl {
        // What is verified is one chain.
        log = log.of_one_chain();
    }
    let mut last: Option<Position> = None;
    let mut entries = log.entries().ready_chunks(BATCH);
    while let Some(some) = entries.next().await {
        let (entries, failure) = until_failure(some);
        let position = entries.iter().rev().find_map(Entry::position);
        destination.write(entries).await?;
        if let (Some(position), Some(cursor)) = (&position, &cursor) {
            cursor.write(position)?;
        }
        last = position.or(last);
        if let Some(failure) = failure {
            return Err(failure);
        }
    }
    destination.close().await?;
    if let (Some(last), None, None) = (last, &args.to, &args.cursor_file) {
        let Position { sequence, .. } = last;
        last_words(&format!("exported up to record {sequence}; go on with --from {}", sequence + 1));
    }
    Ok(())
}

/// What there is before the first failure, and that.
fn until_failure(some: Vec<Result<Entry, Failure>>) -> (Vec<Entry>, Option<Failure>) {
    let mut entries = Vec::with_capacity(some.len());
    for entry in some {
        match entry {
            Ok(entry) => entries.push(entry),
            Err(failure) => return (entries, Some(failure)),
        }
    }
    (entries, None)
}

fn cannot(what: &str, path: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

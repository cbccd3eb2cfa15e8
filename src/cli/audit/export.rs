use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use secretfs_wire::audit::{Line, Record};
use url::Url;

use super::super::connect::Operator;
use super::super::error::Failure;
use super::syslog::{self, Receiver};
use super::tail::{ReadRecord, each};
use crate::client::AuditExtent;

#[derive(Debug, Args)]
pub(in crate::cli) struct ExportArgs {
    /// Begin with this record [default: 1, or where the file ends]
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Write to a file; one that is there is gone on with
    #[arg(long, value_name = "FILE", conflicts_with = "to_url")]
    to: Option<PathBuf>,
    /// Send to a syslog receiver: tcp://HOST[:601], udp://HOST[:514] or unix:///dev/log
    #[arg(long, value_name = "URL")]
    to_url: Option<Url>,
    /// In which form
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Export what comes, too, until it is interrupted
    #[arg(short, long)]
    follow: bool,
}

/// The form of an export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines of JSON: records with their hashes, checkpoints and certificates. Can be verified
    #[default]
    Jsonl,
    /// Syslog messages (RFC 5424), a record each
    Syslog,
}

pub(super) async fn run(args: ExportArgs, operator: &Operator) -> Result<(), Failure> {
    if args.to_url.is_some() && args.format != Format::Syslog {
        return Err(Failure::usage("only syslog is sent to a URL").hint("add --format syslog"));
    }
    let host = operator.manager.host_str().unwrap_or("-").to_owned();
    let mut last_there = None;
    let mut output = match (&args.to, &args.to_url) {
        (Some(path), _) => {
            if args.format == Format::Jsonl && args.from.is_none() {
                last_there = last_record(path)?;
            }
            let file = OpenOptions::new().create(true).append(true).open(path);
            Output::File(file.map_err(|error| cannot("write", path, &error))?)
        }
        (None, Some(url)) => Output::Receiver(
            Receiver::connect(url)
                .map_err(|error| Failure::unreachable(format!("cannot connect to {url}: {error}")))?,
        ),
        (None, None) => Output::Stdout(io::stdout()),
    };
    // From the last one that is there, for a checkpoint that came after it.
    let from = args.from.or(last_there);
    let extent = AuditExtent { from, follow: args.follow, ..AuditExtent::default() };
    let mut export = |line: Line, record: Option<ReadRecord>| {
        if let Some(Ok(record)) = &record
            && last_there.is_some_and(|last| record.sequence <= last)
        {
            return Ok(());
        }
        let written = match (args.format, record, &line) {
            (Format::Jsonl, _, _) => {
                let text = line.to_text().map_err(|error| Failure::failed(error.to_string()))?;
                output.write(&text)
            }
            (Format::Syslog, Some(Ok(record)), Line::Record(written)) => {
                output.write(&syslog::message(&record, &written.text, &host))
            }
            (Format::Syslog, Some(Err(error)), _) => {
                return Err(Failure::failed(error.to_string()).hint("run `secretfs audit verify`"));
            }
            (Format::Syslog, _, _) => Ok(()),
        };
        written.map_err(|error| Failure::failed(format!("cannot write the export: {error}")))
    };
    let last = each(operator, extent, &mut export).await?;
    if let (Some(last), None) = (last, &args.to) {
        crate::host::logging::last_words(&format!(
            "exported up to record {last}; go on with --from {}",
            last + 1
        ));
    }
    Ok(())
}

enum Output {
    Stdout(io::Stdout),
    File(File),
    Receiver(Receiver),
}

impl Output {
    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => writeln!(stdout, "{text}"),
            Self::File(file) => file.write_all(format!("{text}\n").as_bytes()),
            Self::Receiver(receiver) => receiver.send(text),
        }
    }
}

/// The number of the last record in an export that is there.
fn last_record(path: &Path) -> Result<Option<u64>, Failure> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("read", path, &error)),
    };
    let mut last = None;
    for line in BufReader::new(file).lines() {
        let line = line.map_err(|error| cannot("read", path, &error))?;
        let line = Line::read(&line)
            .map_err(|error| Failure::failed(format!("cannot go on with {}: {error}", path.display())))?;
        if let Line::Record(written) = line {
            last = Record::read(&written.text).ok().map(|record| record.sequence).or(last);
        }
    }
    Ok(last)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

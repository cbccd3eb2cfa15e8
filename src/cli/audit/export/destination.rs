//! Where an export goes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use secretfs_wire::audit::Line;
use url::Url;

use super::super::super::error::Failure;
use super::super::log::Entry;
use super::{ExportArgs, Format, cannot};
use crate::collector::{self, Access, Collector, CollectorError, Outgoing};

/// Lines to somebody who reads them, or records to a collector.
pub(super) enum Destination {
    Lines { output: Output, form: LineForm },
    Collector(Box<Collector>),
}

pub(super) enum Output {
    Stdout(io::Stdout),
    File(File),
}

/// What a line says.
pub(super) enum LineForm {
    /// What the manager says.
    Jsonl,
    /// A message of the manager on this host.
    Syslog { host: String },
}

impl Destination {
    /// The one that was asked for. A collector is connected to with the first records.
    pub(super) fn open(args: &ExportArgs, format: Format, manager: &Url) -> Result<Self, Failure> {
        if let Some(url) = &args.collector.to_url {
            let access = Access {
                url: url.clone(),
                trust: args.collector.trust(),
                headers: args.collector.to_headers.clone(),
            };
            let collector = Collector::new(access, manager, args.follow);
            return collector
                .map(|collector| Self::Collector(Box::new(collector)))
                .map_err(|error| unreachable(&error));
        }
        let output = match &args.to {
            Some(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                Output::File(file.map_err(|error| cannot("write", path, &error))?)
            }
            None => Output::Stdout(io::stdout()),
        };
        let form = match format {
            Format::Syslog => LineForm::Syslog { host: collector::host_of(manager) },
            Format::Jsonl | Format::Otlp => LineForm::Jsonl,
        };
        Ok(Self::Lines { output, form })
    }

    /// Passes some on.
    pub(super) async fn write(&mut self, entries: Vec<Entry>) -> Result<(), Failure> {
        match self {
            Self::Lines { output, form } => {
                let mut text = String::new();
                for entry in entries {
                    text.extend(form.line(entry)?);
                }
                output
                    .write(&text)
                    .map_err(|error| Failure::failed(format!("cannot write the export: {error}")))
            }
            Self::Collector(collector) => {
                let mut records = Vec::with_capacity(entries.len());
                for entry in entries {
                    records.extend(outgoing(entry)?);
                }
                if records.is_empty() {
                    return Ok(());
                }
                collector.send(&records).await.map_err(|error| unreachable(&error))
            }
        }
    }

    /// Ends when all is on its way.
    pub(super) async fn close(self) -> Result<(), Failure> {
        match self {
            Self::Lines { .. } => Ok(()),
            Self::Collector(collector) => collector.close().await.map_err(|error| unreachable(&error)),
        }
    }
}

impl LineForm {
    /// The line of an entry, with its line feed, if it has one in this form.
    fn line(&self, entry: Entry) -> Result<Option<String>, Failure> {
        match self {
            Self::Jsonl => {
                let text = entry.line.to_text().map_err(|error| Failure::failed(error.to_string()))?;
                Ok(Some(text + "\n"))
            }
            Self::Syslog { host } => Ok(outgoing(entry)?.map(|Outgoing { record, written }| {
                collector::syslog_message(&record, &written.text, host) + "\n"
            })),
        }
    }
}

impl Output {
    fn write(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }
}

/// A record, if it is one: checkpoints and certificates are for whoever verifies.
fn outgoing(entry: Entry) -> Result<Option<Outgoing>, Failure> {
    match (entry.line, entry.record) {
        (Line::Record(written), Some(Ok(record))) => Ok(Some(Outgoing { record, written })),
        (_, Some(Err(error))) => Err(Failure::failed(error.to_string()).hint("run `secretfs audit verify`")),
        _ => Ok(None),
    }
}

fn unreachable(error: &CollectorError) -> Failure {
    match error {
        CollectorError::Url | CollectorError::Exposed => Failure::usage(error.to_string()),
        _ => Failure::unreachable(format!("cannot send to the collector: {error}")),
    }
}

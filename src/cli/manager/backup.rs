//! `manager backup` and `manager restore`.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use secretfs_server::{About, BackupError, Config};
use zeroize::Zeroizing;

use super::super::error::Failure;
use super::super::{Global, output};
use super::DataDirArgs;

/// An identity file is some lines of text.
const IDENTITIES_MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupArgs {
    #[command(flatten)]
    pub(super) data_dir: DataDirArgs,
    /// Who can read it, as `age-keygen` prints it (age1...); may be given several times
    #[arg(short, long = "recipient", value_name = "RECIPIENT", required_unless_present = "recipients_file")]
    recipients: Vec<String>,
    /// A file with a recipient in each line
    #[arg(short = 'R', long, value_name = "FILE")]
    recipients_file: Option<PathBuf>,
    /// Where to write it, `-` for standard output; an existing file is never replaced
    #[arg(short, long, value_name = "FILE|-", default_value = "-")]
    output: PathBuf,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    #[command(flatten)]
    pub(super) data_dir: DataDirArgs,
    /// The age identity file (AGE-SECRET-KEY-1...) of one of the recipients
    #[arg(short, long, value_name = "FILE")]
    identity: PathBuf,
    /// The backup, or `-` for standard input
    #[arg(value_name = "FILE|-", default_value = "-")]
    file: PathBuf,
}

pub(super) async fn backup(args: BackupArgs, global: &Global, config: &Config) -> Result<(), Failure> {
    let mut recipients = args.recipients;
    if let Some(file) = &args.recipients_file {
        let text = std::fs::read_to_string(file).map_err(|error| cannot("read", file, &error))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        recipients.extend(lines.map(str::to_owned));
    }
    if args.output.as_os_str() == "-" {
        if io::stdout().is_terminal() {
            return Err(Failure::usage("a backup is no text for a terminal").hint("add --output FILE"));
        }
        return match secretfs_server::backup(config, &recipients, BufWriter::new(io::stdout())).await {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(&error)),
        };
    }
    let directory = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))
        .map_err(|error| cannot("write", &args.output, &error))?;
    let about = secretfs_server::backup(config, &recipients, BufWriter::new(file.as_file()))
        .await
        .map_err(|error| failed(&error))?;
    // It appears when all of it is on the disk.
    file.as_file().sync_all().map_err(|error| cannot("write", &args.output, &error))?;
    file.persist_noclobber(&args.output).map_err(|error| cannot("write", &args.output, &error.error))?;
    let text = args.output.display().to_string();
    Ok(output::one(global, &summary(&about, &args.output), &text)?)
}

pub(super) async fn restore(args: RestoreArgs, global: &Global, config: &Config) -> Result<(), Failure> {
    let mut identities = Zeroizing::new(Vec::new());
    File::open(&args.identity)
        .and_then(|file| file.take(IDENTITIES_MAX_BYTES).read_to_end(&mut identities))
        .map_err(|error| cannot("read", &args.identity, &error))?;
    let input: Box<dyn Read> = match args.file.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(&args.file).map_err(|error| cannot("read", &args.file, &error))?),
    };
    let about = secretfs_server::restore(config, &identities, BufReader::new(input))
        .await
        .map_err(|error| failed(&error))?;
    let text = format!(
        "The manager of {} is restored to {}. Next:\n\n    secretfs manager run\n    secretfs manager unlock",
        output::time(about.created),
        config.data_dir.display()
    );
    Ok(output::one(global, &summary(&about, &config.data_dir), &text)?)
}

fn summary(about: &About, path: &Path) -> serde_json::Value {
    serde_json::json!({ "path": path, "created": about.created, "version": about.version })
}

fn failed(error: &BackupError) -> Failure {
    let failure = Failure::from_error(error);
    match error {
        BackupError::Recipient(_) => failure.hint("`age-keygen` makes one, and prints it"),
        _ => failure,
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

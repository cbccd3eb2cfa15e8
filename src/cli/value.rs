//! Where a new value comes from: a file, standard input, or the manager's random source. Never an
//! argument, which every user of the machine can read in `ps`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Args;
use secretfs_wire::{SECRET_MAX_BYTES, SecretBytes};

use super::error::Failure;
use crate::client::NewValue;

/// The value of a new version.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct ValueArgs {
    /// A file with the value, or `-` for standard input; every byte counts, a last newline too
    #[arg(value_name = "FILE|-")]
    file: Option<PathBuf>,
    /// Let the manager draw a value of N letters and digits, which nobody sees
    #[arg(
        long,
        value_name = "N",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "32",
        value_parser = clap::value_parser!(u32).range(16..=1024)
    )]
    generate: Option<u32>,
}

impl ValueArgs {
    /// Reads the value.
    pub(super) async fn read(self) -> Result<NewValue, Failure> {
        if let Some(length) = self.generate {
            return Ok(NewValue::Generated(length));
        }
        read(self.file.unwrap_or_else(|| PathBuf::from("-"))).await.map(NewValue::Given)
    }
}

/// Reads a value from a file, or from standard input when that is `-`.
pub(super) async fn read(path: PathBuf) -> Result<SecretBytes, Failure> {
    let shown =
        if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let value = tokio::task::spawn_blocking(move || match path.as_os_str() == "-" {
        true => read_bounded(io::stdin().lock()),
        false => read_bounded(File::open(path)?),
    })
    .await
    .map_err(|error| Failure::from_error(&error))?
    .map_err(|error| Failure::failed(format!("cannot read the value from {shown}: {error}")))?;
    SecretBytes::new(value).map_err(|error| Failure::failed(format!("{error}, and {shown} is not that")))
}

/// Reads one byte more than a secret may have, at most. The buffer has its final size from the
/// start: growing would leave copies behind.
fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut value = Vec::with_capacity(SECRET_MAX_BYTES + 1);
    source.take(SECRET_MAX_BYTES as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

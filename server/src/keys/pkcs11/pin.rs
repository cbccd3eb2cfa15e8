use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cryptoki::types::RawAuthPin;
use zeroize::Zeroizing;

use crate::config::PinSource;

/// More than any token takes; a file that is larger is some other file.
const MOST_BYTES: usize = 1024;

/// The token user's PIN. Wiped when it is dropped, never printed.
pub(super) struct Pin(RawAuthPin);

/// Why there is no PIN.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PinError {
    #[error("cannot read pin_file {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("pin_file {} can be read by everybody: take that away, and better change the PIN", .0.display())]
    Public(PathBuf),
    #[error("the environment has no variable {0}, which pin_env names")]
    NoVariable(String),
    #[error("the PIN is empty, or longer than {MOST_BYTES} bytes")]
    Length,
}

impl Pin {
    pub(super) fn read(source: &PinSource) -> Result<Self, PinError> {
        let mut bytes = match source {
            PinSource::File(path) => from_file(path)?,
            PinSource::Variable(name) => {
                let value = std::env::var_os(name).ok_or_else(|| PinError::NoVariable(name.clone()))?;
                Zeroizing::new(value.into_vec())
            }
        };
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.is_empty() || bytes.len() > MOST_BYTES {
            return Err(PinError::Length);
        }
        // The buffer itself moves on, and is wiped by its new owner with what was cut off.
        Ok(Self(RawAuthPin::new(Box::new(std::mem::take(&mut *bytes)))))
    }

    pub(super) fn expose(&self) -> &RawAuthPin {
        &self.0
    }
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, PinError> {
    let failed = |error| PinError::Read(path.to_owned(), error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.permissions().mode() & 0o004 != 0 {
        return Err(PinError::Public(path.to_owned()));
    }
    // Larger than it will be: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MOST_BYTES));
    file.take(MOST_BYTES as u64 + 2).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(REDACTED)")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn read(text: &str, mode: u32) -> Result<Pin, PinError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pin");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        Pin::read(&PinSource::File(path))
    }

    #[test]
    fn a_pin_is_read_and_never_printed() {
        let pin = read("canary\n", 0o600).expect("a PIN");
        assert!(!format!("{pin:?}").contains("canary"));
        assert!(matches!(read("\n", 0o600), Err(PinError::Length)));
        assert!(matches!(read(&"9".repeat(MOST_BYTES + 1), 0o600), Err(PinError::Length)));
        let public = read("canary\n", 0o604).expect_err("everybody reads it");
        assert!(matches!(public, PinError::Public(_)));
        assert!(!format!("{public} {public:?}").contains("canary"));
        let absent = Pin::read(&PinSource::Variable("SECRETFS_TEST_NO_SUCH".to_owned()));
        assert!(absent.expect_err("none").to_string().contains("SECRETFS_TEST_NO_SUCH"));
    }
}

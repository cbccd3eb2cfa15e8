//! The organisation's own policies: the `*.cedar` files of a directory, which count all together or not at
//! all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::text::PolicyError;

/// How many files are read of a directory, and how many bytes all together.
const MAX_FILES: usize = 256;
const MAX_BYTES: u64 = 1024 * 1024;

/// The texts of a directory's files, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OwnPolicies {
    texts: BTreeMap<String, String>,
}

impl OwnPolicies {
    /// Reads a directory. What begins with a dot is somebody's temporary file.
    ///
    /// # Errors
    /// When it or a file cannot be read, is too large, or can be written by everybody.
    pub(super) fn read(directory: &Path) -> Result<Self, PolicyError> {
        let fault = |path: &Path, problem: String| PolicyError::new(path.display(), None, problem);
        let unreadable = |error: io::Error| fault(directory, format!("cannot be read: {error}"));
        refuse_writable_by_all(directory, &fs::metadata(directory).map_err(unreadable)?)?;
        let mut paths: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.extension().is_some_and(|extension| extension == "cedar") && !hidden {
                paths.push(path);
            }
        }
        if paths.len() > MAX_FILES {
            return Err(fault(directory, format!("has more than {MAX_FILES} files of policies")));
        }
        let (mut texts, mut room) = (BTreeMap::new(), MAX_BYTES);
        for path in paths {
            let text = read(&path, room)?;
            room -= text.len() as u64;
            texts.insert(path.display().to_string(), text);
        }
        Ok(Self { texts })
    }

    /// The files and what stands in them.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(file, text)| (file.as_str(), text.as_str()))
    }
}

/// Whoever writes a policy decides who may do what.
fn refuse_writable_by_all(path: &Path, metadata: &fs::Metadata) -> Result<(), PolicyError> {
    match metadata.mode() & 0o002 {
        0 => Ok(()),
        _ => Err(PolicyError::new(path.display(), None, "can be written by everybody; chmod o-w")),
    }
}

fn read(path: &Path, room: u64) -> Result<String, PolicyError> {
    let fault = |problem: String| PolicyError::new(path.display(), None, problem);
    let unreadable = |error: io::Error| fault(format!("cannot be read: {error}"));
    // Before it is opened: a pipe would not let go.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(fault("is not a file".to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    refuse_writable_by_all(path, &file.metadata().map_err(unreadable)?)?;
    let mut text = String::new();
    file.take(room + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.len() as u64 > room {
        true => Err(fault(format!("makes all policies larger than {MAX_BYTES} bytes"))),
        false => Ok(text),
    }
}

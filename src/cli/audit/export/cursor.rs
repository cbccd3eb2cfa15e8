//! How far a log was exported, in a file: who is started again goes on there.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::super::super::error::Failure;
use super::super::log::Position;
use super::cannot;
use crate::host::files;

/// Such a file.
pub(super) struct CursorFile(PathBuf);

impl CursorFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The last record that was exported, if there is one.
    pub(super) fn read(&self) -> Result<Option<Position>, Failure> {
        let Self(path) = self;
        match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", path, &error)),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|_| {
                Failure::failed(format!("{} is not the cursor of an export", path.display()))
                    .hint("remove it to export all records anew")
            }),
        }
    }

    /// That one was.
    pub(super) fn write(&self, position: &Position) -> Result<(), Failure> {
        let Self(path) = self;
        let text = serde_json::to_vec(position).map_err(|error| cannot("write", path, &error.into()))?;
        files::write_private(path, &text).map_err(|error| cannot("write", path, &error))
    }
}

#[cfg(test)]
mod tests {
    use secretfs_wire::ChainId;
    use secretfs_wire::audit::WrittenRecord;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cursor");
        let cursor = CursorFile::at(path.clone());
        assert_eq!(cursor.read().unwrap(), None);
        let hash = WrittenRecord::hash_of("a record");
        let position = Position { chain: ChainId::random(), sequence: 7, hash };
        cursor.write(&position).unwrap();
        assert_eq!(cursor.read().unwrap(), Some(position));
        for other in ["", "7", "{\"sequence\":7}"] {
            fs::write(&path, other).unwrap();
            assert!(cursor.read().is_err(), "{other}");
        }
    }
}

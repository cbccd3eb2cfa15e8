//! JSON in memory that is handed from process to process by its descriptor: what is too large for a
//! message, or is kept by a process that has no business reading it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest document: a manifest of some 200,000 targets.
const MOST_BYTES: u64 = 64 << 20;

/// Writes a document that nobody can change any more.
///
/// # Errors
/// What the system says.
pub(crate) fn write(name: &str, content: &impl Serialize) -> io::Result<OwnedFd> {
    let memory = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = io::BufWriter::new(File::from(memory));
    serde_json::to_writer(&mut file, content)?;
    file.flush()?;
    let memory = OwnedFd::from(file.into_inner().map_err(io::IntoInnerError::into_error)?);
    fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(memory)
}

/// Reads a document. Its descriptor may have been read before, here or elsewhere.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] when it is not what it should be.
pub(crate) fn read<T: DeserializeOwned>(memory: &File) -> io::Result<T> {
    let length = memory.metadata()?.len();
    if length > MOST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the document is too large"));
    }
    let mut text = vec![0; length as usize];
    memory.read_exact_at(&mut text, 0)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_twice_and_never_changed() {
        let file = File::from(write("test", &[1, 2, 3]).expect("written"));
        for _ in 0..2 {
            assert_eq!(read::<Vec<u8>>(&file).expect("read"), [1, 2, 3]);
        }
        assert!(file.set_len(1).is_err() && file.write_at(b"x", 0).is_err());
        assert_eq!(read::<String>(&file).expect_err("a list").kind(), io::ErrorKind::InvalidData);
    }
}

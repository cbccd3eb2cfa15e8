//! An export that is there already, and is gone on with.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use secretfs_wire::audit::Line;

use super::super::super::error::Failure;
use super::super::log::{Entry, Position};
use super::cannot;
use crate::client::AUDIT_LINE_MAX_BYTES;

/// The last record in an export, if it is there. A last line that is not whole, since whoever wrote it was
/// killed or had no room, is cut off.
pub(super) fn mend_and_find_end(path: &Path) -> Result<Option<Position>, Failure> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot("open", path, &error)),
    };
    let (last, whole_bytes) = read(path, &file)?;
    let length = file.metadata().map_err(|error| cannot("read", path, &error))?.len();
    if whole_bytes < length {
        file.set_len(whole_bytes).map_err(|error| cannot("write", path, &error))?;
    }
    Ok(last)
}

/// The last record, and how many bytes there are up to the end of the last line.
fn read(path: &Path, file: &File) -> Result<(Option<Position>, u64), Failure> {
    let (mut last, mut whole_bytes) = (None, 0);
    let mut input = BufReader::new(file);
    for number in 1_u64.. {
        let mut line = Vec::new();
        let length = (&mut input).take(AUDIT_LINE_MAX_BYTES as u64).read_until(b'\n', &mut line);
        let length = length.map_err(|error| cannot("read", path, &error))?;
        if line.pop() != Some(b'\n') {
            // The end, or a part of a line.
            break;
        }
        whole_bytes += length as u64;
        let entry = str::from_utf8(&line).ok().and_then(|line| Line::read(line).ok()).map(Entry::of);
        let entry = entry.ok_or_else(|| {
            Failure::failed(format!("line {number} of {} is not a line of an audit log", path.display()))
                .hint("export to another file")
        })?;
        last = entry.position().or(last);
    }
    Ok((last, whole_bytes))
}

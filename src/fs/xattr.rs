//! Extended attributes: what a program may ask about the version it would read, and about a directory.

use super::error::FsError;
use super::freshness::Freshness;
use super::tree::Node;

/// The number of the current version. A template has none: it changes with each of several secrets.
const VERSION: &str = "user.secretfs.version";
/// Since when the version is last known good rather than current; absent while it is current.
const STALE_SINCE: &str = "user.secretfs.stale_since";

pub(super) fn get(node: &Node, freshness: &Freshness, name: &[u8]) -> Result<String, FsError> {
    if let Node::File(file) = node
        && name == VERSION.as_bytes()
    {
        let attached = file.request.details.attached().ok_or(FsError::NoAttribute)?;
        return Ok(attached.version.to_string());
    }
    if name == STALE_SINCE.as_bytes() {
        // RFC 3339, to the second: nobody knows better when a silence began.
        return freshness.stale_since().map(|since| format!("{since:.0}")).ok_or(FsError::NoAttribute);
    }
    Err(FsError::NoAttribute)
}

/// The names, each ended by a zero byte, as the system call has them.
pub(super) fn list(node: &Node, freshness: &Freshness) -> Vec<u8> {
    let version = match node {
        Node::File(file) => file.request.details.attached().map(|_| VERSION),
        Node::Directory(_) => None,
    };
    // Of a directory too: is a file that is missing not granted, or has nobody said so yet?
    let stale_since = freshness.stale_since().map(|_| STALE_SINCE);
    let names = version.into_iter().chain(stale_since);
    names.flat_map(|name| [name.as_bytes(), b"\0"]).flatten().copied().collect()
}

//! One value in the arena, and parts of it that are on their way out.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use secretfs_wire::SecretBytes;

use super::Arena;
use super::directory::Record;
use super::packing;

/// A value in the arena. It never changes.
///
/// It cannot be printed or serialized. Dropping it wipes it; a kill does not, so that
/// the next worker finds it.
pub(crate) struct Value {
    arena: Arc<Arena>,
    entry: u32,
    /// Read once: what the memory says of it from now on does not count.
    record: Record,
}

impl Value {
    /// For a record whose words are there and are nobody else's.
    pub(super) const fn new(arena: Arc<Arena>, entry: u32, record: Record) -> Self {
        Self { arena, entry, record }
    }

    /// How many bytes it has: 1 to 1 MiB.
    #[allow(clippy::len_without_is_empty, reason = "a secret is never empty")]
    pub(crate) const fn len(&self) -> usize {
        self.record.value
    }

    /// The number of its entry, by which the next worker finds it again.
    pub(crate) const fn entry(&self) -> u32 {
        self.entry
    }

    /// All of it, for a template. `None` never: an arena has no other lengths than a secret has.
    pub(crate) fn secret(&self) -> Option<SecretBytes> {
        let mut bytes = vec![0; self.len()];
        packing::read(&self.arena.data[self.record.bytes()], 0, &mut bytes);
        SecretBytes::new(bytes).ok()
    }

    /// A part of the value, as far as it goes.
    pub(crate) fn copy(&self, range: Range<usize>) -> Slice {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        let mut bytes = vec![0; end - start];
        packing::read(&self.arena.data[self.record.bytes()], start, &mut bytes);
        Slice(bytes)
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.arena.wipe(self.entry, &self.record);
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(REDACTED)")
    }
}

/// A copy of a part of a value. Wiped when it is dropped.
pub(crate) struct Slice(Vec<u8>);

impl Slice {
    /// The cleartext.
    pub(crate) fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        // Not `Zeroizing`: it stores byte by byte, which for 128 KiB takes longer than the read.
        self.0.fill(0);
        zeroize::optimization_barrier(self.0.as_slice());
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slice(REDACTED)")
    }
}

//! Which request of the kernel something is done for.

/// A request's number, which no other request of the same mount has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId {
    /// The number.
    pub(crate) number: u64,
    /// Whether it was sent before, to a worker that was killed before it answered.
    pub(crate) repeated: bool,
}

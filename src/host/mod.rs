//! What every role asks of the host it runs on: files that only their owner reads, memory that only
//! this process reads, memory that outlives it, a name, a log; and what a role gives up.

pub(crate) mod confinement;
pub(crate) mod files;
mod hardening;
pub(crate) mod inherited;
pub(crate) mod logging;
#[cfg(feature = "manager")]
pub(crate) mod open_files;
pub(crate) mod process_title;
pub(crate) mod shared_memory;
pub(crate) mod shutdown;
#[cfg(test)]
pub(crate) mod test_child;

pub(crate) use hardening::{
    HardeningError, die_with_parent, end_with_parent, forbid_dumps, harden, set_oom_score,
};

/// An error with every cause that it names, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

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

use std::error::Error;

pub(crate) use hardening::{
    HardeningError, die_with_parent, end_with_parent, forbid_dumps, harden, set_oom_score,
};

/// An error with every cause that it names, in one line.
pub(crate) fn error_chain(error: &dyn Error) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The innermost cause of an error whose outer ones only say what was tried, as an HTTP client's do.
pub(crate) fn innermost_cause(error: &dyn Error) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// An error, and what causes it names, inwards.
fn causes<'a>(error: &'a dyn Error) -> impl Iterator<Item = &'a (dyn Error + 'a)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'a)| Some(Error::source(*error)? as _))
}

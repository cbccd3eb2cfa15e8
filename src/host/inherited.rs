//! Descriptors that a service manager kept for this process while there was none of it.
//!
//! JUSTIFICATION for unsafe code: descriptors that were there at the start are known by their numbers
//! only (sd_listen_fds(3)), and somebody has to say that they are ours.
#![allow(unsafe_code, reason = "inherited descriptors are numbers")]

use std::os::fd::{FromRawFd as _, OwnedFd};

/// Takes all of them, each with its name. Called once, at the start.
pub(crate) fn take_descriptors() -> Vec<(String, OwnedFd)> {
    let descriptors = match sd_notify::listen_fds_with_names() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            tracing::warn!(%error, "what the service manager has kept cannot be taken");
            return Vec::new();
        }
    };
    descriptors
        .map(|(number, name)| {
            // SAFETY: the service manager passed this descriptor to this very process (LISTEN_PID),
            // the library has seen that it is open, and nobody else here knows of it.
            (name, unsafe { OwnedFd::from_raw_fd(number) })
        })
        .collect()
}

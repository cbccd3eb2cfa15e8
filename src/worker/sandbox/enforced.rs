//! What of the sandbox this kernel enforces.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What holds for a worker, for the log and for `node status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Enforced {
    /// Version of the Landlock ABI; none if the kernel does not have Landlock or has it off.
    pub(crate) landlock: Option<u32>,
    /// Whether system calls are filtered.
    pub(crate) seccomp: bool,
    /// Whether `CAP_IPC_LOCK` was there and is kept. No other capability is.
    pub(crate) locks_memory: bool,
}

impl Enforced {
    /// What an older or smaller kernel leaves open, in words for an operator.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let landlock = self.landlock.unwrap_or(0);
        [
            (landlock < 1, "files are restricted by their modes only (no Landlock, Linux 5.13)"),
            (landlock < 4, "TCP may go to any port (Landlock 4, Linux 6.7)"),
            (!self.seccomp, "any system call may be made (no seccomp)"),
        ]
        .into_iter()
        .filter_map(|(missing, what)| missing.then_some(what))
        .collect()
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.landlock {
            Some(abi) => write!(f, "Landlock {abi}, ")?,
            None => write!(f, "no Landlock, ")?,
        }
        f.write_str(if self.seccomp { "seccomp, " } else { "no seccomp, " })?;
        f.write_str(if self.locks_memory { "CAP_IPC_LOCK only" } else { "no capability" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_leaves_open_is_said() {
        let full = Enforced { landlock: Some(7), seccomp: true, locks_memory: false };
        assert_eq!(full.to_string(), "Landlock 7, seccomp, no capability");
        assert_eq!(full.missing(), [""; 0]);

        let files_only = Enforced { landlock: Some(3), ..full.clone() };
        assert!(matches!(files_only.missing()[..], [tcp] if tcp.starts_with("TCP")));
        let nothing = Enforced { landlock: None, seccomp: false, locks_memory: true };
        assert_eq!(nothing.to_string(), "no Landlock, no seccomp, CAP_IPC_LOCK only");
        assert_eq!(nothing.missing().len(), 3);
    }
}

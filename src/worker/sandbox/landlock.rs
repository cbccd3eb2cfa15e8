//! Files, ports, signals and abstract sockets, by Landlock (landlock(7)): what is not allowed here
//! answers EACCES or EPERM.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

/// The newest version that this has been tried with. An older kernel enforces the part of it that it
/// knows. A newer one could do more, but what more would forbid has to be tried first.
const NEWEST: ABI = ABI::V7;

/// DNS, when an answer is too long for UDP.
const DNS: u16 = 53;

/// Leaves this thread and those it starts the files in `readable` to read, and TCP to the manager's
/// port and to DNS. Tells the version in force, if the kernel has Landlock.
pub(super) fn enter(
    readable: impl IntoIterator<Item = impl AsRef<Path>>,
    manager_port: Option<u16>,
) -> Result<Option<u32>, RulesetError> {
    let ports = manager_port.into_iter().chain([DNS]);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        // Skips what is not there.
        .add_rules(path_beneath_rules(readable, AccessFs::ReadFile))?
        .add_rules(ports.map(|port| Ok::<_, RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))))?
        .restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => Some(effective_abi.min(NEWEST) as u32),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    })
}

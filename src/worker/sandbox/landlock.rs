//! Files and network: nothing but what it takes to find and to reach the manager.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::SandboxError;

/// The newest interface whose rights are all handled. What an older kernel does not know it does not
/// restrict.
const NEWEST: ABI = ABI::V6;

/// What getaddrinfo(3) reads. A worker finds its manager by name, each time that it connects.
const RESOLUTION: [&str; 8] = [
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    // Where /etc/resolv.conf often points.
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
];
/// Where the modules that nsswitch.conf names are, and how they are found.
const MODULES: [&str; 5] = ["/etc/ld.so.cache", "/lib", "/lib64", "/usr/lib", "/usr/lib64"];

const DNS: u16 = 53;

pub(super) fn restrict(manager_port: Option<u16>) -> Result<(), SandboxError> {
    build(manager_port).map_err(SandboxError::Landlock)
}

fn build(manager_port: Option<u16>) -> Result<(), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        // Neither sockets without a path nor signals reach anybody outside.
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for path in RESOLUTION.into_iter().chain(MODULES) {
        // What is not there needs no rule.
        if let Ok(file) = PathFd::new(path) {
            let listing = if Path::new(path).is_dir() { AccessFs::ReadDir.into() } else { BitFlags::EMPTY };
            rules = rules.add_rule(PathBeneath::new(file, listing | AccessFs::ReadFile))?;
        }
    }
    for port in manager_port.into_iter().chain([DNS]) {
        rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    let status = rules.restrict_self()?;
    tracing::debug!(?status, "files and network are restricted");
    Ok(())
}

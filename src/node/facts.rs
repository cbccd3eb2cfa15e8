//! What this host says of itself when it joins, so that an operator recognises it.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use etc_os_release::OsRelease;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use secretfs_wire::{HostFact, HostFacts, MachineDigest};
use url::Url;

/// How long the manager's name may take to resolve: the join itself will say that it does not.
const RESOLVE: Duration = Duration::from_secs(2);

/// All that can be had; what cannot is left out.
pub(super) async fn host_facts(manager: &Url) -> HostFacts {
    let uname = rustix::system::uname();
    let of_kernel = |text: &CStr| fact(&text.to_string_lossy());
    HostFacts {
        hostname: of_kernel(uname.nodename()),
        system: OsRelease::open().ok().and_then(|system| fact(system.pretty_name())),
        kernel: of_kernel(uname.release()),
        architecture: of_kernel(uname.machine()),
        machine: fs::read_to_string("/etc/machine-id").ok().and_then(|id| MachineDigest::of_machine_id(&id)),
        booted: booted(),
        addresses: own_address(manager).await.into_iter().collect(),
    }
}

fn fact(text: &str) -> Option<HostFact> {
    Some(HostFact::new(text)).filter(|fact| !fact.as_str().is_empty())
}

/// To the second: the clock that the uptime is taken from may have been set since.
fn booted() -> Option<Timestamp> {
    let up = SignedDuration::from_secs(clock_gettime(ClockId::Boottime).tv_sec);
    let booted = Timestamp::now().checked_sub(up).ok()?;
    Timestamp::from_second(booted.as_second()).ok()
}

/// The address from which this host speaks to the manager.
async fn own_address(manager: &Url) -> Option<IpAddr> {
    let manager = manager.clone();
    let resolved = tokio::task::spawn_blocking(move || manager.socket_addrs(|| None).unwrap_or_default());
    let addresses = tokio::time::timeout(RESOLVE, resolved).await.ok()?.ok()?;
    addresses.into_iter().find_map(|address| source_to(address).ok())
}

/// What the routing table chooses. Nothing is sent.
fn source_to(address: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_knows_itself() {
        let facts = host_facts(&"https://127.0.0.1:7443".parse().unwrap()).await;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(facts.kernel, fact(&kernel));
        assert_eq!(facts.addresses, [IpAddr::from(Ipv4Addr::LOCALHOST)]);
        // The kernel's own account of it.
        let stat = fs::read_to_string("/proc/stat").unwrap();
        let booted =
            stat.lines().find_map(|line| line.strip_prefix("btime ")).unwrap().parse::<i64>().unwrap();
        assert!((facts.booted.unwrap().as_second() - booted).abs() <= 2, "{facts:?}");
    }
}

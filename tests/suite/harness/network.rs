//! Two hosts and a wire between them, that can be cut: what is sent then is lost, and nobody is told.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const ADDRESSES: [&str; 2] = ["10.213.0.1", "10.213.0.2"];
const HARDWARE: [&str; 2] = ["02:00:00:5e:00:01", "02:00:00:5e:00:02"];
/// Nobody's.
const NOWHERE: &str = "02:00:00:5e:00:ff";

/// Removed with all that is in it when it is dropped.
pub(crate) struct Network {
    hosts: [String; 2],
}

impl Network {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let host = |place: usize| format!("secretfs-{}-{number}-{place}", std::process::id());
        let network = Self { hosts: [host(0), host(1)] };
        let [one, other] = &network.hosts;
        ip(&["netns", "add", one]);
        ip(&["netns", "add", other]);
        ip(&[
            &["-n", one, "link", "add", "wire", "address", HARDWARE[0], "type", "veth"][..],
            &["peer", "name", "wire", "netns", other, "address", HARDWARE[1]],
        ]
        .concat());
        for (host, address) in network.hosts.iter().zip(ADDRESSES) {
            ip(&["-n", host, "address", "add", &format!("{address}/30"), "dev", "wire"]);
            ip(&["-n", host, "link", "set", "wire", "up"]);
            ip(&["-n", host, "link", "set", "lo", "up"]);
        }
        network.heal();
        network
    }

    /// The manager's and the node's host, for [`secretfs_on`](super::process::secretfs_on).
    pub(crate) fn hosts(&self) -> [PathBuf; 2] {
        self.hosts.each_ref().map(|host| PathBuf::from("/run/netns").join(host))
    }

    /// The address of the manager's host.
    pub(crate) fn manager_address(&self) -> &'static str {
        ADDRESSES[0]
    }

    /// From now on all packets are lost, both ways: they go to hardware that is not there.
    pub(crate) fn cut(&self) {
        self.send_to([NOWHERE, NOWHERE]);
    }

    pub(crate) fn heal(&self) {
        self.send_to(HARDWARE);
    }

    fn send_to(&self, hardware: [&str; 2]) {
        for (from, to) in [(0, 1), (1, 0)] {
            let neighbour = ["neigh", "replace", ADDRESSES[to], "lladdr", hardware[to], "dev", "wire"];
            ip(&[&["-n", &self.hosts[from]], &neighbour[..], &["nud", "permanent"]].concat());
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in &self.hosts {
            // Their processes may have ended before or not; the wire goes with the last of them.
            let _ = Command::new("ip").args(["netns", "delete", host]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip starts");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

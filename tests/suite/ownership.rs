//! uid, gid and mode through the mount, as three users who share groups.

use std::process::Command;

use crate::harness::area::Logs;
use crate::harness::process::finish;
use crate::harness::requirement::trials;
use crate::harness::{Node, Site};

trials! {
    needs [Mount];
    three_users_and_three_groups_read_what_owner_and_mode_allow,
    root_reads_everything,
}

/// A user with a group and perhaps one more.
#[derive(Debug, Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
    also: Option<u32>,
}

const USERS: [User; 3] = [
    User { uid: 1001, gid: 2001, also: None },
    User { uid: 1002, gid: 2002, also: Some(2001) },
    User { uid: 1003, gid: 2003, also: None },
];

impl User {
    /// What a file system on a disk would say (path_resolution(7)): the first class that fits
    /// decides, also when a later one would allow more.
    fn may_read(self, uid: u32, gid: u32, mode: u32) -> bool {
        let class = if self.uid == uid {
            0o400
        } else if self.gid == gid || self.also == Some(gid) {
            0o040
        } else {
            0o004
        };
        mode & class != 0
    }

    fn reads(self, node: &Node, name: &str, logs: &Logs) -> bool {
        let groups = self.also.map_or("--clear-groups".to_owned(), |gid| format!("--groups={gid}"));
        let mut command = Command::new("setpriv");
        command
            .args([format!("--reuid={}", self.uid), format!("--regid={}", self.gid), groups])
            .args(["--", "cat"])
            .arg(node.path(name))
            .env("LC_ALL", "C");
        let outcome = finish(&mut command, b"", logs);
        match outcome.code {
            0 => assert_eq!(outcome.stdout, "value", "{self:?} reads {name}"),
            _ => assert!(
                outcome.stderr.contains("Permission denied"),
                "{self:?} and {name}: {}",
                outcome.stderr
            ),
        }
        outcome.code == 0
    }
}

fn three_users_and_three_groups_read_what_owner_and_mode_allow() {
    let site = Site::start();
    site.serve("web-1", "web", &[("secret", b"value")]);
    let modes = ["0400", "0040", "0004", "0440", "0044", "0404", "0444", "0000"];
    let mut files = Vec::new();
    for (owner, group) in [(1001, 2001), (1002, 2001), (1003, 2002)] {
        for mode in modes {
            let target = format!("{owner}-{group}-{mode}");
            let (uid, gid) = (owner.to_string(), group.to_string());
            let options = ["--target", &target, "--uid", &uid, "--gid", &gid, "--mode", mode];
            site.attach("web", "secret", &options);
            files.push((target, owner, group, u32::from_str_radix(mode, 8).expect("octal")));
        }
    }
    let node = site.node("web-1");
    for (name, uid, gid, mode) in files {
        for user in USERS {
            let reads = user.reads(&node, &format!("web/{name}"), site.logs());
            assert_eq!(reads, user.may_read(uid, gid, mode), "{user:?} and {name}");
        }
    }
}

fn root_reads_everything() {
    let site = Site::start();
    site.create_service("web", "web-1");
    site.create_secret("secret", b"value");
    site.attach("web", "secret", &["--uid", "1001", "--gid", "2001", "--mode", "0000"]);
    assert_eq!(site.node("web-1").read("web/secret").expect("CAP_DAC_OVERRIDE"), b"value");
}

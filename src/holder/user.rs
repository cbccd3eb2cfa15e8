//! As whom workers run.

use rustix::process::geteuid;

use crate::handover::User;

/// The user of that name is not known to this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no user {0} for the workers; create it (systemd-sysusers), or set node.user to another one"
)]
pub(crate) struct NoSuchUser(String);

/// Made by contrib/systemd/secretfs.sysusers for workers and nothing else.
const OWN: &str = "secretfs";
/// Who every host has.
const NOBODY: &str = "nobody";

/// The user that is configured, else the product's own if this host has it, else nobody.
///
/// `None` when the holder is not root: then its workers are who it is.
pub(super) fn choose(configured: Option<&str>) -> Result<Option<User>, NoSuchUser> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let found = match configured {
        Some(name) => named(name),
        None => named(OWN).or_else(|| named(NOBODY)),
    };
    found.map(Some).ok_or_else(|| NoSuchUser(configured.unwrap_or(NOBODY).to_owned()))
}

fn named(name: &str) -> Option<User> {
    let user = nix::unistd::User::from_name(name).ok().flatten()?;
    Some(User { uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_that_does_not_exist_is_named() {
        if geteuid().is_root() {
            let error = choose(Some("no-such-user")).expect_err("nobody of that name");
            assert!(error.to_string().contains("no-such-user"));
            assert_ne!(choose(None).expect("somebody").expect("not root").uid, 0);
        } else {
            assert_eq!(choose(Some("no-such-user")), Ok(None));
        }
    }
}

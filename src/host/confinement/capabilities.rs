//! Root's powers, taken away one set after the other.

use rustix::io::{self, Errno};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// Drops every capability but `wanted`. Tells whether that one is there.
pub(crate) fn keep_only(wanted: CapabilitySet) -> io::Result<bool> {
    empty_bounding_set()?;
    clear_ambient_capability_set()?;
    let kept = capabilities(None)?.permitted & wanted;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    Ok(kept == wanted)
}

/// What is not in the bounding set, no program that is executed can bring back. Only who has
/// `CAP_SETPCAP` may shrink it; for others, no_new_privs does the same.
pub(crate) fn empty_bounding_set() -> io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            // Not permitted, or beyond the last capability that this kernel knows.
            Err(Errno::PERM | Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::thread::{capability_is_in_ambient_set, capability_is_in_bounding_set};

    use super::*;
    use crate::host::test_child;

    #[test]
    fn nothing_but_what_is_wanted_is_left() {
        if test_child::part().is_none() {
            const NAME: &str = "host::confinement::capabilities::tests::nothing_but_what_is_wanted_is_left";
            return test_child::succeeds(NAME, "drop");
        }
        let before = capabilities(None).expect("capabilities").permitted & CapabilitySet::IPC_LOCK;
        assert_eq!(keep_only(CapabilitySet::IPC_LOCK), Ok(!before.is_empty()));
        let none = CapabilitySet::empty();
        let left = CapabilitySets { effective: before, permitted: before, inheritable: none };
        assert_eq!(capabilities(None), Ok(left));
        for capability in [CapabilitySet::SYS_ADMIN, CapabilitySet::IPC_LOCK] {
            assert_eq!(capability_is_in_bounding_set(capability), Ok(false));
            assert_eq!(capability_is_in_ambient_set(capability), Ok(false));
        }
        assert_eq!(
            keep_only(CapabilitySet::IPC_LOCK),
            Ok(!before.is_empty()),
            "who has nothing loses nothing"
        );
    }
}

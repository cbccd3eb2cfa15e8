//! System calls, by seccomp (seccomp(2)).
//!
//! Two filters, of which the stricter answer counts. The first ends the process for calls that only
//! an attacker makes. The second answers every call that is not in a list with ENOSYS, as a kernel
//! does that does not have it, so that the C library falls back on an older one.

use std::collections::BTreeMap;
use std::io;

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};

use super::fatal::FATAL;

/// A call, and the arguments with which it is allowed: any of these alternatives, or any at all.
pub(crate) type Rule = (c_long, &'static [Alternative]);
/// What all has to hold.
pub(crate) type Alternative = &'static [Argument];

/// Whatever the arguments are.
pub(crate) const ANY: &[Alternative] = &[];

/// A condition: these bits of an argument are exactly so.
#[derive(Debug)]
pub(crate) struct Argument {
    index: u8,
    mask: u64,
    value: u64,
}

impl Argument {
    /// It is this value.
    pub(crate) const fn is(index: u8, value: c_int) -> Self {
        Self::bits(index, -1, value)
    }

    /// It has none of these bits.
    pub(crate) const fn without(index: u8, bits: c_int) -> Self {
        Self::bits(index, bits, 0)
    }

    /// It has this value in these bits. The kernel looks at the lower half only, of an int or of flags.
    pub(crate) const fn bits(index: u8, mask: c_int, value: c_int) -> Self {
        Self { index, mask: mask.cast_unsigned() as u64, value: value.cast_unsigned() as u64 }
    }

    /// It is a null pointer.
    pub(crate) const fn null(index: u8) -> Self {
        Self { index, mask: u64::MAX, value: 0 }
    }
}

/// Leaves this thread and those it starts these calls. Tells whether the kernel can.
///
/// One that ends other processes does not end one that lists it.
pub(crate) fn enter(allowed: &[Rule]) -> Result<bool, Error> {
    let (fatal, allowed) = (fatal(allowed)?, compile_allowed(allowed)?);
    match apply_filter(&fatal) {
        Err(Error::Seccomp(error)) if is_missing(&error) => return Ok(false),
        other => other?,
    }
    apply_filter(&allowed)?;
    Ok(true)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

fn fatal(allowed: &[Rule]) -> Result<BpfProgram, BackendError> {
    let is_allowed = |call: &&c_long| allowed.iter().any(|(other, _)| other == *call);
    let rules = FATAL.iter().filter(|call| !is_allowed(call)).map(|&call| (call, Vec::new())).collect();
    compile(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

fn compile_allowed(allowed: &[Rule]) -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for &(call, alternatives) in allowed {
        let alternatives = alternatives.iter().map(|arguments| rule(arguments));
        rules.insert(call, alternatives.collect::<Result<_, _>>()?);
    }
    // abort() and raise(), which signal the process's own threads.
    let own_process = Argument::is(0, std::process::id().cast_signed());
    rules.insert(libc::SYS_tgkill, vec![rule(&[own_process])?]);
    compile(rules, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()), SeccompAction::Allow)
}

fn rule(arguments: &[Argument]) -> Result<SeccompRule, BackendError> {
    let condition = |argument: &Argument| {
        let equal = SeccompCmpOp::MaskedEq(argument.mask);
        SeccompCondition::new(argument.index, SeccompCmpArgLen::Qword, equal, argument.value)
    };
    SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)
}

/// Calls of another architecture's interface, such as 32-bit ones, end the process.
fn compile(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    otherwise: SeccompAction,
    matching: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, otherwise, matching, architecture)?.try_into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A call that stood in two places would be allowed in one way and not in the other.
    pub(crate) fn expect_each_once(allowed: &[Rule]) {
        let mut seen = BTreeSet::new();
        for call in allowed.iter().map(|(call, _)| call).chain(FATAL) {
            assert!(seen.insert(call), "{call} is there twice");
        }
    }
}

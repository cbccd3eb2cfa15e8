//! System calls, by seccomp (seccomp(2)).
//!
//! Two filters, of which the stricter answer counts. The first ends the process for calls that only
//! an attacker makes. The second answers every call that is not in the list with ENOSYS, as a kernel
//! does that does not have it, so that the C library falls back on an older one.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};

use super::system_calls::{ALLOWED, Argument, FATAL};

/// Filters the calls of this thread and those it starts. Tells whether the kernel can.
pub(super) fn enter() -> Result<bool, Error> {
    let (fatal, allowed) = (fatal()?, allowed()?);
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

fn fatal() -> Result<BpfProgram, BackendError> {
    let rules = FATAL.iter().map(|&call| (call, Vec::new())).collect();
    compile(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

fn allowed() -> Result<BpfProgram, BackendError> {
    let mut rules = BTreeMap::new();
    for &(call, alternatives) in ALLOWED {
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

//! The witness: tells a worker which program asks for a file.
//!
//! The kernel says with each request who asks, by numbers. What they stand for is in `/proc`, which a
//! worker cannot see: its sandbox keeps every other process from it. So a process of its own looks, which
//! has no value, no network and no file but those of `/proc`. A worker asks it once for each program that
//! opens files; a [`Token`] says from then on that it is still the same one.
//!
//! It holds nothing that would be lost with it. The holder keeps both ends of the way to it, so that
//! questions survive it, and starts another one.

mod cgroup;
mod kernel;
mod look;
mod message;
mod sandbox;
#[cfg(test)]
pub(crate) mod tests;
mod token;

use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use self::look::{Observer, Seen};
pub(crate) use self::message::{Answer, Identity, Question};
use self::sandbox::SandboxError;
pub(crate) use self::token::Token;
use crate::handover::{Channel, ChannelError};
use crate::host;

/// The kernel may rather kill a witness than a worker, and rather others than either.
const OOM_SCORE: i16 = -400;

/// Why a witness ends.
#[derive(Debug, thiserror::Error)]
enum WitnessError {
    #[error("nobody can ask")]
    Channel(#[from] ChannelError),
    #[error("the way to those who ask cannot be used")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Hardening(#[from] host::HardeningError),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("/proc cannot be opened")]
    Proc(#[source] Errno),
}

/// Runs as a witness, with its end of the way to the workers as standard input, until it is killed or
/// nobody is left who could ask.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(reason = host::error_chain(&error), "nobody looks who opens files");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), WitnessError> {
    host::set_oom_score(OOM_SCORE);
    host::die_with_parent()?;
    host::forbid_dumps()?;
    let channel = io::stdin().as_fd().try_clone_to_owned().map(Channel::over).map_err(WitnessError::Start)?;
    let root = sandbox::leave_files();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = openat(CWD, root, flags, Mode::empty()).map_err(WitnessError::Proc)?;
    let mut observer = Observer::new(proc);
    sandbox::enter()?;
    loop {
        let packet = match channel.receive() {
            Err(ChannelError::Ended) => return Ok(()),
            other => other?,
        };
        // What nobody understands is of a worker of another version, which then waits in vain.
        let Ok(question) = packet.read() else { continue };
        answer(&channel, &mut observer, question);
    }
}

fn answer(channel: &Channel, observer: &mut Observer, Question { id, pid }: Question) {
    let (identity, token) = match observer.look_at(pid) {
        Some(Seen { identity, token }) => (Some(identity), token),
        None => (None, None),
    };
    let descriptors = token.as_ref().map(Token::descriptors);
    let descriptors = descriptors.as_ref().map_or(&[][..], |both| &both[..]);
    // Who asked may have ended, and what it did not take may fill the way.
    if let Err(error) = channel.try_send(&Answer { id, pid, identity }, descriptors) {
        tracing::debug!(%error, pid, "nobody takes the answer");
    }
}

/// A path as text. What is not UTF-8 in it is escaped.
fn text(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        text.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    text
}

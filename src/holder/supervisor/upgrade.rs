//! Another program takes over, by the same path as after a crash.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use super::super::HolderError;
use super::super::control::{Order, Upgraded};
use super::super::worker::{Stage, Worker};
use super::Supervisor;
use crate::handover::{Duty, FORMAT};
use crate::host::error_chain;
use crate::role::THIS_PROGRAM;

/// A program that workers are started from.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    _file: Option<File>,
}

pub(super) struct Candidate {
    pub(super) worker: Worker,
    program: Program,
    pub(super) order: Order,
}

impl Program {
    /// The one that this process is.
    pub(super) fn this() -> Self {
        Self { path: THIS_PROGRAM.into(), _file: None }
    }

    /// Opens a program, so that a process can be started from it whatever happens to its path.
    fn open(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        Ok(Self { path, _file: Some(file) })
    }
}

impl Supervisor {
    /// Does what somebody has asked for.
    pub(super) fn carry_out(&mut self, order: Order) {
        match order.upgrade() {
            None => order.done(&self.status()),
            Some(_) if self.candidate.is_some() => order.refuse("another upgrade is under way"),
            Some(path) => {
                let path = path.to_owned();
                let started = Program::open(&path).map_err(HolderError::Start).and_then(|program| {
                    self.start(&program.path, Duty::Serve).map(|worker| (program, worker))
                });
                match started {
                    Ok((program, worker)) => self.candidate = Some(Candidate { worker, program, order }),
                    Err(error) => order.refuse(&error_chain(&error)),
                }
            }
        }
    }

    /// The first worker of a new program is ready: it takes over as it would after a crash.
    pub(super) fn replace_by_candidate(&mut self, version: String, format: u32) {
        let Some(Candidate { mut worker, program, order }) = self.candidate.take() else { return };
        if format != FORMAT {
            order.refuse(&format!("the new program speaks format {format}, and this one {FORMAT}"));
            return;
        }
        tracing::info!(version, "a new program takes over");
        worker.enter(Stage::Ready { version: version.clone() });
        self.standby = Some(worker);
        self.program = program;
        if let Some(active) = &self.active {
            active.kill();
        }
        order.done(&Upgraded { version });
    }
}

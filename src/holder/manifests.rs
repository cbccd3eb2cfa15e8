//! The manifests that workers got, for those who come after them. Kept by their descriptors: the
//! holder never reads one.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};

use super::worker::Worker;
use crate::handover::{FromHolder, Sequence};

/// The last manifest that the kernel has been told of in full, and all behind it.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    kept: VecDeque<(Sequence, OwnedFd)>,
    announced: Option<Sequence>,
}

impl Manifests {
    /// Those that a former holder kept, of which the kernel has been told up to one.
    pub(super) fn inherited(kept: Vec<(Sequence, OwnedFd)>, announced: Option<Sequence>) -> Self {
        Self { kept: kept.into(), announced }
    }

    /// A worker got a manifest.
    pub(super) fn add(&mut self, sequence: Sequence, memory: OwnedFd) {
        self.kept.push_back((sequence, memory));
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<Sequence> {
        self.kept.back().map(|(sequence, _)| *sequence)
    }

    /// A worker has told the kernel of all up to a manifest; what is older is of no more use.
    pub(super) fn announce(&mut self, sequence: Sequence) {
        if self.announced.is_none_or(|before| before < sequence) {
            self.announced = Some(sequence);
        }
        while self.kept.get(1).is_some_and(|(next, _)| *next <= sequence) {
            self.kept.pop_front();
        }
    }

    /// Tells a worker that has just been started all there is to know.
    pub(super) fn tell(&self, worker: &Worker) {
        for (sequence, memory) in &self.kept {
            worker.say(&FromHolder::Manifest(*sequence), &[memory.as_fd()]);
            if self.announced == Some(*sequence) {
                worker.say(&FromHolder::Announced(*sequence), &[]);
            }
        }
    }

    /// Tells a worker of the last manifest.
    pub(super) fn tell_last(&self, worker: &Worker) {
        if let Some((sequence, memory)) = self.kept.back() {
            worker.say(&FromHolder::Manifest(*sequence), &[memory.as_fd()]);
        }
    }
}

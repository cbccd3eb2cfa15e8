//! A source whose answers a test decides, one by one if need be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use secretfs_wire::{SecretBytes, VersionId};
use tokio::sync::watch;

use crate::source::{SecretSource, SourceError, ValueRequest};

/// Answers with what was put for the asked version; while the gate is shut it does not answer.
pub(crate) struct TestSource {
    answers: Mutex<HashMap<VersionId, Result<Vec<u8>, SourceError>>>,
    asked: watch::Sender<Vec<ValueRequest>>,
    open: watch::Sender<bool>,
}

impl TestSource {
    /// An open gate and no answers.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::default(),
            asked: watch::Sender::new(Vec::new()),
            open: watch::Sender::new(true),
        })
    }

    /// What to answer when this version is asked for.
    pub(crate) fn put(&self, version: VersionId, answer: Result<&[u8], SourceError>) {
        self.answers.lock().unwrap().insert(version, answer.map(<[u8]>::to_vec));
    }

    /// From now on no answer comes, until [`open_gate`](Self::open_gate).
    pub(crate) fn shut_gate(&self) {
        self.open.send_replace(false);
    }

    /// Answers all who wait, and all who come.
    pub(crate) fn open_gate(&self) {
        self.open.send_replace(true);
    }

    /// What has been asked so far.
    pub(crate) fn asked(&self) -> Vec<ValueRequest> {
        self.asked.borrow().clone()
    }

    /// Waits until so many have asked.
    pub(crate) async fn wait_for_asked(&self, count: usize) {
        self.asked.subscribe().wait_for(|asked| asked.len() >= count).await.unwrap();
    }
}

impl SecretSource for TestSource {
    fn fetch(&self, request: ValueRequest) -> BoxFuture<'static, Result<SecretBytes, SourceError>> {
        let version = request.details.version_id;
        let mut open = self.open.subscribe();
        let no_answer = Err(SourceError::Unreachable("the test has no answer".to_owned()));
        let answer = self.answers.lock().unwrap().get(&version).cloned().unwrap_or(no_answer);
        self.asked.send_modify(|asked| asked.push(request));
        async move {
            open.wait_for(|open| *open).await.ok();
            answer.map(|bytes| SecretBytes::new(bytes).unwrap())
        }
        .boxed()
    }
}

//! An auditor that a test looks into, and whose answers it decides.

use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use secretfs_wire::VersionId;
use tokio::sync::watch;

use super::{Attempt, Auditor, Caller, NotAudited, Recorded};

/// Somebody who opens files.
pub(crate) const CALLER: Caller = Caller { uid: 1000, gid: 100, pid: 4711 };

/// What was recorded of an open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) caller: Caller,
    /// `service/target`.
    pub(crate) file: String,
    pub(crate) version: VersionId,
    pub(crate) failure: Option<String>,
}

/// Keeps what it is told, and answers at once or as it is told to.
#[derive(Debug, Default)]
pub(crate) struct TestAuditor {
    seen: Mutex<Vec<Seen>>,
    answers: Option<watch::Receiver<Option<Result<(), NotAudited>>>>,
}

impl TestAuditor {
    /// One that answers at once.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// One that answers each open that does not fail when, and as, it is told to.
    pub(crate) fn answering() -> (Arc<Self>, watch::Sender<Option<Result<(), NotAudited>>>) {
        let (sender, answers) = watch::channel(None);
        (Arc::new(Self { answers: Some(answers), ..Self::default() }), sender)
    }

    /// All that was recorded.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }
}

impl Auditor for TestAuditor {
    fn record(&self, attempt: Attempt<'_>) -> Recorded {
        let Attempt { caller, file, failure, .. } = attempt;
        let fails = failure.is_some();
        self.seen.lock().expect("no panic").push(Seen {
            caller,
            file: format!("{}/{}", file.service, file.target),
            version: file.details.version_id,
            failure,
        });
        match self.answers.clone().filter(|_| !fails) {
            None => Recorded::Written,
            Some(mut answers) => Recorded::Pending(
                async move {
                    let answer = answers.wait_for(Option::is_some).await;
                    answer.ok().and_then(|answer| *answer).unwrap_or(Err(NotAudited::Unacknowledged))
                }
                .boxed(),
            ),
        }
    }
}

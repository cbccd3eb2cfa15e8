//! Own policies that change while the manager runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::own::OwnPolicies;
use super::text::PolicyError;
use super::{Authorizer, Policies};

/// How often the directory is looked at. What is found counts when it was the same twice, so that a file
/// that is being written is not taken for one that has fewer policies.
const INTERVAL: Duration = Duration::from_millis(500);

/// What was found.
type Found = Result<OwnPolicies, PolicyError>;

impl Authorizer {
    /// Looks at a directory again and again, and lets what is there count.
    pub(crate) async fn follow(self: Arc<Self>, directory: PathBuf) {
        let mut last: Option<Found> = None;
        let mut is_taken = false;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let path = directory.clone();
            let Ok(found) = tokio::task::spawn_blocking(move || OwnPolicies::read(&path)).await else {
                // Only while the runtime ends.
                return;
            };
            if last.as_ref() != Some(&found) {
                (last, is_taken) = (Some(found), false);
            } else if !is_taken {
                is_taken = true;
                let authorizer = Arc::clone(&self);
                // To parse and to validate takes a while.
                if tokio::task::spawn_blocking(move || authorizer.take(found)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Lets policies count, all of them or, if one is wrong, none: those from before stay.
    pub(super) fn take(&self, found: Found) {
        let current = self.policies.load();
        let next = found.and_then(|own| {
            if own == current.own {
                return Ok(None);
            }
            Policies::new(self.model, own).map(Some)
        });
        let next = match next {
            Ok(None) if current.problem.is_none() => return,
            Ok(None) => {
                tracing::info!("the policies in the directory are those that count again");
                Policies { problem: None, ..Policies::clone(&current) }
            }
            Ok(Some(next)) => {
                tracing::info!(
                    policies = next.described.len(),
                    "policies were changed, and count from now on"
                );
                next
            }
            Err(error) => {
                tracing::error!(%error, "policies were changed and are refused; those from before still count");
                Policies { problem: Some(error.to_string()), ..Policies::clone(&current) }
            }
        };
        self.policies.store(Arc::new(next));
        self.changes.send_replace(());
    }
}

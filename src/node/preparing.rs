//! When a manifest is shown: at once, or when its templates have been rendered.
//!
//! All files of one change appear together, and `stat` shows the size of a template without waiting for
//! the network. So what a manifest adds or rotates waits until its templates are rendered, for half of
//! what a read may take at most. What takes something away from somebody does not wait: it is shown as it
//! comes, and templates that are not rendered by then have the size 0 until they are, as files in /proc.

use std::sync::Arc;
use std::time::Duration;

use secretfs_wire::manifest::{Manifest, Rejected, Target};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cache::ValueCache;
use crate::handover::Sequence;

/// A manifest that came and is to be shown.
#[derive(Clone)]
pub(super) struct Arrival {
    /// Its place among all.
    pub(super) sequence: Sequence,
    /// What it says.
    pub(super) manifest: Arc<Manifest>,
    /// What had to be left out.
    pub(super) rejected: Arc<[Rejected]>,
}

/// Shows manifests.
pub(super) trait Present {
    /// Makes this manifest the one that is served.
    fn show(&self, arrival: Arrival);
}

/// Shows what arrives, the latest each time, until nothing can arrive any more.
pub(super) async fn present(
    presenter: &impl Present,
    cache: &ValueCache,
    patience: Duration,
    mut arrivals: watch::Receiver<Option<Arrival>>,
) {
    // Until when what has arrived may wait. A later arrival does not wait anew.
    let mut until = None;
    while arrivals.changed().await.is_ok() {
        let Some(arrival) = arrivals.borrow_and_update().clone() else { continue };
        let manifest = arrival.manifest.clone();
        if !takes_away(&cache.granted(), &manifest) {
            let until = *until.get_or_insert_with(|| Instant::now() + patience);
            tokio::select! {
                biased;
                _ = changed(&mut arrivals) => continue,
                () = cache.prepare(&manifest, until - Instant::now()) => {}
            }
        }
        until = None;
        presenter.show(arrival);
        // What could not be rendered by now is, unless there is something newer to be done.
        tokio::select! {
            biased;
            _ = changed(&mut arrivals) => {}
            () = cache.prepare(&manifest, patience) => {}
        }
    }
}

/// Ends when something newer has arrived, and leaves it unseen.
async fn changed(arrivals: &mut watch::Receiver<Option<Arrival>>) {
    if arrivals.changed().await.is_ok() {
        arrivals.mark_changed();
    }
}

/// Whether somebody can read something under the old manifest that he must not under the new one. An
/// older version of the same secret is not meant: who may read the next one may have read it.
fn takes_away(old: &Manifest, new: &Manifest) -> bool {
    let secret = |target: &Target| target.attached().map(|attached| attached.secret.clone());
    old.services.iter().any(|(service, targets)| {
        targets.iter().any(|(target, old)| {
            let new = new.target(service, target);
            new.is_none_or(|new| new.ownership != old.ownership || secret(new) != secret(old))
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use secretfs_wire::Ownership;
    use secretfs_wire::manifest::Content;
    use tokio::runtime::Handle;

    use super::*;
    use crate::fs::test_manifest::{manifest, target, template};
    use crate::fs::test_memory::arena;
    use crate::fs::test_source::TestSource;
    use crate::source::ValueRequest;

    const NEVER: Duration = Duration::from_secs(600);

    struct Shows(Arc<ValueCache>, Mutex<Vec<u64>>);

    impl Present for Shows {
        fn show(&self, arrival: Arrival) {
            self.0.retain(&arrival.manifest);
            self.1.lock().expect("the list").push(arrival.sequence.0);
        }
    }

    struct Rig {
        source: Arc<TestSource>,
        cache: Arc<ValueCache>,
        shows: Arc<Shows>,
        arrivals: watch::Sender<Option<Arrival>>,
    }

    impl Rig {
        fn new(patience: Duration) -> Self {
            let source = TestSource::new();
            let cache = ValueCache::new(source.clone(), 1 << 20, arena(1 << 20), Handle::current());
            let shows = Arc::new(Shows(cache.clone(), Mutex::default()));
            let arrivals = watch::Sender::new(None);
            let (presenter, subscription) = (shows.clone(), arrivals.subscribe());
            let used = cache.clone();
            tokio::spawn(async move { present(presenter.as_ref(), &used, patience, subscription).await });
            Self { source, cache, shows, arrivals }
        }

        /// `key` with this version, and `conf` that is made from it.
        fn with_template(&self, version: u64, uid: u32) -> Arc<Manifest> {
            let mut key = target(version, 5);
            key.ownership = Ownership { uid, ..Ownership::default() };
            self.source.put(key.version_id, Ok(b"value"));
            let conf = template("k={{ secrets.key }}", [("key", key.clone())]);
            Arc::new(manifest([("web", "key", key), ("web", "conf", conf)]))
        }

        fn arrive(&self, sequence: u64, manifest: &Arc<Manifest>) {
            let (sequence, manifest) = (Sequence(sequence), manifest.clone());
            self.arrivals.send_replace(Some(Arrival { sequence, manifest, rejected: Arc::new([]) }));
        }

        fn shown(&self) -> Vec<u64> {
            self.shows.1.lock().expect("the list").clone()
        }

        async fn wait_for_shown(&self, all: &[u64]) {
            let wait = async {
                while self.shown() != all {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            let waited = tokio::time::timeout(Duration::from_secs(10), wait).await;
            waited.unwrap_or_else(|_| panic!("shown are {:?}", self.shown()));
        }

        /// What would happen by now if nobody waited has happened.
        async fn settle(&self, asked: usize) {
            self.source.wait_for_asked(asked).await;
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn conf(manifest: &Manifest) -> ValueRequest {
        let (service, target) = ("web".parse().expect("a name"), "conf".parse().expect("a name"));
        let details = manifest.target(&service, &target).expect("the template").clone();
        assert!(matches!(details.content, Content::Template(_)));
        ValueRequest { service, target, details }
    }

    #[tokio::test]
    async fn what_is_added_or_rotated_appears_when_its_templates_are_rendered() {
        let rig = Rig::new(NEVER);
        for version in [1, 2] {
            rig.source.shut_gate();
            let manifest = rig.with_template(version, 0);
            rig.arrive(version, &manifest);
            rig.settle(version as usize).await;
            assert_eq!(rig.shown().len(), version as usize - 1, "its value has not come");
            rig.source.open_gate();
            rig.wait_for_shown(&[1, 2][..version as usize]).await;
            assert_eq!(rig.cache.size(&conf(&manifest)), Some(7));
            assert!(rig.cache.get_ready(&conf(&manifest)).is_some(), "and its value is there");
        }
        assert_eq!(rig.source.asked().len(), 2);
    }

    #[tokio::test]
    async fn what_takes_something_away_does_not_wait() {
        let rig = Rig::new(NEVER);
        rig.arrive(1, &rig.with_template(1, 0));
        rig.wait_for_shown(&[1]).await;
        rig.source.shut_gate();
        // Of another owner, and rotated at once.
        let chowned = rig.with_template(2, 5);
        rig.arrive(2, &chowned);
        rig.wait_for_shown(&[1, 2]).await;
        assert_eq!(rig.cache.size(&conf(&chowned)), None);
        // This one waits, until the next one takes something away.
        rig.arrive(3, &rig.with_template(3, 5));
        rig.settle(3).await;
        assert_eq!(rig.shown(), [1, 2]);
        rig.arrive(4, &Arc::default());
        rig.wait_for_shown(&[1, 2, 4]).await;
        rig.source.open_gate();
        rig.arrive(5, &chowned);
        rig.wait_for_shown(&[1, 2, 4, 5]).await;
    }

    #[tokio::test]
    async fn templates_that_came_too_late_are_rendered_all_the_same() {
        let rig = Rig::new(NEVER);
        rig.arrive(1, &rig.with_template(1, 0));
        rig.wait_for_shown(&[1]).await;
        rig.source.shut_gate();
        let chowned = rig.with_template(2, 5);
        rig.arrive(2, &chowned);
        rig.wait_for_shown(&[1, 2]).await;
        rig.source.open_gate();
        let rendered = async {
            while rig.cache.size(&conf(&chowned)).is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), rendered).await.expect("rendered");
    }

    #[tokio::test]
    async fn nothing_waits_longer_than_the_patience_however_much_arrives() {
        let rig = Rig::new(Duration::from_millis(300));
        rig.source.shut_gate();
        for sequence in 1..=100 {
            rig.arrive(sequence, &rig.with_template(sequence, 0));
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let [shown] = rig.shown().as_slice() {
                return assert!(*shown > 1, "the latest, and not what came first");
            }
        }
        panic!("each arrival made all of them wait anew");
    }

    #[tokio::test]
    async fn a_template_that_cannot_be_rendered_delays_nothing() {
        let rig = Rig::new(NEVER);
        let manifest = rig.with_template(1, 0);
        rig.source.put(target(1, 5).version_id, Ok(b"\xff\xff\xff\xff\xff"));
        rig.arrive(1, &manifest);
        rig.wait_for_shown(&[1]).await;
        assert_eq!(rig.cache.size(&conf(&manifest)), None);
    }
}

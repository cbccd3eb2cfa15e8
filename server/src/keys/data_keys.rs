//! Data keys that a backend outside this process has unwrapped, kept for a short time, so that
//! such a backend is asked once for each and not once for each read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{self, SHA256};
use tokio::sync::OnceCell;

use super::{Context, Key, KeyError, WrappedKey};

/// How many are kept at most: some 2 MiB.
const MAX_DATA_KEYS: usize = 20_000;

/// What a data key is found by: all that its backend would be asked. So a row that was moved or
/// changed in the store is never answered from here.
type Question = [u8; digest::SHA256_OUTPUT_LEN];

/// The data keys in use.
pub(super) struct DataKeys {
    lifetime: Duration,
    /// Never held across an await.
    known: Mutex<HashMap<Question, Known>>,
}

struct Known {
    key: Arc<OnceCell<Arc<Key>>>,
    ends: Instant,
}

impl DataKeys {
    /// Keeps each for `lifetime`; none at all when that is zero.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, known: Mutex::default() }
    }

    /// The data key, unwrapped by `ask` unless it is known. Of several that want it at once one
    /// asks; when that fails, the next one does.
    pub(super) async fn get(
        &self,
        context: &Context,
        wrapped: &WrappedKey,
        ask: impl Future<Output = Result<Key, KeyError>>,
    ) -> Result<Arc<Key>, KeyError> {
        if self.lifetime.is_zero() {
            return ask.await.map(Arc::new);
        }
        let key = self.cell(question(context, wrapped), Instant::now());
        key.get_or_try_init(|| async { ask.await.map(Arc::new) }).await.cloned()
    }

    /// Drops, and so wipes, all that were kept for their time.
    pub(super) fn sweep(&self, now: Instant) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, known| known.ends > now);
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    fn cell(&self, question: Question, now: Instant) -> Arc<OnceCell<Arc<Key>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(&question).filter(|known| known.ends > now) {
            return Arc::clone(&known.key);
        }
        if known.len() >= MAX_DATA_KEYS {
            known.retain(|_, known| known.ends > now);
            // Those that are kept have equal rights; which of them makes room is of no importance.
            if known.len() >= MAX_DATA_KEYS
                && let Some(any) = known.keys().next().copied()
            {
                known.remove(&any);
            }
        }
        let key = Arc::new(OnceCell::new());
        known.insert(question, Known { key: Arc::clone(&key), ends: now + self.lifetime });
        key
    }
}

fn question(context: &Context, wrapped: &WrappedKey) -> Question {
    let key = wrapped.key.to_string();
    let fields = Context::new([
        key.as_bytes(),
        &wrapped.wrapped.version.to_be_bytes(),
        wrapped.wrapped.bytes.as_slice(),
        context.as_bytes(),
    ]);
    let mut question = Question::default();
    question.copy_from_slice(digest::digest(&SHA256, fields.as_bytes()).as_ref());
    question
}

#[cfg(test)]
mod tests {
    use super::super::Wrapped;
    use super::*;
    use secretfs_wire::{KeyBackendKind, KeyReference};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn wrapped(byte: u8) -> WrappedKey {
        let key = KeyReference { backend: KeyBackendKind::Vault, name: "prod".parse().expect("name") };
        WrappedKey { key, wrapped: Wrapped { version: 1, bytes: vec![byte] } }
    }

    #[tokio::test]
    async fn a_backend_is_asked_once_for_each_question_and_time() {
        let (cache, asked) = (DataKeys::new(Duration::from_secs(60)), AtomicUsize::new(0));
        let (here, there) = (Context::new([&b"here"[..]]), Context::new([&b"there"[..]]));
        let ask = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Key::generate()
        };
        let read =
            async |context: &Context, byte| cache.get(context, &wrapped(byte), ask()).await.expect("a key");
        let first = read(&here, 1).await;
        assert_eq!(read(&here, 1).await.expose_secret(), first.expose_secret());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        read(&there, 1).await;
        read(&here, 2).await;
        assert_eq!(asked.load(Ordering::Relaxed), 3, "another place or row is another question");

        cache.sweep(Instant::now() + Duration::from_secs(61));
        assert!(cache.known.lock().expect("unpoisoned").is_empty());
        read(&here, 1).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let (cache, context) = (DataKeys::new(Duration::from_secs(60)), Context::new([&b"here"[..]]));
        let failed = cache.get(&context, &wrapped(1), async { Err(KeyError::Crypto) }).await;
        assert!(matches!(failed, Err(KeyError::Crypto)));
        cache.get(&context, &wrapped(1), async { Key::generate() }).await.expect("asked again");
    }

    #[tokio::test]
    async fn without_a_lifetime_nothing_is_kept() {
        let (cache, context) = (DataKeys::new(Duration::ZERO), Context::new([&b"here"[..]]));
        cache.get(&context, &wrapped(1), async { Key::generate() }).await.expect("a key");
        assert!(cache.known.lock().expect("unpoisoned").is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let (cache, now) = (DataKeys::new(Duration::from_secs(60)), Instant::now());
        for number in 0..=MAX_DATA_KEYS {
            let mut question = Question::default();
            question[..8].copy_from_slice(&number.to_be_bytes());
            cache.cell(question, now);
        }
        assert_eq!(cache.known.lock().expect("unpoisoned").len(), MAX_DATA_KEYS);
    }
}

//! Who the processes are that open files: asked once, and then known for as long as they are the same.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use lru::LruCache;
use secretfs_wire::audit::Unseen;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::record::ProcessWords;
use crate::handover::{Channel, ChannelError};
use crate::witness::{Answer, Identity, Question, Token};

/// How many processes are known at most. Each has two descriptors, and a process has 1,024 by default.
const MOST: NonZeroUsize = NonZeroUsize::new(200).expect("it is not zero");
/// What is older is asked anew: a process may be moved to another control group.
const OLD: SignedDuration = SignedDuration::from_secs(60);
/// How long an open waits for the witness that does not have to be on record. It answers within a tenth of
/// a millisecond, so one that does not has been killed, and another one is about to be started; or others
/// ask more than it can answer.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// How soon a question is sent for which there was no room on the way.
const AGAIN: Duration = Duration::from_millis(5);

/// Who a process is, or why nobody can say.
pub(super) type Who = Result<Arc<ProcessWords>, Unseen>;

/// The processes that open files.
#[derive(Clone)]
pub(super) struct Processes(Arc<Inner>);

struct Inner {
    /// The way to the witness, if there is one.
    witness: Option<Channel>,
    // std mutexes: held for a look, and the first for two reads of `/proc` that never wait.
    known: Mutex<LruCache<u32, Known>>,
    asked: Mutex<HashMap<u64, oneshot::Sender<Who>>>,
    next: AtomicU64,
}

struct Known {
    words: Arc<ProcessWords>,
    token: Token,
    since: Timestamp,
}

impl Processes {
    /// Knows nobody yet. Without a witness it never will.
    pub(super) fn new(witness: Option<Channel>) -> Self {
        // An answer to a former worker is none to this one.
        let next = AtomicU64::new(u64::from(std::process::id()) << 32);
        let known = Mutex::new(LruCache::new(MOST));
        Self(Arc::new(Inner { witness, known, asked: Mutex::default(), next }))
    }

    /// Takes the answers from now on, on a thread of its own. One worker at a time does.
    pub(super) fn begin(&self) -> std::io::Result<()> {
        let inner = self.0.clone();
        if inner.witness.is_some() {
            std::thread::Builder::new().name("witness".to_owned()).spawn(move || inner.listen())?;
        }
        Ok(())
    }

    /// Who a thread is, if nobody has to be asked: that is known and it is still the same one, or nobody
    /// could say.
    pub(super) fn known(&self, pid: u32, now: Timestamp) -> Option<Who> {
        if self.0.witness.is_none() {
            return Some(Err(Unseen::NoWitness));
        }
        if pid == 0 {
            return Some(Err(Unseen::NotVisible));
        }
        let mut all = lock(&self.0.known);
        let known = all.get(&pid)?;
        if known.token.holds() && now.duration_since(known.since).abs() < OLD {
            return Some(Ok(known.words.clone()));
        }
        let old = all.pop(&pid);
        drop(all);
        drop(old);
        None
    }

    /// Asks who a thread is, for as long as `limit`.
    pub(super) async fn ask(&self, pid: u32, limit: Duration) -> Who {
        let Some(witness) = &self.0.witness else { return Err(Unseen::NoWitness) };
        let id = self.0.next.fetch_add(1, Relaxed);
        let (answer, answered) = oneshot::channel();
        lock(&self.0.asked).insert(id, answer);
        let told = timeout(limit, insist(witness, Question { id, pid }, answered)).await;
        lock(&self.0.asked).remove(&id);
        told.unwrap_or(Err(Unseen::TooLate))
    }
}

/// Asks until there is an answer: a witness that is killed takes the question along that it has just read.
async fn insist(witness: &Channel, question: Question, mut answered: oneshot::Receiver<Who>) -> Who {
    loop {
        match witness.try_send(&question, &[]) {
            Ok(()) => {}
            Err(ChannelError::WouldBlock) => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => tracing::debug!(%error, "the witness cannot be asked"),
        }
        if let Ok(answer) = timeout(PATIENCE, &mut answered).await {
            return answer.unwrap_or(Err(Unseen::TooLate));
        }
    }
}

impl Inner {
    fn listen(&self) {
        let Some(witness) = &self.witness else { return };
        loop {
            let mut packet = match witness.receive() {
                Ok(packet) => packet,
                Err(ChannelError::Ended) => return,
                Err(error) => {
                    tracing::warn!(%error, "an answer of the witness is lost");
                    continue;
                }
            };
            let Ok(Answer { id, pid, identity }) = packet.read() else { continue };
            let who = identity.map(|identity| Arc::new(words(&identity))).ok_or(Unseen::NotVisible);
            if let (Ok(words), Some(memory), Some(thread)) =
                (&who, packet.descriptors.next(), packet.descriptors.next())
            {
                let (words, token) = (words.clone(), Token::new([memory, thread]));
                let known = Known { words, token, since: Timestamp::now() };
                // What it is in place of, or had to go for it, is closed when the lock is free.
                let before = lock(&self.known).push(pid, known);
                drop(before);
            }
            if let Some(asked) = lock(&self.asked).remove(&id) {
                // Whoever asked may have waited long enough.
                let _ = asked.send(who);
            }
        }
    }
}

fn words(identity: &Identity) -> ProcessWords {
    let Identity { pid, started, executable, cgroup, container } = identity;
    let texts = [executable, cgroup, container].map(|text| text.as_deref().unwrap_or_default());
    ProcessWords::new(*pid, *started, texts)
}

/// Nothing is left half done by a panic, and a panic ends the process anyway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

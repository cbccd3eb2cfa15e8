use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fault::unavailable;
use crate::keys::KeyError;

/// How many threads may be in the module at once, and hang there. As many sessions are open at most,
/// and the one that keeps the login.
pub(super) const THREADS: u32 = 8;

/// How long a module is left alone after it was initialized.
const INITIALIZATION_INTERVAL: Duration = Duration::from_secs(2);

/// How long everybody waits until nobody is in the module, so that it can be initialized again.
const QUIET_DEADLINE: Duration = Duration::from_millis(500);

/// The modules of this process: PKCS #11 has one state for each of them, however often it is loaded.
static MODULES: Mutex<BTreeMap<PathBuf, Arc<Module>>> = Mutex::new(BTreeMap::new());

/// A PKCS #11 library. It is C that blocks, for as long as the HSM takes: it is entered on threads for
/// blocking work, no more than [`THREADS`] of them.
pub(super) struct Module {
    context: Pkcs11,
    threads: Arc<Semaphore>,
    initialization: Mutex<Initialization>,
}

#[derive(Default)]
struct Initialization {
    done: bool,
    last_attempt: Option<Instant>,
}

impl Module {
    /// Loads it, which reaches no HSM yet.
    pub(super) fn load(path: &Path) -> Result<Arc<Self>, Error> {
        let mut modules = MODULES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(path) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(Self {
            context: Pkcs11::new(path)?,
            threads: Arc::new(Semaphore::new(THREADS as usize)),
            initialization: Mutex::default(),
        });
        modules.insert(path.to_owned(), Arc::clone(&module));
        Ok(module)
    }

    /// Does this on a thread that may be in the module. When the caller no longer waits, the thread
    /// counts until it has come back.
    pub(super) async fn enter<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, KeyError> {
        let permit = Arc::clone(&self.threads).acquire_owned().await.map_err(not_done)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(not_done)
    }

    /// The library, initialized. Only for threads that have [entered](Self::enter).
    pub(super) fn context(&self) -> Result<&Pkcs11, Error> {
        let mut initialization = self.initialization.lock().unwrap_or_else(PoisonError::into_inner);
        if !initialization.done {
            initialization.attempt(&self.context)?;
        }
        Ok(&self.context)
    }

    /// Initializes it anew, all sessions being lost, and says whether it did. Not twice in a short
    /// time, and not while another thread is in the module: that would be undefined behaviour.
    pub(super) async fn initialize_again(self: &Arc<Self>) -> bool {
        if !self.is_due() {
            return false;
        }
        let everybody = Arc::clone(&self.threads).acquire_many_owned(THREADS);
        let Ok(Ok(permit)) = timeout(QUIET_DEADLINE, everybody).await else { return false };
        // Another one may have been faster.
        if !self.is_due() {
            return true;
        }
        let module = Arc::clone(self);
        let work = move || {
            let _permit = permit;
            let mut initialization = module.initialization.lock().unwrap_or_else(PoisonError::into_inner);
            initialization.done = false;
            // Whatever it says, it is about to be initialized.
            let _ = module.context.clone().finalize();
            initialization.attempt(&module.context).is_ok()
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(false)
    }

    fn is_due(&self) -> bool {
        // Whoever holds it is initializing.
        self.initialization.try_lock().is_ok_and(|initialization| {
            initialization.last_attempt.is_none_or(|last| last.elapsed() >= INITIALIZATION_INTERVAL)
        })
    }
}

impl Initialization {
    fn attempt(&mut self, context: &Pkcs11) -> Result<(), Error> {
        self.last_attempt = Some(Instant::now());
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                self.done = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn not_done(error: impl fmt::Display) -> KeyError {
    unavailable(error.to_string())
}

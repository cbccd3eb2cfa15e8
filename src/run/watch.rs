//! A thread that waits for changes of a directory, through the mount alone: it needs no socket, no
//! privilege and no network, so it works in a container as it does on the host.
//!
//! Three things wake it: poll(2) of the files that it may open, which the file system answers with PRI
//! and ERR once a file has another version or is gone; inotify, for names; and a slow timer, for what
//! neither tells. What woke it does not matter: it looks, and only a difference counts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::sync::watch;

use super::RunError;
use super::debounce::Debounce;
use super::directory::{Place, Snapshot, is_same_file};
use super::names::NameWatch;

/// How often the directory is listed anew, although nothing has told of a change.
const RELIST: Duration = Duration::from_secs(30);
/// What is away or cannot be opened is tried again after waits that grow from this to
/// [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// After this long no more files are opened in one look.
const OPENING: Duration = Duration::from_secs(1);
/// Between two looks, so that nothing that wakes without end takes the processor.
const BREATH: Duration = Duration::from_millis(20);

/// The names of the files of the last change. More changes than one become one for who is busy.
pub(super) type Changes = watch::Receiver<Vec<String>>;

/// Follows a directory from now on.
pub(super) fn start(directory: PathBuf, debounce: Duration) -> Result<Changes, RunError> {
    let failed = |source| RunError::Directory { path: directory.clone(), source };
    let place = Place::open(&directory).map_err(failed)?;
    if !place.present {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    let names = place.names().map_err(failed)?;
    let snapshot = place.snapshot(&names).map_err(failed)?;
    let watcher = Watcher {
        fuse: place.fuse,
        believed: place,
        directory,
        names: NameWatch::new(),
        files: BTreeMap::new(),
        debounce: Debounce::new(debounce, snapshot),
        wait: FIRST_WAIT,
        retry: Instant::now(),
    };
    let (sender, changes) = watch::channel(Vec::new());
    thread::Builder::new()
        .name("secretfs-watch".to_owned())
        .spawn(move || watcher.run(&sender))
        .map_err(RunError::System)?;
    Ok(changes)
}

struct Watcher {
    directory: PathBuf,
    /// Whether it is one of a node's, and no plain directory.
    fuse: bool,
    /// What was believed last. Held open, or another mount might get the same device number.
    believed: Place,
    names: NameWatch,
    files: BTreeMap<OsString, Watched>,
    debounce: Debounce,
    /// How long what fails next is left alone.
    wait: Duration,
    /// When what failed is tried again.
    retry: Instant,
}

/// What is known of a file by opening it.
enum Watched {
    /// It is polled.
    Open(OwnedFd),
    /// Its mode does not let us: its name and attributes are all that is looked at.
    Denied,
    /// It cannot be opened now.
    Failed,
}

/// Whether whoever may read a file can.
fn is_readable(files: &BTreeMap<OsString, Watched>, name: &OsStr) -> bool {
    matches!(files.get(name), Some(Watched::Open(_) | Watched::Denied))
}

impl Watcher {
    fn run(mut self, changes: &watch::Sender<Vec<String>>) {
        loop {
            let again = match self.look() {
                Ok(true) => RELIST,
                Ok(false) => self.next_wait(),
                Err(reason) => {
                    tracing::debug!(directory = %self.directory.display(), %reason, "away");
                    // Dead or doubtful. Held on to, they would count as readers of an old version.
                    self.files.clear();
                    self.next_wait()
                }
            };
            let now = Instant::now();
            if let Some(names) = self.debounce.take(now)
                && changes.send(names).is_err()
            {
                return;
            }
            let due = self.debounce.due().map(|due| due.saturating_duration_since(now));
            self.sleep(due.unwrap_or(again).min(again));
        }
    }

    fn next_wait(&mut self) -> Duration {
        let now = Instant::now();
        if let Some(left) = self.retry.checked_duration_since(now).filter(|left| !left.is_zero()) {
            return left;
        }
        let wait = self.wait;
        self.retry = now + wait;
        self.wait = (wait * 2).min(LONGEST_WAIT);
        wait
    }

    /// Sees what is there. Tells whether there is nothing to try again soon, or why nothing can be said
    /// of the directory now.
    fn look(&mut self) -> io::Result<bool> {
        let place = Place::open(&self.directory)?;
        self.names.watch(place.path());
        let names = place.names()?;
        self.open_all(&place, &names);
        // After the files were opened: what changes from here on wakes whoever polls them.
        let snapshot = place.snapshot(&names)?;
        self.check(&place, &snapshot)?;
        let complete = place.present && names.iter().all(|name| is_readable(&self.files, name));
        self.believed = place;
        let files = &self.files;
        self.debounce.see(snapshot, Instant::now(), |name| is_readable(files, name));
        if complete {
            self.wait = FIRST_WAIT;
        }
        Ok(complete)
    }

    /// Refuses to believe a directory that is empty because the node is not there, or not yet.
    fn check(&self, place: &Place, snapshot: &Snapshot) -> io::Result<()> {
        if self.fuse && !place.fuse {
            return Err(io::Error::other("it is not mounted"));
        }
        let another = place.device != self.believed.device;
        if another && snapshot != self.debounce.seen() && place.stale {
            return Err(io::Error::other("it is mounted anew, and the node has not heard from its manager"));
        }
        Ok(())
    }

    /// Opens what is not open. What failed is tried again after a wait, and last: a file that takes the
    /// node's whole deadline to fail must not keep the others from being followed.
    fn open_all(&mut self, place: &Place, names: &[OsString]) {
        self.files.retain(|name, _| names.contains(name));
        let begin = Instant::now();
        let is_open = |name: &OsString| match self.files.get(name) {
            Some(Watched::Open(file)) => is_same_file(place, name, file),
            Some(Watched::Failed) => begin < self.retry,
            Some(Watched::Denied) | None => false,
        };
        let mut closed: Vec<_> = names.iter().filter(|name| !is_open(name)).collect();
        closed.sort_by_key(|name| matches!(self.files.get(*name), Some(Watched::Failed)));
        for name in closed {
            if begin.elapsed() > OPENING {
                break;
            }
            let watched = match place.open_file(name) {
                Ok(file) => Watched::Open(file),
                Err(Errno::ACCESS | Errno::PERM) => Watched::Denied,
                Err(error) => {
                    tracing::debug!(file = ?name, %error, "cannot be opened yet");
                    Watched::Failed
                }
            };
            self.files.insert(name.clone(), watched);
        }
    }

    /// Sleeps until something wakes us, and lets go of what has changed: an open file counts as a
    /// reader of the version that it was opened on.
    fn sleep(&mut self, wait: Duration) {
        thread::sleep(BREATH.min(wait));
        let open = || {
            self.files.iter().filter_map(|(name, watched)| match watched {
                Watched::Open(file) => Some((name, file)),
                Watched::Denied | Watched::Failed => None,
            })
        };
        let mut waited_for: Vec<_> =
            open().map(|(_, file)| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::PRI)).collect();
        let files = waited_for.len();
        waited_for.extend(self.names.poll());
        let timeout = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        if let Err(error) = poll(&mut waited_for, Some(&timeout)) {
            // A signal. Anything else is memory that ran out, for which the breath is a pause.
            tracing::debug!(%error, "poll");
            return;
        }
        let changed: Vec<OsString> = open()
            .zip(&waited_for[..files])
            .filter(|(_, polled)| !polled.revents().is_empty())
            .map(|((name, _), _)| name.clone())
            .collect();
        drop(waited_for);
        self.names.drain();
        for name in changed {
            self.files.remove(&name);
        }
    }
}

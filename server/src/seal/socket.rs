//! Where a sealed manager hears of keys: a Unix socket in its data directory, which only its user, and
//! root, may use. A connection is one line, up to the end of what is sent, and one line of JSON back.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::progress::UnlockProgress;
use super::unlocking::Unlocking;
use crate::config::Config;
use crate::data_dir;
use crate::keys::RootKey;

/// Far more than a key, a share or an answer has.
const MOST_BYTES: usize = 512;
/// Both ends have what they send before they connect.
const DEADLINE: Duration = Duration::from_secs(5);
/// For the manager to open its store and begin to serve.
const UNTIL_IT_SERVES: Duration = Duration::from_secs(120);
const OWNER_ONLY: u32 = 0o600;
const ROOT: u32 = 0;
/// While nothing can be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// A manager that has its lock and no socket may be about to make it.
const STARTING: Duration = Duration::from_secs(1);

/// The manager's end. The socket is removed when this is dropped.
pub(crate) struct UnlockSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// An answer that waits until the manager serves.
pub(crate) struct Confirmation {
    stream: UnixStream,
    progress: UnlockProgress,
}

impl UnlockSocket {
    /// Listens at `path`, in place of the socket of a manager that was killed: the caller holds the
    /// directory's lock.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(OWNER_ONLY))?;
        let owner = fs::metadata(path)?.uid();
        Ok(Self { listener, path: path.to_owned(), owner })
    }

    /// Hears keys and shares until they open the seal.
    pub(crate) async fn hear(&self, unlocking: &mut Unlocking) -> (RootKey, Confirmation) {
        loop {
            let mut stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot accept unlock keys");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            if !stream.peer_cred().is_ok_and(|peer| [self.owner, ROOT].contains(&peer.uid())) {
                tracing::warn!("another user wanted to unlock, and is refused");
                continue;
            }
            let Ok(Ok(line)) = timeout(DEADLINE, receive(&mut stream)).await else { continue };
            let given = unlocking.progress().shares_given;
            match unlocking.give(&line, Instant::now()) {
                Ok(root) => {
                    let progress = UnlockProgress { is_unlocked: true, ..unlocking.progress() };
                    return (root, Confirmation { stream, progress });
                }
                Err(progress) => {
                    if let Some(refusal) = progress.refusal {
                        tracing::warn!(reason = %refusal, "an unlock key was refused");
                    } else if progress.shares_given > given {
                        let UnlockProgress { shares_given, threshold, .. } = progress;
                        tracing::info!(shares_given, threshold, "a share of the unlock key was given");
                    }
                    answer(&mut stream, &progress).await;
                }
            }
        }
    }
}

impl Drop for UnlockSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Confirmation {
    /// Tells who gave the last key that the manager serves.
    pub(crate) async fn send(mut self) {
        answer(&mut self.stream, &self.progress).await;
    }
}

/// What the peer sends to its end, in a buffer that is wiped.
async fn receive(stream: &mut UnixStream) -> io::Result<Zeroizing<String>> {
    // With room to spare: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * MOST_BYTES));
    stream.take(MOST_BYTES as u64).read_to_end(&mut bytes).await?;
    let text = std::str::from_utf8(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Zeroizing::new(text.to_owned()))
}

async fn answer(stream: &mut UnixStream, progress: &UnlockProgress) {
    let Ok(mut text) = serde_json::to_vec(progress) else { return };
    text.push(b'\n');
    // Who does not wait for the answer can ask again.
    let _ = timeout(DEADLINE, stream.write_all(&text)).await;
}

/// The operator's end.
#[derive(Debug)]
pub struct UnlockClient {
    data_dir: PathBuf,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum UnlockClientError {
    /// There is nobody to unlock.
    #[error("no manager runs on {}", .0.display())]
    NotRunning(PathBuf),
    /// A manager runs, and wants no key.
    #[error("the manager on {} is not sealed", .0.display())]
    NotSealed(PathBuf),
    /// The socket cannot be used.
    #[error("cannot speak to the manager")]
    Socket(#[source] io::Error),
    /// The manager had the key and did not come to serve.
    #[error("the manager has ended, or does not serve; see its log")]
    NoAnswer,
}

impl UnlockClient {
    /// For the manager of this configuration, on this host.
    pub fn new(config: &Config) -> Self {
        Self { data_dir: config.data_dir.clone() }
    }

    /// Gives an unlock key or a share, and waits until the manager serves if it was the last one. An
    /// empty line asks how far it is.
    ///
    /// # Errors
    /// When nobody is there to take it, or it is not answered.
    pub async fn give(&self, line: &str) -> Result<UnlockProgress, UnlockClientError> {
        let mut stream = self.connect().await?;
        let exchange = async {
            // What is longer than any key is none, also when it is cut.
            let line = line.trim().as_bytes();
            stream.write_all(&line[..line.len().min(MOST_BYTES)]).await?;
            stream.shutdown().await?;
            let mut answer = Vec::new();
            (&mut stream).take(MOST_BYTES as u64).read_to_end(&mut answer).await?;
            Ok(answer)
        };
        let answer = timeout(UNTIL_IT_SERVES, exchange).await.map_err(|_| UnlockClientError::NoAnswer)?;
        let answer = answer.map_err(UnlockClientError::Socket)?;
        serde_json::from_slice(&answer).map_err(|_| UnlockClientError::NoAnswer)
    }

    async fn connect(&self) -> Result<UnixStream, UnlockClientError> {
        let began = Instant::now();
        loop {
            let error = match UnixStream::connect(data_dir::unlock_socket(&self.data_dir)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {}
                _ => return Err(UnlockClientError::Socket(error)),
            }
            if !data_dir::is_in_use(&self.data_dir).map_err(UnlockClientError::Socket)? {
                return Err(UnlockClientError::NotRunning(self.data_dir.clone()));
            }
            if began.elapsed() > STARTING {
                return Err(UnlockClientError::NotSealed(self.data_dir.clone()));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

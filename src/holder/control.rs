//! Orders to the holder, over a Unix socket that only its user opens.
//!
//! One line of JSON each way: an order and its answer.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::socket::beside;

/// How long a caller may take to say what it wants, and to take the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long an upgrade may take: a new worker has ten seconds to become ready.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest order.
const MOST_BYTES: u64 = 16 << 10;
/// How many callers may wait.
const WAITING: usize = 16;

/// What the holder can be told.
#[derive(Debug, Serialize, Deserialize)]
enum Wish {
    /// Tell how it does.
    Status,
    /// Start workers from this program from now on.
    Upgrade(PathBuf),
}

/// How a holder does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HolderStatus {
    /// Its version.
    pub(crate) version: String,
    /// Its process id.
    pub(crate) pid: u32,
    /// The process id of the worker that serves.
    pub(crate) active: Option<u32>,
    /// The process id of the worker that is ready to.
    pub(crate) standby: Option<u32>,
    /// The standby's version.
    pub(crate) standby_version: Option<String>,
    /// The process id of the notifier, if it has anything to do.
    #[serde(default)]
    pub(crate) notifier: Option<u32>,
    /// The process id of the witness.
    #[serde(default)]
    pub(crate) witness: Option<u32>,
    /// Whether requests are answered with errors, because no worker lives long enough.
    pub(crate) refusing: bool,
    /// How many workers have been replaced.
    pub(crate) replaced: u64,
    /// How the last one ended.
    pub(crate) last_end: Option<String>,
    /// Whether values in memory, and files open on an old version, survive the worker.
    pub(crate) values_survive: bool,
    /// Whether requests that a worker has begun survive it.
    pub(crate) requests_survive: bool,
}

/// An upgrade that was made.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Upgraded {
    /// The version that serves now.
    pub(crate) version: String,
}

/// Where the holder of the node whose status socket is `node` listens.
pub(crate) fn socket_beside(node: &Path) -> PathBuf {
    beside(node, "holder.sock")
}

/// Asks the holder how it does.
///
/// # Errors
/// When there is none, or it does not answer.
pub(crate) async fn ask(socket: &Path) -> io::Result<HolderStatus> {
    call(socket, &Wish::Status, TIMEOUT).await?.map_err(io::Error::other)
}

/// Makes the holder start its workers from `program`. The inner error is the holder's refusal.
///
/// # Errors
/// When there is none, or it does not answer.
pub(crate) async fn upgrade(socket: &Path, program: &Path) -> io::Result<Result<Upgraded, String>> {
    call(socket, &Wish::Upgrade(program.to_owned()), UPGRADE_TIMEOUT).await
}

async fn call<T: DeserializeOwned>(
    socket: &Path,
    wish: &Wish,
    limit: Duration,
) -> io::Result<Result<T, String>> {
    let answer = timeout(limit, async {
        let mut stream = UnixStream::connect(socket).await?;
        let mut line = serde_json::to_vec(wish)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    let answer = answer.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// Where orders come in.
pub(super) struct Control {
    orders: mpsc::Receiver<Order>,
}

/// An order that waits to be carried out. Dropped, it is refused.
pub(super) struct Order {
    wish: Wish,
    answer: oneshot::Sender<Vec<u8>>,
}

impl Control {
    /// Listens.
    pub(super) fn listen(listener: UnixListener) -> Self {
        let (sender, orders) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        drop(tokio::spawn(timeout(UPGRADE_TIMEOUT, hear(stream, sender.clone()))))
                    }
                    // The system is out of descriptors; the next one may succeed.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        });
        Self { orders }
    }

    /// Waits for an order.
    pub(super) async fn next(&mut self) -> Order {
        match self.orders.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}

async fn hear(stream: UnixStream, orders: mpsc::Sender<Order>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    timeout(TIMEOUT, BufReader::new(read.take(MOST_BYTES)).read_line(&mut line)).await??;
    let refusal = |reason: &str| serde_json::to_vec(&Err::<(), _>(reason)).unwrap_or_default();
    let answer = match serde_json::from_str(&line) {
        Err(_) => refusal("the holder does not know this order; it may be of an older version"),
        Ok(wish) => {
            let (answer, answered) = oneshot::channel();
            orders.send(Order { wish, answer }).await.map_err(io::Error::other)?;
            answered.await.unwrap_or_else(|_| refusal("the holder gave the order up"))
        }
    };
    timeout(TIMEOUT, write.write_all(&answer)).await?
}

impl Order {
    /// The program to start workers from, if that is what is wanted.
    pub(super) fn upgrade(&self) -> Option<&Path> {
        match &self.wish {
            Wish::Status => None,
            Wish::Upgrade(program) => Some(program),
        }
    }

    /// It is carried out.
    pub(super) fn done(self, answer: &impl Serialize) {
        self.send(&Ok::<_, ()>(answer));
    }

    /// It is not.
    pub(super) fn refuse(self, reason: &str) {
        self.send(&Err::<(), _>(reason));
    }

    fn send(self, answer: &impl Serialize) {
        // Nobody may be there to hear it any more.
        let _ = self.answer.send(serde_json::to_vec(answer).unwrap_or_default());
    }
}

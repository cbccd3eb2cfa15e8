//! A proxy in front of an OpenBao that counts what it is asked and, when it is told to, fails in the
//! ways in which a server, its load balancer and the network between fail.
//!
//! It speaks TLS if the server does, with the server's own certificate: a client configures one or
//! the other by the address alone.

mod connection;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime;
use tokio::sync::oneshot;

use self::connection::Upstream;
use super::openbao::OpenBao;

/// What goes wrong with a request.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// 503, which a sealed server answers.
    Sealed,
    /// 429, to be asked again after so many seconds.
    TooManyRequests { retry_after_seconds: u64 },
    /// This status and body, such as 472 or 473 of a standby that does not serve.
    Answer(u16, &'static str),
    /// 307 to another server, which a standby answers that does not forward.
    Redirect(String),
    /// The connection is reset and the server never hears of it.
    Reset,
    /// The server does as it is asked, and the connection is reset in place of its answer.
    LostAnswer,
    /// The connection ends in the middle of the server's answer.
    CutShort,
    /// The server's answer comes so much later.
    Slow(Duration),
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With `/v1` and without the query.
    pub(crate) path: String,
    /// Whether something went wrong with it.
    pub(crate) faulty: bool,
}

/// Listens until it is dropped.
pub(crate) struct FaultyProxy {
    address: SocketAddr,
    scheme: &'static str,
    upstream: Arc<Upstream>,
    script: Arc<Script>,
    serving: Option<Serving>,
}

/// The thread that serves, until this is dropped.
struct Serving {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What has come and what is to go wrong.
#[derive(Default)]
struct Script(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    seen: Vec<Seen>,
    injected: Vec<Injected>,
}

struct Injected {
    fault: Fault,
    /// Only requests whose path contains this.
    path: String,
    /// For so many more requests, or until it is healed.
    times: Option<usize>,
}

impl FaultyProxy {
    /// Starts one on an address of its own, in which nothing goes wrong yet.
    pub(crate) fn before(server: &OpenBao) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let address = listener.local_addr().expect("its address");
        let scheme = if server.tls().is_some() { "https" } else { "http" };
        let upstream = Arc::new(Upstream::of(server));
        let script = Arc::new(Script::default());
        let serving = Some(Serving::start(listener, upstream.clone(), script.clone()));
        Self { address, scheme, upstream, script, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// From now on this goes wrong with every request.
    pub(crate) fn inject(&self, fault: Fault) {
        self.inject_at("", fault);
    }

    /// From now on this goes wrong with every request whose path contains `path`.
    pub(crate) fn inject_at(&self, path: &str, fault: Fault) {
        self.add(fault, path, None);
    }

    /// This goes wrong with the next so many requests.
    pub(crate) fn inject_next(&self, times: usize, fault: Fault) {
        self.inject_next_at("", times, fault);
    }

    /// This goes wrong with the next so many requests whose path contains `path`. What was injected
    /// first comes first.
    pub(crate) fn inject_next_at(&self, path: &str, times: usize, fault: Fault) {
        self.add(fault, path, Some(times));
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.script.lines().injected.clear();
    }

    /// Ends all connections and refuses new ones, as where no server runs.
    pub(crate) fn go_down(&mut self) {
        self.serving = None;
    }

    /// Listens again, where it did before.
    pub(crate) fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the same address");
        self.serving = Some(Serving::start(listener, self.upstream.clone(), self.script.clone()));
    }

    /// Everything that has been asked, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.lines().seen.clone()
    }

    /// How many of the requests have had `path` in their path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.script.lines().seen.iter().filter(|seen| seen.path.contains(path)).count()
    }

    fn add(&self, fault: Fault, path: &str, times: Option<usize>) {
        self.script.lines().injected.push(Injected { fault, path: path.to_owned(), times });
    }
}

impl Serving {
    fn start(listener: TcpListener, upstream: Arc<Upstream>, script: Arc<Script>) -> Self {
        listener.set_nonblocking(true).expect("a listener for the runtime");
        let (stop, stopped) = oneshot::channel();
        let serve = connection::serve(listener, upstream, script);
        // A thread and a runtime of its own: a test that blocks its runtime does not block the proxy.
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It may have failed.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Script {
    /// Takes note of a request; what is to go wrong with it.
    fn next(&self, method: &str, path: &str) -> Option<Fault> {
        let mut lines = self.lines();
        let Lines { seen, injected } = &mut *lines;
        let fault = injected
            .iter_mut()
            .find(|injected| path.contains(&injected.path) && injected.times != Some(0))
            .map(|injected| {
                injected.times = injected.times.map(|times| times - 1);
                injected.fault.clone()
            });
        seen.push(Seen { method: method.to_owned(), path: path.to_owned(), faulty: fault.is_some() });
        fault
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Whole at all times, also if a test panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

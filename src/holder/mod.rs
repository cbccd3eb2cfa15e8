//! The holder: has what must not end, and sees to it that somebody serves.
//!
//! It mounts, keeps the connections to the kernel and the memory in which workers leave what the next
//! one needs, and starts, watches and replaces workers. It never reads a request and never sees a
//! value, so that it is small and has little that could go wrong. What a node daemon is to `systemd`
//! or to the shell is this process.

pub(crate) mod control;
mod estate;
mod inheritance;
mod launch;
mod manifests;
mod mending;
mod notifying;
mod policy;
mod process;
mod pulse;
pub(crate) mod repair;
mod service_manager;
mod socket;
mod supervisor;
mod user;
mod witnessing;
mod worker;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use self::control::Control;
use self::estate::Estate;
pub(crate) use self::launch::Settings;
use self::mending::Mending;
use self::socket::Socket;
use self::supervisor::Supervisor;
use self::user::NoSuchUser;
use crate::fuse::MountError;
use crate::handover::{User, document};
use crate::host;
use crate::node::{Config, StateError};

/// Why there is no holder, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HolderError {
    /// It was started by hand.
    #[error("the holder is started by `secretfs node run`")]
    Settings(#[source] io::Error),
    /// A socket is another daemon's, or cannot be made.
    #[error("cannot listen at {path}: another node daemon may be running")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process cannot be protected.
    #[error(transparent)]
    Hardening(#[from] host::HardeningError),
    /// Workers have nobody to be.
    #[error(transparent)]
    User(#[from] NoSuchUser),
    /// The node's files cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// More mounts than can be handed to a worker at once.
    #[error("one daemon has at most {0} mounts")]
    TooManyMounts(usize),
    /// The memory for what outlives a worker cannot be had.
    #[error("the memory that outlives a worker cannot be made")]
    Memory(#[source] io::Error),
    /// No process can be started from a program.
    #[error("the program cannot be started; workers must be able to execute it")]
    Start(#[source] io::Error),
    /// The first worker cannot serve.
    #[error("{0}")]
    Worker(String),
    /// The system refused something else.
    #[error("the holder cannot run")]
    System(#[source] io::Error),
}

/// Runs as a holder until SIGTERM or SIGINT.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let reason = host::error_chain(&error);
            host::logging::last_words(&reason);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), HolderError> {
    let settings = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let settings: Settings =
        settings.and_then(|file| document::read(&file)).map_err(HolderError::Settings)?;
    if settings.bound_to_parent {
        host::end_with_parent()?;
    }
    host::forbid_dumps()?;
    // Workers raise theirs again: the death of one of them is survived.
    host::set_oom_score(-1000);
    let inherited = host::inherited::take_descriptors();
    let user = user::choose(settings.config.user.as_deref())?;
    // One thread: there is little to do, and what there is should be easy to follow.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HolderError::System)?;
    runtime.block_on(async {
        let shutdown = host::shutdown::on_signal().map_err(HolderError::System)?;
        supervise(settings.config, user, inherited, shutdown).await
    })
}

async fn supervise(
    config: Config,
    user: Option<User>,
    inherited: Vec<(String, OwnedFd)>,
    shutdown: CancellationToken,
) -> Result<(), HolderError> {
    let orders = control::socket_beside(&config.socket);
    let listener = Socket::bind(&config.socket)?;
    let orders = Socket::bind(&orders)?;
    let control = orders.listener.try_clone().and_then(|listener| {
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    });
    let control = Control::listen(control.map_err(HolderError::System)?);
    let shared = listener.listener.try_clone().map_err(HolderError::System)?;
    let estate = match inheritance::take(inherited, &config, &shared) {
        Some(estate) => estate,
        None => {
            let estate = Estate::establish(&config, shared)?;
            inheritance::leave(&estate, &config);
            estate
        }
    };
    let mending = Mending::new(&config.socket, &estate);
    Supervisor::new(config, user, estate, control, mending).run(shutdown).await
}

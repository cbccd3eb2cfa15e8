//! As much of a service manager as keeps descriptors for the next process (systemd's FD store).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::process::SECRETFS;

pub(crate) struct ServiceManager {
    path: PathBuf,
    heard: Arc<Mutex<Heard>>,
}

struct Heard {
    socket: UnixDatagram,
    store: Vec<(String, OwnedFd)>,
    ready: bool,
}

impl Heard {
    /// Hears all that has been said.
    fn hear(&mut self) {
        let mut text = [0; 4096];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut buffer = [IoSliceMut::new(&mut text)];
            let Ok(received) = recvmsg(&self.socket, &mut buffer, &mut control, RecvFlags::CMSG_CLOEXEC)
            else {
                return;
            };
            let descriptors: Vec<OwnedFd> = control
                .drain()
                .filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(rights) => Some(rights.collect::<Vec<_>>()),
                    _ => None,
                })
                .flatten()
                .collect();
            let said = String::from_utf8_lossy(&text[..received.bytes]).into_owned();
            let name =
                said.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
            self.ready |= said.lines().any(|line| line == "READY=1");
            if said.lines().any(|line| line == "FDSTOREREMOVE=1") {
                self.store.retain(|(stored, _)| *stored != name);
            } else {
                self.store.extend(descriptors.into_iter().map(|descriptor| (name.clone(), descriptor)));
            }
        }
    }
}

impl ServiceManager {
    /// One that listens all the time: who speaks to a service manager counts on that, and a socket has
    /// room for ten messages.
    pub(crate) fn listen(path: PathBuf) -> Self {
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let readable = socket.try_clone().expect("a socket");
        let heard = Arc::new(Mutex::new(Heard { socket, store: Vec::new(), ready: false }));
        let listening = Arc::downgrade(&heard);
        thread::spawn(move || {
            let look = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            while let Some(heard) = listening.upgrade() {
                heard.lock().expect("not poisoned").hear();
                drop(heard);
                let _ = poll(&mut [PollFd::new(&readable, PollFlags::IN)], Some(&look));
            }
        });
        Self { path, heard }
    }

    /// Hears all that has been said.
    pub(crate) fn hear(&self) {
        drop(self.heard());
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        let mut heard = self.heard.lock().expect("not poisoned");
        heard.hear();
        heard
    }

    /// What is kept.
    pub(crate) fn stored(&self) -> Vec<String> {
        self.heard().store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Whether it was told that the service is ready, since it was asked last.
    pub(crate) fn told_ready(&self) -> bool {
        std::mem::take(&mut self.heard().ready)
    }

    /// The command that starts a node with all that is kept, and stays kept.
    pub(crate) fn start_command(&self, config: &Path) -> (Command, Vec<OwnedFd>) {
        let heard = self.heard();
        let copies = heard.store.iter().map(|(name, kept)| (name.clone(), kept.try_clone().expect("a copy")));
        let (names, kept): (Vec<_>, Vec<_>) = copies.unzip();
        let mut script = String::new();
        for (place, descriptor) in kept.iter().enumerate() {
            // bash gives them the numbers that they must have.
            fcntl_setfd(descriptor, FdFlags::empty()).expect("ours");
            script.push_str(&format!("exec {}<&{}; ", place + 3, descriptor.as_raw_fd()));
        }
        script.push_str("export LISTEN_PID=$$; exec \"$0\" node run");
        let mut command = Command::new("bash");
        command.args(["-c", &script, SECRETFS]).env_clear();
        command
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("NOTIFY_SOCKET", &self.path)
            .env("LISTEN_FDS", kept.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("SECRETFS_CONFIG", config)
            .env("SECRETFS_LOG", "debug");
        if kept.is_empty() {
            command.env_remove("LISTEN_FDS").env_remove("LISTEN_FDNAMES");
        }
        (command, kept)
    }
}

//! Who watches files with inotify(7), on the host and in containers.

use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::deadline;
use super::engine::{Container, Engine};

/// The argument that makes this program watch the path behind it, and print what it sees.
pub(crate) const COMMAND: &str = "--watch";

/// A watch of a file or a directory.
pub(crate) struct Watch {
    inotify: OwnedFd,
    seen: Vec<String>,
}

impl Watch {
    pub(crate) fn new(path: &Path) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        // Who opens what is seen by all; here it would only be in the way.
        let opens = WatchFlags::OPEN | WatchFlags::ACCESS | WatchFlags::CLOSE_NOWRITE;
        inotify::add_watch(&inotify, path, WatchFlags::ALL_EVENTS - opens).expect("a watch");
        Self { inotify, seen: Vec::new() }
    }

    /// What was seen and not waited for, such as `CLOSE_WRITE key`.
    pub(crate) fn seen(&mut self) -> &[String] {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.inotify, &mut space);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    let name = name.unwrap_or_default();
                    let event = format!("{} {}", name_of(event.events()), name.to_string_lossy());
                    self.seen.push(event.trim_end().to_owned());
                }
                Err(Errno::AGAIN) => return &self.seen,
                Err(error) => panic!("inotify: {error}"),
            }
        }
    }

    /// Waits until this has been seen, and nothing else.
    pub(crate) fn wait_for(&mut self, expected: &[&str]) {
        deadline::eventually(&format!("{expected:?} is seen"), || {
            let seen = self.seen();
            assert!(expected.starts_with(&seen.iter().map(String::as_str).collect::<Vec<_>>()), "{seen:?}");
            seen.len() == expected.len()
        });
        self.seen.clear();
    }
}

fn name_of(events: ReadFlags) -> String {
    let names = [
        (ReadFlags::MODIFY, "MODIFY"),
        (ReadFlags::CLOSE_WRITE, "CLOSE_WRITE"),
        (ReadFlags::ATTRIB, "ATTRIB"),
        (ReadFlags::CREATE, "CREATE"),
        (ReadFlags::DELETE, "DELETE"),
        (ReadFlags::DELETE_SELF, "DELETE_SELF"),
        (ReadFlags::IGNORED, "IGNORED"),
        (ReadFlags::ISDIR, "ISDIR"),
    ];
    let names: Vec<_> =
        names.iter().filter(|(flag, _)| events.contains(*flag)).map(|(_, name)| *name).collect();
    names.join("|")
}

/// Watches until it is killed.
#[allow(clippy::print_stdout, reason = "what it is there for")]
pub(crate) fn main(path: &str) -> ExitCode {
    let mut watch = Watch::new(path.as_ref());
    println!("ready");
    loop {
        let ready = rustix::event::PollFd::new(&watch.inotify, rustix::event::PollFlags::IN);
        if rustix::event::poll(&mut [ready], None).is_err() {
            return ExitCode::FAILURE;
        }
        watch.seen();
        watch.seen.drain(..).for_each(|event| println!("{event}"));
    }
}

/// A program in a container that watches a path there.
pub(crate) struct WatchingContainer(Container);

impl WatchingContainer {
    pub(crate) fn start(volume: &str, path: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let program = format!("{}:/watch:ro", program.display());
        // This program is not static.
        let volumes = [volume, &program, "/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"];
        let options: Vec<_> = volumes.iter().flat_map(|volume| ["--volume", *volume]).collect();
        let container = Engine::shared().start_container(&options, &["/watch", COMMAND, path]);
        let watching = Self(container);
        deadline::eventually("the container watches", || !watching.printed().is_empty());
        watching
    }

    fn printed(&self) -> Vec<String> {
        self.0.printed().lines().map(str::to_owned).collect()
    }

    /// Waits until this, and nothing else, has been seen since the start.
    pub(crate) fn wait_for_all(&self, expected: &[&str]) {
        deadline::eventually(&format!("the container sees {expected:?}"), || {
            let seen = self.printed();
            let seen: Vec<_> = seen.iter().skip(1).map(String::as_str).collect();
            assert!(expected.starts_with(&seen), "{seen:?}");
            seen.len() == expected.len()
        });
    }
}

//! What `/proc` says of a process (proc(5)).
//!
//! Who is asked about waits for its open to be answered, so it neither ends nor becomes another program
//! meanwhile, unless it is killed. Whoever asks too late learns of the process that has the number then:
//! each answer is true of one process, whose token is taken first and must still hold at the end.

use std::os::fd::{AsFd, OwnedFd};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use rustix::io::{Errno, read};
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::message::Identity;
use super::token::{FILES, Token};
use super::{cgroup, kernel};

/// The largest file that is read: a control group for each of a dozen hierarchies, with long paths.
const MOST_BYTES: usize = 64 << 10;
/// A clock that is set by less does not change when processes were started.
const SAME_CLOCK: SignedDuration = SignedDuration::from_secs(1);
/// How often a process is looked at that becomes another one meanwhile.
const TRIES: usize = 3;

/// Looks at processes.
#[derive(Debug)]
pub(super) struct Observer {
    proc: OwnedFd,
    ticks_per_second: i64,
    /// When this machine was started, by the clock of now.
    booted: Timestamp,
}

/// What was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) identity: Identity,
    /// Nothing of a process that cannot be remembered.
    pub(super) token: Option<Token>,
}

impl Observer {
    /// Looks into a directory that is `/proc`.
    pub(super) fn new(proc: OwnedFd) -> Self {
        let ticks_per_second = i64::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100).max(1);
        Self { proc, ticks_per_second, booted: booted() }
    }

    /// Looks at the process that a thread is of. Nothing if it is not there.
    pub(super) fn look_at(&mut self, pid: u32) -> Option<Seen> {
        let now = booted();
        if now.duration_since(self.booted).abs() > SAME_CLOCK {
            self.booted = now;
        }
        (0..TRIES).find_map(|_| {
            let seen = self.look_once(pid).ok()?;
            seen.token.as_ref().is_none_or(Token::holds).then_some(seen)
        })
    }

    fn look_once(&self, pid: u32) -> Result<Seen, Errno> {
        let thread = self.open(self.proc.as_fd(), &pid.to_string(), OFlags::DIRECTORY)?;
        // First: what is read then is of who has this memory, or of nobody.
        let token = self.token(&thread);
        let status = self.read(&thread, "status")?;
        let pid_of_process = number(&status, "Tgid:").ok_or(Errno::SRCH)?;
        let process = self.open(self.proc.as_fd(), &pid_of_process.to_string(), OFlags::DIRECTORY)?;
        let (cgroup, container) =
            self.read(&thread, "cgroup").ok().and_then(|text| cgroup::parse(&text)).unzip();
        let identity = Identity {
            pid: pid_of_process,
            started: self.read(&process, "stat").ok().and_then(|stat| self.started(&stat)),
            // The process's own is gone with its first thread, which may end before the others.
            executable: readlinkat(&thread, "exe", Vec::new()).ok().map(|path| super::text(path.to_bytes())),
            cgroup,
            container: container.flatten(),
        };
        let parent = number(&status, "PPid:").ok_or(Errno::SRCH)?;
        Ok(Seen { identity, token: token.filter(|_| has_own_memory(pid, parent)) })
    }

    fn token(&self, thread: &OwnedFd) -> Option<Token> {
        let [memory, alive] = FILES.map(|name| self.open(thread.as_fd(), name, OFlags::empty()));
        Some(Token::new([memory.ok()?, alive.ok()?]))
    }

    fn open(&self, directory: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        openat(directory, name, flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }

    fn read(&self, directory: &OwnedFd, name: &str) -> Result<Vec<u8>, Errno> {
        let file = self.open(directory, name, OFlags::empty())?;
        let mut content = vec![0; 4096];
        let mut length = 0;
        loop {
            match read(&file, &mut content[length..])? {
                0 => break,
                more => length += more,
            }
            if length == content.len() {
                if length >= MOST_BYTES {
                    break;
                }
                content.resize(2 * length, 0);
            }
        }
        content.truncate(length);
        Ok(content)
    }

    /// Field 22 of proc_pid_stat(5), in clock ticks since the machine was started. The second field is the
    /// program's name in parentheses and may have anything in it.
    fn started(&self, stat: &[u8]) -> Option<Timestamp> {
        let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let fields = std::str::from_utf8(stat.get(behind_name..)?).ok()?;
        let ticks: i64 = fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
        let since = SignedDuration::from_micros(ticks.checked_mul(1_000_000 / self.ticks_per_second)?);
        self.booted.checked_add(since).ok()
    }
}

/// To 10 ms: two clocks cannot be read at once.
fn booted() -> Timestamp {
    let seconds = |clock| {
        let Timespec { tv_sec, tv_nsec } = clock_gettime(clock);
        SignedDuration::new(tv_sec, tv_nsec as i32)
    };
    let booted = (seconds(ClockId::Realtime) - seconds(ClockId::Boottime)).as_millis() / 10 * 10;
    i64::try_from(booted).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or_default()
}

/// A number of `/proc/PID/status`.
fn number(status: &[u8], name: &str) -> Option<u32> {
    let lines = std::str::from_utf8(status).ok()?.lines();
    lines.filter_map(|line| line.strip_prefix(name)).find_map(|value| value.trim().parse().ok())
}

/// Whether it does not have its parent's memory, as one has between vfork(2) and exec: its token would
/// hold after that, as long as the parent lives. Who cannot be compared may have it.
fn has_own_memory(pid: u32, parent: u32) -> bool {
    // The first process of a namespace is made by nobody in it.
    pid == 1 || parent != 0 && kernel::have_one_memory(pid, parent) == Ok(false)
}

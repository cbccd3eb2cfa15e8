//! Real processes, which this one looks at as the witness does. They need root.

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::look::Observer;
use super::*;
use crate::host::test_child;

fn observer() -> Observer {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Observer::new(openat(CWD, "/proc", flags, Mode::empty()).expect("/proc"))
}

/// A witness on a thread of this process, for those who ask through what is returned.
pub(crate) fn in_this_process() -> Channel {
    let (asking, answering) = Channel::pair().expect("a channel");
    std::thread::spawn(move || {
        let mut observer = observer();
        while let Ok(packet) = answering.receive() {
            answer(&answering, &mut observer, packet.read().expect("a question"));
        }
    });
    asking
}

/// A shell of another user that says that it is there, and does what it is told.
struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Shell {
    fn start() -> Self {
        let mut command = Command::new("/bin/sh");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = test_child::as_nobody(&mut command).spawn().expect("a shell");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let mut shell = Self { child, stdin, stdout };
        shell.tell("echo");
        shell
    }

    /// Has it do something that ends with a line.
    fn tell(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").expect("a shell that listens");
        self.stdout.read_exact(&mut [0]).expect("a line");
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        self.child.kill().expect("it is ours");
        self.child.wait().expect("it is ours");
    }
}

fn executable(seen: &Seen) -> &str {
    seen.identity.executable.as_deref().expect("a program")
}

#[test]
fn a_process_of_another_user_is_seen_with_its_program_and_its_start() {
    let before = jiff::Timestamp::now();
    let shell = Shell::start();
    let seen = observer().look_at(shell.child.id()).expect("it is there");
    let program = std::fs::canonicalize("/bin/sh").expect("a shell");
    assert_eq!(executable(&seen), program.to_str().expect("a plain path"));
    let started = seen.identity.started.expect("a time");
    let off = started.duration_since(before).as_millis();
    assert!((-50..5_000).contains(&off), "started {off} ms after it was not there");
    assert_eq!(observer().look_at(shell.child.id()).expect("it is there").identity, seen.identity);
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("a control group");
    assert_eq!(seen.identity.cgroup, cgroup::parse(own.as_bytes()).map(|(path, _)| path));
    assert!(seen.token.expect("a token").holds());
}

#[test]
fn another_program_in_the_same_process_is_not_taken_for_the_first() {
    let mut shell = Shell::start();
    let mut observer = observer();
    let before = observer.look_at(shell.child.id()).expect("it is there");
    let token = before.token.as_ref().expect("a token");
    shell.tell("echo");
    assert!(token.holds());
    shell.tell("exec /usr/bin/env sh -c 'echo; exec cat'");
    // `env` and `cat` both have other memory than the shell.
    assert!(!token.holds());
    let pid = shell.child.id();
    let ends_in_cat = || executable(&observer.look_at(pid).expect("it is there")).ends_with("/cat");
    crate::fuse::tests::eventually("it is cat", ends_in_cat);
}

#[test]
fn who_has_ended_is_not_taken_for_who_comes_later() {
    let shell = Shell::start();
    let pid = shell.child.id();
    let token = observer().look_at(pid).expect("it is there").token.expect("a token");
    assert!(token.holds());
    drop(shell);
    assert!(!token.holds());
    assert!(observer().look_at(pid).is_none_or(|seen| seen.identity.executable.is_none()));
}

#[test]
fn a_thread_is_its_process() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        sender.send(tid).expect("the test");
        let _ = ended.recv();
    });
    let tid = receiver.recv().expect("a thread");
    let mut observer = observer();
    let seen = observer.look_at(tid).expect("it is there");
    let process = observer.look_at(std::process::id()).expect("this one");
    assert_eq!(seen.identity, process.identity);
    assert_eq!(seen.identity.pid, std::process::id());
    let token = seen.token.expect("a token");
    assert!(token.holds());
    drop(end);
    thread.join().expect("it ends");
    crate::fuse::tests::eventually("the thread is gone", || !token.holds());
    assert!(process.token.expect("a token").holds(), "the process is not");
}

/// A program whose first thread has ended is the same one in its others. It says which they are.
#[test]
fn a_program_is_seen_after_the_end_of_its_first_thread() {
    let script = "import ctypes, sys, threading\n\
        def stay():\n    print(threading.get_native_id(), flush=True)\n    sys.stdin.read(1)\n\
        threading.Thread(target=stay).start()\n\
        ctypes.CDLL(None).pthread_exit(None)\n";
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = python.spawn().expect("Python 3, which this test needs");
    let mut line = String::new();
    let mut stdout = io::BufReader::new(program.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("a thread's id");
    let thread: u32 = line.trim().parse().expect("a thread's id");
    let link = format!("/proc/{}/exe", program.id());
    crate::fuse::tests::eventually("its first thread has ended", || std::fs::read_link(&link).is_err());
    let seen = observer().look_at(thread).expect("it is there");
    assert_ne!(thread, program.id());
    assert_eq!(seen.identity.pid, program.id());
    assert!(executable(&seen).contains("python"), "{seen:?}");
    assert!(seen.identity.started.is_some() && seen.token.is_some_and(|token| token.holds()));
    program.kill().expect("it is ours");
    program.wait().expect("it is ours");
}

/// Between vfork(2) and exec a child has its parent's memory, whose token would hold after that.
#[test]
fn a_child_with_its_parents_memory_is_not_remembered() {
    let script = "import ctypes, os, sys\n\
        libc = ctypes.CDLL(None)\n\
        pid = libc.vfork()\n\
        if pid == 0:\n    os.write(1, b'%d\\n' % os.getpid())\n    os.read(0, 1)\n    os._exit(0)\n\
        os.waitpid(pid, 0)\n";
    let mut python = Command::new("python3");
    python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parent = python.process_group(0).spawn().expect("Python 3, which this test needs");
    let mut stdout = io::BufReader::new(parent.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("a process id");
    let child: u32 = line.trim().parse().expect("a process id");
    let mut observer = observer();
    let of_child = observer.look_at(child).expect("it is there");
    let of_parent = observer.look_at(parent.id()).expect("it is there");
    assert!(of_child.token.is_none());
    assert!(of_parent.token.is_some_and(|token| token.holds()));
    assert_eq!(of_child.identity.executable, of_parent.identity.executable);
    drop(parent.stdin.take());
    parent.wait().expect("it ends");
}

#[test]
fn what_is_no_text_is_escaped() {
    assert_eq!(text(b"/usr/bin/caf\xc3\xa9"), "/usr/bin/café");
    assert_eq!(text(b"/tmp/\xff\xfe x (deleted)"), "/tmp/\\xff\\xfe x (deleted)");
}

/// In a child, since it is for good.
#[test]
fn a_confined_witness_sees_processes_and_no_file() {
    const NAME: &str = "witness::tests::a_confined_witness_sees_processes_and_no_file";
    let Some(pid) = test_child::part() else {
        let shell = Shell::start();
        return test_child::succeeds(NAME, &shell.child.id().to_string());
    };
    let pid: u32 = pid.parse().expect("a process id");
    let root = sandbox::leave_files();
    assert_eq!(root, "/", "this host does not let a witness leave its files");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut observer = Observer::new(openat(CWD, root, flags, Mode::empty()).expect("/proc"));
    sandbox::enter().expect("a sandbox");
    let seen = observer.look_at(pid).expect("it is there");
    assert!(executable(&seen).ends_with("sh"), "{seen:?}");
    assert!(seen.token.expect("a token").holds());
    let open = |path: &str| openat(CWD, path, OFlags::RDONLY, Mode::empty()).map(drop);
    assert_eq!(open("/etc/passwd"), Err(Errno::NOENT));
    assert_eq!(open("/1/status"), Ok(()), "this is /proc");
    for link in ["/1/root/etc/passwd", "/self/root/etc/passwd", "/1/exe", "/1/cwd"] {
        assert_eq!(open(link), Err(Errno::LOOP), "{link}");
    }
    let create = openat(CWD, "/1/comm", OFlags::WRONLY, Mode::empty()).map(drop);
    assert_eq!(create, Err(Errno::NOSYS));
    let kill = rustix::process::kill_process(rustix::process::Pid::INIT, rustix::process::Signal::CONT);
    assert_eq!(kill, Err(Errno::NOSYS));
}
